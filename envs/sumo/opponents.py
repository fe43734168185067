"""Sumo's scripted players: wrestlers that know the tilt, and some that don't. The same ones for both seats.

None uses anything that its seat does not see, except for the tilt where it says so: neither the ring nor a player far away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.game import View
from metaduel.envs.core.geometry import dot, left_of, length, polar, sign, unit_disc
from metaduel.envs.core.spec import ROLES, Role, Split
from metaduel.envs.players.scripted import Option, Scripted
from metaduel.envs.sumo.game import FEEL, Params

Choice = tuple[Tensor, Tensor]


class _Known(NamedTuple):
    """What a wrestler knows for a whole episode; tilt and slope are for those that know them."""

    strength: Tensor  # [B, 1] m/s^2
    touch: Tensor  # [B] m: how far the centres of discs that touch are apart
    down: Tensor  # [B, 2] unit vector
    against: Tensor  # [B, 2] m/s^2: stands against the tilt


def _known(role: Role, params: Params) -> _Known:
    force, mass = getattr(params, f"{role}_force"), getattr(params, f"{role}_mass")
    down = params.down
    return _Known((force / mass).unsqueeze(1), params.touch, down, -params.tilt.unsqueeze(1) * down)


class _Wrestler:
    """What a wrestler feels and is. Everything that needs the other is 0 where it is too far to be felt."""

    def __init__(self, view: View) -> None:
        known: _Known = view.known
        self.view, self.touch = view, known.touch
        self.step = view.step  # [B] int64
        self.strength, self.down, self.against = known.strength, known.down, known.against
        # Found when they are first asked for; ``functools.cached_property`` has a lock, which cannot be compiled.
        self._found: tuple[Tensor, Tensor] | None = None
        self._towards: Tensor | None = None

    @property
    def _gap(self) -> tuple[Tensor, Tensor]:
        """The way to the other [B, 2] m, and how long it is [B]."""
        if self._found is None:
            gap = self.view.observation[:, :2]
            self._found = gap, length(gap)
        return self._found

    @property
    def felt(self) -> Tensor:
        """[B, 1] bool."""
        return self.view.observation[:, 4:5] > 0

    @property
    def ahead(self) -> Tensor:
        """[B, 2]: towards the other."""
        if self._towards is None:
            gap, size = self._gap
            self._towards = gap / size.clamp(min=1e-6).unsqueeze(1)
        return self._towards

    @property
    def lag(self) -> Tensor:
        """[B, 2] m/s: the other's velocity minus the own."""
        return self.view.observation[:, 2:4]

    @property
    def apart(self) -> Tensor:
        """[B, 1] m between the discs."""
        return torch.where(self.felt, (self._gap[1] - self.touch).unsqueeze(1), FEEL)

    # The rest is for those that know the tilt.

    @property
    def aside(self) -> Tensor:
        """[B, 2] around the other, on the upper side."""
        left = left_of(self.ahead)
        return torch.where(dot(left, self.down) <= 0, left, -left)

    @property
    def other_below(self) -> Tensor:
        """[B, 1] bool."""
        return dot(self.ahead, self.down) > 0.3

    def push(self, acceleration: Tensor) -> Tensor:
        """The action that gives ``acceleration`` [B, 2] m/s^2, as far as strength allows."""
        return unit_disc(acceleration / self.strength)


Rule = Callable[..., Choice]  # (wrestler, memory, noise, **options)


# Those that know the tilt


def _stand(me: _Wrestler, memory: Tensor, noise: Tensor, part: float = 1.0) -> Choice:
    return me.push(part * me.against), memory


def _bulldoze(me: _Wrestler, memory: Tensor, noise: Tensor, speed: float = 0.9) -> Choice:
    # Walks in a circle until it feels the other; the direction at the start is drawn.
    drawn = torch.where((me.step == 0).unsqueeze(1), noise, memory)
    walk = me.against + speed * polar(2 * math.pi * drawn[:, 0] + 0.15 * me.step.to(drawn.dtype))
    around = me.against + me.aside - 0.5 * me.ahead * (me.apart < 0.1)
    fight = torch.where(me.other_below, me.strength * me.ahead, around)
    return me.push(torch.where(me.felt, fight, walk)), drawn


def _counter(me: _Wrestler, memory: Tensor, noise: Tensor, reach: float = 0.15, force: float = 2.0) -> Choice:
    return me.push(me.against + force * (me.apart < reach).to(me.ahead) * me.ahead), memory


def _high_ground(me: _Wrestler, memory: Tensor, noise: Tensor, above: float = 0.6) -> Choice:
    # Keeps straight above the other, a hand's breadth away, and lets go of it when it falls.
    along = dot(me.ahead, me.down)
    across = me.ahead - along * me.down
    return me.push(me.against + 2.0 * across + 1.5 * (along - above) * me.felt * me.down), memory


def _matador(me: _Wrestler, memory: Tensor, noise: Tensor, force: float = 2.0) -> Choice:
    return me.push(me.against + force * me.aside), memory


def _sway(me: _Wrestler, memory: Tensor, noise: Tensor, period: float = 20) -> Choice:
    # To and fro across the slope, wherever the other is.
    swing = sign((me.step + period / 4) % period < period / 2, me.down).unsqueeze(1)
    return me.push(me.against + swing * left_of(me.down)), memory


# Those that don't


def _charge(me: _Wrestler, memory: Tensor, noise: Tensor, force: float = 1.0) -> Choice:
    return me.push(force * me.strength * me.ahead), memory


def _drunk(me: _Wrestler, memory: Tensor, noise: Tensor, period: float = 8) -> Choice:
    drawn = torch.where((me.step % period == 0).unsqueeze(1), noise, memory)
    return polar(2 * math.pi * drawn[:, 0]), drawn


def _shadow(me: _Wrestler, memory: Tensor, noise: Tensor, gain: float = 8.0) -> Choice:
    # Copies the other's movement: if the other knows how to stand, it stands.
    return me.push(gain * me.lag), memory


def _gambler(me: _Wrestler, memory: Tensor, noise: Tensor, force: float = 1.3) -> Choice:
    # Guesses where up is, once for each episode, and stands against that.
    angle = torch.where((me.step == 0).unsqueeze(1), 2 * math.pi * noise, memory)
    return me.push(force * polar(angle[:, 0])), angle


def _retreat(me: _Wrestler, memory: Tensor, noise: Tensor, force: float = 1.0) -> Choice:
    return me.push(-force * me.strength * me.ahead), memory


def _orbit(me: _Wrestler, memory: Tensor, noise: Tensor, gap: float = 0.1) -> Choice:
    # Circles around the other; until it feels it, around nothing.
    around = left_of(me.ahead) + 3.0 * (me.apart - gap) * me.ahead
    walk = polar(0.25 * me.step.to(around.dtype))
    return me.push(me.strength * torch.where(me.felt, around, walk)), memory


def _seated(rule: Rule, view: View, memory: Tensor, noise: Tensor, **options: float) -> Choice:
    return rule(_Wrestler(view), memory, noise, **options)


def _wrestlers(
    name: str,
    split: Split,
    description: str,
    rule: Rule,
    memory: int = 0,
    noise: int = 0,
    informed: bool = False,
    options: tuple[Option, ...] = (),
) -> list[Scripted]:
    """One for each seat."""
    return [
        Scripted(
            name,
            role,
            split,
            description,
            partial(_seated, rule),
            memory,
            noise,
            informed,
            options,
            setup=partial(_known, role),
        )
        for role in ROLES
    ]


PLAYERS = (
    *_wrestlers(
        "stand",
        "train",
        "knows the tilt and stands against it, whatever happens",
        _stand,
        informed=True,
        options=(Option("part", 1.0, 0.7, 1.0, "share of the tilt that it stands against"),),
    ),
    *_wrestlers(
        "bulldoze",
        "train",
        "knows the tilt; looks for the other, gets above it and pushes it down",
        _bulldoze,
        memory=1,
        noise=1,
        informed=True,
        options=(Option("speed", 0.9, 0.5, 1.5, "m/s^2: how it walks"),),
    ),
    *_wrestlers(
        "counter",
        "train",
        "knows the tilt; pushes the other when it comes near",
        _counter,
        informed=True,
        options=(
            Option("reach", 0.15, 0.05, 0.3, "m at which it pushes"),
            Option("force", 2.0, 1.0, 3.0, "m/s^2"),
        ),
    ),
    *_wrestlers(
        "charge",
        "train",
        "pushes at the other when it feels it, blind to the tilt",
        _charge,
        options=(Option("force", 1.0, 0.4, 1.0, "share of its strength"),),
    ),
    *_wrestlers(
        "drunk",
        "train",
        "runs in a new random direction every eight steps",
        _drunk,
        memory=1,
        noise=1,
        options=(Option("period", 8, 3, 20, "steps in one direction", integer=True),),
    ),
    *_wrestlers(
        "shadow",
        "train",
        "moves as the other moves, blind to the tilt",
        _shadow,
        options=(Option("gain", 8.0, 3.0, 12.0, "1/s: how hard it follows"),),
    ),
    *_wrestlers(
        "high_ground",
        "held_out",
        "knows the tilt; keeps straight above the other",
        _high_ground,
        informed=True,
        options=(Option("above", 0.6, 0.3, 0.8, "cosine of the angle to straight above at which it holds its ground"),),
    ),
    *_wrestlers(
        "matador",
        "held_out",
        "knows the tilt; steps aside, up the slope",
        _matador,
        informed=True,
        options=(Option("force", 2.0, 1.0, 3.0, "m/s^2"),),
    ),
    *_wrestlers(
        "sway",
        "held_out",
        "knows the tilt; sways across the slope",
        _sway,
        informed=True,
        options=(Option("period", 20, 8, 40, "steps to and fro", integer=True),),
    ),
    *_wrestlers(
        "gambler",
        "held_out",
        "guesses the tilt once for each episode",
        _gambler,
        memory=1,
        noise=1,
        options=(Option("force", 1.3, 0.8, 2.0, "m/s^2"),),
    ),
    *_wrestlers(
        "retreat",
        "held_out",
        "runs from the other when it feels it, blind to the tilt",
        _retreat,
        options=(Option("force", 1.0, 0.4, 1.0, "share of its strength"),),
    ),
    *_wrestlers(
        "orbit",
        "held_out",
        "circles around the other when it feels it, blind to the tilt",
        _orbit,
        options=(Option("gap", 0.1, 0.0, 0.3, "m that it keeps"),),
    ),
)
