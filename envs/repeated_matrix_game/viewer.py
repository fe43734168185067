"""The picture of a repeated matrix game: payoffs with the cell just played, what both played so far, and the score."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from metaduel.envs.render.screen import ADVERSARY, INK, MUTED, PROTAGONIST, WALL, Canvas, box
from metaduel.envs.repeated_matrix_game.game import PERMUTATIONS, State

# One colour per action; they stay apart for every common kind of colour vision, and from the two players' colours.
ACTION_COLOURS = ("#009e73", "#e6b800", "#8f4fa8")
_PLAYED = "#fff0b8"
_SHOWN = 30  # actions in the history
_LEFT, _RIGHT = 1.1, 9.6  # of the history and of the score; the picture is 10 x 10


def draw(canvas: Canvas, params: Any, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    canvas.view(0, 10, 0, 10)
    played = [(int(state.last[0, 0]), int(state.last[0, 1])) for state in states if int(state.last[0, 0]) >= 0]
    payoffs = params.payoffs[0].tolist()
    _matrix(canvas, params, payoffs, played)
    _history(canvas, played)
    _score(canvas, payoffs, played)


def _matrix(canvas: Canvas, params: Any, payoffs: list[Any], played: list[tuple[int, int]]) -> None:
    """The payoff table (protagonist's rows), the cell just played lit up."""
    names, n = params.actions, len(payoffs)
    sigma = PERMUTATIONS[n][int(params.permutation[0])] if "permutation" in params._fields else range(n)
    left, top, wide, high = 3.0, 8.7, 6.0 / n, 3.6 / n
    canvas.text((0.4, 9.65), "payoffs, hidden from both", MUTED, 13, "midleft")
    for j, name in enumerate(names):
        x = left + (j + 0.5) * wide
        canvas.polygon(box(x - 0.12, 8.83, 0.24, 0.24), ACTION_COLOURS[j])
        canvas.text((x, 9.27), name, ADVERSARY, 15)
    for i, name in enumerate(names):
        y = top - (i + 0.5) * high
        canvas.polygon(box(left - 0.4, y - 0.12, 0.24, 0.24), ACTION_COLOURS[i])
        same = sigma[i] == i or canvas.person is not None
        canvas.text((left - 0.55, y + (0 if same else 0.13)), name, PROTAGONIST, 15, "midright")
        if not same:
            canvas.text((left - 0.55, y - 0.2), f"counts as {names[sigma[i]]}", MUTED, 12, "midright")
        for j in range(n):
            x, bottom = left + j * wide, top - (i + 1) * high
            if played and played[-1] == (i, j):
                canvas.polygon(box(x, bottom, wide, high), _PLAYED)
            if canvas.person is not None:
                continue
            own, other = payoffs[i][j]
            canvas.text((x + 0.3 * wide, bottom + 0.35 * high), f"{own:+.2f}", PROTAGONIST, 15)
            canvas.text((x + 0.7 * wide, bottom + 0.65 * high), f"{other:+.2f}", ADVERSARY, 15)
    for k in range(n + 1):
        canvas.line([(left + k * wide, top), (left + k * wide, top - n * high)], WALL, 1)
        canvas.line([(left, top - k * high), (left + n * wide, top - k * high)], WALL, 1)
    if played:
        corners = box(left + played[-1][1] * wide, top - (played[-1][0] + 1) * high, wide, high)
        canvas.line([*corners, corners[0]], INK, 4)


def _history(canvas: Canvas, played: list[tuple[int, int]]) -> None:
    """Two rows of squares, the newest at the right end of what has been played."""
    recent = played[-_SHOWN:]
    size = (_RIGHT - _LEFT) / _SHOWN
    many = f"last {_SHOWN} of {len(played)} joint actions" if len(played) > _SHOWN else "joint actions"
    canvas.text((0.4, 4.5), f"{many}, newest on the right", MUTED, 13, "midleft")
    for seat, (colour, bottom) in enumerate(((PROTAGONIST, 3.85), (ADVERSARY, 3.4))):
        canvas.circle((0.6, bottom + size / 2), 0.13, colour)
        for k, actions in enumerate(recent):
            canvas.polygon(box(_LEFT + (k + 0.06) * size, bottom, 0.88 * size, 0.38), ACTION_COLOURS[actions[seat]])


def _score(canvas: Canvas, payoffs: list[Any], played: list[tuple[int, int]]) -> None:
    """Both running totals as curves over the episode so far."""
    totals = [list(itertools.accumulate((payoffs[i][j][seat] for i, j in played), initial=0.0)) for seat in (0, 1)]
    reach = max(1.0, *(abs(total) for curve in totals for total in curve))
    middle, half, steps = 1.45, 1.1, max(len(played), 10)
    canvas.text((0.4, 2.9), "score so far", MUTED, 13, "midleft")
    for label, y in ((f"{reach:+.3g}", middle + half), ("0", middle), (f"{-reach:+.3g}", middle - half)):
        canvas.line([(_LEFT, y), (_RIGHT, y)], MUTED, 1, alpha=90)
        canvas.text((_LEFT - 0.1, y), label, MUTED, 12, "midright")
    for curve, colour in zip(totals, (PROTAGONIST, ADVERSARY), strict=True):
        points = [(_LEFT + (_RIGHT - _LEFT) * t / steps, middle + half * v / reach) for t, v in enumerate(curve)]
        canvas.line(points, colour, 3)
        canvas.circle(points[-1], 0.08, colour)
