"""Sumo's rules. See the package's docstring for the tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.geometry import both, features_first, inner, norm, polar, rows_first, thrust
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
        gap = _between(features_first(state.position))
        felt = (norm(gap) < params.touch + FEEL).to(gap.dtype).unsqueeze(0)
        # Joined feature by feature: joining row by row copies a few bytes at a time.
        other = felt * torch.cat([gap, _between(features_first(state.velocity))])
        rest = torch.cat([felt, state.left.unsqueeze(0)])
        return torch.cat([other, rest]).t(), torch.cat([-other, rest]).t()

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Move both, then decide which of them is out."""
        down = params.down.t()
        position, velocity = _move(params, state, actions, down)
        gained = _between(features_first(position)) - _between(features_first(state.position))
        climb = CLIMB * inner(gained, down)
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
    return _move(params, state, actions, params.down.t())


def _move(params: Params, state: State, actions: Pair, down: Tensor) -> tuple[Tensor, Tensor]:
    """As ``move``; ``down``: [2, B]. Inside, vectors are [2, B] and pairs of them [2, 2, B]: as they are in memory."""
    masses = params.protagonist_mass, params.adversary_mass
    strength = torch.stack([params.protagonist_force, params.adversary_force]) / torch.stack(masses)
    start, before = features_first(state.position), features_first(state.velocity)
    velocity = before + DT * (strength.unsqueeze(1) * thrust(actions) + params.tilt * down - params.friction * before)

    # Between the centres: gap + s * path over the step's share s in [0, 1]; they meet where its length is the radii's sum.
    gap, closing, touch = _between(start), _between(velocity), params.touch
    path = DT * closing
    along = inner(gap, path)
    outside = inner(gap, gap) - touch * touch
    inside = along * along - inner(path, path) * outside
    # The smaller root of a quadratic, in the form that loses no digits where they touch already.
    when = (outside / (torch.sqrt(inside.clamp(min=0.0)) - along).clamp(min=1e-12)).clamp(min=0.0)
    meet = (along < 0) & (inside >= 0) & (when <= 1)
    normal = gap + when * path
    normal = normal / norm(normal).clamp(min=1e-9)
    # Speed each gets: the other's share of the mass times what changes between them.
    change = (meet * (1 + params.restitution) * inner(closing, normal) / (masses[0] + masses[1])) * normal
    kick = torch.stack([change * masses[1], -change * masses[0]])
    rest = DT * (1 - when.clamp(max=1.0))
    return rows_first(start + DT * velocity + rest * kick), rows_first(velocity + kick)


def winner(params: Params, position: Tensor) -> Tensor:
    """The winner, [B]: 1 the protagonist, -1 the adversary, 0 neither (yet)."""
    protagonist, adversary = norm(features_first(position).transpose(0, 1)).unbind(0)
    out = torch.maximum(protagonist, adversary) > params.ring_radius
    return out * torch.sign(adversary - protagonist)


def between(pair: Tensor) -> Tensor:
    """The adversary's minus the protagonist's: [B, 2, 2] to [B, 2]."""
    return pair[:, 1] - pair[:, 0]


def _between(pair: Tensor) -> Tensor:
    """The same, features first: [2, 2, B] to [2, B]."""
    return pair[1] - pair[0]
