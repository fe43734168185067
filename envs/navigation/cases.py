"""Navigation's golden numbers, each with its arithmetic or its source."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float]


class Case(NamedTuple):
    """One transition."""

    why: str
    goal: Vector  # m
    push: float  # m per step
    position: Vector  # m, before
    actions: tuple[Vector, Vector]  # (protagonist's, adversary's)
    after: Vector  # m
    distance: float  # m: minus the protagonist's reward
    terminated: bool


CASES = (
    # 0 + 0.1 * 1 = 0.1; gap (-0.2, -0.4), sqrt(0.04 + 0.16) = 0.447214
    Case("an action of 1 moves 0.1 m", (0.3, 0.4), 0.0, (0.0, 0.0), ((1, 0), (0, 0)), (0.1, 0.0), 0.4472136, False),
    # 0 + 0.06 * 1 = 0.06; gap (-0.24, -0.32), sqrt(0.0576 + 0.1024) = 0.4
    Case("a push of length 1", (0.3, 0.32), 0.06, (0.0, 0.0), ((0, 0), (1, 0)), (0.06, 0.0), 0.4, False),
    # (1, 1) has length 1.414214: cut to (0.707107, 0.707107), times 0.05 is 0.035355 each; gap -0.264645 each
    Case(
        "a longer push is cut to the unit disc",
        (0.3, 0.3),
        0.05,
        (0.0, 0.0),
        ((0, 0), (1, 1)),
        (0.0353553, 0.0353553),
        0.3742641,
        False,
    ),
    # 0.05 * (0.3, -0.4) = (0.015, -0.02), added to 0.1 * (0.5, -0.5) = (0.05, -0.05); gap (0.065, -0.07)
    Case(
        "a shorter push is not stretched, and adds to the move",
        (0.0, 0.0),
        0.05,
        (0.0, 0.0),
        ((0.5, -0.5), (0.3, -0.4)),
        (0.065, -0.07),
        0.0955249,
        False,
    ),
    # the cut is of the push alone: the move (1, 1) stays sqrt(2) long; gap (-0.2, -0.3), sqrt(0.04 + 0.09)
    Case("the move is not cut", (0.3, 0.4), 0.0, (0.0, 0.0), ((1, 1), (0, 0)), (0.1, 0.1), 0.3605551, False),
    # 0.2 + 0.095 = 0.295; gap (-0.005, 0)
    Case("within the box it ends", (0.3, 0.4), 0.0, (0.2, 0.4), ((0.95, 0), (0, 0)), (0.295, 0.4), 0.005, True),
    # gap (0.009, 0.009) is sqrt(2) * 0.009 = 0.0127279 long, more than 0.01, and inside the box all the same
    Case("a box, not a disc", (0.3, 0.4), 0.0, (0.309, 0.409), ((0, 0), (0, 0)), (0.309, 0.409), 0.0127279, True),
    # gap (0.011, 0)
    Case("outside the box", (0.3, 0.4), 0.0, (0.311, 0.4), ((0, 0), (0, 0)), (0.311, 0.4), 0.011, False),
    # 0.35 -> 0.25 passes over the goal at 0.3: only where a step ends counts
    Case("passing over does not end it", (0.3, 0.0), 0.0, (0.35, 0.0), ((-1, 0), (0, 0)), (0.25, 0.0), 0.05, False),
)

# Returns on the published goals after 0, 1, 2 and 3 updates of 40 trajectories (Finn, Abbeel and Levine, ICML 2017,
# from the result files that its authors released; the rows of MAML and pretrained equal the paper's table).
PUBLISHED_RETURNS: dict[str, tuple[float, ...]] = {
    "maml": (-40.41, -11.68, -3.33, -3.23),
    "pretrained": (-40.81, -19.73, -11.72, -8.47),
    "random": (-82.66, -57.96, -53.84, -46.81),
    "oracle": (-2.29,),
}

# Mean return over the published goals of a player that never moves: 100 steps of the goal's distance from the origin.
STILL_RETURN = -40.08


def published_goals() -> npt.NDArray[np.float64]:
    """The 40 test goals of MAML's authors, as their evaluation script draws them: [40, 2] m."""
    goals: npt.NDArray[np.float64] = np.random.RandomState(1).uniform(-0.5, 0.5, (40, 2))
    return goals


def published_tasks() -> list[dict[str, Any]]:
    """The published benchmark as tasks: those goals, without pushes."""
    return [{"goal_x": float(x), "goal_y": float(y), "push": 0.0} for x, y in published_goals()]
