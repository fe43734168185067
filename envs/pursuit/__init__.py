"""Pursuit: leave a round arena through a hidden gate before the pursuer catches you.

An evader (protagonist) starts at rest 0.5 to 0.7 m from the centre of an arena of radius 1, a pursuer (adversary) within
0.3 m of the centre, each in a direction that is independent of the gate. It is dark: they see each other only when they are
closer than 0.25 m. So a pursuer that knows the gate waits in it, and one that doesn't cannot just follow an evader that knows
it: the pursuer has to look for the evader first. An evader that reaches the wall beside the gate loses, so it cannot search
along the wall. Both can infer the gate from their rewards.

Observation (each role from its own side; then the contexts that it sees, each scaled to [-1, 1] over its training range)

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0, 1 | own position | -1.5 | 1.5 | m |
| 2, 3 | own velocity | -2 | 2 | m/s |
| 4, 5 | the other's position minus the own, 0 out of sight | -0.25 | 0.25 | m |
| 6, 7 | the other's velocity, 0 out of sight | -2 | 2 | m/s |
| 8 | whether they see each other | 0 | 1 | |
| 9 | share of the time that is left | 0 | 1 | |

Action

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | 0, 1 | thrust along x, y, cut to the unit disc | -1 | 1 | ``evader_acceleration`` |
| adversary | 0, 1 | thrust along x, y, cut to the unit disc | -1 | 1 | ``pursuer_acceleration`` |

Reward of the protagonist (the adversary gets the negative: zero-sum)

| when | reward |
|---|---|
| every step | 0.4 per m that the evader gains in the race to the gate |
| the evader is outside, through the gate | +1, the episode ends |
| the evader is outside, anywhere else | -1, the episode ends |
| the two are closer than 0.15 m, outside or not | -1, the episode ends |
| 50 steps of 0.1 s are over | 0, the episode is truncated |

The evader's lead in the race is the pursuer's distance to the middle of the gate minus its own. So the race telescopes:
over an episode it adds up to 0.4 x (lead at the end - lead at the start), wherever the two went. At a
capture the lead is below 0.15 m, and no lead is below -2 m, so being caught is worse than surviving anywhere.

Contexts

| name | training range | extrapolation | unit | seen by | meaning |
|---|---|---|---|---|---|
| gate_angle | [-pi, pi] | the same | rad | neither | where in the wall the gate is |
| gate_width | [0.6, 0.8] | [0.4, 0.6] | m | both | its width, straight across |
| evader_speed | [0.55, 0.65] | [0.45, 0.55] | m/s | both | the evader's top speed |
| pursuer_speed | [0.45, 0.55] | [0.55, 0.65] | m/s | both | the pursuer's top speed |
| evader_acceleration | [8, 12] | [6, 8] and [12, 14] | m/s^2 | both | the evader's thrust |
| pursuer_acceleration | [4, 6] | [3, 4] and [6, 8] | m/s^2 | both | the pursuer's thrust |
| drag | [4, 6] | [6, 7] | 1/s | both | share of the velocity lost to drag |

Version history: v0: first release.
"""

import math

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import ROLES, Context, GameSpec

_thrust = (-1.0, 1.0, (2,), np.float32)

_edge = np.array([1.5, 1.5, 2.0, 2.0, 0.25, 0.25, 2.0, 2.0, 1.0, 1.0], np.float32)
_low = np.concatenate([-_edge[:8], np.zeros(2, np.float32)])

SPECS = (
    GameSpec(
        name="Pursuit",
        version=0,
        summary="leave a round arena through a hidden gate before the pursuer catches you",
        package="metaduel.envs.pursuit",
        game_class="Pursuit",
        horizon=50,
        fps=10,
        contexts=(
            Context(
                "gate_angle",
                "rad",
                0.0,
                (-math.pi, math.pi),
                "where in the wall the gate is",
                (),
                (-math.pi, math.pi),
                shown_as="angle",
            ),
            Context(
                "gate_width",
                "m",
                0.7,
                (0.6, 0.8),
                "the gate's width, straight across",
                ((0.4, 0.6),),
                (0.1, 1.0),
                ROLES,
            ),
            Context(
                "evader_speed", "m/s", 0.6, (0.55, 0.65), "the evader's top speed", ((0.45, 0.55),), (0.1, 1.5), ROLES
            ),
            Context(
                "pursuer_speed", "m/s", 0.5, (0.45, 0.55), "the pursuer's top speed", ((0.55, 0.65),), (0.1, 1.5), ROLES
            ),
            Context(
                "evader_acceleration",
                "m/s^2",
                10.0,
                (8.0, 12.0),
                "the evader's thrust",
                ((6.0, 8.0), (12.0, 14.0)),
                (0.1, 20.0),
                ROLES,
            ),
            Context(
                "pursuer_acceleration",
                "m/s^2",
                5.0,
                (4.0, 6.0),
                "the pursuer's thrust",
                ((3.0, 4.0), (6.0, 8.0)),
                (0.1, 20.0),
                ROLES,
            ),
            Context(
                "drag", "1/s", 5.0, (4.0, 6.0), "share of the velocity lost to drag", ((6.0, 7.0),), (0.0, 10.0), ROLES
            ),
        ),
        observation_spaces={"protagonist": spaces.Box(_low, _edge), "adversary": spaces.Box(_low, _edge)},
        action_spaces={"protagonist": spaces.Box(*_thrust), "adversary": spaces.Box(*_thrust)},
        opponents={
            "protagonist": {
                "train": ("dash", "curve", "feint", "loiter", "sweep"),
                "held_out": ("dodge", "patient", "creep", "flee", "gambler"),
            },
            "adversary": {"train": ("chase", "guard", "patrol", "drift"), "held_out": ("lead", "goalie", "herd")},
        },
    ),
)
