"""Proximal policy optimisation (Schulman et al., 2017) with a critic, on steps that were played one after another in chains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def chain_advantages(
    reward: Tensor, value: Tensor, factor: Tensor, ends: Tensor, sizes: Sequence[int], gae_lambda: float
) -> Tensor:
    """Generalised advantage estimates (Schulman et al., ICLR 2016) over chains of episodes.

    Nothing follows a chain's last step: its value is 0. Rows are packed, see ``recurrence.packed_gru``.

    Args:
        reward: [R].
        value: [R] the critic's.
        factor: [R] discount from a step to the next one of its chain: of the episode, or across its end.
        ends: [R] bool: rows between two episodes that are no steps.
        sizes: number of chains that have each row.
        gae_lambda: lambda.

    Returns:
        [R], 0 at ``ends``.
    """
    advantage = torch.zeros_like(reward)
    later, after = (
        reward.new_zeros(sizes[0]),
        reward.new_zeros(sizes[0]),
    )  # of each chain's next step: advantage and value
    first = len(reward)
    for size in reversed(sizes):
        first -= size
        row, step = slice(first, first + size), ~ends[first : first + size]
        now = reward[row] + factor[row] * (after[:size] + gae_lambda * later[:size]) - value[row]
        later[:size] = torch.where(step, now, later[:size])
        after[:size] = torch.where(step, value[row], after[:size])
        advantage[row] = now * step
    return advantage


def ppo_loss(
    log_prob: Tensor,
    old: Tensor,
    advantage: Tensor,
    value: Tensor,
    target: Tensor,
    entropy: Tensor,
    played: Tensor,
    clip: float,
    value_coefficient: float,
    entropy_coefficient: float,
) -> Tensor:
    """The loss [], a mean over the steps that were played:

        - min(r A, clamp(r, 1 - clip, 1 + clip) A) + value_coefficient (V - target)^2 / 2 - entropy_coefficient H,

    where r = pi / pi_old.

    Args:
        log_prob: [R] of the actions taken.
        old: [R] the same of the weights that played, constant.
        advantage: [R], constant.
        value: [R] the critic's, in the targets' scale.
        target: [R], constant.
        entropy: [R] of the policy, in nats.
        played: [R] bool; other rows do not count.
        clip: bound on the ratio's distance from 1.
        value_coefficient: weight of the critic's loss.
        entropy_coefficient: weight of the entropy.
    """
    ratio = torch.exp(log_prob - old)
    gained = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    each = value_coefficient * 0.5 * (value - target).square() - gained - entropy_coefficient * entropy
    return (each * played).sum() / played.sum()
