"""The reproduction of learning peers: the personas, the learning of each kind of player, and the exact optimum."""

import numpy as np
import pytest
import torch

from metaduel.agents.trajectories import Carry
from metaduel.benchmarks.core import suite
from metaduel.benchmarks.core.table import concatenate
from metaduel.benchmarks.studies import optimum, peers, remembering, reproduce
from metaduel.benchmarks.studies.peers import OWN
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.repeated_matrix_game.opponents import memory_one_tables
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.runs.players import initial_weights, make_duel, make_policy

IPD, RPS = "IteratedPrisonersDilemma", "RockPaperScissors"
PAYOFFS = make_game(find(IPD)).params([{}], torch.float64).payoffs


def small(**changes):
    """Everything of the suite, with numbers that take seconds."""
    values = suite.settings("peers")
    values |= {"seeds": 1, "shots": 2, "episodes": 4}
    for trained in values["trained"].values():
        trained |= {"iterations": 1, "tasks": 4}
    values["settings"] |= {"tasks": 4, "iterations": 1, "validate_every": 1, "validation_tasks": 2, "horizon": 10}
    for game in values["games"].values():
        game |= {"personas": 6, "validation_personas": 6, "trained": {}, "seeds": {}}
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


def test_a_player_may_have_another_number_of_seeds_than_the_others_and_settings_of_its_own_in_a_game():
    values = suite.settings("peers")
    values["trained"]["Meta-PG"]["seeds"] = 2
    values["games"][IPD] |= {"trained": {"Meta-PG": {"seeds": 7, "outer_lr": 0.7}}, "seeds": {"REINFORCE": 6}}
    cells = reproduce.make(values).cells()

    def count(game, player):
        return sum(cell.name.startswith(f"{game}, {player}, seed") for cell in cells)

    for game, meta_pg, reinforce in ((IPD, 7, 6), (RPS, 2, 5)):
        players = {"Meta-MAPG": 5, "Meta-PG": meta_pg, "REINFORCE": reinforce, "LOLA-DiCE": 5, "RL^2": 5}
        assert {player: count(game, player) for player in players} == players
    rates = {cell.name: cell.settings["learner"]["outer_lr"] for cell in cells if "Meta-" in cell.name}
    assert rates[f"{IPD}, Meta-PG, seed 6"] == 0.7
    assert rates[f"{IPD}, Meta-MAPG, seed 4"] == rates[f"{RPS}, Meta-PG, seed 1"] == 0.1
    values["trained"]["Meta-PG"]["seeds"] = 0
    with pytest.raises(InvalidInputError, match="seeds"):
        reproduce.make(values)
    values["trained"]["Meta-PG"].pop("seeds")
    for changes, message in (
        ({"trained": {"Meta-GP": {}}}, "unknown trained player 'Meta-GP'"),
        ({"seeds": {"REINFORSE": 3}}, "unknown tuned player 'REINFORSE'"),
        ({"seeds": {"REINFORCE": 0}}, "seeds=0"),
    ):
        game = values["games"][IPD] | changes
        with pytest.raises(InvalidInputError, match=message):
            reproduce.make(values | {"games": values["games"] | {IPD: game}})


def test_players_with_different_numbers_of_seeds_are_paired_by_the_seeds_of_both():
    one = reproduce.make(suite.settings("peers"))
    few, many = np.full((8, 4), 1.5), np.full((8, 4), 0.5)
    players = (("Meta-MAPG", 2, few), ("Meta-PG", 3, many))
    table = concatenate(
        [
            peers.rows(150.0 * (value + seed), find(IPD), method, seed)
            for method, count, value in players
            for seed in range(count)
        ]
    )
    claim = peers.Claim(game=IPD, method="Meta-MAPG", other="Meta-PG", shot=7)
    assert np.allclose(one._difference(table, claim, None), np.ones((2, 4)))


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
    # Meta-PG's does not; the two players' weights are the same.
    alone = optimum.unrolled(own, torch.zeros(1, 1, dtype=torch.float64), persona, PAYOFFS, 0.96, 1, True, False)
    assert torch.equal(alone[1][1], pairs[1][1])
    assert torch.autograd.grad(alone[1][1].sum(), own, allow_unused=True)[0] is None
    config = one.config(IPD)
    draws = peers.personas(config, met(one)[0]).sample(8, "validation", Purpose.PEERS_DRAW).weights["table"]
    sums = []
    for iterations in (1, 60):
        ascent = optimum.Ascent(games=(IPD,), starts=2, personas=8, iterations=iterations, lr=0.1)
        sums.append(optimum.best(ascent, find(IPD), config, 2, draws, draws)[1:].mean())
    assert sums[1] > sums[0] + 1


def test_metapg_on_exact_values_follows_the_value_against_the_peers_that_it_meets():
    # After one update, from finite differences: the peer's table is the one that it learned at the start itself.
    generator = torch.Generator().manual_seed(0)
    start, persona = (torch.randn(1, 5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    rates = torch.tensor([[0.5]], dtype=torch.float64)

    def after(own, graph=False):
        return optimum.unrolled(own, rates, persona, PAYOFFS, 0.96, 1, graph, False)[1]

    own = start.clone().requires_grad_()
    peer = after(start.clone().requires_grad_())[1].detach()
    (found,) = torch.autograd.grad(memory_one_values(*after(own, True), PAYOFFS, 0.96)[..., 0].sum(), own)
    direction, step = torch.randn(1, 5, 2, generator=generator, dtype=torch.float64), 1e-5
    up, down = (
        memory_one_values(after((start + sign * step * direction).requires_grad_())[0], peer, PAYOFFS, 0.96)[..., 0]
        for sign in (1, -1)
    )
    expected = float((up - down).detach()) / (2 * step)
    assert float((found * direction).sum()) == pytest.approx(expected, rel=1e-6)


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
