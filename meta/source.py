"""Where a training run's batches of tasks come from, and how it is validated: the game side of the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from metaduel.agents.policies import ActionSpace, MLPPolicy, Policy, Weights
from metaduel.agents.recurrent import GRUPolicy
from metaduel.envs.core import Duel, Player
from metaduel.envs.errors import InvalidInputError
from metaduel.envs.noise import derive_seed
from metaduel.envs.opponents import load_player
from metaduel.envs.spec import GameSpec, Role, Task
from metaduel.envs.tasks import check_task, frozen_tasks, sample_tasks
from metaduel.meta.config import RunConfig, TrainConfig, other
from metaduel.meta.duels import DuelProblem, Matches
from metaduel.meta.few_shot import adapt_and_test
from metaduel.meta.maml import MAML
from metaduel.meta.methods import find_method
from metaduel.meta.problem import Problem

# What a seed is for; part of every derived seed, so that no two purposes share noise.
TASKS, EPISODES, INIT, VALIDATION_ADAPT, VALIDATION_TEST = range(5)


class TrainingProblem(Problem, Protocol):
    """A batch that also tells what happened on it."""

    returns: list[dict[Role, Tensor]]
    environment_steps: int


class Source(Protocol):
    """What the trainer asks for. It knows the rest of the run through this alone."""

    policies: Mapping[Role, Policy]

    def problem(self, iteration: int) -> TrainingProblem:
        """The batch of an iteration; the same for the same iteration."""
        ...

    def validate(self, learner: MAML) -> dict[str, float]:
        """Metrics on the validation split; ``<role>/score`` picks that role's best checkpoint (higher is better)."""
        ...


class DuelSource:
    """Batches of a family's matches: sampled (or given) training tasks against the mixture of opponents.

    Args:
        config: the run's settings.
        tasks: the training tasks; sampled from the training split if None.

    Raises:
        InvalidInputError: an opponent that doesn't exist, or a bad task.
    """

    def __init__(self, config: TrainConfig, tasks: Sequence[Task] | None = None) -> None:
        self.config, self.spec = config, config.spec
        self.duel = make_duel(config)
        self.policies: Mapping[Role, Policy] = {role: make_policy(config, self.duel, role) for role in config.roles}
        self._opponents = {
            role: [load_player(self.duel, other(role), name) for name in config.opponents(role)]
            for role in config.roles
        }
        if tasks is not None and not tasks:
            raise InvalidInputError("tasks=[] must hold at least one task")
        self._tasks = None if tasks is None else task_rows(self.spec, tasks, config.fixed)
        self._validation = task_rows(
            self.spec, frozen_tasks(self.spec, "validation")[: config.validation_tasks], config.fixed
        )
        duels = round(config.learned_share * config.tasks) if len(config.roles) == 2 else 0
        self._duels, self._scripted = duels, config.tasks - duels

    def problem(self, iteration: int) -> DuelProblem:
        """See ``Source``."""
        config = self.config
        first, last = self._met("protagonist", iteration), self._met("adversary", iteration)
        total = sum(n for _, n in first) + self._duels + sum(n for _, n in last)
        seed = derive_seed(config.seed, TASKS, iteration)
        if self._tasks is None:
            rows = task_rows(self.spec, sample_tasks(self.spec, total, "train", seed), config.fixed)
        else:
            pick = torch.randint(len(self._tasks), (total,), generator=torch.Generator().manual_seed(seed))
            rows = self._tasks[pick]
        matches = Matches(rows, first, self._duels, last)
        seed = derive_seed(config.seed, EPISODES, iteration)
        return DuelProblem(self.duel, self.policies, matches, config.episodes_per_batch, seed, config.loss)

    def _met(self, role: Role, iteration: int) -> list[tuple[Player, int]]:
        """The scripted opponents of an iteration with how many tasks each: two of them in turn, since each one costs its
        own small operations at every step.
        """
        players = self._opponents.get(role, [])
        if not players or not self._scripted:
            return []
        first, second = players[iteration % len(players)], players[(iteration + 1) % len(players)]
        half = self._scripted // 2
        if len(players) == 1 or not half:
            return [(first, self._scripted)]
        return [(first, self._scripted - half), (second, half)]

    def validate(self, learner: MAML) -> dict[str, float]:
        """Few-shot returns of each role on the validation split against its scripted training opponents."""
        metrics: dict[str, float] = {}
        for role, policy in self.policies.items():
            rates = learner.rates(role).detach()
            start = {name: value.detach() for name, value in learner.start[role].items()}
            returns = adapt_and_test(
                self.duel, policy, role, start, rates, self.config.loss, self._validation, self._opponents[role],
                shots=rates.shape[0], episodes=self.config.episodes, test_episodes=self.config.episodes,
                adapt_seed=derive_seed(0, VALIDATION_ADAPT), test_seed=derive_seed(0, VALIDATION_TEST),
            ).returns.mean((1, 2, 3)).tolist()  # fmt: skip
            metrics |= {f"{role}/validation_return_{shot}": value for shot, value in enumerate(returns)}
            adapted = returns[1:] or returns
            metrics[f"{role}/score"] = sum(adapted) / len(adapted)
        return metrics


def make_duel(config: TrainConfig) -> Duel:
    """The run's game."""
    informed = config.roles if config.informed else ()
    return Duel(config.spec.make_game(), config.horizon or None, informed)


def make_policy(config: TrainConfig, duel: Duel, role: Role) -> Policy:
    """A role's policy network."""
    size, own = duel.observation_space(role).shape[0], duel.action_space(role)
    return policy_of(config, size, own, duel.action_space(other(role)))


def policy_of(config: RunConfig, observation_size: int, action_space: ActionSpace, other_space: ActionSpace) -> Policy:
    """The network that the settings ask for."""
    memory, log_std = find_method(config.method).memory, config.initial_log_std
    if memory is not None:
        return memory(observation_size, action_space, other_space, config.hidden[-1], log_std)
    if config.network == "gru":
        return GRUPolicy(observation_size, action_space, config.hidden[-1], log_std)
    return MLPPolicy(observation_size, action_space, config.hidden, log_std, config.context)


def initial_weights(policies: Mapping[Role, Policy], seed: int) -> dict[Role, Weights]:
    """The weights that a run with this seed begins with."""
    return {role: policy.init(derive_seed(seed, INIT, i)) for i, (role, policy) in enumerate(policies.items())}


def task_rows(spec: GameSpec, tasks: Sequence[Task], fixed: Mapping[str, float]) -> Tensor:
    """Validated tasks as rows [M, number of contexts] float64, with some contexts held fixed."""
    full = [check_task(spec, {**task, **fixed}) for task in tasks]
    return torch.tensor([[task[name] for name in spec.context_names] for task in full], dtype=torch.float64)
