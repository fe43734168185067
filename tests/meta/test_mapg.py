"""Meta-PG, Meta-MAPG and LOLA-DiCE against their declared objectives, and their personas.

In a game of which every trajectory is listed (``benchmarks/tools/enumerated.py``); the declared objective is its closed form,
differentiated by autograd, or by finite differences.
"""

import itertools

import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.tabular import TabularPolicy
from metaduel.benchmarks.tools.enumerated import GAME, TASKS, AllTrajectories, Flow, declared_loss, exact_update
from metaduel.benchmarks.tools.proofs.cases import DISCOUNT, HORIZON, RATE, start
from metaduel.benchmarks.tools.proofs.gradients import relative
from metaduel.benchmarks.tools.proofs.memory import held
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.noise import derive_seed
from metaduel.meta.adaptation.inner import Through, unroll
from metaduel.meta.learners.mapg import MAPGConfig
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.problem import Given, Mixture, Part
from metaduel.meta.runs.config import TrainConfig

ROLES = ("protagonist", "adversary")
AWARE = ("meta_pg", "meta_mapg", "lola_dice")
FLOWS = {"meta_pg": Flow(), "meta_mapg": Flow(peer=True), "lola_dice": Flow(own=False, peer=True)}
PERSONA_RATE = 2.5


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def persona(seed=5):
    return Given({"table": torch.randn(len(TASKS), 5, 2, generator=torch.Generator().manual_seed(seed))}, PERSONA_RATE)


def learner(method, steps, roles=ROLES, **settings):
    config = METHODS[method].configure(MAPGConfig(steps=steps, inner_lr=RATE, **settings))
    return METHODS[method].learner({role: start()[role] for role in roles}, config)


def game(tabular=(), kind="dice"):
    return AllTrajectories(kind, HORIZON, DISCOUNT, tabular=tabular)


def everyone(ours, given):
    """Flat weights and step sizes [K, D] of both, with a graph to the learner's leaves."""
    steps = ours.config.steps
    flats = {role: flat(weights.values()) for role, weights in ours.start.items()}
    sizes = {role: torch.tensor([v.numel() for v in weights.values()]) for role, weights in ours.start.items()}
    rates = {role: ours.inner.log_rates[role].exp().repeat_interleave(sizes[role], 1) for role in flats}
    for role, one in given.items():
        flats[role] = one.weights["table"].flatten(1)
        rates[role] = torch.full((steps, flats[role].shape[1]), one.rate)
    return flats, rates


def exact_gradients(ours, method, role, given):
    flats, rates = everyone(ours, given)
    last = ours.config.outer_shots == "last"
    value = declared_loss(game(tabular=tuple(given)), flats, rates, FLOWS[method], role, last)
    leaves = [*ours.start[role].values(), ours.inner.log_rates[role]]
    return torch.autograd.grad(value, leaves, materialize_grads=True)


def flat(tensors):
    return torch.cat([value.flatten() for value in tensors])


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("method", AWARE)
def test_the_gradient_is_that_of_the_declared_objective(method, steps, recompute):
    ours = learner(method, steps, recompute=recompute)
    found = ours.gradients(game())
    for role in ROLES:
        gradient, of_rates = found[role]
        *expected, expected_of_rates = exact_gradients(ours, method, role, {})
        assert relative(flat(gradient.values()), flat(expected)) < 1e-6
        if method == "lola_dice":
            assert not of_rates.any()  # they are the other's idea of this player
        else:
            assert relative(of_rates, expected_of_rates) < 1e-6


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("method", AWARE)
def test_against_personas_it_is_the_same_with_their_starts_constant(method, steps, recompute, role):
    other = ROLES[1 - ROLES.index(role)]
    ours, given = learner(method, steps, (role,), recompute=recompute), {other: persona()}
    found = ours.gradients(Mixture((Part(game((other,)), given),)))
    assert list(found) == [role]
    *expected, _ = exact_gradients(ours, method, role, given)
    assert relative(flat(found[role][0].values()), flat(expected)) < 1e-6


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", AWARE)
def test_autograd_of_the_closed_form_is_the_slope_of_the_declared_objective(method, role):
    # What the tests above trust: finite differences of the objective itself. Where the peer is a number, its updates are
    # those of the start that is not moved.
    ours, other = learner(method, 2), ROLES[1 - ROLES.index(role)]
    *expected, _ = exact_gradients(ours, method, role, {})
    base, rates = ({r: v.detach() for r, v in values.items()} for values in everyone(ours, {}))
    stacked = {r: v.expand(len(TASKS), -1).requires_grad_() for r, v in base.items()}
    frozen = [stacked]
    for k in range(2):
        frozen.append(exact_update(game(), frozen[-1], {r: rate[k] for r, rate in rates.items()}, Flow(), role))

    def value(shift):
        if method != "meta_pg":
            flats = {**base, role: (base[role] + shift).requires_grad_()}
            return float(declared_loss(game(), flats, rates, FLOWS[method], role, method == "lola_dice").detach())
        own, total = stacked[role].detach() + shift, 0.0
        for k in range(2):
            players = {role: own.detach().requires_grad_(), other: frozen[k][other]}
            own = exact_update(game(), players, {r: rate[k] for r, rate in rates.items()}, Flow(), role)[role]
            players = {role: own, other: frozen[k + 1][other]}
            total += float(game().exact_loss(players, role).mean().detach()) / 2
        return total

    slopes = [(value(1e-5 * e) - value(-1e-5 * e)) / 2e-5 for e in torch.eye(12)]
    assert relative(flat(expected), torch.tensor(slopes)) < 1e-6


def test_the_three_are_three():
    found = [flat(learner(m, 2, outer_shots="last").gradients(game())["adversary"][0].values()) for m in AWARE]
    assert all(relative(a, b) > 0.01 for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize("method", ["meta_mapg", "lola_dice"])
def test_without_the_box_the_peer_term_is_wrong(method):
    ours = learner(method, 1)
    wrong = flat(ours.gradients(game(kind="lvc"))["adversary"][0].values())
    assert relative(wrong, flat(exact_gradients(ours, method, "adversary", {})[:-1])) > 0.01


@pytest.mark.parametrize("method", [*AWARE, "maml", "reptile"])
def test_a_mixture_is_the_mean_over_its_tasks(method):
    config = METHODS[method].configure(METHODS[method].settings(steps=2, inner_lr=RATE))
    ours = METHODS[method].learner(start(), config)
    parts = (
        Part(game()),
        Part(game(("adversary",)), {"adversary": persona(1)}),
        Part(game(("protagonist",)), {"protagonist": persona(2)}),
    )
    together, main = ours.gradients(Mixture(parts)), ours.gradients(parts[0].problem)
    for role, part in zip(ROLES, parts[1:], strict=True):
        alone = ours.gradients(Mixture((part,)))
        assert list(alone) == [role]
        for name, value in together[role][0].items():
            assert torch.allclose(value, (main[role][0][name] + alone[role][0][name]) / 2)


@pytest.mark.parametrize("method", AWARE)
def test_recomputing_keeps_memory_level(method):
    # What a further shot adds: weights and rates alone, and all that was computed.
    few, many = (
        held(learner(method, 5, recompute=again), game()) - held(learner(method, 3, recompute=again), game())
        for again in (True, False)
    )
    assert few < 5_000
    assert many > 50_000


@pytest.mark.parametrize("method", AWARE)
def test_sampled_gradients_are_unbiased(method):
    repeats, episodes, steps = 16, 4000, 2
    role, other = ROLES
    space = GAME.spec.action_spaces[role]
    policies = {role: MLPPolicy(5, space, ()), other: TabularPolicy(5, 5, space)}
    loss = LossConfig("dice", DISCOUNT, DISCOUNT, normalise=False, exact_discount=True)
    matchups = Matchups(TASKS.repeat(repeats, 1), duels=2 * repeats)
    problem = DuelProblem(
        Duel(GAME, HORIZON, dtype=torch.float64), policies, matchups, episodes, derive_seed(2, 7), loss
    )
    ours, given = learner(method, steps, (role,)), {other: persona()}
    rates = {role: ours.rates(role), other: torch.full((steps, 1), PERSONA_RATE)}
    everyone = {role: {n: v.expand(2, *v.shape) for n, v in ours.start[role].items()}, other: given[other].weights}
    many = {r: {n: v.detach().repeat(repeats, *[1] * (v.dim() - 1)) for n, v in w.items()} for r, w in everyone.items()}
    leaves = {r: {n: v.requires_grad_() for n, v in w.items()} for r, w in many.items()}
    peer, moving = "peer" in ours.config.terms, None if "own" in ours.config.terms else (other,)
    history, _ = unroll(problem, leaves, rates, steps, Through(joint=peer, recompute=True), moving)
    parts = torch.autograd.grad(ours.outer_loss(role, history) * repeats, list(leaves[role].values()))
    estimates = torch.cat([part.flatten(1) for part in parts], 1).view(repeats, 2, 12).sum(1)
    expected, error = flat(exact_gradients(ours, method, role, given)[:-1]), estimates.std(0) / repeats**0.5
    assert float(((estimates.mean(0) - expected) / error).abs().max()) < 4
    assert float(error.norm() / expected.norm()) < 0.2  # else it would prove little


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("meta_pg", {"peer": True}, "peer=True: in Meta-PG the peer's learning is constant; use method meta_mapg"),
        ("meta_pg", {"terms": ("peer",)}, "terms=('peer',): meta_pg is ('own',); use method lola_dice"),
        ("lola_dice", {"terms": ("peer", "own")}, "lola_dice is ('peer',); use method meta_mapg"),
        (
            "meta_mapg",
            {"terms": ("own", "own")},
            "terms=('own', 'own') must be one of ('own',), ('own', 'peer'), ('peer',)",
        ),
        ("meta_mapg", {"steps": 0}, "steps=0: meta_mapg needs at least 1 update; use method joint"),
        (
            "meta_pg",
            {"second_order": False},
            "second_order=False: meta_pg is what flows through updates; use method fomaml",
        ),
        ("meta_mapg", {"surrogate": "lvc"}, "surrogate='lvc': method meta_mapg needs 'dice'"),
        ("lola_dice", {"surrogate": "plain"}, "surrogate='plain': method lola_dice needs 'dice'"),
        ("fomaml", {"recompute": True}, "recompute=True needs second_order=True"),
    ],
)
def test_settings_that_contradict_the_method_are_refused(method, settings, message):
    with pytest.raises(InvalidInputError) as error:
        TrainConfig(game="IteratedPrisonersDilemma").override(method=method, **settings)
    assert message in str(error.value)


@pytest.mark.parametrize("method", AWARE)
def test_the_method_names_its_surrogate_where_none_is_named(method):
    config = TrainConfig(game="IteratedPrisonersDilemma").override(method=method)
    assert config.objective.surrogate == "dice"
    assert config.override(method="maml").objective.surrogate == "lvc"
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.configured.recompute is True
    assert (
        config.configured.terms == {"meta_pg": ("own",), "meta_mapg": ("own", "peer"), "lola_dice": ("peer",)}[method]
    )
