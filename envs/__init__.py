"""The task distribution: parameterised two-player games, their tasks, opponents and adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaduel.envs.contract import check_game

__all__ = ["check_game"]


def __getattr__(name: str) -> Any:
    # The contract needs torch: it is imported when it is asked for.
    if name != "check_game":
        raise AttributeError(f"module 'metaduel.envs' has no attribute {name!r}")
    from metaduel.envs.contract import check_game

    return check_game
