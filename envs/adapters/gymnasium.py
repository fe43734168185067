"""The Gymnasium environment: one seat of a duel, an opponent in the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded

from metaduel.envs.adapters.rows import OneRow, one_only
from metaduel.envs.adapters.sealed import Sealed
from metaduel.envs.adapters.seat import OpponentLike, Seat, TaskLike, Timed
from metaduel.envs.core.errors import check_seed
from metaduel.envs.core.spec import GameSpec
from metaduel.envs.render.screen import RENDER_MODES

Action = npt.NDArray[np.float32] | np.int64
Observation = npt.NDArray[np.float32]


class SeatEnv(OneRow, Timed, Sealed, gymnasium.Env[Observation, Action]):
    """One seat of a duel as a Gymnasium environment: ``gymnasium.make("metaduel/Navigation-v0", seat="adversary")``.

    ``info`` names the task by its id and the opponent by its name; neither holds a hidden value. In turn-based games it
    also has the ``action_mask`` (1 where an action is legal now), and ``action_space.sample()`` gives legal actions.
    ``set_opponent``, ``set_task`` and ``set_split``, the task interface of meta-learning libraries (``sample_tasks``,
    ``get_task``) and ``action_masks`` are on ``env.unwrapped``. The clock is the family's own: ``env.spec`` tells it as
    ``max_episode_steps``, no ``TimeLimit`` is wrapped around (unless ``env.spec`` itself is given to ``gymnasium.make``), and
    ``truncated`` is never true where ``terminated`` is.
    Attributes are read, not set: one that has no effect is refused.

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        seat: ``protagonist`` or ``adversary``: the role that the learner plays.
        opponent: the player in the other seat: a scripted name, ``run:FOLDER`` or ``sb3:FILE``, a path, a model of
            Stable-Baselines3 or anything with its ``predict``, an ``Agent``, a ``core.Player``; the first training opponent by
            default.
        task: a value for each context (the others take their defaults), ``SPLIT:INDEX`` of a frozen list, or ``None``:
            a new task of ``split`` at every reset.
        split: where sampled tasks come from.
        informed: whether the learner sees every context, hidden ones included.
        horizon: steps until truncation; the family's own by default.
        render_mode: ``None``, ``rgb_array`` or ``human``.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 20}  # noqa: RUF012

    SETTABLE: ClassVar[tuple[str, ...]] = ("spec", "metadata", "np_random")

    def __init__(
        self,
        game: str | GameSpec,
        seat: str = "protagonist",
        opponent: OpponentLike = None,
        task: TaskLike = None,
        split: str = "train",
        informed: bool = False,
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        for name, value in (("task", task), ("opponent", opponent), ("split", split)):
            one_only(name, value)
        self._seat, self._row = Seat(game, 1, seat, opponent, task, split, informed, horizon, render_mode), 0
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self._seat.spec.fps}
        self.observation_space = self._seat.observation_space  # type: ignore[assignment]
        self.action_space = self._seat.action_space  # type: ignore[assignment]
        self.seal()

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: starts the sequence of episodes that belongs to this seed; without it, the next one follows.
            options: ``task``, ``opponent`` and ``split`` as in the constructor; each stays until it is replaced.

        Raises:
            InvalidInputError: an unknown option or a bad value; the environment is as before then.
        """
        for name, value in (options or {}).items() if isinstance(options, Mapping) else ():
            one_only(name, value)
        change, number = self._seat.check(options), None if seed is None else check_seed(seed)
        self._seat.take(change)
        super().reset(seed=number)
        if number is not None:
            self._seat.reseed(0, number)
        self._seat.reset()
        self._show()
        return self._seat.observation()[0], self._info()

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one step.

        Raises:
            ResetNeeded: the episode is over, or none was started.
            InvalidInputError: an action of the wrong shape or type, NaN, outside the space, or not legal now.
        """
        actions = self._seat.check_actions(action, batched=False)
        if self._seat.done[0]:
            raise ResetNeeded(f"{self._seat.spec.id}: the episode is over: call reset() before step()")
        reward, terminated, truncated = self._seat.step(actions)
        self._show()
        return self._seat.observation()[0], float(reward), bool(terminated), bool(truncated), self._info()

    def _info(self) -> dict[str, Any]:
        info = {"task": self._seat.task_ids()[0], "opponent": self._seat.opponents[0]}
        masks = self._seat.action_masks()
        if masks is not None:
            info["action_mask"] = masks[0]
            self.action_space.legal = masks[0].copy()  # type: ignore[attr-defined]
        return info

    def _show(self) -> None:
        if self.render_mode == "human":
            self._seat.render(0)

    def render(self) -> npt.NDArray[np.uint8] | None:  # type: ignore[override]
        """The picture of the episode so far, [H, W, 3]; None for ``human``, which draws at every step by itself."""
        return None if self.render_mode == "human" else self._seat.render(0)

    def close(self) -> None:
        """Close the window, if there is one."""
        self._seat.close()


def seat_of(env: Any) -> Seat | None:
    """The seat of one of our environments, plain or vectorised, under any wrappers; None: an environment of another kind."""
    seat = getattr(getattr(env, "unwrapped", None), "_seat", None)
    return seat if isinstance(seat, Seat) else None
