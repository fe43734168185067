"""What a learner's experience looks like."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Trajectories(NamedTuple):
    """What one seat's learner saw, did and got."""

    observation: Tensor  # [N, T, E, d]
    action: Tensor  # [N, T, E, a] before clipping, or [N, T, E] int64
    reward: Tensor  # [N, T, E], 0 after the end
    alive: Tensor  # [N, T, E] 1 where the step was played, else 0
    other: Tensor | None = (
        None  # [N, T, E, b] or [N, T, E]: what the other player did; for those with a memory that lasts
    )
    memory: Tensor | None = None  # [N, E, units] after the episode; for the same

    @property
    def returns(self) -> Tensor:
        """Undiscounted returns [N, E]."""
        return self.reward.sum(1)
