"""Goalkeeper: eight penalty kicks in a row, against a hidden wind, a hidden spin and hidden reflexes.

In each kick the shooter (protagonist) runs up for three steps of 0.2 s and may step to either side; in the last of them it
strikes the ball. The ball needs three more steps to the goal line. While it flies, wind and spin bend its path; the spin is
proportional to how far the run-up came from the side. The keeper (adversary) runs along the goal line, and
its legs carry out every command one reaction delay late. The sun is low: both see how the ball is struck, but neither sees
where it goes. So a shooter has to learn what the air does to a ball, and a keeper has to learn where balls come down and how
late its legs are; both learn it from results.

Waiting for the strike is too late for a ball into the corner, and a keeper that sets out before the strike leaves the other
corner open. So both must mix: a predictable player loses (``cases.py`` has the kick as a matrix game).

Observation (the same for both roles; positions from the middle of the goal, the shooter's right is positive)

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0 | how far to the side the run-up has come | -1 | 1 | m |
| 1 | the keeper's place | -2.5 | 2.5 | m |
| 2 | where the ball would cross the goal line in calm air, 0 until it is struck | -4.5 | 4.5 | m |
| 3 | whether this step's action strikes the ball | 0 | 1 | |
| 4 | whether the ball is in flight | 0 | 1 | |
| 5 | share of the kick that is left | 0 | 1 | |
| 6 | share of the time that is left | 0 | 1 | |

Action

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | 0 | step to the side, during the run-up, which stays within 1 m | -1 | 1 | 0.5 m |
| protagonist | 1 | where to aim, in the step that strikes the ball | -1 | 1 | 4.5 m |
| adversary | 0 | velocity along the goal line, between the posts | -1 | 1 | 4.5 m/s |

Reward of the protagonist (the adversary gets the negative: zero-sum), when a ball reaches the goal line; else 0

| when | reward |
|---|---|
| goal | 1 + 0.5 per m of margin, up to 1.5 |
| saved or wide | -1 - 0.5 per m that was missing, down to -1.5 |

The margin is how far the ball is inside the nearer post or past the keeper's reach, whichever is less. The eight kicks take
48 steps; then the clock truncates, and nothing terminates.

Contexts (hidden from both roles)

| name | training range | extrapolation | unit | meaning |
|---|---|---|---|---|
| wind | [-8, 8] | 8 to 10 on either side | m/s^2 | sideways acceleration of every ball |
| curve | [-5, 5] | 5 to 6 on either side | m/s^2 per m | sideways acceleration by spin, per m of run-up |
| delay | [0.25, 0.4] | 0.4 to 0.5 | s | how late the keeper's legs are |
| reach | [0.4, 0.55] | 0.3 to 0.4 | m | how far to either side the keeper saves |

Version history: v0: first release.
"""

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import Context, GameSpec

_high = np.array([1.0, 2.5, 4.5, 1.0, 1.0, 1.0, 1.0], np.float32)
_low = np.array([-1.0, -2.5, -4.5, 0.0, 0.0, 0.0, 0.0], np.float32)

SPECS = (
    GameSpec(
        name="Goalkeeper",
        version=0,
        summary="penalty kicks under a hidden wind and spin, against a keeper with hidden reflexes",
        package="metaduel.envs.goalkeeper",
        game_class="Goalkeeper",
        horizon=48,
        fps=4,
        contexts=(
            Context(
                "wind",
                "m/s^2",
                0.0,
                (-8.0, 8.0),
                "sideways acceleration of every ball",
                ((-10.0, -8.0), (8.0, 10.0)),
                (-15.0, 15.0),
            ),
            Context(
                "curve",
                "m/s^2 per m",
                3.0,
                (-5.0, 5.0),
                "sideways acceleration by spin, per m of run-up",
                ((-6.0, -5.0), (5.0, 6.0)),
                (-10.0, 10.0),
            ),
            Context("delay", "s", 0.3, (0.25, 0.4), "how late the keeper's legs are", ((0.4, 0.5),), (0.0, 0.5)),
            Context(
                "reach", "m", 0.5, (0.4, 0.55), "how far to either side the keeper saves", ((0.3, 0.4),), (0.0, 2.5)
            ),
        ),
        observation_spaces={"protagonist": spaces.Box(_low, _high), "adversary": spaces.Box(_low, _high)},
        action_spaces={
            "protagonist": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "adversary": spaces.Box(-1.0, 1.0, (1,), np.float32),
        },
        opponents={
            "protagonist": {
                "train": ("corners", "bender", "middle", "hopeful", "scatter"),
                "held_out": ("opposite", "placer", "alternate", "swerver", "onesided", "watcher"),
            },
            "adversary": {
                "train": ("reader", "tracker", "gambler", "stay"),
                "held_out": ("guesser", "downwind", "sceptic", "shadow", "habit"),
            },
        },
    ),
)
