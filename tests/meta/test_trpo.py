"""MAML with a TRPO outer step: its curvature against double autograd, its linear solver, and its trust region."""

import math

import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.losses import policy_gradient_loss
from metaduel.agents.policies import distributions
from metaduel.agents.trajectories import Trajectories
from metaduel.benchmarks.tools.enumerated import AllTrajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.adaptation.inner import Through, adapt_step, unroll
from metaduel.meta.learners.trpo import TRPO, TRPOConfig, conjugate_gradients
from metaduel.meta.problems.played import Drawn, Replay, copies
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import initial_weights
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner

ROLES = ("protagonist", "adversary")
CONFIG = TrainConfig(game="Navigation").override(
    method="maml_trpo", tasks=3, episodes=4, horizon=6, steps=2, hidden=(4,), initial_log_std=-0.3
)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(config=CONFIG, **settings):
    """A learner and a problem, in float64."""
    config = config.override(**settings)
    source = DuelSource(config)
    source.duel.dtype = torch.float64
    start = {
        role: {name: value.double() for name, value in own.items()}
        for role, own in initial_weights(source.policies, 0).items()
    }
    heads = {role: policy.head_names for role, policy in source.policies.items()}
    return TRPO(start, config.configured, heads), source.problem(0)


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


def relative(a, b):
    return float((a - b).norm() / b.norm())


def hessian(function, leaves):
    """[D, D] by differentiating twice."""
    gradient = flat(torch.autograd.grad(function, leaves, create_graph=True))
    return torch.stack([flat(torch.autograd.grad(g, leaves, retain_graph=True)) for g in gradient])


def matrix(product, size):
    return torch.stack([product(row) for row in torch.eye(size)])


def mean_divergence(learner, role, replay):
    """With its graph to the start, through the updates."""
    players = {role: {n: v.expand(replay.tasks[role], *v.shape) for n, v in learner.start[role].items()}}
    rates = {role: learner.rates(role).detach()}
    history, _ = unroll(replay, players, rates, learner.config.steps, Through(learner.config.second_order))
    counted = history[1:] if learner.config.outer_shots == "all" and learner.config.steps else history[-1:]
    return torch.stack([losses.divergence[role].mean() for losses in counted]).mean()


def moved(learner, role, by):
    """The player's start, moved by a flat step."""
    parts = by.split([value.numel() for value in learner.start[role].values()])
    return {n: v.detach() + p.view_as(v) for (n, v), p in zip(learner.start[role].items(), parts, strict=True)}


class Enumerated(DuelSource):
    """Every joint trajectory of a short iterated prisoner's dilemma once per task, as both players' trajectories."""

    def __init__(self, horizon):
        super().__init__(TrainConfig(game="IteratedPrisonersDilemma").override(horizon=horizon, hidden=(), tasks=2))

    def data(self):
        game = AllTrajectories(horizon=self.config.horizon)
        return {
            role: Trajectories(
                game.seen[seat], game.actions[seat].expand(reward.shape), reward, torch.ones_like(reward)
            )
            for seat, (role, reward) in enumerate(zip(ROLES, game.got, strict=True))
        }


def enumerated(steps, **settings):
    """A learner, and a replay of all trajectories under the players that each update would make."""
    source, generator = Enumerated(2), torch.Generator().manual_seed(3)
    shapes = initial_weights(source.policies, 0)
    start = {r: {n: torch.randn(v.shape, generator=generator) for n, v in w.items()} for r, w in shapes.items()}
    learner = TRPO(start, TRPOConfig(steps=steps, inner_lr=1.5, curvature_share=1.0, **settings))
    data, loss = source.data(), LossConfig(discount=1.0, normalise=False, inner_baseline=False)
    players = {role: {n: v.expand(2, *v.shape) for n, v in weights.items()} for role, weights in learner.start.items()}
    batches = []
    for shot in range(steps + 1):
        drawn = Drawn(source.policies, dict.fromkeys(ROLES, loss), copies(players), data, 0, horizon=2)
        batches.append(drawn.replay(None))
        if shot < steps:
            losses = batches[shot].losses(players)
            rates = {role: learner.rates(role)[shot] for role in ROLES}
            players = adapt_step(players, losses.support, rates, create_graph=False)
    return learner, Replay(batches, dict.fromkeys(ROLES, 2))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("outer_shots", ["all", "last"])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_curvature_is_the_hessian_of_the_divergence_on_an_enumerated_game(steps, outer_shots, role, double):
    learner, replay = enumerated(steps, outer_shots=outer_shots)
    leaves = list(learner.start[role].values())
    divergence = mean_divergence(learner, role, replay)
    assert abs(divergence.item()) < 1e-14
    exact = hessian(divergence, leaves)
    ours = matrix(learner.curvature(role, replay), len(exact))
    assert exact.norm() > 0.05
    assert relative(ours, exact) < 1e-9


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("steps", "settings"),
    [(0, {})] + [(k, s) for k in (1, 2) for s in ({}, {"adapts": "head"}, {"second_order": False})],
)
def test_the_curvature_is_the_hessian_on_sampled_episodes(steps, settings, role, double):
    # Gaussian actions, hidden layers, scripted opponents beside the learned one.
    learner, problem = made(steps=steps, **settings)
    replay = _played(learner, problem)
    exact = hessian(mean_divergence(learner, role, replay), list(learner.start[role].values()))
    ours = matrix(learner.curvature(role, replay), len(exact))
    assert relative(ours, exact) < 1e-9
    if not settings.get("second_order", True):  # the updates were constants: that is another matrix
        other, _ = made(steps=steps)
        assert relative(matrix(other.curvature(role, replay), len(exact)), exact) > 1e-3


@pytest.mark.parametrize("role", ROLES)
def test_the_curvature_is_that_of_the_measured_divergence(role, double):
    # KL(s d) = s^2 / 2 d F d + O(s^3): the sum at s and -s has no cubic term.
    learner, problem = made(steps=2)
    replay = _played(learner, problem)
    product = learner.curvature(role, replay)
    size = sum(value.numel() for value in learner.start[role].values())
    for seed in range(3):
        d = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        both = sum(learner.measure(role, replay, moved(learner, role, s * d))[1] for s in (1e-4, -1e-4))
        assert both / 1e-8 == pytest.approx(float(d @ product(d)), rel=1e-5)


def test_coordinates_are_those_of_the_divergence(double):
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(5, 3, generator=generator) for _ in range(4))
    for make in (
        lambda s: distributions.Gaussian(a + s * c, b + s * d),
        lambda s: distributions.Categorical((a + s * c).log_softmax(-1)),
    ):
        around = make(0.0)
        both = sum(around.kl(make(s)) for s in (1e-4, -1e-4))
        gaps = [make(s).coordinates(around) - around.coordinates(around) for s in (1e-4, -1e-4)]
        assert torch.allclose(both, sum(0.5 * (gap * gap).sum(-1) for gap in gaps), rtol=1e-5, atol=0)
        assert both.min() > 1e-10


def test_conjugate_gradients_by_hand():
    # A = [[4, 1], [1, 3]], b = (1, 2): x = (1, 7) / 11. First step: b b / b A b = 5 / 20, so x = (1 / 4, 1 / 2).
    a, b = torch.tensor([[4.0, 1.0], [1.0, 3.0]]), torch.tensor([1.0, 2.0])
    assert conjugate_gradients(a.mv, b, 1).tolist() == pytest.approx([0.25, 0.5])
    assert conjugate_gradients(a.mv, b, 2).tolist() == pytest.approx([1 / 11, 7 / 11])
    assert conjugate_gradients(a.mv, b, 9).tolist() == pytest.approx([1 / 11, 7 / 11])  # it stops by itself
    assert conjugate_gradients(a.mv, torch.zeros(2), 9).tolist() == [0.0, 0.0]
    # diag(2, 0), b = (1, 1): b b / b A b = 1 leaves the residual (-1, 1), and the next direction (-1, 1) + (1, 1) = (0, 2)
    # has no curvature: it stops at (1, 1).
    assert conjugate_gradients(torch.diag(torch.tensor([2.0, 0.0])).mv, torch.ones(2), 9).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("role", ROLES)
def test_conjugate_gradients_solve_for_the_natural_gradient(role, double):
    learner, problem = made(steps=2)
    gradient = flat(list(learner.gradients(problem)[role][0].values()))
    product = learner.curvature(role, _played(learner, problem))
    x = conjugate_gradients(lambda v: product(v) + 1e-3 * v, gradient, 4 * len(gradient), tolerance=1e-22)
    dense = matrix(product, len(gradient)) + 1e-3 * torch.eye(len(gradient))
    assert relative(x, torch.linalg.solve(dense, gradient)) < 1e-6
    assert relative(dense @ x, gradient) < 1e-9


@pytest.mark.parametrize("role", ROLES)
def test_the_step_to_the_border_has_the_divergence_that_is_allowed(role, double):
    # For a bound so small that the divergence is quadratic; without damping, which the border takes in.
    learner, problem = made(steps=2, max_kl=1e-11, damping=0.0, curvature_share=1.0)
    gradient = flat(list(learner.gradients(problem)[role][0].values()))
    replay = _played(learner, problem)
    border = learner._border(role, replay, gradient)
    before, _ = learner.measure(role, replay, learner.start[role])
    loss, kl = learner.measure(role, replay, moved(learner, role, -border))
    assert kl == pytest.approx(1e-11, rel=1e-2)
    assert loss < before
    assert float(border @ gradient) > 0


def test_every_step_keeps_within_the_bound_and_does_not_worsen_the_surrogate():
    # A small game of both players, in the precision of training. Rates are fixed, so that all that moves is the start.
    config = CONFIG.override(
        game="Pursuit",
        tasks=6,
        episodes=4,
        horizon=20,
        learn_inner_lr=False,
        inner_lr=1.0,
        max_kl=0.02,
        curvature_share=0.5,
    )
    source = DuelSource(config)
    learner, taken, fractions = make_learner(config, source), [], []
    for iteration in range(40):
        problem = source.problem(iteration)
        before = {role: {n: v.detach().clone() for n, v in w.items()} for role, w in learner.start.items()}
        update = learner.update(problem)
        metrics = update.metrics
        replay = Replay([drawn.replay(None) for (drawn,) in update.shots], problem.tasks)
        for role in ROLES:
            kl = mean_divergence(learner, role, replay).item()
            improvement = (
                learner.measure(role, replay, before[role])[0] - learner.measure(role, replay, learner.start[role])[0]
            )
            assert kl <= 0.02 * (1 + 1e-4)
            assert improvement >= -1e-6
            assert metrics[f"{role}/kl"] == pytest.approx(kl, rel=1e-3, abs=1e-6)
            assert metrics[f"{role}/improvement"] == pytest.approx(improvement, rel=1e-2, abs=1e-6)
            fractions.append(metrics[f"{role}/step_fraction"])
            taken.append(kl)
    assert sum(fraction > 0 for fraction in fractions) > 0.9 * len(fractions)
    assert len(set(fractions)) > 2  # the search had something to do
    assert max(taken) > 0.01


def test_a_step_that_is_too_long_is_shortened_and_one_uphill_is_not_taken(double, monkeypatch):
    learner, problem = made(curvature_share=1.0, line_search_steps=60, damping=1e-2)
    border = TRPO._border
    monkeypatch.setattr(TRPO, "_border", lambda *a: 100 * border(*a))
    metrics = learner.update(problem).metrics
    for role in ROLES:
        assert 0 < metrics[f"{role}/step_fraction"] < 0.02
        assert 0.5 * 0.01 < metrics[f"{role}/kl"] <= 0.01
        assert metrics[f"{role}/improvement"] > 0
    learner, problem = made(learn_inner_lr=False, damping=1e-2, max_kl=1e-5)
    before = {name: value.clone() for name, value in learner.state().items()}
    monkeypatch.setattr(TRPO, "_border", lambda *a: -border(*a))
    metrics = learner.update(problem).metrics
    assert all(metrics[f"{role}/step_fraction"] == metrics[f"{role}/kl"] == 0 for role in ROLES)
    assert all(torch.equal(value, before[name]) for name, value in learner.state().items())


def test_a_player_without_a_gradient_stays_where_it_is(double):
    learner, problem = made()
    step = learner._border("protagonist", _played(learner, problem), torch.zeros(sum(_sizes(learner))))
    assert not step.any()


def _played(learner, problem):
    return learner.maml.unrolled(problem).replay(None)


def _sizes(learner):
    return [value.numel() for value in learner.start["protagonist"].values()]


def test_a_curvature_that_is_not_finite_changes_nothing(double, monkeypatch):
    learner, problem = made()
    monkeypatch.setattr(
        TRPO, "curvature", lambda self, role, replay: lambda v: v * (1.0 if role == ROLES[0] else math.nan)
    )
    before = {name: value.clone() for name, value in learner.state().items()}
    with pytest.raises(FloatingPointError, match="the adversary's curvature is not finite"):
        learner.update(problem)
    assert all(torch.equal(value, before[name]) for name, value in learner.state().items())


def test_step_sizes_are_learned_beside_it():
    source = DuelSource(CONFIG)
    for learn in (True, False):
        learner = make_learner(CONFIG.override(learn_inner_lr=learn), source)
        before = learner.inner.log_rates["protagonist"].clone()
        learner.update(source.problem(0))
        assert torch.equal(before, learner.inner.log_rates["protagonist"]) != learn


def test_a_replay_without_a_clip_weighs_the_query_by_the_ratio_alone(double):
    learner, problem = made(steps=1)
    unrolled = learner.maml.unrolled(problem)
    replay, clipped = unrolled.replay(None), unrolled.replay(0.1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in learner.start.values():
            for value in weights.values():
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
    players = {r: {n: v.expand(k, *v.shape) for n, v in learner.start[r].items()} for r, k in problem.tasks.items()}
    ours, other = (one.draw(players, 0).losses(players) for one in (replay, clipped))
    for role in ROLES:
        assert torch.allclose(ours.query[role], ours.support[role])  # the same discount and baseline here
        assert not torch.allclose(ours.query[role], other.query[role])


def test_a_share_is_the_first_episodes_with_the_advantages_of_all(double):
    learner, problem = made(steps=1)
    unrolled = learner.maml.unrolled(problem)
    part, drawn = unrolled.replay(None, 0.5), unrolled.batches[0][0]
    players, data = drawn.players, drawn.data
    for role in ROLES:
        one = data[role]
        first = Trajectories(*(field[:, :, :2].contiguous() for field in one[:4]))
        advantage = problem.objectives[role].query_advantages(one)[:, :, :2]
        own = {name: value.clone().requires_grad_() for name, value in players[role].items()}
        policy = problem.policies[role]
        log_prob = policy(own, first.observation.flatten(1, 2)).log_prob(first.action.flatten(1, 2)).view_as(advantage)
        by_hand = policy_gradient_loss(log_prob, advantage, first.alive, "lvc", problem.duel.horizon)
        found = part.draw({role: own}, 0).losses({role: own}).query[role]
        assert torch.allclose(found, by_hand)
        a, b = (torch.autograd.grad(loss.sum(), list(own.values()), retain_graph=True) for loss in (found, by_hand))
        assert torch.allclose(flat(a), flat(b))
    assert drawn.replay(None, 0.1).kept[role].query.shape[2] == 1  # at least one


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peer": True}, "peer=True: each player has a trust region of its own; use method maml"),
        ({"surrogate": "dice"}, "surrogate='dice': method maml_trpo needs 'lvc'"),
        ({"max_kl": 0.0}, "max_kl=0.0 must be above 0"),
        ({"cg_iterations": 0}, "cg_iterations=0 must be a whole number of at least 1"),
        ({"line_search_steps": 0}, "line_search_steps=0 must be a whole number of at least 1"),
        ({"damping": -1.0}, "damping=-1.0 must be at least 0"),
        ({"backtrack": 1.0}, "backtrack=1.0 must be between 0 and 1"),
        ({"curvature_share": 0.0}, "curvature_share=0.0 must be above 0 and at most 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InvalidInputError) as error:
        TrainConfig(game="Navigation").override(method="maml_trpo", **settings)
    assert message in str(error.value)


def test_a_share_that_is_none_is_refused(double):
    learner, problem = made()
    unrolled = learner.maml.unrolled(problem)
    with pytest.raises(InvalidInputError, match="share=0 must be above 0 and at most 1"):
        unrolled.replay(None, 0)


def test_a_trust_region_is_refused_where_the_method_has_none():
    message = "max_kl=0.1: method reptile has no such setting; leave it out, or use method maml_trpo"
    with pytest.raises(InvalidInputError, match=message):
        TrainConfig(game="Pursuit").override(method="reptile", max_kl=0.1)
    with pytest.raises(InvalidInputError, match=message):
        TrainConfig(game="Pursuit", method="reptile", learner=TRPOConfig(max_kl=0.1))
