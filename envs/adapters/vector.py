"""The native Gymnasium vector environment: many duels in one batch, in all three autoreset modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from metaduel.envs.adapters.rows import AllRows, Row, call_rows
from metaduel.envs.adapters.sealed import Sealed
from metaduel.envs.adapters.seat import OpponentLike, Seat, TaskLike, Timed
from metaduel.envs.adapters.starts import Mask
from metaduel.envs.core.errors import InvalidInputError, check_seed, unknown
from metaduel.envs.core.spec import GameSpec

Array = npt.NDArray[Any]
Infos = dict[str, Any]


class SeatVectorEnv(AllRows, Timed, Sealed, VectorEnv[Array, Array, Array]):
    """One seat of many duels: ``gymnasium.make_vec(id, num_envs=64, vectorization_mode="vector_entry_point")``.

    Row i is the single environment seeded ``seed + i``, bit for bit; observations, rewards and infos follow
    ``gymnasium.vector.SyncVectorEnv`` in each autoreset mode. ``task``, ``opponent`` and ``split`` may be lists with an
    item for each row, here, in ``reset(options=...)`` and in ``set_task``, ``set_opponent``, ``set_split``, which hold from each
    row's next reset on. Attributes are read, not set: ``set_attr`` refuses.

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        num_envs: how many rows.
        seat: the role that the learner plays, in every row.
        opponent: see ``SeatEnv``, or a list.
        task: see ``SeatEnv``, or a list.
        split: where sampled tasks come from, or a list.
        informed: whether the learner sees every context.
        horizon: steps until truncation; the family's own by default.
        render_mode: ``None`` or ``rgb_array``.
        autoreset_mode: a ``gymnasium.vector.AutoresetMode``, or its value: ``NextStep``, ``SameStep`` or ``Disabled``.
        max_episode_steps: another name for ``horizon``, which Gymnasium uses.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    SETTABLE: ClassVar[tuple[str, ...]] = ("spec", "metadata", "np_random", "closed")

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
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise unknown("render_mode of a vector environment", render_mode, ("rgb_array",))
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            raise unknown("autoreset_mode", autoreset_mode, [mode.value for mode in AutoresetMode]) from None
        if horizon is not None and max_episode_steps is not None and horizon != max_episode_steps:
            raise InvalidInputError(
                f"horizon={horizon} and max_episode_steps={max_episode_steps} mean the same: give one"
            )
        horizon = max_episode_steps if horizon is None else horizon
        self._seat = Seat(game, num_envs, seat, opponent, task, split, informed, horizon, render_mode)
        self.num_envs = self._seat.num_envs
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self._seat.spec.fps, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self._seat.observation_space
        self.single_action_space = self._seat.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rows = [Row(self._seat, row) for row in range(self.num_envs)]
        self.seal()

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Array, Infos]:
        """Start episodes.

        Args:
            seed: row i gets ``seed + i``, or its item of a list; without a seed, a row's next episode follows.
            options: ``reset_mask`` (a [num_envs] bool array with at least one true): the rows to reset; ``task``,
                ``opponent`` and ``split``: as in the constructor, for the rows that are reset; each stays until it is replaced.

        Raises:
            InvalidInputError: an unknown option or a bad value; the environment is as before then.
        """
        own = dict(options) if isinstance(options, Mapping) else options
        mask = self._check_mask(own.pop("reset_mask")) if isinstance(own, dict) and "reset_mask" in own else None
        seeds = self._check_seeds(seed)
        change = self._seat.check(own, mask)
        self._seat.check_reset(mask)
        self._seat.take(change)
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        for row in range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist():
            number = seeds[row]
            if number is not None:
                self._seat.reseed(row, number)
        self._seat.reset(mask)
        return self._seat.observation(), self._infos(np.ones(self.num_envs, np.bool_) if mask is None else mask)

    def _check_seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if not isinstance(seed, (list, tuple, np.ndarray)):
            first = check_seed(seed)
            return [check_seed(first + row) for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise InvalidInputError(f"seed: a list of {len(seed)} must have one for each of {self.num_envs} rows")
        return [None if one is None else check_seed(one) for one in seed]

    def _check_mask(self, mask: object) -> Mask:
        right = f"must be a NumPy array of bool and shape ({self.num_envs},) with at least one true"
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            kind = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise InvalidInputError(f"options['reset_mask'] {right}, not {kind}")
        if not mask.any():
            raise InvalidInputError(f"options['reset_mask'] {right}: it has none")
        return mask

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, Infos]:
        """Play one step in every row; rows whose episode is over do what the autoreset mode says.

        Returns:
            Observations [B, d] float32, rewards [B] float64, terminated [B] bool, truncated [B] bool, infos.

        Raises:
            ResetNeeded: before the first reset, or a row's episode is over and autoreset is disabled.
            InvalidInputError: actions of the wrong shape or type, NaN, or outside the space.
        """
        chosen = self._seat.check_actions(actions)
        over = self._seat.done
        if self.autoreset_mode is AutoresetMode.DISABLED and over.any():
            rows = over.nonzero().squeeze(1).tolist()[:5]
            raise ResetNeeded(f"{self._seat.spec.id}: the episode is over in rows {rows}: reset them before step()")
        reward, terminated, truncated = self._seat.step(
            chosen, over if self.autoreset_mode is AutoresetMode.NEXT_STEP else None
        )
        every = np.ones(self.num_envs, np.bool_)
        infos: Infos = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._seat.done.any():
            done = self._seat.done.numpy().copy()
            last = np.full(self.num_envs, None, object)
            ended = self._seat.done.nonzero().squeeze(1)
            for row, observation in zip(
                ended.tolist(), self._seat.observations[self._seat.me][ended].numpy(), strict=True
            ):
                last[row] = observation
            infos = {"final_obs": last, "_final_obs": done, "final_info": self._infos(done), "_final_info": done.copy()}
            self._seat.reset(done)
        infos.update(self._infos(every))
        return (
            self._seat.observation(),
            reward.numpy().astype(np.float64),
            terminated.numpy().copy(),
            truncated.numpy().copy(),
            infos,
        )

    def _infos(self, mask: Mask) -> Infos:
        """Ids of tasks, names of opponents and masks of actions in the rows of ``mask``, None or 0 elsewhere."""
        infos: Infos = {}
        some = not mask.all()
        for name, values in (("task", self._seat.task_ids()), ("opponent", self._seat.opponents.copy())):
            if some:
                values[~mask] = None
            infos[name], infos[f"_{name}"] = values, mask.copy()
        masks = self._seat.action_masks()
        if masks is not None:
            masks[~mask] = 0
            infos["action_mask"], infos["_action_mask"] = masks, mask.copy()
        return infos

    def render(self) -> tuple[Any, ...] | None:
        """One picture [H, W, 3] for each row."""
        return tuple(self._seat.render(row) for row in range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every row (``set_opponent``, ``get_task``, ``sample_tasks``), or read an attribute."""
        if callable(getattr(self._rows[0], name)):
            return tuple(call_rows(self._rows, name, *args, **kwargs))
        return tuple(getattr(row, name) for row in self._rows)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every row."""
        return tuple(getattr(row, name) for row in self._rows)

    def set_attr(self, name: str, values: list[Any] | tuple[Any, ...] | Any) -> None:
        """Not supported, since no attribute would have an effect: ``set_opponent``, ``set_task`` and ``set_split`` have.

        Raises:
            InvalidInputError: always.
        """
        for row in self._rows:
            setattr(row, name, values)

    def close_extras(self, **kwargs: Any) -> None:
        """Release what rendering holds."""
        self._seat.close()
