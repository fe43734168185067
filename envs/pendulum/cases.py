"""Pendulum's golden transitions, each with its arithmetic."""

from __future__ import annotations

import math
from typing import NamedTuple

# Gravity takes up to 3 * 10 / 2 = 15 rad/s^2, and 1 N m makes 3 rad/s^2.
TASK = {
    "target": 1.0,
    "gain": 1.0,
    "reversed": 0,
    "adversary_reversed": 0,
    "gravity": 10.0,
    "mass": 1.0,
    "length": 1.0,
    "torque": 4.0,
    "adversary_torque": 2.0,
    "damping": 0.0,
}
_LEVEL = math.pi / 2


class Case(NamedTuple):
    """One transition of ``TASK`` with ``changes``."""

    why: str
    changes: dict[str, float]
    angle: float  # rad, before
    speed: float  # rad/s, before
    action: float  # the protagonist's
    attack: float  # the adversary's
    angle_after: float
    speed_after: float
    cost: float  # minus the protagonist's reward


CASES = (
    # 2 N m: 0.05 * 6 = 0.3 rad/s, and the new speed moves: 0.05 * 0.3; cost 1^2 + 0.001 * 2^2
    Case("half the torque", {}, 0.0, 0.0, 0.5, 0.0, 0.015, 0.3, 1.004),
    # -3 N m: -0.45 rad/s; cost 1 + 0.001 * 9
    Case("a reversed motor with a gain", {"reversed": 1, "gain": 1.5}, 0.0, 0.0, 0.5, 0.0, -0.0225, -0.45, 1.009),
    # -1 N m, which costs the protagonist nothing
    Case("the adversary's torque", {}, 0.0, 0.0, 0.0, -0.5, -0.0075, -0.15, 1.0),
    Case("the adversary's motor reversed", {"adversary_reversed": 1}, 0.0, 0.0, 0.0, -0.5, 0.0075, 0.15, 1.0),
    # 0.05 * 15 = 0.75 rad/s, 1.5707963 + 0.0375; cost (1.5707963 - 1)^2
    Case("gravity on the level rod", {}, _LEVEL, 0.0, 0.0, 0.0, 1.6082963, 0.75, 0.3258085),
    # -0.1 * 2 = -0.2 N m: -0.03 rad/s; cost 1 + 0.1 * 4
    Case("friction in the hinge", {"damping": 0.1}, 0.0, 2.0, 0.0, 0.0, 0.0985, 1.97, 1.4),
    # 7.9 + 0.75 is cut to 8; cost 0.3258085 + 0.1 * 62.41
    Case("the top speed", {}, _LEVEL, 7.9, 0.0, 0.0, 1.9707963, 8.0, 6.5668085),
    # 4 + 1 = 5 rad is -1.2831853 the other way round; sine -0.7568025: 0.05 * -11.3520374 = -0.5676019 rad/s
    Case("the shorter way round counts", {"target": -1.0}, 4.0, 0.0, 0.0, 0.0, 3.9716199, -0.5676019, 1.6465645),
    # 3 / (2 * 0.25) = 6 rad/s^2 per N m, gravity 3 * 10 / (2 * 0.5) = 30: 0.05 * (30 + 12) = 2.1 rad/s
    Case("mass and length", {"mass": 2.0, "length": 0.5}, _LEVEL, 0.0, 0.5, 0.0, 1.6757963, 2.1, 0.3298085),
)
