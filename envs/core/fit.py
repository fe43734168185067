"""Whether a player's spaces are those of a seat."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from metaduel.envs.core.errors import one_line


def same_observations(own: Any, right: Any) -> bool:
    """Whether two observation spaces hold arrays of the same shape and dtype.

    Bounds are not compared: they describe what is seen and change nothing that a network computes, so that a model stays valid
    when a family's bounds are tightened.
    """
    if isinstance(own, spaces.Box) and isinstance(right, spaces.Box):
        return own.shape == right.shape and own.dtype == right.dtype
    return bool(own == right)


def misfit(observation_space: Any, action_space: Any, seen: Any, done: Any) -> str | None:
    """Why a player cannot take a seat; None: it can.

    Args:
        observation_space: the player's own; None: unknown, and not compared.
        action_space: the same; action spaces must be equal.
        seen: the seat's observation space.
        done: the seat's action space.
    """
    for kind, own, right, same in (
        ("observation", observation_space, seen, same_observations(observation_space, seen)),
        ("action", action_space, done, bool(action_space == done)),
    ):
        if own is not None and not same:
            mine, seats = (_shown(space) if kind == "observation" else one_line(space) for space in (own, right))
            return f"its {kind} space is {mine}, the seat's is {seats}"
    return None


def _shown(space: Any) -> str:
    """What of an observation space is compared."""
    return f"Box of shape {space.shape}, {space.dtype}" if isinstance(space, spaces.Box) else one_line(space)
