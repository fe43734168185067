"""Adaptation to test tasks, and the tuning of rates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from metaduel.benchmarks.studies.generation.judges import Distance, nearest
from metaduel.benchmarks.studies.generation.settings import STEPS
from metaduel.benchmarks.studies.generation.tasks import Forging
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.supervised import adapt
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data

RATES = (0.05, 0.15, 0.5, 1.5)  # to choose from, one for each player without learned rates


def distances(
    tasks: Forging, data: Data, players: Players, rates: Mapping[Role, Tensor], distance: Distance
) -> tuple[Tensor, Tensor]:
    """After every update: the distance to fresh samples, and the samples' distance to the nearest shot, [11, n] each."""
    apart, copied = [], []
    for now in adapt(tasks, data, players, rates, STEPS):
        with torch.no_grad():
            made = tasks.made(now, data[3])
            apart.append(distance(made, data[1]))
            copied.append(nearest(made, data[0]))
    return torch.stack(apart), torch.stack(copied)


def tuned_rates(tasks: Forging, tuning: Data, players: Players, distance: Distance) -> dict[Role, Tensor]:
    """The two players' best rates, by the distance after all updates on the tasks of ``tuning``."""
    pairs = itertools.product(tuning[0].new_tensor(RATES).view(-1, 1, 1), repeat=2)
    choices: list[dict[Role, Tensor]] = [{"protagonist": one, "adversary": other} for one, other in pairs]
    ends = [distances(tasks, tuning, players, rates, distance)[0][-1].mean() for rates in choices]
    return choices[int(torch.stack(ends).nan_to_num(nan=float("inf")).argmin())]
