"""Put a family into the registries of Gymnasium and PettingZoo. Imports no torch: entry points are strings."""

from __future__ import annotations

import gymnasium
import pettingzoo
from pettingzoo.env_registry.registration import aec_registry, parallel_registry

from metaduel.envs.core.spec import GameSpec

_ENTRY = "metaduel.envs.adapters.gymnasium:SeatEnv"
_ADAPTER = "metaduel.envs.adapters.pettingzoo"


def taken(spec: GameSpec) -> bool:
    """Whether something else than a family of this name has the id."""
    known = gymnasium.registry.get(spec.id)
    return known is not None and (known.entry_point, known.kwargs.get("game")) != (_ENTRY, spec.name)


def in_gymnasium(spec: GameSpec) -> None:
    """Register the seat of ``spec``, alone and vectorised, under its id; a second call changes nothing.

    ``max_episode_steps`` stays empty: the clock is the game's own, ``horizon`` sets it, and a ``TimeLimit`` around it
    would set ``truncated`` where the rules end an episode at its last step.
    """
    if spec.id not in gymnasium.registry:
        gymnasium.register(
            spec.id,
            entry_point=_ENTRY,
            vector_entry_point="metaduel.envs.adapters.vector:SeatVectorEnv",
            kwargs={"game": spec.name},
        )


def in_pettingzoo(spec: GameSpec) -> None:
    """Register the parallel and the AEC environment of ``spec`` under its id; a second call changes nothing.

    ``max_cycles`` is the registry's own field: it holds the family's horizon and reaches the constructor as a keyword.
    """
    if spec.id not in parallel_registry:
        pettingzoo.register(
            "parallel", spec.id, f"{_ADAPTER}:parallel_env", max_cycles=spec.horizon, kwargs={"game": spec.id}
        )
    if spec.id not in aec_registry:
        pettingzoo.register("aec", spec.id, f"{_ADAPTER}:env", max_cycles=spec.horizon, kwargs={"game": spec.id})
