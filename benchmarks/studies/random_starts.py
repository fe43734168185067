"""Random starts on tasks that are data, another for each task."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Tasks


def random_starts(tasks: Tasks, seeds: Iterable[int]) -> Players:
    """Fresh weights of every player, a start for each of n seeds, stacked: [n, ...] each."""
    starts = [tasks.init(seed) for seed in seeds]
    return {
        role: {name: torch.stack([start[role][name] for start in starts]) for name in weights}
        for role, weights in starts[0].items()
    }
