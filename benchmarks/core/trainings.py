"""Trainings that several cells of a suite do at once."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from metaduel.benchmarks.core.suite import Together
from metaduel.envs.core.spec import Role
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.train import train_all

Plan = tuple[TrainConfig, Path]  # a training and its folder
Budgeted = tuple[TrainConfig, int, Path]  # the same with the steps of each player; the run is in the folder's `run`
VALIDATIONS = 6  # of a training with a number of steps, about; half as many at least, however long its episodes become


def trained_together(name: str, config: TrainConfig) -> Together:
    """The training of a cell into its own folder, with those of the other cells of that name."""
    return Together(name, partial(_plan, config), learn_all)


def learn_all(plans: Sequence[Plan], quiet: bool = True) -> None:
    """Train; resumes interrupted trainings."""
    train_all([config for config, _ in plans], [folder for _, folder in plans], resume=True, quiet=quiet)


def learn_steps(plans: Sequence[Budgeted], quiet: bool = True) -> None:
    """Train until each player has played a number of steps of its own; resumes interrupted trainings."""
    probes = [config.override(iterations=1, validate_every=1, validation_tasks=1) for config, _, _ in plans]
    learn_all(list(zip(probes, [folder / "probe" for _, _, folder in plans], strict=True)))
    configs = []
    for config, steps, folder in plans:
        first = metrics_of(folder / "probe")[0]
        expected = steps / min(float(first[f"{role}/player_steps"]) for role in config.roles)
        # Episodes may become shorter than in the first iteration, which gives more iterations; never ten times as many. They may
        # become as long as the horizon, which gives fewer.
        every = min(round(expected / VALIDATIONS), math.floor(2 * steps / _most(config) / VALIDATIONS))
        own = {"iterations": math.ceil(10 * expected), "validate_every": max(1, every)}
        configs.append(config.override(player_steps=steps, **own))
    learn_all(list(zip(configs, [folder / "run" for _, _, folder in plans], strict=True)), quiet)


def _most(config: TrainConfig) -> int:
    """Steps of a player's own in an iteration whose episodes all last until the horizon."""
    episodes = config.chain_episodes or config.episodes_per_batch * (config.configured.steps + 1)
    return config.tasks * episodes * (config.horizon or config.spec.horizon)


def curve(folder: Path, role: Role) -> list[tuple[int, float]]:
    """Thousands of the player's own steps, and the mean validation return over the shots after adaptation; of a training with a
    number of steps.
    """
    rows = [row for row in metrics_of(folder / "run") if row.get(f"{role}/score")]
    return [(round(float(row[f"{role}/player_steps"]) / 1000), float(row[f"{role}/score"])) for row in rows]


def best_score(folder: Path, role: Role) -> float:
    """The best validation score of a training with a number of steps."""
    return max(score for _, score in curve(folder, role))


def metrics_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics."""
    with (folder / "metrics.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _plan(config: TrainConfig, folder: Path) -> list[Plan]:
    return [(config, folder)]
