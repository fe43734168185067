"""The support's settings change the support, not the query."""

import pytest
import torch
from gymnasium import spaces

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import stack
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError

POLICY = MLPPolicy(2, spaces.Box(-1, 1, (1,)), (4,))


def data():
    generator = torch.Generator().manual_seed(0)
    n, t, e = 3, 6, 4
    reward = torch.randn(n, t, e, generator=generator)
    reward[:, 2, 0] = 50.0  # one rare, large reward
    observation = torch.randn(n, t, e, 2, generator=generator)
    return Trajectories(observation, torch.randn(n, t, e, 1, generator=generator), reward, torch.ones(n, t, e))


def gradients(config):
    weights = {name: value.clone().requires_grad_() for name, value in stack(POLICY.init(0), 3).items()}
    losses = config.evaluate(POLICY, weights, data(), horizon=6)
    return [torch.autograd.grad(x.sum(), weights["layer1.bias"], retain_graph=True)[0] for x in losses]


def test_the_inner_discount_is_the_supports_alone():
    plain, short = gradients(LossConfig(inner_discount=0.99)), gradients(LossConfig(inner_discount=0.3))
    assert torch.equal(plain[1], short[1])
    assert not torch.allclose(plain[0], short[0])
    assert torch.equal(short[0], gradients(LossConfig(discount=0.3, inner_discount=0.3))[1])


def test_cutting_takes_weight_from_rare_rewards_in_the_support_alone():
    plain, cut = gradients(LossConfig()), gradients(LossConfig(inner_clip=0.5))
    assert torch.equal(plain[1], cut[1])
    assert (cut[0].abs() < plain[0].abs()).all()


def test_a_baseline_for_the_whole_batch_is_the_querys_alone():
    plain, batch = gradients(LossConfig()), gradients(LossConfig(baseline="batch"))
    assert torch.equal(plain[0], batch[0])
    assert not torch.allclose(plain[1], batch[1])


def test_one_fit_for_all_tasks_is_the_fit_to_one_task_of_all_their_episodes():
    d = data()
    as_one = Trajectories(*(x.transpose(0, 1).flatten(1, 2).unsqueeze(0) for x in d[:4]))  # [1, T, N E, ...]
    together, alone = LossConfig(baseline="batch").query_advantages(d), LossConfig().query_advantages(as_one)
    torch.testing.assert_close(together, alone[0].view(6, 3, 4).transpose(0, 1), atol=1e-4, rtol=1e-4)


def test_the_support_may_go_without_a_baseline():
    plain, bare = gradients(LossConfig()), gradients(LossConfig(inner_baseline=False))
    assert torch.equal(plain[1], bare[1])
    d = data()
    config = LossConfig(inner_baseline=False, inner_discount=0.0)
    reward = d.reward.flatten(1)
    expected = (reward - reward.mean(1, keepdim=True)) / reward.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(config.support_advantages(d).flatten(1), expected)


def test_a_fit_to_few_episodes_takes_their_outcome_out_of_the_advantages():
    # Four episodes that end well or badly, and nothing in their observations that says which: 24 features still can.
    generator = torch.Generator().manual_seed(1)
    n, t, e = 50, 8, 4
    outcome = torch.tensor([1.0, -1.0, 1.0, -1.0])
    reward = torch.zeros(n, t, e)
    reward[:, -1] = outcome
    observation = torch.randn(n, 1, e, 10, generator=generator).expand(n, t, e, 10)
    d = Trajectories(observation, torch.zeros(n, t, e, 1), reward, torch.ones(n, t, e))
    settings = {"normalise": False, "discount": 1.0, "inner_discount": 1.0}
    kept = {b: (LossConfig(baseline=b, **settings).query_advantages(d) * outcome).mean() for b in ("task", "batch")}
    assert kept["task"] < 0.01
    assert kept["batch"] > 0.8


def test_the_adversary_may_have_its_own_inner_discount():
    config = LossConfig(inner_discount=0.3, adversary_inner_discount=0.9)
    assert config.of("protagonist").inner_discount == 0.3
    assert config.of("adversary").inner_discount == 0.9
    assert LossConfig(inner_discount=0.3).of("adversary").inner_discount == 0.3


def test_the_adversary_may_have_its_own_clip():
    config = LossConfig(inner_clip=2.0, adversary_inner_clip=0.0)
    assert config.of("protagonist") == LossConfig(inner_clip=2.0)
    assert config.of("adversary") == LossConfig()
    assert LossConfig(inner_clip=2.0).of("adversary").inner_clip == 2.0


@pytest.mark.parametrize(
    "bad",
    [
        {"inner_clip": -1.0},
        {"inner_clip": 1.0, "normalise": False},
        {"adversary_inner_clip": -1.0},
        {"adversary_inner_clip": 1.0, "normalise": False},
        {"inner_discount": 1.5},
    ],
)
def test_bad_settings_are_named(bad):
    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        LossConfig(**bad)
