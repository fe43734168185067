"""Navigation's scripted players: walkers that know the goal or search for it, pushers of different kinds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metaduel.envs.core.game import View
from metaduel.envs.core.geometry import left_of, sign, unit
from metaduel.envs.navigation.game import STRIDE, Params, State
from metaduel.envs.players.scripted import Option, Scripted

Choice = tuple[Tensor, Tensor]


_STRENGTH = Option("strength", 1.0, 0.2, 1.0, "share of the largest push")


def _toward(view: View, target: Tensor, speed: float) -> Tensor:
    """Step towards ``target`` [B, 2], at most ``speed`` per axis and never past it."""
    state: State = view.state
    return ((target - state.position) / STRIDE).clamp(-speed, speed)


def _polar(angle: Tensor) -> Tensor:
    """``geometry.polar``, but that the rows come first in memory."""
    angle = angle.contiguous()
    return torch.stack([torch.cos(angle), torch.sin(angle)], 1)


def _goal(view: View) -> Tensor:
    params: Params = view.params
    return params.goal


def _seeker(view: View, memory: Tensor, noise: Tensor, speed: float = 1.0) -> Choice:
    return _toward(view, _goal(view), speed), memory


def _lazy_seeker(view: View, memory: Tensor, noise: Tensor, speed: float = 0.25) -> Choice:
    return _toward(view, _goal(view), speed), memory


def _wanderer(view: View, memory: Tensor, noise: Tensor) -> Choice:
    return noise * 2 - 1, memory


def _spiral(view: View, memory: Tensor, noise: Tensor, turn: float = 0.45) -> Choice:
    angle = view.step.to(noise.dtype) * turn
    return _toward(view, _polar(angle) * (0.007 * view.step.to(noise.dtype)).unsqueeze(1), 1.0), memory


def _zigzag(view: View, memory: Tensor, noise: Tensor, period: float = 8, width: float = 0.8) -> Choice:
    gap = _goal(view) - view.state.position
    side = left_of(gap) * sign(view.step % period < period / 2, gap).unsqueeze(1)
    return ((gap + width * side) / STRIDE).clamp(-0.6, 0.6), memory


def _scanner(view: View, memory: Tensor, noise: Tensor, lines: float = 9) -> Choice:
    step = view.step.to(noise.dtype)
    row = torch.floor(step * (lines / 108))
    across = sign(row.long() % 2 == 0, row) * 0.5
    return _toward(view, torch.stack([across, -0.5 + row / (lines - 1)], 1), 1.0), memory


def _idle(view: View, memory: Tensor, noise: Tensor) -> Choice:
    return torch.zeros_like(view.state.position), memory


def _repel(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    return strength * unit(view.state.position - _goal(view)), memory


def _wind(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    # The direction is drawn at the first step and kept for the episode.
    angle = torch.where((view.step == 0).unsqueeze(1), noise * (2 * math.pi), memory)
    return strength * _polar(angle[:, 0]), angle


def _swirl(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    out = unit(view.state.position - _goal(view))
    return strength * left_of(out), memory


def _gusts(view: View, memory: Tensor, noise: Tensor, period: float = 10, calm: float = 0.4) -> Choice:
    fresh = torch.cat([noise[:, :1] * (2 * math.pi), noise[:, 1:]], 1)
    gust = torch.where((view.step % period == 0).unsqueeze(1), fresh, memory)
    return _polar(gust[:, 0]) * (gust[:, 1:] > calm), gust


def _block(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    # Pushes against the last displacement, whatever its aim.
    moved = view.state.position - memory
    return -strength * unit(moved), view.state.position


PLAYERS = (
    Scripted(
        "seeker",
        "protagonist",
        "train",
        "knows the goal and walks there",
        _seeker,
        informed=True,
        options=(Option("speed", 1.0, 0.5, 1.0, "share of its top speed"),),
    ),
    Scripted("wanderer", "protagonist", "train", "moves at random", _wanderer, noise=2),
    Scripted(
        "spiral",
        "protagonist",
        "train",
        "searches outwards along a spiral, blind to the goal",
        _spiral,
        options=(Option("turn", 0.45, 0.2, 0.8, "rad per step"),),
    ),
    Scripted(
        "zigzag",
        "protagonist",
        "held_out",
        "knows the goal and tacks towards it",
        _zigzag,
        informed=True,
        options=(
            Option("period", 8, 4, 20, "steps from tack to tack and back", integer=True),
            Option("width", 0.8, 0.3, 1.5, "sidewards per forwards"),
        ),
    ),
    Scripted(
        "lazy_seeker",
        "protagonist",
        "held_out",
        "knows the goal and walks at a quarter of the speed",
        _lazy_seeker,
        informed=True,
        options=(Option("speed", 0.25, 0.1, 0.3, "share of its top speed"),),
    ),
    Scripted(
        "scanner",
        "protagonist",
        "held_out",
        "searches row by row, blind to the goal",
        _scanner,
        options=(Option("lines", 9, 4, 12, "lines that it scans", integer=True),),
    ),
    Scripted("idle", "adversary", "train", "never pushes", _idle),
    Scripted("repel", "adversary", "train", "pushes away from the goal", _repel, informed=True, options=(_STRENGTH,)),
    Scripted(
        "wind",
        "adversary",
        "train",
        "pushes in one direction, drawn for each episode",
        _wind,
        memory=1,
        noise=1,
        options=(_STRENGTH,),
    ),
    Scripted("swirl", "adversary", "held_out", "pushes around the goal", _swirl, informed=True, options=(_STRENGTH,)),
    Scripted(
        "gusts",
        "adversary",
        "held_out",
        "pushes in bursts of ten steps, some of them calm",
        _gusts,
        memory=2,
        noise=2,
        options=(
            Option("period", 10, 3, 25, "steps of a gust", integer=True),
            Option("calm", 0.4, 0.0, 0.8, "share of calm gusts"),
        ),
    ),
    Scripted(
        "block", "adversary", "held_out", "pushes against the last movement", _block, memory=2, options=(_STRENGTH,)
    ),
)
