"""PPO on chains: advantages and targets by hand, and the loss."""

import math

import pytest
import torch

from metaduel.agents.objective.ppo import chain_advantages, ppo_loss


def packed(*chains):
    """Rows of chains of numbers, the longest chain first, and the number of chains that have each row."""
    sizes = [sum(len(chain) > t for chain in chains) for t in range(len(chains[0]))]
    return torch.tensor([float(chain[t]) for t in range(len(chains[0])) for chain in chains if len(chain) > t]), sizes


def test_advantages_by_hand():
    # Two tasks, lambda 1/2, a discount of 1/2 within episodes and 1/4 across their ends; x is the row of an end.
    #   task 1: two steps (the episode ended early), x, two steps     rewards 1 2 x 0 8    values 1 2 x 3 4
    #     step 4   8 - 4                                      = 4
    #     step 3   0 + 1/2 x 4 - 3         + 1/2 x 1/2 x 4    = 0
    #     step 1   2 + 1/4 x 3 - 2         + 1/4 x 1/2 x 0    = 0.75
    #     step 0   1 + 1/2 x 2 - 1         + 1/2 x 1/2 x 0.75 = 1.1875
    #   task 2: one step, x, one step                                 rewards 0 x 4        values 1 x 2
    #     step 2   4 - 2                                      = 2
    #     step 0   0 + 1/4 x 2 - 1         + 1/4 x 1/2 x 2    = -0.25
    x = 99.0
    reward, sizes = packed([1, 2, x, 0, 8], [0, x, 4])
    value, _ = packed([1, 2, x, 3, 4], [1, x, 2])
    factor, _ = packed([0.5, 0.25, x, 0.5, 0.5], [0.25, x, 0.5])
    ends, _ = packed([0, 0, 1, 0, 0], [0, 1, 0])
    advantage = chain_advantages(reward, value, factor, ends > 0, sizes, 0.5)
    expected, _ = packed([1.1875, 0.75, 0, 0, 4], [-0.25, 0, 2])
    assert advantage.tolist() == expected.tolist()
    # The critic's targets.
    assert (advantage + value)[ends == 0].tolist() == [2.1875, 0.75, 2.75, 4.0, 3.0, 8.0]


def test_with_lambda_1_targets_are_discounted_returns():
    # 1 + 1/2 (2 + 1/4 (0 + 1/2 x 8)) = 2.5
    reward, sizes = packed([1, 2, 0, 0, 8])
    factor, _ = packed([0.5, 0.25, 9, 0.5, 0.5])
    value, _ = packed([5, -3, 7, 1, 2])
    ends = torch.tensor([False, False, True, False, False])
    target = chain_advantages(reward, value, factor, ends, sizes, 1.0) + value
    assert target[~ends].tolist() == [2.5, 3.0, 4.0, 8.0]


def loss(ratio, advantage, value=0.0, target=0.0, entropy=0.0, played=None, weights=(0.5, 0.0)):
    rows = [torch.as_tensor(x, dtype=torch.float64).expand(len(ratio)) for x in (advantage, value, target, entropy)]
    there = torch.ones(len(ratio), dtype=torch.bool) if played is None else torch.tensor(played)
    log_prob = torch.tensor([math.log(r) for r in ratio], dtype=torch.float64)
    return float(ppo_loss(log_prob, torch.zeros_like(log_prob), *rows, there, 0.2, *weights))


def test_the_loss_by_hand():
    # Ratios are clipped where they moved in the advantage's direction: -(1.2 x 1 + 0.5 x 1) / 2, and (1.5 + 0.8) / 2.
    assert loss([1.5, 0.5], 1.0) == pytest.approx(-0.85)
    assert loss([1.5, 0.5], -1.0) == pytest.approx(1.15)
    assert loss([1.0], 0.0, value=3.0, target=1.0) == pytest.approx(0.5 * 0.5 * 4)
    assert loss([1.0], 0.0, entropy=2.0, weights=(0.5, 0.1)) == pytest.approx(-0.2)


def test_the_loss_is_a_mean_over_the_steps_that_were_played():
    assert loss([1.0, 1.0, 1.5], 1.0, played=[True, True, False]) == pytest.approx(-1.0)
