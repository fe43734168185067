"""Baselines without meta-learning: a random network that is trained on the shots, and the nearest mean of a class's shots."""

from __future__ import annotations

import torch
from torch import Tensor

from metaduel.benchmarks.studies.classification.episodes import ROLE, Episodes, in_parts
from metaduel.benchmarks.studies.classification.settings import SCRATCH
from metaduel.benchmarks.studies.random_starts import random_starts
from metaduel.envs.core.noise import derive_seed
from metaduel.meta.adaptation.supervised import adapt
from metaduel.meta.problems.supervised import Data

SCRATCH_RATES, SCRATCH_STEPS = (0.1, 0.3, 1.0, 3.0), 20


def from_scratch(tasks: Episodes, data: Data, seed: int, rate: float) -> Tensor:
    """Accuracy [1, n] of random networks, one for each episode, after 20 updates on the shots alone."""
    parts: list[Tensor] = []
    for number, part in enumerate(in_parts(data)):
        players = random_starts(tasks, (derive_seed(seed, SCRATCH, number, i) for i in range(len(part[0]))))
        *_, players = adapt(tasks, part, players, {ROLE: part[0].new_tensor([[rate]])}, SCRATCH_STEPS)
        with torch.no_grad():
            parts.append(tasks.score(ROLE, players, part, SCRATCH_STEPS))
    return torch.cat(parts).unsqueeze(0)


def nearest_centroid(tasks: Episodes, data: Data) -> Tensor:
    """Accuracy [1, n] of the nearest mean of a class's shots, in pixels."""
    support, query = data[0][:, 0].flatten(2), data[1].flatten(2)
    n, ways = len(support), tasks.ways
    nearest = torch.cdist(query, support.view(n, ways, -1, support.shape[2]).mean(2)).argmin(2)
    own = torch.arange(ways, dtype=nearest.dtype, device=nearest.device).view(ways, 1)
    return (nearest.view(n, ways, -1) == own).float().mean((1, 2)).unsqueeze(0)
