"""The baseline 'SB3 PPO from scratch': an untrained player with the budget of an adaptation.

An unmodified PPO of Stable-Baselines3 (Raffin et al., JMLR 2021; Schulman et al., 2017) is trained on one task against one
opponent, and tested after every shot on the same episodes as all players. A shot gives it as many episodes as every player has,
as one rollout: see ``agents.adapters.sb3``. Its settings are SB3's own (``MlpPolicy``, rate 3e-4, 10 epochs per rollout, ...),
except

- ``n_steps``: the most steps that the episodes of a shot can have, so that a rollout is a shot;
- ``batch_size``: the horizon, so that an epoch has about as many minibatches as episodes.

This needs a training for every task and opponent, so it plays only the first few of the panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from metaduel.agents.adapters.sb3 import SB3Adapter, globals_kept
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player, make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Task, other
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.players.names import names
from metaduel.envs.players.play import play
from metaduel.meta.adaptation.few_shot import adapt_and_test

if TYPE_CHECKING:
    from stable_baselines3 import PPO


@dataclass(frozen=True)
class Scratch:
    """The part of a panel that is played from scratch.

    Attributes:
        tasks: number of tasks, the first ones.
        opponents: number of opponents, the first ones.
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
        role: the seat.
        protocol: the panel.
        part: the part of the panel.
        seed: seed of the networks and of the training.
        horizon: steps per episode, if it is not the family's own.

    Returns:
        The opponents' names, and returns [shots + 1, opponents, tasks, test episodes].
    """
    duel = Duel(make_game(spec), horizon)
    tasks = task_rows(spec, protocol.task_list(spec)[: part.tasks], {})
    panel = dict(list(protocol.panel(duel, role).items())[: part.opponents])
    returns = []
    for i, opponent in enumerate(panel.values()):
        adapter = SB3Adapter(make_ppo(duel, role, protocol.episodes, derive_seed(seed, Purpose.SCRATCH, i)))
        first = i * protocol.task_count  # row of the panel
        found = adapt_and_test(
            duel, adapter, role, tasks, [opponent],
            shots=protocol.shots, episodes=protocol.episodes, test_episodes=protocol.test_episodes,
            adapt_seed=derive_seed(seed, Purpose.SCRATCH, i), deterministic=protocol.actions == "mode",
            test_seed=derive_seed(0, Purpose.TEST) + first * protocol.test_episodes,
        )  # fmt: skip
        returns.append(found.returns)
    return tuple(panel), torch.cat(returns, 1).double().numpy()


def make_ppo(duel: Duel, role: Role, episodes: int, seed: int) -> PPO:
    """An untrained PPO whose rollout is as long as ``episodes`` episodes can be. Does not change global generators."""
    steps = duel.horizon
    with globals_kept():
        return untrained_ppo(
            duel.spec, role, names(duel.spec, other(role), "train")[0], {}, 1, seed, steps, n_steps=max(2, steps * episodes),
            batch_size=max(2, steps),
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
        opponent: the player in the other seat.
        task: the task.
        environments: number of environments at once; a rollout is 2,048 steps in all, as with SB3's single environment.
        seed: seed of the networks and of the training episodes.
        horizon: steps per episode, if it is not the family's own.
        **settings: settings of ``PPO`` that are not SB3's own.
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
    seeds = torch.arange(episodes, dtype=torch.int64, device="cpu") + seed
    pair = (own, opponent)
    played = play(duel, pair if role == "protagonist" else pair[::-1], params, seeds, torch.zeros_like(seeds))
    found: npt.NDArray[np.float64] = played.returns[:, ROLES.index(role)].double().numpy()
    return found
