"""Tables, and networks evaluated once per state: exactly the plain path's numbers."""

import pytest
import torch
from gymnasium import spaces

from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.tabular import PerState, TabularPolicy
from metaduel.envs.core.errors import InvalidInputError

N, T, E, S, A = 3, 4, 6, 5, 2
PLAIN = MLPPolicy(S, spaces.Discrete(A), (8,))


def episodes(extra=0):
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(S, (N, T, E), generator=generator)
    seen = torch.nn.functional.one_hot(states, S).double()
    seen = torch.cat([seen, torch.randn(N, T, E, extra, generator=generator, dtype=torch.float64)], -1)
    return states, seen, torch.randint(A, (N, T, E), generator=generator)


def network():
    each = [PLAIN.init(i, torch.float64) for i in range(N)]
    return {name: (torch.stack([one[name] for one in each]) * 3).requires_grad_() for name in each[0]}


def derivatives(policy, weights):
    """Log-probabilities, their gradient and the gradient of its square."""
    _, seen, action = episodes()
    log_prob = policy.log_prob(policy.prepare(weights), seen, action)
    wave = torch.sin(torch.arange(N * T * E, dtype=torch.float64)).view(N, T, E)
    first = torch.autograd.grad((log_prob * wave).exp().sum(), list(weights.values()), create_graph=True)
    second = torch.autograd.grad(sum((g * g).sum() for g in first), list(weights.values()))
    return log_prob, *first, *second


def test_once_per_state_is_once_per_step_up_to_the_second_derivative():
    weights = network()
    for a, b in zip(derivatives(PLAIN, weights), derivatives(PerState(PLAIN), weights), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(b.detach().abs().max())))


def test_once_per_state_samples_the_same_actions_and_knows_the_same_distribution():
    fast, weights = PerState(PLAIN), {name: value.detach() for name, value in network().items()}
    _, seen, _ = episodes()
    u = torch.rand(N, 24, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = seen.view(N, -1, S)
    a, b = (policy.sample(policy.prepare(weights), rows, u) for policy in (PLAIN, fast))
    assert torch.equal(a, b)
    assert torch.equal(fast.distribution(fast.prepare(weights), rows).sample(u), b)
    assert torch.allclose(fast(weights, rows).log_probs, PLAIN(weights, rows).log_probs, atol=1e-13, rtol=0)
    assert fast.init(3).keys() == PLAIN.init(3).keys()
    assert fast.head_names == PLAIN.head_names


def test_a_table_is_a_linear_map_without_bias():
    policy, linear = TabularPolicy(S, S + 2, spaces.Discrete(A)), MLPPolicy(S + 2, spaces.Discrete(A), ())
    states, seen, action = episodes(extra=2)
    table = torch.randn(N, S, A, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrix = torch.cat([table, torch.zeros(N, 2, A, dtype=torch.float64)], 1)
    same = {"layer0.weight": matrix, "layer0.bias": torch.zeros(N, A, dtype=torch.float64)}
    ours = policy.log_prob(policy.prepare({"table": table}), seen, action)
    assert torch.allclose(ours, linear.log_prob(linear.prepare(same), seen, action), atol=1e-13)
    by_hand = table.log_softmax(-1)[1, states[1, 2, 3], action[1, 2, 3]]
    assert ours[1, 2, 3] == by_hand
    assert torch.equal(policy.init(9)["table"], torch.zeros(S, A))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((5, 5, spaces.Box(-1, 1, (2,))), "must be Discrete"), ((6, 5, spaces.Discrete(2)), "states=6 must be between 1")],
)
def test_what_no_table_can_be_is_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        TabularPolicy(*arguments)
