"""One learner's seat at many duels at once, an opponent in the other: what the single-agent adapters are made of.

Everything here is torch and batched; the adapters add their library's conventions (autoreset, infos, NumPy).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.error import ResetNeeded
from torch import Tensor

from metaduel.envs.adapters.given import draw_tasks, resolve_task
from metaduel.envs.adapters.legal import as_actions, int8, own_space, refuse_illegal
from metaduel.envs.core import noise, registry, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.game import Episode, Pair, Player, make_game
from metaduel.envs.core.simulator import ask
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Task
from metaduel.envs.core.trees import take_rows, tree_map
from metaduel.envs.players.names import load_player
from metaduel.envs.render.screen import Screen

TaskLike = Mapping[str, float] | str | None  # context values, SPLIT:INDEX of a frozen list, or None: sampled at reset
OpponentLike = str | Player | None  # None: the family's first training opponent for that seat
Mask = npt.NDArray[np.bool_]
OPTIONS = ("task", "opponent")  # what ``reset(options=...)`` of every adapter takes
SEED_LIMIT = 1 << 63


class Step(NamedTuple):
    """What the learner gets from a step."""

    reward: Tensor  # [B] its own
    terminated: Tensor  # [B] bool: the rules ended the episode
    truncated: Tensor  # [B] bool: the clock did


class _Group(NamedTuple):
    """Rows that have the same opponent."""

    player: Player
    where: Tensor | None  # [n] int64 rows; None: all rows, in order


class Seat:
    """A batch of rows, in each of which a learner plays one role against an opponent.

    What happens in a row depends on its seed, its episode number, its task, its opponent and its actions, and not on
    the batch that it sits in.

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        num_envs: rows, B.
        seat: the learner's role.
        opponent: the player in the other seat, for all rows, or a list with one for each row.
        task: the task of all rows, or a list with one for each row; ``None`` samples one at every reset.
        split: where sampled tasks come from.
        informed: whether the learner sees every context, hidden ones included.
        horizon: steps until truncation; the family's own by default.
        render_mode: ``None``, or one of ``render.RENDER_MODES``.

    Attributes:
        rows: where the duels are.
        observations: ([B, d_p], [B, d_a]) what the two roles see now.
        done: [B] bool: the episode is over, the row waits for a reset.
        seed: [B] int64, from the system's entropy until the row is seeded.
        episode: [B] int64: resets since the row was seeded, less one.
        opponents: [B] object array: names of the opponents.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range, or no pygame for rendering.
    """

    rows: Episode
    observations: Pair

    def __init__(
        self,
        game: str | GameSpec,
        num_envs: int = 1,
        seat: str = "protagonist",
        opponent: OpponentLike | Sequence[OpponentLike] = None,
        task: TaskLike | Sequence[TaskLike] = None,
        split: str = "train",
        informed: bool = False,
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise InvalidInputError(f"num_envs={num_envs!r} must be a whole number of at least 1")
        if not isinstance(informed, (bool, np.bool_)):
            raise InvalidInputError(f"informed={informed!r} must be True or False")
        self.spec = registry.find(game)
        self.num_envs = int(num_envs)
        self.role: Role = self.spec.check_role(seat)
        self.split = tasks.check_split(split)
        self.duel = Duel(make_game(self.spec), horizon, (self.role,) if informed else ())
        self.me = ROLES.index(self.role)
        self.other = 1 - self.me
        # Copies: seeding an environment's spaces must not touch another's.
        self.observation_space = copy.deepcopy(self.duel.observation_space(self.role))
        self.action_space = own_space(self.duel, self.role)
        self.render_mode = render_mode
        self.screen = None if render_mode is None else Screen(self.spec, render_mode)
        self.done = torch.ones(self.num_envs, dtype=torch.bool)
        self.seed = torch.from_numpy(np.random.default_rng().integers(SEED_LIMIT, size=self.num_envs))
        self.episode = torch.full((self.num_envs,), -1)
        self._started = False
        self._samplings = np.zeros(self.num_envs, np.int64)  # calls of sample_tasks since the row was seeded
        self._given = torch.zeros(self.num_envs, len(self.spec.contexts), dtype=torch.float64)
        self._sampled = torch.ones(self.num_envs, dtype=torch.bool)
        self._values = self._given  # [B, C] float64: tasks of the current episodes
        self._ids = np.full(self.num_envs, None, object)
        self._unnamed = np.ones(self.num_envs, np.bool_)  # rows whose id of the task is yet to be computed
        self._players: dict[Any, Player] = {}
        self._keys: list[Any] = [None] * self.num_envs  # of _players
        self._memory = torch.zeros(self.num_envs, 0)
        self._paid = torch.zeros(self.num_envs)  # the opponents' last rewards
        self.opponents = np.full(self.num_envs, None, object)
        self._history: list[Any] = []  # States of the last steps, newest last; only with a screen
        self._returns = torch.zeros(self.num_envs, 2)
        self.configure({"task": task, "opponent": opponent})

    # The task and the opponent

    def configure(self, options: Mapping[str, Any] | None, mask: Mask | None = None) -> None:
        """Take ``task`` and ``opponent`` from a reset's options, for the rows in ``mask`` (all by default).

        Both stay until they are replaced; a task counts from the next reset. To be followed by that reset.

        Raises:
            InvalidInputError: an unknown key or a bad value; nothing has been changed then.
        """
        options = options or {}
        for key in options:
            if key not in OPTIONS:
                raise unknown("reset option", key, OPTIONS)
        given = self._parse_tasks(self._per_row("task", options["task"], mask)) if "task" in options else None
        players = self._load(self._per_row("opponent", options["opponent"], mask)) if "opponent" in options else None
        if given is not None:
            self._given, self._sampled = given
            self._some_sampled, self._all_sampled = bool(self._sampled.any()), bool(self._sampled.all())
        if players is not None:
            self._seat_opponents(players)

    def _per_row(self, name: str, value: Any, mask: Mask | None) -> list[tuple[int, Any]]:
        """Pair rows with their items; a list gives one for each row of the batch, whatever the mask."""
        chosen = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        if not isinstance(value, (list, tuple)):
            return [(row, value) for row in chosen]
        if len(value) != self.num_envs:
            raise InvalidInputError(
                f"{name}: a list of {len(value)} must have one item for each of {self.num_envs} rows"
            )
        return [(row, value[row]) for row in chosen]

    def _parse_tasks(self, items: list[tuple[int, Any]]) -> tuple[Tensor, Tensor]:
        given, sampled = self._given.clone(), self._sampled.clone()
        parsed: dict[int, list[float]] = {}
        for row, item in items:
            sampled[row] = item is None
            if item is not None:
                if id(item) not in parsed:
                    full = resolve_task(self.duel, item)
                    parsed[id(item)] = [full[name] for name in self.spec.context_names]
                given[row] = torch.tensor(parsed[id(item)], dtype=torch.float64)
        return given, sampled

    def _load(self, items: list[tuple[int, Any]]) -> list[tuple[int, Any, Player]]:
        """Make a player of every item: (row, key, player)."""
        role, loaded, result = ROLES[self.other], dict(self._players), []
        for row, item in items:
            name = self.spec.opponents[role]["train"][0] if item is None else item
            key = name if isinstance(name, str) else id(name)
            if key not in loaded:
                loaded[key] = name if hasattr(name, "act") else load_player(self.duel, role, name)
            result.append((row, key, loaded[key]))
        return result

    def _seat_opponents(self, players: list[tuple[int, Any, Player]]) -> None:
        for row, key, player in players:
            self._keys[row] = key
            self._players[key] = player
            self.opponents[row] = key if isinstance(key, str) else getattr(player, "name", type(player).__name__)
        used = list(dict.fromkeys(self._keys))
        self._players = {key: self._players[key] for key in used}
        if len(used) == 1:
            self._groups = [_Group(self._players[used[0]], None)]
        else:
            which = torch.tensor([used.index(key) for key in self._keys])
            index = [(which == number).nonzero().squeeze(1) for number in range(len(used))]
            self._groups = [_Group(self._players[key], rows) for key, rows in zip(used, index, strict=True)]
            self._inverse = torch.argsort(torch.cat(index))
        # Rows that keep their opponent keep what it remembers; the others are about to be reset.
        self._width = max(player.memory for player in self._players.values())
        self._memory = _widen(self._memory[:, : self._width], self._width)

    def task(self, row: int) -> Task:
        """The task given to a row, or else the one sampled for its current episode.

        Raises:
            ResetNeeded: tasks are sampled at resets, and there was none yet.
        """
        if self._sampled[row] and not self._started:
            raise ResetNeeded(f"{self.spec.id}: no task yet: call reset() or set_task(task) first")
        values = self._values[row] if self._sampled[row] else self._given[row]
        return dict(zip(self.spec.context_names, values.tolist(), strict=True))

    def task_ids(self) -> npt.NDArray[np.object_]:
        """[B] ids of the current tasks, which tell nothing of their values; a new array at every call."""
        fresh = np.flatnonzero(self._unnamed)
        if fresh.size:
            self._ids[fresh] = tasks.task_ids(self.spec.context_names, self._values[torch.from_numpy(fresh)].numpy())
            self._unnamed[:] = False
        return self._ids.copy()

    def sample_tasks(self, n: int, seed: int | None = None, row: int = 0) -> list[Task]:
        """Sample ``n`` tasks of the split, other ones at every call; a row seeded again repeats its calls."""
        if seed is None:
            seed = noise.derive_seed(int(self.seed[row]), int(self._samplings[row]))
            self._samplings[row] += 1
        return tasks.sample_tasks(self.spec, n, self.split, seed)

    # Playing

    def reseed(self, row: int, seed: int) -> None:
        """Seed a row: its next episode is its first again."""
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise InvalidInputError(f"seed={seed!r} must be a whole number of at least 0")
        self.seed[row] = int(seed) % SEED_LIMIT
        self.episode[row] = -1
        self._samplings[row] = 0

    @torch.no_grad()
    def reset(self, mask: Mask | Tensor | None = None) -> None:
        """Start a new episode in the rows of ``mask`` (all by default)."""
        index = None if mask is None or bool(mask.all()) else torch.as_tensor(mask).nonzero().squeeze(1)
        if index is not None and not self._started:
            raise ResetNeeded(f"{self.spec.id}: the first reset must be of all rows")
        self._start(index)
        self._remember(self._history[:-1])

    @torch.no_grad()
    def step(self, actions: Tensor, restart: Tensor | None = None) -> Step:
        """Play one step.

        Args:
            actions: [B, d] floats or [B] int64, within the action space (see ``check_actions``).
            restart: [B] bool: rows that start a new episode instead, with reward 0.
        """
        answers = self._opponents_act()
        pair = (actions, answers) if self.me == 0 else (answers, actions)
        self.rows, (rewards, terminated, truncated) = self.duel.step(self.rows, pair)
        reward, self._paid = rewards[:, self.me], rewards[:, self.other]
        if self.screen:
            self._returns = self._returns + rewards
        if restart is not None and restart.any():
            self._start(restart.nonzero().squeeze(1), observe=False)
            reward = reward.masked_fill(restart, 0.0)
            terminated, truncated = terminated & ~restart, truncated & ~restart
        self.observations = self.duel.observe(self.rows)
        self.done = terminated | truncated
        self._remember(self._history)
        return Step(reward, terminated, truncated)

    def observation(self) -> npt.NDArray[np.float32]:
        """[B, d] what the learner sees now; a new array at every call."""
        array: npt.NDArray[np.float32] = self.observations[self.me].numpy().copy()
        return array

    def action_masks(self) -> npt.NDArray[np.int8] | None:
        """[B, n] 1 where the learner may choose an action now, in turn-based games; a new array at every call."""
        return int8(self.duel.legal(self.rows)[self.me]) if self.spec.turn_based else None

    def _opponents_act(self) -> Tensor:
        rows, memory, observation, paid = self.rows, self._memory, self.observations[self.other], self._paid
        if self._groups[0].where is None:
            action, self._memory = ask(self._groups[0].player, self.other, rows, observation, paid, memory)
            return action
        actions, memories = [], []
        for player, index in self._groups:
            part = take_rows(rows, index)  # type: ignore[arg-type]
            own = memory[index, : player.memory].contiguous()
            action, new = ask(player, self.other, part, observation[index], paid[index], own)
            actions.append(action)
            memories.append(_widen(new, self._width))
        self._memory = torch.cat(memories)[self._inverse]
        return torch.cat(actions)[self._inverse]

    def _start(self, index: Tensor | None, observe: bool = True) -> None:
        """Start new episodes in the rows at ``index`` (all by default). Writes into no tensor that was handed out."""
        seed, given, sampled = (_take(tensor, index) for tensor in (self.seed, self._given, self._sampled))
        episode = _take(self.episode, index) + 1
        key = noise.episode_key(seed, episode)
        values = self._draw(key, given, sampled)
        fresh = self.duel.start(self.duel.game.params_from_rows(values), key)
        self.episode = _put(self.episode, index, episode)
        self._values = _put(self._values, index, values)
        self._unnamed[slice(None) if index is None else index.numpy()] = True
        self.rows = fresh if index is None else tree_map(lambda old, new: _put(old, index, new), self.rows, fresh)
        if observe:
            seen = self.duel.observe(fresh)
            old = self.observations if index is not None else seen
            self.observations = (_put(old[0], index, seen[0]), _put(old[1], index, seen[1]))
        self.done = _put(self.done, index, torch.zeros_like(key, dtype=torch.bool))
        self._paid = _put(self._paid, index, torch.zeros(len(key)))
        if self._width:
            self._memory = _put(self._memory, index, torch.zeros(len(key), self._width))
        if self.screen:
            self._returns = _put(self._returns, index, torch.zeros(len(key), 2))
        self._started = True

    def _draw(self, key: Tensor, given: Tensor, sampled: Tensor) -> Tensor:
        """Context values of new episodes: [n, C] float64."""
        if not self._some_sampled:
            return given
        values = draw_tasks(self.spec, self.split, key)
        return values if self._all_sampled else torch.where(sampled.unsqueeze(1), values, given)

    def check_actions(self, actions: Any, batched: bool = True) -> Tensor:
        """Turn a batch of actions, or one action, into a tensor: [B, d] float32 or [B] int64.

        Raises:
            ResetNeeded: there was no reset yet.
            InvalidInputError: a wrong shape or type, NaN, or a value outside the action space; for one action of a
                turn-based game, also one that is not legal now. In a batch the game takes that for a legal one.
        """
        if not self._started:
            raise ResetNeeded(f"{self.spec.id}: call reset() before step()")
        shape = (self.num_envs, *(self.action_space.shape or ())) if batched else self.action_space.shape
        who = f"{self.spec.id}: the {self.role}"
        array = as_actions(who, actions, self.action_space, shape)
        if self.spec.turn_based and not batched and not self.done[0]:
            mask = self.action_masks()[0]  # type: ignore[index]
            refuse_illegal(who, array, mask, self.spec.action_names)
        tensor = torch.from_numpy(array)
        return tensor if batched else tensor.unsqueeze(0)

    # Showing

    def _remember(self, before: list[Any]) -> None:
        if self.screen:
            self._history = [*before, self.rows.state][-(self.duel.horizon + 1) :]

    def render(self, row: int) -> npt.NDArray[np.uint8] | None:
        """Draw a row's episode so far: [H, W, 3], or None where it went to a window.

        Raises:
            ResetNeeded: there was no reset yet.
            InvalidInputError: the seat was made without a ``render_mode``.
        """
        if self.screen is None:
            raise InvalidInputError("render_mode=None draws nothing: make the environment with render_mode='rgb_array'")
        if not self._started:
            raise ResetNeeded(f"{self.spec.id}: call reset() before render()")
        one = slice(row, row + 1)
        states = [take_rows(state, one) for state in self._history[-(int(self.rows.step[row]) + 1) :]]
        opponent = str(self.opponents[row])
        self.screen.names = ("learner", opponent) if self.me == 0 else (opponent, "learner")
        return self.screen.frame(take_rows(self.rows.params, one), states, self._returns[row].tolist())

    def close(self) -> None:
        """Close the window, if there is one. May be called twice."""
        if self.screen:
            self.screen.close()


class TaskApi:
    """The task interface of meta-learning libraries, for one row."""

    _seat: Seat
    _row: int

    def sample_tasks(self, n: int, seed: int | None = None) -> list[Task]:
        """Sample ``n`` tasks of the environment's split: other ones at every call, or those that ``seed`` gives.

        After a seeded reset the same calls give the same tasks again.
        """
        return self._seat.sample_tasks(n, seed, self._row)

    def set_task(self, task: TaskLike) -> None:
        """Play ``task`` from the next reset on; ``None`` goes back to sampling one at every reset."""
        mask = np.arange(self._seat.num_envs) == self._row
        self._seat.configure({"task": task}, mask)

    def get_task(self) -> Task:
        """The task that was set, or else the one that the last reset sampled; hidden contexts included."""
        return self._seat.task(self._row)


class Row(TaskApi):
    """One row of a batch, as ``call``, ``get_attr`` and ``env_method`` of the vectorised adapters see it."""

    def __init__(self, seat: Seat, row: int) -> None:
        self._seat, self._row = seat, row
        self.render_mode, self.seat, self.split = seat.render_mode, seat.role, seat.split
        self.horizon = seat.duel.horizon
        self.observation_space, self.action_space = seat.observation_space, seat.action_space

    @property
    def opponent(self) -> str:
        """The name of the row's opponent."""
        return str(self._seat.opponents[self._row])

    @property
    def unwrapped(self) -> Row:
        """Itself."""
        return self

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the row."""
        return self._seat.render(self._row)


def _take(tensor: Tensor, index: Tensor | None) -> Tensor:
    return tensor if index is None else tensor[index]


def _put(tensor: Tensor, index: Tensor | None, rows: Tensor) -> Tensor:
    return rows if index is None else tensor.index_copy(0, index, rows)


def _widen(memory: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(memory, (0, width - memory.shape[1]))
