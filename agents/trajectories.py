"""The trajectories and the carry of a learner."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Carry(NamedTuple):
    """The state that a policy carries from step to step and, if its memory lasts, from episode to episode. Empty for a
    feed-forward policy.
    """

    memory: Tensor  # [N, M, units]
    before: Tensor  # [N, M, k] the next input's numbers after the observation, such as the previous action and reward

    def repeated(self, episodes: int) -> Carry:
        """The same for ``episodes`` times as many episodes, those of a row next to each other."""
        return Carry(*(part.repeat_interleave(episodes, 1) for part in self)) if episodes > 1 else self

    def kept(self, where: Tensor, other: Carry) -> Carry:
        """The carry where ``where`` [N, M] holds, ``other`` elsewhere."""
        mask = where.unsqueeze(-1) > 0
        return Carry(*(torch.where(mask, own, theirs) for own, theirs in zip(self, other, strict=True)))


class Trajectories(NamedTuple):
    """Observations, actions and rewards of one seat's learner."""

    observation: Tensor  # [N, T, E, d]
    action: Tensor  # [N, T, E, a] before clipping, or [N, T, E] int64
    reward: Tensor  # [N, T, E], 0 after the end
    alive: Tensor  # [N, T, E] 1 where the step was played, else 0
    # For policies whose carry lasts:
    other: Tensor | None = None  # [N, T, E, b] or [N, T, E]: the opponent's actions
    carry: Carry | None = None  # [N, E, ...] with which the next episode starts

    @property
    def returns(self) -> Tensor:
        """Undiscounted returns [N, E]."""
        return self.reward.sum(1)

    def map(self, function: Callable[[Tensor], Tensor]) -> Trajectories:
        """The result of a function of each of the four fields that all players have, without ``other`` and ``carry``."""
        f = function
        return Trajectories(f(self.observation), f(self.action), f(self.reward), f(self.alive))

    def rows(self, where: slice) -> Trajectories:
        """Those of some tasks."""
        carry = None if self.carry is None else Carry(*(part[where] for part in self.carry))
        other = None if self.other is None else self.other[where]
        return self.map(lambda part: part[where])._replace(other=other, carry=carry)

    def split(self, episodes: int) -> Trajectories:
        """Trajectories [n, T, k E, ...] of sets of weights with k tasks each as those of the tasks, [n k, T, E, ...]; without
        ``carry``, where k is above 1.
        """
        if self.reward.shape[2] == episodes:
            return self

        def apart(part: Tensor) -> Tensor:
            n, steps, rows, *rest = part.shape
            return part.view(n, steps, rows // episodes, episodes, *rest).transpose(1, 2).flatten(0, 1).contiguous()

        other = None if self.other is None else apart(self.other)
        return self.map(apart)._replace(other=other)

    def until(self, steps: int) -> Trajectories:
        """The first steps of every episode."""
        if steps == self.reward.shape[1]:
            return self
        other = None if self.other is None else self.other[:, :steps]
        return self.map(lambda part: part[:, :steps])._replace(other=other, carry=self.carry)
