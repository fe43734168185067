"""The protocol of adaptation: a player changes between batches of episodes, by any mechanism.

An ``Adapter`` starts a player in every row (one row per task and opponent, all independent) and updates it with the experience of
a shot. Gradient steps, memories, Stable-Baselines3's ``learn``, fixed players and objects that speak NumPy are adapters;
``adaptation`` is the one loop over them, and yields the player after every shot.

    player = adapter.start(seat, rows, seed)
    for every shot:
        player = adapter.update(player, experience)     # plays the shot's episodes, each once
    test episodes are played by copies of the player
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
from gymnasium import spaces

from metaduel.agents.policies.base import ActionSpace
from metaduel.agents.rollout import Actor, Seated
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.fit import misfit
from metaduel.envs.core.game import Player as CorePlayer
from metaduel.envs.core.spec import Role


class SeatInfo(NamedTuple):
    """The seat of an adapter's players, and all that an adapter knows of the game.

    Attributes:
        game: name of the family.
        role: the seat.
        observation_space: one-dimensional Box.
        action_space: one-dimensional Box, or Discrete.
        horizon: maximum number of steps of an episode.
        seed: seed of the player's own random numbers.
        mask: where in an observation the legal actions stand, 1 or 0 each; None: all actions are always legal.
    """

    game: str
    role: Role
    observation_space: spaces.Box
    action_space: ActionSpace
    horizon: int
    seed: int = 0
    mask: slice | None = None


class Experience(Protocol):
    """The episodes of one shot, in every row. Each episode can be played once.

    Attributes:
        episodes: E, per row.
        rows: N.
    """

    @property
    def episodes(self) -> int:
        """See the class."""
        ...

    @property
    def rows(self) -> int:
        """See the class."""
        ...

    def play(self, player: Actor) -> Trajectories:
        """Play all episodes at once, each by a copy of the row's player. Returns trajectories [N, T, E, ...].

        Raises:
            InvalidInputError: the shot's episodes were played before.
        """
        ...

    def one_by_one(self) -> Iterator[OneEpisode]:
        """The episodes one after another, for players whose memory lasts from one to the next.

        Raises:
            InvalidInputError: the shot's episodes were played before.
        """
        ...

    def environment(self, row: int) -> gym.Env[Any, Any]:
        """The episodes of a row as a Gymnasium environment, one for each reset, for players with a training loop of their own. It
        holds the shot's ``E`` episodes. A reset after the last one repeats the last observation, and a step then raises
        ``ShotOver``.

        Raises:
            InvalidInputError: the row's episodes were played before.
        """
        ...


class OneEpisode(Protocol):
    """One episode in every row."""

    def play(self, player: Actor) -> Trajectories:
        """Play it. Returns trajectories [N, T, 1, ...], or [1, T, N, ...] if one set of weights plays all rows.

        Raises:
            InvalidInputError: it was played before.
        """
        ...


class BadPlayer(InvalidInputError):
    """A player that cannot take part: its spaces don't fit, or an action is invalid.

    Attributes:
        row: the row of the error, if it is in one row alone.
    """

    def __init__(self, why: str, row: int | None = None) -> None:
        super().__init__(why)
        self.row = row


class ShotOver(Exception):
    """All episodes of a shot's environment have been played."""


class Adapter(Protocol):
    """A player that changes between batches of episodes.

    Attributes:
        adapts: whether ``update`` changes anything; a player that does not adapt is tested once.
    """

    @property
    def adapts(self) -> bool:
        """See the class."""
        ...

    def start(self, seat: SeatInfo, rows: int, seed: int) -> Actor:
        """A player before its first episode.

        Args:
            seat: the player's seat.
            rows: N, the number of independent rows.
            seed: seed of all random numbers.

        Raises:
            InvalidInputError: the player does not fit the seat.
        """
        ...

    def update(self, player: Any, experience: Experience) -> Actor:
        """The player after a shot; ``player`` itself stays as it is.

        Args:
            player: the result of ``start`` or of the last ``update``.
            experience: the shot's episodes.
        """
        ...


class Arena(Protocol):
    """The rows of tasks and opponents in which players adapt.

    Attributes:
        seat: the seat, as adapters see it.
        rows: N.
    """

    @property
    def seat(self) -> SeatInfo:
        """See the class."""
        ...

    @property
    def rows(self) -> int:
        """See the class."""
        ...

    def shot(self, number: int) -> Experience:
        """The episodes of the update that follows ``number`` others."""
        ...


def adaptation(adapter: Adapter, arena: Arena, shots: int, seed: int = 0) -> Iterator[Actor]:
    """Adapt, and yield the player after 0, 1, .. ``shots`` updates.

    Args:
        adapter: makes and updates the player.
        arena: the rows.
        shots: number of updates.
        seed: seed of the players' random numbers.
    """
    player = adapter.start(arena.seat, arena.rows, seed)
    yield player
    for shot in range(shots):
        player = adapter.update(player, arena.shot(shot))
        yield player


@dataclass(frozen=True, repr=False)
class FixedPlayer:
    """A player that does not adapt: a script, or a frozen model.

    Attributes:
        player: a player of the batched core.
    """

    player: CorePlayer
    adapts: bool = False

    def __repr__(self) -> str:
        return f"FixedPlayer({self.player!r})"

    def start(self, seat: SeatInfo, rows: int, seed: int) -> Seated:
        """See ``Adapter``."""
        return Seated(self.player, recorded=True)

    def update(self, player: Seated, experience: Experience) -> Seated:
        """See ``Adapter``; nothing changes, and nothing is played."""
        return player


def check_spaces(seat: SeatInfo, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Raise ``InvalidInputError`` where a player's spaces are not the seat's."""
    why = misfit(observation_space, action_space, seat.observation_space, seat.action_space)
    if why is not None:
        raise InvalidInputError(f"{why} ({seat.game}'s {seat.role})")
