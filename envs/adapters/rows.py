"""What can be told to, and asked of, one row of a batch, several, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from metaduel.envs.adapters.sealed import Sealed
from metaduel.envs.adapters.seat import OpponentLike, Seat, TaskLike
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role, Task

Masks = npt.NDArray[np.bool_]


class OneRow:
    """What a single environment, or one row of a batch, has: its settings, the interface of meta-learning libraries to
    tasks, and masks of actions.
    """

    _seat: Seat
    _row: int

    @property
    def seat(self) -> Role:
        """The role that the learner plays."""
        return self._seat.role

    @property
    def opponent(self) -> str:
        """The name of the opponent in the current episode."""
        return str(self._seat.opponents[self._row])

    @property
    def task(self) -> Task | None:
        """The task that was given; None: one is sampled at every reset. See ``get_task``."""
        return self._seat.given(self._row)

    @property
    def split(self) -> str:
        """Where tasks are sampled."""
        return str(self._seat.splits[self._row])

    @property
    def informed(self) -> bool:
        """Whether the learner sees every context."""
        return self._seat.informed

    @property
    def horizon(self) -> int:
        """Steps until truncation."""
        return self._seat.duel.horizon

    def set_opponent(self, opponent: OpponentLike) -> None:
        """Play against ``opponent`` from the next reset on; None: the first training opponent."""
        set_rows(self._seat, [self._row], "opponent", opponent)

    def set_task(self, task: TaskLike) -> None:
        """Play ``task`` from the next reset on; None goes back to sampling one at every reset."""
        set_rows(self._seat, [self._row], "task", task)

    def set_split(self, split: str) -> None:
        """Sample tasks of ``split`` from the next reset on."""
        set_rows(self._seat, [self._row], "split", split)

    def sample_tasks(self, n: int, seed: int | None = None) -> list[Task]:
        """Sample ``n`` tasks of the environment's split: other ones at every call, or those that ``seed`` gives.

        After a seeded reset the same calls give the same tasks again.
        """
        return self._seat.sample_tasks(n, seed, self._row)

    def get_task(self) -> Task:
        """The task that was set, or else the one that the last reset sampled; hidden contexts included."""
        return self._seat.task(self._row)

    def action_masks(self) -> Masks:
        """[n] bool: which actions are legal now; all of them, except in turn-based games.

        Raises:
            InvalidInputError: the actions are continuous.
            ResetNeeded: there was no reset yet.
        """
        masks: Masks = all_masks(self._seat)[self._row]
        return masks


class Row(OneRow, Sealed):
    """One row of a batch, as ``call``, ``get_attr`` and ``env_method`` of the vectorised adapters see it."""

    def __init__(self, seat: Seat, row: int) -> None:
        self._seat, self._row = seat, row
        self.seal()

    @property
    def render_mode(self) -> str | None:
        """How it is drawn."""
        return self._seat.render_mode

    @property
    def observation_space(self) -> spaces.Box:
        """What the learner sees."""
        return self._seat.observation_space

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete:
        """What the learner does."""
        return self._seat.action_space

    @property
    def unwrapped(self) -> Row:
        """Itself."""
        return self

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the row."""
        return self._seat.render(self._row)


class AllRows:
    """What the vectorised adapters have for all rows at once. A list has one item for each row."""

    _seat: Seat

    def set_opponent(self, opponent: OpponentLike | Sequence[OpponentLike]) -> None:
        """Play against ``opponent`` from each row's next reset on."""
        self._seat.configure({"opponent": opponent})

    def set_task(self, task: TaskLike | Sequence[TaskLike]) -> None:
        """Play ``task`` from each row's next reset on; None goes back to sampling one at every reset."""
        self._seat.configure({"task": task})

    def set_split(self, split: str | Sequence[str]) -> None:
        """Sample tasks of ``split`` from each row's next reset on."""
        self._seat.configure({"split": split})

    def action_masks(self) -> Masks:
        """[B, n] bool, see ``OneRow.action_masks``."""
        return all_masks(self._seat)


def set_rows(seat: Seat, rows: Sequence[int], name: str, value: Any) -> None:
    """Set an option of some rows to one value, from their next reset on."""
    one_only(name, value)
    mask = np.zeros(seat.num_envs, np.bool_)
    mask[list(rows)] = True
    seat.configure({name: value}, mask)


def one_only(name: str, value: Any) -> None:
    """Raise ``InvalidInputError`` where one environment is given a list."""
    if isinstance(value, (list, tuple)):
        raise InvalidInputError(f"{name}: one environment takes one {name}, not a {type(value).__name__}")


def call_rows(rows: Sequence[Row], method: str, *args: Any, **kwargs: Any) -> list[Any]:
    """Call a method of several rows.

    A setter is one call for all of them: a file is read once, rows with the same player are played together, and where
    the value is refused, no row has changed. So are masks, which learners ask for at every step.
    """
    found = [getattr(row, method) for row in rows]
    option = method.removeprefix("set_")
    if rows and method != option:
        set_rows(rows[0]._seat, [row._row for row in rows], option, _only(option, *args, **kwargs))
        return [None] * len(rows)
    if rows and method == "action_masks":
        return list(all_masks(rows[0]._seat, *args, **kwargs)[[row._row for row in rows]])
    return [function(*args, **kwargs) for function in found]


def _only(option: str, *args: Any, **kwargs: Any) -> Any:
    """The one argument of a setter."""
    if len(args) + len(kwargs) != 1 or (kwargs and option not in kwargs):
        raise TypeError(f"set_{option} takes one argument, {option}")
    return args[0] if args else kwargs[option]


def all_masks(seat: Seat) -> Masks:
    """[B, n] bool: which actions are legal now.

    Raises:
        InvalidInputError: the actions are continuous.
        ResetNeeded: there was no reset yet.
    """
    if not isinstance(seat.action_space, spaces.Discrete):
        raise InvalidInputError(
            f"action_masks: {seat.spec.name}'s actions are continuous ({seat.action_space}): no masks"
        )
    if not seat.started:
        raise ResetNeeded(f"{seat.spec.id}: call reset() before action_masks()")
    legal = seat.action_masks()
    return np.ones((seat.num_envs, int(seat.action_space.n)), np.bool_) if legal is None else legal.astype(np.bool_)
