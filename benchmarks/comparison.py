"""Everything with everything: learners and baselines on several families, both roles, on held-out tasks and opponents.

Every method has the same number of trials: trainings with a seed of their own, of which validation picks the settings of the
seeds that are reported; rates that a baseline needs at test time are tuned on as many values. All trainings of a family have the
same number of environment steps, K + 1 batches per iteration: a method without an inner step plays all of them at once.

Each player meets the scripted held-out panel, the players of the other role that joint trainings with *other* seeds ended with,
and a best response: Stable-Baselines3's PPO (Schulman et al., 2017), trained against the player as it is after its last update
on a task. A perfect response would take at least as much away, so what this one takes is a lower bound of exploitability.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaduel.benchmarks import few_shot
from metaduel.benchmarks.few_shot import ADAPT, Contender, Protocol
from metaduel.benchmarks.metrics import Array, estimate, probability_of_improvement
from metaduel.benchmarks.report import (
    COLOURS,
    RNG_SEED,
    Sheet,
    canvas,
    cell,
    cover_note,
    number,
    plot_shots,
    rendered,
    returns_sheet,
)
from metaduel.benchmarks.scratch import generators_kept
from metaduel.benchmarks.suite import Cell, Report
from metaduel.benchmarks.summary import JOINT, RANDOM
from metaduel.benchmarks.table import COLUMNS, Table, concatenate, from_returns
from metaduel.envs.core import Player
from metaduel.envs.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.noise import derive_seed
from metaduel.envs.opponents import load_player, names
from metaduel.envs.play import play
from metaduel.envs.registry import find
from metaduel.envs.spec import ROLES, Role, Task
from metaduel.meta.agent import Agent, AgentPlayer, Run, load
from metaduel.meta.checkpoint import load_checkpoint, write_atomic
from metaduel.meta.config import TrainConfig, other
from metaduel.meta.few_shot import adapt_and_test
from metaduel.meta.source import task_rows
from metaduel.meta.train import train
from metaduel.meta.trainer import LAST

TRIAL = 1000  # added to the first seed of the trials, apart from those that are reported
ENVIRONMENTS, ROLLOUT = 16, 128  # of the best responses: played at once, and steps of each before PPO learns
RESPOND = 180  # what a seed is for, apart from those of other protocols
PANEL, LEARNED, RESPONSE = "held_out", "learned", "best_response"  # opponent splits


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method.

    Attributes:
        settings: what it has of its own; ``method`` among it.
        trials: changes of the settings to choose from by validation.
    """

    settings: dict[str, Any]
    trials: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The protocol's numbers.

    Attributes:
        title: see ``Suite``.
        about: see ``Suite``.
        differs: see ``Suite``.
        seeds: training seeds that are reported.
        settings: of all trainings.
        families: each one's settings by name.
        methods: by name; ``joint`` is the start of a baseline, and the learned opponents come from it.
        rates: inner rates that are tried for players that learned none; as many as every method has trials.
        evaluation: fields of ``few_shot.Protocol``.
        response_steps: environment steps of the best responses.
        response_tasks: against the player on so many tasks.
    """

    title: str
    about: str
    differs: str
    seeds: int
    settings: dict[str, Any]
    families: dict[str, dict[str, Any]]
    methods: dict[str, Method]
    rates: tuple[float, ...]
    evaluation: dict[str, Any]
    response_steps: int
    response_tasks: int

    def __post_init__(self) -> None:
        for name in ("seeds", "response_steps", "response_tasks"):
            check_whole(name, getattr(self, name))
        if self.seeds < 2:
            raise InvalidInputError(f"seeds={self.seeds} must be at least 2: learned opponents are of other seeds")
        if JOINT not in self.methods:
            raise InvalidInputError(f"methods must have {JOINT!r}, from which the learned opponents come")
        for name, method in self.methods.items():
            if len(method.trials) != len(self.rates):
                raise InvalidInputError(
                    f"{name} has {len(method.trials)} trials, and there are {len(self.rates)} rates"
                )
        for name in self.evaluation:
            if name not in Protocol.__dataclass_fields__:
                raise unknown("setting of evaluation", name, Protocol.__dataclass_fields__)

    @property
    def protocol(self) -> Protocol:
        """Of the evaluation."""
        return Protocol(**self.evaluation)

    def config(self, family: str, name: str, trial: int, seed: int) -> TrainConfig:
        """One training."""
        method = self.methods[name]
        changes = {**self.settings, **self.families[family], **method.settings, **method.trials[trial]}
        return TrainConfig(game=family).override(**changes, seed=seed)

    def trials(self, family: str, name: str) -> list[Cell]:
        """The trainings that the settings are chosen by."""
        made = []
        for i in range(len(self.rates)):
            config = self.config(family, name, i, TRIAL)
            made.append(
                Cell(f"{family}, {name}, trial {i}", config.spec, config.to_dict(), partial(_train, name, config))
            )
        return made

    def cells(self) -> list[Cell]:
        """Trials, then trainings, then evaluations; seed by seed, so that few seeds of everything come first."""
        made: list[Cell] = []
        for family in self.families:
            for name in self.methods:
                made += self.trials(family, name)
        for seed in range(self.seeds):
            made += [self._training(family, name, seed) for family in self.families for name in self.methods]
        for seed in range(self.seeds):
            made += [
                self._evaluating(family, name, seed) for family in self.families for name in (*self.methods, RANDOM)
            ]
        return made

    def _training(self, family: str, name: str, seed: int) -> Cell:
        every = [self.config(family, name, i, seed).to_dict() for i in range(len(self.rates))]
        work = partial(self._learn, family, name, seed)
        return Cell(f"{family}, {name}, seed {seed}", find(family), {"trials": every}, work)

    def _learn(self, family: str, name: str, seed: int, folder: Path) -> Table:
        scores = [_score(folder.parent / trial.stem) for trial in self.trials(family, name)]
        return _train(name, self.config(family, name, int(np.argmax(scores)), seed), folder)

    def _evaluating(self, family: str, name: str, seed: int) -> Cell:
        trained = self._training(family, JOINT if name == RANDOM else name, seed)
        rival = self._training(family, JOINT, (seed + 1) % self.seeds)
        settings = {
            "run": trained.stem, "rival": rival.stem, **asdict(self.protocol), "rates": self.rates,
            "response_steps": self.response_steps, "response_tasks": self.response_tasks,
        }  # fmt: skip
        work = partial(self._evaluate, name, trained.stem, rival.stem)
        return Cell(f"{family}, {name}, seed {seed}, evaluation", find(family), settings, work)

    def _evaluate(self, name: str, trained: str, rival: str, folder: Path) -> Table:
        run, against = load(folder.parent / trained), load(folder.parent / rival)
        tables = []
        for role in run.agents:
            player = few_shot.random_start(run, role) if name == RANDOM else few_shot.contender(run, role, name)
            if not len(player.rates):
                player = few_shot.tune_rate(player, self.protocol, self.rates, self.protocol.task_count)
            scripted = names(run.duel.spec, other(role), self.protocol.opponents)
            panel = {one: load_player(run.duel, other(role), one) for one in scripted}
            learned: dict[str, Player] = {f"joint {other(role)}, another seed": AgentPlayer(against.agent(other(role)))}
            tables += [self._meet(player, PANEL, panel), self._meet(player, LEARNED, learned)]
            tables.append(self._respond(run, player, panel))
        return concatenate(tables)

    def _meet(self, player: Contender, split: str, opponents: Mapping[str, Player]) -> Table:
        protocol = self.protocol
        played = adapt_and_test(
            player.duel, player.policy, player.role, player.start, player.rates, player.loss, self._rows(player),
            list(opponents.values()), shots=protocol.shots, episodes=protocol.episodes, test_episodes=protocol.test_episodes,
            adapt_seed=derive_seed(0, ADAPT), test_seed=derive_seed(0, few_shot.TEST),
        )  # fmt: skip
        returns = played.returns.double().mean(3, keepdim=True).numpy().round(6)
        return self._table(player, returns, split, list(opponents), protocol.task_count)

    def _rows(self, player: Contender) -> torch.Tensor:
        spec = player.duel.spec
        return task_rows(spec, self.protocol.task_list(spec), {})

    def _table(self, player: Contender, returns: Array, split: str, opponents: Sequence[str], tasks: int) -> Table:
        return from_returns(
            returns, player.duel.spec, role=player.role, method=player.method, seed=player.seed, task_split=self.protocol.tasks,
            tasks=[f"{self.protocol.tasks}:{i}" for i in range(tasks)], opponent_split=split, opponents=opponents,
            actions="sampled",
        )  # fmt: skip

    def _respond(self, run: Run, player: Contender, panel: Mapping[str, Player]) -> Table:
        """The player, adapted to the first of the panel on a task, against the best response to it: shot: the last."""
        protocol, spec = self.protocol, player.duel.spec
        first = next(iter(panel.values()))
        tasks, returns = protocol.task_list(spec)[: self.response_tasks], []
        for i, task in enumerate(tasks):
            adapted = adapt_and_test(
                player.duel, player.policy, player.role, player.start, player.rates, player.loss, task_rows(spec, [task], {}),
                [first], shots=protocol.shots, episodes=protocol.episodes, test_episodes=1,
                adapt_seed=derive_seed(0, ADAPT, i), test_seed=derive_seed(0, few_shot.TEST, i),
            ).weights  # fmt: skip
            agent = replace(run.agent(player.role), weights={name: value[0] for name, value in adapted.items()})
            returns.append(self._against_response(run, agent, task, derive_seed(player.seed, RESPOND, i)))
        table = self._table(player, np.array(returns).reshape(1, 1, -1, 1), RESPONSE, ["PPO"], len(tasks))
        return Table({name: table[name] for name in COLUMNS} | {"shot": np.full(len(table), protocol.shots)})

    def _against_response(self, run: Run, agent: Agent, task: Task, seed: int) -> float:
        from stable_baselines3 import PPO

        from metaduel.agents.sb3 import MlpPlayer
        from metaduel.envs.adapters.sb3 import make_sb3

        duel, player = run.duel, AgentPlayer(agent)
        with generators_kept():
            env = make_sb3(duel.spec, ENVIRONMENTS, other(agent.role), player, task, horizon=duel.horizon)
            model = PPO("MlpPolicy", env, n_steps=ROLLOUT, seed=seed % 2**31, device="cpu")
            model.learn(self.response_steps)
        episodes = self.protocol.test_episodes
        params = duel.game.params_from_rows(task_rows(duel.spec, [task], {}).expand(episodes, -1))
        seeds = torch.arange(episodes) + derive_seed(0, few_shot.TEST)
        pair = (player, MlpPlayer(model.policy, sample=True))
        played = play(duel, pair if agent.role == ROLES[0] else pair[::-1], params, seeds, torch.zeros_like(seeds))
        return round(float(played.returns[:, ROLES.index(agent.role)].mean()), 6)

    # The report

    def report(self, table: Table, out: Path) -> Report:
        """See ``Suite.report``; the curves over environment steps are from the logs of the trainings, below ``out``."""
        sheets: list[Sheet] = []
        pictures: dict[str, str] = {}
        for family in self.families:
            own = table.filter(family=family, task_split=self.protocol.tasks)
            panel = own.filter(opponent_split=PANEL)
            for role in own.values("role"):
                sheets.append(returns_sheet(panel.filter(role=role), role))
                sheets.append(self._opponents(family, own, role))
                sheets.append(self._improvement(family, panel, role))
            shots, steps = f"comparison-shots-{family}.png", f"comparison-steps-{family}.png"
            plot_shots(panel, out / shots)
            self._plot_steps(family, out, out / steps)
            pictures |= {
                shots: f"Return over shots, {family}",
                steps: f"Score on validation over environment steps, {family}",
            }
        return Report(sheets, pictures)

    def _opponents(self, family: str, own: Table, role: Role) -> Sheet:
        last, rows, arrays = self.protocol.shots, [], []
        for name in (*self.methods, RANDOM):
            part = own.filter(method=name, role=role)
            found = [part.filter(opponent_split=split).pivot(name, role, last) for split in (PANEL, LEARNED, RESPONSE)]
            arrays += found[:1]
            first = part.filter(opponent_split=PANEL, task=part.filter(opponent_split=RESPONSE).values("task"))
            lost = first.pivot(name, role, last) - found[2]
            rows.append((name, *(cell(estimate(one, RNG_SEED)) for one in (*found, lost))))
        header = ("method", "scripted panel", "learned, other seeds", "best response", "what the response takes away")
        note = (
            f"After {last} updates; the best response, and what it takes away from the panel's return, on the first "
            f"{self.response_tasks} of the tasks. {cover_note(arrays)}"
        )
        return Sheet(f"Return as {role} against every kind of opponent ({family})", header, tuple(rows), note)

    def _improvement(self, family: str, panel: Table, role: Role) -> Sheet:
        methods, last = [*self.methods, RANDOM], self.protocol.shots
        arrays = {name: panel.pivot(name, role, last) for name in methods}
        chance = {(a, b): probability_of_improvement(arrays[a], arrays[b]) for a, b in permutations(methods, 2)}
        rows = [(a, *("" if a == b else number(chance[a, b]) for b in methods)) for a in methods]
        title = f"Probability that the row's method beats the column's, as {role} ({family}, shot {last})"
        return Sheet(title, ("", *methods), tuple(rows), "Per task over all pairs of training seeds, mean over tasks.")

    def _plot_steps(self, family: str, out: Path, path: Path) -> None:
        figure = canvas(10.0, 4.2)
        panels = figure.subplots(1, len(ROLES), squeeze=False)[0]
        for axes, role in zip(panels, ROLES, strict=True):
            for i, name in enumerate(self.methods):
                curves = [
                    _curve(out / "work" / self._training(family, name, seed).stem, role) for seed in range(self.seeds)
                ]
                steps, scores = np.array(curves).mean(0)
                style = "-" if i < len(COLOURS) else "--"
                axes.plot(steps, scores, color=COLOURS[i % len(COLOURS)], linestyle=style, linewidth=1.4, label=name)
            axes.set_title(role, loc="left", fontsize=10)
            axes.set_xlabel("environment steps of training")
            axes.set_ylabel("score on validation")
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
        write_atomic(path, rendered(figure, "png"))


def _train(name: str, config: TrainConfig, folder: Path) -> Table:
    """Train, and give the best validation scores as rows."""
    run = train(config, folder, resume=True, quiet=True)
    best = load_checkpoint(folder / LAST)[1]["best"]
    return concatenate(
        [
            from_returns(
                np.array(best[f"{role}/score"]).reshape(1, 1, 1, 1), config.spec, role=role, method=name, seed=config.seed,
                task_split="validation", tasks=["score"], opponent_split="train", opponents=["training opponents"],
                actions="sampled",
            )
            for role in run.agents
        ]
    )  # fmt: skip


def _score(folder: Path) -> float:
    """What a trial is chosen by: both roles' best validation scores, summed."""
    best = load_checkpoint(folder / LAST)[1]["best"]
    return float(sum(value for name, value in best.items() if name.endswith("/score")))


def _curve(folder: Path, role: Role) -> tuple[list[float], list[float]]:
    """Environment steps and validation scores of a training."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(f"{role}/score")]
    return [float(row["environment_steps"]) for row in rows], [float(row[f"{role}/score"]) for row in rows]
