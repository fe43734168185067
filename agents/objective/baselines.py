"""The linear feature baseline (Duan et al., ICML 2016), fitted per task in one batched solve, or once for all tasks."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-5


def features(observation: Tensor) -> Tensor:
    """Observation, its square, time, its square and cube, and 1.

    Args:
        observation: [N, T, E, d].

    Returns:
        [N, T, E, 2 d + 4] float64.
    """
    x = observation.double().clamp(-10.0, 10.0)
    time = torch.arange(x.shape[1], dtype=torch.float64, device=x.device) / 100.0
    time = time.view(1, -1, 1, 1).expand(*x.shape[:3], 1)
    return torch.cat([x, x * x, time, time * time, time * time * time, torch.ones_like(time)], -1)


def fit_linear(observation: Tensor, returns: Tensor, alive: Tensor, shared: bool = False) -> Tensor:
    """Fit each task's returns by ridge regression on ``features`` and predict them.

    A fit to a few short episodes follows their outcomes and removes the signal from the advantages: with 20 features, use
    many episodes per task, or one fit for all tasks.

    Args:
        observation: [N, T, E, d].
        returns: [N, T, E] discounted reward-to-go.
        alive: [N, T, E] 1 or 0; steps that were not played are ignored.
        shared: one fit for all tasks.

    Returns:
        [N, T, E] predictions, 0 where not alive.
    """
    if returns.shape != observation.shape[:3] or alive.shape != returns.shape:
        raise ValueError(f"returns {tuple(returns.shape)} and alive must match {tuple(observation.shape[:3])}")
    n = 1 if shared else observation.shape[0]
    x = (features(observation) * alive.unsqueeze(-1)).view(n, -1, 2 * observation.shape[-1] + 4)
    y = (returns.double() * alive).view(n, -1, 1)
    gram = x.mT @ x + RIDGE * torch.eye(x.shape[-1], dtype=torch.float64, device=x.device)
    coefficients = torch.linalg.solve(gram, x.mT @ y)
    predicted: Tensor = (x @ coefficients).view_as(returns).to(returns.dtype)
    return predicted
