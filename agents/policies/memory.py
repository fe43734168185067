"""A policy whose memory lasts over the episodes of a task: it adapts by remembering (RL^2, Duan et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metaduel.agents.policies.base import SHIFT, Weights
from metaduel.agents.policies.recurrent import GRUPolicy, affine, joined
from metaduel.agents.trajectories import Carry, Trajectories


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
        blank = before.new_zeros(*before.shape[:-1], self.observation_size)  # 0 after normalisation, too
        if SHIFT in prepared:
            blank = blank + prepared[SHIFT].unsqueeze(1)
        given = torch.cat([blank, before[..., :-1], torch.ones_like(before[..., :1])], -1)
        return self._step(prepared, affine(prepared, "input", given), hidden)

    def over_chain(self, prepared: Weights, chain: Sequence[Trajectories]) -> list[Tensor]:
        """The memory [N, T, M, units] at every step of episodes that were played one after another, from the start of the
        first. Steps that were not played do not change it.
        """
        hidden = self.initial_carry(prepared, chain[0].reward.shape[2]).memory
        result = []
        for data in chain:
            n, steps, episodes, size = data.observation.shape
            inputs = affine(prepared, "input", data.observation.reshape(n, steps * episodes, size))
            kept = []
            played = (data.alive > 0).unsqueeze(-1).unbind(1)
            for given, alive in zip(inputs.view(n, steps, episodes, -1).unbind(1), played, strict=True):
                hidden = torch.where(alive, self._step(prepared, given, hidden), hidden)
                kept.append(hidden)
            result.append(joined(kept))
            hidden = self._close(prepared, self._last(data), hidden)
        return result

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
        self, prepared: Weights, chain: Sequence[Trajectories], hidden: Sequence[Tensor], seed: int
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
