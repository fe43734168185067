"""Policy-gradient surrogates whose *second* derivatives are what a meta-learner differentiates.

All minimise the negative return per step of the horizon, J = E[sum_t r_t] / T, estimated from sampled episodes, and have the
same first derivative. They differ in the second:

- ``plain``: sum_t log pi_t A_t. Its Hessian misses the term of the sampling distribution (H2 alone; Rothfuss et al., 2019).
- ``lvc``: sum_t (pi_t / stop(pi_t)) A_t. Adds H1; low variance, biased where an action changes later rewards.
- ``dice``: sum_t (box(<=t) - box(<t)) A_t with box(<=t) = prod_{s<=t} pi_s / stop(pi_s): Loaded DiCE (Farquhar, Whiteson and
  Foerster, NeurIPS 2019): unbiased at every order, and baselines inside A_t stay right at second order.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["plain", "lvc", "dice"]
SURROGATES: tuple[Surrogate, ...] = ("plain", "lvc", "dice")


def policy_gradient_loss(
    log_prob: Tensor, advantage: Tensor, alive: Tensor, kind: Surrogate, weight: Tensor | None = None
) -> Tensor:
    """Per-task loss whose derivatives estimate those of minus the return per step.

    Args:
        log_prob: [N, T, E] with a graph to the weights: the player's own, or the sum over both players where the gradient
            through the other's sampling is wanted.
        advantage: [N, T, E], constant. For the exact second order of a discounted objective multiply it by discount^t.
        alive: [N, T, E] 1 or 0.
        kind: which surrogate.
        weight: [N, E] probability of each episode in an enumerated batch; None: sampled episodes, 1 / E each.

    Returns:
        [N].
    """
    log_prob = log_prob * alive
    if kind == "plain":
        terms = log_prob * advantage
    elif kind == "lvc":
        terms = torch.exp(log_prob - log_prob.detach()) * advantage * alive
    else:
        through = log_prob.cumsum(1)
        before = through - log_prob
        terms = (torch.exp(through - through.detach()) - torch.exp(before - before.detach())) * advantage
    per_episode = terms.sum(1) / log_prob.shape[1]
    return -(per_episode.mean(1) if weight is None else (per_episode * weight).sum(1))
