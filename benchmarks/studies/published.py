"""Our learners beside the published ones on 2-D navigation: ``metaduel reproduce navigation``, or, for existing runs,
``metaduel published RUN [RUN ...]``.

The authors' protocol as they ran it: their 40 test goals, 40 trajectories per update, sampled actions, returns after 0 to 3
updates. The published figures are those of the authors' result files (Finn, Abbeel and Levine, ICML 2017).

The time at which a training crosses the published returns is read off its own validations: other goals of the same square, as
many trajectories as in training, and the clock of the run.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metaduel.benchmarks.core.metrics import Array, estimate
from metaduel.benchmarks.core.report import (
    COLOURS,
    MARKERS,
    RNG_SEED,
    Sheet,
    canvas,
    cell,
    cover_note,
    number,
    rendered,
)
from metaduel.benchmarks.core.runs import Runs, named_runs
from metaduel.benchmarks.core.suite import Cell, Report, Suite
from metaduel.benchmarks.core.table import Table, from_returns
from metaduel.benchmarks.core.trainings import trained_together
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.navigation.cases import published_tasks
from metaduel.envs.players.names import load_player
from metaduel.meta.adaptation.few_shot import adapt_and_test
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import Run, load

PUBLISHED = {
    "MAML": (-40.41, -11.68, -3.33, -3.23),
    "pretrained": (-40.81, -19.73, -11.72, -8.47),
    "random": (-82.66, -57.96, -53.84, -46.81),
}
TRAJECTORIES, SHOTS = 40, 3


def returns(run: Run, name: str) -> Array:
    """Mean return of a run's protagonist per shot and goal: [4, 40]. ``name`` is for the message."""
    agent = run.protagonist
    if run.config.game != "Navigation" or run.config.fixed.get("push") != 0 or run.config.informed:
        raise InvalidInputError(
            f"{name} is no run of Navigation with push fixed at 0 (benchmarks/suites/navigation.yaml)"
        )
    return (
        adapt_and_test(
            run.duel, agent.adapter, "protagonist", task_rows(run.duel.spec, published_tasks(), {}),
            [load_player(run.duel, "adversary", "idle")],
            shots=SHOTS, episodes=TRAJECTORIES, test_episodes=TRAJECTORIES,
            adapt_seed=derive_seed(run.config.seed, Purpose.NAVIGATION_ADAPT),
            test_seed=derive_seed(run.config.seed, Purpose.NAVIGATION_TEST),
        )
        .returns[:, 0]
        .mean(-1)
        .double()
        .numpy()
    )  # fmt: skip


def sheet(runs: Runs) -> Sheet:
    """Rows: the published methods, each run, and the mean over runs.

    Raises:
        InvalidInputError: no folder, or one that holds no run of this protocol.
    """
    loaded = named_runs(runs)
    if not loaded:
        raise InvalidInputError("runs: name at least one run folder of benchmarks/suites/navigation.yaml")
    found = np.stack([returns(run, name) for name, run in loaded])  # [runs, 4, 40]
    header = ("method", *(f"after {shot} updates" for shot in range(SHOTS + 1)))
    rows = [(f"{name} (published)", *(number(value) for value in row)) for name, row in PUBLISHED.items()]
    rows += [
        (Path(name).name, *(number(value) for value in own.mean(1)))
        for (name, _), own in zip(loaded, found, strict=True)
    ]
    mean = [cell(estimate(found[:, shot], RNG_SEED)) for shot in range(SHOTS + 1)]
    rows.append((f"ours, mean of {len(loaded)} seeds", *mean))
    note = "40 published goals, 40 trajectories per update, sampled actions; 95% t intervals over seeds."
    return Sheet("2-D navigation, push = 0", header, tuple(rows), note)


@dataclass(frozen=True, kw_only=True)
class Navigation(Suite):
    """The protocol's numbers, as a suite.

    Attributes:
        seeds: training seeds of every method.
        settings: settings of all trainings.
        methods: each method's own settings, ``method`` among them, by its name in the report.
    """

    seeds: int
    settings: dict[str, Any]
    methods: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        check_whole("seeds", self.seeds)

    def configs(self, name: str) -> list[TrainConfig]:
        """A method's trainings, one for each seed."""
        own = {**self.settings, **self.methods[name]}
        return [TrainConfig(game="Navigation").override(**own, seed=seed) for seed in range(self.seeds)]

    def cells(self) -> list[Cell]:
        """See ``Suite.cells``."""
        return [
            Cell(
                f"{name}, seed {config.seed}",
                config.spec,
                config.to_dict(),
                partial(_play, name, config),
                together=trained_together(name, config),
            )
            for name in self.methods
            for config in self.configs(name)
        ]

    def report(self, table: Table, out: Path) -> Report:
        """See ``Suite.report``; the times are from the logs of the trainings, below ``out``."""
        rows = [(f"{name} (published)", *(number(v) for v in row), "", "", "") for name, row in PUBLISHED.items()]
        arrays = []
        for name in self.methods:
            found = [table.pivot(name, "protagonist", shot) for shot in range(SHOTS + 1)]
            arrays += found[:1]
            logs = [
                out / "work" / one.stem / "metrics.csv" for one in self.cells() if one.name.startswith(f"{name}, seed ")
            ]
            times = [_spoken([crossed(log, shot) for log in logs]) for shot in range(1, SHOTS + 1)]
            rows.append((name, *(cell(estimate(one, RNG_SEED)) for one in found), *times))
        header = (
            "method", *(f"after {shot} updates" for shot in range(SHOTS + 1)),
            *(f"minutes to {number(PUBLISHED['MAML'][shot])} after {shot}" for shot in range(1, SHOTS + 1)),
        )  # fmt: skip
        note = (
            f"40 published goals, {TRAJECTORIES} trajectories per update, sampled actions. Minutes of training until the return "
            f"on validation goals reaches the published one: median over the seeds that do, and how many do. {cover_note(arrays)}"
        )
        self._plot(table, out / "navigation.png")
        sheet = Sheet("Return on 2-D navigation, push = 0", header, tuple(rows), note)
        return Report([sheet], {"navigation.png": "Return after 0 to 3 updates, beside the published ones"})

    def _plot(self, table: Table, path: Path) -> None:
        figure = canvas(6.8, 4.4)
        axes, shots = figure.subplots(), np.arange(SHOTS + 1)
        for name, row in PUBLISHED.items():
            if name != "random":  # far below all others
                axes.plot(shots, row, color="#777777", linestyle=":", linewidth=1.4)
                axes.annotate(
                    f"{name} (published)", (SHOTS, row[-1]), textcoords="offset points", xytext=(6, -3), fontsize=8
                )
        for i, name in enumerate(self.methods):
            found = [estimate(table.pivot(name, "protagonist", int(shot)), RNG_SEED) for shot in shots]
            reach = np.abs(np.array([one.interval[:2] for one in found]).T - [one.value for one in found])
            axes.errorbar(
                shots + 0.03 * (i - len(self.methods) / 2), [one.value for one in found], reach, label=name, capsize=2.5,
                color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=4, linewidth=1.4,
                linestyle="-" if i < len(COLOURS) else "--",
            )  # fmt: skip
        axes.set_xticks(shots)
        axes.set_xlabel("updates")
        axes.set_ylabel("return")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
        write_atomic(path, rendered(figure, "png"))


def _play(name: str, config: TrainConfig, folder: Path) -> Table:
    spec = find("Navigation")
    return from_returns(
        returns(load(folder), str(folder)).round(6)[:, None, :, None], spec, role="protagonist", method=name, seed=config.seed,
        task_split="held_out", tasks=[f"published:{i}" for i in range(len(published_tasks()))], opponent_split="train",
        opponents=["idle"], actions="sampled",
    )  # fmt: skip


def crossed(log: Path, shot: int) -> float | None:
    """Minutes of training until the return on validation goals first reached the published one; None: never."""
    with log.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            value = row.get(f"protagonist/validation_return_{shot}")
            if value and float(value) >= PUBLISHED["MAML"][shot]:
                return float(row["seconds"]) / 60
    return None


def _spoken(times: Sequence[float | None]) -> str:
    found = [time for time in times if time is not None]
    if not found:
        return "never"
    return f"{np.median(found):.1f}" + (f" ({len(found)} of {len(times)})" if len(found) < len(times) else "")
