"""A policy whose memory lasts over the episodes of a task: it adapts by remembering (RL^2, Duan et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.base import SHIFT, Weights
from metaduel.agents.policies.recurrent import GRUPolicy, affine
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.errors import InvalidInputError


class Played(NamedTuple):
    """The steps of a chain that were played: P in all, task by task."""

    given: Tensor  # [1, L, M, d + A + 2] inputs without gaps, those at the ends of episodes included; L of the longest task
    ends: Tensor  # [1, L, M, 1] 1 for the extra inputs at the ends of episodes
    at: Tensor  # [P] int64, where in the L M inputs the steps are
    seen: Tensor  # [1, P, d + A + 2] their inputs
    alive: Tensor  # [M, T] bool, all steps of the chain in time

    def pick(self, field: Tensor) -> Tensor:
        """[1, P, ...] of a field [1, T, M, ...] of the whole chain."""
        return field[0].transpose(0, 1)[self.alive].unsqueeze(0)

    def spread(self, values: Tensor) -> Tensor:
        """The reverse for values [1, P]: [1, T, M], 0 where no step was played."""
        return values.new_zeros(self.alive.shape).masked_scatter(self.alive, values).mT.unsqueeze(0)


class MemoryPolicy(GRUPolicy):
    """A gated recurrent unit whose memory outlives an episode; at the first episode it is the weight ``memory.start``.

    Its carry is the adapted state: test episodes start from copies of the carry. Its input is [..., d + A + 2]: the
    observation, the previous action and reward (0 at the first step), and whether the episode is over. An extra input at the end
    of an episode holds the last action and reward.
    """

    lasting = True

    @property
    def carried(self) -> tuple[int, int]:
        """See ``Policy``: memory; previous action, reward, and whether the episode is over."""
        return self.units, self.action_size + 2

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player, with an empty memory."""
        start = torch.zeros(self.units, dtype=dtype, device="cpu")
        return super().init(seed, dtype) | {"memory.start": start}

    def noted(self, action: Tensor, reward: Tensor) -> Tensor:
        """The numbers of the next input that follow the observation, [N, M, A + 2]."""
        before = super().noted(action, reward)
        return torch.cat([before, torch.zeros_like(before[..., :1])], -1)

    def initial_carry(self, weights: Weights, episodes: int) -> Carry:
        """See ``Policy``; the memory of M episodes is ``memory.start``."""
        start = weights["memory.start"].unsqueeze(1).repeat_interleave(episodes, 1)
        return Carry(start, start.new_zeros(*start.shape[:2], self.carried[1]))

    def end_episode(self, prepared: Weights, carry: Carry) -> Carry:
        """See ``Policy``: the memory after an extra input that holds the last action and reward."""
        memory = self._close(prepared, carry.before, carry.memory)
        return Carry(memory, torch.zeros_like(carry.before))

    def _close(self, prepared: Weights, before: Tensor, hidden: Tensor) -> Tensor:
        given = self._end(before)
        if SHIFT in prepared:
            given = given + self._blank(prepared).unsqueeze(1)
        return self._step(prepared, affine(prepared, "input", given), hidden)

    def _end(self, before: Tensor) -> Tensor:
        """The extra input [..., d + A + 2] at the end of an episode, before ``_blank`` is added, from its last part."""
        blank = before.new_zeros(*before.shape[:-1], self.observation_size)
        return torch.cat([blank, before[..., :-1], torch.ones_like(before[..., :1])], -1)

    def _blank(self, prepared: Weights) -> Tensor:
        """An input [N, d + A + 2] whose observation is 0 after normalisation, and all the rest 0."""
        return torch.nn.functional.pad(prepared[SHIFT], (0, self.carried[1]))

    def played(self, chain: Sequence[Trajectories]) -> Played:
        """The steps that were played in episodes [1, T, M, ...], one after another.

        Raises:
            InvalidInputError: episodes of several sets of weights.
        """
        if len(chain[0].reward) != 1:
            raise InvalidInputError(f"chains of {len(chain[0].reward)} sets of weights: give those of one")
        inputs, alive, ends = [], [], []
        for data in chain:
            inputs += [data.observation[0], self._end(self._last(data))]
            alive += [data.alive[0] > 0, torch.ones_like(data.alive[0, :1], dtype=torch.bool)]
            ends += [torch.zeros_like(alive[-2]), alive[-1]]
        # No step follows the last end.
        given, taken, last = (torch.cat(part[:-1]).transpose(0, 1) for part in (inputs, alive, ends))  # [M, ...]
        place = taken.cumsum(1)[taken] - 1  # of every input in its task
        task = torch.nonzero(taken)[:, 0]
        where = place * len(taken) + task
        longest = int(place.max()) + 1
        packed = given.new_zeros(longest * len(taken), given.shape[-1]).index_copy(0, where, given[taken])
        closes = given.new_zeros(longest * len(taken), 1).index_copy(
            0, where, last[taken].to(given.dtype).unsqueeze(-1)
        )
        at = where[~last[taken]]
        return Played(
            packed.view(1, longest, len(taken), -1),
            closes.view(1, longest, len(taken), 1),
            at,
            packed[at].unsqueeze(0),
            torch.cat([data.alive[0] > 0 for data in chain]).mT,
        )

    def over_chain(self, prepared: Weights, played: Played) -> Tensor:
        """The memory [1, P, units] at every step of episodes that were played one after another, from the start of the first."""
        given = played.given
        if SHIFT in prepared:
            given = given + played.ends * self._blank(prepared).view(1, 1, 1, -1)
        start = self.initial_carry(prepared, given.shape[2]).memory
        return self.memories(prepared, given, start).flatten(1, 2).index_select(1, played.at)

    def _last(self, data: Trajectories) -> Tensor:
        """The extra input at the end of an episode: the last action and reward of every episode, [N, M, A + 2]."""
        last = (data.alive.sum(1, keepdim=True) - 1).long()
        reward = data.reward.gather(1, last).squeeze(1)
        if data.action.dim() == 4:
            last = last.unsqueeze(-1).expand(-1, -1, -1, data.action.shape[-1])
        return self.noted(data.action.gather(1, last).squeeze(1), reward)

    def read(self, prepared: Weights, observation: Tensor, hidden: Tensor) -> Tensor:
        """Means or logits [N, M, A] at inputs [N, M, d + A + 2] with the memory [N, M, units] that includes them."""
        return self._masked(affine(prepared, "output", hidden), observation)

    def prediction_loss(
        self, prepared: Weights, data: Trajectories, played: Played, hidden: Tensor, seed: int
    ) -> Tensor:
        """The prediction error of the belief in the memory, []; for policies that have one.

        Raises:
            TypeError: this policy has none.
        """
        raise TypeError(f"{type(self).__name__} predicts nothing")

    def _step(self, prepared: Weights, given: Tensor, hidden: Tensor) -> Tensor:
        return self._cell(prepared, given, (hidden,))[0]

    def advance(self, prepared: Weights, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """See ``Policy``; inputs [N, M, d + A + 2], memory [N, M, units]."""
        hidden = self._step(prepared, affine(prepared, "input", given), carry.memory)
        return self.read(prepared, given, hidden), carry._replace(memory=hidden)


def join(chain: Sequence[Trajectories]) -> Trajectories:
    """All episodes, concatenated along the time axis."""
    observation, action, reward, alive = (
        torch.cat(parts, 1) for parts in zip(*(data[:4] for data in chain), strict=True)
    )
    others = [data.other for data in chain if data.other is not None]
    return Trajectories(observation, action, reward, alive, torch.cat(others, 1) if others else None)
