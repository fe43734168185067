"""What a family's spec must be before it is registered. Imports no torch."""

from __future__ import annotations

import importlib.resources
import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, Context, GameSpec

_NAME, _NAMESPACE, _PLAYER = re.compile(r"[A-Za-z]\w*", re.ASCII), re.compile(r"[\w-]+", re.ASCII), re.compile(r"\w+")
_MODULES = ("game", "opponents")


def check_spec(spec: GameSpec) -> None:
    """Check everything of a spec that can be checked without its code: names, contexts, spaces, opponents, files.

    The package is imported, but no module of it. Whether the frozen lists match their hashes is looked at when they are
    first used.

    Raises:
        InvalidInputError: what is wrong, in one line that names the family, the field and what is right.
    """
    if not isinstance(spec, GameSpec):
        raise InvalidInputError(f"spec={spec!r} must be a GameSpec")
    problem = next(_problems(spec), None)
    if problem is not None:
        raise InvalidInputError(f"{spec.name}: {problem}".replace("\n", " "))


def _problems(spec: GameSpec) -> Iterator[str]:
    if not _matches(_NAME, spec.name):
        yield f"name={spec.name!r} must be letters, digits and underscores, a letter first"
    if not _matches(_NAMESPACE, spec.namespace):
        yield f"namespace={spec.namespace!r} must be letters, digits, underscores and hyphens"
    for field, least in (("version", 0), ("horizon", 1), ("fps", 1)):
        value = getattr(spec, field)
        if type(value) is not int or value < least:
            yield f"{field}={value!r} must be a whole number of at least {least}"
    for role in ROLES:
        yield from _spaces(spec, role)
    yield from _contexts(spec)
    for role in ROLES:
        yield from _opponents(spec, role)
    yield from _files(spec)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _spaces(spec: GameSpec, role: str) -> Iterator[str]:
    seen, own = _of(spec.observation_spaces, role), _of(spec.action_spaces, role)
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 1 or seen.dtype != np.float32:
        yield f"observation_spaces[{role!r}]={seen} must be a Box of shape (d,) and float32"
    if isinstance(own, spaces.Discrete):
        if own.start != 0:
            yield f"action_spaces[{role!r}]={own} must start at 0"
        if spec.turn_based and len(spec.action_names) != own.n:
            yield f"action_names={spec.action_names!r} must name the {own.n} actions of a turn-based game"
    elif spec.turn_based:
        yield f"action_spaces[{role!r}]={own} must be Discrete in a turn-based game"
    elif not isinstance(own, spaces.Box) or len(own.shape) != 1 or own.dtype != np.float32 or not own.is_bounded():
        yield f"action_spaces[{role!r}]={own} must be Discrete, or a bounded Box of shape (d,) and float32"


def _contexts(spec: GameSpec) -> Iterator[str]:
    if not isinstance(spec.contexts, tuple) or not all(isinstance(one, Context) for one in spec.contexts):
        yield f"contexts={spec.contexts!r} must be a tuple of Contexts"
    names = [one.name for one in spec.contexts]
    for name in names:
        if not _matches(_NAME, name):
            yield f"context name {name!r} must be letters, digits and underscores, a letter first: a field of Params"
        if names.count(name) > 1:
            yield f"context {name} is there {names.count(name)} times; every name must be unique"
    for one in spec.contexts:
        low, high = one.bounds
        for field, ranges in (
            ("train", (one.train,)),
            ("extrapolation", one.extrapolation),
            ("default", ((one.default,) * 2,)),
        ):
            for start, end in ranges:
                if not (low <= start <= end <= high and np.isfinite([start, end]).all()):
                    shown = f"{start:g}" if field == "default" else f"({start:g}, {end:g})"
                    yield f"context {one.name}: {field}={shown} must be finite, in order and within bounds=({low:g}, {high:g})"
        if any(role not in ROLES for role in one.visible_to):
            yield f"context {one.name}: visible_to={one.visible_to!r} must be roles: {', '.join(ROLES)}"
        if one.shown_as not in ("number", "angle", "category") or (one.shown_as == "category" and not one.integer):
            yield f"context {one.name}: shown_as={one.shown_as!r} must be number, angle, or category where integer=True"
    first = next((one for one in spec.contexts if not one.integer), None)
    if first is None:
        yield "contexts: at least one must be continuous (integer=False): it keeps the splits apart"
    elif first.train[0] == first.train[1]:
        yield f"context {first.name}: train={first.train} must have a width: the first continuous one keeps the splits apart"


def _opponents(spec: GameSpec, role: str) -> Iterator[str]:
    seen: set[str] = set()
    for split in OPPONENT_SPLITS:
        named = _of(_of(spec.opponents, role), split)
        if not isinstance(named, tuple) or not named or not all(_matches(_PLAYER, name) for name in named):
            yield f"opponents[{role!r}][{split!r}]={named!r} must be a tuple of at least one scripted player's name"
        if seen & set(named) or len(set(named)) != len(named):
            yield f"opponents[{role!r}]: every name must be there once, in one of the splits {', '.join(OPPONENT_SPLITS)}"
        seen |= set(named)


def _of(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, Mapping) else None


def _files(spec: GameSpec) -> Iterator[str]:
    if not isinstance(spec.package, str) or not all(part.isidentifier() for part in spec.package.split(".")):
        yield f"package={spec.package!r} must be the name of a package, such as 'chase_game'"
    try:
        missing = [name for name in _MODULES if importlib.util.find_spec(f"{spec.package}.{name}") is None]
    except Exception as error:  # whatever a package may raise while it is imported
        yield f"package={spec.package!r} cannot be imported as a package ({type(error).__name__}: {error})"
        return
    for name in missing:
        yield f"package={spec.package!r} must have a module {name}.py"
    file = spec.frozen_file
    if not isinstance(file, str) or not file.endswith(".json") or "/" in file or "\\" in file:
        yield f"task_file={file!r} must be the name of a .json file"
    if not (importlib.resources.files(spec.package) / "tasks" / file).is_file():
        yield f"{spec.package}/tasks/{file} is missing: write metaduel.envs.core.tasks.frozen_json(spec) there, once"
