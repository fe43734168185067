"""The baseline 'PPO + fine-tuning': a policy that Stable-Baselines3's PPO trains on many tasks, fine-tuned by gradient steps.

One player learns by an unmodified PPO (Schulman et al., 2017; Raffin et al., JMLR 2021) in its seat of the family, against the
training opponents, which are spread evenly over the environments; every episode has a new training task. The number of steps is
that player's own. Its policy network has the form of ``MLPPolicy``, so that a checkpoint's weights are those of a player of ours
with the same actions, which adapts by plain gradient steps, as fine-tuned joint training does.

Limits: feed-forward networks of tanh units without normalised observations or masks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metaduel.agents.adapters.sb3 import globals_kept
from metaduel.agents.policies.base import Weights
from metaduel.benchmarks.core import few_shot
from metaduel.benchmarks.core.few_shot import Contender, Protocol
from metaduel.envs.adapters.sb3 import make_sb3
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.adaptation.adapters import adapter_of
from metaduel.meta.runs.checkpoint import load_checkpoint, save_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import make_duel, make_policy

if TYPE_CHECKING:
    from stable_baselines3 import PPO

CHECKPOINTS = 6  # of a training
_SEEDS = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """Settings of ``PPO``, by the names that Stable-Baselines3 has for them; all others are its own.

    Attributes:
        learning_rate: at the start; it decays linearly to 0.
        n_envs: environments at once.
        n_steps: steps of a rollout in each.
        batch_size: samples of a minibatch.
        n_epochs: passes over a rollout.
        gamma: discount.
        gae_lambda: lambda of the advantages.
        ent_coef: weight of the entropy bonus.
    """

    learning_rate: float = 1e-3
    n_envs: int = 256
    n_steps: int = 64
    batch_size: int = 2048
    n_epochs: int = 5
    gamma: float = 0.99
    gae_lambda: float = 0.95
    ent_coef: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_envs", "n_steps", "batch_size", "n_epochs"):
            check_whole(name, getattr(self, name))
        if not self.learning_rate > 0:
            raise InvalidInputError(f"learning_rate={self.learning_rate!r} must be above 0")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInputError(f"{name}={getattr(self, name)!r} must be in [0, 1]")


class Checkpoint(NamedTuple):
    """A player on the way."""

    steps: int  # of its own, so far
    weights: Weights  # of the run's ``MLPPolicy``


class Choice(NamedTuple):
    """The best fine-tuned checkpoint of a training, on validation tasks against training opponents."""

    steps: int  # of its own when it was kept
    score: float  # mean return over the shots after adaptation
    player: Contender  # with its rate
    curve: list[tuple[int, float]]  # steps and score of every checkpoint


def check_pretrainable(config: TrainConfig) -> None:
    """Refuse a run whose players Stable-Baselines3's PPO cannot be.

    Raises:
        InvalidInputError: another network, normalised observations, fixed contexts, or a turn-based game.
    """
    for name, usual in (("network", "mlp"), ("normalise_observations", False), ("fixed", {})):
        if getattr(config, name) != usual:
            raise InvalidInputError(
                f"{name}={getattr(config, name)!r}: PPO + fine-tuning needs {usual!r}; leave it out"
            )
    if config.spec.turn_based:
        raise InvalidInputError(f"game={config.game!r}: PPO knows no illegal actions; choose a game without turns")


def pretrain(config: TrainConfig, role: Role, settings: PPOSettings, steps: int) -> list[Checkpoint]:
    """Train one player by PPO, and keep it ``CHECKPOINTS`` times, evenly spaced, last at the end.

    Args:
        config: game, opponents, horizon, network and seed.
        role: the seat.
        settings: PPO's own.
        steps: that player's own steps; whole rollouts are played.

    Raises:
        InvalidInputError: see ``check_pretrainable``.
    """
    from stable_baselines3.common.callbacks import BaseCallback

    check_pretrainable(config)
    check_whole("steps", steps)
    start = make_policy(config, make_duel(config), role).init(derive_seed(config.seed, Purpose.INIT, ROLES.index(role)))
    kept: list[Checkpoint] = []

    class Keep(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.num_timesteps * CHECKPOINTS >= (len(kept) + 1) * steps:
                kept.append(Checkpoint(self.num_timesteps, converted(self.model.policy, start)))

        def _on_step(self) -> bool:
            return True

    with globals_kept():
        model = _ppo(config, role, settings)
        model.learn(steps, callback=Keep())
        if not kept or kept[-1].steps < model.num_timesteps:
            kept.append(Checkpoint(model.num_timesteps, converted(model.policy, start)))
        model.env.close()  # type: ignore[union-attr]
    return kept


def _ppo(config: TrainConfig, role: Role, settings: PPOSettings) -> PPO:
    """An untrained PPO in its environments. It seeds global generators."""
    from stable_baselines3 import PPO

    own, names = asdict(settings), config.opponents(role)
    count, first = own.pop("n_envs"), own.pop("learning_rate")
    seed = derive_seed(config.seed, Purpose.PRETRAIN, ROLES.index(role))
    env = make_sb3(
        config.spec, count, role, [names[row % len(names)] for row in range(count)], informed=config.informed,
        horizon=config.horizon or None, seed=seed & _SEEDS,
    )  # fmt: skip
    hidden = list(config.hidden)
    network = {
        "net_arch": {"pi": hidden, "vf": hidden},
        "activation_fn": nn.Tanh,
        "log_std_init": config.initial_log_std,
    }
    decay: Callable[[float], float] = lambda remaining: first * remaining  # noqa: E731
    own["batch_size"] = min(own["batch_size"], count * own["n_steps"])
    return PPO("MlpPolicy", env, decay, policy_kwargs=network, seed=seed & _SEEDS, device="cpu", **own)


def converted(policy: Any, like: Weights) -> Weights:
    """The weights of Stable-Baselines3's ``MlpPolicy`` as those of an ``MLPPolicy`` that plays the same actions.

    Args:
        policy: of tanh units.
        like: fresh weights of the ``MLPPolicy``; inputs that are weights themselves (``context``) keep theirs, which are zero.
    """
    layers = [one for one in policy.mlp_extractor.policy_net if isinstance(one, nn.Linear)]
    weights = dict(like)
    for i, layer in enumerate((*layers, policy.action_net)):
        weights[f"layer{i}.weight"] = _copy(layer.weight.T)
        weights[f"layer{i}.bias"] = _copy(layer.bias)
    if "log_std" in like:
        weights["log_std"] = _copy(policy.log_std)
    for name, value in like.items():
        if weights[name].shape != value.shape:
            raise InvalidInputError(f"{name} has shape {tuple(weights[name].shape)}, not {tuple(value.shape)}")
    return weights


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float32, copy=True).contiguous()


def contender(config: TrainConfig, role: Role, weights: Weights, method: str) -> Contender:
    """A player with these weights, without a rate."""
    duel = make_duel(config)
    policy = make_policy(config, duel, role)
    rates = next(iter(weights.values())).new_zeros(0)
    return Contender(method, config.seed, role, duel, adapter_of(role, policy, weights, rates, config.objective))


def pretrained(
    config: TrainConfig, role: Role, settings: PPOSettings, steps: int, protocol: Protocol, method: str, folder: Path
) -> Choice:
    """Train one player by PPO into ``folder``, and choose its checkpoint and its rate by fine-tuned validation. What is done is
    not done again.

    An informed player does not adapt: its checkpoint is chosen by its return.

    Args:
        config: see ``pretrain``.
        role: the seat.
        settings: PPO's own.
        steps: that player's own steps.
        protocol: shots and episodes of the fine-tuning.
        method: the player's name.
        folder: for the checkpoints and the choice.
    """
    path, chosen = folder / f"{role}.safetensors", folder / f"{role}.json"
    if path.exists():
        tensors, state = load_checkpoint(path)
        kept = [
            Checkpoint(count, {n.removeprefix(f"{count}/"): v for n, v in tensors.items() if n.startswith(f"{count}/")})
            for count in state["steps"]
        ]
    else:
        kept = pretrain(config, role, settings, steps)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{count}/{name}": value for count, weights in kept for name, value in weights.items()}
        save_checkpoint(path, tensors, {"steps": [count for count, _ in kept]})
    players = [contender(config, role, weights, method) for _, weights in kept]
    if chosen.exists():
        found = json.loads(chosen.read_text(encoding="utf-8"))
        scores, rates = found["scores"], found["rates"]
        players = [
            one if config.informed else few_shot.with_rate(one, rate) for one, rate in zip(players, rates, strict=True)
        ]
    else:
        if not config.informed:
            players = [few_shot.result(one) for one in few_shot.tune_rates(players, protocol)]
        scores = few_shot.validation_scores(players, protocol)
        rates = [None if config.informed else few_shot.rate_of(one) for one in players]
        write_atomic(chosen, json.dumps({"scores": scores, "rates": rates}).encode())
    best = int(np.argmax(scores))
    curve = [(one.steps, score) for one, score in zip(kept, scores, strict=True)]
    return Choice(kept[best].steps, scores[best], players[best], curve)


def split_settings(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a run, and those among them that are PPO's."""
    names = {one.name for one in fields(PPOSettings)}
    own = {name: value for name, value in values.items() if name in names}
    return {name: value for name, value in values.items() if name not in names}, own
