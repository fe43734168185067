"""PettingZoo's two interfaces of a family: parallel (both choose at once) and AEC (one after the other).

Both seats are the caller's. ``pettingzoo.make("parallel", "metaduel/Navigation-v0")`` and the module style
``from metaduel.envs.navigation import navigation_v0; navigation_v0.parallel_env()`` construct the same class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pettingzoo

from metaduel.envs.adapters.pettingzoo_aec import DuelAECEnv, OrderWrapper, TurnsEnv
from metaduel.envs.adapters.pettingzoo_parallel import DuelParallelEnv, Observation
from metaduel.envs.adapters.pettingzoo_parallel import task_number as task_number
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import GameSpec


def parallel_env(game: str | GameSpec, **kwargs: Any) -> DuelParallelEnv:
    """Make the parallel environment of a family; see ``DuelParallelEnv``."""
    return DuelParallelEnv(game, **kwargs)


def raw_env(game: str | GameSpec, **kwargs: Any) -> DuelAECEnv:
    """Make the AEC environment of a family without the check of the order of calls; see ``DuelAECEnv``."""
    spec, parallel = find(game), parallel_env(game, **kwargs)
    return TurnsEnv(parallel) if spec.turn_based else DuelAECEnv(parallel)


def env(game: str | GameSpec, **kwargs: Any) -> pettingzoo.AECEnv[str, Observation, Any]:
    """Make the AEC environment of a family. Its ``unwrapped`` is the ``DuelAECEnv`` (``set_task`` and so on)."""
    return OrderWrapper(raw_env(game, **kwargs))


def module_style(game: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """``env, parallel_env, raw_env`` of one id, for a family's ``<name>_v0.py``."""
    return (
        functools.partial(env, game),
        functools.partial(parallel_env, game),
        functools.partial(raw_env, game),
    )
