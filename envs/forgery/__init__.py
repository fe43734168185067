"""Forgery: make samples that pass for those of a hidden distribution, or tell the two apart.

The game of a generative adversarial network (Goodfellow et al., 2014). The generator (protagonist) gets latent noise and turns
it into a point of the plane. A coin decides whether the discriminator (adversary) is shown that point or one from the
task's real distribution; it says how likely the point is to be real, and is paid the logarithmic score. The real distribution, a
mixture of equal Gaussians on a ring, a grid or a spiral, is hidden from both: the generator learns it from how its samples
are judged, the discriminator from how its verdicts are scored.

Both act at the same time, so a verdict can't be about a sample of the same step. At every step the discriminator judges the
point of the step before, and both are paid for it in that step: the reward for the sample of step t comes with step t + 1. At
the first step there is nothing to judge yet and both rewards are 0; the last step's sample is never judged.

Observation

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | 0, 1, 2 | latent noise, fresh at every step, uniform | -1 | 1 | |
| adversary | 0, 1 | the point to judge, 0 at the first step | -2 | 2 | m |
| adversary | 2 | whether there is a point to judge | 0 | 1 | |

Action

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | 0, 1 | x and y of the sample | -1 | 1 | 2 m |
| adversary | 0 | verdict: certainly forged to certainly real | -1 | 1 | |

A verdict v says that the point is real with probability (1 + 0.9 v) / 2, so that nothing is ever quite certain.

Reward of the adversary (the protagonist gets the negative: zero-sum): log2 of (1 + 0.9 v) if the point was real, of
(1 - 0.9 v) if it was forged: 0 bits for an undecided verdict, 0.93 at best, -3.32 at worst. The clock truncates after 50
steps; nothing terminates. Besides the return, ``distance.energy_distance`` says how far forged and
real samples are apart; ``metaduel clouds RUN`` shows it, and both clouds, at every shot of an
adaptation.

Contexts (hidden from both roles)

| name | training range | extrapolation | unit | meaning |
|---|---|---|---|---|
| shape | 0 to 2 | the same | - | ring, grid or spiral |
| centre_x, centre_y | [-0.8, 0.8] | 0.8 to 1 on either side | m | the middle of the distribution |
| radius | [0.4, 0.7] | [0.7, 0.8] | m | from the middle to the outermost modes |
| modes | 3 to 6 | 7 to 9 | - | how many Gaussians |
| spread | [0.05, 0.1] | [0.03, 0.05] | m | their standard deviation |
| rotation | [-pi, pi] | the same | rad | of the whole distribution |

A task whose distribution does not fit into the plane is refused: |centre| + radius + 3 spread is at most 2 m.

Version history: v0: first release.
"""

import math

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import Context, GameSpec

_side = ((-1.0, -0.8), (0.8, 1.0))
_table = np.array([2.0, 2.0, 1.0], np.float32)

SPECS = (
    GameSpec(
        name="Forgery",
        version=0,
        summary="forge samples of a hidden distribution, or tell forged from real (a GAN's game)",
        package="metaduel.envs.forgery",
        game_class="Forgery",
        horizon=50,
        fps=10,
        contexts=(
            Context("shape", "-", 0, (0, 2), "ring, grid or spiral", (), (0, 2), integer=True, shown_as="category"),
            Context("centre_x", "m", 0.0, (-0.8, 0.8), "x of the distribution's middle", _side, (-1.5, 1.5)),
            Context("centre_y", "m", 0.0, (-0.8, 0.8), "y of the distribution's middle", _side, (-1.5, 1.5)),
            Context(
                "radius", "m", 0.6, (0.4, 0.7), "from the middle to the outermost modes", ((0.7, 0.8),), (0.1, 1.5)
            ),
            Context("modes", "-", 4, (3, 6), "how many Gaussians", ((7, 9),), (1, 9), integer=True),
            Context("spread", "m", 0.08, (0.05, 0.1), "their standard deviation", ((0.03, 0.05),), (0.01, 0.3)),
            Context(
                "rotation",
                "rad",
                0.0,
                (-math.pi, math.pi),
                "rotation of the whole distribution",
                (),
                (-math.pi, math.pi),
                shown_as="angle",
            ),
        ),
        observation_spaces={
            "protagonist": spaces.Box(-1.0, 1.0, (3,), np.float32),
            "adversary": spaces.Box(_table * np.array([-1, -1, 0], np.float32), _table),
        },
        action_spaces={
            "protagonist": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "adversary": spaces.Box(-1.0, 1.0, (1,), np.float32),
        },
        opponents={
            "protagonist": {
                "train": ("forger", "collapsed", "blurred", "uniform", "stranger"),
                "held_out": ("shifted", "hollow", "mirrored", "blob", "stamp", "roamer"),
            },
            "adversary": {
                "train": ("expert", "critic", "undecided", "prior"),
                "held_out": ("strict", "radial", "locator", "doubter", "familiar"),
            },
        },
    ),
)
