"""Pursuit's rules. See the package's docstring for the tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core import Game, Outcome, Pair

DT = 0.1  # s per step
ARENA = 1.0  # m: radius of the wall
CAPTURE = 0.15  # m: closer than this, the evader is caught
START = (0.3, 0.5)  # m from the centre: both start there, on opposite sides
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
    """Where both are and how fast."""

    evader: Tensor  # [B, 2] m
    evader_velocity: Tensor  # [B, 2] m/s
    pursuer: Tensor  # [B, 2] m
    pursuer_velocity: Tensor  # [B, 2] m/s
    time: Tensor  # [B] s since the start


class Pursuit(Game[Params, State]):
    """Leave through the hidden gate before the pursuer catches you."""

    params_type = Params
    init_noise = 3

    def init(self, params: Params, noise: Tensor) -> State:
        """Start at rest, on opposite sides of the centre, in a direction that has nothing to do with the gate."""
        side = polar(2 * math.pi * noise[:, 0])
        radius = START[0] + (START[1] - START[0]) * noise[:, 1:]
        evader, pursuer = side * radius[:, :1], -side * radius[:, 1:]
        still = torch.zeros_like(side)
        return State(evader, still, pursuer, still, torch.zeros_like(params.drag))

    def observe(self, params: Params, state: State) -> Pair:
        """Each sees itself, the other relative to itself, and the clock; nothing that depends on the gate."""
        gap = state.pursuer - state.evader
        left = (1 - state.time * (1 / (DT * self.spec.horizon))).clamp(min=0).unsqueeze(1)
        evader = torch.cat([state.evader, state.evader_velocity, gap, state.pursuer_velocity, left], 1)
        pursuer = torch.cat([state.pursuer, state.pursuer_velocity, -gap, state.evader_velocity, left], 1)
        return evader, pursuer

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Move both, then look who is where: caught comes before out."""
        evader, evader_velocity = move(
            state.evader,
            state.evader_velocity,
            actions[0],
            params.evader_acceleration,
            params.evader_speed,
            params.drag,
        )
        pursuer, pursuer_velocity = move(
            state.pursuer,
            state.pursuer_velocity,
            actions[1],
            params.pursuer_acceleration,
            params.pursuer_speed,
            params.drag,
        )
        # The wall holds the pursuer, at the gate too: it slides along.
        inside = pursuer / (length(pursuer) * (1 / ARENA)).clamp(min=1.0).unsqueeze(1)
        pursuer_velocity = pursuer_velocity + (inside - pursuer) * (1 / DT)

        gate = params.gate
        radius = length(evader)
        out = radius > ARENA
        # Where the evader crossed, seen from the centre; the gate's width is measured straight across.
        at_gate = length(evader * (ARENA / radius).unsqueeze(1) - gate) <= 0.5 * params.gate_width
        caught = length(inside - evader) < CAPTURE
        escaped = out & at_gate & ~caught
        terminated = out | caught

        before = length(state.pursuer - gate) - length(state.evader - gate)
        after = length(inside - gate) - length(evader - gate)
        # Outcome: +1 escaped, -1 caught or out at the wrong place, 0 still in the arena.
        reward = RACE * (after - before) + (2 * escaped.to(radius.dtype) - terminated.to(radius.dtype))
        new = State(evader, evader_velocity, inside, pursuer_velocity, state.time + DT)
        return new, Outcome(torch.stack([reward, -reward], 1), terminated)


def move(
    position: Tensor, velocity: Tensor, action: Tensor, acceleration: Tensor, speed: Tensor, drag: Tensor
) -> tuple[Tensor, Tensor]:
    """One semi-implicit Euler step of a point mass: drag and thrust change the velocity, which is cut to the top
    speed, and the new velocity moves the point.
    """
    thrust = unit_disc(action) * acceleration.unsqueeze(1)
    velocity = velocity + DT * (thrust - drag.unsqueeze(1) * velocity)
    velocity = velocity * (speed / length(velocity).clamp(min=1e-9)).clamp(max=1.0).unsqueeze(1)
    return position + DT * velocity, velocity


def length(vector: Tensor) -> Tensor:
    """Euclidean length: [B, 2] to [B]."""
    x, y = vector.unbind(1)
    return torch.sqrt(x * x + y * y)


def unit_disc(vector: Tensor) -> Tensor:
    """Cut vectors [B, 2] to length 1."""
    return vector / length(vector).clamp(min=1.0).unsqueeze(1)


def polar(angle: Tensor) -> Tensor:
    """Unit vectors [B, 2] at ``angle`` [B] rad."""
    angle = angle.contiguous()
    return torch.stack([torch.cos(angle), torch.sin(angle)], 1)
