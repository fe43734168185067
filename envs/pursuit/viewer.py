"""Pursuit's picture: the arena with the hidden gate, both players with trails and velocities, the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from metaduel.envs.core.geometry import length
from metaduel.envs.pursuit.game import ARENA, CAPTURE, SIGHT, Params, State, ending
from metaduel.envs.render.screen import ADVERSARY, GOAL, INK, MUTED, PROTAGONIST, WALL, Canvas

_HALF = 1.2  # m: half the side of the picture
_SPEED_ARROW = 0.3  # s: how far ahead a velocity's arrow points
Point = tuple[float, float]


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    state = states[-1]
    canvas.view(-_HALF, _HALF, -_HALF, _HALF)
    _wall(canvas, params)
    seats = (
        ([_point(s.evader) for s in states], state.evader_velocity, PROTAGONIST),
        ([_point(s.pursuer) for s in states], state.pursuer_velocity, ADVERSARY),
    )
    for seat, (trail, velocity, colour) in enumerate(seats):
        if canvas.person == 1 - seat:  # a person sees the other as its seat does: when it is near
            trail = [place for place, s in zip(trail, states, strict=True) if bool(s.in_sight[0])]
            if not bool(state.in_sight[0]):
                continue
        place = trail[-1]
        if seat == 1:
            canvas.circle(place, CAPTURE, ADVERSARY, alpha=45)
            canvas.circle(place, CAPTURE, ADVERSARY, width=1.5, alpha=170)
            canvas.circle(place, SIGHT, ADVERSARY, width=1, alpha=70)
        canvas.line(trail, colour, width=3, alpha=110)
        canvas.circle(place, 0.035, colour)
        ahead = _point(velocity)
        canvas.arrow(place, (place[0] + _SPEED_ARROW * ahead[0], place[1] + _SPEED_ARROW * ahead[1]), colour)
    canvas.text((-0.97 * _HALF, -0.95 * _HALF), "rings: reach and sight of the pursuer", ADVERSARY, 12, "midleft")
    canvas.text((0.97 * _HALF, 0.95 * _HALF), f"time left {100 * float(state.left[0]):.0f} %", MUTED, 13, "midright")
    word, colour = result(params, state)
    canvas.text((0, 0.95 * _HALF), word, colour, 20)


def result(params: Params, state: State) -> tuple[str, str]:
    """How the episode ended, and in whose colour to say so; empty while it goes on."""
    escaped, lost = ending(params, state.position, params.gate)
    if escaped[0]:
        return "escaped", PROTAGONIST
    if lost[0]:
        caught = length(state.evader - state.pursuer)[0] < CAPTURE
        return "caught" if caught else "wrong exit", ADVERSARY
    return ("time is up", INK) if float(state.left[0]) < 1e-3 else ("", INK)


def _point(vector: Tensor) -> Point:
    x, y = vector[0].tolist()
    return x, y


def _wall(canvas: Canvas, params: Params) -> None:
    """The wall with a gap where the gate is, and the gate in the goal's colour."""
    middle = float(params.gate_angle[0])
    half = 2 * math.asin(float(params.gate_width[0]) / (4 * ARENA))  # of the gate as an angle
    if canvas.person is not None:
        middle = half = 0.0
    canvas.line(_arc(middle + half, middle + 2 * math.pi - half), WALL, width=5)
    gate = _arc(middle - half, middle + half)
    canvas.line(gate, GOAL, width=5, alpha=90)
    for post in (gate[0], gate[-1]):
        canvas.circle(post, 0.02, GOAL)
    canvas.circle((0, 0), 0.01, MUTED)
    canvas.legend.append((GOAL, "gate (hidden from both)"))


def _arc(start: float, end: float) -> list[Point]:
    pieces = max(2, math.ceil((end - start) / 0.04))
    angles = [start + (end - start) * i / pieces for i in range(pieces + 1)]
    return [(ARENA * math.cos(angle), ARENA * math.sin(angle)) for angle in angles]
