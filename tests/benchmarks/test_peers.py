"""The reproduction of learning peers: the personas, the learning of each kind of player, and the exact optimum."""

import numpy as np
import pytest
import torch

from metaduel.agents.trajectories import Carry
from metaduel.benchmarks.core import suite
from metaduel.benchmarks.studies import optimum, peers, remembering, reproduce
from metaduel.benchmarks.studies.peers import OWN
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.repeated_matrix_game.opponents import memory_one_tables
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.runs.players import initial_weights, make_duel, make_policy

IPD = "IteratedPrisonersDilemma"
PAYOFFS = make_game(find(IPD)).params([{}], torch.float64).payoffs


def small(**changes):
    """Everything of the suite, with numbers that take seconds."""
    values = suite.settings("peers")
    values |= {"seeds": 1, "shots": 2, "episodes": 4}
    for trained in values["trained"].values():
        trained |= {"iterations": 1, "tasks": 4}
    values["settings"] |= {"tasks": 4, "iterations": 1, "validate_every": 1, "validation_tasks": 2, "horizon": 10}
    for game in values["games"].values():
        game |= {"personas": 6, "validation_personas": 6}
    for rule in values["tuned"].values():
        rule["rates"] = [1.0, 3.0]
    for memory in values["remembering"].values():
        memory |= {"units": 4, "iterations": 1, "personas": 2, "lines": 2, "outer_steps": 1}
    for claim in values["claims"]:
        claim |= {"shot": 2} if "shot" in claim else {}
    values["optimum"] |= {"starts": 2, "personas": 4, "iterations": 2}
    return reproduce.make(values | changes)


def met(one, game=IPD, split="held_out", count=6, **changes):
    config = one.config(game, method="maml", surrogate="dice", **changes)
    policy = make_policy(config, make_duel(config), OWN)
    return policy, peers.meet(one, config, policy, split, count)


def test_a_small_suite_is_reported(tmp_path):
    one = small()
    found = suite.run("peers", one, tmp_path, quiet=True)
    assert (tmp_path / "report.md").exists()
    for game in one.games:
        assert (tmp_path / f"peers-{game}.png").stat().st_size > 10_000
        sheet = next(s for s in found.sheets if s.title == f"{game}: reward per step against all personas")
        assert {row[0] for row in sheet.rows} == set(one._methods(game))
        assert all(len(row) == 1 + 3 + 1 for row in sheet.rows)


def test_a_player_may_have_fewer_seeds_than_the_others():
    values = suite.settings("peers")
    values["trained"]["Meta-PG"]["seeds"] = 2
    names = [cell.name for cell in reproduce.make(values).cells()]
    assert sum("Meta-MAPG, seed" in name for name in names) == 10
    assert sum("Meta-PG" in name for name in names) == 4
    values["trained"]["Meta-PG"]["seeds"] = 0
    with pytest.raises(InvalidInputError, match="seeds"):
        reproduce.make(values)


def test_static_tit_for_tat_earns_what_was_published():
    # References: sums over l = 1..7 against 40 personas each, exact: 3.44 and (from several draws) 1.3 to 2.4.
    one = reproduce.make(suite.settings("peers"))
    them = peers.personas(one.config(IPD), met(one)[0])
    personas = them.sample(80, "held_out", Purpose.PEERS_DRAW).weights["table"].double()
    start = memory_one_tables(IPD)["tit_for_tat"].log().clamp(min=-30).unsqueeze(0).requires_grad_()
    pairs = optimum.unrolled(start, torch.zeros(1, 7, dtype=torch.float64), personas, PAYOFFS, 0.96, 7, False)
    per_step = torch.stack(
        [memory_one_values(*pair, PAYOFFS, 0.96, normalised=True)[0, :, 0] for pair in pairs]
    ).detach()
    cooperative, defecting = (float(per_step[1:, kind::2].mean(1).sum()) for kind in (0, 1))
    assert cooperative == pytest.approx(3.44, abs=0.1)
    assert 1.3 < defecting < 2.5


def test_sampled_learning_is_the_exact_one_on_average():
    one = small(episodes=2000)
    policy, meeting = met(one, count=4, horizon=20)
    start = initial_weights({OWN: policy}, 0)[OWN]
    found = peers.play(meeting, start, peers.follow(torch.tensor([[0.5 * 20]])), 2) / 20
    # The same in closed form; the network is linear in one-hot states, with a bias.
    logits = policy.prepare({n: v.unsqueeze(0) for n, v in start.items()})["log_probs"].double()
    first = memory_one_values(
        logits.exp(), meeting.persona.weights["table"].double().softmax(-1), PAYOFFS, 1.0, 20, True
    )
    assert np.abs(found[0] - first[:, 0].numpy()).max() < 0.05
    assert not np.allclose(found[0], found[2], atol=0.02)


def test_who_stays_stays_and_personas_learn():
    policy, meeting = met(small(episodes=50))
    start = initial_weights({OWN: policy}, 0)[OWN]
    found = peers.play(meeting, start, peers.still, 2)
    assert found.shape == (3, 6)
    assert np.abs(found[1] - found[0]).max() > 0  # the persona has changed


def test_looking_ahead_is_not_following():
    one = small(episodes=50)
    after = {}
    for name in ("follow", "ahead", "ahead again"):
        policy, meeting = met(one)
        start = initial_weights({OWN: policy}, 0)[OWN]
        size = torch.tensor([3.0 * meeting.problem.duel.horizon])
        rule = peers.follow(size.unsqueeze(0)) if name == "follow" else peers.look_ahead(meeting, 1, size)
        after[name] = peers.play(meeting, start, rule, 1)
    assert np.array_equal(after["ahead"], after["ahead again"])
    assert np.array_equal(after["ahead"][0], after["follow"][0])
    assert not np.array_equal(after["ahead"][1], after["follow"][1])


def test_a_player_that_remembers_does_so_over_shots_and_its_peer_learns():
    one = small()
    memory = one.remembering["RL^2"]
    config = memory.config(one.config(IPD, method="maml"))
    them = peers.personas(config, met(one)[0])
    policy, weights = remembering.learn(memory, config, them)
    meeting = peers.meet(one, config, policy, "held_out", 6)
    stacked = {name: value.unsqueeze(0) for name, value in weights.items()}
    episodes = remembering.meeting(meeting.problem, stacked, meeting.persona, 2, them)
    assert [data.observation.shape[:3] for data in episodes] == [(1, 10, 6 * 4)] * 3
    prepared = policy.prepare(stacked)
    # What was recorded is what replaying the whole chain gives.
    played = policy.played(episodes)
    hidden = policy.over_chain(prepared, played)[0, ~played.ends].view(3, 10, 6 * 4, -1)  # all steps are played
    for shot, data in enumerate(episodes):
        after = policy.end_episode(prepared, Carry(hidden[shot, -1:], policy._last(data)))
        assert torch.allclose(after.memory, data.carry.memory, atol=1e-5)
    again = remembering.learn(memory, config, them)[1]
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


def test_the_optimum_gets_better_and_its_gradient_flows_through_the_peer():
    one = small()
    own = torch.zeros(1, 5, 2, dtype=torch.float64, requires_grad=True)
    persona = torch.zeros(1, 5, 2, dtype=torch.float64)
    pairs = optimum.unrolled(own, torch.zeros(1, 1, dtype=torch.float64), persona, PAYOFFS, 0.96, 1, True)
    (through,) = torch.autograd.grad(pairs[1][1].sum((0, 1, 2))[0], own)
    assert through.abs().max() > 0  # the peer's table depends on what it learned from
    config = one.config(IPD)
    draws = peers.personas(config, met(one)[0]).sample(8, "validation", Purpose.PEERS_DRAW).weights["table"]
    sums = []
    for iterations in (1, 60):
        ascent = optimum.Ascent(games=(IPD,), starts=2, personas=8, iterations=iterations, lr=0.1)
        sums.append(optimum.best(ascent, find(IPD), config, 2, draws, draws)[1:].mean())
    assert sums[1] > sums[0] + 1


def test_what_does_not_exist_is_refused_with_the_nearest():
    values = suite.settings("peers")
    claim = values["claims"][0]
    for changes, message in (
        (
            {"claims": [claim | {"other": "tit-for-tot"}]},
            r"unknown method of a claim 'tit-for-tot' \(did you mean 'tit-for-tat'\?\)",
        ),
        ({"claims": [claim | {"game": "IPD"}]}, "unknown game of a claim 'IPD'"),
        ({"claims": [claim | {"shot": 8}]}, "shot=8 of the claim Meta-MAPG"),
        ({"claims": [claim | {"shots": 7}]}, r"unknown setting of claims 'shots' \(did you mean 'shot'\?\)"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            reproduce.make(values | changes)
