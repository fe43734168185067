"""Pursuit: leave a round arena through a gate that nobody shows you, before the pursuer catches you."""

import math

import numpy as np
from gymnasium import spaces

from metaduel.envs.spec import Context, GameSpec, Role

_both: tuple[Role, Role] = ("protagonist", "adversary")
_thrust = (-1.0, 1.0, (2,), np.float32)

_edge = np.array([1.5, 1.5, 2.0, 2.0, 2.5, 2.5, 2.0, 2.0, 1.0], np.float32)
_low = np.concatenate([-_edge[:8], np.zeros(1, np.float32)])

SPECS = (
    GameSpec(
        name="Pursuit",
        version=0,
        summary="leave a round arena through a hidden gate before the pursuer catches you",
        package="metaduel.envs.pursuit",
        game_class="Pursuit",
        horizon=40,
        contexts=(
            Context(
                "gate_angle", "rad", 0.0, (-math.pi, math.pi), "where in the wall the gate is", (), (-math.pi, math.pi)
            ),
            Context(
                "gate_width",
                "m",
                0.5,
                (0.4, 0.6),
                "the gate's width, straight across",
                ((0.3, 0.4),),
                (0.05, 1.0),
                _both,
            ),
            Context(
                "evader_speed", "m/s", 0.8, (0.75, 0.85), "the evader's top speed", ((0.65, 0.75),), (0.05, 1.5), _both
            ),
            Context(
                "pursuer_speed", "m/s", 0.7, (0.6, 0.7), "the pursuer's top speed", ((0.7, 0.75),), (0.05, 1.5), _both
            ),
            Context(
                "evader_acceleration",
                "m/s^2",
                1.5,
                (1.25, 1.75),
                "the evader's thrust",
                ((1.0, 1.25),),
                (0.1, 10.0),
                _both,
            ),
            Context(
                "pursuer_acceleration",
                "m/s^2",
                3.0,
                (2.5, 3.5),
                "the pursuer's thrust",
                ((3.5, 4.0),),
                (0.1, 10.0),
                _both,
            ),
            Context("drag", "1/s", 0.4, (0.2, 0.6), "share of the velocity lost", ((0.6, 0.8),), (0.0, 5.0), _both),
        ),
        observation_spaces={"protagonist": spaces.Box(_low, _edge), "adversary": spaces.Box(_low, _edge)},
        action_spaces={"protagonist": spaces.Box(*_thrust), "adversary": spaces.Box(*_thrust)},
        opponents={
            "protagonist": {
                "train": ("dash", "dodge", "feint", "sweep"),
                "held_out": ("patient", "curve", "creep", "gambler"),
            },
            "adversary": {"train": ("chase", "guard", "patrol", "drift"), "held_out": ("lead", "goalie", "herd")},
        },
    ),
)
