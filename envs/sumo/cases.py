"""Sumo's golden transitions, each with its arithmetic."""

from __future__ import annotations

from typing import NamedTuple

Vector = tuple[float, float]
Pair = tuple[Vector, Vector]  # (protagonist's, adversary's)

# Down is along x. Strengths are 2 / 1 = 2 and 4 / 4 = 1 m/s^2; radii 0.15 and 0.15 * sqrt(4) = 0.3: they touch at 0.45 m.
TASK = {
    "tilt_direction": 0.0,
    "tilt": 1.0,
    "protagonist_mass": 1.0,
    "adversary_mass": 4.0,
    "protagonist_force": 2.0,
    "adversary_force": 4.0,
    "friction": 0.5,
    "ring_radius": 1.0,
    "restitution": 0.5,
}
_STILL = (0.0, 0.0)
_LIMP = (_STILL, _STILL)


class Case(NamedTuple):
    """One transition of ``TASK``."""

    why: str
    positions: Pair  # m, before
    velocities: Pair  # m/s, before
    actions: Pair
    positions_after: Pair
    velocities_after: Pair
    reward: float  # the protagonist's
    terminated: bool


CASES = (
    # protagonist: v = 0.4 + 0.1 * (2 * 0.5 + 1 - 0.5 * 0.4) = 0.58; adversary: v = 0.1 * 1, whatever its mass
    # the adversary is below by 1, then by 0.51 + 0.442 = 0.952: 0.15 * (0.952 - 1)
    Case(
        "force, tilt and friction change the velocity, and the new velocity moves",
        ((-0.5, 0.0), (0.5, 0.0)),
        ((0.4, 0.0), _STILL),
        ((0.5, 0.0), _STILL),
        ((-0.442, 0.0), (0.51, 0.0)),
        ((0.58, 0.0), (0.1, 0.0)),
        -0.0072,
        False,
    ),
    # (1, 1) is cut to (0.7071068, 0.7071068): v = 0.1 * (2 * 0.7071068 + (1, 0)) = (0.2414214, 0.1414214)
    # adversary: v = 0.1 * (1 * (0, 1) + (1, 0)); below by 0.01 - 0.0241421: 0.15 * -0.0141421
    Case(
        "a longer action is cut to the unit disc",
        ((0.0, -0.5), (0.0, 0.5)),
        _LIMP,
        ((1.0, 1.0), (0.0, 1.0)),
        ((0.02414214, -0.48585786), (0.01, 0.51)),
        ((0.2414214, 0.1414214), (0.1, 0.1)),
        -0.0021213,
        False,
    ),
    # v = 1 + 0.1 * (1 - 0.5) = 1.05 and 0.1 close 0.4975 - 0.45 = 0.0475 m at 0.95 m/s in 0.05 s, half the step
    # each gets the other's share of the mass of 1.5 * 0.95: -1.14 and 0.285; v = -0.09 and 0.385
    # momentum 1.05 + 4 * 0.1 = 1.45 = -0.09 + 4 * 0.385; they part at 0.475 = 0.5 * 0.95
    # x = -0.3 + 0.0525 - 0.0045 and 0.1975 + 0.005 + 0.01925; 0.15 * (0.47375 - 0.4975)
    Case(
        "they meet halfway through the step and go on with what they got",
        ((-0.3, 0.0), (0.1975, 0.0)),
        ((1.0, 0.0), _STILL),
        _LIMP,
        ((-0.252, 0.0), (0.22175, 0.0)),
        ((-0.09, 0.0), (0.385, 0.0)),
        -0.0035625,
        False,
    ),
    # they touch along (0.6, 0.8); v = (0.1, 0.95) and (0.1, 0) close at 0.95 * 0.8 = 0.76 m/s along it
    # kicks: -4/5 * 1.5 * 0.76 = -0.912 and 0.228 along it; below by 0.29368 + 0.04472 = 0.3384: 0.15 * 0.0684
    Case(
        "contact acts along the line between the centres alone",
        (_STILL, (0.27, 0.36)),
        ((0.0, 1.0), _STILL),
        _LIMP,
        ((-0.04472, 0.02204), (0.29368, 0.37824)),
        ((-0.4472, 0.2204), (0.2368, 0.1824)),
        0.01026,
        False,
    ),
    # v = -1 + 0.1 * (1 + 0.5) = -0.85; below by 0.16 + 0.385 = 0.545: 0.15 * 0.095
    Case(
        "discs that touch while they part are left alone",
        ((-0.3, 0.0), (0.15, 0.0)),
        ((-1.0, 0.0), _STILL),
        _LIMP,
        ((-0.385, 0.0), (0.16, 0.0)),
        ((-0.85, 0.0), (0.1, 0.0)),
        0.01425,
        False,
    ),
    # v = 1 + 0.1 * (1 - 0.5) = 1.05: 1.055 is outside; below by 1.045, before 0.95: 1 + 0.15 * 0.095
    Case(
        "the adversary is out",
        (_STILL, (0.95, 0.0)),
        (_STILL, (1.0, 0.0)),
        _LIMP,
        ((0.01, 0.0), (1.055, 0.0)),
        ((0.1, 0.0), (1.05, 0.0)),
        1.01425,
        True,
    ),
    # as above; the adversary is above by 1.45, then by 1.545: -1 - 0.15 * 0.095
    Case(
        "the protagonist is out",
        ((0.95, 0.0), (-0.5, 0.0)),
        ((1.0, 0.0), _STILL),
        _LIMP,
        ((1.055, 0.0), (-0.49, 0.0)),
        ((1.05, 0.0), (0.1, 0.0)),
        -1.01425,
        True,
    ),
    # (0.59, 0.8) is 0.9940 m from the centre, though the adversary's rim is far outside
    Case(
        "a rim may hang over",
        (_STILL, (0.58, 0.8)),
        _LIMP,
        _LIMP,
        ((0.01, 0.0), (0.59, 0.8)),
        ((0.1, 0.0), (0.1, 0.0)),
        0.0,
        False,
    ),
    # y = -0.99 - 0.1 * 0.95 = -1.085 and 0.99 + 0.1 * 1.9 = 1.18: both outside, the adversary further
    Case(
        "both out in one step: the one further out has lost",
        ((0.0, -0.99), (0.0, 0.99)),
        ((0.0, -1.0), (0.0, 2.0)),
        _LIMP,
        ((0.01, -1.085), (0.01, 1.18)),
        ((0.1, -0.95), (0.1, 1.9)),
        1.0,
        True,
    ),
)
