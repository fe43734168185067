"""ProMP: its clipped objective by hand, and several outer steps on the same data."""

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from metaduel.agents.objective.losses import clipped_loss, policy_gradient_loss
from metaduel.agents.policies import distributions
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.adaptation.work import alone
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.learners.promp import ProMP, ProMPConfig
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import initial_weights
from metaduel.meta.runs.source import DuelSource

CONFIG = TrainConfig(game="Navigation").override(tasks=3, episodes=4, horizon=6, steps=2, hidden=(4,), surrogate="lvc")


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(config=None, kind=ProMP):
    """A learner and a batch, in float64."""
    source = DuelSource(CONFIG)
    source.duel.dtype = torch.float64
    weights = initial_weights(source.policies, 0)
    start = {role: {name: value.double() for name, value in own.items()} for role, own in weights.items()}
    return kind(start, config or ProMPConfig(steps=2)), source.problem(0)


def test_the_clipped_objective_by_hand():
    # Two episodes of two steps, ratios 1.5 and 0.5 / 1.2 and (not played) 9, advantages 2, -1 / -4, 7, clip 0.3:
    # min(3, 1.3 * 2) = 2.6; min(-0.5, -0.7) = -0.7; min(-4.8, -4.8) = -4.8. Per step of the horizon and episode:
    # (2.6 - 0.7) / 2 = 0.95 and -4.8 / 2 = -2.4; minus their mean is 0.725.
    ratio = torch.tensor([[[1.5, 1.2], [0.5, 9.0]]])
    advantage, alive = torch.tensor([[[2.0, -4.0], [-1.0, 7.0]]]), torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    log_prob = ratio.log().requires_grad_()
    loss = clipped_loss(log_prob, torch.zeros_like(ratio), advantage, alive, 0.3, horizon=2)
    assert loss.item() == pytest.approx(0.725)
    # Where the clip holds, nothing pulls: d/dlog r = -r A / (2 steps * 2 episodes) at the third alone.
    (gradient,) = torch.autograd.grad(loss.sum(), log_prob)
    assert gradient.flatten().tolist() == pytest.approx([0.0, 1.2 * 4 / 4, 0.0, 0.0])


def test_ratios_of_old_data_weigh_the_surrogate():
    log_prob, old = torch.tensor([[[-1.0]]]), torch.tensor([[[-1.5]]])
    advantage = torch.tensor([[[2.0]]])
    loss = policy_gradient_loss(log_prob, advantage, torch.ones_like(advantage), "lvc", 1, old=old)
    assert loss.item() == pytest.approx(-2 * 2.718281828459045**0.5)
    with pytest.raises(InvalidInputError, match="surrogate='dice': episodes of other weights need"):
        policy_gradient_loss(log_prob, advantage, torch.ones_like(advantage), "dice", 1, old=old)


def test_divergences_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(5, 3, generator=generator) for _ in range(4))
    ours = distributions.Gaussian(a, b).kl(distributions.Gaussian(c, d))
    assert torch.allclose(ours, kl_divergence(Normal(a, b.exp()), Normal(c, d.exp())).sum(-1))
    ours = distributions.Categorical(a.log_softmax(-1)).kl(distributions.Categorical(b.log_softmax(-1)))
    assert torch.allclose(ours, kl_divergence(Categorical(logits=a), Categorical(logits=b)))


def stacked(learner, problem):
    """The start of every player in each of its tasks."""
    return {
        role: {n: v.expand(k, *v.shape) for n, v in learner.start[role].items()} for role, k in problem.tasks.items()
    }


def flat(gradients):
    return torch.cat([value.flatten() for weights, _ in gradients.values() for value in weights.values()])


def test_a_replay_at_the_same_weights_is_the_first_pass():
    # Ratios are 1 and divergences 0 there, at the start and, since the updates are the same, after every update.
    learner, problem = made()
    first, (unrolled,) = alone(learner.maml.outer_gradients(problem))
    again, (replayed,) = alone(learner.maml.outer_gradients(unrolled.replay(0.3)))
    assert torch.allclose(flat(first), flat(again), rtol=1e-9, atol=1e-12)
    assert all(batch.environment_steps > 0 for batch in unrolled.batches[0])
    assert not any(batch.environment_steps for batch in replayed.batches[0])  # nothing was drawn


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_gradient_of_a_replay_equals_finite_differences(steps):
    learner, problem = made(ProMPConfig(steps=steps, kl_penalty=0.5))
    replay, name = learner.maml.unrolled(problem).replay(0.3), "layer1.bias"
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # away from where the data are from, so that ratios and divergences count
        for weights in learner.start.values():
            for value in weights.values():
                value.add_(0.05 * torch.randn(value.shape, generator=generator))
    exact = learner.gradients(replay)
    for role, weights in learner.start.items():
        for i in range(2):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    weights[name][i] += step
                values.append(learner.maml.outer_losses(replay)[role].item())
                with torch.no_grad():
                    weights[name][i] -= step
            # The other's adapted weights are constants of a replay: its data are its own.
            difference = (values[0] - values[1]) / 2e-5
            assert float(exact[role][0][name][i]) == pytest.approx(difference, rel=1e-6, abs=1e-9)


def test_the_penalty_holds_the_players_where_the_data_are_from():
    def moved(penalty):
        learner, problem = made(ProMPConfig(steps=1, outer_steps=8, kl_penalty=penalty, outer_lr=0.02))
        (drawn,) = learner.update(problem).shots[0]
        losses = drawn.replay(0.3).losses(stacked(learner, problem))
        return sum(value.mean().item() for value in losses.divergence.values())

    assert moved(10.0) < 0.5 * moved(0.0)


def test_one_outer_step_is_maml():
    one, problem = made(ProMPConfig(steps=2, outer_steps=1))
    other, same = made(MAMLConfig(steps=2), MAML)
    one.update(problem)
    other.update(same)
    assert all(torch.equal(value, other.state()[name]) for name, value in one.state().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outer_steps": 0}, "outer_steps=0 must be a whole number of at least 1"),
        ({"clip": 1.5}, "clip=1.5 must be between 0 and 1"),
        ({"kl_penalty": -1.0}, "kl_penalty=-1.0 must be at least 0"),
        ({"peer": True}, "peer=True: ProMP uses data several times"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InvalidInputError) as error:
        TrainConfig(game="Navigation").override(method="promp", **settings)
    assert message in str(error.value)


def test_its_settings_are_known_to_it_alone():
    config = TrainConfig(game="Navigation").override(method="promp", clip=0.1, steps=1)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.learner == ProMPConfig(clip=0.1, steps=1)
    assert type(config.override(method="maml").learner) is MAMLConfig
    with pytest.raises(InvalidInputError, match="method maml has no such setting; leave it out, or use method promp"):
        TrainConfig(game="Navigation").override(clip=0.1)


def test_a_replay_needs_the_surrogate_with_ratios():
    source = DuelSource(CONFIG.override(surrogate="dice"))
    source.duel.dtype = torch.float64
    problem = source.problem(0)
    drawn = problem.draw(stacked(made()[0], problem), 0)
    with pytest.raises(InvalidInputError, match="surrogate='dice' must be 'lvc' where data are used more than once"):
        drawn.replay(0.3)


@pytest.mark.parametrize("method", [["maml"], 3, None])
def test_a_method_that_is_no_name_is_refused(method):
    with pytest.raises(InvalidInputError, match="method"):
        TrainConfig.from_dict({"game": "Navigation", "method": method})
