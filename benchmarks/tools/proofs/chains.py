"""The losses of methods that remember, on chains that were played: their gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, adapting
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.spec import Role
from metaduel.meta.learners.learner import Starts
from metaduel.meta.learners.rl2 import RL2Config
from metaduel.meta.problems.chains import Chain
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner

GAME, EPISODES, TASKS, LENGTH = "Pursuit", 3, 3, 12
STEP = 1e-5  # of the central differences
Loss = Callable[[Weights], Tensor]  # of one player's weights [1, ...]: a scalar


class ChainCase(NamedTuple):
    """A loss on chains.

    Attributes:
        method: by name.
        loss: the policy's and the critic's loss (``ppo``), or the belief's (``prediction``).
        truncation: inputs through which its gradient goes back; 0: all.
    """

    method: str
    loss: str
    truncation: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """For tables: method, loss, gradient."""
        cut = f"through {self.truncation} inputs" if self.truncation else "through the whole chain"
        return self.method, self.loss, cut


def chain_cases() -> list[ChainCase]:
    """The losses of all methods that remember."""
    return [
        ChainCase("rl2", "ppo"),
        ChainCase("rl2", "ppo", 5),
        ChainCase("latent", "ppo"),
        ChainCase("latent", "prediction"),
    ]


def chain_error(case: ChainCase, role: Role) -> float:
    """The largest error of a loss's directional derivatives, one for each of a player's weight tensors that it moves, relative to
    the largest derivative.
    """
    chain, starts, config = _played(case)
    own = {name: value.detach() for name, value in starts.once()[role].items()}
    loss = _loss(case, chain, role, own, config)
    generator = torch.Generator().manual_seed(1)
    # Not at the weights that played, where all ratios are 1.
    at = {n: v if n not in adapting(own) else v + 0.02 * _normal(v, generator) for n, v in own.items()}
    leaves = {name: at[name].requires_grad_() for name in adapting(at)}
    names = [name for name in leaves if case.loss == "prediction" or name in starts.optimisers[role].params]
    found = torch.autograd.grad(loss(at), [leaves[name] for name in names], allow_unused=True)
    errors, sizes = [0.0], [0.0]
    for name, gradient in zip(names, found, strict=True):
        if gradient is None:
            continue
        direction = _normal(at[name], generator)
        ends = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                ends.append(float(loss(at | {name: at[name] + sign * STEP * direction})))
        derivative = float((gradient * direction).sum())
        errors.append(abs(derivative - (ends[0] - ends[1]) / (2 * STEP)))
        sizes.append(abs(derivative))
    return max(errors) / max(sizes)


def _played(case: ChainCase) -> tuple[Chain, Starts, RL2Config]:
    """A chain of both players in double precision, their starts, and the learner's settings."""
    config = TrainConfig(game=GAME, method=case.method).override(
        tasks=TASKS, steps=1, chain_episodes=EPISODES, horizon=LENGTH, hidden=(4,), truncation=case.truncation, entropy=0.01,
    )  # fmt: skip
    source = DuelSource(config)
    starts = make_learner(config, source).starts
    episodes = cast(RL2Config, config.learner).chain_episodes
    chain = source.problem(0).chain(starts.once(), episodes, 2)  # type: ignore[union-attr]
    data = {role: [_double(one) for one in own] for role, own in chain.episodes.items()}
    starts.weights = {
        role: {name: value.detach().double() for name, value in own.items()} for role, own in starts.weights.items()
    }
    return replace(chain, episodes=data), starts, cast(RL2Config, config.learner)


def _loss(case: ChainCase, chain: Chain, role: Role, own: Weights, config: RL2Config) -> Loss:
    if case.loss == "prediction":
        only = replace(chain, episodes={role: chain.episodes[role]})
        return lambda weights: only.predictions({role: weights}, 0)[role]
    credit = chain.credit(role, own, 1.0, config.episode_discount, config.truncation)
    return lambda weights: chain.loss(role, weights, credit, 1.0, config.clip, config.value_coefficient, config.entropy)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device="cpu")


def _double(data: Trajectories) -> Trajectories:
    action = data.action if data.action.dtype == torch.int64 else data.action.double()
    other = data.other if data.other is None or data.other.dtype == torch.int64 else data.other.double()
    parts = data.observation.double(), action, data.reward.double(), data.alive.double()
    return Trajectories(*parts, other)
