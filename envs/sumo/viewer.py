"""Sumo's picture: the ring, the hidden slope, both discs at their true size with trails and velocities."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from metaduel.envs.core.geometry import length
from metaduel.envs.render.screen import ADVERSARY, GOAL, INK, MUTED, PROTAGONIST, WALL, Canvas
from metaduel.envs.sumo.game import DISC, FEEL, Params, State, between, winner

_SPEED_ARROW = 0.4  # s: how far ahead a velocity's arrow points
_CONTOURS = 7  # lines of equal height
Point = tuple[float, float]


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    state, ring = states[-1], float(params.ring_radius[0])
    half = 1.25 * ring
    canvas.view(-half, half, -half, half)
    felt = float(length(between(state.position))[0]) < float(params.touch[0]) + FEEL
    if canvas.person is not None:
        _blindfolded(canvas, params, state, canvas.person, felt)
        return
    canvas.circle((0, 0), ring, WALL, width=5)
    _slope(canvas, params, ring)
    seats = ((PROTAGONIST, params.protagonist_mass), (ADVERSARY, params.adversary_mass))
    for index, (colour, mass) in enumerate(seats):
        place, ahead = _point(state.position[:, index]), _point(state.velocity[:, index])
        radius = DISC * math.sqrt(float(mass[0]))
        canvas.line([_point(s.position[:, index]) for s in states], colour, width=3, alpha=110)
        canvas.circle(place, radius, colour, alpha=200)
        if felt:
            canvas.circle(place, radius + FEEL / 2, colour, width=1.5, alpha=120)
        canvas.arrow(place, (place[0] + _SPEED_ARROW * ahead[0], place[1] + _SPEED_ARROW * ahead[1]), INK)
    canvas.text((-0.97 * half, -0.95 * half), "outer rings meet: they feel each other", MUTED, 12, "midleft")
    canvas.text((0.97 * half, 0.95 * half), f"time left {100 * float(state.left[0]):.0f} %", MUTED, 13, "midright")
    word, colour = result(params, state)
    canvas.text((0, 0.95 * half), word, colour, 20)


def _blindfolded(canvas: Canvas, params: Params, state: State, person: int, felt: bool) -> None:
    """What a wrestler feels: itself in the middle, and the other where that is near."""
    masses = (params.protagonist_mass, params.adversary_mass)
    own, gap = _point(state.position[:, person]), _point(state.position[:, 1 - person])
    for seat, place in ((person, (0.0, 0.0)), (1 - person, (gap[0] - own[0], gap[1] - own[1]))):
        if seat == person or felt:
            canvas.circle(place, DISC * math.sqrt(float(masses[seat][0])), (PROTAGONIST, ADVERSARY)[seat], alpha=200)
    if felt:
        mine, other = _point(state.velocity[:, person]), _point(state.velocity[:, 1 - person])
        x, y = gap[0] - own[0], gap[1] - own[1]
        canvas.arrow((x, y), (x + _SPEED_ARROW * (other[0] - mine[0]), y + _SPEED_ARROW * (other[1] - mine[1])), INK)
    word, colour = result(params, state)
    canvas.text((0, 1.1 * float(params.ring_radius[0])), word or "you are blindfolded", colour if word else MUTED, 20)


def result(params: Params, state: State) -> tuple[str, str]:
    """How the episode ended, and in whose colour to say so; empty while it goes on."""
    won = float(winner(params, state.position)[0])
    if won:
        return ("adversary is out", PROTAGONIST) if won > 0 else ("protagonist is out", ADVERSARY)
    return ("time is up: a draw", INK) if float(state.left[0]) < 1e-3 else ("", INK)


def _point(vector: Tensor) -> Point:
    x, y = vector[0].tolist()
    return x, y


def _slope(canvas: Canvas, params: Params, ring: float) -> None:
    """Lines of equal height, darker further down, and an arrow down the slope outside the ring."""
    x, y = _point(params.down)
    for i in range(_CONTOURS):
        along = ring * (2 * (i + 1) / (_CONTOURS + 1) - 1)
        across = math.sqrt(ring * ring - along * along)
        ends = [(along * x - side * across * y, along * y + side * across * x) for side in (-1, 1)]
        canvas.line(ends, GOAL, width=2, alpha=30 + 20 * i)
    start, end = 1.03 * ring, (1.03 + 0.12 * float(params.tilt[0])) * ring
    canvas.arrow((start * x, start * y), (end * x, end * y), GOAL)
    canvas.legend.append((GOAL, "down the slope (hidden from both)"))
