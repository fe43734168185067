"""MAML with a TRPO outer step (Schulman, Levine, Moritz, Jordan and Abbeel, ICML 2015; as in Finn, Abbeel and Levine, ICML 2017).

    inner step   theta_i' = theta - a grad L_LR(theta_i),  L_LR = - sum_t (pi_theta / pi_old) A
    outer step   theta <- theta - c x,  F x = g,  g = grad of the mean over tasks of L_LR(theta_i')
                 c the largest of sqrt(2 max_kl / x F x) times 1, 0.8, 0.8^2, .. with KL(pi_old', pi_theta') <= max_kl and a
                 surrogate that is no worse

KL is the mean, over tasks and over the shots that the outer loss counts, of the divergence of the *adapted* policies from those
that drew the data, and F its Gauss-Newton matrix with respect to the *start*: v -> J^T M J v, where J is the derivative of the
adapted policies' outputs, through the updates, and M the Fisher information of those outputs in closed form. Before the start
moves, the divergence and its gradient are 0 and F is its Hessian, without a third derivative. J's graph is built once per
outer step, on ``curvature_share`` of the episodes, and serves every iteration of the conjugate gradients; the search along x
measures loss and divergence on all data. Each player has a trust region of its own; the other's adapted weights are constants.

Order: second; with ``second_order=False`` updates are constants in J and in g. Biased as LVC is.

Limits: the surrogate must be ``lvc``; not with ``peer``. ``outer_lr`` plays no part, and the step is not optimistic: two players
that meet only each other chase each other. Step sizes are learned by Adam beside it, after the search and outside the trust
region. With K = 0 it is TRPO on all tasks at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, adapting, stack
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import FIRST_ORDER, Diverged, Through, leaves, unroll
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.learner import Gradients, Learner, Update
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.problems.problem import Losses, Mixture, Problem, Tasks

Shot = TypeVar("Shot")

Product = Callable[[Tensor], Tensor]  # of a matrix with a vector


@dataclass(frozen=True)
class TRPOConfig(MAMLConfig):
    """MAML's settings, in which ``outer_lr`` has no effect, and

    Attributes:
        max_kl: bound on the mean divergence of the adapted policies from those that drew the data, in nats.
        cg_iterations: iterations of the conjugate gradients.
        damping: added to F's diagonal.
        line_search_steps: number of step lengths that are tried; if none is good, the start does not move.
        backtrack: each step length is this share of the one before.
        curvature_share: share of each task's episodes that F uses.
    """

    max_kl: float = 0.01
    cg_iterations: int = 10
    damping: float = 1e-5
    line_search_steps: int = 15
    backtrack: float = 0.8
    curvature_share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cg_iterations", "line_search_steps"):
            check_whole(name, getattr(self, name))
        if not self.max_kl > 0:
            raise InvalidInputError(f"max_kl={self.max_kl!r} must be above 0")
        if not self.damping >= 0:
            raise InvalidInputError(f"damping={self.damping!r} must be at least 0")
        if not 0 < self.backtrack < 1:
            raise InvalidInputError(f"backtrack={self.backtrack!r} must be between 0 and 1")
        if not 0 < self.curvature_share <= 1:
            raise InvalidInputError(f"curvature_share={self.curvature_share!r} must be above 0 and at most 1")
        if self.peer:
            raise InvalidInputError("peer=True: each player has a trust region of its own; use method maml")


class TRPO(Learner):
    """See the module.

    Args:
        start: initial weights per adapting player.
        config: settings.
        heads: see ``MAML``.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: TRPOConfig,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
    ) -> None:
        self.config = config
        self.maml = MAML(start, config, heads)
        self.starts, self.parts, self.inner = self.maml.starts, self.maml.parts, self.maml.inner

    def counted(self, history: list[Shot]) -> list[Shot]:
        """See ``Learner``."""
        return self.maml.counted(history)

    def gradients(self, problem: Tasks) -> Gradients:
        """See ``MAML.gradients``."""
        return self.maml.gradients(problem)

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """One outer step of every player within its trust region; ``lr_scale`` is that of the step sizes' Adam alone.

        Returns:
            Metrics by name. ``kl``: the adapted policies' divergence; ``improvement``: the decrease of the surrogate loss, on
            its own data; ``step_fraction``: share of the step to the border, 0 where no step was taken.

        Raises:
            FloatingPointError: a gradient or curvature is not finite; nothing was changed.
        """
        if isinstance(problem, Mixture):
            raise InvalidInputError("persona_share: personas are not supported by TRPO's search; use method maml")
        gradients, (unrolled,) = yield from self.maml.outer_gradients(problem)
        replay = cast(Problem, unrolled.replay(None))
        part = cast(Problem, unrolled.replay(None, self.config.curvature_share))
        flat = {role: _flat(list(gradient.values())) for role, (gradient, _) in gradients.items()}
        steps = {role: self._border(role, part, gradient) for role, gradient in flat.items()}
        metrics: dict[str, float] = {}
        for role, step in steps.items():
            found = {"gradient_norm": float(flat[role].norm())} | self._search(role, replay, step)
            metrics |= {f"{role}/{name}": value for name, value in found.items()}
        for role, (_, rate_gradient) in gradients.items():
            metrics |= self.maml.step_rates(role, rate_gradient, lr_scale)
        return self.maml.outcome(metrics, [unrolled])

    def curvature(self, role: Role, replay: Problem) -> Product:
        """The product v -> F v, see the module, where the player is as it was when the data were drawn.

        Args:
            role: the player.
            replay: the data for F.
        """
        own = list(adapting(self.start[role]).values())
        counted = self.counted(self._unroll(role, replay, self.start[role], Through(self.config.second_order)))
        outputs = torch.cat([losses.coordinates[role].flatten() for losses in counted])
        outputs = outputs / math.sqrt(len(counted) * replay.tasks[role])
        # J^T u is linear in u, and so J v is its derivative with respect to u in the direction v.
        u = torch.zeros_like(outputs, requires_grad=True)
        pulled = _flat(torch.autograd.grad(outputs, own, u, create_graph=True, materialize_grads=True))

        def product(v: Tensor) -> Tensor:
            (pushed,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
            return _flat(torch.autograd.grad(outputs, own, pushed, retain_graph=True, materialize_grads=True))

        return product

    def measure(self, role: Role, replay: Problem, start: Weights) -> tuple[float, float]:
        """The player's surrogate loss and mean divergence on ``replay``, from the start ``start``."""
        history = self._unroll(role, replay, leaves({role: start})[role], FIRST_ORDER)
        apart = torch.stack([losses.divergence[role].mean() for losses in self.counted(history)]).mean()
        return float(self.maml.outer_loss(role, history).detach()), float(apart.detach())

    def _unroll(self, role: Role, replay: Problem, start: Weights, through: Through) -> list[Losses]:
        rates = {role: self.rates(role).detach()}
        return unroll(replay, {role: stack(start, replay.tasks[role])}, rates, self.config.steps, through)[0]

    def _border(self, role: Role, replay: Problem, gradient: Tensor) -> Tensor:
        """The step along the natural gradient at whose end the divergence is ``max_kl`` to second order."""
        product = self.curvature(role, replay)

        def damped(v: Tensor) -> Tensor:
            return product(v) + self.config.damping * v

        x = conjugate_gradients(damped, gradient, self.config.cg_iterations)
        curved = float(x @ damped(x))
        if not math.isfinite(curved):
            raise FloatingPointError(f"the {role}'s curvature is not finite")
        return x * math.sqrt(2 * self.config.max_kl / curved) if curved > 0 else torch.zeros_like(x)

    def _search(self, role: Role, replay: Problem, step: Tensor) -> dict[str, float]:
        """Move the start by the first share of ``-step`` that is allowed, or not at all; returns metrics."""
        config, start = self.config, self.start[role]
        before, _ = self.measure(role, replay, start)
        for i in range(config.line_search_steps):
            fraction = config.backtrack**i
            moved = _add(start, step, -fraction)
            try:
                loss, kl = self.measure(role, replay, moved)
            except Diverged:  # the step is too long
                continue
            if kl <= config.max_kl and loss <= before:
                with torch.no_grad():
                    for name, value in adapting(start).items():
                        value.copy_(moved[name])
                return {"kl": kl, "improvement": before - loss, "step_fraction": fraction}
        return {"kl": 0.0, "improvement": 0.0, "step_fraction": 0.0}


def conjugate_gradients(product: Product, b: Tensor, iterations: int, tolerance: float = 1e-10) -> Tensor:
    """Solve A x = b for a symmetric positive definite matrix that is known by its products (Hestenes and Stiefel, 1952).

    If b has components in directions without curvature, it stops early with the present solution.

    Args:
        product: v -> A v.
        b: [n].
        iterations: maximum number; n are exact.
        tolerance: stop where the squared residual is below this share of b's.

    Returns:
        [n], approximated from 0 on.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, size = b.clone(), float(b @ b)
    enough = tolerance * size
    for _ in range(iterations):
        if size <= enough:
            break
        image = product(direction)
        curved = float(direction @ image)
        if curved <= 0:  # by rounding, or along a direction that changes nothing
            break
        length = size / curved
        x, residual = x + length * direction, residual - length * image
        before, size = size, float(residual @ residual)
        direction = residual + size / before * direction
    return x


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


@torch.no_grad()
def _add(weights: Weights, step: Tensor, factor: float) -> Weights:
    """Weights after a multiple of a flat step of those that adapt."""
    own = adapting(weights)
    parts: list[Tensor] = list(torch.split(step, [value.numel() for value in own.values()]))
    return weights | {n: v + factor * part.view_as(v) for (n, v), part in zip(own.items(), parts, strict=True)}
