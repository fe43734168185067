"""How a string becomes a player.

``lead`` is a scripted player of the family, ``lead(horizon=0.6,noise=0.1)`` the same controller with other numbers,
``run:FOLDER`` an agent trained here, ``sb3:FILE`` a model trained with Stable-Baselines3. So a family's scripted players
are a space of controllers, in which each name stands for the point of its defaults:

    opponent = [GAME ":"] NAME ["(" OPTION "=" NUMBER {"," OPTION "=" NUMBER} ")"]

Every player has the option ``noise``, and every player with continuous actions ``delay``; the others are its own.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from typing import NoReturn

from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.game import Player
from metaduel.envs.core.spec import GameSpec, Role
from metaduel.envs.players.scripted import DELAY, NOISE, Impaired, Scripted, options_of, scripted

# Prefix -> function (duel, role, rest of the string) -> Player. As strings, because envs imports nothing of ours.
LOADERS: dict[str, str] = {"run": "metaduel.meta.runs.load:load_player", "sb3": "metaduel.agents.sb3:load_player"}


GRAMMAR = "NAME, or NAME(OPTION=NUMBER,...) such as"


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
