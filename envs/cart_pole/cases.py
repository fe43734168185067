"""CartPole's golden transitions, each with its arithmetic."""

from __future__ import annotations

import math
from typing import NamedTuple

Place = tuple[float, float, float, float]  # m, m/s, rad, rad/s

# The masses add up to 1 kg, and mass times distance of the pole's middle is 0.05 kg m.
TASK = {
    "target": 0.3,
    "gain": 1.0,
    "reversed": 0,
    "wiring": 0.0,
    "tracking": 0.5,
    "gravity": 10.0,
    "cart_mass": 0.9,
    "pole_mass": 0.1,
    "half_length": 0.5,
    "force": 10.0,
    "tip_force": 0.2,
    "cart_force": 2.0,
    "damping": 0.0,
}
_START = (0.0, 0.0, 0.0, 0.0)


class Case(NamedTuple):
    """One transition of ``TASK`` with ``changes``."""

    why: str
    changes: dict[str, float]
    before: Place
    action: int  # the protagonist's
    attack: tuple[float, float]  # the adversary's
    after: Place
    reward: float  # the protagonist's
    terminated: bool


# An upright pole resists with 0.5 * (4 / 3 - 0.1) = 0.6166667 m.
CASES = (
    # angular -10 / 0.6166667 = -16.216216, cart 10 + 0.05 * 16.216216 = 10.810811, each for 0.02 s; the place is still
    # the old one: 0.3 m off, 1 - 0.5 * 0.3
    Case("a push to the right", {}, _START, 1, (0, 0), (0, 0.21621622, 0, -0.32432432), 0.85, False),
    Case("a push to the left", {}, _START, 0, (0, 0), (0, -0.21621622, 0, 0.32432432), 0.85, False),
    # -12 N instead of 10 N
    Case(
        "a reversed motor with a gain",
        {"reversed": 1, "gain": 1.2},
        _START,
        1,
        (0, 0),
        (0, -0.25945946, 0, 0.38918919),
        0.85,
        False,
    ),
    # pushes 10.2 N in all; about the hinge 2 * 0.5 * 0.2 / 0.05 = 4: angular (4 - 10.2) / 0.6166667 = -10.054054,
    # cart 10.2 + 0.05 * 10.054054 = 10.702703
    Case("a force on the tip", {}, _START, 1, (1, 0), (0, 0.21405405, 0, -0.20108108), 0.85, False),
    # 12 N on the cart
    Case("a force on the cart", {}, _START, 1, (0, 1), (0, 0.25945946, 0, -0.38918919), 0.85, False),
    Case(
        "turned by a quarter, the first control drives the cart",
        {"wiring": math.pi / 2},
        _START,
        1,
        (1, 0),
        (0, 0.25945946, 0, -0.38918919),
        0.85,
        False,
    ),
    # turned by a quarter, (0, 1) is (-1, 0): -0.2 N on the tip: angular (-4 - 9.8) / 0.6166667 = -22.378378,
    # cart 9.8 + 0.05 * 22.378378 = 10.918919
    Case(
        "turned by a quarter, the second control drives the tip backwards",
        {"wiring": math.pi / 2},
        _START,
        1,
        (0, 1),
        (0, 0.21837838, 0, -0.44756757),
        0.85,
        False,
    ),
    # (1, 1) is cut to 0.7071068 each: 0.1414214 N on the tip and 1.4142136 N on the cart; pushes 11.5556349 N in all,
    # about the hinge 2.8284271: angular -8.7272078 / 0.6166667 = -14.1522289, cart 11.5556349 + 0.7076114 = 12.2632464
    Case("both, cut to the unit disc", {}, _START, 1, (1, 1), (0, 0.24526493, 0, -0.28304458), 0.85, False),
    # friction -0.01 * 2 / 0.05 = -0.4: angular -10.4 / 0.6166667 = -16.864865, cart 10 + 0.05 * 16.864865 = 10.843243
    # explicit Euler: place and angle move with the old velocities; 0.19 m off
    Case(
        "friction in the hinge, and old velocities move",
        {"damping": 0.01},
        (0.1, 0.5, 0.0, 2.0),
        1,
        (0, 0),
        (0.11, 0.71686486, 0.04, 1.6627027),
        0.905,
        False,
    ),
    # sine 0.1986693, cosine 0.9800666: pushes 10 + 0.05 * 0.1986693 = 10.0099335
    # angular (1.9866933 - 0.9800666 * 10.0099335) / (0.5 * (4 / 3 - 0.0960531)) = -7.8237080 / 0.6186401 = -12.6466221
    # cart 10.0099335 + 0.05 * 12.6466221 * 0.9800666 = 10.6296601; 0.22 rad is more than 12 degrees = 0.2094 rad
    Case(
        "gravity and the centrifugal force of a leaning pole, which falls",
        {},
        (0.0, 0.0, 0.2, 1.0),
        1,
        (0, 0),
        (0.0, 0.2125932, 0.22, 0.7470676),
        0.85,
        True,
    ),
    # 2.11 m off counts as 1 m: 1 - 0.5
    Case("off the track", {}, (2.39, 1, 0, 0), 1, (0, 0), (2.41, 1.21621622, 0, -0.32432432), 0.5, True),
    Case("not yet off", {}, (-2.37, -1, 0, 0), 1, (0, 0), (-2.39, -0.78378378, 0, -0.32432432), 0.5, False),
)
