"""Which families there are. Imports no torch.

First come the packages in ``envs/`` that have ``SPECS``; then what installed packages declare as entry points of the group
``metaduel.games`` (``chase = "chase_game:SPECS"``: a spec, or an iterable of specs); then what ``register`` is given.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from metaduel.envs.core import registration
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.spec import OPPONENT_SPLITS, GameSpec
from metaduel.envs.core.validation import check_spec

GROUP = "metaduel.games"

_registered: dict[str, GameSpec] = {}
_used: dict[str, GameSpec] = {}  # trained on or loaded without being registered
_failed: list[str] = []  # entry points that brought no family, and why


@lru_cache(maxsize=1)
def builtin() -> dict[str, GameSpec]:
    """The families of this package by name, in alphabetical order."""
    found: dict[str, GameSpec] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parents[1])]):
        if module.ispkg:
            package = importlib.import_module(f"metaduel.envs.{module.name}")
            for spec in getattr(package, "SPECS", ()):
                found[spec.name] = spec
    return dict(sorted(found.items()))


def specs() -> dict[str, GameSpec]:
    """All registered families by name, in alphabetical order."""
    _discover()
    return dict(sorted(_registered.items()))


def register(spec: GameSpec) -> None:
    """Register a family: here, with Gymnasium and with PettingZoo, under its name and id.

    The same spec may be registered again, which changes nothing. An installed package needs no call: it declares an entry
    point of the group ``metaduel.games``. Imports no torch.

    Raises:
        InvalidInputError: a spec that cannot work (see ``validation.check_spec``), or the name or id of another family, in
            which case the message names both packages; nothing was registered.
    """
    _discover()
    _register(spec)


def _register(spec: GameSpec) -> None:
    check_spec(spec)
    _refuse_another(spec, (*_registered.values(), *_used.values()))
    if spec.name not in _registered:
        if registration.taken(spec):
            raise InvalidInputError(
                f"id={spec.id!r} is taken in Gymnasium's registry: give spec a namespace of its own"
            )
        _add(_used.pop(spec.name, spec))


def _add(spec: GameSpec) -> None:
    registration.in_gymnasium(spec)
    registration.in_pettingzoo(spec)
    _registered[spec.name] = spec


def use(spec: GameSpec) -> GameSpec:
    """Make a family known to ``find`` by its name, without registering it: run folders record families by name.

    Raises:
        InvalidInputError: a spec that cannot work, or its name or id is another family's.
    """
    _discover()
    check_spec(spec)
    _refuse_another(spec, (*_registered.values(), *_used.values()))
    return _registered.get(spec.name) or _used.setdefault(spec.name, spec)


def _refuse_another(spec: GameSpec, known: Iterable[GameSpec]) -> None:
    for one in known:
        shared = "name" if spec.name == one.name else "id" if spec.id == one.id else ""
        if shared and not _same(spec, one):
            raise InvalidInputError(
                f"{shared}={getattr(spec, shared)!r} of package {spec.package} is that of another family, of package "
                f"{one.package}: give each a name of its own, for example dataclasses.replace(spec, name=...)"
            )


def _same(spec: GameSpec, other: GameSpec) -> bool:
    """Whether two specs say the same: a module that is loaded again makes new ones."""
    return spec is other or all(getattr(spec, f.name) == getattr(other, f.name) for f in fields(GameSpec))


def _discover() -> None:
    """Find the families of this package and of installed ones, once."""
    for spec in builtin().values():
        if spec.name not in _registered:
            _add(spec)
    waiting, later = _entry_points(), []
    while waiting:
        entry = waiting.pop(0)  # before it is loaded: what it loads may ask for families, too
        if _being_imported(entry.module):
            later.append(entry)  # it imports us, and has no specs yet
        else:
            _load(entry)
    waiting += later


@lru_cache(maxsize=1)
def _entry_points() -> list[EntryPoint]:
    """Those that are yet to be loaded."""
    return sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))


def _being_imported(module: str) -> bool:
    parts = module.split(".")
    loaded = (sys.modules.get(".".join(parts[: n + 1])) for n in range(len(parts)))
    return any(getattr(getattr(one, "__spec__", None), "_initializing", False) for one in loaded)


def _load(entry: EntryPoint) -> None:
    try:
        found = entry.load()
        for spec in (found,) if isinstance(found, GameSpec) else tuple(found):
            _register(spec)
    except Exception as error:  # whatever a package may raise: ours works without it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _failed.append(f"{entry.name} ({entry.value}): {reason}")
        warnings.warn(f"entry point {entry.name!r} of {GROUP} brought no family: {entry.value}: {reason}", stacklevel=2)


def families(chosen: dict[str, GameSpec] | None = None) -> dict[str, list[GameSpec]]:
    """The ids of every package, by its name; of all registered families, or of those ``chosen``."""
    result: dict[str, list[GameSpec]] = {}
    for spec in (specs() if chosen is None else chosen).values():
        result.setdefault(spec.package, []).append(spec)
    return result


def find(game: str | GameSpec) -> GameSpec:
    """The spec of a family, by its name (``Pursuit``) or id (``metaduel/Pursuit-v0``); a spec is returned as it is.

    Raises:
        InvalidInputError: no such family; the message names the nearest one, and packages whose families failed to load.
    """
    if isinstance(game, GameSpec):
        return game
    known = specs()
    for spec in (*known.values(), *_used.values()):
        if game in (spec.name, spec.id):
            return spec
    error = unknown("game", game, [spec.id for spec in known.values()] if "/" in str(game) else known)
    raise InvalidInputError("; ".join((str(error), *(f"failed to load: {one}" for one in _failed))))


def games() -> tuple[str, ...]:
    """Names of all families."""
    return tuple(specs())


def opponents(game: str | GameSpec, role: str = "adversary", split: str = "train") -> tuple[str, ...]:
    """Names of a family's scripted players.

    Args:
        game: the family's name, id or spec.
        role: whose seat they take.
        split: ``train`` (may be met in training) or ``held_out``.

    Raises:
        InvalidInputError: an unknown game, role or split.
    """
    spec = find(game)
    if split not in OPPONENT_SPLITS:
        raise unknown("opponent split", split, OPPONENT_SPLITS)
    return spec.opponents[spec.check_role(role)][split]  # type: ignore[index]
