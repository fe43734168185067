"""What a learner's experience looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from metaduel.agents.policies.base import Carry


class Trajectories(NamedTuple):
    """What one seat's learner saw, did and got."""

    observation: Tensor  # [N, T, E, d]
    action: Tensor  # [N, T, E, a] before clipping, or [N, T, E] int64
    reward: Tensor  # [N, T, E], 0 after the end
    alive: Tensor  # [N, T, E] 1 where the step was played, else 0
    # For policies whose carry lasts:
    other: Tensor | None = None  # [N, T, E, b] or [N, T, E]: what the other player did
    carry: Carry | None = None  # [N, E, ...] with which the next episode starts

    @property
    def returns(self) -> Tensor:
        """Undiscounted returns [N, E]."""
        return self.reward.sum(1)

    def map(self, function: Callable[[Tensor], Tensor]) -> Trajectories:
        """The same with a function of each of the four fields that all players have; what lasts is left out."""
        f = function
        return Trajectories(f(self.observation), f(self.action), f(self.reward), f(self.alive))
