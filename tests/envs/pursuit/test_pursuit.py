"""Pursuit against arithmetic, against a second implementation, and its headroom for adaptation."""

import math

import numpy as np
import pytest
import torch

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import generate
from metaduel.envs.core.trees import take_rows
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play
from metaduel.envs.players.scripted import scripted
from metaduel.envs.pursuit.cases import CASES, TASK
from metaduel.envs.pursuit.game import CAPTURE, RACE, State, lead

SPEC = find("Pursuit")
DUEL = Duel(make_game(SPEC))


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
    """One episode in plain Python, written from the docstring's tables."""

    def __init__(self, task, evader, pursuer):
        self.task, self.p, self.v = task, [list(evader), list(pursuer)], [[0.0, 0.0], [0.0, 0.0]]
        self.gate = (math.cos(task["gate_angle"]), math.sin(task["gate_angle"]))

    def lead(self):
        return math.dist(self.p[1], self.gate) - math.dist(self.p[0], self.gate)

    def step(self, actions):
        task, before = self.task, self.lead()
        for i, name in enumerate(("evader", "pursuer")):
            thrust = list(actions[i])
            if math.hypot(*thrust) > 1:
                thrust = [t / math.hypot(*actions[i]) for t in thrust]
            for k in (0, 1):
                self.v[i][k] += 0.1 * (task[f"{name}_acceleration"] * thrust[k] - task["drag"] * self.v[i][k])
            speed = math.hypot(*self.v[i])
            if speed > task[f"{name}_speed"]:
                self.v[i] = [x * task[f"{name}_speed"] / speed for x in self.v[i]]
            start = self.p[i]
            self.p[i] = [x + 0.1 * v for x, v in zip(start, self.v[i], strict=True)]
            if name == "pursuer" and math.hypot(*self.p[i]) > 1:
                was = self.p[i]
                self.p[i] = [x / math.hypot(*was) for x in was]
                self.v[i] = [v + (x - y) / 0.1 for v, x, y in zip(self.v[i], self.p[i], was, strict=True)]
        reward = 0.4 * (self.lead() - before)
        if math.dist(*self.p) < 0.15:
            return reward - 1, True
        radius = math.hypot(*self.p[0])
        if radius <= 1:
            return reward, False
        crossed = [x / radius for x in self.p[0]]
        return reward + (1 if math.dist(crossed, self.gate) <= task["gate_width"] / 2 else -1), True


def test_random_episodes_equal_a_naive_second_implementation():
    n, rng, seen = 60, np.random.default_rng(0), []
    tasks = generate(SPEC, "train", n, seed=4)
    episode = DUEL.reset(DUEL.game.params(tasks, torch.float64), torch.arange(n), torch.zeros(n, dtype=torch.int64))
    naive = [Naive(task, *place.tolist()) for task, place in zip(tasks, episode.state.position, strict=True)]
    alive = set(range(n))
    drift = rng.uniform(-1, 1, (2, n, 2))  # so that many reach the wall
    for _ in range(50):
        actions = rng.uniform(-1, 1, (2, n, 2)) + drift
        episode, transition = DUEL.step(episode, (torch.tensor(actions[0]), torch.tensor(actions[1])))
        for i in sorted(alive):
            reward, over = naive[i].step(actions[:, i])
            assert transition.reward[i].tolist() == pytest.approx([reward, -reward], abs=1e-9)
            assert episode.state.position[i].flatten().tolist() == pytest.approx(
                [*naive[i].p[0], *naive[i].p[1]], abs=1e-9
            )
            assert episode.state.velocity[i].flatten().tolist() == pytest.approx(
                [*naive[i].v[0], *naive[i].v[1]], abs=1e-8
            )
            assert transition.terminated[i].item() is over
            if over:
                alive.discard(i)
                seen.append(round(reward))
    assert {-1, 1} <= set(seen)
    assert 0 < len(alive) < n


def rollout(names, n, split="validation"):
    """Returns, and per row the lead in the race at the start and at the end, and how it ended."""
    players = [load_player(DUEL, role, name) for role, name in zip(("protagonist", "adversary"), names, strict=True)]
    params = DUEL.game.params(generate(SPEC, split, n, seed=9))
    seeds = torch.arange(n)
    episode = DUEL.reset(params, seeds, seeds * 0)
    returns = play(DUEL, tuple(players), params, seeds, seeds * 0)
    return returns, lead(episode.state.position, params.gate)


@pytest.mark.parametrize("names", [("flee", "chase"), ("loiter", "goalie"), ("feint", "lead"), ("sweep", "herd")])
def test_endings_are_ordered_and_the_race_telescopes(names):
    # Without the race's constant start, the return is the outcome plus 0.4 x the lead at the end.
    played, start = rollout(names, 300)
    value = played.returns[:, 0] + RACE * start
    survived = value[~played.terminated]
    assert (survived.abs() <= RACE * 2).all()
    lost, won = value[played.terminated & (value < 0)], value[played.terminated & (value >= 0)]
    caught = lost[(lost + 1).abs() <= RACE * CAPTURE]
    assert len(survived) + len(caught) + len(won) > 0
    assert all(caught < value.new_tensor(-RACE * 2))  # worse than surviving anywhere
    assert (won > 0.8).all()
    assert torch.equal(played.returns[:, 0], -played.returns[:, 1])


def mean_return(names):
    return rollout(names, 120)[0].returns[:, 0].mean().item()


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_knowing_the_gate_pays_for_the_evader(split):
    panel = SPEC.opponents["adversary"][split]
    names = ("dash", "dodge", "patient", "flee", "sweep", "gambler")
    score = {e: np.mean([mean_return((e, p)) for p in panel]) for e in names}
    assert (
        max(score["dash"], score["dodge"], score["patient"]) - max(score["flee"], score["sweep"], score["gambler"])
        > 0.7
    )


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_knowing_the_gate_pays_for_the_pursuer(split):
    panel = SPEC.opponents["protagonist"][split]
    blind = ("chase", "lead", "herd", "patrol", "drift")
    score = {p: -np.mean([mean_return((e, p)) for e in panel]) for p in ("guard", "goalie", *blind)}
    assert max(score["guard"], score["goalie"]) - max(score[name] for name in blind) > 0.3


def test_nothing_that_players_see_depends_on_the_gate():
    seeds = torch.arange(64)
    seen = []
    for angle in (-2.0, 1.0):
        params = DUEL.game.params([{"gate_angle": angle}] * 64)
        episode = DUEL.reset(params, seeds, seeds * 0)
        episode, _ = DUEL.step(episode, (torch.ones(64, 2), torch.ones(64, 2)))
        seen.append(torch.cat(DUEL.observe(episode), 1))
    assert torch.equal(*seen)


def test_observations_are_each_players_own_side():
    state = State(
        torch.tensor([[[0.1, 0.2], [-0.3, 0.5]]]), torch.tensor([[[0.6, 0.7], [0.8, 0.9]]]), torch.tensor([0.25])
    )
    # Apart by sqrt(0.4^2 + 0.3^2) = 0.5: out of sight; by sqrt(0.1^2 + 0.2^2) = 0.224: in sight.
    evader, pursuer = DUEL.game.observe(DUEL.game.params([TASK]), state)
    torch.testing.assert_close(evader[0], torch.tensor([0.1, 0.2, 0.6, 0.7, 0, 0, 0, 0, 0, 0.25]))
    torch.testing.assert_close(pursuer[0], torch.tensor([-0.3, 0.5, 0.8, 0.9, 0, 0, 0, 0, 0, 0.25]))
    near = state._replace(position=torch.tensor([[[0.1, 0.2], [0.0, 0.4]]]))
    evader, pursuer = DUEL.game.observe(DUEL.game.params([TASK]), near)
    torch.testing.assert_close(evader[0], torch.tensor([0.1, 0.2, 0.6, 0.7, -0.1, 0.2, 0.8, 0.9, 1, 0.25]))
    torch.testing.assert_close(pursuer[0], torch.tensor([0.0, 0.4, 0.8, 0.9, 0.1, -0.2, 0.6, 0.7, 1, 0.25]))


def test_blind_players_do_not_react_to_opponents_out_of_sight():
    # The other's place and speed may only matter to a blind scripted player within sight.
    n = 50
    params = DUEL.game.params(generate(SPEC, "train", n, seed=3))
    noise = torch.rand(n, 2)
    places = torch.full((n, 2, 2), 0.0)
    for role, seat, names in (
        ("protagonist", 0, ("sweep", "flee", "gambler")),
        ("adversary", 1, ("chase", "lead", "herd", "patrol", "drift")),
    ):
        for name in names:
            player, actions = load_player(DUEL, role, name), []
            for other in ((0.9, 0.0), (0.0, -0.8)):
                position = places.clone()
                position[:, seat] = torch.tensor([-0.2, 0.3])
                position[:, 1 - seat] = torch.tensor(other)
                velocity = torch.zeros(n, 2, 2)
                velocity[:, 1 - seat] = torch.tensor(other)
                view = View(params, State(position, velocity, torch.ones(n)), torch.zeros(n, 10), torch.ones(n).long())
                actions.append(player.act(view, torch.zeros(n, player.memory), noise[:, : player.noise])[0])
            assert torch.equal(*actions), name


def test_starts_are_apart_and_at_rest():
    seeds = torch.arange(500)
    state = DUEL.reset(DUEL.game.params([TASK] * 500), seeds, seeds * 0).state
    gap = (state.evader - state.pursuer).square().sum(1).sqrt()
    assert gap.min() >= 0.2 - 1e-6
    assert gap.max() <= 1.0 + 1e-6
    assert (state.evader.square().sum(1).sqrt() >= 0.5 - 1e-6).all()
    assert (state.pursuer.square().sum(1).sqrt() <= 0.3 + 1e-6).all()
    assert not state.velocity.any()
    assert (state.left == 1).all()
    assert (state.evader.mean(0).abs() < 0.06).all()


def test_every_scripted_player_acts_alike_alone_and_in_a_batch():
    # Bit for bit: a player with a wrong use of strided memory differs in the last place.
    n = 6
    params = DUEL.game.params(generate(SPEC, "train", n, seed=2))
    evaders, pursuers = scripted(SPEC, "protagonist"), scripted(SPEC, "adversary")
    assert set(evaders) == set(sum(SPEC.opponents["protagonist"].values(), ()))
    assert set(pursuers) == set(sum(SPEC.opponents["adversary"].values(), ()))
    seeds = torch.arange(n)
    for i, evader in enumerate(evaders.values()):
        pair = evader, list(pursuers.values())[i % len(pursuers)]
        batch = play(DUEL, pair, params, seeds, seeds * 0)
        for k in (0, n - 1):
            single = play(DUEL, pair, take_rows(params, slice(k, k + 1)), seeds[k : k + 1], seeds[:1] * 0)
            assert torch.equal(single.returns[0], batch.returns[k])


@pytest.mark.parametrize("role", ["protagonist", "adversary"])
def test_scripted_actions_stay_within_the_space(role):
    n = 200
    params = DUEL.game.params(generate(SPEC, "train", n, seed=3))
    generator = torch.Generator().manual_seed(0)
    state = State(
        torch.rand(n, 2, 2, generator=generator) * 1.4 - 0.7, torch.randn(n, 2, 2, generator=generator), torch.ones(n)
    )
    for player in scripted(SPEC, role).values():
        view = View(params, state, torch.zeros(n, 10), torch.zeros(n, dtype=torch.int64))
        action, memory = player.act(
            view, torch.zeros(n, player.memory), torch.rand(n, player.noise, generator=generator)
        )
        assert action.shape == (n, 2)
        assert memory.shape == (n, player.memory)
        assert (action.abs() <= 1).all(), player.name
