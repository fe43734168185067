"""Golden transitions: steps of a game that were worked out by hand, as a family's ``cases.py`` holds them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Golden(NamedTuple):
    """One transition. ``CASES`` of a ``cases.py`` that are all of this type are replayed by ``metaduel.envs.check_game``."""

    why: str
    task: Mapping[str, float]  # contexts; those left out take their defaults
    state: Mapping[str, Any]  # fields of State before; those left out are as ``init`` makes them of noise 0
    actions: tuple[Any, Any]  # (protagonist's, adversary's): a number where discrete, else a sequence of numbers
    after: Mapping[str, Any]  # fields of State after; those left out are not looked at
    reward: tuple[float, float]  # (protagonist's, adversary's)
    terminated: bool = False
    noise: tuple[float, ...] = ()  # the step's uniforms; 0 each by default
