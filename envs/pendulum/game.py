"""Pendulum's rules. See the package's docstring for the tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.spec import Task

DT = 0.05  # s per step
TOP_SPEED = 8.0  # rad/s: the pendulum turns no faster
START_SPEED = 1.0  # rad/s: it starts at any angle and turns no faster than this


class Params(NamedTuple):
    """A task, one row per episode."""

    target: Tensor  # [B] rad, 0 is upright
    gain: Tensor  # [B]
    reversed: Tensor  # [B] 0 or 1
    adversary_reversed: Tensor  # [B] 0 or 1
    gravity: Tensor  # [B] m/s^2
    mass: Tensor  # [B] kg
    length: Tensor  # [B] m
    torque: Tensor  # [B] N m
    adversary_torque: Tensor  # [B] N m
    damping: Tensor  # [B] N m s

    @property
    def motor(self) -> Tensor:
        """[B] N m: the torque that the protagonist's action of 1 makes."""
        return (1 - 2 * self.reversed) * self.gain * self.torque

    @property
    def adversary_motor(self) -> Tensor:
        """[B] N m: the torque that the adversary's action of 1 makes."""
        return (1 - 2 * self.adversary_reversed) * self.adversary_torque

    @property
    def weight(self) -> Tensor:
        """[B] 1/s^2: the angular acceleration by gravity where the rod is level."""
        return 3 * self.gravity / (2 * self.length)

    @property
    def inverse_inertia(self) -> Tensor:
        """[B] 1/(kg m^2): of a uniform rod that turns about its end."""
        return 3.0 / (self.mass * (self.length * self.length))


class State(NamedTuple):
    """How the pendulum stands and turns, and what last acted on it (for pictures; the rules don't use it)."""

    angle: Tensor  # [B] rad from upright, anticlockwise, not wrapped
    speed: Tensor  # [B] rad/s
    torque: Tensor  # [B] N m: the protagonist's, of the last step
    adversary_torque: Tensor  # [B] N m: the adversary's, of the last step


class Pendulum(Game[Params, State]):
    """Turn a pendulum to a hidden angle and hold it there while an adversary twists it."""

    params_type = Params
    init_noise = 2

    def init(self, params: Params, noise: Tensor) -> State:
        """Start at any angle, turning slowly, as Gymnasium's Pendulum does."""
        angle, speed = (noise * 2 - 1).unbind(1)
        still = torch.zeros_like(params.mass)
        return State(math.pi * angle, START_SPEED * speed, still, still)

    def observe(self, params: Params, state: State) -> Pair:
        """Both see where it points and how fast it turns."""
        # The angle may come as a column of a matrix: cosines of strided memory differ in the last place.
        angle = state.angle.contiguous()
        seen = torch.stack([torch.cos(angle), torch.sin(angle), state.speed]).t()
        return seen, seen

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Pay for where it was, then turn by one semi-implicit Euler step."""
        torque, attack = params.motor * actions[0][:, 0], params.adversary_motor * actions[1][:, 0]
        error = wrap(state.angle - params.target)
        cost = error * error + 0.1 * (state.speed * state.speed) + 0.001 * (torque * torque)
        twist = torque + attack - params.damping * state.speed
        pull = params.weight * torch.sin(state.angle.contiguous())
        speed = (state.speed + (pull + params.inverse_inertia * twist) * DT).clamp(-TOP_SPEED, TOP_SPEED)
        after = State(state.angle + speed * DT, speed, torque, attack)
        return after, Outcome(torch.stack([-cost, cost]).t(), torch.zeros_like(cost, dtype=torch.bool))

    def check(self, task: Task) -> None:
        """Refuse a friction that would turn the pendulum back within one step."""
        damping, inertia = task["damping"], task["mass"] * task["length"] ** 2 / 3
        if damping * DT > inertia:
            raise InvalidInputError(
                f"{self.spec.name}: damping={damping:g} N m s is more than mass={task['mass']:g} kg and "
                f"length={task['length']:g} m allow: at most {inertia / DT:g}, or one step turns the motion round"
            )


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
