import pytest
import torch
from gymnasium import spaces

from metaduel.agents.objective import packing
from metaduel.agents.objective.losses import SURROGATES, policy_gradient_loss
from metaduel.agents.objective.packing import Actions, Steps, log_probs
from metaduel.agents.policies import groups
from metaduel.agents.policies.base import normalisation, stack
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError

BOX, DISCRETE = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)
POLICIES = {
    "gaussian": lambda: MLPPolicy(5, BOX, (6, 4)),
    "with context": lambda: MLPPolicy(5, BOX, (6,), context=2),
    "categorical": lambda: MLPPolicy(5, DISCRETE, (6, 4)),
    "masked": lambda: MLPPolicy(5, DISCRETE, (6,), mask=slice(2, 5)),
}


def drawn(policy, tasks=5, steps=6, episodes=4, every=False):
    """Trajectories of episodes of different lengths."""
    generator = torch.Generator().manual_seed(3)
    observation = torch.randn(tasks, steps, episodes, 5, generator=generator, dtype=torch.float64)
    action = torch.randn(tasks, steps, episodes, 2, generator=generator, dtype=torch.float64)
    if policy.discrete:
        action = torch.randint(3, (tasks, steps, episodes), generator=generator)
    if policy.mask is not None:  # the action taken is legal, and the next one is not
        legal = torch.nn.functional.one_hot((action + 1) % 3, 3)
        observation[..., 2:] = 1.0 - legal
    length = torch.randint(1, steps + 1, (tasks, 1, episodes), generator=generator)
    length[1] = 1  # a task with few steps
    alive = (torch.arange(steps).view(1, -1, 1) < length).double()
    if every:
        alive = torch.ones_like(alive)
    reward = torch.randn(alive.shape, generator=generator, dtype=torch.float64) * alive
    return Trajectories(observation, action, reward, alive)


def weights_of(policy, tasks=5, normalised=False):
    generator = torch.Generator().manual_seed(4)
    weights = {
        name: 0.6 * torch.randn(tasks, *value.shape, generator=generator, dtype=torch.float64)
        for name, value in policy.init(0).items()
    }
    leaves = {name: value.requires_grad_() for name, value in weights.items()}
    if normalised:
        fixed = normalisation((torch.full((5,), 0.3), torch.full((5,), 2.0)), torch.float64)
        leaves |= stack(fixed, tasks)
    return leaves


def padded(policy, weights, data):
    """The plain path: every step, in plain operations."""
    prepared = policy.prepare(weights)
    layers = range(len(policy.sizes) - 1)
    x = data.observation.flatten(1, 2)
    for i in layers:
        x = torch.baddbmm(prepared[f"layer{i}.bias"].unsqueeze(1), x, prepared[f"layer{i}.weight"])
        x = torch.tanh(x) if i < len(layers) - 1 else x
    out = policy._masked(x, data.observation.flatten(1, 2))
    return policy.head(prepared, out).log_prob(data.action.flatten(1, 2)).view(data.alive.shape)


def derivatives(log_prob, weights, data, kind):
    """The loss, its gradient, and the gradient of the loss after an update along it."""
    own = [value for value in weights.values() if value.requires_grad]
    advantage = torch.randn(data.alive.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    loss = policy_gradient_loss(log_prob(weights), advantage, data.alive, kind, 2 * data.alive.shape[1])
    gradient = torch.autograd.grad(loss.sum(), own, create_graph=True)
    moved = iter([value - 0.1 * part for value, part in zip(own, gradient, strict=True)])
    after = {name: next(moved) if value.requires_grad else value for name, value in weights.items()}
    query = policy_gradient_loss(log_prob(after), 2 * advantage, data.alive, kind, 2 * data.alive.shape[1])
    return [loss, *gradient, query, *torch.autograd.grad(query.sum(), own)]


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("kind", SURROGATES)
@pytest.mark.parametrize("name", POLICIES)
def test_loss_gradient_and_meta_gradient_equal_those_of_all_steps(name, kind, every):
    policy = POLICIES[name]()
    data, weights = drawn(policy, every=every), weights_of(policy, normalised=name != "masked")
    ours = derivatives(lambda w: log_probs(policy, w, data), weights, data, kind)
    theirs = derivatives(lambda w: padded(policy, w, data), weights, data, kind)
    assert any(part.abs().max() > 1e-3 for part in theirs[-len(weights) :])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("spare", [0, 3, 1000])
def test_every_step_that_was_played_has_a_row_and_goes_back_to_its_place(monkeypatch, spare):
    monkeypatch.setattr(packing, "SPARE", spare)
    data = drawn(POLICIES["gaussian"]())
    steps = Steps.of(data.alive)
    assert len(steps.groups) == {0: 4, 3: 3, 1000: 1}[spare]
    rows = steps.pack(data.observation)
    assert len(rows) == sum(group.n * group.length for group in steps.groups)
    assert steps.played.sum() == data.alive.sum()
    assert torch.equal(steps.unpack(rows), data.observation * data.alive.unsqueeze(-1))
    assert torch.equal(steps.unpack(steps.pack(data.reward)), data.reward)
    time = torch.arange(6).view(1, -1, 1).expand(data.alive.shape)
    assert torch.equal(steps.time, steps.pack(time))
    for group in steps.groups:
        task = torch.arange(5).view(-1, 1, 1).expand(data.alive.shape)
        assert torch.equal(group.of(steps.pack(task)).squeeze(-1), group.sets.unsqueeze(1).expand(-1, group.length))


@pytest.mark.parametrize("rows", [4, 4096])
@pytest.mark.parametrize("name", ["gaussian", "with context", "masked"])
@pytest.mark.parametrize(("sets", "every"), [(1, False), (2, False), (3, True), (6, False)])
def test_tasks_that_share_weights_equal_tasks_with_copies_of_them(monkeypatch, name, sets, every, rows):
    """The values, the gradient of a set, which is the sum of its tasks', and those after an update."""
    monkeypatch.setattr(groups, "ROWS", rows)
    monkeypatch.setattr(packing, "ROWS", rows)
    policy = POLICIES[name]()
    data, weights = drawn(policy, tasks=6, every=every), weights_of(policy, tasks=sets, normalised=name != "masked")

    def copied(own):
        return log_probs(policy, {n: v.repeat_interleave(6 // sets, 0) for n, v in own.items()}, data)

    ours = derivatives(lambda w: log_probs(policy, w, data), weights, data, "lvc")
    theirs = derivatives(copied, weights, data, "lvc")
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    steps = Steps.of(data.alive, sets)
    assert steps.sets == sets
    assert max(group.n * group.length for group in steps.groups) <= max(rows, 4)
    assert torch.equal(steps.unpack(steps.pack(data.reward)), data.reward)
    if rows == 4096:
        assert sum(group.n * group.length for group in steps.groups) <= data.alive.sum() + packing.SPARE


@pytest.mark.parametrize("policy", [MLPPolicy(5, BOX, (6,)), GRUPolicy(5, BOX, 4)])
def test_numbers_of_sets(policy):
    """Rows that are laid out for more sets take fewer, of any policy; numbers that do not fit are refused."""
    data = drawn(POLICIES["gaussian"](), tasks=6)
    if not policy.by_row:
        given = torch.randn(6, 6, 4, policy.input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        data = data._replace(observation=given)
    actions, weights = Actions.of(policy, data), weights_of(policy, tasks=2)
    found = actions.log_prob(actions.distribution(weights))
    expected = log_probs(policy, {n: v.repeat_interleave(3, 0) for n, v in weights.items()}, data)
    torch.testing.assert_close(found * data.alive, expected * data.alive, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        log_probs(policy, weights, data) * data.alive, found * data.alive, rtol=1e-12, atol=1e-12
    )
    with pytest.raises(InvalidInputError, match="weights: 4 stacked sets for 6 tasks"):
        log_probs(policy, weights_of(policy, tasks=4), data)
    if policy.by_row:
        with pytest.raises(InvalidInputError, match="weights: 6 stacked sets for 2"):
            Actions.of(policy, data, 2).distribution(weights_of(policy, tasks=6))


def test_unpacking_is_differentiable():
    steps = Steps.of(drawn(POLICIES["gaussian"]()).alive)
    generator = torch.Generator().manual_seed(0)
    for shape in ((), (2,)):
        rows = torch.randn(len(steps.played), *shape, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(steps.unpack, rows)
        assert torch.autograd.gradgradcheck(lambda r: steps.unpack(r) ** 2, rows)


def test_only_rows_are_computed():
    """What is recorded after an episode's end has no effect, and all steps of a batch without ends are taken as they lie."""
    policy = POLICIES["gaussian"]()
    data, weights = drawn(policy), weights_of(policy)
    far = data._replace(observation=torch.where(data.alive.unsqueeze(-1) > 0, data.observation, 1e6))
    assert torch.equal(log_probs(policy, weights, far), log_probs(policy, weights, data))
    assert not log_probs(policy, weights, data)[data.alive == 0].any()
    assert len(Actions.of(policy, data).observation) < 0.8 * data.alive.numel()
    assert Steps.of(torch.ones_like(data.alive)).places is None


def test_a_memory_is_computed_over_whole_episodes():
    policy = GRUPolicy(5, BOX, 4)
    generator = torch.Generator().manual_seed(0)
    data = drawn(POLICIES["gaussian"]())
    given = torch.randn(5, 6, 4, policy.input_size, generator=generator, dtype=torch.float64)
    data = data._replace(observation=given)
    weights = {n: v.unsqueeze(0).expand(5, *v.shape) for n, v in policy.init(0, torch.float64).items()}
    actions = Actions.of(policy, data)
    expected = policy.log_prob(policy.prepare(weights), given, data.action)
    assert torch.equal(actions.log_prob(actions.distribution(weights)), expected)
    assert torch.equal(log_probs(policy, weights, data), expected)
    with pytest.raises(NotImplementedError, match="GRUPolicy has by_row=False"):
        policy.at_rows(policy.prepare(weights), given.flatten(0, 2), ())
