"""Pendulum against arithmetic, against Gymnasium, against a second implementation; and the value of hidden contexts."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import generate, sample_tasks
from metaduel.envs.pendulum.cases import CASES, TASK
from metaduel.envs.pendulum.game import DT, State
from metaduel.envs.players.play import play
from metaduel.envs.players.scripted import scripted

SPEC = find("Pendulum")
DUEL = Duel(make_game(SPEC))


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def place(angle, speed):
    return State(angle, speed, torch.zeros_like(angle), torch.zeros_like(angle))


def started(duel, tasks, angle, speed):
    """Episodes in double precision with given starts."""
    zero = torch.zeros(len(tasks), dtype=torch.int64)
    episode = duel.reset(duel.game.params(tasks, torch.float64), zero, zero)
    return episode._replace(state=place(column(*angle), column(*speed)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_golden_transition(case):
    params = DUEL.game.params([{**TASK, **case.changes}], torch.float64)
    actions = column(case.action).unsqueeze(1), column(case.attack).unsqueeze(1)
    after, outcome = DUEL.game.step(params, place(column(case.angle), column(case.speed)), actions, column())
    torch.testing.assert_close(after.angle, column(case.angle_after), atol=1e-7, rtol=0)
    torch.testing.assert_close(after.speed, column(case.speed_after), atol=1e-7, rtol=0)
    torch.testing.assert_close(outcome.reward[0], column(-case.cost, case.cost), atol=1e-7, rtol=0)
    assert not outcome.terminated


def test_default_contexts_and_an_idle_adversary_are_gymnasiums_pendulum():
    # 1,000 episodes of 200 random actions. Sines of two libraries differ in the last place: 1e-9 rad over an episode.
    n, rng, duel = 1000, np.random.default_rng(0), Duel(DUEL.game, horizon=200)
    envs = [gymnasium.make("Pendulum-v1", disable_env_checker=True) for _ in range(n)]
    for i, env in enumerate(envs):
        env.reset(seed=i)
    episode = started(duel, [{}] * n, *np.array([env.unwrapped.state for env in envs]).T)
    actions = rng.uniform(-1, 1, (200, n)).round(3)
    actions[:, ::2] = np.sign(
        actions[:1, ::2]
    )  # every other one keeps full torque to one side: fast turns, the top speed
    for action in actions:
        column_of = torch.from_numpy(action).unsqueeze(1)
        episode, transition = duel.step(episode, (column_of, torch.zeros(n, 1)))
        theirs = [env.step(np.array([2 * a])) for env, a in zip(envs, action, strict=True)]
        state = np.array([env.unwrapped.state for env in envs])
        np.testing.assert_allclose(episode.state.angle, state[:, 0], atol=1e-9, rtol=0)
        np.testing.assert_allclose(episode.state.speed, state[:, 1], atol=1e-9, rtol=0)
        observations, rewards, terminated, truncated, _ = zip(*theirs, strict=True)
        for seen in duel.observe(episode):
            np.testing.assert_allclose(seen[:, :3], np.array(observations), atol=1e-6, rtol=0)  # theirs are float32
        np.testing.assert_allclose(transition.reward[:, 0], rewards, atol=1e-8, rtol=0)
        assert transition.terminated.tolist() == list(terminated)
        assert transition.truncated.tolist() == list(truncated)
    assert all(truncated)
    assert (episode.state.angle.abs() > 3 * math.pi).any()


def test_starts_are_gymnasiums():
    seeds = torch.arange(4000)
    state = DUEL.reset(DUEL.game.params([{}] * 4000), seeds, seeds * 0).state
    env = gymnasium.make("Pendulum-v1").unwrapped
    theirs = []
    for seed in range(1000):
        env.reset(seed=seed)
        theirs.append(env.state)
    for ours, other in zip((state.angle, state.speed), np.array(theirs).T, strict=True):
        assert ours.abs().max().item() == pytest.approx(np.abs(other).max(), rel=0.01)
        assert ours.std().item() == pytest.approx(other.std(), rel=0.1)
        assert abs(ours.mean().item()) < 0.05 * ours.abs().max()


def naive(task, angle, speed, actions):
    """One episode in plain Python, written from the docstring's tables: (angle, speed, reward) after every step."""
    inertia = task["mass"] * task["length"] ** 2 / 3
    for mine, theirs in actions:
        torque = mine * task["torque"] * task["gain"] * (-1 if task["reversed"] else 1)
        attack = theirs * task["adversary_torque"] * (-1 if task["adversary_reversed"] else 1)
        gap = math.atan2(math.sin(angle - task["target"]), math.cos(angle - task["target"]))
        reward = -(gap**2) - 0.1 * speed**2 - 0.001 * torque**2
        gravity = task["mass"] * task["gravity"] * task["length"] / 2 * math.sin(angle)
        speed += 0.05 * (gravity + torque + attack - task["damping"] * speed) / inertia
        speed = max(-8.0, min(8.0, speed))
        angle += 0.05 * speed
        yield angle, speed, reward


@pytest.mark.parametrize("split", ["train", "extrapolation"])
def test_random_episodes_equal_a_naive_second_implementation(split):
    n, rng = 40, np.random.default_rng(1)
    tasks = generate(SPEC, split, n, seed=4)
    angle, speed = rng.uniform(-3, 3, n), rng.uniform(-1, 1, n)
    actions = (rng.uniform(-1, 1, (100, 2, n)) + rng.uniform(-1, 1, (2, n))).clip(-1, 1)
    episode, rows = started(DUEL, tasks, angle, speed), []
    for mine, theirs in torch.from_numpy(actions):
        episode, transition = DUEL.step(episode, (mine.unsqueeze(1), theirs.unsqueeze(1)))
        rows.append(torch.stack([episode.state.angle, episode.state.speed, transition.reward[:, 0]], 1))
        assert torch.equal(transition.reward[:, 0], -transition.reward[:, 1])
    rows = torch.stack(rows, 1)
    for i in range(n):
        expected = list(naive(tasks[i], angle[i], speed[i], actions[:, :, i].tolist()))
        np.testing.assert_allclose(rows[i], expected, atol=1e-7, rtol=0)
    assert (rows[:, :, 1].abs() == 8).any()


def test_a_torque_that_carries_the_weight_holds_still():
    # Gravity twists by m g l / 2 sin(angle): the motor against it, wherever it stands.
    task = {"torque": 6.0, "mass": 1.1, "length": 0.9, "gravity": 9.0}
    angle = np.linspace(-3, 3, 9)
    episode = started(DUEL, [task] * 9, angle, 0 * angle)
    action = -column(*np.sin(angle)) * 1.1 * 9.0 * 0.9 / 2 / 6.0
    for _ in range(20):
        episode, _ = DUEL.step(episode, (action.unsqueeze(1), torch.zeros(9, 1)))
    np.testing.assert_allclose(episode.state.angle, angle, atol=1e-9)


def test_small_swings_keep_their_amplitude_and_take_the_known_time():
    # Hanging, semi-implicit Euler swings with cos(w' dt) = 1 - (w dt)^2 / 2, where w^2 = 3 g / (2 l), for ever.
    episode = started(Duel(DUEL.game, horizon=400), [{"gravity": 8.0, "length": 1.2}], [math.pi + 1e-3], [0.0])
    swings = []
    for _ in range(400):
        episode, _ = DUEL.step(episode, (torch.zeros(1, 1), torch.zeros(1, 1)))
        swings.append(episode.state.angle.item() - math.pi)
    true = math.acos(1 - 3 * 8.0 / (2 * 1.2) * DT**2 / 2)
    crossings = np.flatnonzero(np.diff(np.sign(swings)))
    assert (len(crossings) - 1) / (crossings[-1] - crossings[0]) == pytest.approx(true / math.pi, rel=0.01)
    first, last = np.abs(swings[:100]).max(), np.abs(swings[-100:]).max()
    assert last == pytest.approx(first, rel=0.01)


def test_observations_do_not_depend_on_the_target():
    seeds, seen = torch.arange(32), []
    for target in (-2.0, 1.0):
        episode = DUEL.reset(DUEL.game.params([{"target": target}] * 32), seeds, seeds * 0)
        for _ in range(5):
            episode, _ = DUEL.step(episode, (torch.ones(32, 1), torch.ones(32, 1)))
        seen.append(torch.cat(DUEL.observe(episode), 1))
    assert torch.equal(*seen)


def test_friction_that_contradicts_the_rod_is_refused():
    # 0.6 kg and 0.5 m: inertia 0.05 kg m^2, so at most 0.05 / 0.05 = 1 N m s
    DUEL.game.params([{"mass": 0.6, "length": 0.5, "damping": 0.99}])
    with pytest.raises(InvalidInputError, match=r"damping=1.01 N m s .*mass=0.6 kg and length=0.5 m allow: at most 1,"):
        DUEL.game.params([{"mass": 0.6, "length": 0.5, "damping": 1.01}])


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
    [("protagonist", "servo", "wander", 0.4), ("adversary", "away", "idle", 0.3)],
)
def test_knowing_the_hidden_contexts_pays(role, informed, blind, share, split):
    """The best blind player lacks a clear share of the gain of an informed player over a player that does nothing sensible."""
    means = scores(role, split, informed)
    best = means.pop(informed)
    assert best - max(means.values()) > share * (best - means[blind])
