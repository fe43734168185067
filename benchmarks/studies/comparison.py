"""All methods on several families: learners and baselines, in both roles, with equal budgets.

- **Budget**: every training plays the same number of environment steps (both seats of a game counted once, all K + 1 batches of
  an iteration); a method with more steps per iteration has fewer iterations.
- **Tuning**: every trained method has the same number of tuning runs, short trainings of another seed; the best on validation
  tasks against training opponents is chosen. Methods that do not meta-learn their rates (joint, self-play, RARL, random start)
  then have them tuned on validation tasks as well, from one grid for all.
- **Test**: returns at every shot on held-out tasks against held-out scripted opponents; against **rivals**, the players that some
  of the methods trained with the next seed; and against **responses**, PPO that trained against each adapted, frozen player (see
  ``exploitability.py``).

Rows that are no test returns have splits of their own: ``TRIAL`` and ``CURVE`` rows are mean validation returns, and a curve's
shot is the number of environment steps in thousands; ``RIVAL`` and ``RESPONSE`` stand in place of the opponent's split.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaduel.benchmarks.core import few_shot
from metaduel.benchmarks.core.few_shot import Contender, Protocol
from metaduel.benchmarks.core.metrics import Array, estimate, probability_of_improvement
from metaduel.benchmarks.core.report import COLOURS, RNG_SEED, Sheet, canvas, cell, cover_note, rendered
from metaduel.benchmarks.core.suite import Cell, Report, Suite, Together
from metaduel.benchmarks.core.table import COLUMNS, UNTRAINED, Table, concatenate, from_returns
from metaduel.benchmarks.core.trainings import learn_all
from metaduel.benchmarks.tools import exploitability
from metaduel.benchmarks.tools.exploitability import Exploitation
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.meta.adaptation.adapters import adapter_of
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.players import make_duel, make_policy

TRIAL, CURVE, RIVAL, RESPONSE = "tuning trial", "learning curve", "rival", "response"
RANDOM, INFORMED, SCRIPTED = "random start", "informed", "scripted"
TRIAL_SEED = 1000  # of the tuning runs
VALIDATIONS = 6  # of a training, about


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method's part of the suite.

    Attributes:
        settings: settings of its runs, in every family.
        trials: settings of the tuning runs, one of which is chosen.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    trials: tuple[dict[str, Any], ...] = ({},)


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Learned opponents.

    Attributes:
        methods: the methods whose players of the next seed are the rivals.
        tasks: number of held-out tasks, the first ones.
    """

    methods: tuple[str, ...] = ()
    tasks: int = 40


@dataclass(frozen=True, kw_only=True)
class Comparison(Suite):
    """The protocol's numbers.

    Attributes:
        seeds: training seeds.
        steps: environment steps of a training.
        trial_steps: environment steps of a tuning run.
        evaluation: fields of ``Protocol``, of the held-out panel.
        settings: settings of all runs.
        families: settings of each family's runs.
        methods: by name; ``informed`` sees hidden contexts and does not adapt.
        baseline: the method that the others are compared with.
        rivals: learned opponents.
        responses: settings of the responses to adapted players; None: no responses.
    """

    seeds: int
    steps: int
    trial_steps: int
    evaluation: dict[str, Any]
    settings: dict[str, Any]
    families: dict[str, dict[str, Any]]
    methods: dict[str, Method]
    baseline: str
    rivals: Rivals = field(default_factory=Rivals)
    responses: Exploitation | None = None

    def __post_init__(self) -> None:
        check_whole("seeds", self.seeds, 2 if self.rivals.methods else 1)
        check_whole("steps", self.steps)
        check_whole("trial_steps", self.trial_steps)
        counts = {name: len(own.trials) for name, own in self.methods.items() if name != INFORMED}
        if len(set(counts.values())) > 1:
            raise InvalidInputError(f"trials: every method must have the same number of them, not {counts}")
        for name in (self.baseline, *self.rivals.methods):
            if name not in self.methods:
                raise unknown("method", name, self.methods)
        for reserved in (RANDOM, SCRIPTED):
            if reserved in self.methods:
                raise InvalidInputError(f"method {reserved!r} is always there: leave it out")
        for family in self.families:
            for name, own in self.methods.items():
                for trial in own.trials:
                    self.config(family, name, trial, 0)  # refuses bad settings before anything is played
        _ = self.protocol

    @property
    def protocol(self) -> Protocol:
        """The panel."""
        for name in self.evaluation:
            if name not in Protocol.__dataclass_fields__:
                raise unknown("setting of evaluation", name, Protocol.__dataclass_fields__)
        return Protocol(**self.evaluation)

    def config(self, family: str, method: str, trial: Mapping[str, Any], seed: int) -> TrainConfig:
        """A training's settings, except its length."""
        own = {**self.settings, **self.families[family], **self.methods[method].settings, **trial, "seed": seed}
        named = own.pop("method", method)
        return TrainConfig(game=family).override(method=named).override(**own)

    def cells(self) -> list[Cell]:
        """See ``Suite.cells``: tuning runs, then all methods, seed by seed."""
        panel = {"evaluation": self.evaluation}
        first: list[Cell] = []
        by_seed: list[list[Cell]] = [[] for _ in range(self.seeds)]
        against: list[list[Cell]] = [[] for _ in range(self.seeds)]
        for family in self.families:
            spec = find(family)
            first.append(Cell(f"{family}, {SCRIPTED}", spec, panel, partial(self._scripted, family)))
            runs: dict[tuple[str, int], Cell] = {}
            for name, own in self.methods.items():
                choice = [self.config(family, name, trial, TRIAL_SEED) for trial in own.trials]
                tried = {"steps": self.trial_steps, "trials": [config.to_dict() for config in choice]}
                tuning = Cell(
                    f"{family}, {name}, trials", spec, tried, partial(self._try, name, choice),
                    together=Together(f"{family}, {name}, trials", partial(self._trials, choice), learn_steps),
                )  # fmt: skip
                if len(choice) > 1:
                    first.append(tuning)
                for seed, cells in enumerate(by_seed):
                    configs = [self.config(family, name, trial, seed) for trial in own.trials]
                    settings = {**panel, **tried, "steps": self.steps, "trial_steps": self.trial_steps, "seed": seed}
                    work = partial(self._learn, name, configs, tuning.stem)
                    tuned = (tuning.stem,) if len(choice) > 1 else ()
                    plans = partial(self._plans, configs, tuning.stem)
                    runs[name, seed] = Cell(
                        f"{family}, {name}, seed {seed}", spec, settings, work, tuned,
                        Together(f"{family}, {name}", plans, learn_steps),
                    )  # fmt: skip
                    cells.append(runs[name, seed])
            for seed, cells in enumerate(by_seed):
                work = partial(self._random, family, seed)
                cells.append(Cell(f"{family}, {RANDOM}, seed {seed}", spec, {**panel, "seed": seed}, work))
            for (name, seed), cell_ in runs.items():
                if name == INFORMED:
                    continue
                if self.rivals.methods:
                    met = {rival: runs[rival, (seed + 1) % self.seeds].stem for rival in self.rivals.methods}
                    settings = {**panel, "run": cell_.stem, "rivals": met, "tasks": self.rivals.tasks}
                    work = partial(self._meet, name, cell_.stem, met)
                    needs = (cell_.stem, *met.values())
                    named = f"{family}, {name} against rivals, seed {seed}"
                    against[seed].append(Cell(named, spec, settings, work, needs))
                if self.responses is not None:
                    settings = {"run": cell_.stem, **asdict(self.responses)}
                    work = partial(self._respond, name, cell_.stem)
                    named = f"{family}, response to {name}, seed {seed}"
                    against[seed].append(Cell(named, spec, settings, work, (cell_.stem,)))
        return [*first, *(cell_ for cells in (*by_seed, *against) for cell_ in cells)]

    # The cells

    def _trials(self, choice: list[TrainConfig], folder: Path) -> list[Plan]:
        return [Plan(config, self.trial_steps, folder / str(i)) for i, config in enumerate(choice)]

    def _plans(self, configs: list[TrainConfig], tuning: str, folder: Path) -> list[Plan]:
        return [Plan(self._chosen(configs, folder.parent / tuning), self.steps, folder)]

    def _chosen(self, configs: list[TrainConfig], tried: Path) -> TrainConfig:
        """The settings whose tuning run was best."""
        if len(configs) == 1:
            return configs[0]
        scores = [sum(best_score(tried / str(i), role) for role in ROLES) for i in range(len(configs))]
        return configs[int(np.argmax(scores))]

    def _try(self, name: str, choice: list[TrainConfig], folder: Path) -> Table:
        """The tuning runs."""
        tables = []
        for i, config in enumerate(choice):
            run = load(folder / str(i) / "run")
            tables += [
                _validation(config, f"{name}, trial {i}", TRIAL, role, [(0, best_score(folder / str(i), role))])
                for role in run.agents
            ]
        return concatenate(tables)

    def _learn(self, name: str, configs: list[TrainConfig], tuning: str, folder: Path) -> Table:
        """Train with the best settings, and test."""
        config, run = self._chosen(configs, folder.parent / tuning), load(folder / "run")
        tables = []
        for role in run.agents:
            player = few_shot.contender(run, role, name)
            tables.append(self._test(self._tuned(player, folder) if not config.informed else player))
            tables.append(_validation(config, name, CURVE, role, curve(folder, role)))
        return concatenate(tables)

    def _random(self, family: str, seed: int, folder: Path) -> Table:
        """Untrained networks, fine-tuned."""
        config = self.config(family, self.baseline, {}, seed)
        duel, tables = make_duel(config), []
        for role in ROLES:
            policy = make_policy(config, duel, role)
            start = policy.init(derive_seed(seed, Purpose.RANDOM_START))
            adapter = adapter_of(role, policy, start, next(iter(start.values())).new_zeros(0), config.objective)
            player = Contender(RANDOM, seed, role, duel, adapter)
            tables.append(self._test(self._tuned(player, folder)))
        return concatenate(tables)

    def _scripted(self, family: str, folder: Path) -> Table:
        """Every scripted player that reads no hidden context."""
        spec, horizon = find(family), self.config(family, self.baseline, {}, 0).horizon or None
        return concatenate(
            [
                self._rows(spec.name, one.returns[:1], one.role, one.method, UNTRAINED, "held_out", one.opponents)
                for role in ROLES
                for one in few_shot.evaluate_scripted(spec, role, self.protocol, horizon=horizon)
            ]
        )

    def _meet(self, name: str, run: str, rivals: Mapping[str, str], folder: Path) -> Table:
        """Test against learned opponents."""
        work, tables = folder.parent, []
        mine = load(work / run / "run")
        protocol = replace(self.protocol, task_count=self.rivals.tasks)
        for role in mine.agents:
            player = self._tuned(few_shot.contender(mine, role, name), work / run)
            names = [f"run:{work / stem / 'run'}" for stem in rivals.values()]
            returns = few_shot.against(player, protocol, names)
            tables.append(self._rows(mine.config.game, returns, role, name, mine.config.seed, RIVAL, list(rivals)))
        return concatenate(tables)

    def _respond(self, name: str, run: str, folder: Path) -> Table:
        """Train responses to the adapted players; a row is the mean return of the response's seat."""
        assert self.responses is not None
        mine = load(folder.parent / run / "run")
        tables = []
        for one in exploitability.exploit([mine], self.responses, folder, quiet=True):
            seat = ROLES[1 - ROLES.index(one.role)]  # type: ignore[arg-type]
            for player, value in ((one.opponent, one.opponent_return), ("PPO", one.response_return)):
                made = from_returns(
                    np.full((1, 1, 1, 1), value), find(mine.config.game), role=seat, method=f"{player} against {name}",
                    seed=one.seed, task_split="held_out", tasks=[one.task], opponent_split=RESPONSE, opponents=[name],
                    actions="sampled",
                )  # fmt: skip
                tables.append(made)
        return concatenate(tables)

    def _tuned(self, player: Contender, folder: Path) -> Contender:
        """The player with a tuned rate, if its rate was not meta-learned; the choice is kept."""
        if player.adapter.adapts:
            return player
        path = folder / f"rate-{player.role}.json"
        if path.exists():
            rate = float(json.loads(path.read_text(encoding="utf-8")))
        else:
            rate = few_shot.rate_of(few_shot.tune_rate(player, self.protocol))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(rate).encode())
        return few_shot.with_rate(player, rate)

    def _test(self, player: Contender) -> Table:
        found = few_shot.evaluate(player, self.protocol)
        shots = len(found.returns) if player.adapter.adapts else 1
        game = player.duel.spec.name
        return self._rows(
            game, found.returns[:shots], player.role, player.method, player.seed, "held_out", found.opponents
        )

    def _rows(self, game: str, returns: Array, role: Role, method: str, seed: int, split: str, opponents: Any) -> Table:
        # One row per task and shot: episodes and opponents are averaged over anyway.
        return from_returns(
            returns.mean((1, 3), keepdims=True).round(5), find(game), role=role, method=method, seed=seed,
            task_split=self.protocol.tasks, tasks=[f"{self.protocol.tasks}:{i}" for i in range(returns.shape[2])],
            opponent_split=split, opponents=[" + ".join(opponents)], actions=self.protocol.actions,
        )  # fmt: skip

    # The report

    def report(self, table: Table, out: Path) -> Report:
        """See ``Suite.report``."""
        sheets, pictures = [], {}
        panel = table.filter(task_split=self.protocol.tasks, opponent_split="held_out")
        for family in self.families:
            own = panel.filter(family=family)
            sheets += [self._returns(family, own, role) for role in ROLES]
            name = f"comparison-{family}.png"
            self._plot(table.filter(family=family), own, out / name)
            pictures[name] = f"{family}: return over shots, and validation return over environment steps"
        sheets.append(self._better(panel))
        if self.rivals.methods:
            sheets.append(self._rivals(table.filter(opponent_split=RIVAL)))
        if self.responses is not None:
            sheets.append(self._responses(table.filter(opponent_split=RESPONSE)))
        return Report(sheets, pictures)

    @property
    def _learners(self) -> list[str]:
        return [*(name for name in self.methods if name != INFORMED), RANDOM]

    def _returns(self, family: str, own: Table, role: Role) -> Sheet:
        last, lines, arrays = self.protocol.shots, [], []
        shots = sorted({0, 1, last})
        for method in own.filter(role=role).values("method"):
            part = own.filter(role=role, method=method)
            played = part.values("shot")
            found = [part.pivot(method, role, shot) for shot in shots if shot in played]
            arrays += found
            cells = [cell(estimate(one, RNG_SEED, "iqm")) for one in found]
            gain = ""
            if method in self._learners and method != self.baseline:
                a, b = own.pair(method, self.baseline, role, last)
                difference = estimate(a - b, RNG_SEED, "iqm")
                gain = cell(difference) + (" *" if difference.interval.excludes_zero else "")
            lines.append((method, *cells, *[""] * (len(shots) - len(cells)), gain))
        header = ("method", *(f"shot {shot}" for shot in shots), f"minus {self.baseline}, shot {last}")
        note = f"Interquartile means over seeds and tasks. {cover_note(arrays)} * marks an interval that excludes 0."
        return Sheet(f"{family}: return as {role}", header, tuple(lines), note)

    def _better(self, panel: Table) -> Sheet:
        """Probability that a run of the row's method beats one of the column's."""
        last, lines = self.protocol.shots, []
        for first in self._learners:
            cells = []
            for second in self._learners:
                wins = [
                    probability_of_improvement(own.pivot(first, role, last), own.pivot(second, role, last))
                    for own in (panel.filter(family=family) for family in self.families)
                    for role in ROLES
                ]
                cells.append("" if first == second else f"{np.mean(wins):.2f}")
            lines.append((first, *cells))
        note = f"At shot {last}, on a task chosen at random; means over families and roles. Above 0.5: the row's is better."
        return Sheet("Probability of improvement", ("method", *self._learners), tuple(lines), note)

    def _rivals(self, table: Table) -> Sheet:
        last, lines, arrays = self.protocol.shots, [], []
        for method in (name for name in self._learners if name != RANDOM):
            cells = []
            for family in self.families:
                for role in ROLES:
                    arrays.append(table.filter(family=family).pivot(method, role, last))
                    cells.append(cell(estimate(arrays[-1], RNG_SEED, "iqm")))
            lines.append((method, *cells))
        header = ("method", *(f"{family}, {role}" for family in self.families for role in ROLES))
        note = (
            f"Interquartile means at shot {last} against the players that {' and '.join(self.rivals.methods)} trained with the "
            f"next seed, as they were trained. {cover_note(arrays)}"
        )
        return Sheet("Against learned opponents of other seeds", header, tuple(lines), note)

    def _responses(self, table: Table) -> Sheet:
        assert self.responses is not None
        lines, arrays = [], []
        for method in (name for name in self._learners if name != RANDOM):
            cells = []
            for family in self.families:
                for role in ROLES:
                    own = table.filter(family=family, opponent=method, role=other(role))
                    response = own.filter(method=f"PPO against {method}")
                    usual = own.filter(method=[name for name in own.values("method") if not name.startswith("PPO ")])
                    arrays.append(_seeds(response) - _seeds(usual))
                    cells.append(cell(estimate(arrays[-1], RNG_SEED)))
            lines.append((method, *cells))
        header = ("method", *(f"{family}, {role}" for family in self.families for role in ROLES))
        note = (
            f"What PPO gains over the scripted opponent in its seat after {self.responses.steps:,} steps against the adapted, "
            f"frozen player; {self.responses.tasks} held-out tasks. Lower is harder to exploit. {cover_note(arrays)}"
        )
        return Sheet("Gain of a learned response", header, tuple(lines), note)

    def _plot(self, table: Table, panel: Table, path: Path) -> None:
        figure = canvas(11.0, 7.0)
        grid = figure.subplots(2, 2)
        shots = range(self.protocol.shots + 1)
        curves = table.filter(opponent_split=CURVE)
        styles = [(colour, line) for line in ("-", "--") for colour in COLOURS]
        for column, role in enumerate(ROLES):
            above, below = grid[0][column], grid[1][column]
            for (colour, line), method in zip(styles, self._learners, strict=False):
                found = [estimate(panel.pivot(method, role, shot), RNG_SEED, "iqm") for shot in shots]
                bars = np.abs(np.array([[e.interval.low - e.value, e.interval.high - e.value] for e in found])).T
                above.errorbar(
                    list(shots), [e.value for e in found], yerr=np.nan_to_num(bars), color=colour, linestyle=line, label=method,
                    capsize=2, linewidth=1.4,
                )  # fmt: skip
                own = curves.filter(role=role, method=method)
                runs = [own.filter(seed=seed) for seed in own.values("seed")]
                if runs:  # runs are validated at different times
                    steps = np.linspace(1, VALIDATIONS, VALIDATIONS) / VALIDATIONS * self.steps / 1000
                    values = np.mean([np.interp(steps, run["shot"], run["return"]) for run in runs], 0)
                    below.plot(steps / 1000, values, color=colour, linestyle=line, linewidth=1.4)
            if INFORMED in self.methods:
                above.axhline(panel.pivot(INFORMED, role, 0).mean(), color="#555555", linestyle=":", linewidth=1.2)
            above.set_title(f"{panel['family'][0]}, {role}", loc="left", fontsize=10)
            above.set_xlabel("shot (dotted: informed)")
            above.set_xticks(list(shots))
            below.set_xlabel("million environment steps")
            above.set_ylabel("held-out return")
            below.set_ylabel("validation return")
            for axes in (above, below):
                axes.spines[["top", "right"]].set_visible(False)
        grid[0][1].legend(fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
        write_atomic(path, rendered(figure, "png"))


class Plan(NamedTuple):
    """A training."""

    config: TrainConfig
    steps: int  # of the environment
    folder: Path


def learn_steps(plans: Sequence[Plan]) -> None:
    """Train for a number of environment steps each; resumes interrupted trainings."""
    probes = [one.config.override(iterations=1, validate_every=1, validation_tasks=1) for one in plans]
    learn_all(list(zip(probes, [one.folder / "probe" for one in plans], strict=True)))
    configs = []
    for config, steps, folder in plans:
        expected = steps / float(_metrics(folder / "probe")[0]["environment_steps"])
        # Episodes may become shorter than in the first iteration, which gives more iterations; never ten times as many.
        own = {"iterations": math.ceil(10 * expected), "validate_every": max(1, round(expected / VALIDATIONS))}
        configs.append(config.override(environment_steps=steps, **own))
    learn_all(list(zip(configs, [one.folder / "run" for one in plans], strict=True)))


def best_score(folder: Path, role: Role) -> float:
    """The best validation score of a training."""
    return max(score for _, score in curve(folder, role))


def curve(folder: Path, role: Role) -> list[tuple[int, float]]:
    """Thousands of environment steps, and the mean validation return over the shots after adaptation."""
    rows = [row for row in _metrics(folder / "run") if row.get(f"{role}/score")]
    return [(round(float(row["environment_steps"]) / 1000), float(row[f"{role}/score"])) for row in rows]


def _metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _validation(config: TrainConfig, method: str, split: str, role: Role, points: list[tuple[int, float]]) -> Table:
    """Rows of mean validation returns."""
    shots, values = np.array(points).T
    whole = from_returns(
        values.round(5).reshape(-1, 1, 1, 1), config.spec, role=role, method=method, seed=config.seed, task_split="validation",
        tasks=["mean"], opponent_split=split, opponents=["mean"], actions="sampled",
    )  # fmt: skip
    return Table({name: whole[name] for name in COLUMNS} | {"shot": shots.astype(np.int64)})


def _seeds(table: Table) -> Array:
    """[seeds, tasks] of rows whose methods are one player's opponents in turn."""
    seeds, tasks = sorted(table.values("seed")), sorted(table.values("task"))
    return np.array([[table.filter(seed=seed, task=task)["return"].mean() for task in tasks] for seed in seeds])
