"""Navigation: walk to a hidden goal while an adversary pushes.

The 2-D navigation benchmark of MAML (Finn, Abbeel and Levine, ICML 2017) with a second player. With ``push = 0`` it is
the published benchmark, as its authors ran it: start at the origin, actions in [-1, 1] scaled by 0.1 per step, reward
minus the plain distance to the goal, the end inside a box of 0.01 around the goal or after 100 steps.

Observation (both roles)

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0 | x of the walker | -20.01 | 20.01 | m |
| 1 | y of the walker | -20.01 | 20.01 | m |

The bounds are what 100 steps can reach, rounding included; a longer ``horizon`` can lead further.

Action

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | 0, 1 | displacement along x, y | -1 | 1 | 0.1 m per step |
| adversary | 0, 1 | displacement along x, y, cut to the unit disc | -1 | 1 | ``push`` m per step |

Reward: protagonist: minus the distance to the goal after the step, in m; adversary: the distance. Zero-sum.

Contexts (hidden from both roles)

| name | training range | extrapolation | unit | meaning |
|---|---|---|---|---|
| goal_x, goal_y | [-0.5, 0.5] | 0.5 to 0.8 on either side | m | where the goal is |
| push | [0, 0.06] | 0.06 to 0.08 | m per step | the adversary's largest displacement |

Version history: v0: first release.
"""

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import Context, GameSpec

_position = spaces.Box(-20.01, 20.01, (2,), np.float32)
_move = spaces.Box(-1.0, 1.0, (2,), np.float32)
_side = ((-0.8, -0.5), (0.5, 0.8))

SPECS = (
    GameSpec(
        name="Navigation",
        version=0,
        summary="walk to a hidden goal while an adversary pushes (MAML's 2-D navigation)",
        package="metaduel.envs.navigation",
        game_class="Navigation",
        horizon=100,
        contexts=(
            Context("goal_x", "m", 0.3, (-0.5, 0.5), "x of the goal", _side, (-5.0, 5.0)),
            Context("goal_y", "m", 0.3, (-0.5, 0.5), "y of the goal", _side, (-5.0, 5.0)),
            Context(
                "push", "m/step", 0.03, (0.0, 0.06), "the adversary's largest displacement", ((0.06, 0.08),), (0.0, 0.1)
            ),
        ),
        observation_spaces={"protagonist": _position, "adversary": _position},
        action_spaces={"protagonist": _move, "adversary": spaces.Box(-1.0, 1.0, (2,), np.float32)},
        opponents={
            "protagonist": {
                "train": ("seeker", "wanderer", "spiral"),
                "held_out": ("zigzag", "lazy_seeker", "scanner"),
            },
            "adversary": {"train": ("idle", "repel", "wind"), "held_out": ("swirl", "gusts", "block")},
        },
    ),
)
