"""Sumo: push the other player out of a ring whose floor has a hidden tilt.

Two discs start at rest on opposite sides of the centre, in a direction that is independent of the tilt. The disc whose
centre leaves the ring first loses; when the time is over, the game is a draw. Both are blindfolded: they don't see the ring,
and they feel each other only when less than 0.25 m is between them. The tilt pulls at both alike, whatever their mass, and
friction is proportional to speed. So what they feel of each other does not depend on the tilt; only the rewards reveal it.
A player that knows the tilt stands against it and pushes from above; a player that does not slides out.

Observation (each role from its own side; then the contexts that it sees, each scaled to [-1, 1] over its training range)

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0, 1 | the other's position minus the own, 0 if it is too far to be felt | -1 | 1 | m |
| 2, 3 | the other's velocity minus the own, 0 if it is too far to be felt | -30 | 30 | m/s |
| 4 | whether they feel each other | 0 | 1 | |
| 5 | share of the time that is left | 0 | 1 | |

Action

| role | index | meaning | minimum | maximum | unit |
|---|---|---|---|---|---|
| protagonist | 0, 1 | force along x, y, cut to the unit disc | -1 | 1 | ``protagonist_force`` |
| adversary | 0, 1 | force along x, y, cut to the unit disc | -1 | 1 | ``adversary_force`` |

Reward of the protagonist (the adversary gets the negative: zero-sum)

| when | reward |
|---|---|
| every step | 0.15 per m, along the slope, that the protagonist climbs above the adversary |
| the adversary is out, or further out than the protagonist in the same step | +1, the episode ends |
| the protagonist is out, or further out than the adversary in the same step | -1, the episode ends |
| 50 steps of 0.1 s are over | 0, the episode is truncated |

The climb telescopes: over an episode it adds up to 0.15 x (how much higher the protagonist is than the adversary at
the end - at the start), so that leaving the ring is worse than staying anywhere in it.

Contact is exact: discs that meet within a step exchange momentum there, along the line between their centres. A disc's
radius is 0.15 m times the root of its mass in kg, and a ring that is too small for both starts is refused.

Contexts

| name | training range | extrapolation | unit | seen by | meaning |
|---|---|---|---|---|---|
| tilt_direction | [-pi, pi] | the same | rad | neither | which way is down |
| tilt | [1.1, 1.5] | [0.9, 1.1] and [1.5, 1.7] | m/s^2 | neither | acceleration down the slope (1.3 is 8 degrees) |
| protagonist_mass | [0.8, 1.2] | [0.6, 0.8] and [1.2, 1.4] | kg | both | the protagonist's mass |
| adversary_mass | [1.2, 1.8] | [1.0, 1.2] and [1.8, 2.0] | kg | both | the adversary's mass |
| protagonist_force | [2.2, 2.8] | [2.8, 3.2] | N | both | the protagonist's largest force |
| adversary_force | [3.2, 4.0] | [4.0, 4.6] | N | both | the adversary's largest force |
| friction | [1.5, 2.5] | [1.2, 1.5] and [2.5, 3.0] | 1/s | both | share of the velocity lost to the floor |
| ring_radius | [0.9, 1.1] | [1.1, 1.3] | m | both | the ring's radius |
| restitution | [0.2, 0.8] | [0.0, 0.2] and [0.8, 1.0] | | both | share of the closing speed that contact gives back |

Version history: v0: first release.
"""

import math

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import ROLES, Context, GameSpec, Split

_edge = np.array([1.0, 1.0, 30.0, 30.0, 1.0, 1.0], np.float32)
_felt = spaces.Box(np.concatenate([-_edge[:4], np.zeros(2, np.float32)]), _edge)
_push = (-1.0, 1.0, (2,), np.float32)
_players: dict[Split, tuple[str, ...]] = {
    "train": ("stand", "bulldoze", "counter", "charge", "drunk", "shadow"),
    "held_out": ("high_ground", "matador", "sway", "gambler", "retreat", "orbit"),
}


def _seen(
    name: str,
    unit: str,
    train: tuple[float, float],
    description: str,
    extrapolation: tuple[tuple[float, float], ...],
    bounds: tuple[float, float],
) -> Context:
    return Context(name, unit, sum(train) / 2, train, description, extrapolation, bounds, ROLES)


SPECS = (
    GameSpec(
        name="Sumo",
        version=0,
        summary="push the other out of a ring whose floor has a hidden tilt",
        package="metaduel.envs.sumo",
        game_class="Sumo",
        horizon=50,
        fps=10,
        contexts=(
            Context(
                "tilt_direction",
                "rad",
                0.0,
                (-math.pi, math.pi),
                "which way is down",
                (),
                (-math.pi, math.pi),
                shown_as="angle",
            ),
            Context(
                "tilt", "m/s^2", 1.3, (1.1, 1.5), "acceleration down the slope", ((0.9, 1.1), (1.5, 1.7)), (0.0, 2.0)
            ),
            _seen("protagonist_mass", "kg", (0.8, 1.2), "the protagonist's mass", ((0.6, 0.8), (1.2, 1.4)), (0.5, 4.0)),
            _seen("adversary_mass", "kg", (1.2, 1.8), "the adversary's mass", ((1.0, 1.2), (1.8, 2.0)), (0.5, 4.0)),
            _seen(
                "protagonist_force",
                "N",
                (2.2, 2.8),
                "the protagonist's largest force",
                ((2.8, 3.2),),
                (0.0, 8.0),
            ),
            _seen("adversary_force", "N", (3.2, 4.0), "the adversary's largest force", ((4.0, 4.6),), (0.0, 8.0)),
            _seen(
                "friction",
                "1/s",
                (1.5, 2.5),
                "share of the velocity lost to the floor",
                ((1.2, 1.5), (2.5, 3.0)),
                (0.0, 10.0),
            ),
            _seen("ring_radius", "m", (0.9, 1.1), "the ring's radius", ((1.1, 1.3),), (0.1, 2.0)),
            _seen(
                "restitution",
                "1",
                (0.2, 0.8),
                "share of the closing speed that contact gives back",
                ((0.0, 0.2), (0.8, 1.0)),
                (0.0, 1.0),
            ),
        ),
        observation_spaces={"protagonist": _felt, "adversary": _felt},
        action_spaces={"protagonist": spaces.Box(*_push), "adversary": spaces.Box(*_push)},
        opponents={"protagonist": _players, "adversary": _players},
    ),
)
