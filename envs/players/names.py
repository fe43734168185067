"""How a string, a path or an object becomes a player.

``lead`` is a scripted player of the family, ``lead(horizon=0.6,noise=0.1)`` the same controller with other numbers,
``run:FOLDER`` an agent trained here, ``sb3:FILE`` a model trained with Stable-Baselines3. So a family's scripted players
are a space of controllers, in which each name stands for the point of its defaults:

    opponent = [GAME ":"] NAME ["(" OPTION "=" NUMBER {"," OPTION "=" NUMBER} ")"]

Every player has the option ``noise``, and every player with continuous actions ``delay``; the others are its own.

Instead of a string, ``load_player`` takes a path (a run's folder, a saved agent's, or a model's .zip file), a player of the core,
anything with Stable-Baselines3's ``predict``, and objects that make their player themselves (``Offering``), such as runs and
agents. An object is played live: as it is at each step, so that a model that is still training changes under its opponent
(``metaduel.agents.freeze`` gives a copy that does not). An object and the string that names it play the same actions.
"""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from metaduel.envs.core import registry
from metaduel.envs.core.arguments import as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, one_line, unknown
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import ROLES, GameSpec, Role, other
from metaduel.envs.players.scripted import DELAY, NOISE, Impaired, Scripted, options_of, scripted

# Functions (duel, role, rest of the string) -> Player by prefix, and (simulator, role, object with predict) -> Player.
# As strings, because envs imports nothing of ours.
LOADERS: dict[str, str] = {"run": "metaduel.meta.runs.load:load_player", "sb3": "metaduel.agents.sb3:load_player"}
PREDICTING = "metaduel.agents.sb3:model_player"

GRAMMAR = "NAME, or NAME(OPTION=NUMBER,...) such as"
_KINDS = (
    "a scripted player's name, run:FOLDER, sb3:FILE, a path, an Agent, a Run, a model with predict (as Stable-Baselines3's "
    "have), or a player of the core (act, memory, noise)"
)


class Offering(Protocol):
    """An object that makes the player for a seat, such as an agent or a run."""

    def player_for(self, simulator: Simulator, role: Role) -> Player:
        """Its player for ``role``'s seat.

        Raises:
            InvalidInputError: it was made for another game or seat.
        """
        ...


def names(spec: GameSpec, role: str, split: str) -> tuple[str, ...]:
    """Names of the scripted opponents that take ``role``'s seat, of one split."""
    return registry.opponents(spec, role, split)


def load_player(duel: Simulator, role: Role, given: Any) -> Player:
    """Make the player for ``role``'s seat that is given as a string, a path or an object; see the module.

    Raises:
        InvalidInputError: no such scripted player or option, a value out of range, no such prefix or file, an object that is no
            player, or one that was made for another family, seat or spaces.
    """
    if role not in ROLES:
        raise unknown("role", role, ROLES)
    if isinstance(given, (str, os.PathLike)):
        return _from_text(duel, role, _path_name(given) if isinstance(given, os.PathLike) else given)
    if not is_player(given):
        raise InvalidInputError(f"opponent={_word(given)} must be a player: {_KINDS}")
    player: Player
    if callable(getattr(given, "player_for", None)):
        player = given.player_for(duel, role)
    elif _is_core(given):
        player = given
    else:
        player = _imported(PREDICTING)(duel, role, given)
    return player


def is_player(given: Any) -> bool:
    """Whether ``load_player`` takes an object: whether it offers a player, is one of the core, or has ``predict``."""
    if isinstance(given, type):
        return False
    return callable(getattr(given, "player_for", None)) or _is_core(given) or callable(getattr(given, "predict", None))


def player_name(item: Any) -> str:
    """The short name, for infos, tables and legends, of what ``load_player`` takes: ``guard``, ``run:FOLDER``, ``PPO``,
    ``agent (adversary)``.
    """
    if isinstance(item, str):
        return item
    if isinstance(item, os.PathLike):
        return _path_name(item)
    name = getattr(item, "name", None)
    return name if isinstance(name, str) and name else type(item).__name__


def check_name(spec: GameSpec, role: Role, name: str) -> None:
    """Raise what ``load_player`` would for a scripted player's name; files behind a prefix are not looked at."""
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"opponent={_word(name)} must be a string: a scripted name, run:FOLDER or sb3:FILE")
    if name.partition(":")[0] not in LOADERS or ":" not in name:
        _scripted_player(spec, role, name)


def _is_core(given: Any) -> bool:
    return callable(getattr(given, "act", None)) and hasattr(given, "memory") and hasattr(given, "noise")


def _path_name(path: os.PathLike[Any]) -> str:
    """The string that names what is at a path."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InvalidInputError(f"opponent={path!r} must be a path of text")
    return f"run:{text}" if as_path(text).is_dir() else f"sb3:{text}"


def _from_text(duel: Simulator, role: Role, text: str) -> Player:
    if not isinstance(duel, Duel):
        raise InvalidInputError(f"opponent={text!r}: {duel.name} has no players with names: give an object")
    if not text:
        raise InvalidInputError(f"opponent={text!r} must be a string: a scripted name, run:FOLDER or sb3:FILE")
    prefix, colon, rest = text.partition(":")
    if colon and prefix in LOADERS:
        player: Player = _imported(LOADERS[prefix])(duel, role, rest)
        return player
    return _scripted_player(duel.spec, role, text)


def _imported(place: str) -> Any:
    module, function = place.split(":")
    return getattr(importlib.import_module(module), function)


def _word(given: Any) -> str:
    if isinstance(given, type):
        return f"{given.__name__} (a class)"
    plain = isinstance(given, (int, float, bytes, list, tuple, dict)) or given is None
    return one_line(repr(given), 60) if plain else f"{type(given).__name__} object"


def _scripted_player(spec: GameSpec, role: Role, text: str) -> Player:
    prefix, colon, _ = text.partition(":")
    start = len(prefix) + 1 if colon and prefix.lower() == spec.name.lower() else 0
    name = text[start:].partition("(")[0].strip()
    known = scripted(spec, role)
    if name not in known and name in scripted(spec, other(role)):
        raise InvalidInputError(f"opponent={text!r} plays the {other(role)}; this is the {role}'s seat of {spec.name}")
    if name not in known and (path := as_path(text)).exists():
        raise InvalidInputError(f"opponent={text!r} is a path: write {_path_name(path)}")
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
