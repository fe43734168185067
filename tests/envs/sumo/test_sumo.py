"""Sumo against arithmetic, against a second implementation, its conservation laws, and its headroom for adaptation."""

import math

import numpy as np
import pytest
import torch

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.geometry import length
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import SPLITS, generate
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play, steps
from metaduel.envs.players.scripted import scripted
from metaduel.envs.sumo.cases import CASES, TASK
from metaduel.envs.sumo.game import CLIMB, FEEL, State, between, move, winner

SPEC = find("Sumo")
DUEL = Duel(make_game(SPEC))
KNOWING = {role: [name for name, player in scripted(SPEC, role).items() if player.informed] for role in ROLES}
BLIND = {role: [name for name, player in scripted(SPEC, role).items() if not player.informed] for role in ROLES}


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_golden_transition(case):
    params = DUEL.game.params([TASK], torch.float64)
    state = State(row(*case.positions), row(*case.velocities), torch.ones(1, dtype=torch.float64))
    after, outcome = DUEL.game.step(params, state, (row(*case.actions[0]), row(*case.actions[1])), row())
    torch.testing.assert_close(after.position, row(*case.positions_after), atol=1e-7, rtol=0)
    torch.testing.assert_close(after.velocity, row(*case.velocities_after), atol=1e-7, rtol=0)
    torch.testing.assert_close(outcome.reward, row(case.reward, -case.reward), atol=1e-7, rtol=0)
    assert outcome.terminated.item() is case.terminated


class Naive:
    """One episode in plain Python, written from the docstring's tables; the moment of contact is found by bisection."""

    def __init__(self, task, protagonist, adversary):
        self.task, self.p, self.v = task, [list(protagonist), list(adversary)], [[0.0, 0.0], [0.0, 0.0]]
        self.mass = [task[f"{role}_mass"] for role in ROLES]
        self.touch = sum(0.15 * mass**0.5 for mass in self.mass)
        self.down = (math.cos(task["tilt_direction"]), math.sin(task["tilt_direction"]))
        self.contacts = 0

    def below(self):
        return sum((self.p[1][k] - self.p[0][k]) * self.down[k] for k in (0, 1))

    def apart(self, s):
        return math.dist(*([p + 0.1 * s * v for p, v in zip(self.p[i], self.v[i], strict=True)] for i in (0, 1)))

    def meeting(self):
        """The share of the step after which they touch, or None."""
        closing = sum((self.p[1][k] - self.p[0][k]) * (self.v[1][k] - self.v[0][k]) for k in (0, 1))
        if closing >= 0:
            return None
        if self.apart(0) <= self.touch:
            return 0.0
        # The distance has one minimum along two straight paths: thirds find it, halves the moment before it.
        low, high = 0.0, 1.0
        for _ in range(100):
            thirds = low + (high - low) / 3, high - (high - low) / 3
            low, high = (thirds[0], high) if self.apart(thirds[0]) > self.apart(thirds[1]) else (low, thirds[1])
        if self.apart(high) > self.touch:
            return None
        low = 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.apart(middle) <= self.touch else (middle, high)
        return high

    def step(self, actions):
        before = self.below()
        for i, role in enumerate(ROLES):
            size = max(1.0, math.hypot(*actions[i]))
            for k in (0, 1):
                push = self.task[f"{role}_force"] * actions[i][k] / size / self.mass[i]
                slide = self.task["tilt"] * self.down[k] - self.task["friction"] * self.v[i][k]
                self.v[i][k] += 0.1 * (push + slide)
        share = self.meeting()
        parts = (1.0,) if share is None else (share, 1 - share)
        for number, part in enumerate(parts):
            for i in (0, 1):
                self.p[i] = [p + 0.1 * part * v for p, v in zip(self.p[i], self.v[i], strict=True)]
            if len(parts) == 2 and number == 0:
                self.collide()
        reward = 0.15 * (self.below() - before)
        far = [math.hypot(*p) for p in self.p]
        if max(far) <= self.task["ring_radius"]:
            return reward, False
        return reward + (1 if far[1] > far[0] else -1), True

    def collide(self):
        self.contacts += 1
        gap = [b - a for a, b in zip(*self.p, strict=True)]
        normal = [x / math.hypot(*gap) for x in gap]
        along = [sum(v * n for v, n in zip(self.v[i], normal, strict=True)) for i in (0, 1)]
        # Both keep their momentum's sum and part at restitution times the speed at which they met.
        total, meeting = sum(self.mass), along[0] - along[1]
        common = (self.mass[0] * along[0] + self.mass[1] * along[1]) / total
        parting = self.task["restitution"] * meeting
        after = [common - parting * self.mass[1] / total, common + parting * self.mass[0] / total]
        for i in (0, 1):
            self.v[i] = [v + (after[i] - along[i]) * n for v, n in zip(self.v[i], normal, strict=True)]


def test_random_episodes_equal_a_naive_second_implementation():
    n, rng, seen = 40, np.random.default_rng(0), []
    tasks = [{**task, "tilt": task["tilt"] * rng.uniform()} for task in generate(SPEC, "train", n, seed=4)]
    episode = DUEL.reset(DUEL.game.params(tasks, torch.float64), torch.arange(n), torch.zeros(n, dtype=torch.int64))
    naive = [Naive(task, *place.tolist()) for task, place in zip(tasks, episode.state.position, strict=True)]
    alive = set(range(n))
    for _ in range(50):
        gap = between(episode.state.position).numpy()
        actions = rng.uniform(-1, 1, (2, n, 2)) + np.stack([gap, -gap])  # so that many meet
        episode, transition = DUEL.step(episode, (torch.tensor(actions[0]), torch.tensor(actions[1])))
        for i in sorted(alive):
            reward, over = naive[i].step(actions[:, i])
            assert transition.reward[i].tolist() == pytest.approx([reward, -reward], abs=1e-7)
            assert episode.state.position[i].tolist() == [pytest.approx(p, abs=1e-7) for p in naive[i].p]
            assert episode.state.velocity[i].tolist() == [pytest.approx(v, abs=1e-6) for v in naive[i].v]
            assert transition.terminated[i].item() is over
            if over:
                alive.discard(i)
                seen.append(round(reward))
    assert {-1, 1} <= set(seen)
    assert len(alive) < n
    assert sum(one.contacts > 0 for one in naive) > n / 2


def clash(n, **contexts):
    """Discs that are about to meet, each pair in its own way: params, state, and what they do after one step."""
    rng = torch.Generator().manual_seed(0)

    def uniform(*shape):
        return torch.rand(*shape, generator=rng, dtype=torch.float64) * 2 - 1

    params = DUEL.game.params([{**task, **contexts} for task in generate(SPEC, "train", n, seed=6)], torch.float64)
    gap = uniform(n, 2)
    gap = gap / length(gap).unsqueeze(1) * (params.touch + 0.1 * uniform(n).abs()).unsqueeze(1)
    position = torch.stack([uniform(n, 2), torch.zeros(n, 2, dtype=torch.float64)], 1)
    position[:, 1] = position[:, 0] + gap
    velocity = torch.stack([gap, -gap], 1) * 5 + uniform(n, 2, 2)
    state = State(position, velocity, torch.ones(n, dtype=torch.float64))
    return params, state, (uniform(n, 2), uniform(n, 2))


def free(params, state, actions):
    """Velocities after a step in which they pass through each other: the same step with the discs far apart."""
    far = state.position + torch.tensor([[0.0, 0.0], [100.0, 0.0]], dtype=torch.float64)
    return move(params, state._replace(position=far), actions)[1]


def momentum(params, velocity):
    return params.protagonist_mass.unsqueeze(1) * velocity[:, 0] + params.adversary_mass.unsqueeze(1) * velocity[:, 1]


def energy(params, velocity):
    squares = velocity.square().sum(2)
    return 0.5 * (params.protagonist_mass * squares[:, 0] + params.adversary_mass * squares[:, 1])


def test_contact_conserves_momentum():
    # With forces, tilt and friction at work: contact adds nothing to what they do alone.
    params, state, actions = clash(500)
    before, (position, after) = free(params, state, actions), move(params, state, actions)
    met = (before != after).flatten(1).any(1)
    assert met.sum() > 300
    torch.testing.assert_close(momentum(params, after), momentum(params, before), atol=1e-12, rtol=0)
    # Nor does it move the centre of mass.
    moved = momentum(params, position - state.position)
    torch.testing.assert_close(moved, 0.1 * momentum(params, before), atol=1e-12, rtol=0)


def test_without_forces_tilt_and_friction_momentum_never_changes():
    idle = {"tilt": 0.0, "friction": 0.0, "protagonist_force": 0.0, "adversary_force": 0.0}
    params, state, actions = clash(200, **idle)
    first = momentum(params, state.velocity)
    for _ in range(50):
        state, _ = DUEL.game.step(params, state, actions, row())
    torch.testing.assert_close(momentum(params, state.velocity), first, atol=1e-12, rtol=0)


@pytest.mark.parametrize("restitution", [0.0, 0.5, 1.0])
def test_restitution_is_the_share_of_the_closing_speed_that_comes_back(restitution):
    params, state, actions = clash(500, restitution=restitution)
    before, (position, after) = free(params, state, actions), move(params, state, actions)
    met = (before != after).flatten(1).any(1)
    # Where they met: back from where they ended, with the speeds that they had then.
    kick = (after - before)[met][:, 0]
    normal = kick / length(kick).unsqueeze(1)
    closing, parting = ((between(v)[met] * normal).sum(1) for v in (before, after))
    torch.testing.assert_close(parting, -restitution * closing, atol=1e-9, rtol=0)
    lost = (energy(params, before) - energy(params, after))[met]
    assert (lost.abs() < 1e-9).all() if restitution == 1 else (lost > 0).all()
    assert (length(between(position)) >= params.touch - 1e-9).all()


def test_however_fast_they_never_pass_through_each_other():
    params, state, actions = clash(500)
    fast = state._replace(velocity=state.velocity * 20)
    position, _ = move(params, fast, actions)
    assert (length(between(position)) >= params.touch - 1e-9).all()


def test_alone_on_the_slope_they_reach_the_known_terminal_speed():
    # dv/dt = tilt - friction * v settles at tilt / friction = 1.3 / 2 down the slope, for every mass.
    params = DUEL.game.params([{"tilt_direction": 2.0}], torch.float64)
    apart = torch.tensor([[[0.0, -50.0], [0.0, 50.0]]], dtype=torch.float64)
    state = State(apart, torch.zeros_like(apart), torch.ones(1, dtype=torch.float64))
    for _ in range(200):
        state, _ = DUEL.game.step(params, state, (row(0, 0), row(0, 0)), row())
    expected = [[[0.65 * math.cos(2.0), 0.65 * math.sin(2.0)]] * 2]
    torch.testing.assert_close(state.velocity, torch.tensor(expected, dtype=torch.float64))


def test_what_they_feel_does_not_depend_on_the_tilt():
    # The tilt pulls at both alike: in float64, nothing but the last digits of what they feel knows of it.
    n, seen = 200, []
    tasks = generate(SPEC, "train", n, seed=8)
    seeds = torch.arange(n)
    for tilt, direction in ((0.0, 0.0), (1.5, 2.0)):
        changed = [{**task, "tilt": tilt, "tilt_direction": direction} for task in tasks]
        episode = DUEL.reset(DUEL.game.params(changed, torch.float64), seeds, seeds * 0)
        rng, said = np.random.default_rng(0), []
        for _ in range(50):
            gap = between(episode.state.position).numpy()
            push = rng.uniform(-1, 1, (2, n, 2)) + np.stack([gap, -gap])
            episode, _ = DUEL.step(episode, (torch.tensor(push[0]), torch.tensor(push[1])))
            said.append(torch.cat(DUEL.observe(episode), 1))
        seen.append(torch.stack(said))
    torch.testing.assert_close(*seen, atol=1e-6, rtol=0)
    assert 0 < seen[0][..., 4].mean() < 1  # both cases: felt, and too far


def test_observations_are_each_players_own_side():
    params = DUEL.game.params([TASK])
    position = torch.tensor([[[0.1, 0.2], [0.4, 0.6]]])  # 0.5 apart, 0.05 between the discs
    state = State(position, torch.tensor([[[0.6, 0.7], [0.8, 1.0]]]), torch.tensor([0.25]))
    protagonist, adversary = DUEL.game.observe(params, state)
    torch.testing.assert_close(protagonist[0], torch.tensor([0.3, 0.4, 0.2, 0.3, 1, 0.25]))
    torch.testing.assert_close(adversary[0], torch.tensor([-0.3, -0.4, -0.2, -0.3, 1, 0.25]))
    for other, felt in ((0.79, 1), (0.81, 0)):  # they touch at 0.45 and feel up to 0.25 more: at 0.1 + 0.7
        near = state._replace(position=torch.tensor([[[0.1, 0.2], [other, 0.2]]]))
        for seen in DUEL.game.observe(params, near):
            assert seen[0, 4] == felt
            assert seen[0, :4].any() == felt


@pytest.mark.parametrize("split", ["train", "extrapolation"])
def test_starts_are_opposite_at_rest_and_not_felt(split):
    n = 500
    params, seeds = DUEL.game.params(generate(SPEC, split, n, seed=1)), torch.arange(n)
    episode = DUEL.reset(params, seeds, seeds * 0)
    state = episode.state
    assert torch.equal(state.position[:, 0], -state.position[:, 1])
    torch.testing.assert_close(length(state.position)[:, 0], 0.35 * params.ring_radius)
    assert not state.velocity.any()
    assert (state.left == 1).all()
    assert not DUEL.observe(episode)[0][:, :5].any()
    uphill = (state.position[:, 0] * params.down).sum(1)
    assert uphill.mean().abs() < 0.05


def test_a_ring_without_room_for_both_is_refused_with_the_values():
    # Radii 0.15 and 0.3 touch at 0.45 m; starts are 0.7 rings apart: 0.45 / 0.7 = 0.6429.
    task = {"protagonist_mass": 1.0, "adversary_mass": 4.0}
    DUEL.game.params([{**task, "ring_radius": 0.643}])
    words = r"ring_radius=0\.642 .* protagonist_mass=1 and adversary_mass=4: it must be at least 0\.6429 m"
    with pytest.raises(InvalidInputError, match=words):
        DUEL.game.params([{**task, "ring_radius": 0.642}])
    with pytest.raises(InvalidInputError, match=r"ring_radius=0\.1 .*protagonist_mass=1 "):
        make_game(SPEC).params([{"ring_radius": 0.1}])  # smaller than a disc


def rollout(names, n, split="validation"):
    """Episodes, and how much higher than the adversary the protagonist starts."""
    players = tuple(load_player(DUEL, role, name) for role, name in zip(ROLES, names, strict=True))
    params, seeds = DUEL.game.params(generate(SPEC, split, n, seed=9)), torch.arange(n)
    start = between(DUEL.reset(params, seeds, seeds * 0).state.position)
    return play(DUEL, players, params, seeds, seeds * 0), (start * params.down).sum(1)


def test_the_clock_runs_out_to_a_draw():
    played, _ = rollout(("stand", "stand"), 50)
    assert played.length.tolist() == [50] * 50
    assert not played.terminated.any()
    torch.testing.assert_close(played.returns, torch.zeros(50, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("names", [("bulldoze", "sway"), ("charge", "high_ground"), ("drunk", "drunk")])
def test_endings_are_ordered_and_the_climb_telescopes(names, split):
    # Without the climb's constant start, the return is the outcome plus 0.15 x the lead in height at the end.
    played, start = rollout(names, 200, split)
    value, ring = played.returns[:, 0] + CLIMB * start, 1.3
    most = CLIMB * 2 * (ring + 0.3)  # both on opposite sides, and a step out
    assert (value[~played.terminated].abs() <= CLIMB * 2 * ring).all()
    ended = value[played.terminated]
    assert len(ended) > 0
    assert ((ended.abs() - 1).abs() <= most).all()
    assert (ended.abs() > CLIMB * 2 * ring).all()  # leaving is worse than surviving anywhere
    assert torch.equal(played.returns[:, 0], -played.returns[:, 1])


def test_who_is_out_alone_or_further_out_has_lost():
    params = DUEL.game.params([TASK] * 5)
    places = [[0.5, 0.9], [0.5, 1.1], [1.1, 0.5], [1.1, 1.2], [1.2, 1.2]]
    position = torch.tensor([[[a, 0.0], [0.0, b]] for a, b in places])
    assert winner(params, position).tolist() == [0, 1, -1, 1, 0]


@pytest.fixture(scope="module")
def table():
    """The protagonist's mean return: {(protagonist, adversary): one per split}."""
    n = 60
    params = DUEL.game.params([task for split in SPLITS for task in generate(SPEC, split, n, seed=9)])
    seeds, players = torch.arange(n * len(SPLITS)), [scripted(SPEC, role) for role in ROLES]
    return {
        (p, a): play(DUEL, (players[0][p], players[1][a]), params, seeds, seeds * 0).returns[:, 0].view(-1, n).mean(1)
        for p in players[0]
        for a in players[1]
    }


@pytest.mark.parametrize("panel", ["train", "held_out"])
@pytest.mark.parametrize("role", ROLES)
def test_knowing_the_tilt_pays_on_every_split(table, role, panel):
    others = SPEC.opponents[ROLES[1 - ROLES.index(role)]][panel]

    def score(name):
        if role == "protagonist":
            return sum(table[name, other] for other in others) / len(others)
        return -sum(table[other, name] for other in others) / len(others)

    best = [torch.stack([score(name) for name in names[role]]).max(0).values for names in (KNOWING, BLIND)]
    assert (best[0] - best[1] > 0.6).all()


def test_a_player_that_searches_for_the_opponent_usually_finds_it():
    # Otherwise Sumo would be a game of standing.
    n = 200
    params, seeds = DUEL.game.params(generate(SPEC, "validation", n, seed=9)), torch.arange(n)
    for names in (("bulldoze", "stand"), ("stand", "bulldoze")):
        players = tuple(load_player(DUEL, role, name) for role, name in zip(ROLES, names, strict=True))
        felt = torch.zeros(n, dtype=torch.bool)
        for rows, _ in steps(DUEL, players, DUEL.reset(params, seeds, seeds * 0)):
            felt |= length(between(rows.state.position)) < params.touch + FEEL
        assert felt.float().mean() > 0.5


@pytest.mark.parametrize("role", ROLES)
def test_the_listed_players_are_the_scripted_ones(role):
    assert set(scripted(SPEC, role)) == set(sum(SPEC.opponents[role].values(), ()))
    for split in ("train", "held_out"):
        assert set(SPEC.opponents[role][split]) == {n for n, p in scripted(SPEC, role).items() if p.split == split}
    assert len(KNOWING[role]) == len(BLIND[role]) == 6
