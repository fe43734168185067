"""Forgery's rules. See the package's docstring for the tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.spec import Task

EXTENT = 2.0  # m: half the side of the plane
LATENT = 3  # numbers of latent noise
NUMBERS = 3  # uniform numbers that a real sample is made of
CERTAIN = 0.95  # the most certain verdict; it bounds the score
TURNS = 1.5  # of the spiral
RING, GRID, SPIRAL = 0, 1, 2


class Params(NamedTuple):
    """A task, one row per episode."""

    shape: Tensor  # [B] 0 ring, 1 grid, 2 spiral
    centre_x: Tensor  # [B] m
    centre_y: Tensor  # [B] m
    radius: Tensor  # [B] m
    modes: Tensor  # [B] how many
    spread: Tensor  # [B] m
    rotation: Tensor  # [B] rad


class State(NamedTuple):
    """What lies on the discriminator's table, and what the generator is to make the next sample of."""

    latent: Tensor  # [B, 3] in [-1, 1)
    forged: Tensor  # [B, 2] m: the generator's last sample
    real: Tensor  # [B, 2] m: the last sample of the real distribution
    shows_real: Tensor  # [B] bool: which of the two the discriminator is shown
    begun: Tensor  # [B] 0 at the first step, where there is nothing to show, then 1

    @property
    def shown(self) -> Tensor:
        """[B, 2] m: what the discriminator is to judge."""
        return torch.where(self.shows_real.unsqueeze(1), self.real, self.forged)


class Forgery(Game[Params, State]):
    """Forge samples of a hidden distribution, or tell forged from real."""

    params_type = Params
    init_noise = LATENT
    step_noise = LATENT + NUMBERS + 1

    def check(self, task: Task) -> None:
        """Refuse a distribution that does not fit into the plane."""
        for name in ("centre_x", "centre_y"):
            reach = abs(task[name]) + task["radius"] + 3 * task["spread"]
            if reach > EXTENT:
                raise InvalidInputError(
                    f"Forgery: context {name}={task[name]:g} with radius={task['radius']:g} and spread={task['spread']:g} "
                    f"leaves the plane: |{name}| + radius + 3 spread = {reach:g} must be at most {EXTENT:g} m"
                )

    def init(self, params: Params, noise: Tensor) -> State:
        """Give the generator its first latent noise; the table is empty."""
        zero = torch.zeros_like(params.radius)
        nothing = zero.expand(2, -1).t()
        return State(_latent(noise), nothing, nothing, zero > 0, zero)

    def observe(self, params: Params, state: State) -> Pair:
        """The generator sees the latent noise, the discriminator the sample on the table."""
        return state.latent, torch.cat([state.shown.t(), state.begun.unsqueeze(0)]).t()

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Score the verdict on what is shown, then put the next sample on the table: forged or real, by a coin."""
        score = state.begun * verdict_score(actions[1][:, 0], state.shows_real)
        forged = EXTENT * actions[0]
        real = real_sample(params, noise[:, LATENT : LATENT + NUMBERS])
        played = State(_latent(noise[:, :LATENT]), forged, real, noise[:, -1] < 0.5, torch.ones_like(score))
        return played, Outcome(torch.stack([-score, score]).t(), torch.zeros_like(state.shows_real))


def _latent(noise: Tensor) -> Tensor:
    return 2 * noise - 1


def verdict_score(action: Tensor, is_real: Tensor) -> Tensor:
    """The logarithmic score of a verdict, [B] bits: 0 for an undecided one, 1 for a right one if it could be certain.

    Args:
        action: [B] in [-1, 1]: certainly forged to certainly real.
        is_real: [B] bool.
    """
    right = torch.where(is_real, action, -action)
    return torch.log(1 + (2 * CERTAIN - 1) * right) * (1 / math.log(2))


def real_sample(params: Params, numbers: Tensor) -> Tensor:
    """Turn uniforms into samples of the tasks' real distributions: a mode, all equally likely, and a Gaussian around it.

    Args:
        params: the tasks.
        numbers: [B, 3] uniforms in [0, 1).

    Returns:
        [B, 2] m, within the plane.
    """
    which, far, around = numbers.unbind(1)
    mode = torch.minimum(torch.floor(which * params.modes), params.modes - 1)
    x, y = mode_place(params, mode)
    distance = params.spread * torch.sqrt(-2 * torch.log1p(-far.contiguous()))
    angle = around.contiguous() * (2 * math.pi)
    place = torch.stack([x + distance * torch.cos(angle), y + distance * torch.sin(angle)])
    return place.clamp(-EXTENT, EXTENT).t()


def mode_place(params: Params, mode: Tensor) -> tuple[Tensor, Tensor]:
    """Where a mode's middle is, x and y in m.

    A ring's modes are on a circle, equally far apart. A spiral's come in along one and a half turns, at equal angles and equal
    steps of the distance. A grid's fill three columns row by row, its corners on the circle.

    Args:
        params: the tasks.
        mode: the modes' numbers from 0, [B] or, for several modes of every task, [K, B].

    Returns:
        Two tensors of the shape of ``mode``.
    """
    share = mode / params.modes
    spiral, grid = params.shape == SPIRAL, params.shape == GRID
    turn = torch.where(grid, 0.0, torch.where(spiral, TURNS * share, share))
    row = torch.floor((mode + 0.5) * (1 / 3))
    corner = math.sqrt(0.5)
    along = torch.where(grid, corner * (mode - 3 * row - 1), torch.where(spiral, share + 1 / params.modes, 1.0))
    across = torch.where(grid, corner * (1 - row), 0.0)
    angle = (params.rotation + turn * (2 * math.pi)).contiguous()
    cos, sin = params.radius * torch.cos(angle), params.radius * torch.sin(angle)
    return params.centre_x + along * cos - across * sin, params.centre_y + along * sin + across * cos
