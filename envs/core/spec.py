"""What a family says about itself without importing torch: contexts, spaces, horizon, where its code is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.errors import InvalidInputError, unknown

Role = Literal["protagonist", "adversary"]
ROLES: tuple[Role, Role] = ("protagonist", "adversary")
Split = Literal["train", "validation", "held_out", "extrapolation"]
SPLITS: tuple[Split, ...] = ("train", "validation", "held_out", "extrapolation")
FROZEN_SPLITS: tuple[Split, ...] = ("validation", "held_out", "extrapolation")
OPPONENT_SPLITS: tuple[Split, ...] = ("train", "held_out")
Task = dict[str, float]


@dataclass(frozen=True)
class Context:
    """One named number that varies between tasks.

    Attributes:
        name: the context's name, a field of the family's ``Params``.
        unit: its unit, as written in tables.
        default: the value where a task does not give one.
        train: range ``(low, high)`` of the splits train, validation and held_out.
        description: what it does in the game.
        extrapolation: ranges outside ``train`` for the split extrapolation; empty: drawn from ``train`` there too.
        bounds: the largest range in which the dynamics make sense; values outside are refused. Finite ones bound what is
            shown of it, too.
        visible_to: the roles that see it in their observation; the others must infer it from play.
        integer: whether only whole numbers make sense.
        shown_as: how a player sees it: a ``number``, scaled so that the training range is [-1, 1]; an ``angle`` in
            radians as cosine and sine; a ``category`` (a whole number) as one-hot over its training range.
    """

    name: str
    unit: str
    default: float
    train: tuple[float, float]
    description: str
    extrapolation: tuple[tuple[float, float], ...] = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)
    visible_to: tuple[Role, ...] = ()
    integer: bool = False
    shown_as: Literal["number", "angle", "category"] = "number"

    @property
    def width(self) -> int:
        """How many numbers show it."""
        return {"number": 1, "angle": 2, "category": int(self.train[1] - self.train[0]) + 1}[self.shown_as]

    @property
    def scaling(self) -> tuple[float, float]:
        """Middle and factor of a ``number``: (value - middle) x factor is shown."""
        low, high = self.train
        return (low + high) / 2, 2 / (high - low) if high > low else 1.0

    @property
    def shown_range(self) -> tuple[float, float]:
        """The least and the most of each number that shows it, for every value within ``bounds``."""
        if self.shown_as != "number":
            return (-1.0 if self.shown_as == "angle" else 0.0), 1.0
        middle, factor = self.scaling
        with np.errstate(over="ignore", invalid="ignore"):  # what single precision cannot hold is unbounded
            ends = np.array(self.bounds)
            exact = ((ends - middle) * factor).astype(np.float32)
            # Rounding keeps the order of values, so nothing in between is computed to lie outside what the ends are.
            single = (ends.astype(np.float32) - np.float32(middle)) * np.float32(factor)
            low = np.nextafter(np.minimum(exact, single)[0], np.float32(-np.inf))
            high = np.nextafter(np.maximum(exact, single)[1], np.float32(np.inf))
        return (-math.inf if np.isnan(low) else float(low)), (math.inf if np.isnan(high) else float(high))

    def check(self, value: object, game: str) -> float:
        """Return ``value`` as a float, or raise ``InvalidInputError`` that says what would be right."""
        low, high = self.bounds
        right = f"must be a {'whole' if self.integer else 'finite'} number in [{low:g}, {high:g}] {self.unit}"
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise InvalidInputError(f"{game}: context {self.name}={value!r} {right}, not {type(value).__name__}")
        number = float(value)
        if not math.isfinite(number) or not low <= number <= high or (self.integer and number != int(number)):
            raise InvalidInputError(f"{game}: context {self.name}={number:g} {right}")
        return number


@dataclass(frozen=True, eq=False)
class GameSpec:
    """A family, as the registry knows it.

    Attributes:
        name: the id's stem: ``<namespace>/<name>-v<version>``.
        version: raised whenever rewards, observations, dynamics or splits change.
        summary: one line for lists.
        package: the package that holds the family's code, tasks and measurements, for example ``metaduel.envs.navigation``,
            or ``chase_game`` for a family that is installed apart.
        game_class: the name of the ``Game`` in ``<package>.game``.
        horizon: steps until truncation.
        contexts: the task's numbers, in the order of ``Params``.
        observation_spaces: per role, *without* the contexts that the role sees (see ``observation_space``). No task within the
            contexts' bounds and no action may lead outside within ``horizon``. An infinite bound is allowed, but wrappers that
            rescale observations refuse it.
        action_spaces: per role.
        opponents: per role, per opponent split, the names of scripted players that can take that role's seat.
        zero_sum: whether the two rewards add up to zero at every step.
        options: further keyword arguments of the game class, as plain values.
        fps: steps per second in a window or a video.
        turn_based: whether only one of the two has a choice at each step; the other waits, which is its action 0. Such a
            game says whose turn it is and what is legal (``Game.turn``, ``Game.legal``).
        action_names: what the actions of a Discrete space are called, where people are told of them.
        namespace: the id's first part; families that are installed apart have one of their own.
        task_file: the frozen lists' file in ``<package>/tasks``; ``<name>-v<version>.json`` by default. A variant with the same
            contexts may share another family's.
    """

    name: str
    version: int
    summary: str
    package: str
    game_class: str
    horizon: int
    contexts: tuple[Context, ...]
    observation_spaces: Mapping[Role, spaces.Box]
    action_spaces: Mapping[Role, spaces.Box | spaces.Discrete]
    opponents: Mapping[Role, Mapping[Split, tuple[str, ...]]]
    zero_sum: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    fps: int = 20
    turn_based: bool = False
    action_names: tuple[str, ...] = ()
    namespace: str = "metaduel"
    task_file: str = ""

    @property
    def id(self) -> str:
        """The id in both registries, for example ``metaduel/Navigation-v0``."""
        return f"{self.namespace}/{self.name}-v{self.version}"

    @property
    def frozen_file(self) -> str:
        """Name of the frozen lists' file in ``<package>/tasks``."""
        return self.task_file or f"{self.name}-v{self.version}.json"

    @cached_property
    def context_names(self) -> tuple[str, ...]:
        """Names of the contexts, in order."""
        return tuple(c.name for c in self.contexts)

    def shown(self, role: Role, informed: bool = False) -> tuple[int, ...]:
        """Indices of the contexts that ``role`` sees; an informed player sees them all."""
        return tuple(i for i, c in enumerate(self.contexts) if informed or role in c.visible_to)

    def observation_space(self, role: Role, informed: bool = False) -> spaces.Box:
        """The role's full observation space: the game's part, then the contexts that the role sees: numbers, then
        angles, then categories (see ``Context.shown_as``), each within what its ``bounds`` allow. The same object at every
        call.
        """
        key = (role, informed)
        if key not in self._spaces:
            base = self.observation_spaces[role]
            shown = [self.contexts[index] for index in self.shown(role, informed)]
            shown.sort(key=lambda context: ("number", "angle", "category").index(context.shown_as))
            ranges = [context.shown_range for context in shown for _ in range(context.width)]
            low, high = np.array(ranges, np.float32).reshape(-1, 2).T
            low, high = np.concatenate([base.low, low]), np.concatenate([base.high, high])
            self._spaces[key] = spaces.Box(low, high, dtype=np.float32) if shown else base
        return self._spaces[key]

    @cached_property
    def _spaces(self) -> dict[tuple[Role, bool], spaces.Box]:
        return {}

    def check_role(self, role: str) -> Role:
        """Return ``role`` or raise the error that names the two roles."""
        if role not in ROLES:
            raise unknown("role", role, ROLES)
        return role  # type: ignore[return-value]


def other(role: Role) -> Role:
    """The opponent's role."""
    return ROLES[1 - ROLES.index(role)]
