"""Stable-Baselines3's algorithms as adapters: a model is fine-tuned by its own ``learn`` in every row.

In every row, a shot's episodes are an environment that counts them, and ``learn`` ends with the last one. An on-policy algorithm
(PPO, A2C) also trains on its unfinished rollout, as a shorter one: with fewer steps than ``n_steps`` in a shot, it would
otherwise learn nothing. The policy as it was after the shot plays the test episodes.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metaduel.agents.adapters.protocol import BadPlayer, Experience, SeatInfo, ShotOver, check_spaces
from metaduel.agents.rollout import Place
from metaduel.agents.runtime import torch_defaults
from metaduel.agents.sb3 import copied_policy, takes_masks, why_not_alone
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.noise import derive_seed

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

_ENDLESS = 1 << 40  # steps; the environment ends ``learn`` after its last episode
_SEEDS = (1 << 32) - 1  # SB3's largest seed
# Fields of a rollout buffer; the last one is MaskablePPO's.
_KEPT = ("observations", "actions", "rewards", "values", "log_probs", "episode_starts", "action_masks")


# Rollout buffers that can be cut to an unfinished rollout, themselves and no subclass: one may keep more fields.
_BUFFERS = (
    ("stable_baselines3.common.buffers", "RolloutBuffer"),
    ("sb3_contrib.common.maskable.buffers", "MaskableRolloutBuffer"),
)


@dataclass(frozen=True)
class SB3Adapter:
    """Fine-tunes copies of a model, one in every row.

    Attributes:
        model: a model of an off-policy algorithm, or of an on-policy one whose rollouts are in a ``RolloutBuffer`` or in
            sb3-contrib's ``MaskableRolloutBuffer``; it is copied, never changed.

    Raises:
        InvalidInputError: an on-policy algorithm with another buffer.
    """

    model: BaseAlgorithm
    adapts: bool = True

    def __post_init__(self) -> None:
        kind = type(getattr(self.model, "rollout_buffer", None))
        if kind is not type(None) and (kind.__module__, kind.__qualname__) not in _BUFFERS:
            raise InvalidInputError(
                f"model={type(self.model).__name__} keeps its rollouts in a {kind.__name__}: an on-policy algorithm is "
                f"fine-tuned only with a {' or a '.join(name for _, name in _BUFFERS)}"
            )

    def start(self, seat: SeatInfo, rows: int, seed: int) -> SB3Player:
        """See ``Adapter``."""
        check_spaces(seat, self.model.observation_space, self.model.action_space)
        if (why := why_not_alone(self.model)) is not None:
            raise BadPlayer(why)
        return SB3Player([self.model.policy] * rows, seed, _Rows(self.model, [None] * rows), mask=seat.mask)

    def update(self, player: SB3Player, experience: Experience) -> SB3Player:
        """See ``Adapter``; takes a moment per row."""
        rows = player.rows
        if player.shot != rows.shot:
            raise BadPlayer("it has learned on already: a player of Stable-Baselines3 is updated once")
        rows.shot += 1
        policies = []
        with globals_kept():
            for row in range(len(player.policies)):
                model, env = rows.models[row], experience.environment(row)
                if model is None:
                    model = rows.models[row] = _clone(self.model, env)
                else:
                    model.set_env(env, force_reset=True)  # type: ignore[arg-type]  # SB3 wraps it
                model.set_random_seed(derive_seed(player.seed, row, player.shot) & _SEEDS)
                updates = model._n_updates  # type: ignore[attr-defined]  # every algorithm of SB3 counts them
                learn_until_over(model)
                if model._n_updates == updates:  # type: ignore[attr-defined]
                    raise BadPlayer(
                        f"its learn made no update in a shot of {experience.episodes} episodes: see its learning_starts and "
                        "train_freq",
                        row,
                    )
                policies.append(copied_policy(model.policy))
        return SB3Player(policies, player.seed, rows, rows.shot, mask=player.mask)


@dataclass
class _Rows:
    """The models that continue to learn, one in every row from its first shot on."""

    template: BaseAlgorithm
    models: list[BaseAlgorithm | None]
    shot: int = 0


@dataclass(frozen=True)
class SB3Player:
    """A policy for each row, as it was after a shot.

    Attributes:
        policies: one for each row.
        seed: seed of all random numbers.
        rows: the models that continue to learn.
        shot: number of updates so far.
        mask: where in an observation the legal actions stand, for policies that take masks.
    """

    policies: list[Any]
    seed: int
    rows: _Rows = field(repr=False)
    shot: int = 0
    noise: int = 0
    mask: slice | None = None

    def sit(self, place: Place) -> SB3Rows:
        """See ``rollout.Actor``."""
        return SB3Rows(self, place)


class SB3Rows:
    """Policies during a rollout, see ``rollout.Acting``. Samples are drawn from torch's generator, seeded for the rollout."""

    def __init__(self, player: SB3Player, place: Place) -> None:
        self.player, self.rows, self.shape = player, place.rows, (place.tasks, place.episodes)
        self.deterministic = place.deterministic
        self.states: list[Any] = [None] * place.tasks
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(player.seed, int(place.key[0])))
            self.generator = torch.get_rng_state()
        self.kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # observation, action, reward, alive
        self.now: tuple[Tensor, Tensor] | None = None

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``rollout.Acting``."""
        seen = observation[self.rows].view(*self.shape, -1)
        start = np.full(self.shape[1], step == 0)
        actions: list[npt.NDArray[Any]] = []
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.generator)
            for row, policy in enumerate(self.player.policies):
                own, mask = seen[row].numpy(), self.player.mask
                masks = {} if mask is None or not takes_masks(policy) else {"action_masks": own[:, mask] > 0}
                action, self.states[row] = policy.predict(
                    own, self.states[row], start, deterministic=self.deterministic, **masks
                )
                actions.append(action)
            self.generator = torch.get_rng_state()
        action = torch.from_numpy(np.stack(actions))
        action = action.to(torch.int64) if not action.is_floating_point() else action.to(seen.dtype)
        self.now = seen, action
        return action.flatten(0, 1)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``rollout.Acting``."""
        own, played = reward[self.rows].view(self.shape), alive[self.rows].view(self.shape)
        assert self.now is not None
        self.kept.append((*self.now, torch.where(played, own, torch.zeros_like(own)), played.to(own.dtype)))

    def result(self) -> Trajectories:
        """See ``rollout.Acting``."""
        observation, action, reward, alive = (torch.stack(part, 1) for part in zip(*self.kept, strict=True))
        return Trajectories(observation, action, reward, alive)


def learn_until_over(model: BaseAlgorithm) -> None:
    """Train a model until its environment's episodes are used up, see the module."""
    try:
        model.learn(_ENDLESS, reset_num_timesteps=False)
    except ShotOver:
        buffer = getattr(model, "rollout_buffer", None)
        if buffer is not None and 0 < buffer.pos < buffer.buffer_size:
            _train_on_part(model, buffer)


def _train_on_part(model: Any, buffer: Any) -> None:
    """Train an on-policy algorithm on a rollout that ended early, at the end of an episode."""
    part = type(buffer)(
        buffer.pos,
        buffer.observation_space,
        buffer.action_space,
        buffer.device,
        buffer.gae_lambda,
        buffer.gamma,
        buffer.n_envs,
    )
    for name in (name for name in _KEPT if hasattr(buffer, name)):
        setattr(part, name, getattr(buffer, name)[: buffer.pos].copy())
    part.pos, part.full = buffer.pos, True
    # The episode is over: later values do not count.
    last = torch.zeros(buffer.n_envs, dtype=torch.float32, device="cpu")
    part.compute_returns_and_advantage(last, np.ones(buffer.n_envs))
    model.rollout_buffer = part
    try:
        model.train()
    finally:
        model.rollout_buffer = buffer
        buffer.reset()


def _clone(model: BaseAlgorithm, env: gym.Env[Any, Any]) -> BaseAlgorithm:
    """A copy in an environment of its own."""
    stored = io.BytesIO()
    model.save(stored)
    stored.seek(0)
    # The seat's own observation space: its bounds may be others, see ``same_observations``.
    own = {"observation_space": env.observation_space}
    # Safe: this process has just written it.
    twin = type(model).load(stored, env=env, device="cpu", custom_objects=own)
    twin.verbose = 0
    # Schedules stay where training left them: a shot is no training of its own.
    twin._update_current_progress_remaining = lambda *_: None  # type: ignore[method-assign]
    return twin


@contextmanager
def globals_kept() -> Iterator[None]:
    """Use torch's own defaults inside, by which SB3 makes its tensors, and keep every global generator as it is: SB3 seeds them
    all, and draws from them.
    """
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices), torch_defaults():
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)  # noqa: NPY002
