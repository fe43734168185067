"""The seam between meta-learners and what they learn on: how a batch of tasks gives each player its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role

Players = dict[Role, Weights]  # per adapting player, its weights: [N_role, ...] each when stacked over tasks


class Losses(NamedTuple):
    """Per adapting player, its loss on every task: [N_role] each."""

    support: dict[Role, Tensor]  # what an update descends
    query: dict[Role, Tensor]  # what the meta-learner descends
    divergence: dict[Role, Tensor] = {}  # noqa: RUF012 (never written to); of a replay: how far from what was sampled, KL
    log_prob: dict[Role, Tensor] = {}  # noqa: RUF012 (the same); of all that was drawn: a sum
    coordinates: dict[Role, Tensor] = {}  # noqa: RUF012 (nor this); of a replay: [N_role, n] outputs, see ``replay``


Drawn = Callable[[Players, bool], Losses]  # (players, joint): the losses on data that are there already


class Problem(Protocol):
    """A batch of tasks. Knows nothing of meta-learning; meta-learners know nothing of games.

    Attributes:
        tasks: how many tasks each adapting player meets; a player that does not adapt has no entry.
    """

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per adapting player."""
        ...

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """Draw fresh data under the players as they are at ``shot`` and return each one's losses per task.

        Args:
            players: stacked weights, with the graph that led to them.
            shot: 0 for the start, k after k updates; each shot has data of its own.
            joint: let each player's loss depend on the other's weights too, through the data that both produced.

        Returns:
            Differentiable (twice) with respect to the weights. The data of a shot serve as the query of the update before
            it and as the support of the next, so both may be computed on the same.
        """
        ...

    def drop(self, role: Role, tasks: list[int]) -> None:
        """Leave out some of a player's tasks (for both players, where it meets the other in them) and forget what was drawn.
        All others keep their noise.

        Raises:
            FloatingPointError: no task would be left for somebody.
        """
        ...

    def draw(self, players: Players, shot: int) -> Drawn:
        """What ``losses`` does in two steps: draw the data of ``shot``, and return the function that gives the losses on them,
        as often as it is asked.
        """
        ...


class Sampled(Problem, Protocol):
    """A problem whose data the players sample themselves: some learners ask how likely the data were, and use them again."""

    def costs(self, shot: int) -> dict[Role, Tensor]:
        """What the data that ``losses`` drew at ``shot`` say of each player, [N_role], constant: minus the return per step, in
        the units of the query, less a baseline that does not depend on the task's own data.
        """
        ...

    def replay(self, clip: float | None, share: float = 1.0) -> Sampled:
        """The same problem on the data that ``losses`` drew so far, shot by shot, for weights that have moved since.

        Its support is the importance-weighted surrogate, its query the same, clipped at ``clip`` (None: not clipped);
        ``Losses.divergence`` is the mean KL divergence from the player that drew the data to the present one, and
        ``Losses.coordinates`` are the player's outputs, so scaled that half of the squared distance between two of them is
        that divergence to second order. It draws nothing, and cannot be ``joint``; of the players, those that it is given.

        Args:
            clip: of the query's ratio.
            share: take the first so many of each task's episodes alone, at least one; their advantages stay those that they
                have among all.
        """
        ...


def sampled(problem: Problem) -> Sampled:
    """The same problem, where its players sample its data.

    Raises:
        InvalidInputError: it has losses alone.
    """
    if not hasattr(problem, "replay"):
        raise InvalidInputError(
            f"a {type(problem).__name__} has losses alone: this learner needs data that its players sample"
        )
    return cast(Sampled, problem)


class Given(NamedTuple):
    """A player that learns while it is met but has no meta-learned start: a persona."""

    weights: Weights  # [N, ...] its start, one per task
    rate: float  # step size of its updates


class Part(NamedTuple):
    """A problem, and those of its players that bring their own starts."""

    problem: Problem
    given: Mapping[Role, Given] = {}


class Mixture:
    """Several problems as one batch: in some a player meets the other learner, in some a persona.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)

    def replay(self, clip: float | None) -> Mixture:
        """See ``Sampled.replay``."""
        return Mixture([Part(sampled(part.problem).replay(clip), part.given) for part in self.parts])

    def drop(self, number: int, role: Role, tasks: list[int]) -> None:
        """Leave out some of a player's tasks in one of the parts, see ``Problem.drop``; a part that is empty then goes."""
        part, rest = self.parts[number], (*self.parts[:number], *self.parts[number + 1 :])
        if part.given and len(tasks) == part.problem.tasks[role]:  # who meets personas meets one in every task
            if not rest:
                raise FloatingPointError(f"every task of the {role}'s blew up")
            self.parts = rest
            return
        part.problem.drop(role, tasks)
        given = {}
        for other, persona in part.given.items():
            stay = [n for n in range(len(next(iter(persona.weights.values())))) if n not in tasks]
            given[other] = persona._replace(weights={name: value[stay] for name, value in persona.weights.items()})
        self.parts = (*self.parts[:number], Part(part.problem, given), *self.parts[number + 1 :])


Batch = Problem | Mixture  # what a meta-learner takes a step on


def parts_of(batch: Batch) -> tuple[Part, ...]:
    """A batch's parts; a single problem is one without personas."""
    return batch.parts if isinstance(batch, Mixture) else (Part(batch),)


def join(histories: Sequence[list[Losses]]) -> list[Losses]:
    """Losses at every shot of several problems as those of one: a role's tasks follow each other."""
    if len(histories) == 1:
        return histories[0]
    return [
        Losses(*(_concatenate(kind) for kind in zip(*shots, strict=True))) for shots in zip(*histories, strict=True)
    ]


def _concatenate(losses: Sequence[dict[Role, Tensor]]) -> dict[Role, Tensor]:
    roles = dict.fromkeys(role for part in losses for role in part)
    return {role: torch.cat([part[role] for part in losses if role in part]) for role in roles}
