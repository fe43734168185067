"""Pendulum under attack: turn a pendulum to a hidden angle and hold it there while an adversary twists it.

Gymnasium's Pendulum-v1 as robust adversarial reinforcement learning plays it (Pinto et al., ICML 2017): with the
default contexts and an adversary that does nothing they are equal, step for step (give ``horizon=200`` for its time
limit). The protagonist's motor may be wired the wrong way round and be stronger or weaker than its nominal torque; only the
reward reveals the angle to hold. The adversary's motor may be wired the wrong way round, too;
then its pushes help the protagonist.

The training ranges keep the classic rod and gravity, but give the protagonist a motor that can lift the rod at once
instead of swinging it up: every angle can be held, and what an action did shows in the next few rewards instead of a
swing later, so that a few episodes are enough to learn from.

Observation (both roles; then the contexts that they see, each scaled to [-1, 1] over its training range)

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0 | cosine of the angle; 0 rad is upright, anticlockwise | -1 | 1 | |
| 1 | sine of the angle | -1 | 1 | |
| 2 | angular velocity | -8 | 8 | rad/s |

Action

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | 0 | torque, anticlockwise; clockwise if ``reversed`` | -1 | 1 | ``gain`` x ``torque`` |
| adversary | 0 | torque, anticlockwise; clockwise if ``adversary_reversed`` | -1 | 1 | ``adversary_torque`` |

Reward of the protagonist (the adversary gets the negative: zero-sum): minus (the angle from the target in rad)^2 + 0.1 x
(angular velocity in rad/s)^2 + 0.001 x (the protagonist's torque in N m)^2, all three before the step. Nothing ends an
episode early. It is truncated after 100 steps of 0.05 s instead of 200: an informed player is at the target after about
20 of them, and the rest tells a player that adapts nothing new.

Contexts

| name | default | training range | extrapolation | unit | seen by | meaning |
|---|---|---|---|---|---|---|
| target | 0 | [-pi, pi] | the same | rad | neither | the angle to hold; 0 is upright |
| gain | 1 | [0.8, 1.2] | [0.6, 0.8] and [1.2, 1.4] | 1 | neither | factor on the protagonist's torque |
| reversed | 0 | 0 or 1 | the same | | neither | 1: the protagonist's motor is wired the wrong way round |
| adversary_reversed | 0 | 0 or 1 | the same | | neither | 1: so is the adversary's |
| gravity | 10 | [8, 12] | [5, 8] | m/s^2 | both | pull of gravity |
| mass | 1 | [0.8, 1.2] | [0.6, 0.8] and [1.2, 1.4] | kg | both | mass of the rod |
| length | 1 | [0.8, 1.2] | [0.6, 0.8] and [1.2, 1.4] | m | both | length of the rod |
| torque | 2 | [8, 12] | [6, 8] and [12, 14] | N m | both | the protagonist's torque |
| adversary_torque | 1 | [3, 5] | [5, 6] | N m | both | the adversary's largest torque |
| damping | 0 | [0, 0.4] | [0.4, 0.6] | N m s | both | friction in the hinge |

Version history: v0: first release.
"""

import math

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import ROLES, Context, GameSpec

_around = (-math.pi, math.pi)
_wide = ((0.6, 0.8), (1.2, 1.4))  # outside [0.8, 1.2]

_edge = np.array([1.0, 1.0, 8.0], np.float32)
_twist = (-1.0, 1.0, (1,), np.float32)

SPECS = (
    GameSpec(
        name="Pendulum",
        version=0,
        summary="turn a pendulum to a hidden angle and hold it there while an adversary twists it",
        package="metaduel.envs.pendulum",
        game_class="Pendulum",
        horizon=100,
        fps=20,
        contexts=(
            Context("target", "rad", 0.0, _around, "the angle to hold; 0 is upright", (), _around, shown_as="angle"),
            Context("gain", "1", 1.0, (0.8, 1.2), "factor on the protagonist's torque", _wide, (0.1, 3.0)),
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
                "adversary_reversed",
                "1",
                0,
                (0, 1),
                "1: the adversary's motor is wired the wrong way round",
                (),
                (0, 1),
                integer=True,
                shown_as="category",
            ),
            Context("gravity", "m/s^2", 10.0, (8.0, 12.0), "pull of gravity", ((5.0, 8.0),), (0.0, 20.0), ROLES),
            Context("mass", "kg", 1.0, (0.8, 1.2), "mass of the rod", _wide, (0.1, 5.0), ROLES),
            Context("length", "m", 1.0, (0.8, 1.2), "length of the rod", _wide, (0.1, 3.0), ROLES),
            Context(
                "torque",
                "N m",
                2.0,
                (8.0, 12.0),
                "the protagonist's torque",
                ((6.0, 8.0), (12.0, 14.0)),
                (0.1, 20.0),
                ROLES,
            ),
            Context(
                "adversary_torque",
                "N m",
                1.0,
                (3.0, 5.0),
                "the adversary's largest torque",
                ((5.0, 6.0),),
                (0.0, 10.0),
                ROLES,
            ),
            Context("damping", "N m s", 0.0, (0.0, 0.4), "friction in the hinge", ((0.4, 0.6),), (0.0, 5.0), ROLES),
        ),
        observation_spaces={"protagonist": spaces.Box(-_edge, _edge), "adversary": spaces.Box(-_edge, _edge)},
        action_spaces={"protagonist": spaces.Box(*_twist), "adversary": spaces.Box(*_twist)},
        opponents={
            "protagonist": {
                "train": ("servo", "bang", "upright", "wander"),
                "held_out": ("sway", "slack", "detour", "probe", "brake"),
            },
            "adversary": {
                "train": ("idle", "away", "fall", "wind"),
                "held_out": ("pump", "kick", "gusts", "push"),
            },
        },
    ),
)
