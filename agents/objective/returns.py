"""Return and advantage estimation, over the time axis of [N, T, E] tensors (tasks, steps, episodes).

``alive`` is 1 at steps that were played. ``last_value`` is the value after the last step. It is 0 where the episode was
terminated. Where it was truncated, it is the value of the state reached (bootstrapping), or 0 if the return within the horizon
is itself the objective, as for our meta-learners.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    alive: Tensor,
    discount: float,
    gae_lambda: float = 1.0,
    last_value: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al., ICLR 2016).

    Args:
        reward: [N, T, E], 0 where not alive.
        value: [N, T, E] baseline at each step.
        alive: [N, T, E] 1 or 0; once 0, always 0.
        discount: gamma.
        gae_lambda: lambda; 1 gives discounted return minus baseline.
        last_value: [N, E] value after each episode's last step; None: 0.

    Returns:
        [N, T, E], 0 where not alive.
    """
    last = torch.zeros_like(reward[:, 0]) if last_value is None else last_value
    # The value after a step is the next step's, if it was played, and last_value otherwise.
    after = torch.cat([torch.where(alive[:, 1:] > 0, value[:, 1:], last.unsqueeze(1)), last.unsqueeze(1)], 1)
    return _to_go((reward + discount * after - value) * alive, discount * gae_lambda)


def discounted_returns(reward: Tensor, discount: float) -> Tensor:
    """Discounted reward-to-go [N, T, E] of rewards [N, T, E] that are 0 after the end."""
    return _to_go(reward, discount)


def _to_go(x: Tensor, factor: float) -> Tensor:
    """sum_k factor^k x_t+k, from sums over 1, 2, 4, .. steps: a few operations for any number of steps."""
    shift = 1
    while shift < x.shape[1] and factor**shift > 0:
        longer = x.clone()
        longer[:, :-shift].add_(x[:, shift:], alpha=factor**shift)
        x, shift = longer, 2 * shift
    return x


def normalise(advantage: Tensor, alive: Tensor, runs: Sequence[int] = ()) -> Tensor:
    """Shift and scale advantages [N, T, E] to mean 0 and standard deviation 1 over the steps that were played: per task, or
    over all tasks of a run. ``runs``: numbers of consecutive tasks of each, N in all.
    """
    centred, std = _centred(advantage, alive, runs)
    return centred / (std + 1e-8)


def spread(advantage: Tensor, alive: Tensor, runs: Sequence[int] = ()) -> Tensor:
    """The divisor of ``normalise``, [N]."""
    return _centred(advantage, alive, runs)[1].flatten() + 1e-8


def over_runs(values: Tensor, runs: Sequence[int]) -> Tensor:
    """Sums [M, ...] of tasks' values [N, ...] over the tasks of each run; ``runs``: numbers of consecutive tasks, N in all."""
    counts = torch.tensor(runs, dtype=torch.int64, device=values.device)
    return torch.segment_reduce(values, "sum", lengths=counts, axis=0)


def of_tasks(values: Tensor, runs: Sequence[int]) -> Tensor:
    """Runs' values [M, ...] for each of their tasks [N, ...]."""
    counts = torch.tensor(runs, dtype=torch.int64, device=values.device)
    return values.repeat_interleave(counts, 0, output_size=sum(runs))


def _centred(advantage: Tensor, alive: Tensor, runs: Sequence[int]) -> tuple[Tensor, Tensor]:
    def total(x: Tensor) -> Tensor:
        sums = x.sum((1, 2))
        return (of_tasks(over_runs(sums, runs), runs) if runs else sums).view(-1, 1, 1)

    count = total(alive).clamp(min=1.0)
    centred = (advantage - total(advantage * alive) / count) * alive
    return centred, torch.sqrt(total(centred * centred) / count)
