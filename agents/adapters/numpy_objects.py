"""Learners that speak NumPy: an in-context model in any framework, statistics, a list of rules. They need no torch.

A learner has two methods, and an optional third:

    begin(rows, seat)       called once, with the number of rows and the player's seat (see ``SeatInfo``)
    act(observation, previous_action, previous_reward, episode_start) -> actions
    end_of_shot()           called after every shot

There is one row per opponent and task, the same ones from ``begin`` on. The episodes of a shot run one after another in every
row, so that a learner adapts to a row by remembering it. A deep copy of the learner, made after the shot, plays each test
episode in the same rows.
"""

from __future__ import annotations

import copy
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.adapters.protocol import BadPlayer, Experience, SeatInfo
from metaduel.agents.rollout import Place
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError, one_line

Array = npt.NDArray[Any]


class NumpyLearner(Protocol):
    """See the module; ``end_of_shot`` may be left out."""

    def begin(self, rows: int, seat: SeatInfo) -> None:
        """Prepare for ``rows`` independent rows."""
        ...

    def act(
        self, observation: Array, previous_action: Array, previous_reward: Array, episode_start: npt.NDArray[np.bool_]
    ) -> Array:
        """Choose an action in every row.

        Args:
            observation: [rows, d] float32. A row whose episode is over waits: its last observation is repeated, and its action
                has no effect.
            previous_action: [rows, a] float32 or [rows] int64, the previous step's action as it was played; 0 at the first step.
            previous_reward: [rows] float32, the previous step's reward, also across episodes, so that every reward appears
                once; 0 where there is none.
            episode_start: [rows] bool, whether this is the first step of an episode.

        Returns:
            [rows, a] floats, which are clipped to the action space, or [rows] whole numbers in it. Where the seat has a ``mask``,
            an action must be legal, unless the row waits.
        """
        ...


@dataclass(frozen=True)
class NumpyAdapter:
    """Adapts by the memory of a ``NumpyLearner``.

    Attributes:
        learner: a learner before ``begin``; it is copied, never changed.
    """

    learner: Any
    adapts: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.learner, type):
            raise InvalidInputError(
                f"{self.learner.__name__} is a class: give {self.learner.__name__}(), an object of it"
            )
        for name in ("begin", "act"):
            if not callable(getattr(self.learner, name, None)):
                raise InvalidInputError(
                    f"{type(self.learner).__name__} has no method {name}: a learner in NumPy has begin(rows, seat) and "
                    "act(observation, previous_action, previous_reward, episode_start)"
                )

    def start(self, seat: SeatInfo, rows: int, seed: int) -> NumpyPlayer:
        """See ``Adapter``."""
        learner, seat = _copy(self.learner), seat._replace(seed=seed)
        _call(learner, "begin", rows, seat)
        space = seat.action_space
        discrete = isinstance(space, spaces.Discrete)
        action = np.zeros(rows, np.int64) if discrete else np.zeros((rows, *space.shape), np.float32)  # type: ignore[misc]
        return NumpyPlayer(learner, seat, action, np.zeros(rows, np.float32))

    def update(self, player: NumpyPlayer, experience: Experience) -> NumpyPlayer:
        """See ``Adapter``."""
        after = player.copy()
        for episode in experience.one_by_one():
            episode.play(_Itself(after))
        if callable(getattr(after.learner, "end_of_shot", None)):
            _call(after.learner, "end_of_shot")
        return after


@dataclass
class NumpyPlayer:
    """A learner in its seat.

    Attributes:
        learner: the object.
        seat: where it sits.
        action: [rows, ...] its last actions.
        reward: [rows] rewards that the learner has not received yet.
    """

    learner: Any
    seat: SeatInfo
    action: Array
    reward: Array
    noise: int = 0

    def copy(self) -> NumpyPlayer:
        """A deep copy."""
        return NumpyPlayer(_copy(self.learner), self.seat, self.action.copy(), self.reward.copy())

    def sit(self, place: Place) -> NumpyRows:
        """See ``rollout.Actor``: one copy for each episode."""
        return NumpyRows([self.copy() for _ in range(place.episodes)], place)


@dataclass
class _Itself:
    """The learner, and not a copy of it, for one episode in every row."""

    player: NumpyPlayer
    noise: int = 0

    def sit(self, place: Place) -> NumpyRows:
        return NumpyRows([self.player], place)


class NumpyRows:
    """Learners during a rollout, see ``rollout.Acting``: one for each episode, in all rows."""

    def __init__(self, players: list[NumpyPlayer], place: Place) -> None:
        self.players, self.rows = players, place.rows
        self.shape = (place.tasks, len(players))
        self.alive = np.ones(self.shape, np.bool_)
        self.start = True
        self.seen: Array | None = None
        self.kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # observation, action, reward, alive
        self.now: tuple[Tensor, Tensor] | None = None

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``rollout.Acting``."""
        new = observation[self.rows].view(*self.shape, -1).numpy()
        self.seen = new.copy() if self.seen is None else np.where(self.alive[..., None], new, self.seen)
        actions = [self._ask(player, self.seen[:, e]) for e, player in enumerate(self.players)]
        self.start = False
        action = torch.from_numpy(np.stack(actions, 1))
        self.now = torch.from_numpy(self.seen.copy()), action
        return action.flatten(0, 1)

    def _ask(self, player: NumpyPlayer, observation: Array) -> Array:
        start = np.full(len(observation), self.start)
        reward = player.reward
        player.reward = np.zeros_like(reward)
        given = _call(player.learner, "act", observation.copy(), player.action.copy(), reward, start)
        return _checked(given, player.seat.action_space, player.action.shape)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``rollout.Acting``."""
        own, played = reward[self.rows].view(self.shape), alive[self.rows].view(self.shape)
        got = torch.where(played, own, torch.zeros_like(own))
        assert self.now is not None
        self.kept.append((*self.now, got, played.to(own.dtype)))
        self.alive = played.numpy().copy()
        for e, player in enumerate(self.players):
            action, here = self.now[1][:, e].numpy(), self.alive[:, e]
            _check_legal(action, self.now[0][:, e].numpy(), here, player.seat.mask)
            # A row that waits has not played its action.
            player.action = np.where(here.reshape(-1, *[1] * (action.ndim - 1)), action, player.action)
            player.reward = got[:, e].numpy().astype(np.float32)

    def result(self) -> Trajectories:
        """See ``rollout.Acting``."""
        observation, action, reward, alive = (torch.stack(part, 1) for part in zip(*self.kept, strict=True))
        return Trajectories(observation, action, reward, alive)


def _call(learner: Any, method: str, *arguments: Any) -> Any:
    """Call a method of the learner, which is foreign code."""
    try:
        return getattr(learner, method)(*arguments)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        why = one_line(error)
        where = f"{Path(place.filename).name}:{place.lineno}"
        raise BadPlayer(f"its {method} raises {type(error).__name__}: {why} ({where})") from error


def _checked(actions: Any, space: spaces.Space[Any], shape: tuple[int, ...]) -> Array:
    """Actions within the space, or an error that names the first bad row."""
    try:
        found: Array = np.asarray(actions)
    except (TypeError, ValueError):
        raise BadPlayer(
            f"its actions are a ragged {type(actions).__name__}, must be an array of shape {shape}"
        ) from None
    if found.shape != shape:
        raise BadPlayer(f"its actions have shape {found.shape}, must have {shape}")
    if isinstance(space, spaces.Discrete):
        if found.dtype.kind not in "iu":
            raise BadPlayer(f"its actions are {found.dtype}, must be whole numbers")
        bad = (found < 0) | (found >= space.n)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise BadPlayer(f"its action {int(found[row])} must be in 0 to {int(space.n) - 1}", row)
        return found.astype(np.int64)
    assert isinstance(space, spaces.Box)
    if found.dtype.kind not in "fiu":
        raise BadPlayer(f"its actions are {found.dtype}, must be numbers")
    floats: Array = found.astype(np.float32)
    unknown = ~np.isfinite(floats).reshape(len(floats), -1).all(1)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise BadPlayer(f"its action is {'NaN' if np.isnan(floats[row]).any() else 'not finite'}", row)
    return np.clip(floats, space.low, space.high)


def _check_legal(action: Array, observation: Array, played: npt.NDArray[np.bool_], mask: slice | None) -> None:
    if mask is None:
        return
    legal = np.take_along_axis(observation[:, mask], action[:, None], 1)[:, 0] > 0
    if (bad := np.flatnonzero(~legal & played)).size:
        row = int(bad[0])
        allowed = np.flatnonzero(observation[row, mask]).tolist()
        raise BadPlayer(f"its action {int(action[row])} must be legal now: one of {allowed}", row)


def _copy(learner: Any) -> Any:
    try:
        return copy.deepcopy(learner)
    except Exception as error:  # the object may hold anything
        raise InvalidInputError(
            f"{type(learner).__name__} cannot be deep-copied ({' '.join(str(error).split())[:80]}): test episodes are played by "
            "copies; give it a __deepcopy__"
        ) from None
