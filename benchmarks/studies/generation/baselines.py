"""Baselines without meta-learning: the shots themselves with jitter, and random starts."""

from __future__ import annotations

import torch
from torch import Tensor

from metaduel.benchmarks.studies.generation.settings import JITTER, SCRATCH
from metaduel.benchmarks.studies.generation.tasks import Forging
from metaduel.benchmarks.studies.random_starts import random_starts
from metaduel.envs.core.noise import derive_seed
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data

WIDTHS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)  # of the jitter, one of which is chosen on validation tasks


def jittered(data: Data, width: float) -> Tensor:
    """As many samples as in a test: the shots themselves with Gaussian jitter."""
    shots, m = data[0], data[3].shape[1]
    chosen = shots[:, torch.arange(m, dtype=torch.int64, device=shots.device) % shots.shape[1]]
    generator = torch.Generator().manual_seed(derive_seed(0, JITTER))
    return chosen + width * torch.randn(chosen.shape, generator=generator, dtype=chosen.dtype, device=chosen.device)


def fresh_starts(tasks: Forging, n: int, seed: int) -> Players:
    """Random weights, different for each task."""
    return random_starts(tasks, (derive_seed(seed, SCRATCH, i) for i in range(n)))
