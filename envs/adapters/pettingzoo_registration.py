"""Put a family into PettingZoo's own registry. Imports no torch: entry points are strings."""

from __future__ import annotations

import pettingzoo
from pettingzoo.env_registry.registration import aec_registry, parallel_registry

from metaduel.envs.core.spec import GameSpec

_ADAPTER = "metaduel.envs.adapters.pettingzoo"


def register(spec: GameSpec) -> None:
    """Register the parallel and the AEC environment of ``spec`` under its id; a second call changes nothing.

    ``max_cycles`` is the registry's own field: it holds the family's horizon and reaches the constructor as a keyword.
    """
    if spec.id not in parallel_registry:
        pettingzoo.register(
            "parallel", spec.id, f"{_ADAPTER}:parallel_env", max_cycles=spec.horizon, kwargs={"game": spec.id}
        )
    if spec.id not in aec_registry:
        pettingzoo.register("aec", spec.id, f"{_ADAPTER}:env", max_cycles=spec.horizon, kwargs={"game": spec.id})
