"""Meta-gradients through the shipped losses and inner step, against finite differences of their declared objectives.

``metaduel proofs`` compares every method with closed forms that autograd differentiates; here the objective itself is moved
a little to both sides, which trusts nothing but values.
"""

import pytest
import torch

from metaduel.agents.policies.base import stack
from metaduel.benchmarks.tools.enumerated import TASKS, AllTrajectories, Flow, exact_chain
from metaduel.benchmarks.tools.proofs.cases import RATE, Case, start
from metaduel.benchmarks.tools.proofs.gradients import declared, flat, relative, shipped
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.learners.methods import METHODS

ROLES = ("protagonist", "adversary")
OWN, PEER = Case("maml", "dice"), Case("maml", "dice", {"peer": True})


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rates(case, steps):
    """Per role [K, 12], written out: from -0.3 to 0.3 around the rate's logarithm, for each update and tensor (or number)."""
    per = {"meta_sgd": 12}.get(case.method, 2)
    logs = torch.linspace(-0.3, 0.3, steps * per).view(steps, per)
    if per == 2:  # ten weights and two biases
        logs = torch.cat([logs[:, :1].expand(-1, 10), logs[:, 1:].expand(-1, 2)], 1)
    full = RATE * logs.exp()
    if case.method == "anil":
        full[:, :10] = 0.0
    return dict.fromkeys(ROLES, full)


def moved(game, flats, rates):
    """Both players after an exact update, as numbers."""
    after = {}
    for role in ROLES:
        here = {r: f.detach().requires_grad_() for r, f in flats.items()}
        (slope,) = torch.autograd.grad(game.exact_loss(here, role).sum(), here[role])
        after[role] = flats[role] - rates[role] * slope
    return after


def outer_objective(game, flats, me, rates, frozen):
    """Mean over shots and tasks of the exact loss after adaptation; the other's weights are ``frozen``'s if given."""
    other = ROLES[1 - ROLES.index(me)]
    players = {role: value.expand(len(TASKS), -1) for role, value in flats.items()}
    total, steps = 0.0, len(rates[me])
    for k in range(steps + 1):
        if frozen is not None:
            players = {**players, other: frozen[k][other]}
        if k:
            total += float(game.exact_loss(players, me).mean()) / steps
        if k < steps:
            players = moved(game, players, {role: rate[k] for role, rate in rates.items()})
    return total


def finite_differences(function, point, step=1e-5):
    slopes = [(function(point + step * e) - function(point - step * e)) / (2 * step) for e in torch.eye(len(point))]
    return torch.tensor(slopes)


def differences(game, case, steps):
    """Per role, finite differences of the objective that has the case's derivative where second derivatives are exact."""
    flats, sizes = {role: flat(weights) for role, weights in start().items()}, rates(case, steps)
    frozen = None
    if not case.settings.get("peer"):
        frozen = [{role: value.expand(len(TASKS), -1) for role, value in flats.items()}]
        for k in range(steps):
            frozen.append(moved(game, frozen[-1], {role: rate[k] for role, rate in sizes.items()}))
    return {
        role: finite_differences(
            lambda point, role=role: outer_objective(game, {**flats, role: point}, role, sizes, frozen), flats[role]
        )
        for role in ROLES
    }


@pytest.mark.parametrize(("steps", "horizon"), [(1, 2), (2, 2), (3, 2), (1, 3), (2, 3), (3, 3)])
@pytest.mark.parametrize("case", [OWN, PEER], ids=["own", "total"])
def test_second_order_equals_finite_differences_of_its_objective(case, steps, horizon):
    game = AllTrajectories("dice", horizon)
    ours, exact = shipped(case, steps, game=game), differences(game, case, steps)
    for role in ROLES:
        assert relative(ours[role].start, exact[role]) < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("peer", [False, True])
@pytest.mark.parametrize("method", ["anil", "meta_sgd"])
def test_methods_with_rates_of_their_own_equal_finite_differences(method, steps, peer):
    # ANIL with the bias as its head; Meta-SGD with twelve different rates.
    game, case = AllTrajectories("dice", 2), Case(method, "dice", {"peer": peer})
    ours, exact = shipped(case, steps, game=game), differences(game, case, steps)
    for role in ROLES:
        assert relative(ours[role].start, exact[role]) < 1e-6


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradient_of_every_log_rate_equals_finite_differences(steps):
    # The total derivative, since a rate moves both players' data; the updates of both players but for this one's stay.
    game, case = AllTrajectories("dice", 2), Case("meta_sgd", "dice", {"peer": True})
    ours = shipped(case, steps, game=game)["protagonist"].log_rates
    flats, sizes = {role: flat(weights) for role, weights in start().items()}, rates(case, steps)

    def function(logs):
        moved = {**sizes, "protagonist": logs.view(steps, 12).exp()}
        return outer_objective(game, flats, "protagonist", moved, None)

    assert relative(ours.flatten(), finite_differences(function, sizes["protagonist"].log().flatten())) < 1e-6


def test_the_two_declared_objectives_differ():
    own, total = shipped(OWN, 2), shipped(PEER, 2)
    assert all(relative(own[role].start, total[role].start) > 0.01 for role in ROLES)


@pytest.mark.parametrize("case", [OWN, PEER, Case("anil", "dice"), Case("meta_sgd", "dice")])
def test_recomputed_updates_give_the_same_gradients(case):
    again = Case(case.method, "dice", {**case.settings, "recompute": True})
    ours, exact = shipped(again, 3), declared(case, 3)
    for role in ROLES:
        assert relative(ours[role].start, exact[role].start) < 1e-6
        assert relative(ours[role].log_rates, exact[role].log_rates) < 1e-6


@pytest.mark.parametrize("method", ["maml", "fomaml", "anil", "meta_sgd", "e_maml"])
def test_the_last_shot_alone_may_count(method):
    case = Case(method, METHODS[method].surrogates[0], {"outer_shots": "last"})
    every = Case(method, case.surrogate)
    ours, exact, other = shipped(case, 2), declared(case, 2), declared(every, 2)
    for role in ROLES:
        assert relative(ours[role].start, exact[role].start) < 1e-6
        assert relative(ours[role].start, other[role].start) > 0.01


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("surrogate", ["plain", "lvc"])
@pytest.mark.parametrize("peer", [False, True])
def test_biased_surrogates_are_not_the_exact_derivative(surrogate, steps, peer):
    # Else the proofs that they are their own formula would not notice a mix-up.
    ours = shipped(Case("maml", surrogate, {"peer": peer}), steps)
    exact = shipped(PEER if peer else OWN, steps)
    assert all(relative(ours[role].start, exact[role].start) > 0.05 for role in ROLES)


def test_first_derivatives_agree_between_surrogates():
    flats = {role: flat(weights).expand(2, -1).requires_grad_() for role, weights in start().items()}
    for kind in ("plain", "lvc", "dice"):
        game = AllTrajectories(kind, 3, baseline=2.0)
        players = {role: {n: v.requires_grad_() for n, v in stack(start()[role], 2).items()} for role in ROLES}
        losses = game.losses(players, 0).support
        for role in ROLES:
            found = torch.autograd.grad(losses[role].sum(), list(players[role].values()), retain_graph=True)
            ours = torch.cat([found[0].flatten(1), found[1]], 1)
            (exact,) = torch.autograd.grad(game.exact_loss(flats, role).sum(), flats[role])
            assert relative(ours, exact) < 1e-9


def test_probabilities_sum_to_one():
    game = AllTrajectories("dice", 3)
    players = {role: stack(start()[role], 2) for role in ROLES}
    log_prob = sum(game._log_prob(players[role], seat) for seat, role in enumerate(ROLES))
    assert torch.allclose(log_prob.sum(1).exp().sum(1), torch.ones(2))


def test_the_last_rates_gradient_equals_the_chain_rule():
    game = AllTrajectories("dice", 2, discount=1.0)
    learner = MAML(start(), MAMLConfig(steps=2, inner_lr=RATE))
    _, ours = learner.gradients(game)["protagonist"]
    # d L_p(theta_2) / d log a_2 = -a_2 grad L_p(theta_2) . grad L_p(theta_1), on the closed form.
    flats = {role: flat(weights) for role, weights in start().items()}
    fixed = {role: torch.full((2, 12), RATE) for role in ROLES}
    chain = exact_chain(game, flats, fixed, Flow(), "protagonist")
    g1, g2 = (
        torch.autograd.grad(game.exact_loss(at, "protagonist").sum(), at["protagonist"], retain_graph=True)[0]
        for at in chain[1:]
    )
    assert ours.shape == (2, 2)  # a rate per step and per weight tensor
    assert abs(float(ours[1].sum()) - float(-RATE * (g1 * g2).sum(1).mean() / 2)) < 1e-9
