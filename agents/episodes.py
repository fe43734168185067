"""Episodes of different lengths, played one step at a time, as the padded tensors that losses take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.trajectories import Trajectories


class Step(NamedTuple):
    """One player's step."""

    observation: Tensor  # [d]
    action: Tensor  # [a] before clipping, or [] int64
    reward: float


def pad_episodes(tasks: Sequence[Sequence[Sequence[Step]]], length: int | None = None) -> Trajectories:
    """Turn N lists of E episodes (lists of at least one step) into [N, T, E] trajectories.

    Args:
        tasks: episodes per task, the same number for each.
        length: T; the longest episode by default.
    """
    steps = length or max(len(episode) for episodes in tasks for episode in episodes)
    first = tasks[0][0][0]
    shape = (len(tasks), steps, len(tasks[0]))
    observation = first.observation.new_zeros(*shape, *first.observation.shape)
    action = first.action.new_zeros(*shape, *first.action.shape)
    reward, alive = first.observation.new_zeros(shape), first.observation.new_zeros(shape)
    for n, episodes in enumerate(tasks):
        for e, episode in enumerate(episodes):
            played = len(episode)
            observation[n, :played, e] = torch.stack([step.observation for step in episode])
            action[n, :played, e] = torch.stack([step.action for step in episode])
            reward[n, :played, e] = reward.new_tensor([step.reward for step in episode])
            alive[n, :played, e] = 1.0
    return Trajectories(observation, action, reward, alive)
