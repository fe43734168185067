"""A policy whose memory lasts over the episodes of a task: what it remembers is how it adapts (RL^2, Duan et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.agents.policies.recurrent import GRUPolicy, affine, joined
from metaduel.agents.trajectories import Trajectories


class MemoryPolicy(GRUPolicy):
    """A gated recurrent unit that starts every episode with the memory in its weights, ``memory.start``.

    So an adapted player is a set of weights like any other, whose memory is that of the episodes before; test episodes start from
    copies of it. Its input is [..., d + A + 2]: the observation, the previous action and reward (0 at the first step), and
    whether the episode is over. An episode is closed by an input of its own, which holds the last action and reward.
    """

    @property
    def remembered(self) -> tuple[int, int]:
        """Numbers that are carried from step to step: memory; previous action, reward, and whether it is over."""
        return self.units, self.action_size + 2

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player, with an empty memory."""
        return super().init(seed, dtype) | {"memory.start": torch.zeros(self.units, dtype=dtype)}

    def remember(self, action: Tensor, reward: Tensor) -> Tensor:
        """What the next input holds beside the observation, [N, M, A + 2]."""
        before = super().remember(action, reward)
        return torch.cat([before, torch.zeros_like(before[..., :1])], -1)

    def begin(self, weights: Weights, episodes: int) -> Tensor:
        """The memory [N, M, units] with which M episodes start: ``memory.start`` is [N, units], or [N, tasks, units] where one
        set of weights plays as many episodes on each of several tasks.
        """
        start = weights["memory.start"]
        start = start.unsqueeze(1) if start.dim() == 2 else start
        return start.repeat_interleave(episodes // start.shape[1], 1)

    def close(self, prepared: Weights, before: Tensor, hidden: Tensor) -> Tensor:
        """The memory after an episode that ended with ``before`` [N, M, A + 2] (see ``remember``) and memory ``hidden``."""
        blank = before.new_zeros(*before.shape[:-1], self.observation_size)  # 0 after normalisation, too
        if self.statistics is not None:
            blank = blank + self.statistics[0].to(before.dtype)
        given = torch.cat([blank, before[..., :-1], torch.ones_like(before[..., :1])], -1)
        return self._step(prepared, affine(prepared, "input", given), hidden)

    def over_chain(self, prepared: Weights, chain: Sequence[Trajectories]) -> list[Tensor]:
        """The memory [N, T, M, units] at every step of episodes that were played one after another, from the start of the
        first. Steps that were not played leave it as it is.
        """
        hidden = self.begin(prepared, chain[0].reward.shape[2])
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
            hidden = self.close(prepared, self._last(data), hidden)
        return result

    def _last(self, data: Trajectories) -> Tensor:
        """What ``close`` is given: the last action and reward of every episode, [N, M, A + 2]."""
        last = (data.alive.sum(1, keepdim=True) - 1).long()
        reward = data.reward.gather(1, last).squeeze(1)
        if data.action.dim() == 4:
            last = last.unsqueeze(-1).expand(-1, -1, -1, data.action.shape[-1])
        return self.remember(data.action.gather(1, last).squeeze(1), reward)

    def read(self, prepared: Weights, observation: Tensor, hidden: Tensor) -> Tensor:
        """Means or logits [N, M, A] at inputs [N, M, d + A + 2] with the memory [N, M, units] that includes them."""
        return self._masked(affine(prepared, "output", hidden), observation)

    def _step(self, prepared: Weights, given: Tensor, hidden: Tensor) -> Tensor:
        return self._cell(prepared, given, (hidden,))[0]

    def advance(self, prepared: Weights, given: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step: input [N, M, d + A + 2] and memory [N, M, units] give means or logits [N, M, A] and the new memory."""
        hidden = self._step(prepared, affine(prepared, "input", given), hidden)
        return self.read(prepared, given, hidden), hidden


def join(chain: Sequence[Trajectories]) -> Trajectories:
    """All episodes along the axis of time."""
    observation, action, reward, alive = (
        torch.cat(parts, 1) for parts in zip(*(data[:4] for data in chain), strict=True)
    )
    others = [data.other for data in chain if data.other is not None]
    return Trajectories(observation, action, reward, alive, torch.cat(others, 1) if others else None)
