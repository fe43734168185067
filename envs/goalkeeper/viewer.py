"""Goalkeeper's picture: the pitch from above with the ball's bent path, the keeper's reach, and the score so far."""

from __future__ import annotations

from collections.abc import Sequence

from metaduel.envs.goalkeeper.game import DT, FLIGHT, GOAL, KICK, RUN_UP, Params, State, drift
from metaduel.envs.render.screen import ADVERSARY, INK, MUTED, PROTAGONIST, WALL, Canvas
from metaduel.envs.render.screen import GOAL as HIDDEN

_SPOT = -6.0  # the goal line is at 0; how far away the spot is plays no part in the rules
_NET = 0.9
_HALF = 5.0  # half the side of the picture
Point = tuple[float, float]


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``."""
    state = states[-1]
    canvas.view(-_HALF, _HALF, _SPOT - 2.1, _SPOT + 2 * _HALF - 2.1)
    _goal(canvas)
    _wind(canvas, params)
    over = len(states) > 1 and int(state.phase[0]) == 0
    if over:
        _finished(canvas, params, states[-2], state)
    else:
        _running(canvas, params, state)
    _score(canvas, states)


def result(state: State) -> tuple[str, str]:
    """How the kick before ended, and in whose colour to say so."""
    crossing, _, margin = state.last[0].tolist()
    if margin > 0:
        return "goal", PROTAGONIST
    return ("wide" if abs(crossing) >= GOAL else "saved"), ADVERSARY


def _goal(canvas: Canvas) -> None:
    for i in range(-5, 6):
        canvas.line([(i * GOAL / 5, 0), (i * GOAL / 5, _NET)], MUTED, width=1, alpha=70)
    for y in (0.3, 0.6, _NET):
        canvas.line([(-GOAL, y), (GOAL, y)], MUTED, width=1, alpha=70)
    canvas.line([(-_HALF, 0), (_HALF, 0)], WALL, width=1.5)
    canvas.line([(-GOAL, _NET), (-GOAL, 0)], WALL, width=5)
    canvas.line([(GOAL, _NET), (GOAL, 0)], WALL, width=5)
    canvas.circle((0, _SPOT), 0.06, MUTED)
    canvas.legend.append((HIDDEN, "path, wind, delay, reach (hidden)"))


def _wind(canvas: Canvas, params: Params) -> None:
    wind, curve = float(params.wind[0]), float(params.curve[0])
    length = 0.15 * wind
    canvas.text((-3.3, -7.2), f"wind {wind:+.1f} m/s\N{SUPERSCRIPT TWO}", HIDDEN, 13)
    canvas.arrow((-3.3 - length / 2, -7.55), (-3.3 + length / 2, -7.55), HIDDEN)
    canvas.text((0.0, -7.2), f"spin {curve:+.1f} m/s\N{SUPERSCRIPT TWO} per m", HIDDEN, 13)
    canvas.text((3.3, -7.2), f"delay {float(params.delay[0]):.2f} s", HIDDEN, 13)


def _keeper(canvas: Canvas, params: Params, place: float) -> None:
    reach = float(params.reach[0])
    if canvas.person is None:
        canvas.line([(place - reach, 0), (place + reach, 0)], ADVERSARY, width=9, alpha=90)
    canvas.circle((place, 0), 0.17, ADVERSARY)


def _path(params: Params, state: State, share: float) -> Point:
    """Where a struck ball is after a ``share`` of its flight."""
    bend = float(drift(params, state.shooter)[0])
    return float(state.heading[0]) * share + bend * share * share, _SPOT * (1 - share)


def _flight(canvas: Canvas, params: Params, state: State, share: float) -> None:
    canvas.line([(0, _SPOT), (float(state.heading[0]), 0)], PROTAGONIST, width=1.5, alpha=110)
    canvas.circle((float(state.heading[0]), 0), 0.12, PROTAGONIST, width=1.5)
    canvas.line([_path(params, state, i / 30) for i in range(31)], HIDDEN, width=2, alpha=90)
    if canvas.person is None:
        canvas.line([_path(params, state, share * i / 30) for i in range(31)], INK, width=2.5)
        canvas.circle(_path(params, state, share), 0.13, INK)


def _shooter(canvas: Canvas, state: State, phase: int) -> None:
    place = (float(state.shooter[0]), _SPOT - 0.35 - 0.27 * max(RUN_UP - phase, 0))
    canvas.circle(place, 0.17, PROTAGONIST)


def _running(canvas: Canvas, params: Params, state: State) -> None:
    phase = int(state.phase[0])
    if phase >= RUN_UP:
        time = (phase - RUN_UP) * DT
        _flight(canvas, params, state, time / (FLIGHT * DT))
    else:
        canvas.circle((0, _SPOT), 0.13, INK)
    _shooter(canvas, state, phase)
    _keeper(canvas, params, float(state.keeper[0]))
    word = "in flight; thin: as it was struck, which is all they see" if phase >= RUN_UP else "run-up"
    canvas.text((0, 1.45), word, MUTED, 15)


def _finished(canvas: Canvas, params: Params, before: State, state: State) -> None:
    """The kick that has just ended; the state is the next one's already."""
    _keeper(canvas, params, float(state.last[0, 1]))
    _flight(canvas, params, before, 1.0)
    _shooter(canvas, before, KICK)
    word, colour = result(state)
    canvas.text((0, 1.45), word, colour, 22)


def _score(canvas: Canvas, states: Sequence[State]) -> None:
    """One mark per finished kick, in the colour of the player that won it."""
    ended = [result(s) for s in states[1:] if int(s.phase[0]) == 0]
    for number, (word, colour) in enumerate(ended):
        y = -0.6 - 0.65 * (number % 8)  # a longer episode writes over its first marks
        canvas.circle((-4.6, y), 0.16, colour)
        canvas.text((-4.3, y), word, MUTED, 12, "midleft")
