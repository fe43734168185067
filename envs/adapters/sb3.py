"""The Stable-Baselines3 VecEnv: many duels in one batch, reset within the step that ends them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from metaduel.envs.adapters.given import fresh_seeds
from metaduel.envs.adapters.rows import AllRows, Row, call_rows, one_only
from metaduel.envs.adapters.sealed import Sealed
from metaduel.envs.adapters.seat import OPTIONS, OpponentLike, Seat, TaskLike
from metaduel.envs.core.errors import InvalidInputError, check_seed, unknown
from metaduel.envs.core.spec import GameSpec

Array = npt.NDArray[Any]
Indices = int | Iterable[int] | None


class SeatVecEnv(AllRows, Sealed, VecEnv):  # type: ignore[misc]
    """One seat of many duels for Stable-Baselines3; see ``make_sb3``, which adds what records episode returns."""

    SETTABLE: ClassVar[tuple[str, ...]] = ("metadata", "reset_infos")

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._rows = [Row(seat, row) for row in range(seat.num_envs)]
        super().__init__(seat.num_envs, seat.observation_space, seat.action_space)
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": seat.spec.fps}
        self.seal()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next ``reset``: row i with ``seed + i``; None: from the system's entropy.

        Raises:
            InvalidInputError: not a whole number that a seed can be.
        """
        if seed is None:
            self._seeds = fresh_seeds(self.num_envs).tolist()
        else:
            first: int = check_seed(seed)
            self._seeds: list[int | None] = [check_seed(first + row) for row in range(self.num_envs)]
        return self._seeds

    def set_options(self, options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None) -> None:
        """Set ``opponent``, ``task`` and ``split`` from each row's next reset on, automatic resets included.

        Args:
            options: for all rows, or a list with one for each row; what is left out stays as it is.

        Raises:
            InvalidInputError: an unknown option or a bad value; no row has changed then.
        """
        each = [options or {}] * self.num_envs if options is None or isinstance(options, Mapping) else list(options)
        if len(each) != self.num_envs or not all(isinstance(one, Mapping) for one in each):
            raise InvalidInputError(f"options={options!r} must be a mapping, or a list with one for each row")
        changes = []
        for key in dict.fromkeys(key for one in each for key in one):
            if key not in OPTIONS:
                raise unknown("reset option", key, OPTIONS)
            for one in each:
                one_only(key, one.get(key))
            rows = np.array([key in one for one in each])
            changes.append(self._seat.check({key: [one.get(key) for one in each]}, rows))
        for change in changes:
            self._seat.take(change)

    def reset(self) -> Array:
        """Start an episode in every row, with the seeds that were set since the last one."""
        for row, seed in enumerate(self._seeds):
            if seed is not None:
                self._seat.reseed(row, seed)
        self._seat.reset()
        self._reset_seeds()
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
        """Not supported, since no attribute would have an effect: ``set_opponent``, ``set_task`` and ``set_split`` have.

        Raises:
            InvalidInputError: always.
        """
        for row in self._get_indices(indices):
            setattr(self._rows[row], attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Call a method of rows: ``set_opponent``, ``set_task``, ``set_split``, ``get_task``, ``action_masks`` ..."""
        return call_rows([self._rows[row] for row in self._get_indices(indices)], method_name, *args, **kwargs)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """No row is wrapped."""
        return [False for _ in self._get_indices(indices)]


class SeatMonitor(Sealed, VecMonitor):  # type: ignore[misc]
    """Records episode returns, as ``VecMonitor`` does; refuses to set attributes that are not its own; may be copied."""

    def __init__(self, venv: SeatVecEnv) -> None:
        super().__init__(venv)
        self.SETTABLE = tuple(vars(self))  # type: ignore[misc]
        self.seal()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "class_attributes"}  # which has no copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, class_attributes=dict(inspect.getmembers(type(self))))


def make_sb3(
    game: str | GameSpec,
    num_envs: int = 1,
    seat: str = "protagonist",
    opponent: OpponentLike | Sequence[OpponentLike] = None,
    task: TaskLike | Sequence[TaskLike] = None,
    split: str | Sequence[str] = "train",
    informed: bool = False,
    horizon: int | None = None,
    render_mode: str | None = None,
    seed: int | None = None,
) -> VecEnv:
    """Make a Stable-Baselines3 VecEnv of one seat.

    ``PPO("MlpPolicy", make_sb3("Navigation", num_envs=64)).learn(100_000)`` trains against the default opponent on the
    training tasks. Truncation and last observations are reported as its algorithms expect (``TimeLimit.truncated``,
    ``terminal_observation``), and episode returns are recorded (``VecMonitor``). ``env.seed(0)`` is for the next
    ``env.reset()``. ``env.set_opponent(...)``, ``env.set_task(...)``, ``env.set_split(...)``, ``env.env_method`` with these names
    and ``env.set_options`` hold from each row's next reset on, the automatic one within a step included.

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        num_envs: how many rows.
        seat: the role that the learner plays, in every row.
        opponent: the player in the other seat, or a list with one for each row; see ``SeatEnv``.
        task: see ``SeatEnv``, or a list with one for each row.
        split: where sampled tasks come from, or a list with one for each row.
        informed: whether the learner sees every context.
        horizon: steps until truncation; the family's own by default.
        render_mode: ``None`` or ``rgb_array``.
        seed: row i gets ``seed + i`` at the first reset.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
    """
    if render_mode not in (None, "rgb_array"):
        raise unknown("render_mode of a vector environment", render_mode, ("rgb_array",))
    first = None if seed is None else check_seed(seed)
    env = SeatVecEnv(Seat(game, num_envs, seat, opponent, task, split, informed, horizon, render_mode))
    if first is not None:
        env.seed(first)
    return SeatMonitor(env)
