"""Batches of somebody's own environments, for the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaduel.agents.policies.base import Policy
from metaduel.agents.policies.recurrent import RecurrentPolicy
from metaduel.agents.policies.statistics import RunningStatistics
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.meta.adaptation.few_shot import adapt_on
from metaduel.meta.learners.maml import MAML
from metaduel.meta.problems.foreign import (
    _SEEDS,
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
    policies = {
        role: policy_of(config, size, own, others, network)
        for role, size, own, others in zip(ROLES, sizes, actions, actions[::-1], strict=True)
    }
    if any(isinstance(policy, RecurrentPolicy) for policy in policies.values()):
        raise InvalidInputError(
            f"method={config.method!r}, network={config.network!r}: networks with a memory are not supported on environments "
            "of your own: use network='mlp' and a method that adapts by gradients, such as maml"
        )
    for policy, agent in zip(policies.values(), env.possible_agents, strict=True):
        policy.mask = action_mask(env, agent)
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
        self._plain = make_policies(self._envs[0], config, network)  # of the untrained: their statistics stay none
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

    def validate(self, learner: MAML) -> dict[str, float]:
        """Few-shot returns of each role on the validation tasks against the untrained other."""
        config = self.config
        metrics: dict[str, float] = {}
        for role in self.policies:
            opponents = {other(role): self._first[other(role)]}
            policies = {role: self.policies[role], other(role): self._plain[other(role)]}
            support, query = (
                ForeignProblem(
                    self._envs, self._validation, policies, config.episodes, derive_seed(0, purpose), config.objective,
                    config.horizon, opponents,
                )
                for purpose in (Purpose.VALIDATION_ADAPT, Purpose.VALIDATION_TEST)
            )  # fmt: skip
            rates = learner.rates(role).detach()
            start = {name: value.detach() for name, value in learner.start[role].items()}
            result = adapt_on(support, query, role, start, rates, rates.shape[0])
            returns = result.returns.mean((1, 2)).tolist()
            metrics |= {f"{role}/validation_return_{shot}": value for shot, value in enumerate(returns)}
            adapted = returns[1:] or returns
            metrics[f"{role}/score"] = sum(adapted) / len(adapted)
        return metrics
