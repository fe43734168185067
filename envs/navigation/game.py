"""Navigation's rules. See the package's docstring for the tables."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.geometry import unit_disc

STRIDE = 0.1  # m that the protagonist's action of 1 moves in a step
GOAL_BOX = 0.01  # m: half the side of the box that ends the episode


class Params(NamedTuple):
    """A task, one row per episode."""

    goal_x: Tensor  # [B] m
    goal_y: Tensor  # [B] m
    push: Tensor  # [B] m per step

    @property
    def goal(self) -> Tensor:
        """[B, 2] m."""
        return torch.stack([self.goal_x, self.goal_y], 1)


class State(NamedTuple):
    """Where the walker is."""

    position: Tensor  # [B, 2] m


class Navigation(Game[Params, State]):
    """Walk to a hidden goal while an adversary pushes."""

    params_type = Params

    def init(self, params: Params, noise: Tensor) -> State:
        """Start at the origin."""
        return State(torch.zeros_like(params.goal))

    def observe(self, params: Params, state: State) -> Pair:
        """Both see the position alone."""
        return state.position, state.position

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Move, be pushed, pay the distance."""
        move, push = actions
        position = state.position + STRIDE * move + params.push.unsqueeze(1) * unit_disc(push)
        x, y = position.unbind(1)
        gap_x, gap_y = x - params.goal_x, y - params.goal_y
        distance = torch.sqrt(gap_x * gap_x + gap_y * gap_y)
        arrived = torch.maximum(gap_x.abs(), gap_y.abs()) < GOAL_BOX
        # Joined feature by feature: joining row by row copies a few bytes at a time.
        return State(position), Outcome(torch.stack([-distance, distance]).t(), arrived)
