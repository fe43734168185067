"""Poker against arithmetic, a second implementation, published values and OpenSpiel, and its headroom for adaptation."""

import functools
import itertools

import numpy as np
import pytest
import torch

from metaduel.agents.policies.base import stack
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import generate
from metaduel.envs.core.trees import take_rows
from metaduel.envs.players.play import play, steps
from metaduel.envs.players.scripted import scripted
from metaduel.envs.poker.cases import (
    CASES,
    KUHN_INFORMATION_STATES,
    KUHN_TASK,
    KUHN_UNIFORM_EXPLOITABILITY,
    KUHN_VALUE,
    LEDUC_INFORMATION_STATES,
    LEDUC_TASK,
    LEDUC_UNIFORM_EXPLOITABILITY,
    LEDUC_VALUE,
)
from metaduel.envs.poker.game import State
from metaduel.envs.poker.opponents import copies_of, equity, tables
from metaduel.envs.poker.values import Hand, kuhn_equilibrium, network_table, situations, stored_equilibria
from metaduel.envs.poker.viewer import moves, stakes

SPECS = {name: find(name) for name in ("KuhnPoker", "LeducPoker")}
DUELS = {name: Duel(make_game(spec)) for name, spec in SPECS.items()}
both = pytest.mark.parametrize("name", SPECS)


def start(name, tasks, seed=0, dtype=torch.float32):
    duel, rows = DUELS[name], torch.arange(len(tasks))
    return duel.reset(duel.game.params(tasks, dtype), rows + seed, rows * 0)


# Rules


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_golden_transition(case):
    game = DUELS[case.game].game
    params = game.params([KUHN_TASK if case.game == "KuhnPoker" else LEDUC_TASK], torch.float64)
    numbers = [*case.cards, case.starter, *case.bets, 3, -1, -1]
    zero = torch.zeros(1, dtype=torch.float64)
    state = State(*(torch.tensor([n]) for n in numbers), torch.tensor([False]), zero)
    actions = tuple(torch.tensor([a]) for a in case.actions)
    after, outcome = game.step(params, state, actions, torch.full((1, game.step_noise), 0.3, dtype=torch.float64))
    assert outcome.reward[0].tolist() == pytest.approx([case.reward, -case.reward], abs=1e-12)
    assert not outcome.terminated.item()
    if case.after is not None:
        assert (int(after.first), int(after.node)) == case.after
        assert [int(x) for x in (*after[:4], after.hand)] == [*case.cards, case.starter, 3]
    else:
        assert [int(x) for x in after[3:9]] == [1 - case.starter, 0, 0, 4, case.cards[0], case.cards[1]]
        assert float(after.won) == pytest.approx(case.reward)
        seat = int(state.turn)
        folded = case.actions[seat] == 1 and case.bets[1] >= 2  # pass in Kuhn, fold in Leduc
        assert bool(after.shown) is not folded


class Naive:
    """One hand in plain Python, from the docstring's words: each player's stake, and the player in turn."""

    def __init__(self, task, cards, starter, leduc):
        self.task, self.cards, self.turn, self.starter, self.leduc = task, cards, starter, starter, leduc
        self.chips, self.round, self.raises, self.acted = [task["ante"]] * 2, 0, 0, 0

    def legal(self, seat):
        if seat != self.turn:
            return [0]
        if not self.leduc:
            return [1, 2]
        return [1] * (self.raises > 0) + [2] + [3] * (self.raises < 2)

    def act(self, action):
        """The protagonist's chips if the hand is over, else None."""
        me, other = self.turn, 1 - self.turn
        facing = self.raises > 0
        if action not in self.legal(me):
            word = "call"
        elif self.leduc:
            word = ("", "fold", "call", "raise")[action]
        else:
            word = ("fold" if facing else "call") if action == 1 else ("call" if facing else "raise")
        self.acted += 1
        if word == "fold":
            return self.chips[me] if other == 0 else -self.chips[me]
        self.chips[me] = self.chips[other]
        if word == "raise":
            size = self.task[("first_raise", "second_raise")[self.round]] if self.leduc else self.task["bet"]
            self.chips[me] += size
            self.raises += 1
        elif self.acted > 1:  # a call, or the second check
            if not self.leduc or self.round == 1:
                return self.showdown()
            self.round, self.raises, self.acted, self.turn = 1, 0, 0, self.starter
            return None
        self.turn = other
        return None

    def showdown(self):
        one, other, public = self.cards
        if one == other:
            return 0.0
        wins = one > other
        if self.leduc and public in (one, other):
            wins = one == public
        return self.chips[1] if wins else -self.chips[0]


@both
def test_random_episodes_equal_a_naive_second_implementation(name):
    spec, duel, n, rng = SPECS[name], DUELS[name], 40, np.random.default_rng(0)
    leduc, game = name == "LeducPoker", DUELS[name].game
    tasks = generate(spec, "train", n, seed=4)
    rows = start(name, tasks, dtype=torch.float64)
    naive = [None] * n
    hands, ended, paid = [0] * n, [False] * n, 0
    for _ in range(spec.horizon):
        actions = rng.integers(0, game.actions, (n, 2))
        legal = duel.legal(rows)
        for i in range(n):
            if naive[i] is None:
                naive[i] = Naive(tasks[i], [int(card[i]) for card in rows.state[:3]], hands[i] % 2, leduc)
            for seat in (0, 1):
                assert legal[seat][i].nonzero().squeeze(1).tolist() == naive[i].legal(seat)
            assert int(duel.turn(rows)[i]) == naive[i].turn
        rows, outcome = duel.step(rows, tuple(torch.tensor(actions).unbind(1)))
        for i in range(n):
            result = naive[i].act(actions[i, naive[i].turn])
            reward = 0.0 if result is None else result
            assert outcome.reward[i].tolist() == pytest.approx([reward, -reward], abs=1e-12)
            if result is not None:
                naive[i], hands[i], paid = None, hands[i] + 1, paid + 1
            assert bool(outcome.terminated[i]) == (hands[i] >= game.hands)
            ended[i] |= bool(outcome.terminated[i])
    assert paid > 300
    assert sum(ended) > n * 0.9


@both
def test_the_longest_hands_fit_into_the_horizon(name):
    spec, duel = SPECS[name], DUELS[name]
    rows, count = start(name, [{}]), 0
    longest = (1, 2, 2) if name == "KuhnPoker" else (2, 3, 3, 2)  # check, bet, call; check, raise, raise, call
    for t in range(spec.horizon):
        action = torch.tensor([longest[t % len(longest)]])
        rows, outcome = duel.step(rows, (action, action))
        count += bool(outcome.reward.any())
        assert bool(outcome.terminated) is (t == spec.horizon - 1)
        assert not outcome.truncated.any()
    assert int(rows.state.hand) == duel.game.hands
    assert count <= duel.game.hands
    assert duel.game.hands % 2 == 0  # both act first equally often


@both
@pytest.mark.parametrize("deck", [(1, 1, 1), (2, 1, 3), (4, 3, 1)])
def test_deals_are_as_likely_as_cards_without_replacement(name, deck):
    game, n = DUELS[name].game, 50_000
    task = dict(zip(("low", "middle", "high"), deck, strict=True)) | ({"ranks": 5} if name == "KuhnPoker" else {})
    hand = Hand(SPECS[name], task)
    noise = torch.rand(n, game.init_noise, generator=torch.Generator().manual_seed(0))
    cards = torch.stack(game.deal(game.params([task] * n), noise), 1).numpy()
    dealt = [tuple(row) for row in hand.cards.tolist()]
    found = dict.fromkeys(dealt, 0)
    for row, count in zip(*np.unique(cards, axis=0, return_counts=True), strict=True):
        found[tuple(row.tolist())] += int(count)  # a KeyError would be a deal that cannot be
    for deal, chance in zip(dealt, hand.chance, strict=True):
        assert found[deal] == pytest.approx(n * chance, abs=5 * (n * chance) ** 0.5 + 1)
    assert hand.chance.sum() == pytest.approx(1)
    copies = copies_of(game, game.params([task]))[0, : 5 if name == "KuhnPoker" else 3].tolist()
    assert copies == [deck[0], *[deck[1]] * (len(copies) - 2), deck[2]]


# What players see


@both
def test_no_player_sees_the_opponents_card_or_the_deck(name):
    duel, spec = DUELS[name], SPECS[name]
    tasks = generate(spec, "train", 64, seed=3)
    rows = start(name, tasks)
    generator = torch.Generator().manual_seed(1)
    for _ in range(spec.horizon):
        state, ranks = rows.state, rows.params.ranks.long()
        for seat, field in ((0, "adversary"), (1, "protagonist")):
            changed = {field: (getattr(state, field) + 1) % ranks}
            changed["public"] = torch.where(state.first > 0, state.public, (state.public + 1) % ranks)
            hidden = {c.name: getattr(rows.params, c.name) + 1 for c in spec.contexts if not c.visible_to}
            other = rows._replace(state=state._replace(**changed), params=rows.params._replace(**hidden))
            assert torch.equal(duel.observe(other)[seat], duel.observe(rows)[seat])
        pair = tuple(torch.randint(duel.game.actions, (64,), generator=generator) for _ in ROLES)
        rows, _ = duel.step(rows, pair)


def test_an_observation_by_hand():
    # Leduc, second round after check, raise, call; the adversary has checked; the protagonist acts second, has lost 2 of the
    # most that a hand costs, 1 + 2 * 2 + 2 * 4 = 13, in a showdown of 0 against 2; 3 of 8 hands are over.
    duel = DUELS["LeducPoker"]
    numbers = [1, 0, 2, 1, 3, 1, 3, 0, 2]
    state = State(*(torch.tensor([n]) for n in numbers), torch.tensor([True]), torch.tensor([-2.0]))
    rows = start("LeducPoker", [{}])._replace(state=state)
    shown = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    stakes_seen = [0, 0, 0]  # the defaults are in the middle of their ranges
    mine = [0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, -2 / 13, 5 / 8]
    theirs = [1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 2 / 13, 5 / 8]
    for seen, own in zip(duel.observe(rows), (mine, theirs), strict=True):
        torch.testing.assert_close(seen[0], torch.tensor([*shown, *own, *stakes_seen], dtype=torch.float32))


# Exact values


def test_published_values_of_kuhn_poker():
    hand = Hand(SPECS["KuhnPoker"])
    assert len(hand.information_states()) == KUHN_INFORMATION_STATES
    assert hand.exploitability(hand.uniform()) == pytest.approx(KUHN_UNIFORM_EXPLOITABILITY, abs=1e-9)
    for alpha in (0.0, 0.1, 1 / 3):
        table = kuhn_equilibrium(alpha)
        assert hand.value(table, kuhn_equilibrium(0.2)) == pytest.approx(KUHN_VALUE, abs=1e-12)
        assert hand.nash_conv(table) == pytest.approx(0, abs=1e-12)
    assert hand.equilibrium().value == pytest.approx(KUHN_VALUE, abs=1e-9)


@pytest.mark.parametrize("suits", [False, True])
def test_published_values_of_leduc_poker(suits):
    hand = Hand(SPECS["LeducPoker"], suits=suits)
    assert len(hand.information_states()) == (LEDUC_INFORMATION_STATES if suits else 288)
    assert hand.exploitability(hand.uniform()) == pytest.approx(LEDUC_UNIFORM_EXPLOITABILITY, abs=1e-9)
    if not suits:
        found = hand.equilibrium()
        assert found.value == pytest.approx(LEDUC_VALUE, abs=1e-9)
        assert hand.nash_conv(found.table) == pytest.approx(0, abs=1e-9)


def random_table(hand, seed):
    chances = hand.uniform() * np.random.default_rng(seed).exponential(size=(hand.states, hand.game.actions))
    return chances / chances.sum(1, keepdims=True)


@both
def test_best_responses_and_equilibria_of_sampled_tasks(name):
    for seed, task in enumerate(
        generate(SPECS[name], "train", 3, seed=8) + generate(SPECS[name], "extrapolation", 2, 1)
    ):
        hand = Hand(SPECS[name], task)
        one, other = random_table(hand, seed), random_table(hand, seed + 50)
        best = hand.best_response(other)
        assert hand.match_value(best.table, other) == pytest.approx(best.value, abs=1e-12)
        assert best.value > hand.match_value(one, other)
        assert hand.match_value(one, other) == pytest.approx(-hand.match_value(other, one), abs=1e-12)
        gains = hand.best_response(one).value + hand.best_response(other).value
        crossed = hand.nash_conv(one, other) + hand.nash_conv(other, one)
        assert crossed == pytest.approx(2 * gains, abs=1e-12)
        solved = hand.equilibrium()
        assert hand.exploitability(solved.table) == pytest.approx(0, abs=1e-8)
        assert hand.value(solved.table, solved.table) == pytest.approx(solved.value, abs=1e-8)
        assert hand.exploitability(one) > 0.05


def openspiel_policy(game, hand, table):
    """The table as OpenSpiel's policy, by walking its tree: chance's first outcomes are cards, by their number."""
    policy = pytest.importorskip("open_spiel.python.policy")
    tabular, seen = policy.TabularPolicy(game), set()
    leduc, nodes = hand.game.rounds == 2, hand.game.nodes

    def walk(state, cards, bets):
        if state.is_terminal():
            return
        if state.is_chance_node():
            for action, _ in state.chance_outcomes():
                walk(state.child(action), [*cards, action], bets)
            return
        card, node = cards[state.current_player()], bets[-1]
        number = card * nodes + node
        if len(bets) == 2:
            number = hand.kinds * nodes
            number += ((card * hand.kinds + cards[2]) * (nodes - 1) + bets[0] - 1) * nodes + node
        row = tabular.action_probability_array[tabular.state_lookup[state.information_state_string()]]
        row[:] = table[number, 1:]
        seen.add(number)
        for action in state.legal_actions():
            raises = action == (2 if leduc else 1) and (leduc or node < 2)
            after = [*bets[:-1], node + 2 if raises else 1] if raises or node == 0 else [node, 0]
            walk(state.child(action), cards, after)

    walk(game.new_initial_state(), [], [0])
    assert sorted(seen) == hand.information_states().tolist()
    return tabular


@both
def test_values_equal_openspiels(name):
    pyspiel = pytest.importorskip("pyspiel", reason="open_spiel has no wheel for this platform")
    exploitability = pytest.importorskip("open_spiel.python.algorithms.exploitability")
    expected_game_score = pytest.importorskip("open_spiel.python.algorithms.expected_game_score")
    game = pyspiel.load_game("kuhn_poker" if name == "KuhnPoker" else "leduc_poker")
    hand = Hand(SPECS[name], suits=name == "LeducPoker")
    for seed in range(3 if name == "KuhnPoker" else 2):
        table = random_table(hand, seed)
        tabular = openspiel_policy(game, hand, table)
        assert hand.nash_conv(table) == pytest.approx(exploitability.nash_conv(game, tabular), abs=1e-9)
        values = expected_game_score.policy_value(game.new_initial_state(), [tabular] * 2)
        assert hand.value(table, table) == pytest.approx(values[0], abs=1e-9)


@both
def test_stored_equilibria_are_equilibria(name):
    stored = stored_equilibria(name)
    assert sorted(stored) == ([3, 4, 5, 6] if name == "KuhnPoker" else [3])
    for ranks, table in stored.items():
        hand = Hand(SPECS[name], {"ranks": ranks} if name == "KuhnPoker" else {})
        assert hand.exploitability(table) < 2e-6


def test_bad_policies_are_refused():
    hand = Hand(SPECS["KuhnPoker"])
    for policy, words in (
        (np.ones((24, 3)), "every row must be probabilities"),
        (np.ones((12, 3)) / 3, r"shape \(12, 3\) must be \(24, 3\)"),
        ({24: [0, 1, 0]}, r"information state 24 must be in \[0, 24\)"),
        (np.tile([0, 2.0, -1.0], (24, 1)), "every row must be probabilities"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            hand.exploitability(policy)
    with pytest.raises(InvalidInputError, match=r"alpha=0\.5 must be in"):
        kuhn_equilibrium(0.5)
    with pytest.raises(InvalidInputError, match="Navigation is not a poker game"):
        Hand(find("Navigation"))
    # Some rows, the others uniform; waiting on one's turn calls.
    table = hand.table({0: [0.25, 0.5, 0.25]})
    np.testing.assert_allclose(table[1:], hand.uniform()[1:])
    np.testing.assert_allclose(hand.moves(table)[0], [0, 0.75, 0.25])


# Networks


@both
@pytest.mark.parametrize("role", ROLES)
def test_a_network_is_asked_what_it_would_see(name, role):
    spec, duel, seat = SPECS[name], DUELS[name], ROLES.index(role)
    task = generate(spec, "train", 1, seed=6)[0]
    generator, n = torch.Generator().manual_seed(0), 3000
    rows, seen = start(name, [task] * n), {}
    for _ in range(8):
        state = rows.state
        card = state.protagonist if seat == 0 else state.adversary
        index = duel.game.information_state(card, state.public, state.first, state.node)
        mine = ((state.turn == seat) & (state.hand == 0)).nonzero().squeeze(1)
        seen.update(zip(index[mine].tolist(), duel.observe(rows)[seat][mine], strict=True))
        pair = tuple(torch.randint(duel.game.actions, (n,), generator=generator) for _ in ROLES)
        rows, _ = duel.step(rows, pair)
    table = situations(duel, task, role)
    numbers = list(seen)
    assert torch.equal(table[numbers], torch.stack([seen[i] for i in numbers]))
    # In the first hand the protagonist acts first: half of the states are its own, and most of them have occurred.
    half = [
        s
        for s in Hand(spec, task).information_states().tolist()
        if duel.game.situation(torch.tensor(s))[3] % 4 in (0, 3)
    ]
    own = set(half) if seat == 0 else set(Hand(spec, task).information_states().tolist()) - set(half)
    assert set(seen) <= own
    assert len(seen) > 0.7 * len(own)


@both
def test_the_value_of_a_network(name):
    spec, duel, n = SPECS[name], DUELS[name], 10_000
    policy = MLPPolicy(duel.observation_space("protagonist").shape[0], spec.action_spaces["protagonist"])
    weights = {key: 3 * value for key, value in policy.init(0).items()}

    def probabilities(observation):
        return torch.exp(policy(stack(weights, 1), observation.unsqueeze(0)).log_probs[0])

    table = network_table(duel, {}, "protagonist", probabilities)
    hand, other = Hand(spec), tables(spec)["tight"]
    assert hand.exploitability(table) > 0

    class Network:
        memory, noise = 0, 1

        def act(self, view, memory, noise):
            chances = probabilities(view.observation).cumsum(1)
            return (noise >= chances[:, :-1]).sum(1), memory

    # One hand: the protagonist acts first.
    short = Duel(make_game(spec), horizon=spec.horizon // duel.game.hands)
    params, rows = duel.game.params([{}] * n), torch.arange(n)
    episode = short.reset(params, rows, rows * 0)
    won = torch.zeros(n)
    for after, outcome in steps(short, (Network(), scripted(spec, "adversary")["tight"]), episode):
        won = torch.where((after.state.hand == 1) & (won == 0), outcome.reward[:, 0], won)
    assert won.mean().item() == pytest.approx(hand.value(table, other), abs=5 * won.std().item() / n**0.5)


# Scripted players


@both
def test_tables_are_what_the_players_do(name):
    spec, duel, n = SPECS[name], DUELS[name], 4000
    task = generate(spec, "train", 1, seed=12)[0]
    hand, policies = Hand(spec, task), tables(spec, int(task.get("ranks", 3)))
    params, rows = duel.game.params([task] * n), torch.arange(n)
    for one, other in itertools.pairwise([*policies, "equilibrium"]):
        pair = scripted(spec, "protagonist")[one], scripted(spec, "adversary")[other]
        won = play(duel, pair, params, rows, rows * 0).returns[:, 0] / duel.game.hands
        exact = hand.match_value(policies[one], policies[other])
        assert won.mean().item() == pytest.approx(exact, abs=5 * won.std().item() / n**0.5 + 1e-6), (one, other)


@both
def test_scripted_players_do_what_is_legal(name):
    spec, duel = SPECS[name], DUELS[name]
    tasks = generate(spec, "train", 16, seed=1) + generate(spec, "extrapolation", 16, seed=1)
    chosen = []
    for player, other in itertools.product(
        scripted(spec, "protagonist").values(), scripted(spec, "adversary").values()
    ):
        if other.name not in ("random", "punisher"):
            continue
        rows = start(name, tasks)
        watched = [Checked(duel, seat, p) for seat, p in enumerate((player, other))]
        for _ in steps(duel, tuple(watched), rows):
            pass
        chosen += [w.asked for w in watched]
    assert min(chosen) >= spec.horizon


class Checked:
    """Plays as another player, and looks whether that is legal."""

    def __init__(self, duel, seat, player):
        self.duel, self.seat, self.player, self.asked = duel, seat, player, 0
        self.memory, self.noise = player.memory, player.noise

    def act(self, view: View, memory, noise):
        action, memory = self.player.act(view, memory, noise)
        legal = self.duel.game.legal(view.params, view.state)[self.seat]
        assert legal.gather(1, action.unsqueeze(1)).all(), self.player.name
        self.asked += 1
        return action, memory


def test_equity_by_hand():
    # Kuhn, cards 1 2 1: with the middle one, 1 below, 1 equal, 1 above: (1 + 1/2) / 3.
    card, none = torch.tensor([1]), torch.tensor([-1])
    assert equity(torch.tensor([[1.0, 2.0, 1.0]]), card, none, 1).item() == pytest.approx(0.5)
    # Leduc, two of each, a 2 and a public 0: of 0, 1, 1, 2 the 0 is a pair and wins; 1 + 1 + 1/2 of 4.
    copies = torch.full((1, 3), 2.0)
    assert equity(copies, torch.tensor([2]), torch.tensor([0]), 2).item() == pytest.approx(2.5 / 4)
    # Before the public card, a 2: with probability 2/5 each it is 0 or 1 (2.5 of 4 either way), with 1/5 a 2 (a pair).
    assert equity(copies, torch.tensor([2]), none, 2).item() == pytest.approx(0.8 * 2.5 / 4 + 0.2)


@functools.cache
def simulated(name, one, other, n=20):
    spec, duel = SPECS[name], DUELS[name]
    params = duel.game.params([task for task in generate(spec, "train", 60, seed=9) for _ in range(n)])
    rows = torch.arange(60 * n)
    pair = scripted(spec, "protagonist")[one], scripted(spec, "adversary")[other]
    return play(duel, pair, params, rows, rows * 0).returns[:, 0].mean().item() / duel.game.hands


@both
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_knowing_opponent_and_deck_pays(name, split):
    """Best responses to the styles of a panel against the best scripted player that is the same for all: chips per hand.

    The margin is a fifth at least of what best responses gain over a random player.
    """
    spec = SPECS[name]
    panel = [p for p in spec.opponents["adversary"][split] if p in tables(spec)]
    assert len(panel) >= 3
    best = []
    for task in generate(spec, "train", 60, seed=9):
        hand, policies = Hand(spec, task), tables(spec, int(task.get("ranks", 3)))
        best += [hand.best_response(policies[other]).value for other in panel]
    blind = [p.name for p in scripted(spec, "protagonist").values() if not p.informed]
    means = {one: np.mean([simulated(name, one, other) for other in panel]) for one in blind}
    assert np.mean(best) - max(means.values()) > 0.2 * (np.mean(best) - means["random"])


@both
def test_knowing_the_deck_pays(name):
    """A best response that takes the deck for the usual one loses a part of what it could win."""
    spec = SPECS[name]
    gains = []
    for task in generate(spec, "train", 40, seed=9):
        usual = {c.name: c.default for c in spec.contexts if not c.visible_to}
        hand, assumed = Hand(spec, task), Hand(spec, {**task, **usual})
        for policy in tables(spec, int(task.get("ranks", 3))).values():
            best = hand.best_response(policy).value
            gains.append((best, best - hand.match_value(assumed.best_response(policy).table, policy)))
    wins, losses = np.mean(gains, 0)
    assert min(loss for _, loss in gains) > -1e-9
    assert losses / wins > 0.1


# The rest


@both
def test_players_act_alike_alone_and_in_a_batch(name):
    spec, duel, n = SPECS[name], DUELS[name], 6
    params, rows = duel.game.params(generate(spec, "train", n, seed=2)), torch.arange(n)
    adversaries, k = scripted(spec, "adversary"), n - 1
    for one, other in zip(scripted(spec, "protagonist").values(), reversed(adversaries.values()), strict=True):
        batch = play(duel, (one, other), params, rows, rows * 0)
        single = play(duel, (one, other), take_rows(params, slice(k, n)), rows[k:], rows[:1] * 0)
        assert torch.equal(single.returns[0], batch.returns[k])


@both
def test_the_step_compiles_and_keeps_the_type(name):
    duel, tasks = DUELS[name], generate(SPECS[name], "train", 8, seed=2)
    torch.compiler.reset()  # graphs of the other id's game are no use here
    step = torch.compile(duel.step, dynamic=False, backend="aot_eager")
    rows = other = start(name, tasks)
    for t in range(6):
        action = torch.full((8,), 1 + t % 2)
        rows, outcome = duel.step(rows, (action, action))
        other, same = step(other, (action, action))
        torch.testing.assert_close(same.reward, outcome.reward)
        assert torch.equal(other.state.node, rows.state.node)
    for dtype in (torch.float32, torch.float64):
        rows, outcome = duel.step(start(name, tasks, dtype=dtype), (action, action))
        assert {x.dtype for x in (*duel.observe(rows), outcome.reward, rows.state.won)} == {dtype}


def test_the_viewer_tells_what_was_played():
    duel = DUELS["LeducPoker"]
    rows, states = start("LeducPoker", [{}]), []
    states.append(rows.state)
    for action in (2, 3, 3, 2, 3, 1):  # check, raise, raise, call; bet, fold
        rows, _ = duel.step(rows, (torch.tensor([action]),) * 2)
        states.append(rows.state)
        if len(states) == 6:
            # Two raises of 2 and the ante are in; the protagonist has bet 4 more.
            assert stakes(rows.params, rows.state) == (9.0, 5.0)
    words = ["check", "bet", "raise", "call", "bet", "fold"]
    assert [word for _, word, _ in moves(states)] == words
    assert [seat for seat, _, _ in moves(states)] == [0, 1, 0, 1, 0, 1]
    assert [number for _, _, number in moves(states)] == [0, 0, 0, 0, 1, 1]
