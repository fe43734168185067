"""Navigation's picture: the trail from the start, the hidden goal, and how far a push reaches."""

from __future__ import annotations

from collections.abc import Sequence

from metaduel.envs.navigation.game import STRIDE, Params, State
from metaduel.envs.render.screen import ADVERSARY, GOAL, MUTED, PROTAGONIST, WALL, Canvas

_HALF = 0.9  # m: half the side of the picture


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    trail = [tuple(state.position[0].tolist()) for state in states]
    x, y = trail[-1]
    # A walker that is pushed far out stays in the picture.
    half = max(_HALF, 1.1 * max(abs(x), abs(y)))
    canvas.view(-half, half, -half, half)
    _ruler(canvas, half)
    goal = tuple(params.goal[0].tolist())
    canvas.circle(goal, 0.06 * half, GOAL, alpha=50)
    canvas.circle(goal, 0.06 * half, GOAL, width=2)
    canvas.circle(goal, 0.012 * half, GOAL)
    canvas.legend.append((GOAL, "goal (hidden from both)"))
    canvas.circle((0, 0), 0.02 * half, MUTED, width=2)
    canvas.text((0, -0.06 * half), "start", MUTED, 12)
    canvas.line(trail, PROTAGONIST, width=3, alpha=110)
    for place in trail:
        canvas.circle(place, 0.008 * half, PROTAGONIST, alpha=150)
    if len(trail) > 1 and canvas.person is None:
        # Positions alone don't tell a push from a step, so the ring shows how far a push could have carried the walker.
        canvas.circle(trail[-2], params.push[0], ADVERSARY, width=1.5, alpha=170)
        canvas.text((0.95 * half, -0.93 * half), "ring: reach of one push", ADVERSARY, 12, "midright")
    canvas.circle((x, y), 0.03 * half, PROTAGONIST)


def _ruler(canvas: Canvas, half: float) -> None:
    """Faint axes and a scale."""
    for points in ([(-half, 0), (half, 0)], [(0, -half), (0, half)]):
        canvas.line(points, MUTED, width=1, alpha=70)
    length = 5 * STRIDE
    left, bottom = -0.94 * half, -0.93 * half
    canvas.line([(left, bottom), (left + length, bottom)], WALL, width=2)
    canvas.text((left + length / 2, bottom + 0.045 * half), f"{length:g} m", WALL, 12)
