"""Pursuit's golden transitions, each with its arithmetic."""

from __future__ import annotations

from typing import NamedTuple

Vector = tuple[float, float]
Pair = tuple[Vector, Vector]  # (evader's, pursuer's)

# The gate's middle is at (1, 0).
TASK = {
    "gate_angle": 0.0,
    "gate_width": 0.5,
    "evader_speed": 1.0,
    "pursuer_speed": 0.5,
    "evader_acceleration": 2.0,
    "pursuer_acceleration": 1.0,
    "drag": 0.5,
}
_STILL = (0.0, 0.0)
_FAR = (-0.5, 0.0)  # 1.5 m from the gate
_EAST = (1.0, 0.0)


class Case(NamedTuple):
    """One transition of ``TASK``."""

    why: str
    positions: Pair  # m, before
    velocities: Pair  # m/s, before
    actions: Pair
    positions_after: Pair
    velocities_after: Pair
    reward: float  # the evader's
    terminated: bool


CASES = (
    # v = 0.4 + 0.1 * (2 * 0.5 - 0.5 * 0.4) = 0.48; x = 0.1 * 0.48; lead from 1.5 - 1 to 1.5 - 0.952: 0.4 * 0.048
    Case(
        "thrust less drag changes the velocity, and the new velocity moves",
        (_STILL, _FAR),
        ((0.4, 0.0), _STILL),
        ((0.5, 0.0), _STILL),
        ((0.048, 0.0), _FAR),
        ((0.48, 0.0), _STILL),
        0.0192,
        False,
    ),
    # (1, 1) is cut to (0.707107, 0.707107): v = 0.1 * 2 * 0.707107 = 0.1414214 each, x = 0.0141421 each
    # distance to the gate sqrt(0.9858579^2 + 0.0141421^2) = 0.9859593: 0.4 * (1 - 0.9859593)
    Case(
        "a longer action is cut to the unit disc",
        (_STILL, _FAR),
        (_STILL, _STILL),
        ((1.0, 1.0), _STILL),
        ((0.01414214, 0.01414214), _FAR),
        ((0.1414214, 0.1414214), _STILL),
        0.0056163,
        False,
    ),
    # evader: 0.96 + 0.1 * (2 - 0.48) = 1.112, cut to 1; pursuer: 0.48 + 0.1 * (1 - 0.24) = 0.556, cut to 0.5
    # lead from 1.5 - 1 to sqrt(1.5^2 + 0.05^2) - 0.9 = 0.6008331: 0.4 * 0.1008331
    Case(
        "both have a top speed",
        (_STILL, _FAR),
        ((0.96, 0.0), (0.0, 0.48)),
        (_EAST, (0.0, 1.0)),
        ((0.1, 0.0), (-0.5, 0.05)),
        (_EAST, (0.0, 0.5)),
        0.0403332,
        False,
    ),
    # from 0.05 before the gate to 0.05 behind it: no progress, +1
    Case(
        "out through the gate",
        ((0.95, 0.0), _FAR),
        (_EAST, _STILL),
        (_EAST, _STILL),
        ((1.05, 0.0), _FAR),
        (_EAST, _STILL),
        1.0,
        True,
    ),
    # (1, 0.25) / 1.0307764 = (0.9701425, 0.2425356): 0.2443671 from the gate's middle, within 0.25
    # distance from sqrt(0.1^2 + 0.25^2) = 0.2692582 to 0.25: 1 + 0.4 * 0.0192582
    Case(
        "out just inside the gate's edge",
        ((0.9, 0.25), _FAR),
        (_EAST, _STILL),
        (_EAST, _STILL),
        ((1.0, 0.25), _FAR),
        (_EAST, _STILL),
        1.0077033,
        True,
    ),
    # (1, 0.26) / 1.0332473 = (0.9678225, 0.2516338): 0.2536828 from the gate's middle, beyond 0.25
    # distance from sqrt(0.1^2 + 0.26^2) = 0.2785678 to 0.26: -1 + 0.4 * 0.0185678
    Case(
        "out just beside the gate",
        ((0.9, 0.26), _FAR),
        (_EAST, _STILL),
        (_EAST, _STILL),
        ((1.0, 0.26), _FAR),
        (_EAST, _STILL),
        -0.9925729,
        True,
    ),
    # 0.24 - 0.1 = 0.14 < 0.15; 0.1 m nearer to the gate: -1 + 0.4 * 0.1
    Case(
        "caught",
        (_STILL, (0.24, 0.0)),
        (_EAST, _STILL),
        (_EAST, _STILL),
        ((0.1, 0.0), (0.24, 0.0)),
        (_EAST, _STILL),
        -0.96,
        True,
    ),
    # 0.26 - 0.1 = 0.16
    Case(
        "not quite caught",
        (_STILL, (0.26, 0.0)),
        (_EAST, _STILL),
        (_EAST, _STILL),
        ((0.1, 0.0), (0.26, 0.0)),
        (_EAST, _STILL),
        0.04,
        False,
    ),
    # in the gate, 0.05 behind the wall, 0.1 from the pursuer; no progress
    Case(
        "caught in the gate is caught",
        ((0.95, 0.0), (0.95, 0.0)),
        (_EAST, _STILL),
        (_EAST, _STILL),
        ((1.05, 0.0), (0.95, 0.0)),
        (_EAST, _STILL),
        -1.0,
        True,
    ),
    # pursuer: 0.5 + 0.1 * (1 - 0.25) = 0.575, cut to 0.5; 0.98 + 0.05 = 1.03 is held at 1, so it moved 0.02: 0.2 m/s
    # it comes 0.02 nearer to the gate: -0.4 * 0.02
    Case(
        "the pursuer is held, in the gate too",
        (_STILL, (0.98, 0.0)),
        (_STILL, (0.5, 0.0)),
        (_STILL, _EAST),
        (_STILL, (1.0, 0.0)),
        (_STILL, (0.2, 0.0)),
        -0.008,
        False,
    ),
    # pursuer, along (0.6, 0.8): speed
    # 0.5 + 0.1 * (1 - 0.25) = 0.575 is cut to 0.5; (0.57, 0.76) + (0.03, 0.04) = (0.6, 0.8) is on the wall: not held.
    # lead from sqrt(0.43^2 + 0.76^2) - 1 to sqrt(0.4^2 + 0.8^2) - 1: 0.4 * (0.8944272 - 0.8732125)
    Case(
        "the wall itself may be touched",
        (_STILL, (0.57, 0.76)),
        (_STILL, (0.3, 0.4)),
        (_STILL, (0.6, 0.8)),
        (_STILL, (0.6, 0.8)),
        (_STILL, (0.3, 0.4)),
        0.0084859,
        False,
    ),
)
