"""Trainings that several cells of a suite do at once."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from metaduel.benchmarks.core.suite import Together
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.train import train_all

Plan = tuple[TrainConfig, Path]  # a training and its folder
Budgeted = tuple[TrainConfig, int, Path]  # the same with its environment steps; the run is in the folder's `run`
VALIDATIONS = 6  # of a training with a number of steps, about


def trained_together(name: str, config: TrainConfig) -> Together:
    """The training of a cell into its own folder, with those of the other cells of that name."""
    return Together(name, partial(_plan, config), learn_all)


def learn_all(plans: Sequence[Plan], quiet: bool = True) -> None:
    """Train; resumes interrupted trainings."""
    train_all([config for config, _ in plans], [folder for _, folder in plans], resume=True, quiet=quiet)


def learn_steps(plans: Sequence[Budgeted], quiet: bool = True) -> None:
    """Train for a number of environment steps each; resumes interrupted trainings."""
    probes = [config.override(iterations=1, validate_every=1, validation_tasks=1) for config, _, _ in plans]
    learn_all(list(zip(probes, [folder / "probe" for _, _, folder in plans], strict=True)))
    configs = []
    for config, steps, folder in plans:
        with (folder / "probe" / "metrics.csv").open(encoding="utf-8") as stream:
            expected = steps / float(next(csv.DictReader(stream))["environment_steps"])
        # Episodes may become shorter than in the first iteration, which gives more iterations; never ten times as many.
        own = {"iterations": math.ceil(10 * expected), "validate_every": max(1, round(expected / VALIDATIONS))}
        configs.append(config.override(environment_steps=steps, **own))
    learn_all(list(zip(configs, [folder / "run" for _, _, folder in plans], strict=True)), quiet)


def _plan(config: TrainConfig, folder: Path) -> list[Plan]:
    return [(config, folder)]
