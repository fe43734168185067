"""Scripted players: rules with numbers of their own, and what impairs any player."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player, View
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import GameSpec, Role, Split


@dataclass(frozen=True)
class Option:
    """A number of a scripted player that its name may set.

    Attributes:
        name: the option's name, a keyword of the player's rule.
        default: where the name does not set it.
        low: the smallest value, and the lower end of what ``sample_opponents`` draws.
        high: the largest.
        description: what it does, with its unit.
        integer: whether only whole numbers make sense.
    """

    name: str
    default: float
    low: float
    high: float
    description: str
    integer: bool = False

    @property
    def range(self) -> str:
        """For people."""
        return f"a {'whole ' if self.integer else ''}number in [{self.low:g}, {self.high:g}]"


NOISE = Option("noise", 0.0, 0.0, 0.5, "chance that a step's action is a random one")
DELAY = Option("delay", 0, 0, 5, "steps by which its actions come late", integer=True)


@dataclass(frozen=True, repr=False)
class Scripted:
    """A player written by hand.

    Attributes:
        name: how a string names it.
        role: whose seat it takes.
        split: ``train`` (may be met in training) or ``held_out``.
        description: what it does, for people.
        rule: ``(view, memory, noise, **options) -> (actions, memory)``, batched; see ``core.Player.act``.
        memory: numbers per row remembered within an episode, zero at its start.
        noise: uniform numbers per row and step.
        setup: ``params -> known``, a NamedTuple of [B, ...] tensors that do not change within an episode: rollouts call it once
            and give the rule what it returns as ``view.known``. None: the rule needs nothing of the kind.
        informed: it reads contexts that its role is not shown, so that it is no yardstick for players that must infer.
        options: numbers that its name may set.
        values: those that it does set.
        spec: its family; None until it is looked up there (``scripted``).
    """

    name: str
    role: Role
    split: Split
    description: str
    rule: Callable[..., tuple[Tensor, Tensor]]
    memory: int = 0
    noise: int = 0
    informed: bool = False
    options: tuple[Option, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    spec: GameSpec | None = None
    setup: Callable[[Any], Any] | None = None

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose; see ``core.Player.act``."""
        if self.setup is not None and view.known is None:
            view = view._replace(known=self.setup(view.params))
        return self.rule(view, memory, noise, **self.values)

    def player_for(self, simulator: Simulator, role: Role) -> Scripted:
        """Itself, in its own role's seat; see ``names.Offering``."""
        own, there = self.spec and self.spec.id, getattr(simulator, "spec", None)
        if own and own != (there and there.id):
            raise InvalidInputError(f"{self.name} plays {own}, not {there.id if there else simulator.name}")
        if role != self.role:
            raise InvalidInputError(f"{self.name} plays the {self.role}, not the {role}")
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copied and pickled by its name in its family: a rule may be a function within another, which can't be."""
        if self.spec is None:
            return super().__reduce_ex__(protocol)
        return _again, (self.spec, self.role, self.name, dict(self.values))

    def __repr__(self) -> str:
        values = ",".join(f"{name}={value:g}" for name, value in self.values.items())
        return f"Scripted({self.name}{f'({values})' if values else ''}, {self.role})"


class Impaired:
    """A player whose actions are now and then random, or come late.

    Args:
        player: the player that acts.
        space: of its actions.
        noise: chance, at every step, of a uniformly random action.
        delay: its actions come as many steps late; until the first one comes, it does nothing (0).
    """

    def __init__(self, player: Player, space: spaces.Box | spaces.Discrete, noise: float, delay: int) -> None:
        self.player, self.space, self.chance, self.delay = player, space, noise, delay
        self._size = 1 if isinstance(space, spaces.Discrete) else space.shape[0]
        self.memory = player.memory + delay * self._size
        self.noise = player.noise + 1 + self._size

    @property
    def setup(self) -> Callable[[Any], Any] | None:
        """Its player's, see ``Scripted``."""
        return setup_of(self.player)

    def player_for(self, simulator: Simulator, role: Role) -> Impaired:
        """Itself, in its player's own seat; see ``names.Offering``."""
        if isinstance(self.player, Scripted):
            self.player.player_for(simulator, role)
        return self

    def __repr__(self) -> str:
        return f"Impaired({self.player!r}, noise={self.chance:g}, delay={self.delay})"

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose; see ``core.Player.act``."""
        own, late = memory[:, : self.player.memory], memory[:, self.player.memory :]
        action, own = self.player.act(view, own, noise[:, : self.player.noise])
        if self.delay:
            queue = torch.cat([late, action.to(memory.dtype)], 1)
            action, late = queue[:, : self._size], queue[:, self._size :]
        slips, numbers = noise[:, self.player.noise] < self.chance, noise[:, self.player.noise + 1 :]
        if isinstance(self.space, spaces.Discrete):
            action = torch.where(slips, (numbers[:, 0] * int(self.space.n)).long(), action)
        else:
            low, high = (
                torch.as_tensor(end, dtype=numbers.dtype, device=numbers.device)
                for end in (self.space.low, self.space.high)
            )
            action = torch.where(slips.unsqueeze(1), low + (high - low) * numbers, action)
        return action, torch.cat([own, late], 1)


def setup_of(player: Player) -> Callable[[Any], Any] | None:
    """How a player works out of params what it knows for an episode, see ``Scripted``; None: it does not."""
    return player.setup if isinstance(player, (Scripted, Impaired)) else None


def _again(spec: GameSpec, role: Role, name: str, values: Mapping[str, float]) -> Scripted:
    return replace(scripted(spec, role)[name], values=values)


def scripted(spec: GameSpec, role: Role) -> dict[str, Scripted]:
    """The family's scripted players for a seat, by name (``PLAYERS`` of ``<package>.opponents``, a tuple or a function
    of the spec for families with several ids).
    """
    players: Any = importlib.import_module(f"{spec.package}.opponents").PLAYERS
    players = players(spec) if callable(players) else players
    return {p.name: replace(p, spec=spec) for p in players if p.role == role}


def options_of(spec: GameSpec, player: Scripted) -> tuple[Option, ...]:
    """Everything that a scripted player's name may set."""
    own_space = spec.action_spaces[player.role]
    late = () if isinstance(own_space, spaces.Discrete) else (DELAY,)
    return (*player.options, NOISE, *late)
