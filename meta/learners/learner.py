"""Learners and their parts.

A learner takes a step on a set of tasks. Its parts: ``Starts`` (weights, and the outer optimisers that move them), ``Rates``
(step sizes of an inner step), ``Through`` (settings of that step's derivative). A method without an inner step has only starts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from metaduel.agents.policies.base import FIXED, Weights, adapting, stack
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import Diverged
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.adaptation.pieces import Differentiating
from metaduel.meta.adaptation.rates import Rates, below
from metaduel.meta.adaptation.work import Work, alone
from metaduel.meta.problems.chains import Chain
from metaduel.meta.problems.problem import Batch, Losses, Part, Players, Tasks, without

Result = TypeVar("Result")
Gradients = dict[Role, tuple[Weights, Tensor]]  # per role, with respect to its start and to its log step sizes


class Update(NamedTuple):
    """The result of an outer step.

    Attributes:
        metrics: by name.
        shots: per shot, the batches, as the learners saw them.
        losses: per shot, the losses that were computed.
        chain: for players with a memory, their episodes, one after another.
        abandoned_steps: environment steps of abandoned batches.
    """

    metrics: dict[str, float]
    shots: Sequence[Sequence[Batch]] = ()
    losses: Sequence[Losses] = ()
    chain: Chain | None = None
    abandoned_steps: int = 0


class Stateful(Protocol):
    """A part of a learner that a checkpoint holds."""

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs, by name."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state``; it may hold more under other names."""
        ...


class Learner(ABC):
    """Takes outer steps; see the module.

    Attributes:
        starts: its players' weights.
        parts: the parts that a checkpoint holds, the starts among them.
        inner: the step sizes of its inner step; None: there is no inner step.
        scales: the scales that its critics' values are in; None: there are no critics.
    """

    starts: Starts
    parts: tuple[Stateful, ...]
    inner: Rates | None = None
    scales: Stateful | None = None

    @abstractmethod
    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """One outer step on a set of tasks, in pieces, see ``adaptation.work``.

        Args:
            problem: the tasks.
            lr_scale: factor of all outer step sizes.

        Raises:
            FloatingPointError: a gradient that is not finite; nothing was changed.
        """

    def update(self, problem: Tasks, lr_scale: float = 1.0) -> Update:
        """``updating``, all of it now."""
        return alone(self.updating(problem, lr_scale))

    @property
    def start(self) -> Players:
        """Per role the weights; those that adapt are leaves that ``update`` moves."""
        return self.starts.weights

    def rates(self, role: Role) -> Tensor:
        """Step sizes of the player's inner steps [K, ...], see ``inner.step_sizes``, 0 for weights that don't adapt; [0] without
        an inner step.
        """
        return next(iter(self.start[role].values())).new_zeros(0) if self.inner is None else self.inner.of(role)

    def counted(self, history: list[Result]) -> list[Result]:
        """The items of the shots that training counts, from a list with an item per shot."""
        return history[1:] or history

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs, by name."""
        return {name: value for part in self.parts for name, value in part.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state``."""
        for part in self.parts:
            part.load(state)


Optimiser = Callable[[Weights, float], OuterOptimiser]  # of leaves and a step size


def adam(
    players: int, momentum: float = 0.0, max_norm: float = 10.0, simultaneous: bool = True, eps: float = 1e-8
) -> Optimiser:
    """Adam, optimistic where two players move at once.

    Args:
        players: number of players that learn.
        momentum: where two players move at once; 0.9 otherwise.
        max_norm: bound on the outer gradient's global norm, per player.
        simultaneous: both players move in an outer step.
        eps: what Adam adds to its divisor.
    """
    optimistic = simultaneous and players > 1

    def make(params: Weights, lr: float) -> OuterOptimiser:
        return OuterOptimiser(params, lr, optimistic, momentum if optimistic else 0.9, max_norm, eps)

    return make


class Starts:
    """The weights that players begin their tasks with, and their outer optimisers.

    Args:
        start: initial weights per player.
        lr: step size of the outer optimisers.
        optimiser: makes an outer optimiser.
        moves: names of the weights that the optimisers move; None: all that adapt.

    Attributes:
        weights: per role; those that adapt are leaves.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        lr: float,
        optimiser: Optimiser,
        moves: Callable[[str], bool] | None = None,
    ) -> None:
        self.weights: Players = {}
        for role, weights in start.items():
            copies = {name: value.detach().clone() for name, value in weights.items()}
            for value in adapting(copies).values():
                value.requires_grad_()
            self.weights[role] = copies
        self.optimiser = optimiser
        self.optimisers = {
            role: optimiser({n: v for n, v in adapting(w).items() if moves is None or moves(n)}, lr)
            for role, w in self.weights.items()
        }

    def stacked(self, role: Role, tasks: int) -> Weights:
        """The weights, [tasks, ...] each, that a player begins its tasks with: its start in every one."""
        return stack(self.weights[role], tasks)

    def shared(self, players: Players, part: Part) -> Players:
        """The players of a part at shot 0, with one set of weights for all tasks of each learner."""
        once = self.once()
        return {role: once[role] if role in part.learners else weights for role, weights in players.items()}

    def once(self) -> Players:
        """Every player's weights as one set for all tasks: [1, ...] each."""
        return {role: {n: value.unsqueeze(0) for n, value in w.items()} for role, w in self.weights.items()}

    def gradients(self, losses: Mapping[Role, Tensor]) -> Work[Players]:
        """Gradients of scalar losses of the players with respect to the weights that their optimisers move.

        Raises:
            FloatingPointError: a gradient is not finite.
        """
        leaves = {role: self.optimisers[role].params for role in losses}
        flat = yield Differentiating(list(losses.values()), [list(own.values()) for own in leaves.values()])
        result = {r: dict(zip(own, values, strict=True)) for (r, own), values in zip(leaves.items(), flat, strict=True)}
        for role, gradient in result.items():
            check_finite(role, gradient)
        return result

    def step(self, role: Role, gradient: Weights, lr_scale: float) -> dict[str, float]:
        """Move a player's start along its outer gradient; returns metrics."""
        return {f"{role}/gradient_norm": self.optimisers[role].step(gradient, lr_scale)}

    def normalise(self, role: Role, fixed: Weights) -> None:
        """Replace weights of a player that never adapt; the others stay."""
        self.weights[role] = self.weights[role] | {name: value.clone() for name, value in fixed.items()}

    def state(self) -> dict[str, Tensor]:
        """See ``Stateful``."""
        state: dict[str, Tensor] = {}
        for role, weights in self.weights.items():
            state |= {f"{role}/start/{name}": value.detach() for name, value in weights.items()}
            state |= {f"{role}/outer/{name}": value for name, value in self.optimisers[role].state().items()}
        return state

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Stateful``."""
        for role, weights in self.weights.items():
            for name, value in adapting(weights).items():
                value.copy_(state[f"{role}/start/{name}"])
            kept = below(state, f"{role}/start/")
            self.normalise(role, {name: value for name, value in kept.items() if name.startswith(FIXED)})
            self.optimisers[role].load(below(state, f"{role}/outer/"))


@dataclass
class Skipped:
    """Counts tasks that were left out because a player's weights were not finite after an update.

    Attributes:
        limit: most tasks that may be left out; one more stops the run.
        count: tasks left out so far.
    """

    limit: int
    count: int = 0
    abandoned_steps: int = field(
        default=0, init=False
    )  # environment steps of the present outer step's abandoned batches

    def run(self, problem: Tasks, work: Callable[[Tasks], Work[Result]]) -> Work[Result]:
        """Do ``work`` on a problem, without the tasks in which an update diverged.

        Raises:
            FloatingPointError: too many tasks were left out, or none is left.
        """
        self.abandoned_steps = 0
        while True:
            try:
                return (yield from work(problem))
            except Diverged as error:
                self.count += len(error.tasks)
                self.abandoned_steps += error.environment_steps
                if self.count > self.limit:
                    raise FloatingPointError(f"{error} (tasks skipped so far: {self.count})") from None
                problem = without(problem, error.part, error.role, error.tasks)

    def state(self) -> dict[str, Tensor]:
        """See ``Stateful``."""
        return {"skipped": torch.tensor(self.count, dtype=torch.int64, device="cpu")}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Stateful``."""
        self.count = int(state["skipped"])


@dataclass
class Counter:
    """Number of outer steps taken.

    Attributes:
        name: its name in a checkpoint.
        count: the number so far.
    """

    name: str
    count: int = 0

    def state(self) -> dict[str, Tensor]:
        """See ``Stateful``."""
        return {self.name: torch.tensor(self.count, dtype=torch.int64, device="cpu")}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Stateful``."""
        self.count = int(state[self.name])


def check_finite(role: Role, gradient: Weights) -> None:
    """Raise ``FloatingPointError`` if a player's outer gradient is not finite; the message names the part."""
    for name, value in gradient.items():
        if not torch.isfinite(value).all():
            raise FloatingPointError(f"the {role}'s outer gradient of {name} is not finite")


def as_learners_saw(parts: Sequence[Part], batches: Sequence[Sequence[Batch]]) -> list[list[Batch]]:
    """Per shot the batches of all parts, each as the players with a meta-learned start saw it.

    Args:
        parts: parts of a problem.
        batches: per part and shot.
    """
    shots: list[list[Batch]] = []
    for part, drawn in zip(parts, batches, strict=True):
        shots += [[] for _ in drawn[len(shots) :]]
        for shot, batch in zip(shots, drawn, strict=False):
            shot.append(batch.only(part.learners) if part.given else batch)  # type: ignore[attr-defined]
    return shots
