"""Forgery's picture: both clouds of samples so far, the hidden modes, and the point to judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metaduel.envs.forgery.game import EXTENT, Params, State, mode_place
from metaduel.envs.render.screen import ADVERSARY, GOAL, INK, MUTED, PROTAGONIST, WALL, Canvas

_HALF = 2.4  # m: half the side of the picture
Point = tuple[float, float]


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    canvas.view(-_HALF, _HALF, -_HALF, _HALF)
    _plane(canvas)
    _modes(canvas, params)
    begun = states[1:]
    for state in begun:
        canvas.circle(_point(state.real), 0.035, GOAL, alpha=150)
        if canvas.person != 1:
            canvas.circle(_point(state.forged), 0.035, PROTAGONIST, alpha=170)
    canvas.legend.append((GOAL, "real (hidden: its modes)"))
    if not begun:
        canvas.text((0, 0.93 * _HALF), "nothing to judge yet", MUTED, 15)
        return
    state = states[-1]
    real = bool(state.shows_real[0])
    if canvas.person != 0:  # the generator does not see what its judge is shown
        canvas.circle(_point(state.shown), 0.09, ADVERSARY, width=2.5)
        canvas.text((-0.97 * _HALF, -0.93 * _HALF), "ringed: what the discriminator is shown", ADVERSARY, 12, "midleft")
    canvas.text((0, 0.93 * _HALF), f"to judge now: a {'real' if real else 'forged'} one", GOAL, 15)
    canvas.text((0.97 * _HALF, -0.93 * _HALF), f"{len(begun)} of each", MUTED, 12, "midright")


def _plane(canvas: Canvas) -> None:
    corners = [(-EXTENT, -EXTENT), (EXTENT, -EXTENT), (EXTENT, EXTENT), (-EXTENT, EXTENT), (-EXTENT, -EXTENT)]
    canvas.line(corners, WALL, width=1.5)
    for i in (-1, 0, 1):
        canvas.line([(i, -EXTENT), (i, EXTENT)], MUTED, width=1, alpha=50)
        canvas.line([(-EXTENT, i), (EXTENT, i)], MUTED, width=1, alpha=50)
    canvas.line([(1.0, -EXTENT - 0.07), (EXTENT, -EXTENT - 0.07)], WALL, width=2)
    canvas.text((1.5, -EXTENT - 0.15), "1 m", INK, 12)


def _modes(canvas: Canvas, params: Params) -> None:
    """A disc of two spreads around every mode."""
    radius = params.radius
    numbers = torch.arange(int(params.modes[0]), dtype=radius.dtype, device=radius.device).unsqueeze(1)
    for x, y in zip(*(place[:, 0].tolist() for place in mode_place(params, numbers)), strict=True):
        canvas.circle((x, y), 2 * params.spread[0], GOAL, alpha=35)
        canvas.circle((x, y), 2 * params.spread[0], GOAL, width=1, alpha=110)


def _point(place: Tensor) -> Point:
    x, y = place[0].tolist()
    return x, y
