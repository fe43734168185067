"""Trainings that several cells of a suite do at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from metaduel.benchmarks.core.suite import Together
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.train import train_all

Plan = tuple[TrainConfig, Path]  # a training and its folder


def trained_together(name: str, config: TrainConfig) -> Together:
    """The training of a cell into its own folder, with those of the other cells of that name."""
    return Together(name, partial(_plan, config), learn_all)


def learn_all(plans: Sequence[Plan]) -> None:
    """Train; resumes interrupted trainings."""
    train_all([config for config, _ in plans], [folder for _, folder in plans], resume=True, quiet=True)


def _plan(config: TrainConfig, folder: Path) -> list[Plan]:
    return [(config, folder)]
