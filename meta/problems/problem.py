"""The interface between meta-learners and tasks: a problem draws batches, and a batch gives each player its loss.

A problem is a set of tasks; drawing from it does not change it. A batch is immutable: it computes losses for any weights, any
number of times, and holds the record of its play.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role

Players = dict[Role, Weights]  # per adapting player, its weights: [N_role, ...] each when stacked over tasks


class Losses(NamedTuple):
    """Per adapting player, its loss on every task: [N_role] each."""

    support: dict[Role, Tensor]  # the loss of an update
    query: dict[Role, Tensor]  # the loss of the meta-learner
    divergence: dict[Role, Tensor] = {}  # noqa: RUF012 (never written to); of a replay: KL from the players that sampled
    log_prob: dict[Role, Tensor] = {}  # noqa: RUF012 (the same); of the whole batch: a sum
    coordinates: dict[Role, Tensor] = {}  # noqa: RUF012 (the same); of a replay: [N_role, n] outputs, see ``Played.replay``

    def of(self, roles: Collection[Role]) -> Losses:
        """The losses of some players."""
        return Losses(*({role: loss for role, loss in kind.items() if role in roles} for kind in self))


class Batch(Protocol):
    """The data of one shot.

    Attributes:
        environment_steps: steps that were played for it, both seats of a game counted once.
    """

    @property
    def environment_steps(self) -> int:
        """See the class."""
        ...

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """Each player's loss per task.

        Args:
            players: stacked weights, with the graph that led to them.
            joint: let each player's loss depend on the opponent's weights too, through the data that both produced.

        Returns:
            Losses that are (twice) differentiable with respect to the weights. The data of a shot are the query of the update
            before it and the support of the next, so that both losses may use the same data.
        """
        ...


class Problem(Protocol):
    """A set of tasks. Knows nothing of meta-learning; meta-learners know nothing of games.

    Attributes:
        tasks: number of tasks of each adapting player; a player that does not adapt has no entry.
    """

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per adapting player."""
        ...

    def draw(self, players: Players, shot: int) -> Batch:
        """Draw fresh data under the players as they are at ``shot``: 0 for the start, k after k updates. Each shot has data of
        its own, the same at every call with the same players.
        """
        ...

    def without(self, role: Role, tasks: Collection[int]) -> Problem:
        """The problem without some of a player's tasks (for both players, where the learners meet on them). All other tasks keep
        their noise.

        Raises:
            FloatingPointError: a player would be left without a task.
        """
        ...


class Played(Batch, Protocol):
    """A batch that the players sampled themselves. Some learners use its probability, and use it several times.

    Attributes:
        data: per learner its trajectories.
        returns: per learner, mean undiscounted returns [N_role].
    """

    @property
    def data(self) -> Mapping[Role, Trajectories]:
        """See the class."""
        ...

    @property
    def returns(self) -> Mapping[Role, Tensor]:
        """See the class."""
        ...

    def costs(self) -> dict[Role, Tensor]:
        """Constant cost of each player, [N_role]: minus the return per step, in the units of the query, less a baseline that
        does not depend on the task's own data.
        """
        ...

    def seen(self) -> Iterator[tuple[Role, Trajectories]]:
        """All trajectories of the learners, in the order of play."""
        ...

    def only(self, roles: Collection[Role]) -> Played:
        """The batch with the trajectories of some players only."""
        ...

    def replay(self, clip: float | None, share: float = 1.0) -> Batch:
        """The same data for weights that have moved since.

        Its support is the importance-weighted surrogate, its query the same, clipped at ``clip`` (None: not clipped);
        ``Losses.divergence`` is the mean KL divergence from the player that drew the data to the present one, and
        ``Losses.coordinates`` are the player's outputs, scaled so that half of the squared distance between two of them is
        that divergence to second order. It cannot be ``joint``; it has losses for the given players only.

        Args:
            clip: bound on the distance of the query's ratio from 1.
            share: share of each task's episodes to use, the first ones, at least one; their advantages are computed among all
                episodes.
        """
        ...


def played(batch: Batch) -> Played:
    """The same batch, if its players sampled it.

    Raises:
        InvalidInputError: the batch only has losses.
    """
    if not hasattr(batch, "replay"):
        raise InvalidInputError(
            f"a {type(batch).__name__} has losses alone: this learner needs data that its players sample"
        )
    return cast(Played, batch)


class Given(NamedTuple):
    """A persona: a player that learns during a meeting but has no meta-learned start."""

    weights: Weights  # [N, ...] its start, one per task
    rate: float  # step size of its updates

    @property
    def step_size(self) -> Tensor:
        """The rate, in its weights' precision: [1]."""
        return next(iter(self.weights.values())).new_tensor([self.rate])


class Part(NamedTuple):
    """A problem, and the starts of its personas."""

    problem: Problem
    given: Mapping[Role, Given] = {}

    @property
    def learners(self) -> tuple[Role, ...]:
        """The players with a meta-learned start."""
        return tuple(role for role in self.problem.tasks if role not in self.given)


@dataclass(frozen=True)
class Mixture:
    """Several problems as one: in some, the opponent is the other learner, in some a persona.

    Attributes:
        parts: at least one.
    """

    parts: tuple[Part, ...]

    def without(self, number: int, role: Role, tasks: Collection[int]) -> Mixture:
        """The mixture without some of a player's tasks in one of its parts; a part that would be empty is left out.

        Raises:
            FloatingPointError: no task would be left.
        """
        part, before, after = self.parts[number], self.parts[:number], self.parts[number + 1 :]
        if (
            part.given and len(tasks) == part.problem.tasks[role]
        ):  # a player that meets personas meets one in every task
            if not before + after:
                raise FloatingPointError(f"every task of the {role} diverged")
            return Mixture(before + after)
        given = {}
        for other, persona in part.given.items():
            stay = [n for n in range(len(next(iter(persona.weights.values())))) if n not in tasks]
            given[other] = persona._replace(weights={name: value[stay] for name, value in persona.weights.items()})
        return Mixture((*before, Part(part.problem.without(role, tasks), given), *after))


Tasks = Problem | Mixture  # the tasks of an outer step


def parts_of(problem: Tasks) -> tuple[Part, ...]:
    """A mixture's parts; a single problem is one without personas."""
    return problem.parts if isinstance(problem, Mixture) else (Part(problem),)


def without(problem: Tasks, part: int, role: Role, tasks: Collection[int]) -> Tasks:
    """The same without some of a player's tasks in one of its parts."""
    if isinstance(problem, Mixture):
        return problem.without(part, role, tasks)
    return problem.without(role, tasks)


def join(histories: Sequence[list[Losses]]) -> list[Losses]:
    """Losses at every shot of several problems as those of one: a role's tasks are concatenated."""
    if len(histories) == 1:
        return histories[0]
    return [
        Losses(*(_concatenate(kind) for kind in zip(*shots, strict=True))) for shots in zip(*histories, strict=True)
    ]


def _concatenate(losses: Sequence[dict[Role, Tensor]]) -> dict[Role, Tensor]:
    roles = dict.fromkeys(role for part in losses for role in part)
    return {role: torch.cat([part[role] for part in losses if role in part]) for role in roles}
