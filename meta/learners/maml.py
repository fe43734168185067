"""MAML for both players (Finn, Abbeel and Levine, ICML 2017), and its relatives that differ in a setting.

    start        theta (protagonist), phi (adversary)
    inner step   theta_i <- theta_i - a_k grad L_protagonist(theta_i, phi_i)     } at once, K times,
                 phi_i   <- phi_i   - b_k grad L_adversary(theta_i, phi_i)       } for every task i
    outer loss   mean over tasks and over shots 1..K of each player's loss after adaptation, against the adapted other

In a zero-sum game this is the min over theta, max over phi, of the sum over tasks of L(theta_i, phi_i). What flows: by
default each player's own learning (the other's adapted weights are constants); with ``peer`` the total derivative through
both players' updates.

Limits: second order differentiates through every update, so memory grows linearly with K; with ``recompute`` it does not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, stack
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import Diverged, unroll
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.problems.problem import Batch, Losses, Mixture, Players, join, parts_of

Shot = TypeVar("Shot")


@dataclass(frozen=True)
class MAMLConfig:
    """How to meta-learn.

    Attributes:
        steps: K, updates per task in training; 0 is joint training (no adaptation).
        inner_lr: step size of every update at the start of training.
        learn_inner_lr: meta-learn the step sizes (their logarithms).
        inner_lr_per: each update has a step size of its own for all weights (``step``), for each weight ``tensor`` as in
            MAML++ (Antoniou, Edwards and Storkey, ICLR 2019), or for each ``number`` in them as in Meta-SGD.
        adapts: which weights an update changes: ``all``, or those of the ``head`` alone as in ANIL.
        second_order: differentiate through the updates; False is first-order MAML.
        outer_shots: which losses after adaptation are averaged: of shots 1..K, or of the last alone.
        peer: total derivative through the other player's updates too.
        recompute: build the graph of each update again in the backward pass instead of keeping it: memory no longer grows
            with K, for about a third more time. None: where the method's chains are long (Meta-PG, Meta-MAPG, LOLA).
        outer_lr: Adam's step size at the start; decays linearly to a tenth.
        inner_lr_outer_lr: the same for the logarithms of the inner step sizes.
        momentum: of the outer step where two players learn (0.9 where one does). Where they meet only each other, momentum
            undoes what the optimistic step is for; where scripted opponents hold them in place, it evens out noise.
        max_norm: bound on the outer gradient's global norm, per player.
        max_skipped: tasks of a run that may be left out because an update blew a player's weights up; one more stops the run.
    """

    steps: int = 3
    inner_lr: float = 0.5
    learn_inner_lr: bool = True
    inner_lr_per: Literal["step", "tensor", "number"] = "tensor"
    adapts: Literal["all", "head"] = "all"
    second_order: bool = True
    outer_shots: Literal["all", "last"] = "all"
    peer: bool = False
    recompute: bool | None = None
    outer_lr: float = 3e-3
    inner_lr_outer_lr: float = 1e-2
    momentum: float = 0.0
    max_norm: float = 10.0
    max_skipped: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise InvalidInputError(f"momentum={self.momentum!r} must be in [0, 1)")
        if self.steps < 0:
            raise InvalidInputError(f"steps={self.steps} must be at least 0")
        for name in ("inner_lr", "outer_lr", "inner_lr_outer_lr", "max_norm"):
            if not getattr(self, name) > 0:
                raise InvalidInputError(f"{name}={getattr(self, name)!r} must be above 0")
        check_whole("max_skipped", self.max_skipped, 0)
        if self.peer and not self.second_order:
            raise InvalidInputError("peer=True needs second_order=True: it is a derivative through the other's updates")
        if self.recompute and not self.second_order:
            raise InvalidInputError("recompute=True needs second_order=True: else there is no graph to build again")


class MAML:
    """Meta-learned starts and step sizes of the adapting players.

    Args:
        start: initial weights per adapting player.
        config: settings.
        heads: per player, the names of its head's weights; needed where the head alone adapts.

    Raises:
        InvalidInputError: the head alone is to adapt, and a player has none.

    Attributes:
        start: per role, leaves that ``update`` moves.
        log_rates: per role, a leaf: [K, 1], [K, P] (weight tensors) or [K, D] (numbers in them).
        skipped: tasks that were left out so far, see ``MAMLConfig.max_skipped``.
    """

    simultaneous = True  # whether both players move in an outer step

    def __init__(
        self, start: Mapping[Role, Weights], config: MAMLConfig, heads: Mapping[Role, tuple[str, ...]] | None = None
    ) -> None:
        self.config = config
        self.start: Players = {
            role: {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
            for role, weights in start.items()
        }
        self.log_rates = {
            role: torch.full(
                (config.steps, _count(weights, config.inner_lr_per)),
                math.log(config.inner_lr),
                dtype=next(iter(weights.values())).dtype,
            ).requires_grad_()
            for role, weights in self.start.items()
        }
        self.skipped = 0
        self._adapting = {
            role: _mask(role, weights, (heads or {}).get(role, ()), config)
            for role, weights in self.start.items()
            if config.adapts == "head"
        }
        self._optimisers = {
            role: self.outer_optimiser(weights, config.outer_lr) for role, weights in self.start.items()
        }
        learn = config.learn_inner_lr and config.steps > 0
        self._rate_optimisers = {
            role: self.outer_optimiser({"log_rates": rates}, config.inner_lr_outer_lr)
            for role, rates in self.log_rates.items()
            if learn
        }

    def outer_optimiser(self, params: Weights, lr: float) -> OuterOptimiser:
        """What moves some of the leaves: optimistic where two players move at once."""
        optimistic = self.simultaneous and len(self.start) > 1
        momentum = self.config.momentum if optimistic else 0.9
        return OuterOptimiser(params, lr, optimistic, momentum, self.config.max_norm)

    def rates(self, role: Role) -> Tensor:
        """The player's step sizes, shaped as its ``log_rates``; 0 for weights that don't adapt ([K, P] at least, then)."""
        rates = torch.exp(self.log_rates[role])
        return rates * self._adapting[role] if role in self._adapting else rates

    def outer_losses(self, problem: Batch) -> dict[Role, Tensor]:
        """Each player's scalar outer loss on a batch of tasks, with its graph to the starts and step sizes."""
        history = self.unrolled(problem)
        return {role: self.outer_loss(role, history) for role in history[0].query}

    def unrolled(self, problem: Batch, moving: Collection[Role] | None = None, first: int = 0) -> list[Losses]:
        """The meta-learned players' losses at every shot, with their graph.

        Args:
            problem: a batch of tasks; personas in it learn as well, from their own starts at their own rates.
            moving: whose seats adapt; None: both.
            first: number of the first shot.
        """
        config, histories = self.config, []
        for number, part in enumerate(parts_of(problem)):
            tasks, given = part.problem.tasks, part.given
            own = [role for role in tasks if role not in given]
            players: Players = {role: self.stacked(role, tasks[role]) for role in own}
            rates = {role: self.rates(role) for role in own}
            for role, persona in given.items():
                players[role] = {n: v.detach().requires_grad_() for n, v in persona.weights.items()}
                rates[role] = next(iter(persona.weights.values())).new_full((config.steps, 1), persona.rate)
            try:
                history = unroll(
                    part.problem, players, rates, config.steps, config.second_order, config.peer, moving,
                    bool(config.recompute), first,
                )  # fmt: skip
            except Diverged as error:
                error.part = number
                raise
            histories.append([_of(own, losses) for losses in history] if given else history)
        return join(histories)

    def stacked(self, role: Role, tasks: int) -> Weights:
        """The weights, [tasks, ...] each, that a player begins its tasks with: its start in every one."""
        return stack(self.start[role], tasks)

    def outer_loss(self, role: Role, history: list[Losses]) -> Tensor:
        """A player's scalar outer loss from the losses at every shot."""
        return torch.stack([losses.query[role].mean() for losses in self.counted(history)]).mean()

    def counted(self, history: list[Shot]) -> list[Shot]:
        """Of something at every shot, that of those which the outer loss is the mean over."""
        last_alone = self.config.outer_shots == "last" or self.config.steps == 0
        return history[-1:] if last_alone else history[1:]

    def gradients(self, problem: Batch) -> dict[Role, tuple[Weights, Tensor]]:
        """Each player's outer gradient: with respect to its start and to its log step sizes."""
        losses = self.outer_losses(problem)
        result: dict[Role, tuple[Weights, Tensor]] = {}
        for i, (role, loss) in enumerate(losses.items()):
            inputs = [*self.start[role].values(), self.log_rates[role]]
            keep = i + 1 < len(losses)
            flat = torch.autograd.grad(loss, inputs, retain_graph=keep, materialize_grads=True)
            result[role] = (dict(zip(self.start[role], flat[:-1], strict=True)), flat[-1])
        return result

    def update(self, problem: Batch, lr_scale: float = 1.0) -> dict[str, float]:
        """One outer step on a batch of tasks; returns metrics by name.

        Raises:
            FloatingPointError: a gradient that is not finite, or updates that blew weights up in too many tasks; nothing was
                changed.
        """
        gradients = self.finite_gradients(problem)
        return self.step(gradients, lr_scale) | {"skipped_tasks": float(self.skipped)}

    def step(self, gradients: Mapping[Role, tuple[Weights, Tensor]], lr_scale: float = 1.0) -> dict[str, float]:
        """Move starts and step sizes along given outer gradients; returns metrics by name."""
        metrics = {}
        for role, (gradient, rate_gradient) in gradients.items():
            metrics[f"{role}/gradient_norm"] = self._optimisers[role].step(gradient, lr_scale)
            metrics |= self._step_rates(role, rate_gradient, lr_scale)
        return metrics

    def finite_gradients(self, problem: Batch) -> dict[Role, tuple[Weights, Tensor]]:
        """``gradients``, without the tasks in which an update blew up.

        Raises:
            FloatingPointError: see ``update``.
        """
        while True:
            try:
                gradients = self.gradients(problem)
                for role, (gradient, rate_gradient) in gradients.items():
                    check_finite(role, {**gradient, "the log inner rates": rate_gradient})
                return gradients
            except Diverged as error:
                self.skipped += len(error.tasks)
                if self.skipped > self.config.max_skipped:
                    raise FloatingPointError(f"{error} (tasks skipped so far: {self.skipped})") from None
                if isinstance(problem, Mixture):
                    problem.drop(error.part, error.role, error.tasks)
                else:
                    problem.drop(error.role, error.tasks)

    def _step_rates(self, role: Role, gradient: Tensor, lr_scale: float) -> dict[str, float]:
        """Move the step sizes, if they are learned; returns them as metrics."""
        if role in self._rate_optimisers:
            self._rate_optimisers[role].step({"log_rates": gradient}, lr_scale)
        rates = self.log_rates[role].mean(1).exp().tolist()
        return {f"{role}/inner_lr_{k + 1}": rate for k, rate in enumerate(rates)}

    def state(self) -> dict[str, Tensor]:
        """Everything that ``load`` needs, by name."""
        state: dict[str, Tensor] = {"skipped": torch.tensor(self.skipped)}
        for role, weights in self.start.items():
            state |= {f"{role}/start/{name}": value.detach() for name, value in weights.items()}
            state[f"{role}/log_rates"] = self.log_rates[role].detach()
            state |= {f"{role}/outer/{name}": value for name, value in self._optimisers[role].state().items()}
        for role, optimiser in self._rate_optimisers.items():
            state |= {f"{role}/rate_outer/{name}": value for name, value in optimiser.state().items()}
        return state

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state``."""
        self.skipped = int(state["skipped"])
        for role, weights in self.start.items():
            for name, value in weights.items():
                value.copy_(state[f"{role}/start/{name}"])
            self.log_rates[role].copy_(state[f"{role}/log_rates"])
            self._optimisers[role].load(below(state, f"{role}/outer/"))
        for role, optimiser in self._rate_optimisers.items():
            optimiser.load(below(state, f"{role}/rate_outer/"))


def check_finite(role: Role, gradient: Weights) -> None:
    """Raise ``FloatingPointError`` if a player's outer gradient is not finite, and say which part of it."""
    for name, value in gradient.items():
        if not torch.isfinite(value).all():
            raise FloatingPointError(f"the {role}'s outer gradient of {name} is not finite")


def _of(roles: Collection[Role], losses: Losses) -> Losses:
    """The losses of some roles."""
    return Losses(*({role: loss for role, loss in kind.items() if role in roles} for kind in losses))


def _count(weights: Weights, per: str) -> int:
    """How many step sizes an update has."""
    return {"step": 1, "tensor": len(weights), "number": sum(value.numel() for value in weights.values())}[per]


def _mask(role: Role, weights: Weights, head: tuple[str, ...], config: MAMLConfig) -> Tensor:
    """1 for weights of the head, else 0: per weight tensor, or per number."""
    if not head:
        raise InvalidInputError(
            f"adapts='head': the {role}'s policy has no head of its own; use method maml, which adapts all weights"
        )
    dtype = next(iter(weights.values())).dtype
    mask = torch.tensor([name in head for name in weights]).to(dtype)
    if config.inner_lr_per != "number":
        return mask
    return mask.repeat_interleave(torch.tensor([value.numel() for value in weights.values()]))


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What is in ``state`` under names that begin with ``prefix``, by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
