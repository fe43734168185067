"""Which families there are, by discovery: every package in ``envs/`` that has ``SPECS``. Imports no torch."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

import metaduel.envs
from metaduel.envs.core.errors import unknown
from metaduel.envs.core.spec import OPPONENT_SPLITS, GameSpec


@lru_cache(maxsize=1)
def specs() -> dict[str, GameSpec]:
    """All families by name, in alphabetical order."""
    found: dict[str, GameSpec] = {}
    for module in pkgutil.iter_modules(metaduel.envs.__path__):
        if module.ispkg:
            package = importlib.import_module(f"metaduel.envs.{module.name}")
            for spec in getattr(package, "SPECS", ()):
                found[spec.name] = spec
    return dict(sorted(found.items()))


def families() -> dict[str, list[GameSpec]]:
    """The ids of every family's folder, by its package."""
    result: dict[str, list[GameSpec]] = {}
    for spec in specs().values():
        result.setdefault(spec.package, []).append(spec)
    return result


def find(game: str | GameSpec) -> GameSpec:
    """The spec of a family, by its name (``Pursuit``) or id (``metaduel/Pursuit-v0``)."""
    if isinstance(game, GameSpec):
        return game
    known = specs()
    for spec in known.values():
        if game in (spec.name, spec.id):
            return spec
    raise unknown("game", game, known)


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
