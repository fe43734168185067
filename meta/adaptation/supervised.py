"""Adaptation to tasks that are data: the players after every update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation import inner
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, DataProblem, Tasks


def adapt(tasks: Tasks, data: Data, players: Players, rates: Mapping[Role, Tensor], steps: int) -> Iterator[Players]:
    """Adapt to every task at once.

    Args:
        tasks: the tasks' loss.
        data: data of N tasks.
        players: weights to start from, [N, ...] each.
        rates: per player [K, ...], see ``inner.step_sizes``; updates after K use the last.
        steps: number of updates.

    Yields:
        The stacked weights after 0, 1, ..., ``steps`` updates.
    """
    for now in inner.adapt(DataProblem(tasks, data), players, rates, steps):
        yield now.players
