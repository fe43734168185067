"""The seam between meta-learners and what they learn on: how a batch of tasks gives each player its loss."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from metaduel.agents.policies import Weights
from metaduel.envs.spec import Role

Players = dict[Role, Weights]  # per adapting player, its weights: [N_role, ...] each when stacked over tasks


class Losses(NamedTuple):
    """Per adapting player, its loss on every task: [N_role] each."""

    support: dict[Role, Tensor]  # what an update descends
    query: dict[Role, Tensor]  # what the meta-learner descends
    divergence: dict[Role, Tensor] = {}  # noqa: RUF012 (never written to); of a replay: how far from what was sampled, KL
    log_prob: dict[Role, Tensor] = {}  # noqa: RUF012 (the same); of all that was drawn: a sum
    coordinates: dict[Role, Tensor] = {}  # noqa: RUF012 (nor this); of a replay: [N_role, n] outputs, see ``replay``


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

    def costs(self, shot: int) -> dict[Role, Tensor]:
        """What the data that ``losses`` drew at ``shot`` say of each player, [N_role], constant: minus the return per step, in
        the units of the query, less a baseline that does not depend on the task's own data.
        """
        ...

    def drop(self, role: Role, tasks: list[int]) -> None:
        """Leave out some of a player's tasks (for both players, where it meets the other in them) and forget what was drawn.
        All others keep their noise.

        Raises:
            FloatingPointError: no task would be left for somebody.
        """
        ...

    def replay(self, clip: float | None, share: float = 1.0) -> Problem:
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
