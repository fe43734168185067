"""Recommended settings of a method on a family, shipped in ``recommended.yaml``; `metaduel tune` finds such ones.

A new version of a family has none until it is searched again: its numbers are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import GameSpec
from metaduel.meta.runs.config import TrainConfig

PATH = Path(__file__).with_name("recommended.yaml")
_HEADING = "# Settings by family and method: {family: {method: {setting: value}}}. see docs/results/tuning.md.\n"


def recommended(game: str | GameSpec, method: str) -> dict[str, Any]:
    """The settings that are recommended for a method on a family, by name; empty: none beside the defaults.

    Args:
        game: the family.
        method: see ``metaduel.meta.learners.methods.METHODS``.
    """
    return dict(_read(PATH).get(find(game).id, {}).get(method, {}))


def advised(game: str | GameSpec, method: str) -> TrainConfig:
    """The settings of a run of a method on a family: the recommended ones, and defaults for the rest."""
    return TrainConfig(game=find(game).name).override(method=method).override(**recommended(game, method))


def starting(game: str | GameSpec, method: str, given: Mapping[str, Any]) -> TrainConfig:
    """``advised``, with the settings that were ``given`` over them. What is recommended for the usual networks is left out where
    others are given.

    Raises:
        InvalidInputError: settings that cannot work; where only recommended ones stand in the way, these are named.
    """
    others = {name: value for name, value in recommended(game, method).items() if name not in given}
    if "hidden" in given or given.get("network", "mlp") != "mlp":
        others.pop("context", None)
    plain = TrainConfig(game=find(game).name).override(method=method)
    try:
        return plain.override(**others).override(**given)
    except InvalidInputError as error:
        if others:
            plain.override(**given)  # refuses what is wrong without them
            names = ", ".join(f"{name}={value!r}" for name, value in others.items())
            raise InvalidInputError(
                f"{error} (recommended for {method} on {find(game).name}, unless set: {names})"
            ) from None
        raise


def recommend(path: AnyPath, game: str | GameSpec, method: str, settings: Mapping[str, Any]) -> None:
    """Write a method's settings on a family into a file like ``recommended.yaml``, which is made if there is none."""
    target = as_path(path, "path")
    known = _read(target) if target.exists() else {}
    own = {**known.get(find(game).id, {}), method: dict(settings)}
    table = {**known, find(game).id: dict(sorted(own.items()))}
    text = yaml.safe_dump(dict(sorted(table.items())), sort_keys=False, default_flow_style=None, width=120)
    write_atomic(target, (_HEADING + text).encode())
    _read.cache_clear()


@cache
def _read(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
