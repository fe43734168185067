"""E-MAML against the exact derivative of its objective: every batch that an update may be given, in a game of one step."""

import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.trajectories import Trajectories
from metaduel.benchmarks.tools.enumerated import AllBatches, batches_loss
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner

ROLES = ("protagonist", "adversary")
RATE = 1.5
START = {
    "protagonist": torch.tensor([0.3, -0.4], dtype=torch.float64),
    "adversary": torch.tensor([-0.2, 0.6], dtype=torch.float64),
}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def exact(problem, start, role, outer_shots):
    """The objective, as a function of the players' logits: half as a weight and half as a bias, which moves both as much."""
    flats = {r: torch.cat([0.5 * value, 0.5 * value]) for r, value in start.items()}
    rates = dict.fromkeys(ROLES, torch.full((problem.steps, 4), RATE))
    return batches_loss(problem.drawn, flats, rates, role, outer_shots == "last")


@pytest.mark.parametrize("outer_shots", ["last", "all"])
@pytest.mark.parametrize(("steps", "episodes"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
def test_the_gradient_is_that_of_the_objective(steps, episodes, outer_shots):
    config = METHODS["e_maml"].configure(
        METHODS["e_maml"].settings(steps=steps, inner_lr=RATE, outer_shots=outer_shots)
    )
    start = {r: {"layer0.weight": 0.5 * v.view(1, 2), "layer0.bias": 0.5 * v} for r, v in START.items()}
    learner = METHODS["e_maml"].learner(start, config)
    ours = learner.gradients(AllBatches(steps, episodes))
    for role in ROLES:
        problem = AllBatches(steps, episodes)
        leaf = START[role].clone().requires_grad_()
        (expected,) = torch.autograd.grad(exact(problem, {**START, role: leaf}, role, outer_shots), leaf)
        for value in ours[role][0].values():
            assert torch.allclose(value.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_where_shot_0_counts_its_own_loss_alone_is_added():
    start = {r: {"layer0.weight": 0.5 * v.view(1, 2), "layer0.bias": 0.5 * v} for r, v in START.items()}

    def total(method, outer_shots, count):
        """The sum over the shots that count, of which the outer loss is the mean."""
        config = METHODS[method].settings(steps=2, inner_lr=RATE, outer_shots=outer_shots)
        found = METHODS[method].learner(start, config).gradients(AllBatches(2, 1))
        return {role: count * found[role][0]["layer0.bias"] for role in ROLES}

    ours, plain = (
        {role: total(method, "every", 3)[role] - total(method, "all", 2)[role] for role in ROLES}
        for method in ("e_maml", "maml")
    )
    for role in ROLES:
        assert torch.allclose(ours[role], plain[role], rtol=1e-9, atol=1e-12)
        assert plain[role].norm() > 0.01


def test_without_the_term_it_is_another_gradient():
    start = {r: {"layer0.weight": 0.5 * v.view(1, 2), "layer0.bias": 0.5 * v} for r, v in START.items()}
    with_term, without = (
        METHODS[name].learner(start, METHODS[name].settings(steps=1, inner_lr=RATE)).gradients(AllBatches(1, 2))
        for name in ("e_maml", "maml")
    )
    for role in ROLES:
        a, b = with_term[role][0]["layer0.bias"], without[role][0]["layer0.bias"]
        assert (a - b).norm() > 0.1 * a.norm()


def test_costs_are_losses_less_what_the_other_tasks_lost():
    torch.set_default_dtype(torch.float32)
    config = TrainConfig(game="Navigation", method="e_maml", roles=("protagonist",)).override(
        tasks=3, episodes=4, horizon=6, normalise=False, discount=0.9, hidden=(4,)
    )
    source = DuelSource(config)
    problem, learner = source.problem(0), make_learner(config, source)
    unrolled = learner.unrolled(problem)
    data = unrolled.batches[0][1].data["protagonist"]
    losses = -(data.reward * 0.9 ** torch.arange(6.0).view(1, 6, 1)).sum(1).mean(1) / 6
    expected = losses - torch.stack([losses[[1, 2]].mean(), losses[[0, 2]].mean(), losses[[0, 1]].mean()])
    assert torch.allclose(unrolled.costs("protagonist", 1), expected.to(torch.float32), rtol=1e-5)


def test_a_batch_that_lost_more_costs_more_whatever_the_spread_of_its_returns():
    # Per step, episodes of three tasks lose 1 each, with a spread of 0.01; 2 with a spread of 1; 3 with a spread of 0.1.
    torch.set_default_dtype(torch.float32)
    noise = torch.randn(3, 8, 50, generator=torch.Generator().manual_seed(0))
    reward = -torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1) + torch.tensor([0.01, 1.0, 0.1]).view(3, 1, 1) * noise
    data = Trajectories(torch.zeros(3, 8, 50, 1), torch.zeros(3, 8, 50, 1), reward, torch.ones(3, 8, 50))
    costs = LossConfig(discount=1.0).cost(data, 8)
    assert costs[0] < costs[1] < costs[2]
    assert costs[1] - costs[0] == pytest.approx(float(costs[2] - costs[1]), rel=0.2)


@pytest.mark.parametrize("exploration", [0.5, 1.0])
def test_the_weight_scales_the_second_term(exploration):
    torch.set_default_dtype(torch.float32)
    config = TrainConfig(game="Navigation", method="e_maml", roles=("protagonist",)).override(
        tasks=3, episodes=4, horizon=6, hidden=(4,)
    )
    source = DuelSource(config)

    def gradient(weight):
        learner = make_learner(config.override(exploration=weight), source)
        return learner.gradients(source.problem(0))["protagonist"][0]["layer0.bias"]

    whole, part, none = gradient(1.0), gradient(exploration), gradient(1e-9)
    assert (whole - none).norm() > 0.1 * none.norm()
    torch.testing.assert_close(part - none, exploration * (whole - none), rtol=1e-3, atol=1e-6)


def test_a_single_task_has_no_baseline():
    torch.set_default_dtype(torch.float32)
    config = TrainConfig(game="Navigation", method="e_maml", roles=("protagonist",)).override(
        tasks=1, episodes=4, horizon=6, normalise=False, hidden=(4,)
    )
    source = DuelSource(config)
    problem = source.problem(0)
    assert make_learner(config, source).unrolled(problem).costs("protagonist", 1).abs() > 0


def test_what_the_method_needs_is_said_or_chosen():
    config = TrainConfig(game="Navigation", method="e_maml")
    assert config.objective.kind == "plain"
    with pytest.raises(InvalidInputError, match="surrogate='dice': method e_maml needs 'plain'"):
        config.override(surrogate="dice")
    for settings, message in (
        ({"peer": True}, "covers the other's learning already"),
        (
            {"exploration": 0.0},
            "exploration=0.0 must be a finite number above 0; use method maml to have no second term",
        ),
        ({"second_order": False}, "second_order=False: E-MAML differentiates at least 1 update"),
        ({"steps": 0}, "steps=0: E-MAML differentiates at least 1 update"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            config.override(**settings)
