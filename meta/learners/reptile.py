"""Reptile (Nichol, Achiam and Schulman, 2018): move the start towards the adapted weights.

    inner step   theta_i <- theta_i - a grad L(theta_i), K times on fresh data, for every task i
    outer step   along theta - mean_i theta_i^K, as if that were a gradient

Both players at once, each by its own difference. Order: first, and no query data: K batches per iteration instead of K + 1.

Limits: with K = 1 it is joint training. Step sizes cannot be learned (nothing is differentiated); they stay at ``inner_lr``, or
shrink from update to update by ``inner_decay``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, adapting
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import Diverged
from metaduel.meta.adaptation.pieces import Adapting
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
from metaduel.meta.learners.maml import MAMLConfig
from metaduel.meta.problems.problem import Batch, Losses, Part, Players, Tasks, join, parts_of

Shot = TypeVar("Shot")


@dataclass(frozen=True)
class ReptileConfig(MAMLConfig):
    """MAML's settings, and

    Attributes:
        inner_decay: each update's step size is this times the one before, in (0, 1]: with normalised advantages, updates of one
            size step over the optimum that the first of them reaches.
    """

    inner_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.inner_decay <= 1:
            raise InvalidInputError(f"inner_decay={self.inner_decay!r} must be above 0 and at most 1")
        if self.inner_decay < 1 and self.steps == 1:
            raise InvalidInputError(f"inner_decay={self.inner_decay!r} has no effect with 1 update; leave it out")


def configure(config: MAMLConfig) -> ReptileConfig:
    """Reptile's settings, of its own class also where MAML's are given, as on data.

    Raises:
        InvalidInputError: no inner step, or a setting that differentiates it.
    """
    if config.peer:
        raise InvalidInputError("peer=True: Reptile differentiates no update; use method maml")
    if config.steps < 1:
        raise InvalidInputError(f"steps={config.steps}: Reptile needs at least 1 update, 2 to differ from method joint")
    own = {f.name: getattr(config, f.name) for f in fields(config)}
    return ReptileConfig(**{**own, "learn_inner_lr": False, "second_order": False})


class Reptile(Learner):
    """See the module.

    Args:
        start: initial weights per adapting player.
        config: settings.
        heads: see ``MAML``.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: ReptileConfig,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
    ) -> None:
        self.config = config
        self.starts = Starts(start, config.outer_lr, adam(len(start), config.momentum, config.max_norm))
        only = (heads or {}) if config.adapts == "head" else None
        inner_lr = {role: config.inner_lr_of(role) for role in self.start}
        self._rates = self.inner = Rates(self.start, config.steps, inner_lr, config.inner_lr_per, only)
        with torch.no_grad():
            for rates in self._rates.log_rates.values():
                updates = torch.arange(config.steps, dtype=rates.dtype, device=rates.device)
                rates += math.log(config.inner_decay) * updates.unsqueeze(1)
        self.skipped = Skipped(config.max_skipped)
        self.parts = (self.skipped, self.starts, self._rates)

    def rates(self, role: Role) -> Tensor:
        """See ``Learner``; they do not change."""
        return self._rates.of(role).detach()

    def counted(self, history: list[Shot]) -> list[Shot]:
        """See ``Learner``: all after an update, or the last alone."""
        return history[-1:] if self.config.outer_shots == "last" else history[1:]

    def gradients(self, problem: Tasks) -> Gradients:
        """Reptile's substitute for each player's outer gradient: the mean over tasks of start - adapted; 0 for the step sizes."""
        found, _ = alone(self._gradients(problem))
        return {role: (own, torch.zeros_like(self._rates.log_rates[role])) for role, own in found.items()}

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """See ``Learner``.

        Raises:
            FloatingPointError: updates diverged in too many tasks; nothing was changed.
        """
        gradients, ends = yield from self.skipped.run(problem, self._gradients)
        metrics: dict[str, float] = {}
        for role, gradient in gradients.items():
            unmoved = torch.zeros_like(self._rates.log_rates[role])
            metrics |= self.starts.step(role, gradient, lr_scale) | self._rates.step(role, unmoved, lr_scale)
        metrics["skipped_tasks"] = float(self.skipped.count)
        shots = as_learners_saw([end.part for end in ends], [end.batches for end in ends])
        return Update(metrics, shots, join([end.losses for end in ends]), abandoned_steps=self.skipped.abandoned_steps)

    def _gradients(self, problem: Tasks) -> Work[tuple[Players, list[_End]]]:
        ends: list[_End] = []
        for number, part in enumerate(parts_of(problem)):
            try:
                ends.append((yield from self._adapted(part)))
            except Diverged as error:
                error.part = number
                error.environment_steps += sum(batch.environment_steps for end in ends for batch in end.batches)
                raise
        result: Players = {}
        for role in dict.fromkeys(role for end in ends for role in end.players):
            own = [end.players[role] for end in ends if role in end.players]
            result[role] = {
                name: (value - torch.cat([weights[name] for weights in own]).mean(0)).detach()
                for name, value in adapting(self.start[role]).items()
            }
            check_finite(role, result[role])
        return result, ends

    def _adapted(self, part: Part) -> Work[_End]:
        """The meta-learned players after the last update, and their batches."""
        players: Players = {role: self.starts.stacked(role, part.problem.tasks[role]) for role in part.learners}
        players |= {role: persona.weights for role, persona in part.given.items()}
        rates = {role: self.rates(role) for role in part.learners}
        rates |= {role: persona.step_size for role, persona in part.given.items()}
        *before, last = yield Adapting(part.problem, players, rates, self.config.steps)
        ends = {role: last.players[role] for role in part.learners}
        return _End(part, ends, [now.batch for now in before], [now.losses for now in before])


class _End(NamedTuple):
    part: Part
    players: Players
    batches: list[Batch]
    losses: list[Losses]
