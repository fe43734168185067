"""Actions of players from elsewhere, checked before the game takes them: games count on actions of their space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.rollout import Acting, Actor, Learner, Place, Taught
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError, one_line
from metaduel.envs.players.scripted import Impaired, Scripted

Refusal = Callable[[str, int | None], InvalidInputError]  # (why, row): the error


def checked(actor: Actor, space: Any, refusal: Refusal, whose: str) -> Actor:
    """The actor, with its actions checked unless it is one of ours, whose policies and rules keep to the space.

    Args:
        actor: anything that takes a seat.
        space: of its actions, a one-dimensional Box or a Discrete.
        refusal: makes the error from a reason and the actor's row, if it is one row's.
        whose: the beginning of the reason.
    """
    ours = isinstance(actor, (Learner, Taught)) or isinstance(getattr(actor, "player", None), (Scripted, Impaired))
    return actor if ours else _Checked(actor, space, refusal, whose)


@dataclass(frozen=True)
class _Checked:
    actor: Actor
    space: Any
    refusal: Refusal
    whose: str

    @property
    def noise(self) -> int:
        return self.actor.noise

    def sit(self, place: Place) -> _CheckedRows:
        return _CheckedRows(self, self.actor.sit(place), place)


class _CheckedRows:
    def __init__(self, checked: _Checked, rows: Acting, place: Place) -> None:
        self.checked, self.rows, self.place = checked, rows, place

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        try:
            action = self.rows.act(step, rows, observation)
        except InvalidInputError:
            raise
        except Exception as error:  # the player is foreign code
            why = one_line(error)
            raise self.checked.refusal(
                f"{self.checked.whose} act raises {type(error).__name__}: {why}", None
            ) from error
        return self._within(action)

    def _within(self, action: Any) -> Tensor:
        space, n = self.checked.space, len(self.place.key)
        discrete = isinstance(space, spaces.Discrete)
        shape = (n,) if discrete else (n, *space.shape)
        if not isinstance(action, Tensor) or tuple(action.shape) != shape or action.is_floating_point() == discrete:
            kind = (
                f"{action.dtype} of shape {tuple(action.shape)}"
                if isinstance(action, Tensor)
                else type(action).__name__
            )
            wanted = "int64" if discrete else "floats"
            raise self.checked.refusal(
                f"{self.checked.whose} actions are {kind}, must be {wanted} of shape {shape}", None
            )
        if discrete:
            self._refuse((action < 0) | (action >= int(space.n)), action, f"must be in 0 to {int(space.n) - 1}")
            return action
        self._refuse(action.isnan().any(1), action, "must be a number")
        return action.clamp(torch.from_numpy(space.low), torch.from_numpy(space.high))  # as for learners in NumPy

    def _refuse(self, bad: Tensor, action: Tensor, right: str) -> None:
        if bad.any():
            place = int(bad.nonzero()[0])
            why = f"{self.checked.whose} action is {action[place].tolist()}, {right}"
            raise self.checked.refusal(why, place // self.place.episodes)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        self.rows.record(reward, alive, other)

    def result(self) -> Trajectories | None:
        return self.rows.result()
