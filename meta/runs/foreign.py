"""Batches of somebody's own environments, for the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from metaduel.agents.adapters.protocol import OneEpisode, SeatInfo, adaptation
from metaduel.agents.policies.base import Policy
from metaduel.agents.policies.statistics import RunningStatistics
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.meta.adaptation.adapters import adapter_of
from metaduel.meta.learners.learner import Learner
from metaduel.meta.problems.foreign import (
    _SEEDS,
    LIMIT,
    Factory,
    ForeignProblem,
    _method,
    action_mask,
    action_space,
    observation_space,
)
from metaduel.meta.runs.config import ForeignConfig
from metaduel.meta.runs.players import Network, initial_weights, policy_of, running_statistics
from metaduel.meta.runs.source import PlayedSource


def make_policies(env: Any, config: ForeignConfig, network: Network | None = None) -> dict[Role, Policy]:
    """Each role's policy network."""
    sizes = [observation_space(env, agent).shape[0] for agent in env.possible_agents]
    actions = [action_space(env, agent) for agent in env.possible_agents]
    masks = [action_mask(env, agent) for agent in env.possible_agents]
    policies = {
        role: policy_of(config, size, own, others, network, mask)
        for role, size, own, others, mask in zip(ROLES, sizes, actions, actions[::-1], masks, strict=True)
    }
    if any(any(policy.carried) for policy in policies.values()):
        raise InvalidInputError(
            f"method={config.method!r}, network={config.network!r}: networks with a memory are not supported on environments "
            "of your own: use network='mlp' and a method that adapts by gradients, such as maml"
        )
    return policies


class ForeignSource(PlayedSource):
    """Batches of somebody's environments: both players learn, against each other; see the module.

    Args:
        task_set: makes an environment.
        config: the run's settings.
        network: see ``DuelSource``.

    Raises:
        InvalidInputError: environments that cannot be played; see ``describe``.
    """

    def __init__(self, task_set: Factory, config: ForeignConfig, network: Network | None = None) -> None:
        self.config = config
        self._envs = [task_set()]
        self.policies: Mapping[Role, Policy] = make_policies(self._envs[0], config, network)
        self._has_tasks = _method(self._envs[0], "sample_tasks") is not None
        # Without tasks, more environments would be more episodes of the same one.
        self._tasks, self._validation_tasks = (config.tasks, config.validation_tasks) if self._has_tasks else (1, 1)
        self._envs += [task_set() for _ in range(max(self._tasks, self._validation_tasks) - 1)]
        self._first = initial_weights(self.policies, config.seed)
        self.statistics: Mapping[Role, RunningStatistics] = running_statistics(self.policies, config)
        self._validation = self._sample(self._validation_tasks, derive_seed(0, Purpose.TASKS))

    def _sample(self, n: int, seed: int) -> list[Any]:
        if not self._has_tasks:
            return [None] * n
        env = self._envs[0]
        env.reset(seed=seed & _SEEDS)
        tasks = list(_method(env, "sample_tasks")(n))
        if len(tasks) != n or any(task is None for task in tasks):
            raise InvalidInputError(f"task_set: sample_tasks({n}) gave {len(tasks)} tasks, or None among them")
        return tasks

    def problem(self, iteration: int) -> ForeignProblem:
        """See ``PlayedSource``."""
        config = self.config
        tasks = self._sample(self._tasks, derive_seed(config.seed, Purpose.TASKS, iteration))
        seed = derive_seed(config.seed, Purpose.EPISODES, iteration)
        return ForeignProblem(
            self._envs, tasks, self.policies, config.episodes_per_batch, seed, config.objective, config.horizon
        )

    def shares(self) -> dict[str, float]:
        """See ``PlayedSource``: they meet each other alone."""
        return {f"{role}/share_learned": 1.0 for role in self.policies}

    def validate(self, learner: Learner) -> dict[str, float]:
        """Few-shot returns of each role on the validation tasks against the untrained other."""
        metrics: dict[str, float] = {}
        for role, policy in self.policies.items():
            arena, test = (
                self._arena(role, purpose) for purpose in (Purpose.VALIDATION_ADAPT, Purpose.VALIDATION_TEST)
            )
            adapter = adapter_of(role, policy, learner.start[role], learner.rates(role), self.config.objective)
            shots = self.config.configured.steps
            found = [test.shot(0).play(player).returns for player in adaptation(adapter, arena, shots)]
            returns = torch.stack(found).mean((1, 2)).tolist()
            metrics |= {f"{role}/validation_return_{shot}": value for shot, value in enumerate(returns)}
            adapted = returns[1:] or returns
            metrics[f"{role}/score"] = sum(adapted) / len(adapted)
        return metrics

    def _arena(self, role: Role, purpose: int) -> ForeignArena:
        """The validation tasks, against the untrained other."""
        opponents = {other(role): self._first[other(role)]}
        problem = ForeignProblem(
            self._envs, self._validation, self.policies, self.config.episodes, derive_seed(0, purpose),
            self.config.objective, self.config.horizon, opponents,
        )  # fmt: skip
        return ForeignArena(problem, role, self.config.environment)


class ForeignArena:
    """Tasks of a user's own environments as an ``Arena`` for policies.

    Args:
        problem: in which one role learns.
        role: that role.
        name: of the environment.
    """

    def __init__(self, problem: ForeignProblem, role: Role, name: str) -> None:
        self.problem, self.role, self.name, self.rows = problem, role, name, problem.tasks[role]

    @property
    def seat(self) -> SeatInfo:
        """See ``Arena``."""
        policy = self.problem.policies[self.role]
        box = spaces.Box(-np.inf, np.inf, (policy.observation_size,), np.float32)
        return SeatInfo(self.name, self.role, box, policy.action_space, self.problem.horizon or LIMIT)

    def shot(self, number: int) -> ForeignExperience:
        """See ``Arena``."""
        return ForeignExperience(self, number)


class ForeignExperience:
    """The episodes of one shot, see ``adapter.Experience``; for policies without a memory."""

    def __init__(self, arena: ForeignArena, number: int) -> None:
        self._arena, self._number = arena, number
        self.episodes, self.rows = arena.problem.episodes, arena.rows

    def play(self, player: Any) -> Trajectories:
        """See ``Experience``; ``player`` is an ``agents.rollout.Learner``."""
        role = self._arena.role
        return self._arena.problem.collect({role: player.weights}, self._number)[0][role]

    def one_by_one(self) -> Iterator[OneEpisode]:
        """Not supported."""
        raise InvalidInputError("networks with a memory are not supported on environments of your own")

    def environment(self, row: int) -> gym.Env[Any, Any]:
        """Not supported."""
        raise InvalidInputError("learners of their own are not supported on environments of your own")
