"""Goalkeeper against arithmetic, against a second implementation, against a solver, and its headroom for adaptation."""

import functools
import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import frozen_tasks, generate
from metaduel.envs.core.trees import take_rows
from metaduel.envs.goalkeeper.cases import (
    CASES,
    MATRIX,
    MATRIX_GUESSES,
    MATRIX_KEEPER,
    MATRIX_SHOOTER,
    MATRIX_SHOTS,
    MATRIX_TASK,
    MATRIX_VALUE,
    TASK,
)
from metaduel.envs.goalkeeper.game import AIM, DT, FLIGHT, KEEPER_SPEED, KICK, RUN_UP, State, drift
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play
from metaduel.envs.players.scripted import scripted

SPEC = find("Goalkeeper")
DUEL = Duel(make_game(SPEC))


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_golden_transition(case):
    params = DUEL.game.params([TASK], torch.float64)
    places = (torch.tensor([x], dtype=torch.float64) for x in case.places)
    left = torch.ones(1, dtype=torch.float64)
    state = State(*places, row(*case.commands), torch.tensor([case.phase]), left, row(0, 0, 0))
    run, aim, move = case.actions
    after, outcome = DUEL.game.step(params, state, (row(run, aim), row(move)), row())
    torch.testing.assert_close(torch.stack(after[:3], 1), row(*case.after), atol=1e-9, rtol=0)
    torch.testing.assert_close(outcome.reward, row(case.reward, -case.reward), atol=1e-9, rtol=0)
    torch.testing.assert_close(after.last, row(*case.last), atol=1e-9, rtol=0)
    over = case.phase == KICK - 1
    assert after.phase.item() == (0 if over else case.phase + 1)
    torch.testing.assert_close(after.commands, row(*([0] * 3 if over else [move, *case.commands[:2]])))
    assert not outcome.terminated.item()


class Naive:
    """One episode in plain Python, written from the docstring's tables; the flight is integrated, not solved."""

    def __init__(self, task):
        self.task, self.past = task, []
        self.kick()

    def kick(self):
        self.phase, self.run, self.heading, self.keeper, self.past = 0, 0.0, 0.0, 0.0, []

    def wanted(self, age):
        return self.past[-1 - age] if age < len(self.past) else 0.0

    def step(self, run, aim, move):
        task = self.task
        if self.phase < 3:
            self.run = min(max(self.run + 0.5 * run, -1), 1)
        if self.phase == 2:
            self.heading = 4.5 * aim
        self.past.append(move)
        whole, part = divmod(task["delay"] / 0.2, 1)
        does = (1 - part) * self.wanted(int(whole)) + part * self.wanted(int(whole) + 1)
        self.keeper = min(max(self.keeper + 0.9 * does, -2.5), 2.5)
        self.phase += 1
        if self.phase < 6:
            return 0.0
        x, speed, n = 0.0, self.heading / 0.6, 600
        for _ in range(n):
            speed += 0.5 * 0.6 / n * (task["wind"] + task["curve"] * self.run)
            x += 0.6 / n * speed
            speed += 0.5 * 0.6 / n * (task["wind"] + task["curve"] * self.run)
        margin = min(2.5 - abs(x), abs(x - self.keeper) - task["reach"])
        self.kick()
        return (1 if margin > 0 else -1) + 0.5 * min(max(margin, -1), 1)


def test_random_episodes_equal_a_naive_second_implementation():
    n, rng = 60, np.random.default_rng(0)
    tasks = generate(SPEC, "train", n, seed=4)
    episode = DUEL.reset(DUEL.game.params(tasks, torch.float64), torch.arange(n), torch.zeros(n, dtype=torch.int64))
    naive, seen = [Naive(task) for task in tasks], []
    lean = rng.uniform(-1, 1, n)  # so that keepers get to the posts
    for _ in range(48):
        shooter, keeper = rng.uniform(-1, 1, (n, 2)), (rng.uniform(-1, 1, n) + lean).clip(-1, 1)
        episode, outcome = DUEL.step(episode, (torch.tensor(shooter), torch.tensor(keeper).unsqueeze(1)))
        for i in range(n):
            reward = naive[i].step(*shooter[i], keeper[i])
            assert outcome.reward[i].tolist() == pytest.approx([reward, -reward], abs=1e-9)
            state = [naive[i].run, naive[i].heading, naive[i].keeper]
            assert [float(x[i]) for x in episode.state[:3]] == pytest.approx(state, abs=1e-9)
            seen.append(reward)
    assert sum(r > 0 for r in seen) > 30
    assert sum(r < 0 for r in seen) > 30
    assert sum(r != 0 for r in seen) == 8 * n


# The mixed equilibrium


def kick(task, shots, plans):
    """Rewards of the shooter [shots, plans] in one kick.

    Args:
        task: the contexts.
        shots: (the run-up's offset, where the ball crosses).
        plans: where the keeper sets out to from its first step on, or None where it waits for the strike.
    """
    pairs = list(itertools.product(shots, plans))
    params = DUEL.game.params([task] * len(pairs), torch.float64)
    offset, place = torch.tensor([shot for shot, _ in pairs], dtype=torch.float64).unbind(1)
    waits = torch.tensor([plan is None for _, plan in pairs])
    guess = torch.tensor([plan or 0.0 for _, plan in pairs], dtype=torch.float64)
    target = torch.where(waits, place, guess) / (KEEPER_SPEED * DT)  # in steps at full speed
    episode = DUEL.reset(params, torch.zeros(len(pairs)).long(), torch.zeros(len(pairs)).long())
    wanted = torch.zeros(len(pairs), dtype=torch.float64)
    for t in range(KICK):
        shot = torch.stack([(offset - episode.state.shooter) / 0.5, (place - drift(params, offset)) / AIM], 1)
        move = (target - wanted).clamp(-1, 1) * ((t >= RUN_UP) | ~waits)
        wanted = wanted + move
        episode, outcome = DUEL.step(episode, (shot.clamp(-1, 1), move.unsqueeze(1)))
    return outcome.reward[:, 0].view(len(shots), len(plans)).numpy()


def solve(matrix):
    """Value and equilibrium of a zero-sum matrix game whose rows maximise."""

    def best(a):  # the mixture of a's rows that maximises its worst column
        n, m = a.shape
        found = linprog(
            np.r_[np.zeros(n), -1], np.c_[-a.T, np.ones(m)], np.zeros(m), [np.r_[np.ones(n), 0]], [1],
            [(0, None)] * n + [(None, None)],
        )  # fmt: skip
        assert found.success
        return -found.fun, found.x[:n]

    value, rows = best(matrix)
    minus, columns = best(-matrix.T)
    assert minus == pytest.approx(-value)
    return value, rows, columns


def test_a_kick_is_the_matrix_game_solved_by_hand():
    matrix = kick(MATRIX_TASK, [(0.0, x) for x in MATRIX_SHOTS], MATRIX_GUESSES)
    np.testing.assert_allclose(matrix, MATRIX, atol=1e-9)
    value, shooter, keeper = solve(matrix)
    assert value == pytest.approx(MATRIX_VALUE, abs=1e-7)
    np.testing.assert_allclose(shooter, MATRIX_SHOOTER, atol=1e-7)
    np.testing.assert_allclose(keeper, MATRIX_KEEPER, atol=1e-7)
    # Mixed as solved, a player earns the value against any opponent; a deterministic player loses to an opponent that knows it.
    np.testing.assert_allclose(np.array(MATRIX_SHOOTER) @ matrix, MATRIX_VALUE, atol=1e-7)
    np.testing.assert_allclose(matrix @ np.array(MATRIX_KEEPER), MATRIX_VALUE, atol=1e-7)
    assert matrix.min(1).max() == pytest.approx(-1.15)
    assert matrix.max(0).min() == pytest.approx(1.15)


TIMES = [{"delay": d, "reach": r} for d in (0.25, 0.4) for r in (0.4, 0.55)]


@pytest.mark.parametrize("task", [*TIMES, *generate(SPEC, "train", 6, seed=7)], ids=str)
def test_a_deterministic_player_loses(task):
    shots = [(offset, place) for offset in (-1.0, 0.0, 1.0) for place in np.linspace(-2.35, 2.35, 11)]
    plans = [None, *np.linspace(-2.4, 2.4, 13)]
    matrix = kick({**TASK, **task}, shots, plans)
    value, shooter, keeper = solve(matrix)
    # A keeper that knows the shot saves every one; a shooter that knows the keeper's plan scores against every one.
    assert (matrix.min(1) < -1).all()
    assert (matrix.max(0) > 1).all()
    assert matrix.min(1).max() < value - 0.3
    assert matrix.max(0).min() > value + 0.3
    assert (shooter > 1e-6).sum() > 1
    assert (keeper > 1e-6).sum() > 1


# What makes it worth adapting in


@functools.cache
def mean_return(pair, split, n=100):
    names = zip(("protagonist", "adversary"), pair, strict=True)
    players = tuple(load_player(DUEL, role, name) for role, name in names)
    tasks = generate(SPEC, "train", n, seed=9) if split == "train" else frozen_tasks(SPEC, split)
    seeds = torch.arange(len(tasks))
    return play(DUEL, players, DUEL.game.params(tasks), seeds, seeds * 0).returns[:, 0].mean().item()


def best(role, panel, split, informed):
    """The best mean return in ``role``'s seat against a panel, of the scripted players that know or don't."""
    names = [name for name, player in scripted(SPEC, role).items() if player.informed is informed]
    if role == "protagonist":
        return max(np.mean([mean_return((name, other), split) for other in panel]) for name in names)
    return max(-np.mean([mean_return((other, name), split) for other in panel]) for name in names)


@pytest.mark.parametrize("split", ["train", "validation", "extrapolation"])
@pytest.mark.parametrize("opponents", ["train", "held_out"])
@pytest.mark.parametrize(("role", "other"), [("protagonist", "adversary"), ("adversary", "protagonist")])
def test_knowing_the_hidden_contexts_pays(role, other, opponents, split):
    panel = SPEC.opponents[other][opponents]
    assert best(role, panel, split, informed=True) - best(role, panel, split, informed=False) > 1.4


def test_nothing_that_players_see_tells_of_the_air_or_the_reach():
    # A keeper that remembers its own actions can infer the delay from its movement; nothing else is visible.
    n, seen = 32, []
    rng = np.random.default_rng(0)
    actions = torch.tensor(rng.uniform(-1, 1, (48, n, 3)), dtype=torch.float32)
    for task in ({"wind": -5.0, "curve": 2.0, "reach": 0.4}, {"wind": 7.0, "curve": -4.0, "reach": 0.55}):
        episode = DUEL.reset(DUEL.game.params([task] * n), torch.arange(n), torch.zeros(n).long())
        for action in actions:
            episode, _ = DUEL.step(episode, (action[:, :2], action[:, 2:]))
            seen += DUEL.observe(episode)
    half = len(seen) // 2
    assert all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))


def test_observations():
    # Phase 2 strikes: 4 of 6 steps are left; phase 3 is the first in flight.
    for phase, strikes, flies, left in ((0, 0, 0, 1.0), (2, 1, 0, 4 / 6), (3, 0, 1, 0.5), (5, 0, 1, 1 / 6)):
        places = (torch.tensor([x]) for x in (0.5, 1.5 * flies, -0.75))
        state = State(*places, torch.ones(1, 3), torch.tensor([phase]), torch.tensor([0.4]), torch.ones(1, 3))
        shooter, keeper = DUEL.game.observe(DUEL.game.params([TASK]), state)
        torch.testing.assert_close(shooter, torch.tensor([[0.5, -0.75, 1.5 * flies, strikes, flies, left, 0.4]]))
        assert torch.equal(shooter, keeper)


def test_eight_kicks_each_from_the_middle():
    n = 16
    episode = DUEL.reset(DUEL.game.params(generate(SPEC, "train", n, seed=3)), torch.arange(n), torch.zeros(n).long())
    first, paid = DUEL.observe(episode)[0], []
    for t in range(1, 49):
        episode, outcome = DUEL.step(episode, (torch.ones(n, 2), torch.ones(n, 1)))
        paid.append(bool((outcome.reward != 0).all()))
        assert bool((outcome.reward != 0).any()) is paid[-1]
        if t % KICK == 0:
            assert torch.equal(DUEL.observe(episode)[0][:, :6], first[:, :6])
            assert not episode.state.commands.any()
    assert [t for t, p in enumerate(paid, 1) if p] == list(range(6, 49, 6))
    assert outcome.truncated.all()
    assert episode.state.left.abs().max() < 1e-6
    assert RUN_UP + FLIGHT == KICK


def test_every_scripted_player_acts_alike_alone_and_in_a_batch():
    n = 6
    params = DUEL.game.params(generate(SPEC, "train", n, seed=2))
    shooters, keepers = scripted(SPEC, "protagonist"), list(scripted(SPEC, "adversary").values())
    seeds = torch.arange(n)
    for i, shooter in enumerate(shooters.values()):
        pair = shooter, keepers[i % len(keepers)]
        batch = play(DUEL, pair, params, seeds, seeds * 0)
        for k in (0, n - 1):
            single = play(DUEL, pair, take_rows(params, slice(k, k + 1)), seeds[k : k + 1], seeds[:1] * 0)
            assert torch.equal(single.returns[0], batch.returns[k])


def test_the_step_compiles_and_keeps_the_type():
    step = torch.compile(DUEL.step, dynamic=False, backend="aot_eager")
    for dtype in (torch.float32, torch.float64):
        n = 8
        params = DUEL.game.params(generate(SPEC, "train", n, seed=2), dtype)
        rows = DUEL.reset(params, torch.arange(n), torch.zeros(n).long())
        other = rows
        for _ in range(12):
            actions = (torch.full((n, 2), 0.4, dtype=dtype), torch.full((n, 1), -0.3, dtype=dtype))
            rows, outcome = DUEL.step(rows, actions)
            other, same = step(other, actions)
            assert {x.dtype for x in (*DUEL.observe(rows), outcome.reward, rows.state.last)} == {dtype}
            torch.testing.assert_close(same.reward, outcome.reward)
