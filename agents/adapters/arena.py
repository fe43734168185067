"""A simulator's arena: one seat against fixed opponents on every task, where adapters adapt and are tested."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.error import ResetNeeded
from torch import Tensor

from metaduel.agents.adapters.checks import checked
from metaduel.agents.adapters.protocol import BadPlayer, Experience, OneEpisode, SeatInfo, ShotOver
from metaduel.agents.rollout import Actor, Seated, Sitting, rollout
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.adapters.legal import LegalDiscrete, as_actions
from metaduel.envs.core import noise
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator, ask
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.envs.core.trees import take_rows
from metaduel.envs.players.names import load_player


@dataclass(frozen=True)
class GameArena:
    """Rows of opponents and tasks, see ``protocol.Arena``: row ``i * M + j`` is opponent i on task j.

    With ``copies`` = A, several players meet the same opponents, tasks and noise in one batch: row ``(i * A + a) * M + j`` is
    player a's. An opponent's rows lie together, so that it is asked once for all players.

    Attributes:
        simulator: the game or environment; it chooses what ``role`` observes.
        role: the seat of the player that adapts.
        tasks: [M, C] as ``Simulator.params`` takes them: a game's context values, float64.
        opponents: the players in the other seat, as ``load_player`` takes them.
        episodes: E, per row and shot.
        seed: seed of all noise; episode e of opponent i on task j has the seed ``seed + (i * M + j) * E + e``, and shot k its
            k-th episode.
        deterministic: the player takes the most probable actions.
        copies: A, the number of players.
    """

    simulator: Simulator
    role: Role
    tasks: Tensor
    opponents: Sequence[Player]
    episodes: int
    seed: int
    deterministic: bool = False
    copies: int = 1
    params: Any = field(init=False)
    seeds: Tensor = field(init=False)
    _apart: dict[int, Simulator] = field(init=False, default_factory=dict)  # simulators of rows that are played alone

    def __post_init__(self) -> None:
        seated = [load_player(self.simulator, other(self.role), one) for one in self.opponents]
        object.__setattr__(self, "opponents", seated)
        values = self.tasks.repeat(len(self.opponents) * self.copies, 1).repeat_interleave(self.episodes, 0)
        object.__setattr__(self, "params", self.simulator.params(values))
        # Row seeds wrap around like all arithmetic on keys.
        rows = torch.arange(len(values) // self.copies, dtype=torch.int64, device=values.device)
        each = len(self.tasks) * self.episodes
        every = rows.view(len(self.opponents), 1, each).expand(-1, self.copies, -1).reshape(-1)
        object.__setattr__(self, "seeds", every + self.seed)

    @property
    def rows(self) -> int:
        """See ``Arena``."""
        return len(self.opponents) * self.copies * len(self.tasks)

    @property
    def seat(self) -> SeatInfo:
        """See ``Arena``."""
        own, role = self.simulator, self.role
        # Copies: a player that changes or seeds a space must not reach the next player's.
        spaces = copy.deepcopy((own.observation_space(role), own.action_space(role)))
        return SeatInfo(own.name, role, *spaces, own.horizon, self.seed, own.mask(role))

    def shot(self, number: int) -> Experience:
        """See ``Arena``."""
        return GameExperience(self, number)

    def test(self, player: Actor) -> Trajectories:
        """Trajectories of a player's copies in the test episodes, which are the same at every call."""
        return self.shot(0).play(player)

    def played(self, player: Actor, params: Any, episodes: int, seeds: Tensor, episode: int) -> Trajectories:
        """A player's trajectories in episodes of the given rows."""
        own_space, other_space = self.simulator.action_space(self.role), self.simulator.action_space(other(self.role))
        mine = [Sitting(slice(0, self.rows), checked(player, own_space, BadPlayer, "its"), self.deterministic)]
        size, theirs = self.copies * len(self.tasks), enumerate(self.opponents)
        others = [
            Sitting(slice(i * size, (i + 1) * size), checked(Seated(one), other_space, _of_opponent, _name(one)))
            for i, one in theirs
        ]
        seats = (mine, others) if self.role == ROLES[0] else (others, mine)
        results = rollout(self.simulator, params, seats, episodes, seeds, torch.full_like(seeds, episode))
        own = results[ROLES.index(self.role)]
        if own is not None:
            return own
        raise TypeError(f"{type(player).__name__} records no trajectories: it can be tested, but not learn")

    def environment(self, row: int, episode: int) -> CountedEpisodes:
        """A row's episodes with this number, one for each of the row's seeds, one after another."""
        if row not in self._apart:
            self._apart[row] = self.simulator.apart()
        first = row * self.episodes
        params = take_rows(self.params, slice(first, first + 1))
        opponent = self.opponents[row // (self.copies * len(self.tasks))]
        seeds = self.seeds[first : first + self.episodes]
        return CountedEpisodes(self._apart[row], self.role, params, opponent, seeds, episode)


class GameExperience:
    """The episodes of one shot, see ``protocol.Experience``.

    Args:
        arena: the rows.
        number: number of the shot.
    """

    def __init__(self, arena: GameArena, number: int) -> None:
        self._arena, self._number = arena, number
        self.episodes, self.rows = arena.episodes, arena.rows
        self._spent: set[int] = set()  # rows whose episodes were played

    def _spend(self, rows: Sequence[int]) -> None:
        for row in rows:
            if row in self._spent:
                raise BadPlayer(f"it plays more episodes than the {self.episodes} of its shot", row)
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
        return self._arena.environment(row, self._number)


class GameEpisode:
    """One episode in every row, see ``protocol.OneEpisode``."""

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
    """A given number of episodes of one row, as a Gymnasium environment that reveals only observations and rewards.

    ``reset`` takes a seed and options, as every environment does, but ignores them: the evaluation chooses the episodes.

    Args:
        simulator: the game or environment.
        role: the seat.
        params: the parameters of the one row.
        opponent: the player in the other seat.
        seeds: [E] seeds of the episodes.
        episode: the episodes' number under these seeds.
    """

    def __init__(
        self, simulator: Simulator, role: Role, params: Any, opponent: Player, seeds: Tensor, episode: int
    ) -> None:
        mask, seat = simulator.mask(role), ROLES.index(role)
        # Copies: seeding an environment's spaces must not touch another's.
        self.observation_space = copy.deepcopy(simulator.observation_space(role))  # type: ignore[arg-type]
        space = copy.deepcopy(simulator.action_space(role))
        if mask is not None:
            space = LegalDiscrete(mask.stop - mask.start, np.ones(mask.stop - mask.start, np.int8))
            space.seed()  # otherwise the first sample seeds the space, which forgets the legal actions
        self.action_space = space
        self.episodes, self.played, self.over = len(seeds), 0, False
        who = f"{simulator.name}: the {role}"

        # The episode stays in closures: it knows the hidden contexts.
        rows: Any = None
        observations: Any = None
        paid: Any = None
        memory: Any = None
        done = True

        def seen() -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
            own = observations[seat][0].numpy().astype(np.float32)
            if mask is None:
                return own, {}
            legal = (own[mask] > 0).astype(np.int8)
            space.legal = legal.copy()  # type: ignore[union-attr]
            return own, {"action_mask": legal}

        @torch.no_grad()
        def begin(*, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
            nonlocal rows, observations, paid, memory, done
            if self.played == len(seeds):  # libraries reset by themselves when an episode ends
                self.over = True
                return seen()
            one = seeds[self.played : self.played + 1]
            rows = simulator.start(params, noise.episode_key(one, torch.full_like(one, episode)))
            self.played += 1
            observations, done = simulator.observe(rows), False
            paid, memory = observations[seat].new_zeros(1), observations[seat].new_zeros(1, opponent.memory)
            return seen()

        @torch.no_grad()
        def step(action: Any) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
            nonlocal rows, observations, paid, memory, done
            if self.over:
                raise ShotOver(f"all {len(seeds)} episodes of the shot are played")
            if done:
                raise ResetNeeded("call reset() before step()")
            # The simulator refuses an illegal action or replaces it by a legal one, so that models without masks learn, too.
            own = torch.from_numpy(as_actions(who, action, space, space.shape)).unsqueeze(0)
            theirs, remembered = ask(opponent, 1 - seat, rows, observations[1 - seat], paid, memory)
            rows, transition = simulator.step(rows, (own, theirs) if seat == 0 else (theirs, own))
            memory, observations, paid = remembered, simulator.observe(rows), transition.reward[:, 1 - seat]
            done = bool(transition.terminated | transition.truncated)
            if transition.left is not None:  # the opponent may leave before
                done = bool(transition.left[0, seat]) or int(rows.step) >= simulator.horizon
            truncated = done and bool(transition.truncated)
            terminated = done and not truncated
            return (seen()[0], float(transition.reward[0, seat]), terminated, truncated, seen()[1])

        def action_masks() -> npt.NDArray[np.bool_]:
            return seen()[1]["action_mask"].astype(np.bool_)  # type: ignore[no-any-return]

        self.reset, self.step = begin, step  # type: ignore[method-assign, assignment]
        if mask is not None:
            self.action_masks = action_masks  # sb3-contrib's learners ask for them


def _name(opponent: Player) -> str:
    return f"opponent {getattr(opponent, 'name', type(opponent).__name__)}'s"


def _of_opponent(why: str, row: int | None = None) -> InvalidInputError:
    return InvalidInputError(why)
