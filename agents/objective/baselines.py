"""The linear feature baseline (Duan et al., ICML 2016), fitted per task or per run in one batched solve."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metaduel.agents.objective.packing import Index
from metaduel.agents.objective.returns import of_tasks, over_runs

RIDGE = 1e-5


def features(observation: Tensor) -> Tensor:
    """Observation, its square, time, its square and cube, and 1.

    Args:
        observation: [N, T, E, d].

    Returns:
        [N, T, E, 2 d + 4] float64.
    """
    time = torch.arange(observation.shape[1], dtype=torch.float64, device=observation.device)
    return _features(observation, time.view(1, -1, 1).expand(observation.shape[:3]))[..., :-1]


def _features(observation: Tensor, time: Tensor) -> Tensor:
    """``features`` of observations [..., d] at steps [...], and room for one number more: [..., 2 d + 5]."""
    size = observation.shape[-1]
    x = torch.empty(*time.shape, 2 * size + 5, dtype=torch.float64, device=time.device)
    x[..., :size].copy_(observation).clamp_(-10.0, 10.0)
    torch.mul(x[..., :size], x[..., :size], out=x[..., size : 2 * size])
    hundreds = time.double() / 100.0
    for power in range(4):
        x[..., 2 * size + power] = hundreds ** ((power + 1) % 4)
    return x


def fit_linear(
    observation: Tensor, returns: Tensor, alive: Tensor, runs: Sequence[int] = (), index: Index | None = None
) -> Tensor:
    """Fit each task's returns by ridge regression on ``features`` and predict them.

    A fit to a few short episodes follows their outcomes and removes the signal from the advantages: with 20 features, use
    many episodes per task, or one fit for all tasks.

    Args:
        observation: [N, T, E, d].
        returns: [N, T, E] discounted reward-to-go.
        alive: [N, T, E] 1 or 0; steps that were not played are ignored.
        runs: numbers of consecutive tasks that have one fit, N in all; none: each task has its own.
        index: of the steps that were played, if it is known.

    Returns:
        [N, T, E] predictions, 0 where not alive.
    """
    if returns.shape != observation.shape[:3] or alive.shape != returns.shape:
        raise ValueError(f"returns {tuple(returns.shape)} and alive must match {tuple(observation.shape[:3])}")
    even = len(set(runs)) == 1  # then a run's steps are packed as one set
    steps = Index.of(alive, index).steps(len(runs) if even else None)
    seen, time, target = steps.pack(observation), steps.time, steps.pack(returns)
    n, size = steps.sets, 2 * observation.shape[-1] + 4
    gram = torch.zeros(n, size, size + 1, dtype=torch.float64, device=alive.device)  # x^T x, and x^T y
    parts = []
    for group in steps.groups:
        xy = _features(group.of(seen), group.of(time).squeeze(-1))
        xy[..., -1:] = group.of(target)
        x = xy.mul_(group.of(steps.played))[..., :-1]
        group.put(gram, x.mT @ xy)
        parts.append(x)
    if runs and not even:
        gram = over_runs(gram, runs)
    unit = torch.eye(size, dtype=torch.float64, device=alive.device)
    coefficients = torch.linalg.solve(gram[..., :-1] + RIDGE * unit, gram[..., -1:])
    if runs and not even:
        coefficients = of_tasks(coefficients, runs)
    predicted = [(x @ coefficients[group.sets]).flatten() for x, group in zip(parts, steps.groups, strict=True)]
    return steps.unpack(torch.cat(predicted).to(returns.dtype))
