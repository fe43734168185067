"""CartPole's rules. See the package's docstring for the tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.spec import Task

DT = 0.02  # s per step
TRACK = 2.4  # m: further than this from the middle, the episode is over
FALLEN = 12 * 2 * math.pi / 360  # rad: further than this from upright, too
START = 0.05  # m, m/s, rad, rad/s: every number of the state starts within this of zero
TOP_SPEED = 100.0  # m/s, rad/s: only the wildest tasks and rows that are over get there; keeps numbers finite


class Params(NamedTuple):
    """A task, one row per episode."""

    target: Tensor  # [B] m
    gain: Tensor  # [B]
    reversed: Tensor  # [B] 0 or 1
    wiring: Tensor  # [B] rad
    tracking: Tensor  # [B]
    gravity: Tensor  # [B] m/s^2
    cart_mass: Tensor  # [B] kg
    pole_mass: Tensor  # [B] kg
    half_length: Tensor  # [B] m
    force: Tensor  # [B] N
    tip_force: Tensor  # [B] N
    cart_force: Tensor  # [B] N
    damping: Tensor  # [B] N m s

    @property
    def motor(self) -> Tensor:
        """[B] N: the force that the protagonist's action 1 makes; action 0 makes the opposite."""
        return (1 - 2 * self.reversed) * self.gain * self.force

    @property
    def total_mass(self) -> Tensor:
        """[B] kg."""
        return self.pole_mass + self.cart_mass

    @property
    def moment(self) -> Tensor:
        """[B] kg m: the pole's mass times the distance of its middle from the hinge."""
        return self.pole_mass * self.half_length


class State(NamedTuple):
    """Where cart and pole are, and what last acted on them (for pictures; the rules don't use it)."""

    x: Tensor  # [B] m
    speed: Tensor  # [B] m/s
    angle: Tensor  # [B] rad from upright, clockwise
    turn: Tensor  # [B] rad/s
    force: Tensor  # [B] N: the protagonist's, of the last step
    tip_force: Tensor  # [B] N: the adversary's on the pole's tip, of the last step
    cart_force: Tensor  # [B] N: the adversary's on the cart, of the last step


class CartPole(Game[Params, State]):
    """Balance a pole on a cart near a hidden place while an adversary pushes both."""

    params_type = Params
    init_noise = 4

    def init(self, params: Params, noise: Tensor) -> State:
        """Start nearly upright and nearly at rest in the middle, as Gymnasium's CartPole does."""
        still = torch.zeros_like(params.force)
        x, speed, angle, turn = (START * (2 * noise - 1)).t().contiguous().unbind()
        return State(x, speed, angle, turn, still, still, still)

    def observe(self, params: Params, state: State) -> Pair:
        """Both see cart and pole."""
        seen = torch.stack(state[:4]).t()
        return seen, seen

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Push, move by one explicit Euler step, look where that leads."""
        force = params.motor * (2 * actions[0] - 1)
        tip_force, cart_force = adversary_forces(params, actions[1])
        acceleration, angular = accelerations(params, state, force + cart_force, tip_force)
        x, angle = state.x + DT * state.speed, state.angle + DT * state.turn
        speed = (state.speed + DT * acceleration).clamp(-TOP_SPEED, TOP_SPEED)
        turn = (state.turn + DT * angular).clamp(-TOP_SPEED, TOP_SPEED)
        reward = 1 - params.tracking * (x - params.target).abs().clamp(max=1.0)
        after = State(x, speed, angle, turn, force, tip_force, cart_force)
        return after, Outcome(torch.stack([reward, -reward]).t(), ending(x, angle))

    def check(self, task: Task) -> None:
        """Refuse a friction that would turn the pole back within one step."""
        damping, inertia = task["damping"], 4 / 3 * task["pole_mass"] * task["half_length"] ** 2
        if damping * DT > inertia:
            raise InvalidInputError(
                f"{self.spec.name}: damping={damping:g} N m s is more than pole_mass={task['pole_mass']:g} kg and "
                f"half_length={task['half_length']:g} m allow: at most {inertia / DT:g}, "
                "or one step turns the motion round"
            )


def accelerations(params: Params, state: State, force: Tensor, tip_force: Tensor) -> tuple[Tensor, Tensor]:
    """Solve the equations of motion of a cart with a uniform pole.

    Barto, Sutton and Anderson's (1983) in Florian's (2007) corrected form, with two further terms: a level force on the
    pole's tip, which pushes the whole and turns the pole, and friction in the hinge.

    Args:
        params: the tasks.
        state: where cart and pole are.
        force: [B] N on the cart.
        tip_force: [B] N, level, on the pole's tip.

    Returns:
        The cart's acceleration, [B] m/s^2, and the pole's, [B] rad/s^2.
    """
    angle = state.angle.contiguous()
    cosine, sine = torch.cos(angle), torch.sin(angle)
    mass, moment = params.total_mass, params.moment
    push = (force + tip_force + moment * (state.turn * state.turn) * sine) / mass
    twist = (2 * params.half_length * tip_force * cosine - params.damping * state.turn) / moment
    angular = (params.gravity * sine - cosine * push + twist) / (
        params.half_length * (4.0 / 3.0 - params.pole_mass * (cosine * cosine) / mass)
    )
    return push - moment * angular * cosine / mass, angular


def adversary_forces(params: Params, action: Tensor) -> Pair:
    """What the adversary's action does to the tip and to the cart, [B] N each: cut to the unit disc, turned by the
    wiring, times the largest forces.
    """
    first, second = action[:, 0], action[:, 1]
    length = torch.sqrt((first * first + second * second).contiguous()).clamp(min=1.0)
    wiring = params.wiring.contiguous()
    cosine, sine = torch.cos(wiring), torch.sin(wiring)
    tip = (cosine * first - sine * second) / length
    cart = (sine * first + cosine * second) / length
    return params.tip_force * tip, params.cart_force * cart


def ending(x: Tensor, angle: Tensor) -> Tensor:
    """[B] bool: whether the cart is off the track or the pole has fallen."""
    return (x.abs() > TRACK) | (angle.abs() > FALLEN)
