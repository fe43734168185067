"""The Stable-Baselines3 VecEnv: many duels in one batch, reset within the step that ends them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from metaduel.envs.adapters.seat import OpponentLike, Row, Seat, TaskLike
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.spec import GameSpec

Array = npt.NDArray[Any]
Indices = int | Iterable[int] | None


class SeatVecEnv(VecEnv):  # type: ignore[misc]
    """One seat of many duels for Stable-Baselines3; see ``make_sb3``, which adds what records episode returns."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._rows = [Row(seat, row) for row in range(seat.num_envs)]
        super().__init__(seat.num_envs, seat.observation_space, seat.action_space)

    def reset(self) -> Array:
        """Start an episode in every row, with the seeds and options that were set since the last one."""
        for key in dict.fromkeys(key for options in self._options for key in options):
            rows = np.array([key in options for options in self._options])
            self._seat.configure({key: [options.get(key) for options in self._options]}, rows)
        for row, seed in enumerate(self._seeds):
            if seed is not None:
                self._seat.reseed(row, seed)
        self._seat.reset()
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = self._infos()
        return self._seat.observation()

    def step_async(self, actions: Array) -> None:
        """Take the actions for ``step_wait``."""
        self._actions = self._seat.check_actions(actions)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Play one step; rows that end are reset, and their last observation is in ``terminal_observation``."""
        reward, _, truncated = self._seat.step(self._actions)
        done = self._seat.done.numpy().copy()
        infos = self._infos()
        for info, cut in zip(infos, truncated.tolist(), strict=True):
            info["TimeLimit.truncated"] = cut
        if done.any():
            last = self._seat.observation()
            self._seat.reset(done)
            fresh = self._infos()
            for row in np.flatnonzero(done).tolist():
                infos[row]["terminal_observation"] = last[row]
                self.reset_infos[row] = fresh[row]
        return self._seat.observation(), reward.numpy().copy(), done, infos

    def _infos(self) -> list[dict[str, Any]]:
        pairs = zip(self._seat.task_ids().tolist(), self._seat.opponents.tolist(), strict=True)
        infos: list[dict[str, Any]] = [{"task": task, "opponent": opponent} for task, opponent in pairs]
        masks = self._seat.action_masks()
        if masks is not None:
            for info, mask in zip(infos, masks, strict=True):
                info["action_mask"] = mask
        return infos

    def close(self) -> None:
        """Release what rendering holds."""
        self._seat.close()

    def get_images(self) -> Sequence[Array | None]:
        """One picture for each row."""
        return [row.render() for row in self._rows]

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Read an attribute of rows."""
        return [getattr(self._rows[row], attr_name) for row in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of rows."""
        for row in self._get_indices(indices):
            setattr(self._rows[row], attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Call a method of rows: ``sample_tasks``, ``set_task``, ``get_task``."""
        return [getattr(self._rows[row], method_name)(*args, **kwargs) for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """No row is wrapped."""
        return [False for _ in self._get_indices(indices)]


def make_sb3(
    game: str | GameSpec,
    num_envs: int = 1,
    seat: str = "protagonist",
    opponent: OpponentLike | Sequence[OpponentLike] = None,
    task: TaskLike | Sequence[TaskLike] = None,
    split: str = "train",
    informed: bool = False,
    horizon: int | None = None,
    render_mode: str | None = None,
    seed: int | None = None,
) -> VecEnv:
    """Make a Stable-Baselines3 VecEnv of one seat.

    ``PPO("MlpPolicy", make_sb3("Navigation", num_envs=64)).learn(100_000)`` trains against the default opponent on the
    training tasks. Truncation and last observations are reported as its algorithms expect (``TimeLimit.truncated``,
    ``terminal_observation``), and episode returns are recorded (``VecMonitor``). Seeds and options go the usual way:
    ``env.seed(0)``, ``env.set_options({"opponent": ...})``, both for the next reset.

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        num_envs: how many rows.
        seat: the role that the learner plays, in every row.
        opponent: the player in the other seat, or a list with one for each row; see ``SeatEnv``.
        task: see ``SeatEnv``, or a list with one for each row.
        split: where sampled tasks come from.
        informed: whether the learner sees every context.
        horizon: steps until truncation; the family's own by default.
        render_mode: ``None`` or ``rgb_array``.
        seed: row i gets ``seed + i`` at the first reset.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
    """
    if render_mode not in (None, "rgb_array"):
        raise unknown("render_mode of a vector environment", render_mode, ("rgb_array",))
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0):
        raise InvalidInputError(f"seed={seed!r} must be a whole number of at least 0")
    env = SeatVecEnv(Seat(game, num_envs, seat, opponent, task, split, informed, horizon, render_mode))
    if seed is not None:
        env.seed(int(seed))
    return VecMonitor(env)
