"""Meta-gradients through the shipped losses and inner step, against closed forms and finite differences.

A short repeated game is enumerated: every trajectory is an episode of one batch, weighted by its probability, so that the
'estimate' is its own expectation and no luck is involved.
"""

import itertools

import pytest
import torch
from torch.func import hessian, jacrev

from metaduel.agents.losses import policy_gradient_loss
from metaduel.agents.policies import MLPPolicy, stack
from metaduel.agents.returns import gae
from metaduel.envs.core import Duel
from metaduel.envs.noise import derive_seed
from metaduel.envs.registry import find
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.duels import DuelProblem, LossConfig, Matches
from metaduel.meta.inner import unroll
from metaduel.meta.maml import MAML, MAMLConfig
from metaduel.meta.methods import METHODS
from metaduel.meta.problem import Losses

ROLES = ("protagonist", "adversary")
RATE = 1.5
TASKS = torch.tensor([[0.5, -1.5, 1.5, -0.5], [0.4, -1.3, 1.7, -0.6]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Enumerated:
    """Every trajectory of the iterated prisoner's dilemma over a short horizon, as one weighted batch per task."""

    def __init__(self, kind, horizon, discount=1.0, baseline=0.0):
        self.kind, self.horizon, self.discount, self.baseline = kind, horizon, discount, baseline
        self.duel = Duel(find("IteratedPrisonersDilemma").make_game(), horizon)
        self.policy = MLPPolicy(5, self.duel.action_space("protagonist"), hidden=())
        joint = list(itertools.product(range(4), repeat=horizon))
        self.actions = torch.tensor(joint).T  # [T, E] joint action: 2 * own + other
        self.episodes = len(joint)
        self.tasks = dict.fromkeys(ROLES, len(TASKS))
        self.data = self._play()

    def _play(self):
        n, e = len(TASKS), self.episodes
        params = self.duel.game.params_from_rows(TASKS.repeat_interleave(e, 0), torch.float64)
        zeros = torch.zeros(n * e, dtype=torch.int64)
        rows = self.duel.reset(params, zeros, zeros)
        observations, rewards = ([], []), ([], [])
        for joint in self.actions.repeat(1, n):
            for seat, observation in enumerate(self.duel.observe(rows)):
                observations[seat].append(observation.view(n, e, -1))
            rows, transition = self.duel.step(rows, (joint // 2, joint % 2))
            for seat in (0, 1):
                rewards[seat].append(transition.reward[:, seat].view(n, e))
        return [(torch.stack(o, 1).double(), torch.stack(r, 1)) for o, r in zip(observations, rewards, strict=True)]

    def log_prob(self, weights, seat):
        observation, reward = self.data[seat]
        n, t, e = reward.shape
        action = (self.actions // 2 if seat == 0 else self.actions % 2).expand(n, t, e)
        return self.policy(weights, observation.view(n, t * e, -1)).log_prob(action.reshape(n, t * e)).view(n, t, e)

    def losses(self, players, shot, joint=False):
        log_probs = [self.log_prob(players[role], seat) for seat, role in enumerate(ROLES)]
        both = log_probs[0] + log_probs[1]
        probability = both.detach().sum(1).exp()
        assert torch.allclose(probability.sum(1), torch.ones(len(TASKS)))
        result = {}
        for seat, role in enumerate(ROLES):
            observation, reward = self.data[seat]
            alive = torch.ones_like(reward)
            # Any function of the state is a baseline that leaves every expectation as it is.
            value = self.baseline * observation @ torch.tensor([0.3, -0.2, 0.7, 0.1, -0.5])
            advantage = gae(reward, value, alive, self.discount)
            advantage = advantage * self.discount ** torch.arange(self.horizon).view(1, -1, 1)
            log_prob = both if joint else log_probs[seat]
            result[role] = policy_gradient_loss(log_prob, advantage, alive, self.kind, probability)
        return Losses(result, result)

    def objective(self, theta, phi, seat):
        """Loss [N] by the closed form: minus the exact return per step. ``theta``, ``phi``: [N, 12] flat weights."""
        game = self.duel.game
        payoffs = game.params_from_rows(TASKS, torch.float64).payoffs
        tables = [torch.softmax(flat[..., :10].view(-1, 5, 2) + flat[..., None, 10:], -1) for flat in (theta, phi)]
        return -memory_one_values(*tables, payoffs, self.discount, self.horizon)[:, seat] / self.horizon


def start(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        role: {
            "layer0.weight": torch.randn(5, 2, generator=generator),
            "layer0.bias": torch.randn(2, generator=generator),
        }
        for role in ROLES
    }


def flatten(weights):
    return torch.cat([weights["layer0.weight"].flatten(), weights["layer0.bias"]])


def shipped(problem, steps, **settings):
    config = MAMLConfig(steps=steps, inner_lr=RATE, **settings)
    learner = MAML(start(3), config)
    return {role: flatten(gradient) for role, (gradient, _) in learner.gradients(problem).items()}


def rows(flat):
    return flat.expand(len(TASKS), -1)


def exact_gradient(problem, theta, phi, seat):
    own = (theta, phi)[seat].detach().requires_grad_()
    pair = (own, phi) if seat == 0 else (theta, own)
    return torch.autograd.grad(problem.objective(*pair, seat).sum(), own)[0]


def exact_chain(problem, theta, phi, steps, rate=RATE):
    """Adapted weights at shots 0..K by the closed form's gradients; ``rate``: a number or [12]."""
    chain = [(theta, phi)]
    for _ in range(steps):
        g = [exact_gradient(problem, theta, phi, seat) for seat in (0, 1)]
        theta, phi = theta - rate * g[0], phi - rate * g[1]
        chain.append((theta, phi))
    return chain


def outer_objective(problem, flats, seat, steps, frozen, rate=RATE):
    """Mean over shots and tasks of the exact loss after adaptation; the peer's weights are ``frozen``'s if given."""
    theta, phi = rows(flats[0]), rows(flats[1])
    total = 0.0
    for k in range(steps + 1):
        if frozen is not None:
            theta, phi = (theta, frozen[k][1]) if seat == 0 else (frozen[k][0], phi)
        if k:
            total = total + problem.objective(theta, phi, seat).mean() / steps
        g = [exact_gradient(problem, theta, phi, s) for s in (0, 1)]
        theta, phi = theta - rate * g[0], phi - rate * g[1]
    return float(total)


def finite_differences(function, point, step=1e-5):
    result = torch.zeros_like(point)
    for i in range(len(point)):
        shift = torch.zeros_like(point)
        shift[i] = step
        result[i] = (function(point + shift) - function(point - shift)) / (2 * step)
    return result


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("horizon", [2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("peer", [False, True])
def test_second_order_equals_finite_differences_of_its_objective(horizon, steps, peer):
    problem = Enumerated("dice", horizon, discount=0.9, baseline=1.0)
    gradients = shipped(problem, steps, peer=peer)
    flats = [flatten(start(3)[role]) for role in ROLES]
    frozen = None if peer else exact_chain(problem, rows(flats[0]), rows(flats[1]), steps)
    for seat, role in enumerate(ROLES):

        def function(point, seat=seat):
            pair = (point, flats[1]) if seat == 0 else (flats[0], point)
            return outer_objective(problem, pair, seat, steps, frozen)

        assert relative(gradients[role], finite_differences(function, flats[seat])) < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("peer", [False, True])
@pytest.mark.parametrize("method", ["anil", "meta_sgd"])
def test_methods_with_rates_of_their_own_equal_finite_differences(method, steps, peer):
    # ANIL with the bias as its head; Meta-SGD with twelve different rates. Both with the gradient of the log rates.
    problem = Enumerated("dice", 2, discount=0.9, baseline=1.0)
    config = METHODS[method].configure(MAMLConfig(steps=steps, inner_lr=RATE, peer=peer))
    learner = METHODS[method].learner(start(3), config, dict.fromkeys(ROLES, ("layer0.bias",)))
    rate = torch.cat([torch.zeros(10), torch.full((2,), RATE)])
    if method == "meta_sgd":
        rate = torch.linspace(0.5, 2.0, 12)
        for leaf in learner.log_rates.values():
            leaf.data.copy_(rate.log().expand(steps, 12))
    flats = [flatten(start(3)[role]) for role in ROLES]
    frozen = None if peer else exact_chain(problem, rows(flats[0]), rows(flats[1]), steps, rate)
    gradients = learner.gradients(problem)
    for seat, role in enumerate(ROLES):

        def function(point, seat=seat):
            pair = (point, flats[1]) if seat == 0 else (flats[0], point)
            return outer_objective(problem, pair, seat, steps, frozen, rate)

        assert relative(flatten(gradients[role][0]), finite_differences(function, flats[seat])) < 1e-6


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradient_of_every_log_rate_equals_finite_differences(steps):
    # The total derivative, since a rate moves both players' data; all updates share a rate in the objective, so theirs add up.
    problem = Enumerated("dice", 2)
    learner = MAML(start(3), METHODS["meta_sgd"].configure(MAMLConfig(steps=steps, inner_lr=RATE, peer=True)))
    flats = [flatten(start(3)[role]) for role in ROLES]
    own = learner.gradients(problem)["protagonist"][1].sum(0)

    def function(log_rate):
        theta, phi, total = rows(flats[0]), rows(flats[1]), 0.0
        for _ in range(steps):
            g = [exact_gradient(problem, theta, phi, s) for s in (0, 1)]
            theta, phi = theta - log_rate.exp() * g[0], phi - RATE * g[1]
            total += float(problem.objective(theta, phi, 0).mean()) / steps
        return total

    assert relative(own, finite_differences(function, torch.full((12,), RATE).log())) < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_reptile_is_the_mean_difference_to_the_exactly_adapted_weights(steps):
    problem = Enumerated("dice", 3)
    config = METHODS["reptile"].configure(MAMLConfig(steps=steps, inner_lr=RATE))
    gradients = METHODS["reptile"].learner(start(3), config).gradients(problem)
    flats = [flatten(start(3)[role]) for role in ROLES]
    adapted = exact_chain(problem, rows(flats[0]), rows(flats[1]), steps)[-1]
    for seat, role in enumerate(ROLES):
        assert relative(flatten(gradients[role][0]), flats[seat] - adapted[seat].mean(0)) < 1e-9


def test_the_two_declared_objectives_differ():
    problem = Enumerated("dice", 3)
    own, total = shipped(problem, 2), shipped(problem, 2, peer=True)
    assert all(relative(own[role], total[role]) > 0.01 for role in ROLES)


def own_hessian(problem, kind, theta, phi, seat):
    """Second derivative [N, 12, 12] that a surrogate stands for, written out from per-step score functions."""
    own = (theta, phi)[seat]
    other = (phi, theta)[seat]
    result = []
    observation, reward = problem.data[seat]
    action = problem.actions // 2 if seat == 0 else problem.actions % 2
    answer = problem.actions % 2 if seat == 0 else problem.actions // 2
    for n in range(len(TASKS)):

        def log_prob(flat, n=n, obs=observation, act=action):
            logits = obs[n] @ flat[:10].view(5, 2) + flat[10:]
            return torch.log_softmax(logits, -1).gather(-1, act.unsqueeze(-1)).squeeze(-1)  # [T, E]

        p_own = log_prob(own[n]).sum(0).exp()
        p_other = log_prob(other[n], n, problem.data[1 - seat][0], answer).sum(0).exp()
        to_go = reward[n].flip(0).cumsum(0).flip(0)  # discount 1
        score, curve = jacrev(log_prob)(own[n]), hessian(log_prob)(own[n])
        h = torch.einsum("e,te,teij->ij", p_own * p_other, to_go, curve)
        if kind == "lvc":
            h = h + torch.einsum("e,te,tei,tej->ij", p_own * p_other, to_go, score, score)
        result.append(-h / problem.horizon)
    return torch.stack(result)


def by_formula(problem, steps, seat, hessians):
    """Back-propagation through the updates by hand: v <- grad L(theta_k) / K + (I - a H_k) v."""
    flats = [flatten(start(3)[role]) for role in ROLES]
    chain = exact_chain(problem, rows(flats[0]), rows(flats[1]), steps)
    v = exact_gradient(problem, *chain[steps], seat) / steps
    for k in range(steps - 1, -1, -1):
        if hessians is not None:
            v = v - RATE * torch.einsum("nij,nj->ni", hessians(*chain[k], seat), v)
        if k:
            v = v + exact_gradient(problem, *chain[k], seat) / steps
    return v.mean(0)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("method", ["fomaml", "lvc", "plain"])
def test_biased_methods_equal_their_own_formula(steps, method):
    problem = Enumerated("dice" if method == "fomaml" else method, 3)
    gradients = shipped(problem, steps, second_order=method != "fomaml")
    unbiased = shipped(Enumerated("dice", 3), steps)
    for seat, role in enumerate(ROLES):
        formula = None if method == "fomaml" else lambda t, p, s: own_hessian(problem, method, t, p, s)
        assert relative(gradients[role], by_formula(problem, steps, seat, formula)) < 1e-6
        assert relative(gradients[role], unbiased[role]) > 1e-3  # biased indeed: the test would notice a mix-up


def test_first_derivatives_agree_between_surrogates():
    flats = [flatten(start(3)[role]) for role in ROLES]
    for kind in ("plain", "lvc", "dice"):
        problem = Enumerated(kind, 3, baseline=2.0)
        players = {role: {n: v.requires_grad_() for n, v in stack(start(3)[role], 2).items()} for role in ROLES}
        losses = problem.losses(players, 0).support
        for seat, role in enumerate(ROLES):
            flat = torch.autograd.grad(losses[role].sum(), list(players[role].values()), retain_graph=True)
            ours = torch.cat([flat[0].flatten(1), flat[1]], 1)
            assert relative(ours, exact_gradient(problem, rows(flats[0]), rows(flats[1]), seat)) < 1e-9


def test_the_last_rates_gradient_equals_the_chain_rule():
    problem = Enumerated("dice", 2)
    learner = MAML(start(3), MAMLConfig(steps=2, inner_lr=RATE))
    _, ours = learner.gradients(problem)["protagonist"]
    # d L_p(theta_2) / d log a_2 = -a_2 grad L_p(theta_2) . grad L_p(theta_1), on the closed form.
    flats = [flatten(start(3)[role]) for role in ROLES]
    chain = exact_chain(problem, rows(flats[0]), rows(flats[1]), 2)
    g1, g2 = (exact_gradient(problem, *chain[k], 0) for k in (1, 2))
    assert ours.shape == (2, 2)  # a rate per step and per weight tensor
    assert abs(float(ours[1].sum()) - float(-RATE * (g1 * g2).sum(1).mean() / 2)) < 1e-9


@pytest.mark.parametrize("steps", [1, 2])
def test_sampled_dice_is_unbiased_with_large_batches(steps):
    problem = Enumerated("dice", 3)
    repeats, episodes = 16, 12_500
    task = TASKS[:1].expand(repeats, -1)
    policies = dict.fromkeys(ROLES, problem.policy)
    loss = LossConfig("dice", discount=1.0, normalise=False)
    sampled = DuelProblem(problem.duel, policies, Matches(task, duels=repeats), episodes, derive_seed(1, steps), loss)
    leaves = {
        role: {name: value.clone().requires_grad_() for name, value in stack(start(3)[role], repeats).items()}
        for role in ROLES
    }
    rates = {role: torch.full((steps,), RATE) for role in ROLES}
    history = unroll(sampled, leaves, rates, steps, second_order=True)
    flats = [flatten(start(3)[role]) for role in ROLES]
    frozen = exact_chain(problem, rows(flats[0]), rows(flats[1]), steps)
    for seat, role in enumerate(ROLES):
        outer = torch.stack([losses.query[role] for losses in history[1:]]).mean(0).sum()
        parts = torch.autograd.grad(outer, list(leaves[role].values()), retain_graph=True)
        estimates = torch.cat([parts[0].flatten(1), parts[1]], 1)  # [repeats, 12]

        def function(point, seat=seat):
            pair = (point, flats[1]) if seat == 0 else (flats[0], point)
            return _first_task(problem, pair, seat, steps, frozen)

        exact = finite_differences(function, flats[seat])
        error = estimates.std(0) / repeats**0.5
        assert ((estimates.mean(0) - exact).abs() / error).max() < 4


def _first_task(problem, flats, seat, steps, frozen):
    theta, phi, total = rows(flats[0]), rows(flats[1]), 0.0
    for k in range(steps + 1):
        theta, phi = (theta, frozen[k][1]) if seat == 0 else (frozen[k][0], phi)
        if k:
            total += float(problem.objective(theta, phi, seat)[0]) / steps
        g = [exact_gradient(problem, theta, phi, s) for s in (0, 1)]
        theta, phi = theta - RATE * g[0], phi - RATE * g[1]
    return total
