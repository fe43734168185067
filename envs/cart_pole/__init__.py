"""CartPole under attack: balance a pole on a cart near a hidden place, while an adversary pushes both.

The cart-pole of Barto, Sutton and Anderson (1983) as robust adversarial reinforcement learning plays it (Pinto et al.,
ICML 2017). With the default contexts and an adversary that does nothing it is Gymnasium's CartPole-v1, step for step
(give ``horizon=500`` for its time limit). The protagonist's motor may be wired the wrong way round and be stronger
or weaker than its nominal force; only the reward reveals the place to balance at. The adversary pushes the tip of the pole
and the cart, but it does not know which mixture of its two controls drives which: ``wiring`` turns its action like a vector
in the plane.

Observation (both roles; then the contexts that they see, each scaled to [-1, 1] over its training range)

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0 | place of the cart, 0 is the middle of the track | -4.8 | 4.8 | m |
| 1 | velocity of the cart, cut to the bounds | -100 | 100 | m/s |
| 2 | angle of the pole, 0 is upright, clockwise | -2.21 | 2.21 | rad |
| 3 | angular velocity of the pole, cut to the bounds | -100 | 100 | rad/s |

No allowed task leaves these bounds. In the training tasks the numbers stay far within: about 4 m/s, 0.3 rad and 5 rad/s.

Action

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | | 0: push the cart left, 1: right; the other way round if ``reversed`` | 0 | 1 | ``gain`` x ``force`` |
| adversary | 0, 1 | cut to the unit disc, then turned by ``wiring``: the first part pushes the tip, | -1 | 1 | ``tip_force`` |
| | | the second the cart, to the right where positive | | | ``cart_force`` |

Reward of the protagonist (the adversary gets the negative: zero-sum): 1 - ``tracking`` x the distance of the cart from
the target after the step in m, at most 1, for every step, the last one too. It is never negative, so that ending early
never pays. The episode ends where the cart is more than 2.4 m from the middle or the pole more than 12 degrees from
upright.

It is truncated after 200 steps of 0.02 s instead of 500: an informed player is at the target after about 75 of them, what
follows tells a player that adapts nothing new, and a few episodes per update stay cheap.

Contexts

| name | default | training range | extrapolation | unit | seen by | meaning |
|---|---|---|---|---|---|---|
| target | 0 | [-1.2, 1.2] | 1.2 to 1.5 on either side | m | neither | where to balance |
| gain | 1 | [0.8, 1.2] | [0.6, 0.8] and [1.2, 1.4] | 1 | neither | factor on the protagonist's force |
| reversed | 0 | 0 or 1 | the same | | neither | 1: the protagonist's motor is wired the wrong way round |
| wiring | 0 | [-pi, pi] | the same | rad | neither | by what the adversary's action is turned |
| tracking | 0 | [0.8, 0.95] | [0.6, 0.8] | 1 | both | share of the reward that is paid for being near the target |
| gravity | 9.8 | [8, 12] | [6, 8] | m/s^2 | both | pull of gravity |
| cart_mass | 1 | [0.8, 1.2] | [0.6, 0.8] and [1.2, 1.4] | kg | both | mass of the cart |
| pole_mass | 0.1 | [0.08, 0.12] | [0.12, 0.15] | kg | both | mass of the pole, a uniform rod |
| half_length | 0.5 | [0.4, 0.6] | [0.6, 0.8] | m | both | half the length of the pole |
| force | 10 | [8, 12] | [6, 8] and [12, 14] | N | both | the protagonist's force |
| tip_force | 0.05 | [0.04, 0.07] | [0.07, 0.08] | N | both | the adversary's largest force on the tip |
| cart_force | 3 | [2, 5] | [1, 2] | N | both | the adversary's largest force on the cart |
| damping | 0 | [0, 0.02] | [0.02, 0.03] | N m s | both | friction in the hinge |

A steady force on the tip makes the pole lean by atan(2 ``tip_force`` / (``pole_mass`` x ``gravity``)): 6 degrees at the
defaults. Where it is more than the 12 that are allowed, a steady push alone drives the cart off the track.

Version history: v0: first release.
"""

import math

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import ROLES, Context, GameSpec

_around = (-math.pi, math.pi)
_wide = ((0.6, 0.8), (1.2, 1.4))  # outside [0.8, 1.2]

# The last step of an episode adds 0.02 s x 100 per s at most to the 2.4 m and the 12 degrees that end it.
_edge = np.array([4.8, 100.0, 2.21, 100.0], np.float32)

SPECS = (
    GameSpec(
        name="CartPole",
        version=0,
        summary="balance a pole near a hidden place while an adversary pushes its tip and the cart",
        package="metaduel.envs.cart_pole",
        game_class="CartPole",
        horizon=200,
        fps=50,
        contexts=(
            Context("target", "m", 0.0, (-1.2, 1.2), "where to balance", ((-1.5, -1.2), (1.2, 1.5)), (-2.4, 2.4)),
            Context("gain", "1", 1.0, (0.8, 1.2), "factor on the protagonist's force", _wide, (0.1, 3.0)),
            Context(
                "reversed",
                "1",
                0,
                (0, 1),
                "1: the protagonist's motor is wired the wrong way round",
                (),
                (0, 1),
                integer=True,
                shown_as="category",
            ),
            Context(
                "wiring", "rad", 0.0, _around, "by what the adversary's action is turned", (), _around, shown_as="angle"
            ),
            Context(
                "tracking",
                "1",
                0.0,
                (0.8, 0.95),
                "share of the reward that is paid for being near the target",
                ((0.6, 0.8),),
                (0.0, 1.0),
                ROLES,
            ),
            Context("gravity", "m/s^2", 9.8, (8.0, 12.0), "pull of gravity", ((6.0, 8.0),), (0.0, 20.0), ROLES),
            Context("cart_mass", "kg", 1.0, (0.8, 1.2), "mass of the cart", _wide, (0.1, 5.0), ROLES),
            Context(
                "pole_mass",
                "kg",
                0.1,
                (0.08, 0.12),
                "mass of the pole, a uniform rod",
                ((0.12, 0.15),),
                (0.01, 1.0),
                ROLES,
            ),
            Context("half_length", "m", 0.5, (0.4, 0.6), "half the pole's length", ((0.6, 0.8),), (0.1, 2.0), ROLES),
            Context(
                "force",
                "N",
                10.0,
                (8.0, 12.0),
                "the protagonist's force",
                ((6.0, 8.0), (12.0, 14.0)),
                (0.1, 30.0),
                ROLES,
            ),
            Context(
                "tip_force",
                "N",
                0.05,
                (0.04, 0.07),
                "the adversary's largest force on the tip",
                ((0.07, 0.08),),
                (0.0, 2.0),
                ROLES,
            ),
            Context(
                "cart_force",
                "N",
                3.0,
                (2.0, 5.0),
                "the adversary's largest force on the cart",
                ((1.0, 2.0),),
                (0.0, 20.0),
                ROLES,
            ),
            Context("damping", "N m s", 0.0, (0.0, 0.02), "friction in the hinge", ((0.02, 0.03),), (0.0, 1.0), ROLES),
        ),
        observation_spaces={"protagonist": spaces.Box(-_edge, _edge), "adversary": spaces.Box(-_edge, _edge)},
        action_spaces={"protagonist": spaces.Discrete(2), "adversary": spaces.Box(-1.0, 1.0, (2,), np.float32)},
        opponents={
            "protagonist": {
                "train": ("steady", "shuttle", "classic", "coin"),
                "held_out": ("brisk", "stay", "slow", "probe", "alternate"),
            },
            "adversary": {
                "train": ("idle", "counter", "ride", "wind"),
                "held_out": ("derail", "rock", "gusts", "guess"),
            },
        },
    ),
)
