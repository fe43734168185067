"""Policy-gradient surrogates for meta-learners, which use their *second* derivatives.

All minimise the negative return per step of the horizon, J = E[sum_t r_t] / H, estimated from sampled episodes, and have the
same first derivative. H is the most steps that an episode of the game can have, and not the number T of steps in a batch, which
ends with its longest episode: a task's loss would depend on the other tasks. They differ in the second:

- ``plain``: sum_t log pi_t A_t. Its Hessian misses the term of the sampling distribution (H2 alone; Rothfuss et al., 2019).
- ``lvc``: sum_t (pi_t / stop(pi_t)) A_t. Adds H1; low variance, biased where an action changes later rewards.
- ``dice``: sum_t (box(<=t) - box(<t)) A_t with box(<=t) = prod_{s<=t} pi_s / stop(pi_s): Loaded DiCE (Farquhar, Whiteson and
  Foerster, NeurIPS 2019): unbiased at every order, and baselines inside A_t stay right at second order.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError

Surrogate = Literal["plain", "lvc", "dice"]
SURROGATES: tuple[Surrogate, ...] = ("plain", "lvc", "dice")


def policy_gradient_loss(
    log_prob: Tensor,
    advantage: Tensor,
    alive: Tensor,
    kind: Surrogate,
    horizon: int,
    weight: Tensor | None = None,
    old: Tensor | None = None,
) -> Tensor:
    """Per-task loss whose derivatives estimate those of minus the return per step.

    Args:
        log_prob: [N, T, E] with a graph to the weights: the player's own, or the sum over both players for the gradient
            through the opponent's sampling as well.
        advantage: [N, T, E], constant. For the exact second order of a discounted objective multiply it by discount^t.
        alive: [N, T, E] 1 or 0.
        kind: which surrogate.
        horizon: H, the most steps that an episode can have.
        weight: [N, E] probability of each episode in an enumerated batch; None: sampled episodes, 1 / E each.
        old: [N, T, E] constant log-probabilities under the weights that sampled the episodes, where those are not the present
            weights; for the ratio of ``lvc`` alone.

    Returns:
        [N].
    """
    if old is not None and kind != "lvc":
        raise InvalidInputError(f"surrogate={kind!r}: episodes of other weights need the surrogate 'lvc'")
    if kind == "plain":
        terms = log_prob * (advantage * alive)
    elif kind == "lvc":
        terms = torch.exp(log_prob - (log_prob.detach() if old is None else old)) * (advantage * alive)
    else:
        log_prob = log_prob * alive
        through = log_prob.cumsum(1)
        before = through - log_prob
        terms = (torch.exp(through - through.detach()) - torch.exp(before - before.detach())) * advantage
    return -_mean(terms, horizon, weight)


def clipped_loss(
    log_prob: Tensor,
    old: Tensor,
    advantage: Tensor,
    alive: Tensor,
    clip: float,
    horizon: int,
    weight: Tensor | None = None,
) -> Tensor:
    """Per-task loss [N] whose gradient vanishes where a ratio has moved further than ``clip`` in the advantage's direction
    (Schulman et al., 2017): per step of the horizon, minus the sum of min(r A, clamp(r, 1 - clip, 1 + clip) A), r = pi / pi_old.

    Args:
        log_prob: [N, T, E] with a graph to the weights.
        old: [N, T, E] constant log-probabilities under the weights that sampled the episodes.
        advantage: [N, T, E], constant.
        alive: [N, T, E] 1 or 0.
        clip: epsilon.
        horizon: as in ``policy_gradient_loss``.
        weight: as in ``policy_gradient_loss``.
    """
    ratio, advantage = torch.exp(log_prob - old), advantage * alive
    terms = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -_mean(terms, horizon, weight)


def _mean(terms: Tensor, horizon: int, weight: Tensor | None) -> Tensor:
    """Per step of the horizon, over episodes: [N, T, E] to [N]."""
    per_episode = terms.sum(1) / horizon
    return per_episode.mean(1) if weight is None else (per_episode * weight).sum(1)
