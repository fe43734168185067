"""CartPole against arithmetic, against Gymnasium, against the equations of motion; and the value of hidden contexts."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from metaduel.envs.cart_pole.cases import CASES, TASK
from metaduel.envs.cart_pole.game import START, State, accelerations
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import generate, sample_tasks
from metaduel.envs.core.trees import take_rows
from metaduel.envs.players.play import play, steps
from metaduel.envs.players.scripted import scripted

SPEC = find("CartPole")
DUEL = Duel(make_game(SPEC))


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def place(x, speed, angle, turn):
    """A state from four tensors [B]."""
    still = torch.zeros_like(x)
    return State(x, speed, angle, turn, still, still, still)


def started(duel, tasks, places):
    """Episodes in double precision with given starts: ``places`` [B, 4]."""
    zero = torch.zeros(len(tasks), dtype=torch.int64)
    episode = duel.reset(duel.game.params(tasks, torch.float64), zero, zero)
    return episode._replace(state=place(*torch.tensor(places, dtype=torch.float64).unbind(1)))


def numbers(state):
    return torch.stack(state[:4], 1).numpy()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_golden_transition(case):
    params = DUEL.game.params([{**TASK, **case.changes}], torch.float64)
    before = place(*(column(number) for number in case.before))
    after, outcome = DUEL.game.step(
        params, before, (torch.tensor([case.action]), column(*case.attack).unsqueeze(0)), column()
    )
    np.testing.assert_allclose(numbers(after)[0], case.after, atol=1e-7)
    np.testing.assert_allclose(outcome.reward[0], [case.reward, -case.reward], atol=1e-7)
    assert outcome.terminated.item() is case.terminated


class Both:
    """Episodes of Gymnasium's CartPole-v1 and of ours, from the same starts and with the same actions."""

    def __init__(self, n):
        self.duel = Duel(DUEL.game, horizon=500)
        self.envs = [gymnasium.make("CartPole-v1", disable_env_checker=True) for _ in range(n)]
        for seed, env in enumerate(self.envs):
            env.reset(seed=seed)
        self.alive = np.arange(n)
        self.episode = started(self.duel, [{}] * n, self.theirs())
        self.last = {(False, False)}  # (terminated, truncated) that were seen

    def theirs(self):
        return np.array([self.envs[i].unwrapped.state for i in self.alive])

    def step(self, action):
        """Take a step with ``action`` [alive] everywhere, compare everything, and drop the rows that are over."""
        push = torch.from_numpy(action.astype(np.int64))
        self.episode, transition = self.duel.step(self.episode, (push, torch.zeros(len(action), 2)))
        stepped = [self.envs[i].step(int(a)) for i, a in zip(self.alive, action, strict=True)]
        observations, rewards, terminated, truncated, _ = zip(*stepped, strict=True)
        np.testing.assert_allclose(numbers(self.episode.state), self.theirs(), atol=1e-11, rtol=0)
        for seen in self.duel.observe(self.episode):
            np.testing.assert_allclose(seen[:, :4], observations, atol=1e-6, rtol=1e-6)  # theirs are float32
        np.testing.assert_array_equal(transition.reward, np.outer(rewards, [1, -1]))
        assert transition.terminated.tolist() == list(terminated)
        assert transition.truncated.tolist() == list(truncated)
        self.last |= set(zip(terminated, truncated, strict=True))
        over = np.logical_or(terminated, truncated)
        self.alive, self.episode = self.alive[~over], take_rows(self.episode, torch.from_numpy(~over))


def test_default_contexts_and_an_idle_adversary_are_gymnasiums_cart_pole():
    both, rng = Both(1000), np.random.default_rng(0)
    while len(both.alive):
        both.step(rng.integers(0, 2, len(both.alive)))
    assert both.last == {(False, False), (True, False)}


def test_balanced_episodes_are_gymnasiums_until_its_time_limit():
    # A last place grows 10^16 fold in 500 steps of an unstable pole, so here each step starts from Gymnasium's state.
    both = Both(20)
    for _ in range(500):
        x, speed, angle, turn = both.theirs().T
        both.step(angle + 0.3 * turn + 0.05 * x + 0.1 * speed > 0)
        if len(both.alive):
            both.episode = both.episode._replace(state=place(*torch.from_numpy(both.theirs()).unbind(1)))
    assert (False, True) in both.last
    assert len(both.alive) == 0


def test_starts_are_gymnasiums():
    seeds = torch.arange(4000)
    state = numbers(DUEL.reset(DUEL.game.params([{}] * 4000), seeds, seeds * 0).state)
    env = gymnasium.make("CartPole-v1").unwrapped
    theirs = np.array([env.reset(seed=seed)[0] for seed in range(1000)])
    assert (np.abs(state) <= START).all()
    np.testing.assert_allclose(np.abs(state).max(0), np.abs(theirs).max(0), rtol=0.02)
    np.testing.assert_allclose(state.std(0), theirs.std(0), rtol=0.1)
    np.testing.assert_allclose(state.mean(0), 0, atol=0.002)


def naive(task, x, speed, angle, turn, actions):
    """One episode, written from Lagrange's equations of a cart with a uniform rod and solved as a linear system."""
    m, half = task["pole_mass"], task["half_length"]
    motor = task["gain"] * task["force"] * (-1 if task["reversed"] else 1)
    rotation = complex(math.cos(task["wiring"]), math.sin(task["wiring"]))
    for action, attack in actions:
        mixed = complex(*attack)
        mixed = rotation * mixed / max(abs(mixed), 1.0)
        tip = task["tip_force"] * mixed.real
        force = (motor if action else -motor) + task["cart_force"] * mixed.imag + tip
        c, s = math.cos(angle), math.sin(angle)
        inertia = [[task["cart_mass"] + m, m * half * c], [m * half * c, 4 / 3 * m * half**2]]
        hinge = m * task["gravity"] * half * s + tip * 2 * half * c - task["damping"] * turn
        acceleration, angular = np.linalg.solve(inertia, [force + m * half * turn**2 * s, hinge])
        x, speed, angle, turn = (
            x + 0.02 * speed,
            speed + 0.02 * acceleration,
            angle + 0.02 * turn,
            turn + 0.02 * angular,
        )
        over = abs(x) > 2.4 or abs(angle) > math.radians(12)
        yield x, speed, angle, turn, 1 - task["tracking"] * min(abs(x - task["target"]), 1), over
        if over:
            return


@pytest.mark.parametrize("split", ["train", "extrapolation"])
def test_random_episodes_equal_a_naive_second_implementation(split):
    n, rng, ends = 60, np.random.default_rng(1), []
    tasks, places = generate(SPEC, split, n, seed=4), rng.uniform(-1, 1, (n, 4)) * [2.3, 1, 0.1, 0.5]
    attacks = (rng.uniform(-1, 1, (60, n, 2)) + rng.uniform(-1, 1, (n, 2))).clip(-1, 1)
    pushes = rng.integers(0, 2, (60, n))
    episode, rows = started(DUEL, tasks, places), []
    for push, attack in zip(torch.from_numpy(pushes), torch.from_numpy(attacks), strict=True):
        episode, transition = DUEL.step(episode, (push, attack))
        rows.append(np.column_stack([numbers(episode.state), transition.reward[:, 0], transition.terminated]))
        assert torch.equal(transition.reward[:, 0], -transition.reward[:, 1])
    rows = np.stack(rows, 1)
    for i in range(n):
        expected = np.array(list(naive(tasks[i], *places[i], zip(pushes[:, i], attacks[:, i].tolist(), strict=True))))
        np.testing.assert_allclose(rows[i, : len(expected)], expected, atol=1e-9, rtol=0)
        ends.append("track" if abs(expected[-1, 0]) > 2.4 else "fallen" if expected[-1, 5] else "on")
    assert {"track", "fallen"} <= set(ends)


def test_a_steady_push_at_the_tip_is_carried_by_a_leaning_pole():
    # The pole leans against the push by atan(2 f / (m g)) and the cart is held with the same force: nothing moves.
    params = DUEL.game.params([{**TASK, "pole_mass": 0.2, "half_length": 0.7}], torch.float64)
    push = column(0.3)
    angle = -torch.atan(2 * push / (0.2 * 10.0))
    rest = accelerations(params, place(column(1.0), column(0.5), angle, column(0.0)), -push, push)
    torch.testing.assert_close(torch.stack(rest), torch.zeros(2, 1, dtype=torch.float64), atol=1e-12, rtol=0)


def test_without_forces_energy_and_momentum_are_kept():
    params = DUEL.game.params([TASK], torch.float64)
    m, total, half, gravity, none = 0.1, 1.0, 0.5, 10.0, column(0.0)

    def flow(y):
        acceleration, angular = accelerations(params, place(*y), none, none)
        return torch.stack([y[1], acceleration, y[3], angular])

    def kept(y):
        _, speed, angle, turn = y
        momentum = total * speed + m * half * turn * torch.cos(angle)
        motion = 0.5 * total * speed**2 + m * half * speed * turn * torch.cos(angle) + 2 / 3 * m * half**2 * turn**2
        return torch.stack([momentum, motion + m * gravity * half * torch.cos(angle)])

    y = torch.stack([column(0.0), column(0.4), column(1.0), column(-0.5)])
    before, h = kept(y), 2e-3
    for _ in range(1500):  # Runge-Kutta: the equations are tested here, not the step
        a = flow(y)
        b = flow(y + h / 2 * a)
        c = flow(y + h / 2 * b)
        y = y + h / 6 * (a + 2 * b + 2 * c + flow(y + h * c))
    torch.testing.assert_close(kept(y), before, atol=1e-7, rtol=0)
    assert y[2].abs() > 2  # it has fallen right through


def test_observations_do_not_depend_on_the_target_and_no_reward_is_negative():
    seeds, seen = torch.arange(32), []
    for target in (-1.2, 1.2):
        task = {**generate(SPEC, "train", 1, seed=1)[0], "target": target}
        episode = DUEL.reset(DUEL.game.params([task] * 32), seeds, seeds * 0)
        for _ in range(5):
            episode, transition = DUEL.step(episode, (torch.ones(32, dtype=torch.int64), torch.ones(32, 2)))
            assert (transition.reward[:, 0] >= 1 - task["tracking"] - 1e-6).all()
        seen.append(torch.cat(DUEL.observe(episode), 1))
    assert torch.equal(*seen)


def test_rows_that_are_played_on_stay_finite():
    names = {"pole_mass": 0.01, "half_length": 0.1, "cart_mass": 0.1, "force": 30, "tip_force": 2, "gain": 3}
    duel, n = Duel(DUEL.game, horizon=500), 8
    params, seeds = duel.game.params([names] * n), torch.arange(n)
    players = scripted(SPEC, "protagonist")["coin"], scripted(SPEC, "adversary")["ride"]
    for after, transition in steps(duel, players, duel.reset(params, seeds, seeds * 0)):
        assert np.isfinite(numbers(after.state)).all()
        assert transition.reward.isfinite().all()


def test_friction_that_contradicts_the_pole_is_refused():
    # 4 / 3 * 0.1 * 0.3^2 = 0.012 kg m^2, so at most 0.012 / 0.02 = 0.6 N m s
    DUEL.game.params([{"half_length": 0.3, "damping": 0.59}])
    with pytest.raises(
        InvalidInputError, match=r"damping=0.61 N m s .*pole_mass=0.1 kg and half_length=0.3 m allow: at mo"
    ):
        DUEL.game.params([{"half_length": 0.3, "damping": 0.61}])


def scores(role, split, informed):
    """Mean return of one informed and of every blind scripted player, by name, against the other role's panel."""
    n, seat = 100, int(role == "adversary")
    params, seeds = DUEL.game.params(sample_tasks(SPEC, n, split, seed=9)), torch.arange(n)
    others = [p for p in scripted(SPEC, ("adversary", "protagonist")[seat]).values() if p.split == split]
    means = {}
    for player in scripted(SPEC, role).values():
        if player.name == informed or not player.informed:
            pairs = [(player, other) if seat == 0 else (other, player) for other in others]
            returns = [play(DUEL, pair, params, seeds, seeds * 0).returns[:, seat].mean() for pair in pairs]
            means[player.name] = np.mean(returns)
    return means


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize(
    ("role", "informed", "blind", "share"),
    [("protagonist", "brisk", "coin", 0.2), ("adversary", "counter", "idle", 0.3)],
)
def test_knowing_the_hidden_contexts_pays(role, informed, blind, share, split):
    """The best blind player lacks a clear share of the gain of an informed player over a player that does nothing sensible."""
    means = scores(role, split, informed)
    best = means.pop(informed)
    assert best - max(means.values()) > share * (best - means[blind])
