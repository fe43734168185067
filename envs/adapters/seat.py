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
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from torch import Tensor

from metaduel.envs.adapters.legal import as_actions, int8, own_space, refuse_illegal
from metaduel.envs.adapters.opponents import Opponents, Sitting
from metaduel.envs.adapters.starts import Mask, Starts
from metaduel.envs.core import registry, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, check_seed, check_whole, unknown
from metaduel.envs.core.game import Episode, Pair, make_game
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Task, other
from metaduel.envs.core.trees import take_rows
from metaduel.envs.render.screen import Screen

TaskLike = Mapping[str, float] | str | None  # context values, SPLIT:INDEX of a frozen list, or None: sampled at reset
OpponentLike = Any  # a core Player, or what ``names.load_player`` takes; None: the family's first training opponent
OPTIONS = ("task", "opponent", "split")  # what ``reset(options=...)`` of every adapter takes
_CPU = torch.device("cpu")


class Step(NamedTuple):
    """What the learner gets from a step."""

    reward: Tensor  # [B] its own
    terminated: Tensor  # [B] bool: the rules ended the episode
    truncated: Tensor  # [B] bool: the clock did


class Change(NamedTuple):
    """Options that were checked, see ``Seat.check``; None: left as it is."""

    tasks: tuple[Tensor, Tensor] | None = None  # [B, C] float64 given ones, [B] bool whether sampled
    splits: npt.NDArray[np.object_] | None = None  # [B]
    opponents: dict[int, Sitting] | None = None


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
        split: where sampled tasks come from, for all rows, or a list with one for each row.
        informed: whether the learner sees every context, hidden ones included.
        horizon: steps until truncation; the family's own by default.
        render_mode: ``None``, or one of ``render.RENDER_MODES``.

    Attributes:
        rows: where the duels are.
        observations: ([B, d_p], [B, d_a]) what the two roles see now.
        done: [B] bool: the episode is over, the row waits for a reset.
        starts: the rows' settings, and what their episodes begin with; seeds are from the system's entropy until they are given.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
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
        split: str | Sequence[str] = "train",
        informed: bool = False,
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not isinstance(informed, (bool, np.bool_)):
            raise InvalidInputError(f"informed={informed!r} must be True or False")
        self.spec = registry.find(game)
        self.num_envs = check_whole("num_envs", num_envs)
        self.role: Role = self.spec.check_role(seat)
        self.informed = bool(informed)
        self.duel = Duel(make_game(self.spec), horizon, (self.role,) if informed else ())
        self.me = ROLES.index(self.role)
        self.other = 1 - self.me
        # Copies: seeding an environment's spaces must not touch another's.
        self.observation_space = copy.deepcopy(self.duel.observation_space(self.role))
        self.action_space = own_space(self.duel, self.role)
        self.render_mode = render_mode
        self.screen = None if render_mode is None else Screen(self.spec, render_mode)
        self.done = torch.ones(self.num_envs, dtype=torch.bool, device=_CPU)
        self.starts = Starts(self.duel, self.num_envs)
        self.started = False  # whether there was a reset
        self._ids = np.full(self.num_envs, None, object)
        self._unnamed = np.ones(self.num_envs, np.bool_)  # rows whose id of the task is yet to be computed
        self._opponents = Opponents(self.duel, other(self.role), self.num_envs)
        self._paid = torch.zeros(self.num_envs, dtype=torch.float32, device=_CPU)  # the opponents' last rewards
        self._history: list[Any] = []  # States of the last steps, newest last; only with a screen
        self._returns = torch.zeros(self.num_envs, 2, dtype=torch.float32, device=_CPU)
        self.configure({"task": task, "opponent": opponent, "split": split})
        self._opponents.begin(None)  # so that they have names before the first reset

    # The task, where it comes from, and the opponent

    def configure(self, options: Mapping[str, Any] | None, mask: Mask | None = None) -> None:
        """Take options from each row's next reset on, in the rows of ``mask`` (all by default); see ``check``."""
        self.take(self.check(options, mask))

    def check(self, options: Mapping[str, Any] | None, mask: Mask | None = None) -> Change:
        """Check ``task``, ``opponent`` and ``split``, each one value or a list with one for each row. Changes nothing.

        Args:
            options: by name; those left out stay as they are.
            mask: [B] bool: the rows that they are for; all by default.

        Raises:
            InvalidInputError: an unknown option or a bad value.
        """
        if options is not None and not isinstance(options, Mapping):
            raise InvalidInputError(f"options={options!r} must map names to values: {', '.join(OPTIONS)}")
        found = {}
        for key, value in (options or {}).items():
            if key not in OPTIONS:
                raise unknown("reset option", key, OPTIONS)
            found[key] = self.starts.per_row(key, value, mask)
        return Change(
            self.starts.check_tasks(found["task"]) if "task" in found else None,
            self.starts.check_splits(found["split"]) if "split" in found else None,
            self._opponents.make(found["opponent"]) if "opponent" in found else None,
        )

    def take(self, change: Change) -> None:
        """Take checked options, from each row's next reset on."""
        if change.tasks is not None or change.splits is not None:
            self.starts.change(change.tasks, change.splits)
        if change.opponents is not None:
            self._opponents.expect(change.opponents)

    @property
    def splits(self) -> npt.NDArray[np.object_]:
        """[B] where the rows' tasks are sampled."""
        return self.starts.splits

    @property
    def opponents(self) -> npt.NDArray[np.object_]:
        """[B] names of the opponents in the current episodes."""
        return self._opponents.names

    def given(self, row: int) -> Task | None:
        """The task that a row was given; None: tasks are sampled."""
        return self.starts.given(row)

    def task(self, row: int) -> Task:
        """The task given to a row, or else the one sampled for its current episode.

        Raises:
            ResetNeeded: tasks are sampled at resets, and there was none yet.
        """
        given = self.given(row)
        if given is None and not self.started:
            raise ResetNeeded(f"{self.spec.id}: no task yet: call reset() or set_task(task) first")
        return given or self.starts.current(row)

    def task_ids(self) -> npt.NDArray[np.object_]:
        """[B] ids of the current tasks, which tell nothing of their values; a new array at every call."""
        fresh = np.flatnonzero(self._unnamed)
        if fresh.size:
            self._ids[fresh] = tasks.task_ids(self.spec.context_names, self.starts.values.numpy()[fresh])
            self._unnamed[:] = False
        return self._ids.copy()

    def sample_tasks(self, n: int, seed: int | None = None, row: int = 0) -> list[Task]:
        """Sample ``n`` tasks of the row's split, other ones at every call; a row seeded again repeats its calls."""
        if seed is None:
            return self.starts.sample_tasks(n, row)
        return tasks.sample_tasks(self.spec, n, self.splits[row], check_seed(seed))

    # Playing

    def reseed(self, row: int, seed: int) -> None:
        """Seed a row: its next episode is its first again."""
        self.starts.reseed(row, check_seed(seed))

    def check_reset(self, mask: Mask | Tensor | None) -> None:
        """Raise ``ResetNeeded`` where a reset of some rows would be the first one."""
        if not self.started and mask is not None and not bool(mask.all()):
            raise ResetNeeded(f"{self.spec.id}: the first reset must be of all rows")

    @torch.no_grad()
    def reset(self, mask: Mask | Tensor | None = None) -> None:
        """Start a new episode in the rows of ``mask`` (all by default)."""
        self.check_reset(mask)
        index = None if mask is None else torch.from_numpy(np.flatnonzero(mask))
        self._start(index)
        if index is None or len(index) == self.num_envs:
            self.observations, self.done = self.starts.observations(None), torch.zeros_like(self.done)
        else:
            self.observations = self.starts.observations(self.observations)
            self.done = self.done.index_fill(0, index, False)
        self._remember(self._history[:-1])

    @torch.no_grad()
    def step(self, actions: Tensor, restart: Tensor | None = None) -> Step:
        """Play one step.

        Args:
            actions: [B, d] floats or [B] int64, within the action space (see ``check_actions``).
            restart: [B] bool: rows that start a new episode instead, with reward 0.
        """
        answers = self._opponents.act(self.rows, self.observations[self.other], self._paid)
        pair = (actions, answers) if self.me == 0 else (answers, actions)
        self.rows, (rewards, terminated, truncated) = self.duel.step(self.rows, pair)
        reward, self._paid = rewards[:, self.me], rewards[:, self.other]
        if self.screen:
            self._returns = self._returns + rewards
        if restart is not None and len(again := restart.nonzero().squeeze(1)):
            self._start(again)
            reward = reward.masked_fill(restart, 0.0)
            terminated, truncated = terminated & ~restart, truncated & ~restart
        self.observations = self.duel.observe(self.rows)
        self.done = terminated | truncated
        self._remember(self._history)
        return Step(reward, terminated, truncated)

    def observation(self) -> npt.NDArray[np.float32]:
        """[B, d] what the learner sees now; a new array at every call."""
        array: npt.NDArray[np.float32] = self.observations[self.me].clone(memory_format=torch.contiguous_format).numpy()
        return array

    def action_masks(self) -> npt.NDArray[np.int8] | None:
        """[B, n] 1 where the learner may choose an action now, in turn-based games; a new array at every call."""
        return int8(self.duel.legal(self.rows)[self.me]) if self.spec.turn_based else None

    def _start(self, index: Tensor | None) -> None:
        """Start new episodes in the rows at ``index`` (all by default). Writes into no tensor that was handed out."""
        self.rows = self.starts.begin(self.rows if self.started else None, index)
        self._unnamed[slice(None) if index is None else index.numpy()] = True
        self._opponents.begin(index)
        if index is None:
            index = torch.arange(self.num_envs, dtype=torch.int64, device=_CPU)
        self._paid = self._paid.index_fill(0, index, 0.0)
        if self.screen:
            self._returns = self._returns.index_fill(0, index, 0.0)
        self.started = True

    def check_actions(self, actions: Any, batched: bool = True) -> Tensor:
        """Turn a batch of actions, or one action, into a tensor: [B, d] float32 or [B] int64.

        Raises:
            ResetNeeded: there was no reset yet.
            InvalidInputError: a wrong shape or type, NaN, or a value outside the action space; for one action of a
                turn-based game, also one that is not legal now. In a batch the game takes that for a legal one.
        """
        if not self.started:
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
        if not self.started:
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


class Timed:
    """An environment whose spec tells wrappers the horizon in force."""

    _seat: Seat
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """What makes this environment, with the horizon in force as ``max_episode_steps``; None: Gymnasium didn't make it."""
        return self._spec

    @spec.setter
    def spec(self, value: EnvSpec | None) -> None:
        self._spec = copy.copy(value)
        if self._spec is not None:
            self._spec.max_episode_steps = self._seat.duel.horizon
