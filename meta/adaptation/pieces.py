"""The pieces of outer steps: adaptations with and without a graph, chains of episodes, and differentiations; see ``work``.

Several runs' problems of one kind become one problem whose tasks are run after run (``problems.together``): weights and step
sizes are concatenated, and the losses and batches are cut into those of each run again.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import Adapted, Diverged, Through, adapt, unroll
from metaduel.meta.adaptation.work import AGAIN
from metaduel.meta.problems.chains import Chain
from metaduel.meta.problems.problem import Batch, Losses, Players, Problem
from metaduel.meta.problems.together import Merged, merged

Adaptation = tuple[list[Losses], list[Batch]]


@dataclass(frozen=True)
class Unrolling:
    """An adaptation with its graph: see ``inner.unroll``.

    Attributes:
        then: what its losses are differentiated for. Runs that share a graph must differentiate it at once: that frees it.
    """

    problem: Problem
    players: Players
    rates: Mapping[Role, Tensor]
    steps: int
    through: Through
    moving: Collection[Role] | None = None
    first: int = 0
    start: Players | None = None
    then: Hashable = None

    @property
    def kind(self) -> Hashable | None:
        """See ``Piece``."""
        moving = None if self.moving is None else tuple(self.moving)
        return _kind(self, self.steps, self.through, moving, self.first, self.then)

    def do(self) -> Adaptation:
        """The losses at every shot, and the batches."""
        start = None if self.kind is None else self._sets
        return unroll(self.problem, self.players, self.rates, self.steps, self.through, self.moving, self.first, start)

    @property
    def _sets(self) -> Players | None:
        """The start, if it is played as fewer sets; a compiled step is one more function for another number of sets."""
        return self.start if self.steps == 0 or not getattr(self.problem, "compiled", False) else None

    def do_all(self, pieces: Sequence[Unrolling]) -> list[Adaptation | Exception]:
        """See ``Piece``."""
        whole = merged([one.problem for one in pieces])
        players, rates = _stacked(pieces)
        try:
            start = _shared(pieces, whole)
            losses, batches = unroll(whole, players, rates, self.steps, self.through, self.moving, self.first, start)
        except Diverged as error:
            return _whose(error, whole)
        histories = zip(*(_split(one, whole) for one in losses), strict=True)
        drawn = zip(*(batch.parts for batch in batches), strict=True)  # type: ignore[attr-defined]
        return [(list(h), list(b)) for h, b in zip(histories, drawn, strict=True)]


@dataclass(frozen=True)
class Adapting:
    """An adaptation without a graph: see ``inner.adapt``."""

    problem: Problem
    players: Players
    rates: Mapping[Role, Tensor]
    shots: int

    @property
    def kind(self) -> Hashable | None:
        """See ``Piece``."""
        return _kind(self, self.shots)

    def do(self) -> list[Adapted]:
        """The players at every shot, with the data and losses of the next update.

        Raises:
            Diverged: weights that are not finite.
        """
        return _checked(self.problem, self.players, self.rates, self.shots)

    def do_all(self, pieces: Sequence[Adapting]) -> list[list[Adapted] | Exception]:
        """See ``Piece``."""
        whole = merged([one.problem for one in pieces])
        players, rates = _stacked(pieces)
        try:
            found = _checked(whole, players, rates, self.shots)
        except Diverged as error:
            return _whose(error, whole)
        results: list[list[Adapted]] = [[] for _ in pieces]
        for now in found:
            own = _apart(now.players, whole)
            losses = [None] * len(pieces) if now.losses is None else _split(now.losses, whole)
            batches = [None] * len(pieces) if now.batch is None else now.batch.parts  # type: ignore[attr-defined]
            for result, *parts in zip(results, own, batches, losses, strict=True):
                result.append(Adapted(*parts))
        return list(results)


@dataclass(frozen=True)
class Chaining:
    """Episodes one after another, by players with a memory that lasts: see ``ChainProblem.chain``."""

    problem: Any
    players: Players
    episodes: int
    shots: int

    @property
    def kind(self) -> Hashable | None:
        """See ``Piece``."""
        problem = getattr(self.problem, "kind", None)
        if problem is None:
            return None
        tasks = tuple(self.problem.tasks.items())
        return (Chaining, problem, _layout(self.players), tasks, self.episodes, self.shots)

    def do(self) -> Chain:
        """The chain."""
        chain: Chain = self.problem.chain(self.players, self.episodes, self.shots)
        return chain

    def do_all(self, pieces: Sequence[Chaining]) -> list[Chain]:
        """See ``Piece``."""
        whole: Any = merged([one.problem for one in pieces])
        return list(whole.chains(_concatenated([one.players for one in pieces]), self.episodes, self.shots))


@dataclass(frozen=True)
class Differentiating:
    """Gradients of losses, one after another; the graph is freed after the last.

    Attributes:
        losses: scalars.
        inputs: per loss, what it is differentiated with respect to.
    """

    losses: Sequence[Tensor]
    inputs: Sequence[Sequence[Tensor]]

    @property
    def kind(self) -> Hashable | None:
        """See ``Piece``."""
        return (Differentiating, tuple(len(own) for own in self.inputs))

    def do(self) -> list[tuple[Tensor, ...]]:
        """Per loss its gradients, 0 where it does not depend on an input."""
        return _differentiated(self.losses, self.inputs)

    def do_all(self, pieces: Sequence[Differentiating]) -> list[list[tuple[Tensor, ...]]]:
        """See ``Piece``. A loss depends on its own run's inputs alone, so that the gradient of the sum holds every run's."""
        losses = [torch.stack(each).sum() for each in zip(*(one.losses for one in pieces), strict=True)]
        inputs = [[v for own in each for v in own] for each in zip(*(one.inputs for one in pieces), strict=True)]
        found = [list(flat) for flat in _differentiated(losses, inputs)]
        results: list[list[tuple[Tensor, ...]]] = []
        for one in pieces:
            results.append([])
            for flat, own in zip(found, one.inputs, strict=True):
                results[-1].append(tuple(flat[: len(own)]))
                del flat[: len(own)]
        return results


def _differentiated(losses: Sequence[Tensor], inputs: Sequence[Sequence[Tensor]]) -> list[tuple[Tensor, ...]]:
    last = len(losses) - 1
    return [
        torch.autograd.grad(loss, own, retain_graph=i < last, materialize_grads=True)
        for i, (loss, own) in enumerate(zip(losses, inputs, strict=True))
    ]


def _checked(problem: Problem, players: Players, rates: Mapping[Role, Tensor], shots: int) -> list[Adapted]:
    found: list[Adapted] = []
    try:
        found.extend(adapt(problem, players, rates, shots, check=True))
    except Diverged as error:
        error.of([now.batch for now in found if now.batch is not None])
        raise
    return found


def _kind(piece: Unrolling | Adapting, *more: Hashable) -> Hashable | None:
    problem = getattr(piece.problem, "kind", None)
    if problem is None:
        return None
    rates = tuple((role, own.shape) for role, own in piece.rates.items())
    return (type(piece), problem, _layout(piece.players), rates, *more)


def _layout(players: Players) -> Hashable:
    """Names, shapes and types of the weights of a task."""
    return tuple(
        (role, name, value.shape[1:], value.dtype) for role, own in players.items() for name, value in own.items()
    )


def _concatenated(players: Sequence[Players]) -> Players:
    first = players[0]
    return {role: {name: torch.cat([one[role][name] for one in players]) for name in first[role]} for role in first}


def _shared(pieces: Sequence[Unrolling], whole: Merged) -> Players | None:
    """The starts as one set of weights for each run; None: numbers of tasks differ, or there are no such sets."""
    starts = [sets for one in pieces if (sets := one._sets) is not None]
    if len(starts) < len(pieces) or any(len(set(counts)) > 1 for counts in whole.counts.values()):
        return None
    return _concatenated(starts)


def _stacked(pieces: Sequence[Unrolling] | Sequence[Adapting]) -> tuple[Players, dict[Role, Tensor]]:
    """The weights of all runs' tasks, and their step sizes: [K, N, ...]."""
    rates = {role: torch.cat([_of_tasks(one, role) for one in pieces], 1) for role in pieces[0].rates}
    return _concatenated([one.players for one in pieces]), rates


def _of_tasks(piece: Unrolling | Adapting, role: Role) -> Tensor:
    rates, n = piece.rates[role], piece.problem.tasks[role]
    rates = rates if rates.dim() == 2 else rates.unsqueeze(1)
    return rates.unsqueeze(1).expand(-1, n, -1)


def _split(losses: Losses, whole: Merged) -> list[Losses]:
    kinds = [_apart_tensors(kind, whole) for kind in losses]
    return [Losses(*own) for own in zip(*kinds, strict=True)]


def _apart_tensors(values: Mapping[Role, Tensor], whole: Merged) -> list[dict[Role, Tensor]]:
    parts = {role: torch.split(value, whole.counts[role]) for role, value in values.items()}
    return [{role: own[i] for role, own in parts.items()} for i in range(len(whole.problems))]


def _apart(players: Players, whole: Merged) -> list[Players]:
    results: list[Players] = [{role: {} for role in players} for _ in whole.problems]
    for role, weights in players.items():
        for name, value in weights.items():
            for result, own in zip(results, torch.split(value, whole.counts[role]), strict=True):
                result[role][name] = own
    return results


def _whose(error: Diverged, whole: Merged) -> list[Any]:
    """The error of every run in which a task diverged."""
    first, results = 0, list[Any]()
    for i, n in enumerate(whole.counts[error.role]):
        own = [task - first for task in error.tasks if first <= task < first + n]
        found = Diverged(error.role, own, error.step)
        found.environment_steps = sum(batch.parts[i].environment_steps for batch in error.batches)  # type: ignore[attr-defined]
        results.append(found if own else AGAIN)
        first += n
    return results
