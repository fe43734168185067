"""The baseline 'SB3 PPO from scratch': how far the budget of an adaptation gets somebody who starts from nothing.

An unmodified PPO of Stable-Baselines3 (Raffin et al., JMLR 2021; Schulman et al., 2017) is trained on one task against one
opponent, and tested after every shot on the episodes that everybody is tested on. A shot gives it as many environment steps as an
adaptation's: ``episodes`` x horizon, as one rollout of ``episodes`` environments of horizon steps (where episodes end early it
plays more of them instead). Its settings are SB3's own (``MlpPolicy``, rate 3e-4, 10 epochs per rollout, ...) but for

- ``n_steps``: the horizon, so that a rollout is a shot;
- ``batch_size``: the horizon, so that an epoch has ``episodes`` minibatches; all of the rollout in games of one step.

That is a training for every task and opponent: it plays the first few of the panel alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from metaduel.agents.sb3 import MlpPlayer
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player, make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Task, other
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.players.names import load_player, names
from metaduel.envs.players.play import play

if TYPE_CHECKING:
    from stable_baselines3 import PPO


@dataclass(frozen=True)
class Scratch:
    """How much of a panel is played from scratch.

    Attributes:
        tasks: the first so many tasks.
        opponents: the first so many opponents.
    """

    tasks: int = 5
    opponents: int = 2

    def __post_init__(self) -> None:
        for name in ("tasks", "opponents"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"ppo_{name}={value!r} must be a whole number of at least 1")


def from_scratch(
    spec: GameSpec, role: Role, protocol: Protocol, part: Scratch, seed: int, horizon: int | None = None
) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    """Train on each (task, opponent) of a part of the panel, and test after every shot.

    Args:
        spec: the game.
        role: whose seat.
        protocol: the panel.
        part: how much of it.
        seed: of the networks and of the training episodes.
        horizon: steps per episode, where it is not the family's own.

    Returns:
        The opponents' names, and returns [shots + 1, opponents, tasks, test episodes].
    """
    duel = Duel(make_game(spec), horizon)
    tasks = protocol.task_list(spec)[: part.tasks]
    opponents = names(spec, other(role), protocol.opponents)[: part.opponents]
    returns = np.empty((protocol.shots + 1, len(opponents), len(tasks), protocol.test_episodes))
    for i, opponent in enumerate(opponents):
        for j, task in enumerate(tasks):
            row = i * protocol.task_count + j  # of the panel
            with generators_kept():
                model = make_ppo(duel, role, opponent, task, protocol.episodes, derive_seed(seed, Purpose.SCRATCH, row))
                for shot in range(protocol.shots + 1):
                    if shot:
                        model.learn(protocol.episodes * duel.horizon, reset_num_timesteps=shot == 1)
                    player = MlpPlayer(model.policy, sample=protocol.actions == "sampled")
                    seen = derive_seed(0, Purpose.TEST) + row * protocol.test_episodes
                    returns[shot, i, j] = seat_returns(
                        duel, role, player, load_player(duel, other(role), opponent), task, protocol.test_episodes, seen
                    )
    return opponents, returns


def make_ppo(duel: Duel, role: Role, opponent: str, task: Task, episodes: int, seed: int) -> PPO:
    """An untrained PPO on one task against one opponent, whose rollout is a shot; see the module. It seeds its episodes, and
    global generators.
    """
    steps = duel.horizon
    return untrained_ppo(
        duel.spec, role, opponent, task, episodes, seed, steps, n_steps=steps, batch_size=steps if steps > 1 else episodes,
        normalize_advantage=steps * episodes > 1,
    )  # fmt: skip


def untrained_ppo(
    spec: GameSpec,
    role: Role,
    opponent: Player | str,
    task: Task,
    environments: int,
    seed: int,
    horizon: int | None = None,
    **settings: Any,
) -> PPO:
    """A PPO with SB3's own settings, in a seat against one opponent on one task. It seeds its episodes, and global generators.

    Args:
        spec: the game.
        role: the seat.
        opponent: in the other one.
        task: the only one.
        environments: played at once; a rollout is 2,048 steps in all, as of SB3's single one.
        seed: of the networks and of the training episodes.
        horizon: steps per episode, where it is not the family's own.
        **settings: of ``PPO``, where they are not SB3's own.
    """
    from stable_baselines3 import PPO

    from metaduel.envs.adapters.sb3 import make_sb3

    env = make_sb3(spec, environments, role, opponent, task, horizon=horizon)
    own = {"n_steps": max(1, 2048 // environments), **settings}
    return PPO("MlpPolicy", env, seed=seed % (2**32 - environments), device="cpu", **own)


def seat_returns(
    duel: Duel, role: Role, own: Player, opponent: Player, task: Task, episodes: int, seed: int
) -> npt.NDArray[np.float64]:
    """Returns [episodes] of ``own`` in ``role``'s seat on one task; their seeds are ``seed`` and the numbers after it."""
    params = duel.game.params_from_rows(task_rows(duel.spec, [task], {}).expand(episodes, -1))
    seeds = torch.arange(episodes) + seed
    pair = (own, opponent)
    played = play(duel, pair if role == "protagonist" else pair[::-1], params, seeds, torch.zeros_like(seeds))
    found: npt.NDArray[np.float64] = played.returns[:, ROLES.index(role)].double().numpy()
    return found


@contextmanager
def generators_kept() -> Iterator[None]:
    """SB3 seeds every global generator, and draws from them."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)  # noqa: NPY002
