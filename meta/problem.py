"""The seam between meta-learners and what they learn on: how a batch of tasks gives each player its loss."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from metaduel.agents.policies import Weights
from metaduel.envs.spec import Role

Players = dict[Role, Weights]  # per adapting player, its weights: [N_role, ...] each when stacked over tasks


class Problem(Protocol):
    """A batch of tasks. Knows nothing of meta-learning; meta-learners know nothing of games.

    Attributes:
        tasks: how many tasks each adapting player meets; a player that does not adapt has no entry.
    """

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per adapting player."""
        ...

    def losses(self, players: Players, shot: int, joint: bool = False) -> dict[Role, Tensor]:
        """Draw fresh data under the players as they are at ``shot`` and return each one's loss per task.

        Args:
            players: stacked weights, with the graph that led to them.
            shot: 0 for the start, k after k updates; each shot has data of its own.
            joint: let each player's loss depend on the other's weights too, through the data that both produced.

        Returns:
            Per role [N_role], differentiable (twice) with respect to the weights.
        """
        ...
