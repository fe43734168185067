"""How a string becomes a player.

``lead`` is a scripted player of the family, ``lead(horizon=0.6,noise=0.1)`` the same controller with other numbers,
``run:FOLDER`` an agent trained here, ``sb3:FILE`` a model trained with Stable-Baselines3. So a family's scripted players
are a space of controllers, in which each name stands for the point of its defaults:

    opponent = [GAME ":"] NAME ["(" OPTION "=" NUMBER {"," OPTION "=" NUMBER} ")"]

Every player has the option ``noise``, and every player with continuous actions ``delay``; the others are its own.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs import noise as counter
from metaduel.envs import registry
from metaduel.envs.core import Duel, Player, View
from metaduel.envs.errors import InvalidInputError, unknown
from metaduel.envs.spec import OPPONENT_SPLITS, ROLES, GameSpec, Role, Split

# Prefix -> function (duel, role, rest of the string) -> Player. As strings, because envs imports nothing of ours.
LOADERS: dict[str, str] = {"run": "metaduel.meta.agent:load_player", "sb3": "metaduel.agents.sb3:load_player"}


GRAMMAR = "NAME, or NAME(OPTION=NUMBER,...) such as"


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


@dataclass(frozen=True)
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
        informed: it reads contexts that its role is not shown, so that it is no yardstick for players that must infer.
        options: numbers that its name may set.
        values: those that it does set.
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

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose; see ``core.Player.act``."""
        return self.rule(view, memory, noise, **self.values)


class Impaired:
    """A player whose actions are now and then random, or come late.

    Args:
        player: who plays.
        space: of its actions.
        noise: chance, at every step, of a uniformly random action.
        delay: its actions come as many steps late; until the first one comes, it does nothing (0).
    """

    def __init__(self, player: Player, space: spaces.Box | spaces.Discrete, noise: float, delay: int) -> None:
        self.player, self.space, self.chance, self.delay = player, space, noise, delay
        self._size = 1 if isinstance(space, spaces.Discrete) else space.shape[0]
        self.memory = player.memory + delay * self._size
        self.noise = player.noise + 1 + self._size

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
            low, high = torch.as_tensor(self.space.low), torch.as_tensor(self.space.high)
            action = torch.where(slips.unsqueeze(1), low + (high - low) * numbers, action)
        return action, torch.cat([own, late], 1)


def scripted(spec: GameSpec, role: Role) -> dict[str, Scripted]:
    """The family's scripted players for a seat, by name (``PLAYERS`` of ``<package>.opponents``, a tuple or a function
    of the spec for families with several ids).
    """
    players: Any = importlib.import_module(f"{spec.package}.opponents").PLAYERS
    players = players(spec) if callable(players) else players
    return {p.name: p for p in players if p.role == role}


def names(spec: GameSpec, role: str, split: str) -> tuple[str, ...]:
    """Names of the scripted opponents that take ``role``'s seat, of one split."""
    return registry.opponents(spec, role, split)


def load_player(duel: Duel, role: Role, name: str) -> Player:
    """Make the player that ``name`` names, for ``role``'s seat; see the module for how names are written.

    Raises:
        InvalidInputError: no such scripted player or option, a value out of range, no such prefix, or a file whose spaces
            don't match the seat.
    """
    seat = duel.spec.check_role(role)
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"opponent={name!r} must be a string: a scripted name, run:FOLDER or sb3:FILE")
    prefix, colon, rest = name.partition(":")
    if colon and prefix in LOADERS:
        module, function = LOADERS[prefix].split(":")
        player: Player = getattr(importlib.import_module(module), function)(duel, seat, rest)
        return player
    return _scripted_player(duel.spec, seat, name)


def check_name(spec: GameSpec, role: Role, name: str) -> None:
    """Raise what ``load_player`` would for a scripted player's name; files behind a prefix are not looked at."""
    if name.partition(":")[0] not in LOADERS or ":" not in name:
        _scripted_player(spec, role, name)


def options_of(spec: GameSpec, player: Scripted) -> tuple[Option, ...]:
    """Everything that a scripted player's name may set."""
    own_space = spec.action_spaces[player.role]
    late = () if isinstance(own_space, spaces.Discrete) else (DELAY,)
    return (*player.options, NOISE, *late)


def _scripted_player(spec: GameSpec, role: Role, text: str) -> Player:
    prefix, colon, _ = text.partition(":")
    start = len(prefix) + 1 if colon and prefix.lower() == spec.name.lower() else 0
    name = text[start:].partition("(")[0].strip()
    known = scripted(spec, role)
    if name not in known:
        raise unknown(f"opponent for the {role}'s seat of {spec.name}", name if start else text, known)
    player = known[name]
    values = _read_options(text, start + text[start:].find(name) + len(name), spec, player)
    impaired = {option.name: values.pop(option.name, option.default) for option in (NOISE, DELAY)}
    if values:
        player = replace(player, values=values)
    if any(impaired.values()):
        return Impaired(player, spec.action_spaces[role], impaired["noise"], int(impaired["delay"]))
    return player


_PAIR = re.compile(r"\s*(\w+)\s*=\s*([-+.\w]+)\s*")


def _read_options(text: str, at: int, spec: GameSpec, player: Scripted) -> dict[str, float]:
    """The options in ``text`` from the character ``at`` on, behind the player's name."""
    known = {option.name: option for option in options_of(spec, player)}

    def refuse(where: int, why: str) -> NoReturn:
        listed = ", ".join(f"{option.name}: {option.range}" for option in known.values())
        first = next(iter(known.values()))
        raise InvalidInputError(
            f"opponent={text!r}, character {where + 1}: {why}; write {GRAMMAR} "
            f"{player.name}({first.name}={first.high:g}); options of {player.name}: {listed}"
        )

    values: dict[str, float] = {}
    if not text[at:].strip():
        return values
    at += len(text[at:]) - len(text[at:].lstrip())
    if text[at] != "(":
        refuse(at, "'(' expected")
    while True:
        pair = _PAIR.match(text, at + 1)
        if not pair:
            refuse(min(at + 1, len(text)), "OPTION=NUMBER expected")
        option = known.get(pair[1])
        if option is None:
            refuse(pair.start(1), f"no option {pair[1]!r}")
        if option.name in values:
            refuse(pair.start(1), f"{option.name} is set twice")
        try:
            value = float(pair[2])
        except ValueError:
            refuse(pair.start(2), f"{pair[2]!r} is not a number")
        if not option.low <= value <= option.high or (option.integer and value != int(value)):
            refuse(pair.start(2), f"{option.name}={value:g} must be {option.range}")
        values[option.name] = value
        at = pair.end()
        if text[at : at + 1] == ")" and not text[at + 1 :].strip():
            return values
        if text[at : at + 1] != ",":
            refuse(at if text[at : at + 1] != ")" else at + 1, "',' or a ')' at the end expected")


def sample_opponents(
    game: str | GameSpec, n: int, role: str = "adversary", split: str = "train", seed: int = 0
) -> tuple[str, ...]:
    """Draw ``n`` scripted opponents of a family: controllers of one split with random numbers for their options.

    Args:
        game: the family's name, id or spec.
        n: how many.
        role: whose seat they take.
        split: ``train`` or ``held_out``.
        seed: the same seed gives the same opponents, and the first of many are the few.

    Returns:
        Names that ``load_player`` and every environment take, such as ``lead(horizon=0.6,noise=0.12,delay=1)``.

    Raises:
        InvalidInputError: an unknown game, role or split, ``n`` below 1, or a seed that is not a whole number.
    """
    spec = registry.find(game)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InvalidInputError(f"n={n!r} must be a whole number of at least 1 opponent")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidInputError(f"seed={seed!r} must be a whole number")
    listed, known = names(spec, role, split), scripted(spec, spec.check_role(role))
    most = 1 + max(len(options_of(spec, known[name])) for name in listed)
    purpose = (ROLES.index(spec.check_role(role)), OPPONENT_SPLITS.index(split), _SAMPLED)  # type: ignore[arg-type]
    key = counter.episode_key(torch.full((n,), counter.derive_seed(seed, *purpose)), torch.arange(n))
    drawn = counter.uniform(key, torch.zeros_like(key), counter.PICK, most, torch.float64).tolist()
    return tuple(_sampled(spec, known[listed[int(row[0] * len(listed))]], row[1:]) for row in drawn)


_SAMPLED = 1_000_033  # so that opponent i has nothing to do with anything else of the same seed


def _sampled(spec: GameSpec, player: Scripted, drawn: list[float]) -> str:
    parts = []
    for option, u in zip(options_of(spec, player), drawn, strict=False):
        if option is DELAY:
            value = float(math.floor(u * 3))  # later ones hardly play any more
        elif option is NOISE:
            value = 0.3 * u
        elif option.integer:
            value = option.low + math.floor(u * (option.high - option.low + 1))
        else:
            value = option.low + u * (option.high - option.low)
        parts.append(f"{option.name}={float(f'{value:.3g}'):g}")
    return f"{player.name}({','.join(parts)})"
