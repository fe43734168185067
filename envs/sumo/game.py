"""Sumo's rules. See the package's docstring for the tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.geometry import both, length, polar, unit_disc
from metaduel.envs.core.spec import Task

DT = 0.1  # s per step
DISC = 0.15  # m: radius of a disc of 1 kg; all are of one material and height
START = 0.35  # ring radii between the centre and where each starts
FEEL = 0.25  # m between the discs: closer than this, they feel each other
CLIMB = 0.15  # reward per m of height gained, along the slope; from 0.25 / ring_radius on, losing could beat surviving


class Params(NamedTuple):
    """A task, one row per episode."""

    tilt_direction: Tensor  # [B] rad
    tilt: Tensor  # [B] m/s^2
    protagonist_mass: Tensor  # [B] kg
    adversary_mass: Tensor  # [B] kg
    protagonist_force: Tensor  # [B] N
    adversary_force: Tensor  # [B] N
    friction: Tensor  # [B] 1/s
    ring_radius: Tensor  # [B] m
    restitution: Tensor  # [B]

    @property
    def down(self) -> Tensor:
        """[B, 2]: unit vector down the slope."""
        return polar(self.tilt_direction)

    @property
    def touch(self) -> Tensor:
        """[B] m: how far the centres of discs that touch are apart."""
        return DISC * (torch.sqrt(self.protagonist_mass) + torch.sqrt(self.adversary_mass))


class State(NamedTuple):
    """Where both are and how fast; index 0 of the second dimension is the protagonist, 1 the adversary."""

    position: Tensor  # [B, 2, 2] m from the ring's centre: player, x or y
    velocity: Tensor  # [B, 2, 2] m/s
    left: Tensor  # [B] share of the time that is left


class Sumo(Game[Params, State]):
    """Push the other out of the ring."""

    params_type = Params
    init_noise = 1

    def check(self, task: Task) -> None:
        """Both discs must fit between their starts."""
        need = sum(DISC * math.sqrt(task[f"{role}_mass"]) for role in ("protagonist", "adversary")) / (2 * START)
        if task["ring_radius"] < need:
            raise InvalidInputError(
                f"Sumo: ring_radius={task['ring_radius']:g} is too small for the discs of "
                f"protagonist_mass={task['protagonist_mass']:g} and adversary_mass={task['adversary_mass']:g}: "
                f"it must be at least {need:.4g} m"
            )

    def init(self, params: Params, noise: Tensor) -> State:
        """Start at rest on opposite sides of the centre, in a direction that has nothing to do with the tilt."""
        start = (START * params.ring_radius).unsqueeze(1) * polar(2 * math.pi * noise[:, 0])
        position = both(start, -start)
        return State(position, torch.zeros_like(position), torch.ones_like(params.tilt))

    def observe(self, params: Params, state: State) -> Pair:
        """Each feels the other against itself if it is near, and the clock; nothing that depends on tilt or ring."""
        gap = between(state.position)
        felt = (length(gap) < params.touch + FEEL).to(gap.dtype).unsqueeze(0)
        # Joined feature by feature: joining row by row copies a few bytes at a time.
        other = felt * torch.cat([gap.t(), between(state.velocity).t()])
        rest = torch.cat([felt, state.left.unsqueeze(0)])
        return torch.cat([other, rest]).t(), torch.cat([-other, rest]).t()

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Move both, then decide which of them is out."""
        position, velocity = move(params, state, actions)
        down = params.down
        gained = between(position) - between(state.position)
        climb = CLIMB * (gained[:, 0] * down[:, 0] + gained[:, 1] * down[:, 1])
        win = winner(params, position)
        reward = climb + win
        left = (state.left - 1 / self.spec.horizon).clamp(min=0.0)
        return State(position, velocity, left), Outcome(torch.stack([reward, -reward]).t(), win != 0)


def move(params: Params, state: State, actions: Pair) -> tuple[Tensor, Tensor]:
    """Move both discs by one step.

    Forces, the tilt and friction change the velocities, and the new velocities move the discs. If they meet within the
    step, they exchange momentum there, along the line between their centres, and move on with what they got.

    Returns:
        Positions and velocities, [B, 2, 2] each.
    """
    mass = torch.stack([params.protagonist_mass, params.adversary_mass]).t()
    strength = torch.stack([params.protagonist_force, params.adversary_force]).t() / mass
    pull = (params.tilt.unsqueeze(1) * params.down).unsqueeze(1)
    gain = strength.unsqueeze(2) * unit_disc(both(*actions)) + pull - params.friction.view(-1, 1, 1) * state.velocity
    velocity = state.velocity + DT * gain

    # Between the centres: gap + s * path over the step's share s in [0, 1]; they meet where its length is the radii's sum.
    gap, closing = between(state.position), between(velocity)
    path = DT * closing
    along = gap[:, 0] * path[:, 0] + gap[:, 1] * path[:, 1]
    outside = gap[:, 0] * gap[:, 0] + gap[:, 1] * gap[:, 1] - params.touch * params.touch
    inside = along * along - (path[:, 0] * path[:, 0] + path[:, 1] * path[:, 1]) * outside
    # The smaller root of a quadratic, in the form that loses no digits where they touch already.
    when = (outside / (torch.sqrt(inside.clamp(min=0.0)) - along).clamp(min=1e-12)).clamp(min=0.0)
    meet = (along < 0) & (inside >= 0) & (when <= 1)
    normal = gap + when.unsqueeze(1) * path
    normal = normal / length(normal).clamp(min=1e-9).unsqueeze(1)
    speed = closing[:, 0] * normal[:, 0] + closing[:, 1] * normal[:, 1]
    # Speed each gets: the other's share of the mass times what changes between them.
    change = (meet * (1 + params.restitution) * speed / (mass[:, 0] + mass[:, 1])).unsqueeze(1) * normal
    kick = both(change * mass[:, 1:], -change * mass[:, :1])
    rest = DT * (1 - when.clamp(max=1.0)).view(-1, 1, 1)
    return state.position + DT * velocity + rest * kick, velocity + kick


def winner(params: Params, position: Tensor) -> Tensor:
    """The winner, [B]: 1 the protagonist, -1 the adversary, 0 neither (yet)."""
    protagonist, adversary = length(position).unbind(1)
    out = torch.maximum(protagonist, adversary) > params.ring_radius
    return out * torch.sign(adversary - protagonist)


def between(pair: Tensor) -> Tensor:
    """The adversary's minus the protagonist's: [B, 2, 2] to [B, 2]."""
    return pair[:, 1] - pair[:, 0]
