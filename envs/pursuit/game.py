"""Pursuit's rules. See the package's docstring for the tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.geometry import both, features_first, length, norm, polar, rows_first, thrust

DT = 0.1  # s per step
ARENA = 1.0  # m: radius of the wall
CAPTURE = 0.15  # m: closer than this, the evader is caught
SIGHT = 0.25  # m: closer than this, they see each other
SEEN = 8  # where in both players' observations it stands whether they see each other, 1 or 0
EVADER_START = (0.5, 0.7)  # m from the centre
PURSUER_START = (0.0, 0.3)  # m from the centre
RACE = 0.4  # reward per m of lead in the race to the gate; from 0.5 on, being caught could beat surviving


class Params(NamedTuple):
    """A task, one row per episode."""

    gate_angle: Tensor  # [B] rad
    gate_width: Tensor  # [B] m
    evader_speed: Tensor  # [B] m/s
    pursuer_speed: Tensor  # [B] m/s
    evader_acceleration: Tensor  # [B] m/s^2
    pursuer_acceleration: Tensor  # [B] m/s^2
    drag: Tensor  # [B] 1/s

    @property
    def gate(self) -> Tensor:
        """[B, 2] m: the middle of the gate, on the wall."""
        return ARENA * polar(self.gate_angle)


class State(NamedTuple):
    """Where both are and how fast; index 0 of the second dimension is the evader, 1 the pursuer."""

    position: Tensor  # [B, 2, 2] m: player, x or y
    velocity: Tensor  # [B, 2, 2] m/s
    left: Tensor  # [B] share of the time that is left

    @property
    def evader(self) -> Tensor:
        """[B, 2] m."""
        return self.position[:, 0]

    @property
    def pursuer(self) -> Tensor:
        """[B, 2] m."""
        return self.position[:, 1]

    @property
    def evader_velocity(self) -> Tensor:
        """[B, 2] m/s."""
        return self.velocity[:, 0]

    @property
    def pursuer_velocity(self) -> Tensor:
        """[B, 2] m/s."""
        return self.velocity[:, 1]

    @property
    def in_sight(self) -> Tensor:
        """[B] bool: whether they see each other."""
        return length(self.pursuer - self.evader) < SIGHT


class Pursuit(Game[Params, State]):
    """Leave through the hidden gate before the pursuer catches you."""

    params_type = Params
    init_noise = 4

    def init(self, params: Params, noise: Tensor) -> State:
        """Start at rest, each in a direction that has nothing to do with the gate."""
        evader = polar(2 * math.pi * noise[:, 0]) * _between(EVADER_START, noise[:, 1:2])
        pursuer = polar(2 * math.pi * noise[:, 2]) * _between(PURSUER_START, noise[:, 3:])
        position = both(evader, pursuer)
        return State(position, torch.zeros_like(position), torch.ones_like(params.drag))

    def observe(self, params: Params, state: State) -> Pair:
        """Each sees itself, the clock, and the other if it is near; nothing that depends on the gate."""
        (evader, pursuer), (evader_velocity, pursuer_velocity) = map(features_first, (state.position, state.velocity))
        gap = pursuer - evader
        seen = (norm(gap) < SIGHT).to(gap.dtype).unsqueeze(0)
        gap, left = seen * gap, state.left.unsqueeze(0)
        # Joined feature by feature: joining row by row copies a few bytes at a time, which takes longer than the step.
        return (
            torch.cat([evader, evader_velocity, gap, seen * pursuer_velocity, seen, left]).t(),
            torch.cat([pursuer, pursuer_velocity, -gap, seen * evader_velocity, seen, left]).t(),
        )

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Move both, then decide where each is."""
        position, velocity = move(params, state, actions)
        gate = params.gate
        escaped, lost = ending(params, position, gate)
        race = RACE * (lead(position, gate) - lead(state.position, gate))
        reward = race + escaped.to(race.dtype) - lost.to(race.dtype)
        left = (state.left - 1 / self.spec.horizon).clamp(min=0.0)
        return State(position, velocity, left), Outcome(torch.stack([reward, -reward]).t(), escaped | lost)


def move(params: Params, state: State, actions: Pair) -> tuple[Tensor, Tensor]:
    """Move both point masses by one semi-implicit Euler step.

    Thrust and drag change the velocity, which is cut to the top speed, and the new velocity moves the point. The wall
    holds the pursuer, at the gate too: it slides along.

    Returns:
        Positions and velocities, [B, 2, 2] each.
    """
    # Vectors are [2, B] and pairs of them [2, 2, B] here: as they are in memory.
    acceleration = torch.stack([params.evader_acceleration, params.pursuer_acceleration])
    speed = torch.stack([params.evader_speed, params.pursuer_speed])
    before = features_first(state.velocity)
    velocity = before + DT * (acceleration.unsqueeze(1) * thrust(actions) - params.drag * before)
    velocity = velocity * (speed / norm(velocity.transpose(0, 1)).clamp(min=1e-9)).clamp(max=1.0).unsqueeze(1)
    position = features_first(state.position) + DT * velocity
    pursuer = position[1]
    held = pursuer / (norm(pursuer) * (1 / ARENA)).clamp(min=1.0)
    slide = torch.stack([torch.zeros_like(held), held - pursuer])
    return rows_first(position + slide), rows_first(velocity + slide * (1 / DT))


def ending(params: Params, position: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Look whether it is over.

    Returns:
        Whether the evader is out through the gate, and whether it is caught or out anywhere else: [B] bool each.
    """
    evader, pursuer = features_first(position)
    radius = norm(evader)
    out = radius > ARENA
    # Where the evader crossed the wall, seen from the centre; the gate's width is measured straight across.
    at_gate = norm(evader * (ARENA / radius) - gate.t()) <= 0.5 * params.gate_width
    free = norm(pursuer - evader) >= CAPTURE
    escaped = out & at_gate & free
    return escaped, (out | ~free) & ~escaped


def _between(bounds: tuple[float, float], share: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * share


def lead(position: Tensor, gate: Tensor) -> Tensor:
    """The evader's lead in the race to the gate, [B] m: the pursuer's distance to it minus the evader's."""
    evader, pursuer = norm((features_first(position) - gate.t()).transpose(0, 1)).unbind(0)
    return pursuer - evader
