"""Repeated matrix games: golden plays, exact values against hand arithmetic, simulation and finite differences."""

import itertools

import pytest
import torch

from metaduel.envs.core import noise, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import View, make_game
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play
from metaduel.envs.players.scripted import scripted
from metaduel.envs.repeated_matrix_game import ACTIONS, PERSONAS, SPECS
from metaduel.envs.repeated_matrix_game.cases import CASES
from metaduel.envs.repeated_matrix_game.game import PERMUTATIONS, own_payoffs
from metaduel.envs.repeated_matrix_game.opponents import MemoryOne, memory_one_tables
from metaduel.envs.repeated_matrix_game.personas import sample_personas
from metaduel.envs.repeated_matrix_game.values import (
    best_response_value,
    memory_one_values,
    one_shot_exploitability,
    one_shot_security,
)

SPEC = {spec.name: spec for spec in SPECS}
ZERO_SUM = ("RockPaperScissors", "MatchingPennies")
GENERAL_SUM = ("IteratedPrisonersDilemma", "Chicken", "StagHunt")
ROLES = ("protagonist", "adversary")


def payoffs(name, dtype=torch.float64, **task):
    return make_game(SPEC[name]).params([task], dtype).payoffs[0]


def random_tables(rows, n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(rows, 1 + n * n, n, generator=generator, dtype=torch.float64), -1)


# Rules


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.game}-{len(case.task)}")
def test_golden_transitions(case):
    duel = Duel(make_game(SPEC[case.game]))
    n = len(ACTIONS[case.game])
    rows = duel.reset(duel.game.params([case.task], torch.float64), torch.tensor([0]), torch.tensor([0]))
    start = torch.eye(1 + n * n, dtype=torch.float64)[:1]
    assert all(torch.equal(seen, start) for seen in duel.observe(rows))
    for actions, rewards, seen in zip(case.actions, case.rewards, case.seen, strict=True):
        rows, transition = duel.step(rows, (torch.tensor([actions[0]]), torch.tensor([actions[1]])))
        assert transition.reward[0].tolist() == list(rewards)
        assert not transition.terminated.item()
        for role in range(2):
            expected = torch.eye(1 + n * n, dtype=torch.float64)[seen[role]].unsqueeze(0)
            assert torch.equal(duel.observe(rows)[role], expected)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_clock_truncates_and_nothing_terminates(spec):
    duel = Duel(make_game(spec))
    rows = duel.reset(duel.game.params([{}, {}]), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    for step in range(1, spec.horizon + 1):
        rows, transition = duel.step(rows, (torch.tensor([0, 1]), torch.tensor([1, 1])))
        assert transition.truncated.tolist() == [step == spec.horizon] * 2
        assert not transition.terminated.any()


@pytest.mark.parametrize("name", ZERO_SUM)
def test_zero_sum_exactly(name):
    params = make_game(SPEC[name]).params(tasks.generate(SPEC[name], "extrapolation", 500, 3))
    assert torch.equal(params.payoffs.sum(-1), torch.zeros_like(params.payoffs[..., 0]))
    assert SPEC[name].zero_sum


@pytest.mark.parametrize("name", GENERAL_SUM)
def test_symmetric_games_look_the_same_from_both_seats(name):
    params = make_game(SPEC[name]).params(tasks.generate(SPEC[name], "train", 50, 3))
    assert torch.equal(own_payoffs(params, 0), own_payoffs(params, 1))
    assert not SPEC[name].zero_sum


@pytest.mark.parametrize("name", ZERO_SUM)
def test_permutation_renames_the_protagonists_actions_alone(name):
    n = len(ACTIONS[name])
    plain = payoffs(name, **dict(zip(SPEC[name].context_names[:-1], (0.7, 1.9, 1.3), strict=False)))
    for index, sigma in enumerate(PERMUTATIONS[n]):
        task = dict(zip(SPEC[name].context_names[:-1], (0.7, 1.9, 1.3), strict=False), permutation=index)
        permuted = payoffs(name, **task)
        for i, j in itertools.product(range(n), repeat=2):
            assert torch.equal(permuted[i, j], plain[sigma[i], j])
    assert PERMUTATIONS[3] == ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_corner_of_every_range_is_still_the_game(spec):
    game = make_game(spec)
    for split in ("train", "extrapolation"):
        ends = [
            sorted(
                {
                    end
                    for pair in (c.extrapolation if split != "train" and c.extrapolation else (c.train,))
                    for end in pair
                }
            )
            for c in spec.contexts
        ]
        game.params([dict(zip(spec.context_names, corner, strict=True)) for corner in itertools.product(*ends)])


@pytest.mark.parametrize(
    ("name", "task", "rule"),
    [
        ("IteratedPrisonersDilemma", {"temptation": 0.4}, "temptation > reward"),
        ("IteratedPrisonersDilemma", {"temptation": 4.0}, "2 \\* reward > temptation \\+ sucker"),
        ("IteratedPrisonersDilemma", {"punishment": -1.5}, "punishment > sucker"),
        ("Chicken", {"punishment": -0.5}, "sucker > punishment"),
        ("StagHunt", {"temptation": 0.7}, "temptation >= punishment"),
    ],
)
def test_payoffs_that_are_another_game_are_refused(name, task, rule):
    with pytest.raises(InvalidInputError, match=rule) as error:
        make_game(SPEC[name]).params([task])
    assert "\n" not in str(error.value)
    assert f"{next(iter(task))}={next(iter(task.values())):g}" in str(error.value)


@pytest.mark.parametrize(
    ("game", "ours", "task"),
    [
        ("matrix_rps", "RockPaperScissors", {}),
        ("matrix_mp", "MatchingPennies", {}),
        ("matrix_cd", "Chicken", {"reward": 3.0, "sucker": 1.0, "temptation": 4.0, "punishment": 0.0}),
        ("matrix_sh", "StagHunt", {"reward": 2.0, "sucker": 0.0, "temptation": 1.0, "punishment": 1.0}),
    ],
)
def test_payoffs_equal_openspiels(game, ours, task):
    pyspiel = pytest.importorskip("pyspiel")
    theirs = pyspiel.load_matrix_game(game)
    table = payoffs(ours, **task)
    n = table.shape[0]
    # OpenSpiel's chicken lists daring first, and its actions are named; everything else is in our order.
    order = [theirs.row_action_name(i) for i in range(n)]
    flip = order[0] == "Dare"
    for i, j in itertools.product(range(n), repeat=2):
        a, b = (n - 1 - i, n - 1 - j) if flip else (i, j)
        assert table[i, j].tolist() == [theirs.player_utility(player, a, b) for player in range(2)]


# Exact values


def test_values_of_constant_policies_by_hand():
    table = memory_one_tables("IteratedPrisonersDilemma")
    c, d, points = table["always_cooperate"], table["always_defect"], payoffs("IteratedPrisonersDilemma")
    # Constant rewards: r / (1 - 0.96) = 25 r.
    for first, second, expected in ((c, c, (12.5, 12.5)), (c, d, (-37.5, 37.5)), (d, c, (37.5, -37.5))):
        assert torch.allclose(memory_one_values(first, second, points, 0.96), torch.tensor(expected).double())
    assert torch.allclose(memory_one_values(d, d, points, 0.96, normalised=True), torch.tensor([-0.5, -0.5]).double())
    # Three steps at discount 0.5: 1 + 0.5 + 0.25 = 1.75; undiscounted 3; per step it is the reward itself.
    expected = torch.tensor([1.5, -1.5]).double()
    assert torch.allclose(memory_one_values(d, c, points, 0.5, horizon=3), 1.75 * expected)
    assert torch.allclose(memory_one_values(d, c, points, 1.0, horizon=3), 3 * expected)
    assert torch.allclose(memory_one_values(d, c, points, 0.5, horizon=3, normalised=True), expected)
    assert torch.allclose(memory_one_values(d, c, points, 1.0, horizon=7, normalised=True), expected)


def test_tit_for_tat_against_each_by_hand():
    table = memory_one_tables("IteratedPrisonersDilemma")
    points, g = payoffs("IteratedPrisonersDilemma"), 0.9
    expected = {
        # (C, C) for ever: 0.5 / 0.1.
        "always_cooperate": (5.0, 5.0),
        "tit_for_tat": (5.0, 5.0),
        "pavlov": (5.0, 5.0),
        "grim": (5.0, 5.0),
        # (C, D), then (D, D) for ever: -1.5 - 0.5 * 9 and 1.5 - 0.5 * 9.
        "always_defect": (-6.0, -3.0),
        # CDCD... against C, then the copy DCDC... one step late: (C,C), (C,D), (D,C), (C,D), (D,C), ...:
        # 0.5 + 0.9 * (-1.5 + 1.5 * 0.9) / (1 - 0.81) and the negative of the second term.
        "alternate": (0.5 + g * (-1.5 + 1.5 * g) / (1 - g * g), 0.5 - g * (-1.5 + 1.5 * g) / (1 - g * g)),
        # First C against either: (0.5 - 1.5) / 2 and (0.5 + 1.5) / 2; then two independent coins, 0 on average.
        "random": (-0.5, 1.0),
    }
    for name, value in expected.items():
        exact = memory_one_values(table["tit_for_tat"], table[name], points, g)
        assert torch.allclose(exact, torch.tensor(value).double()), name
        swapped = memory_one_values(table[name], table["tit_for_tat"], points, g)
        assert torch.allclose(swapped, exact.flip(-1)), name


def test_naive_starts_against_published_personas():
    """Reward per step before learning, recomputed from Meta-MAPG's 40 test personas: 0.97, 0.47 and 0.24 against
    cooperative ones, -0.02 and -0.30 against defecting ones. The recipe's expectation is within what 40 draws allow.
    """
    table, points = memory_one_tables("IteratedPrisonersDilemma"), payoffs("IteratedPrisonersDilemma")
    for kind, name, published, first in (
        # P(cooperate) is 0.75 on average in each state: 0.75 * 1.5 - 0.25 * 0.5 = 1 for defecting once, and half of that
        # and of 0.75 * 0.5 - 0.25 * 1.5 = 0 for a coin. Against defecting personas 0.25 in place of 0.75: 0 and -1.
        ("cooperative", "always_defect", 0.97, 1.0),
        ("cooperative", "random", 0.47, 0.5),
        ("cooperative", "tit_for_tat", 0.24, 0.0),
        ("defecting", "always_defect", -0.02, 0.0),
        ("defecting", "tit_for_tat", -0.30, -1.0),
    ):
        personas = sample_personas("IteratedPrisonersDilemma", 4000, 1, kind)
        values = memory_one_values(table[name], personas, points, 0.96, normalised=True)[:, 0]
        assert abs(values.mean() - published) < 3 * values.std() / 40**0.5
        once = memory_one_values(table[name], personas, points, 0.96, horizon=1)[:, 0]
        assert abs(once.mean() - first) < 4 * once.std() / 4000**0.5


@pytest.mark.parametrize("name", ["RockPaperScissors", "Chicken"])
def test_values_equal_long_simulation(name):
    spec, rows, discount = SPEC[name], 4000, 0.9
    n = len(ACTIONS[name])
    tables = [random_tables(rows, n, seed) for seed in (1, 2)]
    game_tasks = tasks.generate(spec, "train", rows, 5)
    duel = Duel(make_game(spec), horizon=150)
    params = duel.game.params(game_tasks, torch.float64)
    episode = duel.reset(params, torch.arange(rows), torch.zeros(rows, dtype=torch.int64))
    players = [MemoryOne(table) for table in tables]
    total = torch.zeros(rows, 2, dtype=torch.float64)
    for step in range(duel.horizon):  # 0.9 ** 150 = 1e-7
        actions = []
        for seat, seen in enumerate(duel.observe(episode)):
            u = noise.uniform(episode.key, episode.step, noise.SEAT[seat], 1, torch.float64)
            view = View(params, episode.state, seen, episode.step)
            actions.append(players[seat].act(view, torch.zeros(rows, 0), u)[0])
        episode, transition = duel.step(episode, tuple(actions))
        total = total + discount**step * transition.reward
        if step == 4:
            short = memory_one_values(*tables, params.payoffs, discount, horizon=5)
            z = (total - short).mean(0) / (total - short).std(0) * rows**0.5
            assert z.abs().max() < 4
    gap = total - memory_one_values(*tables, params.payoffs, discount)
    assert (gap.mean(0) / gap.std(0) * rows**0.5).abs().max() < 4
    # A wrong point of view for the adversary would show at this precision.
    swapped = tables[1][:, [0, *(1 + j * n + i for i in range(n) for j in range(n))]]
    wrong = total - memory_one_values(tables[0], swapped, params.payoffs, discount)
    assert (wrong.std(0) > gap.std(0)).all()


def test_finite_horizon_reaches_the_infinite_one():
    first, second = random_tables(6, 3, 0).view(2, 3, 10, 3), random_tables(3, 3, 1)
    points = payoffs("RockPaperScissors", rock=2.0, permutation=4)
    infinite = memory_one_values(first, second, points, 0.9)
    assert infinite.shape == (2, 3, 2)
    assert torch.allclose(memory_one_values(first, second, points, 0.9, horizon=300), infinite)
    one = memory_one_values(first, second, points, 0.9, horizon=1)
    by_hand = torch.einsum("abi,bj,ijk->abk", first[..., 0, :], second[..., 0, :], points)
    assert torch.allclose(one, by_hand)


@pytest.mark.parametrize("horizon", [None, 4])
def test_gradients_equal_finite_differences(horizon):
    logits = [torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    points = payoffs("IteratedPrisonersDilemma")
    inputs = tuple(x.clone().requires_grad_() for x in (*logits, points, torch.tensor(0.8, dtype=torch.float64)))

    def value(first, second, table, discount):
        return memory_one_values(first.softmax(-1), second.softmax(-1), table, discount, horizon)

    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_best_response_against_known_policies():
    table, points = memory_one_tables("IteratedPrisonersDilemma"), payoffs("IteratedPrisonersDilemma")
    own = points[..., 0]
    # Defect for ever against an unconditional player; cooperate with tit-for-tat and grim at discount 0.9 (0.5 / 0.1 = 5 beats
    # 1.5 - 0.5 * 9 = -3), but cheat tit-for-tat when the future counts little: at 0.1, 0.5 / 0.9 < 1.5 - 0.05 / 0.9.
    for name, discount, expected in (
        ("always_cooperate", 0.9, 15.0),
        ("always_defect", 0.9, -5.0),
        ("random", 0.9, 5.0),
        ("tit_for_tat", 0.9, 5.0),
        ("grim", 0.9, 5.0),
        ("tit_for_tat", 0.1, 1.5 - 0.05 / 0.9),
    ):
        assert best_response_value(table[name], own, discount).item() == pytest.approx(expected), (name, discount)
    # The last step is free: three steps against tit-for-tat, C C D: 0.5 + 0.5 + 1.5.
    assert best_response_value(table["tit_for_tat"], own, 1.0, horizon=3).item() == pytest.approx(2.5)


@pytest.mark.parametrize("horizon", [None, 3])
def test_best_response_is_the_best_of_all_deterministic_policies(horizon):
    points = payoffs("MatchingPennies", heads=1.7, tails=0.6, permutation=1)
    deterministic = torch.eye(2, dtype=torch.float64)[torch.tensor(list(itertools.product((0, 1), repeat=5)))]
    for opponent in random_tables(5, 2, 4):
        against = memory_one_values(deterministic, opponent, points, 0.9, horizon)[:, 0].max()
        best = best_response_value(opponent, points[..., 0], 0.9, horizon)
        # With a horizon the best reply may also depend on the clock.
        assert best >= against - 1e-9
        if horizon is None:
            assert best.item() == pytest.approx(against.item())
        mine = memory_one_values(opponent, deterministic, points, 0.9, horizon)[:, 1].max()
        assert best_response_value(opponent, points[..., 1].t(), 0.9, horizon) >= mine - 1e-9


def test_best_response_is_differentiable_in_the_opponent():
    points = payoffs("RockPaperScissors", rock=1.5)[..., 1].t()
    logits = torch.randn(2, 10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: best_response_value(x.softmax(-1), points, 0.9), (logits,))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"discount": 1.0}, "discount=1 must be"),
        ({"discount": float("nan")}, "discount=nan must be"),
        ({"discount": 1.1, "horizon": 3}, "discount=1.1 must be"),
        ({"horizon": 0}, "horizon=0 must be"),
        ({"adversary": torch.ones(5, 3)}, r"adversary of shape \(5, 3\) must be \[..., 5, 2\]"),
        ({"payoffs": torch.ones(2, 2)}, r"payoffs of shape \(2, 2\)"),
    ],
)
def test_values_refuse_bad_input(change, match):
    table = memory_one_tables("Chicken")["random"]
    good = {"protagonist": table, "adversary": table, "payoffs": payoffs("Chicken"), "discount": 0.9, "horizon": None}
    with pytest.raises(InvalidInputError, match=match):
        memory_one_values(**(good | change))


# One-shot facts


def test_exploitability_of_uniform_and_of_pure_rock():
    matrix = payoffs("RockPaperScissors")[..., 0]
    uniform, rock = torch.full((3,), 1 / 3).double(), torch.tensor([1.0, 0, 0]).double()
    assert one_shot_exploitability(uniform, uniform, matrix).item() == pytest.approx(0, abs=1e-12)
    assert one_shot_exploitability(rock, rock, matrix).item() == 1
    assert one_shot_exploitability(rock, uniform, matrix).item() == pytest.approx(0.5)
    assert one_shot_security(rock, matrix).item() == -1


@pytest.mark.parametrize("name", ZERO_SUM)
def test_equilibria_are_unexploitable_and_differ_between_tasks(name):
    params = make_game(SPEC[name]).params(tasks.generate(SPEC[name], "train", 200, 9), torch.float64)
    pair, matrix = params.equilibrium, params.payoffs[..., 0]
    assert torch.allclose(pair.sum(-1), torch.ones(200, 2, dtype=torch.float64))
    assert one_shot_exploitability(pair[:, 0], pair[:, 1], matrix).abs().max() < 1e-12
    value = one_shot_security(pair[:, 0], matrix)
    if name == "RockPaperScissors":
        assert value.abs().max() < 1e-12
    else:
        assert torch.allclose(value, (params.heads * params.tails - 1) / (params.heads + params.tails + 2))
    # Not knowing the task costs something: uniform play is exploitable by 0.1 and more on average.
    n = matrix.shape[1]
    uniform = torch.full((200, n), 1 / n, dtype=torch.float64)
    assert (value - one_shot_security(uniform, matrix)).mean() > 0.1
    assert pair.std(0).min() > 0.05


@pytest.mark.parametrize("name", GENERAL_SUM)
def test_pure_equilibria_of_the_general_sum_games(name):
    expected = {"IteratedPrisonersDilemma": {(1, 1)}, "Chicken": {(0, 1), (1, 0)}, "StagHunt": {(0, 0), (1, 1)}}
    for split in ("train", "extrapolation"):
        for task in tasks.generate(SPEC[name], split, 50, 2):
            table = payoffs(name, **task)
            stable = {
                (i, j)
                for i, j in itertools.product((0, 1), repeat=2)
                if table[i, j, 0] > table[1 - i, j, 0] and table[i, j, 1] > table[i, 1 - j, 1]
            }
            assert stable == expected[name]


def test_which_stag_hunt_equilibrium_is_safer_differs_between_tasks():
    params = make_game(SPEC["StagHunt"]).params(tasks.generate(SPEC["StagHunt"], "train", 200, 2))
    stag_safer = params.reward - params.temptation > params.punishment - params.sucker
    assert 0.15 < stag_safer.double().mean() < 0.85


# Players


def actions_against(name, role, opponent, sequence, task=None):
    """Play ``opponent`` in ``role`` against fixed actions and return what it chose."""
    duel = Duel(make_game(SPEC[name]))
    player, seat = load_player(duel, role, opponent), ROLES.index(role)
    rows = duel.reset(duel.game.params([task or {}]), torch.tensor([3]), torch.tensor([0]))
    memory, chosen = torch.zeros(1, player.memory), []
    for other in sequence:
        u = noise.uniform(rows.key, rows.step, noise.SEAT[seat], player.noise)
        action, memory = player.act(View(rows.params, rows.state, duel.observe(rows)[seat], rows.step), memory, u)
        chosen.append(int(action))
        pair = (action, torch.tensor([other])) if seat == 0 else (torch.tensor([other]), action)
        rows, _ = duel.step(rows, pair)
    return chosen


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("game", "name", "task", "other", "expected"),
    [
        ("IteratedPrisonersDilemma", "tit_for_tat", {}, [1, 0, 1, 1, 0], [0, 1, 0, 1, 1]),
        ("IteratedPrisonersDilemma", "tit_for_two_tats", {}, [1, 0, 1, 1, 0], [0, 0, 0, 0, 1]),
        ("IteratedPrisonersDilemma", "grim", {}, [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]),
        ("IteratedPrisonersDilemma", "pavlov", {}, [0, 1, 0, 1, 1], [0, 0, 1, 1, 0]),
        ("IteratedPrisonersDilemma", "alternate", {}, [0, 1, 0, 1], [0, 1, 0, 1]),
        ("StagHunt", "always_hare", {}, [0, 1, 0], [1, 1, 1]),
        ("Chicken", "always_swerve", {}, [0, 1, 0], [0, 0, 0]),
        ("RockPaperScissors", "cycle", {}, [0, 0, 0, 0], [0, 1, 2, 0]),
    ],
)
def test_deterministic_players(role, game, name, task, other, expected):
    assert actions_against(game, role, name, other, task) == expected


@pytest.mark.parametrize("role", ROLES)
def test_players_that_start_at_random(role):
    other = [0, 1, 2, 1]
    assert actions_against("RockPaperScissors", role, "copy_last", other)[1:] == [0, 1, 2]
    assert actions_against("RockPaperScissors", role, "beat_last", other)[1:] == [1, 2, 0]
    # Counts after each step: 1 0 0, 1 1 0, 1 2 0, 1 3 0 with worths 1, 1.5, 1: paper 1.5; then paper 1.5, scissors 0;
    # then paper 1.5, rock -3, scissors 2 - 1 = 1; then scissors 3 - 1 = 2 against 1.5.
    task = {"paper": 1.5}
    chosen = actions_against("RockPaperScissors", role, "fictitious_play", [0, 1, 1, 1, 0], task)
    assert chosen[1:] == [1, 1, 1, 2]


def test_players_know_the_permutation():
    # The protagonist's rock counts as paper (120): to beat rock it plays rock; its rock is beaten by scissors.
    task = {"permutation": 3}
    assert actions_against("RockPaperScissors", "protagonist", "beat_last", [0, 1, 2, 0], task)[1:] == [0, 1, 2]
    assert actions_against("RockPaperScissors", "adversary", "beat_last", [0, 1, 2, 0], task)[1:] == [2, 0, 1]
    chosen = actions_against("RockPaperScissors", "protagonist", "win_stay_lose_shift", [0, 1, 2, 0, 1] * 3, task)
    for now, other, after in zip(chosen, [0, 1, 2, 0, 1] * 3, chosen[1:], strict=False):
        assert after == (now if now == other else (now + 1) % 3)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_tables_and_players_agree(spec):
    """Played returns of each pair of fixed memory-1 players equal their exact finite-horizon values."""
    rows = 64
    duel = Duel(make_game(spec), horizon=12)
    params = duel.game.params(tasks.generate(spec, "train", rows, 8), torch.float64)
    tables = memory_one_tables(spec)
    seed, episode = torch.arange(rows), torch.zeros(rows, dtype=torch.int64)
    for a, b in itertools.product(tables, repeat=2):
        players = (load_player(duel, "protagonist", a), load_player(duel, "adversary", b))
        played = play(duel, players, params, seed, episode).returns
        exact = memory_one_values(tables[a], tables[b], params.payoffs, 1.0, horizon=12)
        random = not {a, b}.isdisjoint({"random", "copy_last"})
        error = played - exact
        if random:
            assert (error.mean(0).abs() < 4.5 * error.std(0) / rows**0.5 + 1e-9).all(), (a, b)
        else:
            assert error.abs().max() < 1e-9, (a, b)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_opponent_plays_and_the_splits_really_differ(spec):
    rows = 40
    duel = Duel(make_game(spec), horizon=12)
    params = duel.game.params(tasks.generate(spec, "train", rows, 8))
    seed, episode = torch.arange(rows), torch.zeros(rows, dtype=torch.int64)
    probe = MemoryOne(random_tables(1, len(ACTIONS[spec.name]), 0)[0])
    for seat, role in enumerate(ROLES):
        players = scripted(spec, role)
        listed = spec.opponents[role]
        assert set(players) == {*listed["train"], *listed["held_out"]}
        assert all(len(listed[split]) >= 3 for split in listed)
        assert all(players[name].split == split for split in listed for name in listed[split])
        returns = {}
        for name, player in players.items():
            pair = (player, probe) if seat == 0 else (probe, player)
            returns[name] = tuple(play(duel, pair, params, seed, episode).returns.flatten().tolist())
        assert len(set(returns.values())) == len(players)


# Personas


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_personas_lie_in_their_published_ranges(spec):
    n = len(ACTIONS[spec.name])
    for favourite, kind in enumerate(PERSONAS[spec.name]):
        tables = sample_personas(spec, 2000, 7, kind)
        assert tables.shape == (2000, 1 + n * n, n)
        assert torch.allclose(tables.sum(-1), torch.ones_like(tables[..., 0]))
        liked = tables[..., favourite]
        assert liked.min() >= 1 / n
        assert liked.max() <= 1
        # Uniform: mean (1 / n + 1) / 2 in every state, and independent between states.
        assert ((liked.mean(0) - (1 / n + 1) / 2).abs() < 5 * (1 - 1 / n) / 12**0.5 / 2000**0.5).all()
        assert liked.T.corrcoef().fill_diagonal_(0).abs().max() < 0.12
        rest = torch.cat([tables[..., :favourite], tables[..., favourite + 1 :]], -1)
        assert torch.allclose(rest, rest[..., :1].expand_as(rest))


def test_personas_are_reproducible():
    few, many = (sample_personas("RockPaperScissors", n, 3, "paper") for n in (4, 9))
    assert torch.equal(few, many[:4])
    assert not torch.equal(few, sample_personas("RockPaperScissors", 4, 4, "paper"))
    other_kind = sample_personas("RockPaperScissors", 4, 3, "rock")
    assert not torch.allclose(few[..., 1], other_kind[..., 0])
    assert sample_personas("Chicken", 1, 0, "daring", torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("Chicken", 2, 0, "defecting"), "unknown kind of persona of Chicken 'defecting'"),
        (("Navigation", 2, 0, "rock"), "unknown repeated matrix game 'Navigation'"),
        (("Chicken", 0, 0, "daring"), "n=0 must be"),
    ],
)
def test_personas_refuse_bad_input(arguments, match):
    with pytest.raises(InvalidInputError, match=match):
        sample_personas(*arguments)


@pytest.mark.parametrize("role", ROLES)
def test_persona_opponents_keep_one_table_for_the_episode(role):
    """Against always-rock a persona visits few states, in each of which it must keep its probability: the frequency of
    its favourite varies between rows by more than one shared probability would allow, and its mean is 2/3.
    """
    rows = 400
    duel = Duel(make_game(SPEC["RockPaperScissors"]), horizon=40)
    params = duel.game.params([{}] * rows)
    seat = ROLES.index(role)
    player, rock = load_player(duel, role, "paper_persona"), load_player(duel, ROLES[1 - seat], "always_rock")
    seed, episode = torch.arange(rows), torch.zeros(rows, dtype=torch.int64)
    pair = (player, rock) if seat == 0 else (rock, player)
    returns = play(duel, pair, params, seed, episode).returns[:, seat] / 40
    # Per step: favourite (+1) with mean 2/3, scissors (-1) with 1/6, rock 0 with 1/6; states are visited in proportion to
    # where play stays, so the mean is only near 0.5. Without persistence its spread would be 0.76 / sqrt(40) = 0.12.
    assert 0.4 < returns.mean() < 0.75
    assert returns.std() > 0.15


# Picture


def test_the_picture_lights_up_the_cell_just_played():
    pytest.importorskip("pygame")
    from metaduel.envs.render.screen import Screen

    spec = SPEC["IteratedPrisonersDilemma"]
    duel = Duel(make_game(spec))
    rows = duel.reset(duel.game.params([{}]), torch.tensor([0]), torch.tensor([0]))
    states, screen = [rows.state], Screen(spec, "rgb_array")
    frames = [screen.frame(rows.params, states, (0.0, 0.0))]
    for pair in ((1, 0), (1, 1)):
        rows, _ = duel.step(rows, (torch.tensor([pair[0]]), torch.tensor([pair[1]])))
        states.append(rows.state)
        frames.append(screen.frame(rows.params, states, (0.0, 0.0)))
    screen.close()
    lit = [(frame == [0xFF, 0xF0, 0xB8]).all(-1) for frame in frames]
    assert not lit[0].any()
    columns = [mask.nonzero()[1] for mask in lit[1:]]
    # Defecting is the lower row in both; the adversary's cooperation is the left column, its defection the right one.
    assert columns[0].max() < columns[1].min()
    assert lit[1].nonzero()[0].min() == lit[2].nonzero()[0].min()
