"""Meta-PG, Meta-MAPG and LOLA-DiCE against what they declare to differentiate, and the personas they meet.

Every trajectory of a short iterated prisoner's dilemma is an episode of one batch, weighted by its probability, so that the
estimate through the shipped losses and inner step is its own expectation. The declared objective is built from the closed form
of memory-1 values and differentiated by autograd, or by finite differences.
"""

import itertools
import weakref

import pytest
import torch

from metaduel.agents.losses import policy_gradient_loss
from metaduel.agents.policies import MLPPolicy, stack
from metaduel.agents.tabular import TabularPolicy
from metaduel.envs.core import Duel
from metaduel.envs.errors import InvalidInputError
from metaduel.envs.noise import derive_seed
from metaduel.envs.registry import find
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.config import TrainConfig
from metaduel.meta.duels import DuelProblem, LossConfig, Matches
from metaduel.meta.inner import unroll
from metaduel.meta.mapg import MAPGConfig
from metaduel.meta.methods import METHODS
from metaduel.meta.problem import Given, Losses, Mixture, Part

ROLES = ("protagonist", "adversary")
AWARE = ("meta_pg", "meta_mapg", "lola_dice")
HORIZON, DISCOUNT, RATE, PERSONA_RATE = 3, 0.9, 1.5, 2.5
GAME = find("IteratedPrisonersDilemma").make_game()
TASKS = torch.tensor([[0.5, -1.5, 1.5, -0.5], [0.4, -1.3, 1.7, -0.6]], dtype=torch.float64)
PAYOFFS = GAME.params_from_rows(TASKS, torch.float64).payoffs


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


TERMS = {"meta_pg": Flow(), "meta_mapg": Flow(peer=True), "lola_dice": Flow(own=False, peer=True)}


def start(seed=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layer0.weight": (5, 2), "layer0.bias": (2,)}
    return {role: {n: torch.randn(*shape, generator=generator) for n, shape in shapes.items()} for role in ROLES}


def persona(seed=5):
    return Given({"table": torch.randn(len(TASKS), 5, 2, generator=torch.Generator().manual_seed(seed))}, PERSONA_RATE)


def learner(method, steps, roles=ROLES, **settings):
    config = METHODS[method].configure(MAPGConfig(steps=steps, inner_lr=RATE, **settings))
    return METHODS[method].learner({role: start()[role] for role in roles}, config)


def everyone(ours, given):
    """Stacked players and rates [K, P], to differentiate the declared objective with respect to the learner's leaves."""
    steps = ours.config.steps
    players = {role: stack(weights, len(TASKS)) for role, weights in ours.start.items()}
    rates = {role: ours.rates(role) for role in players}
    for role, one in given.items():
        players[role] = {n: v.clone().requires_grad_() for n, v in one.weights.items()}
        rates[role] = torch.full((steps, 1), one.rate)
    return players, rates


def exact_gradients(ours, role, given):
    players, rates = everyone(ours, given)
    value = declared(players, rates, ours.config.steps, ours.config.terms, role)
    leaves = [*ours.start[role].values(), ours.log_rates[role]]
    return torch.autograd.grad(value, leaves, materialize_grads=True)


def flat(tensors):
    return torch.cat([value.flatten() for value in tensors])


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("method", AWARE)
def test_the_gradient_is_that_of_the_declared_objective(method, steps, recompute):
    ours = learner(method, steps, recompute=recompute)
    found = ours.gradients(Enumerated())
    for role in ROLES:
        gradient, of_rates = found[role]
        *expected, expected_of_rates = exact_gradients(ours, role, {})
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
    found = ours.gradients(Mixture([Part(Enumerated(tabular=(other,)), given)]))
    assert list(found) == [role]
    *expected, _ = exact_gradients(ours, role, given)
    assert relative(flat(found[role][0].values()), flat(expected)) < 1e-6


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", AWARE)
def test_autograd_of_the_closed_form_is_the_slope_of_the_declared_objective(method, role):
    # What the tests above trust: finite differences of the objective itself. Where the peer is a number, its updates are
    # those of the start that is not moved.
    ours = learner(method, 2)
    *expected, _ = exact_gradients(ours, role, {})
    base, rates = everyone(ours, {})
    terms, other = ours.config.terms, ROLES[1 - ROLES.index(role)]
    frozen = [base]
    for k in range(2):
        frozen.append(step(frozen[-1], {r: rate[k] for r, rate in rates.items()}, ("own", "peer"), role))

    def value(shift):
        players = dict(base)
        w, b = (start()[role][n] for n in ("layer0.weight", "layer0.bias"))
        moved = {"layer0.weight": w + shift[:10].view(5, 2), "layer0.bias": b + shift[10:]}
        players[role] = stack({n: v.requires_grad_() for n, v in moved.items()}, len(TASKS))
        if "peer" in terms:
            return float(declared(players, rates, 2, terms, role).detach())
        total = 0.0
        for k in range(2):
            players = {**players, other: frozen[k][other]}
            own = step(players, {r: rate[k] for r, rate in rates.items()}, ("own", "peer"), role)[role]
            players = {role: own, other: frozen[k + 1][other]}
            total += float(exact(players, role).mean().detach()) / 2
        return total

    slopes = [(value(1e-5 * e) - value(-1e-5 * e)) / 2e-5 for e in torch.eye(12)]
    assert relative(flat(expected), torch.tensor(slopes)) < 1e-6


def test_the_three_are_three():
    found = [flat(learner(m, 2, outer_shots="last").gradients(Enumerated())["adversary"][0].values()) for m in AWARE]
    assert all(relative(a, b) > 0.01 for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize("method", ["meta_mapg", "lola_dice"])
def test_without_the_box_the_peer_term_is_wrong(method):
    ours = learner(method, 1)
    wrong = flat(ours.gradients(Enumerated(kind="lvc"))["adversary"][0].values())
    assert relative(wrong, flat(exact_gradients(ours, "adversary", {})[:-1])) > 0.01


@pytest.mark.parametrize("method", [*AWARE, "maml", "reptile"])
def test_a_mixture_is_the_mean_over_its_tasks(method):
    config = METHODS[method].configure(METHODS[method].settings(steps=2, inner_lr=RATE))
    ours = METHODS[method].learner(start(), config)
    parts = [
        Part(Enumerated()),
        Part(Enumerated(("adversary",)), {"adversary": persona(1)}),
        Part(Enumerated(("protagonist",)), {"protagonist": persona(2)}),
    ]
    together, main = ours.gradients(Mixture(parts)), ours.gradients(parts[0].problem)
    for role, part in zip(ROLES, parts[1:], strict=True):
        alone = ours.gradients(Mixture([part]))
        assert list(alone) == [role]
        for name, value in together[role][0].items():
            assert torch.allclose(value, (main[role][0][name] + alone[role][0][name]) / 2)


@pytest.mark.parametrize("method", AWARE)
def test_recomputing_keeps_memory_level(method):
    def kept(steps, recompute):
        alive = weakref.WeakSet()
        ours = learner(method, steps, recompute=recompute)

        class Kept:
            def __init__(self, tensor):
                self.tensor = tensor.detach()  # with its graph it would hold itself
                alive.add(self)

        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            losses = ours.outer_losses(Enumerated())
        assert len(losses) == 2
        return sum(kept.tensor.numel() for kept in alive)

    # What a further shot adds: weights and rates alone, and all that was computed.
    few, many = (kept(5, recompute) - kept(3, recompute) for recompute in (True, False))
    assert few < 1000
    assert many > 20_000


@pytest.mark.parametrize("method", AWARE)
def test_sampled_gradients_are_unbiased(method):
    repeats, episodes, steps = 16, 4000, 2
    role, other = ROLES
    space = GAME.spec.action_spaces[role]
    policies = {role: MLPPolicy(5, space, ()), other: TabularPolicy(5, 5, space)}
    loss = LossConfig("dice", DISCOUNT, DISCOUNT, normalise=False, exact_discount=True)
    matches = Matches(TASKS.repeat(repeats, 1), duels=2 * repeats)
    problem = DuelProblem(Duel(GAME, HORIZON), policies, matches, episodes, derive_seed(2, 7), loss)
    ours, given = learner(method, steps, (role,)), {other: persona()}
    players, rates = everyone(ours, given)
    many = {r: {n: v.detach().repeat(repeats, *[1] * (v.dim() - 1)) for n, v in w.items()} for r, w in players.items()}
    leaves = {r: {n: v.requires_grad_() for n, v in w.items()} for r, w in many.items()}
    peer, moving = "peer" in ours.config.terms, None if "own" in ours.config.terms else (other,)
    history = unroll(problem, leaves, rates, steps, True, peer, moving, recompute=True)
    parts = torch.autograd.grad(ours.outer_loss(role, history) * repeats, list(leaves[role].values()))
    estimates = torch.cat([part.flatten(1) for part in parts], 1).view(repeats, 2, 12).sum(1)
    expected, error = flat(exact_gradients(ours, role, given)[:-1]), estimates.std(0) / repeats**0.5
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
