"""Goalkeeper's golden numbers, each with its arithmetic: single steps, and one kick as a matrix game."""

from __future__ import annotations

from typing import NamedTuple

# The legs are 1.25 steps late: they carry out 3/4 of the command of a step ago and 1/4 of the one before.
TASK = {"wind": 2.0, "curve": 3.0, "delay": 0.25, "reach": 0.5}
_REST = (0.0, 0.0, 0.0)
_NOTHING = (0.0, 0.0, 0.0)


class Case(NamedTuple):
    """One transition of ``TASK``. Places in m: (run-up's offset, where the ball heads, the keeper)."""

    why: str
    phase: int  # steps of the kick played, before
    places: tuple[float, float, float]  # before
    commands: tuple[float, float, float]  # the keeper's last actions, newest first
    actions: tuple[float, float, float]  # (run, aim, the keeper's)
    after: tuple[float, float, float]
    reward: float  # the shooter's
    last: tuple[float, float, float] = _NOTHING  # m: where the ball crossed, the keeper, the margin


CASES = (
    # shooter 0.2 + 0.5 * 0.4; keeper 0.5 + 0.2 * 4.5 * (0.75 * 0.6 - 0.25 * 0.2)
    Case(
        "the shooter steps to the side and the keeper's legs do what it wanted before; aiming is early",
        0,
        (0.2, 0.0, 0.5),
        (0.6, -0.2, 0.9),
        (0.4, 0.5, 1.0),
        (0.4, 0.0, 0.86),
        0.0,
    ),
    # 0.8 + 0.5 = 1.3 is cut to 1; 2.4 + 0.9 = 3.3 to 2.5
    Case(
        "the run-up stays within 1 m, the keeper between the posts",
        1,
        (0.8, 0.0, 2.4),
        (1.0, 1.0, 0.0),
        (1.0, 0.0, 0.0),
        (1.0, 0.0, 2.5),
        0.0,
    ),
    # 4.5 * -0.5; the last step to the side counts: -0.25 - 0.5 * 0.5
    Case("the third step strikes", 2, (-0.25, 0.0, 0.0), _REST, (-0.5, -0.5, 0.0), (-0.5, -2.25, 0.0), 0.0),
    Case(
        "a struck ball is out of the shooter's hands", 3, (0.5, 1.0, 0.0), _REST, (1.0, 1.0, 1.0), (0.5, 1.0, 0.0), 0.0
    ),
    # drift (2 + 3 * 0.5) * 0.6^2 / 2 = 0.63: crosses at 2.13, 0.37 inside the post and 3.13 from the keeper: 1 + 0.5 * 0.37
    Case(
        "a goal close to the post",
        5,
        (0.5, 1.5, -1.0),
        _REST,
        _NOTHING,
        _NOTHING,
        1.185,
        (2.13, -1.0, 0.37),
    ),
    # 0.33 from the keeper, 0.17 within its reach: -1 - 0.5 * 0.17
    Case("saved", 5, (0.5, 1.5, 1.8), _REST, _NOTHING, _NOTHING, -1.085, (2.13, 1.8, -0.17)),
    # the keeper still runs: 0.9 + 0.2 * 4.5 * 0.5 = 1.35, 0.78 from the ball: by 0.28 past it: 1 + 0.5 * 0.28
    Case(
        "the keeper's last step counts",
        5,
        (0.5, 1.5, 0.9),
        (0.5, 0.5, 0.0),
        _NOTHING,
        _NOTHING,
        1.14,
        (2.13, 1.35, 0.28),
    ),
    # crosses at 3.13, 0.63 beside the goal: -1 - 0.5 * 0.63
    Case(
        "wide, though it headed for the post", 5, (0.5, 2.5, 0.0), _REST, _NOTHING, _NOTHING, -1.315, (3.13, 0.0, -0.63)
    ),
    # drift (2 - 3) * 0.18 = -0.18: crosses at -4.68, 2.18 beside the goal, which counts as 1: -1 - 0.5
    Case("how far wide is cut at 1 m", 5, (-1.0, -4.5, 0.0), _REST, _NOTHING, _NOTHING, -1.5, (-4.68, 0.0, -2.18)),
    # drift 0.36: crosses in the middle, 2.5 inside and 2.5 - 0.5 past the keeper, which counts as 1: 1 + 0.5
    Case("an empty goal", 5, (0.0, -0.36, 2.5), _REST, _NOTHING, _NOTHING, 1.5, (0.0, 2.5, 2.0)),
)

# One kick in calm air as a matrix game: delay 0.3 s, reach 0.5 m, straight run-up. The shooter sends the ball to the left,
# the middle or the right; the keeper sets out early for a side, or waits for the strike and runs to the ball.
MATRIX_TASK = {"wind": 0.0, "curve": 3.0, "delay": 0.3, "reach": 0.5}
MATRIX_SHOTS = (-2.2, 0.0, 2.2)  # m: where the ball crosses
MATRIX_GUESSES = (-2.0, None, 2.0)  # m: where the keeper goes; None: waits
# Into a corner: against the right guess 0.2 - 0.5 = -0.3, so -1.15. Otherwise 0.3 inside the post: a keeper that waits has
# one and a half steps of 0.9 m and is 2.2 - 1.35 - 0.5 = 0.35 short, so 1.15. Into the middle: a keeper that waits has it, 0.5
# within reach, so -1.25; one that guesses is 2 - 0.5 = 1.5 short, so 1.5.
MATRIX = ((-1.15, 1.15, 1.15), (1.5, -1.25, 1.5), (1.15, 1.15, -1.15))
# With p for either corner, all of the keeper's plans earn the same where 1.5 - 3 p = 4.8 p - 1.25: p = 2.75 / 7.8. With q for
# either guess, all shots do where 1.15 - 2.3 q = 5.5 q - 1.25: q = 2.4 / 7.8. The value is 1.5 - 3 p = 1.15 - 2.3 q.
MATRIX_SHOOTER = (2.75 / 7.8, 2.3 / 7.8, 2.75 / 7.8)
MATRIX_KEEPER = (2.4 / 7.8, 3.0 / 7.8, 2.4 / 7.8)
MATRIX_VALUE = 0.4423077  # to the shooter; its best plan without chance earns -1.15, the keeper's gives 1.15 away
