"""Adaptation to tasks that are data: the players after every update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import adapt_step, rate_at
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, DataProblem, Tasks


def adapt(tasks: Tasks, data: Data, players: Players, rates: Mapping[Role, Tensor], steps: int) -> Iterator[Players]:
    """Adapt to every task at once.

    Args:
        tasks: what the loss is.
        data: of N tasks.
        players: weights to start from, [N, ...] each.
        rates: per player [K, ...], see ``inner.step_sizes``; beyond K the last are kept.
        steps: how many updates.

    Yields:
        The stacked weights after 0, 1, ..., ``steps`` updates.
    """
    problem = DataProblem(tasks, data)
    for shot in range(steps + 1):
        players = {role: {n: v.detach().requires_grad_() for n, v in w.items()} for role, w in players.items()}
        yield players
        if shot < steps:
            sizes = {role: rate_at(rates[role], shot) for role in players}
            players = adapt_step(players, problem.losses(players, shot).support, sizes, create_graph=False)
