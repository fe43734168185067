"""The native Gymnasium vector environment: many duels in one batch, in all three autoreset modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from metaduel.envs.adapters.seat import Mask, OpponentLike, Row, Seat, TaskLike
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.spec import GameSpec

Array = npt.NDArray[Any]
Infos = dict[str, Any]


class SeatVectorEnv(VectorEnv[Array, Array, Array]):
    """One seat of many duels: ``gymnasium.make_vec(id, num_envs=64, vectorization_mode="vector_entry_point")``.

    Row i is the single environment seeded ``seed + i``, bit for bit; observations, rewards and infos follow
    ``gymnasium.vector.SyncVectorEnv`` in each autoreset mode. ``task`` and ``opponent`` may be lists with an item for
    each row, here and in ``reset(options=...)``.

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        num_envs: how many rows.
        seat: the role that the learner plays, in every row.
        opponent: see ``SeatEnv``, or a list.
        task: see ``SeatEnv``, or a list.
        split: where sampled tasks come from.
        informed: whether the learner sees every context.
        horizon: steps until truncation; the family's own by default.
        render_mode: ``None`` or ``rgb_array``.
        autoreset_mode: a ``gymnasium.vector.AutoresetMode``, or its value: ``NextStep``, ``SameStep`` or ``Disabled``.
        max_episode_steps: another name for ``horizon``, which Gymnasium uses.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

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
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise unknown("render_mode of a vector environment", render_mode, ("rgb_array",))
        try:
            self._mode = AutoresetMode(autoreset_mode)
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
        self.metadata = {**self.metadata, "render_fps": self._seat.spec.fps, "autoreset_mode": self._mode}
        self.single_observation_space = self._seat.observation_space
        self.single_action_space = self._seat.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rows = [Row(self._seat, row) for row in range(self.num_envs)]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Array, Infos]:
        """Start episodes.

        Args:
            seed: row i gets ``seed + i``, or its item of a list; without a seed, a row's next episode follows.
            options: ``reset_mask`` (a [num_envs] bool array with at least one true): the rows to reset; ``task`` and
                ``opponent``: as in the constructor, for the rows that are reset; they stay until they are replaced.

        Raises:
            InvalidInputError: an unknown option or a bad value; the environment is as before then.
        """
        options = dict(options or {})
        mask = self._check_mask(options.pop("reset_mask")) if "reset_mask" in options else None
        seeds = self._check_seeds(seed)
        self._seat.configure(options, mask)
        if isinstance(seed, int):
            super().reset(seed=seed)
        for row in range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist():
            if seeds[row] is not None:
                self._seat.reseed(row, seeds[row])  # type: ignore[arg-type]
        self._seat.reset(mask)
        return self._seat.observation(), self._infos(np.ones(self.num_envs, np.bool_) if mask is None else mask)

    def _check_seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        seeds = list(seed) if isinstance(seed, (list, tuple)) else None
        if seeds is None and isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
            seeds = [int(seed) + row for row in range(self.num_envs)]
        if seeds is None or any(s is not None and (not isinstance(s, (int, np.integer)) or s < 0) for s in seeds):
            raise InvalidInputError(f"seed={seed!r} must be a whole number of at least 0, or a list of them")
        if len(seeds) != self.num_envs:
            raise InvalidInputError(f"seed: a list of {len(seeds)} must have one for each of {self.num_envs} rows")
        return seeds

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
        if self._mode is AutoresetMode.DISABLED and over.any():
            rows = over.nonzero().squeeze(1).tolist()[:5]
            raise ResetNeeded(f"{self._seat.spec.id}: the episode is over in rows {rows}: reset them before step()")
        reward, terminated, truncated = self._seat.step(chosen, over if self._mode is AutoresetMode.NEXT_STEP else None)
        every = np.ones(self.num_envs, np.bool_)
        infos: Infos = {}
        if self._mode is AutoresetMode.SAME_STEP and self._seat.done.any():
            done = self._seat.done.numpy().copy()
            last = np.full(self.num_envs, None, object)
            for row, observation in zip(np.flatnonzero(done), self._seat.observation()[done], strict=True):
                last[row] = observation
            infos = {"final_obs": last, "_final_obs": done, "final_info": self._infos(done), "_final_info": done.copy()}
            self._seat.reset(done)
        infos.update(self._infos(every))
        return (
            self._seat.observation(),
            reward.to(torch.float64).numpy(),
            terminated.numpy().copy(),
            truncated.numpy().copy(),
            infos,
        )

    def _infos(self, mask: Mask) -> Infos:
        """Ids of tasks, names of opponents and masks of actions in the rows of ``mask``, None or 0 elsewhere."""
        infos: Infos = {}
        for name, values in (("task", self._seat.task_ids()), ("opponent", self._seat.opponents.copy())):
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
        """Call a method of every row (``sample_tasks``, ``set_task``, ``get_task``), or read an attribute."""
        found = [getattr(row, name) for row in self._rows]
        return tuple(item(*args, **kwargs) if callable(item) else item for item in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every row."""
        return self.call(name)

    def set_attr(self, name: str, values: list[Any] | tuple[Any, ...] | Any) -> None:
        """Set an attribute of every row; a list or tuple gives one value for each."""
        each = values if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise InvalidInputError(
                f"{name}: a list of {len(each)} must have one value for each of {self.num_envs} rows"
            )
        for row, value in zip(self._rows, each, strict=True):
            setattr(row, name, value)

    def close_extras(self, **kwargs: Any) -> None:
        """Release what rendering holds."""
        self._seat.close()
