import itertools
import math

import pytest
import torch
from gymnasium import spaces
from torch import nn

from metaduel.agents.policies.base import MIN_LOG_STD, adapting, normalisation, stack
from metaduel.agents.policies.distributions import Categorical, Gaussian
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.module import ModulePolicy
from metaduel.envs.core import noise
from metaduel.envs.core.errors import InvalidInputError

BOX = spaces.Box(-0.5, 0.5, (3,))
ACTIONS = {"box": BOX, "discrete": spaces.Discrete(3)}


def network(hidden=(8, 6)):
    sizes = (4, *hidden, 3)
    layers = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Linear(fan_in, fan_out), *([nn.Tanh()] if i < len(hidden) else [])]
    return nn.Sequential(*layers)


def random_weights(policy, n, seed=0):
    """Different weights for every task, biases and log_std included."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in policy.init(0).items()}
    return {
        name: 0.7 * torch.randn(n, *shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()
    }


def loaded(weights, n, hidden):
    """The plain torch network with the weights of task ``n``."""
    module = network(hidden).double()
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for i, layer in enumerate(linear):
            layer.weight.copy_(weights[f"layer{i}.weight"][n].T)
            layer.bias.copy_(weights[f"layer{i}.bias"][n])
    return module


def raw(distribution):
    return distribution.mean if isinstance(distribution, Gaussian) else distribution.log_probs


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
@pytest.mark.parametrize("kind", ACTIONS)
def test_equals_a_plain_tanh_network_per_task(kind, hidden):
    policy = MLPPolicy(4, ACTIONS[kind], hidden)
    weights = random_weights(policy, 3)
    observation = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = policy(weights, observation)
    for n in range(3):
        out = loaded(weights, n, hidden)(observation[n])
        if kind == "box":
            assert torch.allclose(got.mean[n], out, atol=1e-12)
            assert torch.equal(got.log_std[n, 0], weights["log_std"][n].clamp(min=MIN_LOG_STD))
        else:
            assert torch.allclose(got.log_probs[n], torch.log_softmax(out, -1), atol=1e-12)


@pytest.mark.parametrize("kind", ACTIONS)
def test_module_policy_equals_mlp_policy(kind):
    mlp = MLPPolicy(4, ACTIONS[kind], (8, 6))
    module = ModulePolicy(lambda: network(), 4, ACTIONS[kind])
    weights = random_weights(mlp, 3)
    names = {f"layer{i}": f"{2 * i}" for i in range(3)}
    theirs = {}
    for name, value in weights.items():
        layer, _, part = name.partition(".")
        theirs[f"{names[layer]}.{part}" if part else name] = value.mT if part == "weight" else value
    assert theirs.keys() == module.init(0).keys()
    observation = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(raw(mlp(weights, observation)), raw(module(theirs, observation)), atol=1e-12)
    # Second derivatives, too: both are differentiated through.
    results = []
    for policy, own in ((mlp, weights), (module, theirs)):
        first = "layer0.bias" if policy is mlp else "0.bias"
        leaves = {name: value.clone().requires_grad_() for name, value in own.items()}
        out = (raw(policy(leaves, observation)) ** 2).sum()
        slope = torch.autograd.grad(out, leaves[first], create_graph=True)[0]
        results.append(torch.autograd.grad((slope**2).sum(), leaves[first])[0])
    assert torch.allclose(*results, rtol=1e-9)


@pytest.mark.parametrize("kind", ACTIONS)
def test_stacked_equals_one_at_a_time(kind):
    policy = MLPPolicy(4, ACTIONS[kind], (8,))
    weights = random_weights(policy, 4)
    observation = torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = raw(policy(weights, observation))
    for n in range(4):
        alone = {name: value[n : n + 1] for name, value in weights.items()}
        assert torch.allclose(raw(policy(alone, observation[n : n + 1])), together[n : n + 1], atol=1e-12)
    # A stack of one player's weights is a view, whose gradients add up.
    leaf = {name: value[0].clone().requires_grad_() for name, value in weights.items()}
    copies = {name: value.detach().clone().requires_grad_() for name, value in stack(leaf, 4).items()}
    one = torch.autograd.grad((raw(policy(stack(leaf, 4), observation)) ** 2).sum(), leaf["layer0.weight"])[0]
    four = torch.autograd.grad((raw(policy(copies, observation)) ** 2).sum(), copies["layer0.weight"])[0]
    assert torch.allclose(one, four.sum(0))


def test_initial_weights():
    policy = MLPPolicy(6, BOX, (6, 5), initial_log_std=-0.25)
    weights, again, other = policy.init(3), policy.init(3), policy.init(4)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not torch.equal(weights["layer0.weight"], other["layer0.weight"])
    first, second, last = (weights[f"layer{i}.weight"] for i in range(3))
    assert torch.allclose(first.T @ first, torch.eye(6), atol=1e-6)  # orthogonal, gain 1
    assert torch.allclose(second.T @ second, torch.eye(5), atol=1e-6)
    assert torch.allclose(last.T @ last, 0.01 * torch.eye(3), atol=1e-6)  # gain 0.1
    assert all(not weights[f"layer{i}.bias"].any() for i in range(3))
    assert weights["log_std"].tolist() == [-0.25] * 3
    before = torch.random.get_rng_state()
    module = ModulePolicy(network, 4, BOX)
    state = torch.random.get_rng_state()
    assert torch.equal(module.init(1)["0.weight"], module.init(1)["0.weight"])
    assert not torch.equal(module.init(1)["0.weight"], module.init(2)["0.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.random.set_rng_state(before)


def test_gaussian_equals_torch():
    generator = torch.Generator().manual_seed(0)
    mean, log_std, action, normals = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)
    ours, theirs = Gaussian(mean, log_std), torch.distributions.Normal(mean, log_std.exp())
    assert torch.allclose(ours.log_prob(action), theirs.log_prob(action).sum(-1))
    assert torch.allclose(ours.entropy(), theirs.entropy().sum(-1))
    assert torch.allclose(ours.sample(normals), mean + log_std.exp() * normals)
    assert torch.equal(ours.mode(), mean)
    # One standard normal at its mean: log density -log(2 pi) / 2 per dimension, summed over three.
    flat = Gaussian(torch.zeros(3), torch.zeros(3))
    assert abs(float(flat.log_prob(torch.zeros(3))) + 1.5 * math.log(2 * math.pi)) < 1e-6


def test_categorical_equals_torch():
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = Categorical(torch.log_softmax(logits, -1)), torch.distributions.Categorical(logits=logits)
    action = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    assert torch.allclose(ours.log_prob(action), theirs.log_prob(action))
    assert torch.allclose(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), logits.argmax(-1))


def test_categorical_samples_have_the_right_frequencies():
    probability = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    n = 4000
    u = (torch.arange(n, dtype=torch.float64) / n).unsqueeze(-1)  # a grid: counts are exact, luck is not involved
    counts = Categorical(probability.log().expand(n, 4)).sample(u).bincount(minlength=4)
    # A grid point may lie on either side of a boundary that is not a binary fraction.
    assert (counts - probability * n).abs().max() <= 1
    assert counts[1] == 0
    ends = Categorical(torch.log(torch.tensor([[0.5, 0.5]]))).sample(torch.tensor([[0.0], [0.999999]]))
    assert ends.tolist() == [0, 1]
    never = Categorical(torch.log(torch.tensor([[0.0, 1.0]])))  # 0 is a possible uniform number
    assert never.sample(torch.tensor([[0.0]])).tolist() == [1]


def test_gaussian_samples_from_prepared_noise_have_the_right_moments():
    policy = MLPPolicy(2, BOX, ())
    weights = random_weights(policy, 1)
    uniforms = noise.uniform(torch.arange(20_000), torch.tensor(0), 4, policy.noise, torch.float64).unsqueeze(0)
    normals = policy.prepare_noise(uniforms)
    assert normals.shape == (1, 20_000, 3)
    samples = policy(weights, torch.zeros(1, 1, 2, dtype=torch.float64)).sample(normals)[0]
    std = weights["log_std"][0].clamp(min=MIN_LOG_STD).exp()
    assert torch.allclose(samples.mean(0) / std, weights["layer0.bias"][0] / std, atol=4 / 20_000**0.5)
    assert torch.allclose(samples.std(0), std, rtol=0.03)


def test_clipping_keeps_the_action_space():
    action = torch.tensor([[0.2, -2.0, 7.0]])
    assert MLPPolicy(2, BOX).clip(action).tolist() == [[pytest.approx(0.2), -0.5, 0.5]]
    assert MLPPolicy(2, spaces.Discrete(4)).clip(torch.tensor([3])).tolist() == [3]


@pytest.mark.parametrize(
    "space", [spaces.MultiDiscrete([2, 2]), spaces.Box(-1, 1, (2, 2)), spaces.MultiBinary(2), spaces.Dict({})]
)
def test_action_spaces_that_are_refused(space):
    with pytest.raises(InvalidInputError, match="action_space"):
        MLPPolicy(4, space)


def test_modules_that_are_refused():
    with pytest.raises(InvalidInputError, match="buffers"):
        ModulePolicy(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), 4, BOX)
    with pytest.raises(InvalidInputError, match=r"\[3, 2\]; must be \[3, 3\]"):
        ModulePolicy(lambda: nn.Linear(4, 2), 4, BOX)


def test_context_inputs_are_an_input_that_is_a_weight():
    plain, policy = MLPPolicy(6, BOX, (8,)), MLPPolicy(4, BOX, (8,), context=2)
    weights = random_weights(policy, 5)
    merged = {name: value for name, value in weights.items() if not name.startswith("context")}
    merged["layer0.weight"] = torch.cat([weights["layer0.weight"], weights["context.weight"]], 1)
    observation = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(1)).to(weights["context"])
    wide = torch.cat([observation, weights["context"].unsqueeze(1).expand(5, 7, 2)], -1)
    torch.testing.assert_close(policy(weights, observation).mode(), plain(merged, wide).mode())
    assert policy.init(0)["context"].tolist() == [0, 0]


def test_making_a_module_policy_leaves_the_global_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    ModulePolicy(network, 4, BOX).init(1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["mlp", "with context", "module"])
def test_normalising_is_the_same_as_normalising_by_hand(kind):
    def make():
        if kind == "module":
            return ModulePolicy(network, 4, BOX)
        return MLPPolicy(4, BOX, (8, 6), context=2 if kind == "with context" else 0)

    plain, policy = make(), make()
    mean, std = (
        torch.tensor(values, dtype=torch.float64) for values in ([0.02, -3.0, 50.0, 1.0], [0.01, 2.0, 9.0, 0.0])
    )
    weights = random_weights(policy, 3)
    normalised = weights | {name: value.double() for name, value in stack(normalisation((mean, std)), 3).items()}
    observation = mean + torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    by_hand = (observation - mean) / torch.tensor(
        [0.01, 2.0, 9.0, 1.0], dtype=torch.float64
    )  # a constant: shifted alone
    torch.testing.assert_close(policy(normalised, observation).mean, plain(weights, by_hand).mean)
    over_time = policy.over_time(policy.prepare(normalised), observation.unsqueeze(2))
    torch.testing.assert_close(over_time.squeeze(2), plain(weights, by_hand).mean)


def test_statistics_are_no_weights_that_adapt():
    policy = MLPPolicy(4, BOX, (8,))
    before = set(policy.init(0))
    normalised = policy.init(0) | normalisation((torch.zeros(4), torch.full((4,), 2.0)))
    assert set(policy.init(0)) == set(adapting(policy.prepare(stack(normalised, 2)))) == before


def test_hidden_layers_may_start_wider_and_with_biases():
    plain, policy = MLPPolicy(4, BOX, (8, 6)), MLPPolicy(4, BOX, (8, 6), gain=2.0, bias=0.5)
    weights = policy.init(0)
    torch.testing.assert_close(weights["layer0.weight"], 2 * plain.init(0)["layer0.weight"])
    for name in ("layer0.bias", "layer1.bias"):
        assert 0.1 < weights[name].abs().max() <= 0.5
    assert (weights["layer2.bias"] == 0).all()
    # Without biases the network is odd, and no product of two inputs is; with them it is not.
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))
    even = [p(stack(p.init(0), 1), x).mean + p(stack(p.init(0), 1), -x).mean for p in (plain, policy)]
    assert even[0].abs().max() < 1e-6
    assert even[1].abs().max() > 0.01
