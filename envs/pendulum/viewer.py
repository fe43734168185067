"""Pendulum's picture: the rod, the hidden angle to hold, and how each player twists it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metaduel.envs.pendulum.game import Params, State, wrap
from metaduel.envs.render.screen import ADVERSARY, GOAL, INK, MUTED, PROTAGONIST, WALL, Canvas

_HALF = 1.35  # half the side of the picture; the rod is drawn with a length of 1
_QUARTER = math.pi / 2
Point = tuple[float, float]


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    state = states[-1]
    angle, target = float(state.angle[0]), float(params.target[0])
    canvas.view(-_HALF, _HALF, -_HALF, _HALF)
    canvas.circle((0, 0), 1.0, MUTED, width=1, alpha=70)
    canvas.text((0, 1.08), "upright", MUTED, 12)
    canvas.line([(0, 0), _at(target)], GOAL, width=12, alpha=70)
    canvas.circle(_at(target), 0.07, GOAL, alpha=110)
    canvas.legend.append((GOAL, "target (hidden from both)"))
    for age, old in enumerate(reversed(states[-20:])):
        canvas.circle(_at(float(old.angle[0])), 0.018, INK, alpha=170 - 8 * age)
    canvas.line([(0, 0), _at(angle)], WALL, width=9)
    canvas.circle((0, 0), 0.045, INK)
    canvas.circle(_at(angle), 0.05, INK)
    # A quarter turn of arc is the most that the player can do.
    most = float((params.gain * params.torque)[0]), float(params.adversary_torque[0])
    for radius, torque, limit, colour in (
        (0.3, state.torque, most[0], PROTAGONIST),
        (0.45, state.adversary_torque, most[1], ADVERSARY),
    ):
        share = float(torque[0]) / limit if limit else 0.0
        canvas.line(_arc(radius, angle - _QUARTER, angle + _QUARTER), colour, width=1, alpha=60)
        twist = _arc(radius, angle, angle + _QUARTER * share)
        canvas.line(twist, colour, width=4)
        canvas.arrow(*_arrow(twist), colour)
    left, right, top, bottom = -0.97 * _HALF, 0.97 * _HALF, 0.95 * _HALF, -0.95 * _HALF
    off = float(wrap(state.angle - params.target)[0])
    canvas.text((left, top), f"{math.degrees(off):+.0f} degrees from the target", GOAL, 14, "midleft")
    for line, (name, sign) in enumerate((("protagonist", params.reversed), ("adversary", params.adversary_reversed))):
        word = "wired the wrong way" if sign[0] else "wired right"
        canvas.text((left, bottom + 0.1 * (1 - line)), f"{name}: {word}", GOAL, 13, "midleft")
    canvas.text((right, bottom), "arcs: torques, full at a quarter turn", MUTED, 12, "midright")


def _at(angle: float, radius: float = 1.0) -> Point:
    """The point at ``angle`` from upright, anticlockwise."""
    return -radius * math.sin(angle), radius * math.cos(angle)


def _arc(radius: float, start: float, end: float) -> list[Point]:
    pieces = max(2, math.ceil(abs(end - start) / 0.05))
    return [_at(start + (end - start) * i / pieces, radius) for i in range(pieces + 1)]


def _arrow(line: list[Point]) -> tuple[Point, Point]:
    """An arrow of 0.06 that goes on where ``line`` ends; of no length where the line has none."""
    (x0, y0), (x1, y1) = line[-2:]
    length = math.hypot(x1 - x0, y1 - y0)
    scale = 0.06 / length if length > 1e-3 else 0.0
    return (x1, y1), (x1 + scale * (x1 - x0), y1 + scale * (y1 - y0))
