"""CartPole's picture: cart and pole, the hidden place to balance, and the forces of both players."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from metaduel.envs.cart_pole.game import FALLEN, TRACK, Params, State, ending
from metaduel.envs.render.screen import ADVERSARY, GOAL, INK, MUTED, PROTAGONIST, WALL, Canvas

_HALF = 2.7  # m: half the side of the picture
_WIDE, _HIGH = 0.28, 0.17  # m: half the cart's sides
_ARROW = 0.9  # m: an arrow's length at the largest force
Point = tuple[float, float]


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    state = states[-1]
    x, angle, target = (float(number[0]) for number in (state.x, state.angle, params.target))
    canvas.view(-_HALF, _HALF, -_HALF + 0.8, _HALF + 0.8)
    canvas.line([(-_HALF, -_HIGH), (_HALF, -_HIGH)], WALL, width=3)
    for end in (-TRACK, TRACK):
        canvas.line([(end, -_HIGH), (end, 0.5)], WALL, width=3)
    canvas.line([(target, -_HIGH), (target, 2.2)], GOAL, width=6, alpha=80)
    canvas.polygon([(target, -_HIGH), (target - 0.1, -_HIGH - 0.2), (target + 0.1, -_HIGH - 0.2)], GOAL)
    canvas.legend.append((GOAL, "target (hidden from both)"))
    length = 2 * float(params.half_length[0])
    for limit in (-FALLEN, FALLEN):
        canvas.line([(x, 0), _tip(x, limit, 1.15 * length)], MUTED, width=1, alpha=120)
    canvas.polygon([(x - _WIDE, -_HIGH), (x + _WIDE, -_HIGH), (x + _WIDE, _HIGH), (x - _WIDE, _HIGH)], WALL)
    tip = _tip(x, angle, length)
    canvas.line([_tip(float(s.x[0]), float(s.angle[0]), length) for s in states[-50:]], INK, width=2, alpha=70)
    canvas.line([(x, 0), tip], INK, width=8)
    canvas.circle((x, 0), 0.06, MUTED)
    _force(canvas, (x, -0.08), state.force, params.gain * params.force, PROTAGONIST)
    _force(canvas, (x, 0.08), state.cart_force, params.cart_force, ADVERSARY)
    _force(canvas, tip, state.tip_force, params.tip_force, ADVERSARY)
    _words(canvas, params, state)


def _tip(x: float, angle: float, length: float) -> Point:
    return x + length * math.sin(angle), length * math.cos(angle)


def _force(canvas: Canvas, place: Point, force: Tensor, most: Tensor, colour: str) -> None:
    """An arrow from ``place``, outside the cart, as long as its share of the largest force."""
    share = float(force[0]) / float(most[0]) if float(most[0]) else 0.0
    start = place[0] + math.copysign(_WIDE + 0.03 if place[1] < _HIGH else 0.05, share)
    canvas.arrow((start, place[1]), (start + _ARROW * share, place[1]), colour)


def _words(canvas: Canvas, params: Params, state: State) -> None:
    left, low = -0.97 * _HALF, -1.0
    wired = "wired the wrong way" if params.reversed[0] else "wired right"
    turned = math.degrees(float(params.wiring[0]))
    canvas.text((left, low), f"protagonist: {wired}", GOAL, 13, "midleft")
    canvas.text((left, low - 0.2), f"adversary: controls turned by {turned:+.0f} degrees", GOAL, 13, "midleft")
    canvas.text((left, low - 0.4), "arrows: share of each one's largest force", MUTED, 12, "midleft")
    if ending(state.x, state.angle)[0]:
        fallen = abs(float(state.angle[0])) > FALLEN
        canvas.text((0, 3.2), "fallen" if fallen else "off the track", ADVERSARY, 20)
