"""A game's arena: one seat against fixed opponents on every task, where adapters adapt and are tested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.error import ResetNeeded
from torch import Tensor

from metaduel.agents.adapters.protocol import BadPlayer, Experience, OneEpisode, SeatInfo, ShotOver
from metaduel.agents.rollout import Actor, Seated, Sitting, rollout
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.adapters.seat import Seat
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import Player
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.core.trees import take_rows


@dataclass(frozen=True)
class GameArena:
    """Rows of opponents and tasks, see ``adapter.Arena``: row ``i * M + j`` is opponent i on task j.

    Attributes:
        duel: the game; what ``role`` is shown is its choice.
        role: the seat.
        tasks: [M, number of contexts] context values, float64.
        opponents: in the other seat.
        episodes: E, per row and shot.
        seed: of all noise; episode e of row n has the seed ``seed + n * E + e``, and shot k its k-th episode.
        deterministic: the player acts with the likeliest actions.
    """

    duel: Duel
    role: Role
    tasks: Tensor
    opponents: Sequence[Player]
    episodes: int
    seed: int
    deterministic: bool = False
    params: Any = field(init=False)
    seeds: Tensor = field(init=False)

    def __post_init__(self) -> None:
        values = self.tasks.repeat(len(self.opponents), 1).repeat_interleave(self.episodes, 0)
        object.__setattr__(self, "params", self.duel.game.params_from_rows(values, torch.get_default_dtype()))
        # Row seeds wrap around like all arithmetic on keys.
        object.__setattr__(self, "seeds", torch.arange(len(values)) + self.seed)

    @property
    def rows(self) -> int:
        """See ``Arena``."""
        return len(self.opponents) * len(self.tasks)

    @property
    def seat(self) -> SeatInfo:
        """See ``Arena``."""
        duel, role = self.duel, self.role
        return SeatInfo(
            duel.spec.name, role, duel.observation_space(role), duel.action_space(role), duel.horizon, self.seed
        )

    def shot(self, number: int) -> Experience:
        """See ``Arena``."""
        return GameExperience(self, number)

    def test(self, player: Actor) -> Trajectories:
        """Copies of a player in the episodes of shot 0: the same ones at every call."""
        return self.shot(0).play(player)

    def played(self, player: Actor, params: Any, episodes: int, seeds: Tensor, episode: int) -> Trajectories:
        """What a player sees, does and gets in some rows' episodes."""
        mine: list[Sitting] = [Sitting(slice(0, self.rows), player, self.deterministic)]
        size, theirs = len(self.tasks), enumerate(self.opponents)
        others = [Sitting(slice(i * size, (i + 1) * size), Seated(one)) for i, one in theirs]
        seats = (mine, others) if self.role == ROLES[0] else (others, mine)
        results = rollout(self.duel, params, seats, episodes, seeds, torch.full_like(seeds, episode))
        own = results[ROLES.index(self.role)]
        if own is not None:
            return own
        raise TypeError(f"{type(player).__name__} records no trajectories: it can be tested, but not learn")

    def task(self, row: int) -> dict[str, float]:
        """Context values of a row."""
        names = self.duel.spec.context_names
        return dict(zip(names, self.tasks[row % len(self.tasks)].tolist(), strict=True))


class GameExperience:
    """The episodes of one shot, see ``adapter.Experience``.

    Args:
        arena: where.
        number: of the shot.
    """

    def __init__(self, arena: GameArena, number: int) -> None:
        self._arena, self._number = arena, number
        self.episodes, self.rows = arena.episodes, arena.rows
        self._spent: set[int] = set()  # rows whose episodes were played

    def _spend(self, rows: Sequence[int]) -> None:
        for row in rows:
            if row in self._spent:
                raise BadPlayer(f"it plays more than the {self.episodes} episodes of its shot", row)
            self._spent.add(row)

    def play(self, player: Actor) -> Trajectories:
        """See ``Experience``."""
        self._spend(range(self.rows))
        arena = self._arena
        return arena.played(player, arena.params, self.episodes, arena.seeds, self._number)

    def one_by_one(self) -> Iterator[OneEpisode]:
        """See ``Experience``."""
        self._spend(range(self.rows))
        for i in range(self.episodes):
            yield GameEpisode(self._arena, self._number * self.episodes + i)

    def environment(self, row: int) -> CountedEpisodes:
        """See ``Experience``."""
        self._spend([row])
        arena = self._arena
        seat = Seat(
            arena.duel.spec, 1, arena.role, arena.opponents[row // len(arena.tasks)], arena.task(row),
            informed=arena.role in arena.duel.informed, horizon=arena.duel.horizon,
        )  # fmt: skip
        first = row * self.episodes
        return CountedEpisodes(seat, arena.seeds[first : first + self.episodes], self._number)


class GameEpisode:
    """One episode in every row, see ``adapter.OneEpisode``."""

    def __init__(self, arena: GameArena, number: int) -> None:
        self._arena, self._number, self._spent = arena, number, False

    def play(self, player: Actor) -> Trajectories:
        """See ``OneEpisode``."""
        if self._spent:
            raise BadPlayer("it plays an episode of its shot twice")
        self._spent = True
        arena, every = self._arena, self._arena.episodes
        params = take_rows(arena.params, slice(None, None, every))
        return arena.played(player, params, 1, arena.seeds[::every], self._number)


class CountedEpisodes(gym.Env[npt.NDArray[np.float32], Any]):
    """A given number of episodes of one row, as a Gymnasium environment that tells nothing beside observations and rewards.

    ``reset`` takes a seed and options, as every environment does, and makes no use of them: which episodes are played is the
    evaluation's choice.

    Args:
        seat: its one row; whoever is asked for it here does not give it away.
        seeds: [E] of the episodes.
        episode: their number under these seeds.
    """

    def __init__(self, seat: Seat, seeds: Tensor, episode: int) -> None:
        self.observation_space, self.action_space = seat.observation_space, seat.action_space  # type: ignore[assignment]
        self.episodes, self.played, self.over = len(seeds), 0, False

        # The seat stays in closures: it knows the hidden contexts.
        def begin(*, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
            if self.played == len(seeds):  # libraries reset by themselves when an episode ends
                self.over = True
                return seat.observation()[0], info()
            seat.seed[0], seat.episode[0] = seeds[self.played], episode - 1
            self.played += 1
            seat.reset()
            return seat.observation()[0], info()

        def info() -> dict[str, Any]:
            masks = seat.action_masks()
            return {} if masks is None else {"action_mask": masks[0]}

        def step(action: Any) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
            if self.over:
                raise ShotOver(f"all {len(seeds)} episodes of the shot are played")
            if not self.played or bool(seat.done[0]):
                raise ResetNeeded("call reset() before step()")
            reward, terminated, truncated = seat.step(seat.check_actions(action, batched=False))
            return seat.observation()[0], float(reward), bool(terminated), bool(truncated), info()

        self.reset, self.step = begin, step  # type: ignore[method-assign, assignment]
