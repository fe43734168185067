"""MAML for both players (Finn, Abbeel and Levine, ICML 2017), and its relatives that differ in a setting.

    start        theta (protagonist), phi (adversary)
    inner step   theta_i <- theta_i - a_k grad L_protagonist(theta_i, phi_i)     } at once, K times,
                 phi_i   <- phi_i   - b_k grad L_adversary(theta_i, phi_i)       } for every task i
    outer loss   mean over tasks and over shots 1..K of each player's loss after adaptation, against the adapted opponent
                 (``outer_shots``: of the last shot alone, or of shot 0, too)

In a zero-sum game this is the min over theta, max over phi, of the sum over tasks of L(theta_i, phi_i). What flows: by
default each player's own learning (the other's adapted weights are constants); with ``peer`` the total derivative through
both players' updates.

Limits: second order differentiates through every update, so memory grows linearly with K; with ``recompute`` it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, adapting
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import Diverged, Through
from metaduel.meta.adaptation.pieces import Differentiating, Unrolling
from metaduel.meta.adaptation.rates import Rates
from metaduel.meta.adaptation.work import Work, alone
from metaduel.meta.learners.learner import (
    Gradients,
    Learner,
    Skipped,
    Starts,
    Update,
    adam,
    as_learners_saw,
    check_finite,
)
from metaduel.meta.problems.played import Replay
from metaduel.meta.problems.problem import Batch, Losses, Mixture, Part, Players, Tasks, join, parts_of, played

Shot = TypeVar("Shot")


@dataclass(frozen=True)
class MAMLConfig:
    """Settings of the meta-learner.

    Attributes:
        steps: K, updates per task in training; 0 is joint training (no adaptation).
        inner_lr: step size of every update at the start of training.
        learn_inner_lr: meta-learn the step sizes (their logarithms).
        inner_lr_per: each update has a step size of its own for all weights (``step``), for each weight ``tensor`` as in
            MAML++ (Antoniou, Edwards and Storkey, ICLR 2019), or for each ``number`` in them as in Meta-SGD.
        adapts: the weights that an update changes: ``all``, or those of the ``head`` alone as in ANIL.
        second_order: differentiate through the updates; False is first-order MAML.
        outer_shots: the losses that the outer loss averages: after adaptation, of shots 1..K (``all``) or of the last alone
            (``last``); or of shots 0..K (``every``), so that the start is trained to play well before it adapts, too.
        peer: total derivative through the other player's updates too.
        recompute: build the graph of each update again in the backward pass instead of keeping it: memory no longer grows
            with K, for about a third more time. None: for methods with long chains (Meta-PG, Meta-MAPG, LOLA).
        outer_lr: Adam's initial step size; decays linearly to a tenth.
        inner_lr_outer_lr: the same for the logarithms of the inner step sizes.
        momentum: momentum of the outer step where two players learn (0.9 where one does). Where the two meet only each other,
            momentum undoes the effect of the optimistic step; where they also meet scripted opponents, it averages noise out.
        max_norm: bound on the outer gradient's global norm, per player.
        max_skipped: number of tasks of a run that may be left out because weights were not finite after an update; one more
            stops the run.
    """

    steps: int = 3
    inner_lr: float = 0.5
    learn_inner_lr: bool = True
    inner_lr_per: Literal["step", "tensor", "number"] = "tensor"
    adapts: Literal["all", "head"] = "all"
    second_order: bool = True
    outer_shots: Literal["all", "last", "every"] = "all"
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


@dataclass(frozen=True)
class Unrolled:
    """The result of adapting to a problem.

    Attributes:
        losses: the meta-learned players' losses at every shot, with their graph.
        parts: parts of the problem.
        batches: per part and shot.
    """

    losses: list[Losses]
    parts: tuple[Part, ...]
    batches: list[list[Batch]]

    def costs(self, role: Role, shot: int) -> Tensor:
        """A learner's costs at a shot, see ``Played.costs``, in the order of its losses."""
        drawn = [played(b[shot]) for part, b in zip(self.parts, self.batches, strict=True) if role not in part.given]
        return torch.cat([costs[role] for batch in drawn if role in (costs := batch.costs())])

    def replay(self, clip: float | None, share: float = 1.0) -> Tasks:
        """The same problem on the data already drawn; see ``Played.replay``."""
        parts = tuple(
            Part(Replay([played(batch).replay(clip, share) for batch in drawn], part.problem.tasks), part.given)
            for part, drawn in zip(self.parts, self.batches, strict=True)
        )
        return parts[0].problem if len(parts) == 1 and not parts[0].given else Mixture(parts)


Objective = Callable[["MAML", Tasks], Work[tuple[dict[Role, Tensor], Sequence[Unrolled]]]]


class MAML(Learner):
    """Meta-learned starts and step sizes of the adapting players: one outer step along the gradient of an objective.

    Args:
        start: initial weights per adapting player.
        config: settings.
        heads: per player, the names of its head's weights; needed where the head alone adapts.
        objective: returns each player's scalar outer loss, and the adaptations that it comes from; None: the loss after
            adaptation.
        starts: the weights and their outer optimisers; None: ``start``, moved by Adam, optimistic where two players learn.

    Raises:
        InvalidInputError: the head alone is to adapt, and a player has none.

    Attributes:
        inner: the step sizes of the updates.
        through: settings of the updates' derivative.
        skipped: the tasks left out so far, see ``MAMLConfig.max_skipped``.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: MAMLConfig,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
        objective: Objective | None = None,
        starts: Starts | None = None,
    ) -> None:
        self.config = config
        self.starts = starts or Starts(start, config.outer_lr, adam(len(start), config.momentum, config.max_norm))
        only = (heads or {}) if config.adapts == "head" else None
        self._rates = self.inner = Rates(self.start, config.steps, config.inner_lr, config.inner_lr_per, only)
        if config.learn_inner_lr and config.steps > 0:
            self._rates.learn_with(
                {
                    role: self.starts.optimiser({"log_rates": rates}, config.inner_lr_outer_lr)
                    for role, rates in self._rates.log_rates.items()
                }
            )
        self.through = Through(config.second_order, config.peer, bool(config.recompute))
        self.skipped = Skipped(config.max_skipped)
        self.parts = (self.skipped, self.starts, self._rates)
        self._objective = objective or after_adaptation

    def counted(self, history: list[Shot]) -> list[Shot]:
        """The items of the shots that the outer loss averages, from a list with an item per shot."""
        last_alone = self.config.outer_shots == "last" or self.config.steps == 0
        return history[-1:] if last_alone else history if self.config.outer_shots == "every" else history[1:]

    def outer_loss(self, role: Role, history: list[Losses]) -> Tensor:
        """A player's mean loss over the shots that count."""
        return torch.stack([losses.query[role].mean() for losses in self.counted(history)]).mean()

    def outer_losses(self, problem: Tasks) -> dict[Role, Tensor]:
        """Each player's scalar outer loss on a set of tasks, with its graph to the starts and step sizes."""
        return alone(self._objective(self, problem))[0]

    def unrolling(self, problem: Tasks, moving: Collection[Role] | None = None, first: int = 0) -> Work[Unrolled]:
        """Adapt to a problem.

        Args:
            problem: the tasks; its personas learn as well, from their own starts at their own rates.
            moving: the roles that adapt; None: both.
            first: number of the first shot.
        """
        steps = self.config.steps
        histories: list[list[Losses]] = []
        batches: list[list[Batch]] = []
        for number, part in enumerate(parts_of(problem)):
            players: Players = {role: self.starts.stacked(role, part.problem.tasks[role]) for role in part.learners}
            rates = {role: self.rates(role) for role in part.learners}
            for role, persona in part.given.items():
                players[role] = {n: v.detach().requires_grad_() for n, v in persona.weights.items()}
                rates[role] = next(iter(persona.weights.values())).new_full((steps, 1), persona.rate)
            try:
                start = self.starts.shared(players, part)
                history, drawn = yield Unrolling(
                    part.problem, players, rates, steps, self.through, moving, first, start, MAML
                )
            except Diverged as error:
                error.part = number
                error.environment_steps += sum(batch.environment_steps for one in batches for batch in one)
                raise
            histories.append([losses.of(part.learners) for losses in history] if part.given else history)
            batches.append(drawn)
        return Unrolled(join(histories), parts_of(problem), batches)

    def unrolled(self, problem: Tasks) -> Unrolled:
        """``unrolling``, all of it now."""
        return alone(self.unrolling(problem))

    def gradients(self, problem: Tasks) -> Gradients:
        """Each player's outer gradient: with respect to its start and to its log step sizes."""
        return alone(self._gradients(problem))[0]

    def outer_gradients(self, problem: Tasks) -> Work[tuple[Gradients, Sequence[Unrolled]]]:
        """``gradients``, without the tasks in which an update diverged, and the adaptations that they come from.

        Raises:
            FloatingPointError: see ``updating``.
        """
        return (yield from self.skipped.run(problem, self._finite_gradients))

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """One outer step on a set of tasks.

        Raises:
            FloatingPointError: a gradient is not finite, or updates diverged in too many tasks; nothing was changed.
        """
        gradients, unrolled = yield from self.outer_gradients(problem)
        return self.outcome(self.step(gradients, lr_scale), unrolled)

    def step(self, gradients: Gradients, lr_scale: float = 1.0) -> dict[str, float]:
        """Move starts and step sizes along given outer gradients; returns metrics by name."""
        metrics: dict[str, float] = {}
        for role, (gradient, rate_gradient) in gradients.items():
            metrics |= self.starts.step(role, gradient, lr_scale) | self._rates.step(role, rate_gradient, lr_scale)
        return metrics

    def step_rates(self, role: Role, gradient: Tensor, lr_scale: float) -> dict[str, float]:
        """Move a player's step sizes alone; returns them as metrics."""
        return self._rates.step(role, gradient, lr_scale)

    def outcome(self, metrics: dict[str, float], unrolled: Sequence[Unrolled]) -> Update:
        """The result of an outer step."""
        shots = [shot for one in unrolled for shot in as_learners_saw(one.parts, one.batches)]
        losses = [loss for one in unrolled for loss in one.losses]
        skipped = {"skipped_tasks": float(self.skipped.count)}
        return Update(metrics | skipped, shots, losses, abandoned_steps=self.skipped.abandoned_steps)

    def _gradients(self, problem: Tasks) -> Work[tuple[Gradients, Sequence[Unrolled]]]:
        losses, unrolled = yield from self._objective(self, problem)
        leaves = {role: adapting(self.start[role]) for role in losses}
        inputs = [[*own.values(), self._rates.log_rates[role]] for role, own in leaves.items()]
        flat = yield Differentiating(list(losses.values()), inputs)
        result: Gradients = {
            role: (dict(zip(own, found[:-1], strict=True)), found[-1])
            for (role, own), found in zip(leaves.items(), flat, strict=True)
        }
        return result, unrolled

    def _finite_gradients(self, problem: Tasks) -> Work[tuple[Gradients, Sequence[Unrolled]]]:
        gradients, unrolled = yield from self._gradients(problem)
        for role, (gradient, rate_gradient) in gradients.items():
            check_finite(role, {**gradient, "the log inner rates": rate_gradient})
        return gradients, unrolled


def after_adaptation(learner: MAML, problem: Tasks) -> Work[tuple[dict[Role, Tensor], Sequence[Unrolled]]]:
    """The objective of MAML: the mean loss over the shots that count."""
    unrolled = yield from learner.unrolling(problem)
    losses = {role: learner.outer_loss(role, unrolled.losses) for role in unrolled.losses[0].query}
    return losses, [unrolled]
