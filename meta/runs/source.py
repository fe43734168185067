"""Sources of a training run's batches of tasks, and its validation: the played side of the trainer."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from metaduel.agents.compiled import Play
from metaduel.agents.policies.base import Policy, Weights, stack
from metaduel.agents.policies.statistics import InputStatistics
from metaduel.agents.rollout import rollout
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import PERSONA_EPISODES, PERSONA_TASKS, Purpose
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import ROLES, Role, Split, Task, other
from metaduel.envs.core.tasks import frozen_tasks, task_rows, training_rows
from metaduel.envs.players.names import load_player
from metaduel.meta.adaptation.adapters import GradientAdapter, adapter_of
from metaduel.meta.adaptation.few_shot import Evaluating, Failed, Settings
from metaduel.meta.adaptation.inner import FIRST_ORDER
from metaduel.meta.adaptation.pieces import Adapting, Unrolling
from metaduel.meta.adaptation.rates import Rates, below
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.joint import JointConfig
from metaduel.meta.learners.learner import Learner, Update
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.personas import Personas, problem_sizes
from metaduel.meta.problems.problem import Given, Mixture, Part, Played, Players, Tasks, played
from metaduel.meta.runs.config import ForeignConfig, RunConfig, TrainConfig
from metaduel.meta.runs.players import Network, input_statistics, make_duel, make_policy
from metaduel.meta.runs.trainer import Validation

TUNING_TASKS = 5  # of the validation panel, at most, on which step sizes of fine-tuning are compared


class PlayedSource(ABC):
    """The common part of sources whose problems are played: players, opponents, returns, and statistics of observations.

    Args:
        config: the run's settings.
        simulator: what is played.
        network: makes the policies' modules, where ``config.network`` is ``own``.
        opponents: per learner, the scripted players that it meets.
        policies: per learner, if they are made already.

    Attributes:
        policies: per learner.
        opponents: per learner, the scripted players that it meets.
        horizon: the most steps of an episode.
        play: plays the episodes of matchups: ``rollout``, or the same compiled.
        statistics: per learner, statistics of its inputs in training, if these are normalised.
    """

    def __init__(
        self,
        config: TrainConfig | ForeignConfig,
        simulator: Simulator,
        network: Network | None,
        opponents: Mapping[Role, Sequence[Player]],
        policies: Mapping[Role, Policy] | None = None,
    ) -> None:
        self.policies: Mapping[Role, Policy] = policies or {
            role: make_policy(config, simulator, role, network) for role in config.roles
        }
        self.statistics: Mapping[Role, InputStatistics] = input_statistics(self.policies, config)
        self._run, self.opponents, self.horizon = config, opponents, simulator.horizon
        self.play: Play = rollout
        self._duels, self._scripted = config.met["learned"], config.met["scripted"]
        self._grid = _fine_tuning_rates(self.policies, config)

    @abstractmethod
    def problem(self, iteration: int) -> Tasks:
        """See ``trainer.Source``."""

    @abstractmethod
    def shares(self) -> dict[str, float]:
        """Per role, each kind of peer's share of its tasks: ``<role>/share_<kind>``."""

    @abstractmethod
    def _drawn(self, n: int, iteration: int) -> tuple[Simulator, Tensor]:
        """``n`` training tasks of an iteration, and their game or environment."""

    @abstractmethod
    def _panel(self, role: Role) -> tuple[Simulator, Tensor, Sequence[Player]]:
        """A role's validation panel: the tasks and the opponents."""

    def matchups(self, iteration: int) -> DuelProblem | None:
        """The iteration's matchups of learners with each other and with scripted players; None: there are none."""
        config = self._run
        first, last = self._met("protagonist", iteration), self._met("adversary", iteration)
        total = sum(n for _, n in first) + self._duels + sum(n for _, n in last)
        if not total:
            return None
        simulator, rows = self._drawn(total, iteration)
        matchups = Matchups(rows, first, self._duels, last)
        seed, loss = derive_seed(config.seed, Purpose.EPISODES, iteration), config.objective
        return DuelProblem(simulator, self.policies, matchups, config.episodes_per_batch, seed, loss, play=self.play)

    def _met(self, role: Role, iteration: int) -> list[tuple[Player, int]]:
        """The scripted opponents of an iteration with the number of tasks of each: ``opponents_at_once`` of them in turn."""
        players, tasks = self.opponents.get(role, ()), self._scripted
        if not players or not tasks:
            return []
        n = min(self._run.opponents_at_once or len(players), len(players), tasks)
        met = [players[(iteration + i) % len(players)] for i in range(n)]
        return [(player, tasks // n + (i < tasks % n)) for i, player in enumerate(met)]

    def validate(self, learner: Learner) -> Work[Validation]:
        """Few-shot returns of each role on its validation panel, and its score. Methods without an inner step are fine-tuned
        with the step size that is best on a part of the panel.
        """
        metrics: dict[str, float] = {}
        every: dict[Role, Tensor] = {}
        for role, policy in self.policies.items():
            rates = learner.rates(role).detach()
            adapter = adapter_of(role, policy, learner.start[role], rates, self._run.objective)
            if self._grid:
                metrics[f"{role}/fine_tuning_lr"] = lr = yield from self._tuned(role, cast(GradientAdapter, adapter))
                rates = self._grid[role][lr]
                adapter = replace(cast(GradientAdapter, adapter), rates=rates)
            shots = self._run.configured.steps or self._run.fine_tuning_steps
            (found,) = yield Evaluating([adapter], self._evaluation(
                role, shots, Purpose.VALIDATION_ADAPT, Purpose.VALIDATION_TEST
            ))  # fmt: skip
            if isinstance(found, Failed):
                raise found
            returns = found.mean((1, 2, 3)).tolist()
            metrics |= {f"{role}/validation_return_{shot}": value for shot, value in enumerate(returns)}
            adapted = returns[1:] or returns
            score = sum(adapted) / len(adapted)
            more, metrics[f"{role}/score"] = yield from self._beside(role, learner.start[role], rates, shots, score)
            metrics |= more
            every[role] = rates
        return Validation(metrics, every)

    def _tuned(self, role: Role, adapter: GradientAdapter) -> Work[float]:
        """The step size of the grid that is best on a few tasks of the panel, in episodes apart from those that the score is of:
        the best of several scores would be too good.

        Raises:
            Failed: it cannot continue with any of them.
        """
        trials = [replace(adapter, rates=rates) for rates in self._grid[role].values()]
        shots = self._run.fine_tuning_steps
        settings = self._evaluation(role, shots, Purpose.TUNE_ADAPT, Purpose.TUNE_TEST)
        few = settings._replace(tasks=settings.tasks[:TUNING_TASKS], tested=range(1, shots + 1))
        found = yield Evaluating(trials, few)
        # A rate that diverges gets the lowest score.
        scores = [-math.inf if isinstance(one, Failed) else float(one.mean().nan_to_num(-math.inf)) for one in found]
        best = max(range(len(trials)), key=scores.__getitem__)
        if isinstance(found[best], Failed):
            raise found[best]
        return list(self._grid[role])[best]

    def _evaluation(self, role: Role, shots: int, adapt: Purpose, test: Purpose) -> Settings:
        """Episodes on a role's validation panel."""
        simulator, tasks, opponents = self._panel(role)
        return Settings(
            simulator, role, tasks, opponents,
            shots=shots, episodes=self._run.episodes, test_episodes=self._run.episodes,
            adapt_seed=derive_seed(0, adapt), test_seed=derive_seed(0, test),
        )  # fmt: skip

    def _beside(
        self, role: Role, start: Weights, rates: Tensor, shots: int, score: float
    ) -> Work[tuple[dict[str, float], float]]:
        """A role's other validation metrics, and its score with them."""
        yield from ()
        return {}, score

    def record(self, update: Update) -> dict[str, float]:
        """See ``trainer.Source``. From the next iteration on, inputs are normalised by all statistics so far."""
        drawn = [played(batch) for shot in update.shots for batch in shot]
        steps = update.abandoned_steps + sum(batch.environment_steps for batch in drawn)
        returns: list[Mapping[Role, Tensor]] = [joined_returns(map(played, shot)) for shot in update.shots]
        seen = [batch.seen() for batch in drawn]
        if update.chain is not None:
            steps += update.chain.environment_steps
            returns += update.chain.returns
            seen.append(update.chain.seen())
        own = dict.fromkeys(self.policies, 0)
        for role, data in itertools.chain.from_iterable(seen):
            own[role] += int(data.alive.sum(dtype=torch.float64))
            if role in self.statistics:
                self.statistics[role].add(data)
        metrics = {"environment_steps": float(steps)} | self.shares()
        metrics |= {f"{role}/player_steps": float(n) for role, n in own.items()}
        for shot, values in enumerate(returns):
            metrics |= {f"{role}/return_{shot}": float(value.mean()) for role, value in values.items()}
        return metrics

    def fixed(self, role: Role) -> Weights:
        """See ``trainer.Source``: the normalisation of the role's inputs."""
        return self.statistics[role].fixed if role in self.statistics else {}

    def state(self) -> dict[str, Tensor]:
        """See ``trainer.Source``."""
        state: dict[str, Tensor] = {}
        for role, running in self.statistics.items():
            state |= {f"{role}/statistics/{name}": value for name, value in running.state().items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``trainer.Source``."""
        for role, running in self.statistics.items():
            running.load(below(state, f"{role}/statistics/"))


def _fine_tuning_rates(policies: Mapping[Role, Policy], config: RunConfig) -> dict[Role, dict[float, Tensor]]:
    """Per role and rate the step sizes [1, ...] that are tried in validation; empty: there is no fine-tuning.

    Raises:
        InvalidInputError: the head alone is to adapt, and a player has none.
    """
    learner = config.configured
    if not isinstance(learner, JointConfig) or not config.fine_tuning_steps:
        return {}
    start = {role: policy.init(0) for role, policy in policies.items()}
    heads = {role: policy.head_names for role, policy in policies.items()} if learner.adapts == "head" else None
    grid = {lr: Rates(start, 1, dict.fromkeys(start, lr), "step", heads) for lr in learner.fine_tuning_lrs}
    return {role: {lr: rates.of(role).detach() for lr, rates in grid.items()} for role in policies}


def joined_returns(batches: Iterable[Played]) -> dict[Role, Tensor]:
    """Per role, mean undiscounted returns on all tasks of a shot."""
    values: dict[Role, list[Tensor]] = {}
    for batch in batches:
        for role, value in batch.returns.items():
            values.setdefault(role, []).append(value)
    return {role: torch.cat(parts) for role, parts in values.items()}


def picks(length: int, n: int, seed: int) -> Tensor:
    """``n`` indices into a list, drawn with replacement: [n] int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(length, (n,), generator=generator, dtype=torch.int64, device="cpu")


class DuelSource(PlayedSource):
    """Batches of a family's matchups: sampled (or given) training tasks against the mixture of opponents.

    Args:
        config: the run's settings.
        tasks: the training tasks; sampled from the training split if None.
        network: makes the policies' modules, where ``config.network`` is ``own``.
        beside: the source of a run of the same game, networks and opponents (``config.world``), which it shares.

    Raises:
        InvalidInputError: an opponent that doesn't exist, or a bad task.
    """

    def __init__(
        self,
        config: TrainConfig,
        tasks: Sequence[Task] | None = None,
        network: Network | None = None,
        beside: DuelSource | None = None,
    ) -> None:
        self.config, self.spec = config, config.spec
        self.duel: Duel = make_duel(config) if beside is None else beside.duel
        opponents = (
            {
                role: [load_player(self.duel, other(role), name) for name in config.opponents(role)]
                for role in config.roles
            }
            if beside is None
            else beside.opponents
        )
        super().__init__(config, self.duel, network, opponents, None if beside is None else beside.policies)
        if tasks is not None and not tasks:
            raise InvalidInputError("tasks=[] must hold at least one task")
        self._tasks = None if tasks is None else task_rows(self.spec, tasks, config.fixed)
        self._validation = task_rows(
            self.spec, frozen_tasks(self.spec, "validation")[: config.validation_tasks], config.fixed
        )
        self._personas = {
            role: Personas(
                self.duel,
                other(role),
                make_policy(config, self.duel, other(role), network),
                config.objective,
                config.persona_lr,
                config.learner.inner_lr_of(other(role)),
            )
            for role in (config.roles if config.persona_share else ())
        }
        if beside is not None:
            for role, personas in self._personas.items():
                personas.policy = beside._personas[role].policy

    def problem(self, iteration: int) -> Tasks:
        """See ``PlayedSource``."""
        config, matchups = self.config, self.matchups(iteration)
        duels: list[DuelProblem] = [] if matchups is None else [matchups]
        given: list[Mapping[Role, Given]] = [{} for _ in duels]
        for role in self._personas if config.met["persona"] else ():
            seat, n = ROLES.index(role), config.met["persona"]
            rows = self._rows(n, PERSONA_TASKS[seat], iteration)
            sizes = problem_sizes(n, self.policies[role], config.episodes_per_batch * self.duel.horizon)
            for part, some in enumerate(torch.split(rows, sizes)):
                seeds = (PERSONA_EPISODES[seat], iteration, *([part] if part else []))
                problem, personas = self._against_personas(role, some, config.episodes_per_batch, seeds, "train")
                duels.append(problem)
                given.append(personas)
        if len(duels) == 1 and not given[0]:
            return duels[0]
        return Mixture(tuple(Part(problem, personas) for problem, personas in zip(duels, given, strict=True)))

    def _drawn(self, n: int, iteration: int) -> tuple[Simulator, Tensor]:
        return self.duel, self._rows(n, Purpose.TASKS, iteration)

    def _rows(self, n: int, purpose: int, iteration: int) -> Tensor:
        """Training tasks of an iteration."""
        return self.training_tasks(n, derive_seed(self.config.seed, purpose, iteration))

    def training_tasks(self, n: int, seed: int) -> Tensor:
        """Training tasks as rows [n, number of contexts], the same for the same seed."""
        if self._tasks is None:
            return training_rows(self.spec, n, seed, self.config.fixed)
        return self._tasks[picks(len(self._tasks), n, seed)]

    def _against_personas(
        self, role: Role, rows: Tensor, episodes: int, seeds: tuple[int, ...], split: Split
    ) -> tuple[DuelProblem, dict[Role, Given]]:
        """A role's duels with personas, one on each task; noise and personas are those of ``seeds``."""
        personas = self._personas[role]
        run = () if split != "train" else (self.config.seed,)  # every run is validated on the same
        problem = DuelProblem(
            self.duel,
            {role: self.policies[role], other(role): personas.policy},
            Matchups(rows, duels=len(rows)),
            episodes,
            derive_seed(*run, *seeds),
            {role: self.config.objective.of(role), other(role): personas.loss},
        )
        return problem, {other(role): personas.sample(len(rows), split, *run, *seeds)}

    def shares(self) -> dict[str, float]:
        """See ``PlayedSource``."""
        met = self.config.met
        return {f"{role}/share_{kind}": n / self.config.tasks for role in self.config.roles for kind, n in met.items()}

    def _panel(self, role: Role) -> tuple[Simulator, Tensor, Sequence[Player]]:
        """The validation split, against the scripted training opponents."""
        return self.duel, self._validation, self.opponents[role]

    def _beside(
        self, role: Role, start: Weights, rates: Tensor, shots: int, score: float
    ) -> Work[tuple[dict[str, float], float]]:
        """Learning personas, if they are met in training; the score weighs both kinds of opponents by their shares."""
        if not self._personas:
            return {}, score
        met = yield from self._validate_on_personas(role, start, rates, shots)
        share, adapted = self.config.persona_share, met[1:] or met
        score = (1 - share) * score + share * sum(adapted) / len(adapted)
        return {f"{role}/validation_persona_return_{shot}": value for shot, value in enumerate(met)}, score

    def _validate_on_personas(self, role: Role, start: Weights, rates: Tensor, shots: int) -> Work[list[float]]:
        """Mean returns at every shot against personas of the validation split, both learning."""
        problem, given = self._against_personas(
            role, self._validation, self.config.episodes, (Purpose.VALIDATION_ADAPT, ROLES.index(role)), "validation"
        )
        persona = given[other(role)]
        players: Players = {role: stack(start, len(self._validation)), other(role): persona.weights}
        sizes = {role: rates, other(role): persona.step_size}
        *before, last = yield Adapting(problem, players, sizes, shots)
        (_,), (end,) = yield Unrolling(problem, last.players, {}, 0, FIRST_ORDER, first=shots)
        return [float(played(batch).returns[role].mean()) for batch in (*(now.batch for now in before), end)]
