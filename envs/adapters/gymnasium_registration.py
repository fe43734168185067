"""Put a family into Gymnasium's registry. Imports no torch: entry points are strings."""

from __future__ import annotations

import gymnasium

from metaduel.envs.core.spec import GameSpec

_ENTRY = "metaduel.envs.adapters.gymnasium:SeatEnv"


def taken(spec: GameSpec) -> bool:
    """Whether something else than a family of this name has the id."""
    known = gymnasium.registry.get(spec.id)
    return known is not None and (known.entry_point, known.kwargs.get("game")) != (_ENTRY, spec.name)


def register(spec: GameSpec) -> None:
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
