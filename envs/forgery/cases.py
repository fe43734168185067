"""Forgery's golden numbers, each with its arithmetic: where modes are, what a real sample is, what a verdict earns."""

from __future__ import annotations

import math
from typing import NamedTuple

Point = tuple[float, float]


class Modes(NamedTuple):
    """Where the modes of a task are, in their order."""

    why: str
    task: dict[str, float]
    places: tuple[Point, ...]  # m


_QUARTER = math.pi / 2
MODES = (
    # 0.5 to the right, up, left and down of (0.1, -0.2)
    Modes(
        "a ring starts at its rotation and goes anticlockwise",
        {"shape": 0, "centre_x": 0.1, "centre_y": -0.2, "radius": 0.5, "modes": 4, "spread": 0.1, "rotation": 0.0},
        ((0.6, -0.2), (0.1, 0.3), (-0.4, -0.2), (0.1, -0.7)),
    ),
    # the first straight up; 120 degrees on: 0.5 * (-0.8660254, -0.5)
    Modes(
        "a rotated ring of three",
        {"shape": 0, "radius": 0.5, "modes": 3, "rotation": _QUARTER},
        ((0.0, 0.5), (-0.4330127, -0.25), (0.4330127, -0.25)),
    ),
    # corners at 0.7071068 * 0.6 = 0.4242641; the first row, then the left of the second
    Modes(
        "a grid is read row by row",
        {"shape": 1, "radius": 0.6, "modes": 4, "rotation": 0.0},
        ((-0.4242641, 0.4242641), (0.0, 0.4242641), (0.4242641, 0.4242641), (-0.4242641, 0.0)),
    ),
    # a quarter turn takes (x, y) to (-y, x), and then (0.5, 0) is added
    Modes(
        "a rotated grid, moved",
        {"shape": 1, "centre_x": 0.5, "radius": 0.6, "modes": 4, "rotation": _QUARTER},
        ((0.0757359, -0.4242641), (0.0757359, 0.0), (0.0757359, 0.4242641), (0.5, -0.4242641)),
    ),
    # angles 0, 180 and 360 degrees (a third of one and a half turns each), distances 0.2, 0.4 and 0.6
    Modes(
        "a spiral goes outwards",
        {"shape": 2, "radius": 0.6, "modes": 3, "rotation": 0.0},
        ((0.2, 0.0), (-0.4, 0.0), (0.6, 0.0)),
    ),
)


class Sample(NamedTuple):
    """A real sample of the first task of ``MODES``."""

    why: str
    numbers: tuple[float, float, float]
    place: Point  # m


_ONE_SIGMA = 1 - math.exp(-0.5)  # sqrt(-2 log(1 - u)) = 1
SAMPLES = (
    Sample("no distance from the first mode", (0.0, 0.0, 0.3), (0.6, -0.2)),
    # floor(0.6 * 4) = 2; one spread of 0.1 m, a quarter turn: up
    Sample("one spread above the third mode", (0.6, _ONE_SIGMA, 0.25), (-0.4, -0.1)),
    # floor(0.99 * 4) = 3; three eighths of a turn: 0.1 * (-0.7071068, 0.7071068)
    Sample("one spread aslant of the last mode", (0.99, _ONE_SIGMA, 0.375), (0.0292893, -0.6292893)),
)


class Verdict(NamedTuple):
    """What a verdict earns the discriminator."""

    why: str
    verdict: float
    is_real: bool
    bits: float


VERDICTS = (
    # log2(1)
    Verdict("undecided", 0.0, True, 0.0),
    # log2(1.9), the best there is
    Verdict("certainly real, and it is", 1.0, True, 0.9259994),
    Verdict("certainly forged, and it is", -1.0, False, 0.9259994),
    # log2(0.1), the worst
    Verdict("certainly real, and it is forged", 1.0, False, -3.3219281),
    # log2(1.45)
    Verdict("rather real, and it is", 0.5, True, 0.5360529),
    # log2(0.55)
    Verdict("rather real, and it is forged", 0.5, False, -0.8624965),
)
