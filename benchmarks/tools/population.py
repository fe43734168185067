"""Players of one kind, trained at once: every seed with every exploration bonus is one set of stacked weights.

They learn by PPO (Schulman et al., 2017) in its common form: observations are normalised, a second network learns the value, and
each batch is used several times in small parts. All three matter if a player sees a hidden wiring: it must multiply a sign with
states of a few hundredths, a baseline that is linear in its observations cannot predict its return, and a few steps on whole
batches are not enough.

With a **teacher**, a player that sees no more than they do, the first quarter of the batches are lessons: they learn the
teacher's actions, in states that the teacher reaches and in states that they reach themselves. Then they continue like all
others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.objective.returns import discounted_returns, gae, normalise
from metaduel.agents.policies.base import Policy, Weights, adapting, normalisation, stack
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.statistics import RunningStatistics
from metaduel.agents.rollout import Learner, Seated, Sitting, Taught, rollout
from metaduel.agents.runtime import torch_defaults
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.envs.core.tasks import frozen_tasks, sample_tasks, task_rows
from metaduel.envs.players.names import load_player, names

GAIN, BIAS = 1.5, 0.5  # of the feed-forward networks' starts, see ``MLPPolicy``
DISCOUNT = 0.99
GAE_LAMBDA = 0.95  # below 1: most of the outcome's noise comes from the opponent
CLIP = 0.2
MAX_NORM = 0.5
LESSONS = 0.25  # of the batches, for players with a teacher
SETTLING = 0.05  # of the batches, after the lessons: the value alone learns
_POOL = 4096  # training tasks that batches are drawn from
_CROWD = 8  # most episodes, as a multiple of those that fill a batch at full length: more are played if they are short

OnIteration = Callable[[int], None]  # called with the number of finished iterations


@dataclass(frozen=True)
class Budget:
    """The budget of every trained player.

    Attributes:
        seeds: training seeds per setting.
        iterations: batches.
        steps: environment steps per player and batch, in whole episodes against two of the opponents.
        epochs: passes over each batch.
        slices: steps of Adam per pass, each on a random part of the batch; fewer if the batch is not filled. Players with a
            memory, whose parts are whole episodes, take a quarter as many.
        learning_rate: Adam's step size, decaying linearly to a tenth.
        critic_rate: the same for the value.
        test_episodes: test episodes per validation task and opponent.
        shots: updates of the random start.
        episodes_per_shot: the random start's episodes per update.
    """

    seeds: int = 5
    iterations: int = 200
    steps: int = 8000
    epochs: int = 3
    slices: int = 8
    learning_rate: float = 3e-3
    critic_rate: float = 1e-3
    test_episodes: int = 5
    shots: int = 3
    episodes_per_shot: int = 5

    def __post_init__(self) -> None:
        least = {"seeds": 2, "iterations": 4, "steps": 1, "epochs": 1, "slices": 1, "test_episodes": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InvalidInputError(f"{name}={getattr(self, name)!r} must be at least {low}")


class Sample(NamedTuple):
    """The data of a step of Adam. T is 1 for players without a memory, whose steps are used one by one."""

    seen: Tensor  # [P, T, M, d + 1] the policy's inputs, and the time
    action: Tensor  # [P, T, M, a], or [P, T, M] int64
    alive: Tensor  # [P, T, M]
    advantage: Tensor  # [P, T, M]
    target: Tensor  # [P, T, M] the critic's target
    old: Tensor  # [P, T, M] log-probabilities when the actions were drawn


class Population:
    """Players of one kind, trained at once: every seed with every exploration bonus.

    Args:
        duel: the game as they see it.
        role: their seat.
        policy: their network; its statistics are those of their observations in training.
        bonuses: entropy bonuses.
        budget: the budget of each, lessons included.
        teacher: their teacher; None: no teacher. Players with a memory have none.
    """

    def __init__(
        self,
        duel: Duel,
        role: Role,
        policy: Policy,
        bonuses: Sequence[float],
        budget: Budget,
        teacher: Player | None = None,
    ) -> None:
        self.duel, self.role, self.policy, self.bonuses, self.budget = duel, role, policy, tuple(bonuses), budget
        self.teacher = teacher
        self.size = len(bonuses) * budget.seeds
        seeds = list(range(budget.seeds)) * len(bonuses)
        self.weights = _stacked([policy.init(derive_seed(Purpose.POPULATION_INIT, seed)) for seed in seeds])
        self.memory = any(policy.carried)
        width = policy.input_size
        # The value network is the mean of a Gaussian that is never sampled; its inputs are the policy's and the time.
        self.critic = MLPPolicy(width + 1, spaces.Box(-np.inf, np.inf, (1,)), gain=GAIN, bias=BIAS)
        self.judges = _stacked([self.critic.init(derive_seed(Purpose.POPULATION_CRITIC, seed)) for seed in seeds])
        self.centre = torch.zeros(self.size, 1, 1, dtype=torch.float32, device="cpu")  # of returns
        self.scale = torch.ones_like(self.centre)
        self.statistics, self.critic_statistics = (
            RunningStatistics(policy.observation_size),
            RunningStatistics(width + 1),
        )
        self.bonus = self.centre.new_tensor(bonuses).repeat_interleave(budget.seeds)
        self.opponents = [load_player(duel, other(role), name) for name in names(duel.spec, other(role), "train")]
        self.length = float(duel.horizon)  # steps per episode of the last batch

    def train(self, on_iteration: OnIteration) -> tuple[Tensor, Tensor]:
        """Returns on the panel after three quarters of the training and at its end: [bonuses, seeds, tasks] each."""
        pool = task_rows(
            self.duel.spec, sample_tasks(self.duel.spec, _POOL, "train", derive_seed(Purpose.POPULATION_POOL)), {}
        )
        optimiser = torch.optim.Adam([{"params": list(adapting(w).values())} for w in (self.weights, self.judges)])
        total, rates = self.budget.iterations, (self.budget.learning_rate, self.budget.critic_rate)
        taught = 0 if self.teacher is None else math.ceil(LESSONS * total)
        settled = taught and taught + math.ceil(SETTLING * total)
        first = self._play(pool, total)  # a batch for the first statistics
        returns = discounted_returns(first.reward, DISCOUNT)
        self.centre, self.scale = _moments(returns, first.alive)
        self._look(first)
        before: Tensor | None = None
        for iteration in range(total):
            on_iteration(iteration)
            if iteration == total * 3 // 4:
                before = self.test()
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - 0.9 * iteration / total)
            if taught <= iteration < settled:
                optimiser.param_groups[0]["lr"] = 0.0
            lesson = iteration < taught
            data = self._play(pool, iteration, self.teacher if lesson else None)
            generator = torch.Generator().manual_seed(derive_seed(Purpose.POPULATION_TRAIN, iteration))
            self._improve(data, optimiser, generator, lesson)
            self._look(data)
        assert before is not None
        shape = len(self.bonuses), self.budget.seeds, -1
        return before.view(shape), self.test().view(shape)

    def _look(self, data: Trajectories) -> None:
        """Add a batch to the statistics that normalise observations from the next batch on."""
        self.statistics.add(data.observation, data.alive)
        self.critic_statistics.add(self._timed(data.observation), data.alive)
        for weights, seen in ((self.weights, self.statistics), (self.judges, self.critic_statistics)):
            if seen.statistics is not None:
                weights |= stack(normalisation(seen.statistics), self.size)
        self.length = float(data.alive.sum(1).mean())

    def _timed(self, observation: Tensor) -> Tensor:
        """[P, T, E, d] to [P, T, E, d + 1]."""
        step = torch.arange(observation.shape[1], dtype=observation.dtype, device=observation.device)
        time = step.view(1, -1, 1, 1) / self.duel.horizon
        return torch.cat([observation, time.expand(*observation.shape[:3], 1)], -1)

    def _play(self, pool: Tensor, iteration: int, teacher: Player | None = None) -> Trajectories:
        """A batch [P, T, episodes]: each player's own tasks, against two of the opponents in turn. With a teacher, the actions
        are the teacher's.
        """
        count = len(self.opponents)
        met = list(dict.fromkeys((iteration % count, (iteration + 1) % count)))
        full = math.ceil(self.budget.steps / self.duel.horizon / len(met))
        episodes = min(math.ceil(self.budget.steps / self.length / len(met)), _CROWD * full)
        seed = derive_seed(Purpose.POPULATION_TRAIN, iteration)
        n = len(met) * self.size
        generator, row = (
            torch.Generator().manual_seed(seed),
            torch.arange(n * episodes, dtype=torch.int64, device="cpu"),
        )
        pick = torch.randint(len(pool), row.shape, generator=generator, dtype=torch.int64, device="cpu")
        seeds = row + seed
        data = self._rollout(pool[pick], [self.opponents[i] for i in met], episodes, seeds, teacher)
        return data.map(lambda part: _per_player(part, self.size))

    def _rollout(
        self, rows: Tensor, opponents: Sequence[Player], episodes: int, seeds: Tensor, teacher: Player | None = None
    ) -> Trajectories:
        """All players against every opponent in order: [opponents * P, T, episodes]."""
        weights = {
            name: value.detach().repeat(len(opponents), *[1] * (value.dim() - 1))
            for name, value in self.weights.items()
        }
        learner = Learner(self.policy, weights)
        actor = learner if teacher is None else Taught(learner, teacher)
        learners = [Sitting(slice(0, len(opponents) * self.size), actor)]
        scripted = [Sitting(slice(i * self.size, (i + 1) * self.size), Seated(one)) for i, one in enumerate(opponents)]
        seats = (learners, scripted) if self.role == "protagonist" else (scripted, learners)
        params = self.duel.game.params_from_rows(rows)
        data = rollout(self.duel, params, seats, episodes, seeds, torch.zeros_like(seeds))[ROLES.index(self.role)]
        assert data is not None
        return data

    def _improve(
        self, data: Trajectories, optimiser: torch.optim.Optimizer, generator: torch.Generator, lesson: bool
    ) -> None:
        """Steps of the clipped surrogate, in a lesson of the teacher's likelihood, and of the critic; each network's gradient is
        cut to a norm of its own.
        """
        for part in self._parts(data, generator):
            prepared = self.policy.prepare(self.weights)
            distribution = self.policy.head(
                prepared, self.policy.over_time(prepared, part.seen[..., :-1]).flatten(1, 2)
            )
            log_prob = distribution.log_prob(part.action.flatten(1, 2)).view_as(part.old)
            if lesson:
                gained = log_prob
            else:
                ratio = torch.exp((log_prob - part.old) * part.alive)
                surrogate = torch.minimum(ratio * part.advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * part.advantage)
                gained = surrogate + self.bonus.view(-1, 1, 1) * distribution.entropy().view_as(surrogate)
            wrong = (self._judge(part.seen) - part.target).square()
            loss = ((wrong - gained) * part.alive).sum((1, 2)) / part.alive.sum((1, 2))
            optimiser.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            for weights in (self.weights, self.judges):
                _cut_gradients(weights)
            with torch_defaults():
                optimiser.step()

    def _parts(self, data: Trajectories, generator: torch.Generator) -> Iterator[Sample]:
        """Random parts of a batch, with replacement."""
        with torch.no_grad():
            whole = self._sample(data)
        # A batch whose episodes ended early has fewer parts, not smaller ones, which would be mostly noise.
        filled = float(data.alive.sum()) / self.size / self.budget.steps
        slices = max(1, round(self.budget.slices * filled / (4 if self.memory else 1)))
        if not self.memory:  # steps are independent
            whole = Sample(*(part.flatten(1, 2).unsqueeze(1) for part in whole))
        played = whole.alive[:, 0]  # [P, M]
        size = max(1, int(played.sum() / self.size / slices))
        for _ in range(self.budget.epochs * slices):
            pick = torch.multinomial(played, size, replacement=True, generator=generator)
            yield Sample(*(_take(part, pick) for part in whole))

    def _sample(self, data: Trajectories) -> Sample:
        """The whole batch, [P, T, E, ...]."""
        seen = self._timed(data.observation)
        value = (self._judge(seen) * self.scale + self.centre) * data.alive
        advantage = gae(data.reward, value, data.alive, DISCOUNT, GAE_LAMBDA)
        target = (advantage + value - self.centre) / self.scale
        prepared = self.policy.prepare(self.weights)
        distribution = self.policy.head(prepared, self.policy.over_time(prepared, data.observation).flatten(1, 2))
        old = distribution.log_prob(data.action.flatten(1, 2)).view_as(advantage)
        return Sample(seen, data.action, data.alive, normalise(advantage, data.alive), target, old)

    def _judge(self, seen: Tensor) -> Tensor:
        """Values [P, T, M] in standard deviations of the first batch's returns, from [P, T, M, d + 1]."""
        return self.critic.over_time(self.critic.prepare(self.judges), seen).squeeze(-1)

    def test(self) -> Tensor:
        """Mean returns [P, tasks] on the panel; the same episodes for all players."""
        tasks = task_rows(self.duel.spec, frozen_tasks(self.duel.spec, "validation"), {})
        episodes = self.budget.test_episodes
        each = tasks.repeat_interleave(episodes, 0)
        returns = []
        for i, opponent in enumerate(self.opponents):
            row = torch.arange(len(each), dtype=torch.int64, device="cpu")
            seeds = row + derive_seed(Purpose.POPULATION_TEST, i)
            data = self._rollout(each.repeat(self.size, 1), [opponent], len(each), seeds.repeat(self.size))
            returns.append(data.returns.view(self.size, len(tasks), episodes).mean(2))
        return torch.stack(returns).mean(0)


def _stacked(starts: Sequence[Weights]) -> Weights:
    return {name: torch.stack([start[name] for start in starts]).requires_grad_() for name in starts[0]}


def _moments(x: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [P, 1, 1] of [P, T, E] over the steps that were played."""
    count = alive.sum((1, 2), keepdim=True)
    mean = (x * alive).sum((1, 2), keepdim=True) / count
    return mean, torch.sqrt(((x - mean).square() * alive).sum((1, 2), keepdim=True) / count).clamp(min=1e-3)


def _cut_gradients(weights: Weights) -> None:
    """Cut each player's gradient to the largest norm."""
    gradients = [value.grad for value in weights.values() if value.grad is not None]
    norm = torch.sqrt(torch.stack([g.square().flatten(1).sum(1) for g in gradients]).sum(0))
    shrink = (MAX_NORM / (norm + 1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shrink.view(-1, *[1] * (gradient.dim() - 1)))


def _take(part: Tensor, pick: Tensor) -> Tensor:
    """[P, T, M, ...] at each player's own indices [P, m]: [P, T, m, ...]."""
    players, steps, count = part.shape[:3]
    row = torch.arange(players * steps, dtype=pick.dtype, device=pick.device).view(players, steps, 1)
    row = row * count + pick.unsqueeze(1)
    return part.flatten(0, 2).index_select(0, row.flatten()).view(players, steps, -1, *part.shape[3:])


def _per_player(part: Tensor, size: int) -> Tensor:
    """[opponents * P, T, E, ...] to [P, T, opponents * E, ...]."""
    joined = part.view(-1, size, *part.shape[1:]).movedim(0, 2)
    return joined.flatten(2, 3)
