"""Learning personas: their starts, their learning, and their share of tasks in a run's metrics."""

import csv
from dataclasses import replace

import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.tabular import PerState, TabularPolicy
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find, games
from metaduel.envs.repeated_matrix_game.opponents import memory_one_tables
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.adaptation.inner import FIRST_ORDER, unroll
from metaduel.meta.problems import personas as module
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.personas import Personas
from metaduel.meta.problems.problem import Mixture
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import make_duel, make_policy
from metaduel.meta.runs.source import DuelSource, joined_returns
from metaduel.meta.runs.train import make_learner, train
from metaduel.meta.runs.trainer import LAST

TINY = {"iterations": 2, "tasks": 4, "episodes": 2, "horizon": 4, "steps": 2, "hidden": (4,), "validate_every": 1}
TINY |= {"validation_tasks": 2, "learned_share": 0.25, "persona_share": 0.5}


def personas(game, role="adversary", **settings):
    config = TrainConfig(game=game).override(**settings)
    duel = make_duel(config)
    return Personas(duel, role, make_policy(config, duel, role), config.objective, config.persona_lr, 0.3)


@pytest.mark.parametrize("game", ["IteratedPrisonersDilemma", "RockPaperScissors", "Navigation"])
def test_splits_are_disjoint_and_draws_repeat(game):
    found = personas(game)
    drawn = {}
    for split in ("train", "validation", "held_out"):
        weights = found.sample(12, split, 1).weights
        again = found.sample(12, split, 1).weights
        assert all(torch.equal(value, again[name]) for name, value in weights.items())
        flat = torch.cat([value.flatten(1) for value in weights.values()], 1)
        assert len(flat.unique(dim=0)) == 12
        drawn[split] = {tuple(row) for row in flat.tolist()}
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["held_out"]
    assert not drawn["validation"] & drawn["held_out"]
    assert not torch.equal(next(iter(found.sample(12, "train", 2).weights.values())), next(iter(weights.values())))
    with pytest.raises(InvalidInputError, match="extrapolation"):
        found.sample(1, "extrapolation", 1)


def test_tables_follow_the_papers_recipe():
    cooperate = personas("IteratedPrisonersDilemma").sample(40, "train", 0).weights["table"].softmax(-1)[..., 0]
    assert cooperate.shape == (40, 5)
    assert (cooperate[0::2] >= 0.5).all()  # kinds in turn
    assert (cooperate[1::2] <= 0.5).all()
    moves = personas("RockPaperScissors").sample(30, "train", 0).weights["table"].softmax(-1)
    for kind in range(3):
        one = moves[kind::3]
        assert (one[..., kind] >= 1 / 3 - 1e-6).all()
        rest = [one[..., other] for other in range(3) if other != kind]
        assert torch.allclose(rest[0], rest[1], atol=1e-6)


def test_a_rate_of_one_is_a_step_along_the_discounted_return():
    spec, steps, discount = find("IteratedPrisonersDilemma"), 3, 0.96
    found = personas(spec.name, horizon=steps, discount=discount, inner_discount=discount)
    assert found.rate == steps  # the loss is per step
    duel, episodes = Duel(make_game(spec), steps), 40_000
    given = found.sample(2, "train", 0)
    # Tit-for-tat as a protagonist that stays; its logits are far apart but finite.
    sure = (memory_one_tables(spec)["tit_for_tat"].float() - 0.5) * 60
    players = {
        "protagonist": {"table": sure.repeat(2, 1, 1).requires_grad_()},
        "adversary": {"table": given.weights["table"].requires_grad_()},
    }
    row = torch.tensor([[c.default for c in spec.contexts]], dtype=torch.float64)
    losses = dict.fromkeys(players, replace(found.loss, surrogate="dice"))
    policies = dict.fromkeys(players, found.policy)
    problem = DuelProblem(duel, policies, Matchups(row.repeat(2, 1), duels=2), episodes, 5, losses)
    rates = {role: torch.full((1, 1), found.rate) for role in players}
    ends = []
    original = problem.draw

    def spy(now, shot):
        ends.append(now["adversary"]["table"].detach())
        return original(now, shot)

    problem.draw = spy
    unroll(problem, players, rates, 1, FIRST_ORDER, moving=("adversary",))
    table = given.weights["table"].detach().double().requires_grad_()
    payoffs = duel.game.params([{}], torch.float64).payoffs
    tit_for_tat = memory_one_tables(spec)["tit_for_tat"].expand(2, -1, -1)
    value = memory_one_values(tit_for_tat, table.softmax(-1), payoffs, discount, steps)[:, 1].sum()
    expected = torch.autograd.grad(value, table)[0]
    assert torch.allclose((ends[1] - ends[0]).double(), expected, atol=0.03)
    assert float(expected.abs().max()) > 0.2


def test_other_families_have_networks_that_learn_as_the_learners_do():
    found = personas("Navigation")
    assert isinstance(found.policy, MLPPolicy)
    assert found.loss == LossConfig("lvc")
    assert found.rate == 0.3
    weights = found.sample(3, "train", 0).weights
    assert weights["layer1.weight"].shape == (3, 64, 64)
    assert personas("Navigation", persona_lr=0.1).rate == 0.1
    assert isinstance(personas("IteratedPrisonersDilemma").policy, TabularPolicy)


def test_players_of_matrix_games_are_asked_once_per_state_unless_they_see_more():
    config = TrainConfig(game="RockPaperScissors")
    assert isinstance(make_policy(config, make_duel(config), "protagonist"), PerState)
    informed = config.override(informed=True, method="joint")
    assert isinstance(make_policy(informed, make_duel(informed), "protagonist"), MLPPolicy)


@pytest.mark.parametrize("game", ["IteratedPrisonersDilemma", "Navigation"])
@pytest.mark.parametrize("method", ["maml", "promp", "reptile", "rarl", "joint", "meta_mapg", "lola_dice"])
def test_a_run_meets_all_three_kinds_and_says_so(game, method, tmp_path):
    run = train(TrainConfig(game=game).override(method=method, **TINY), tmp_path / "run", quiet=True)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    for role in ("protagonist", "adversary"):
        shares = {kind: float(rows[-1][f"{role}/share_{kind}"]) for kind in ("learned", "persona", "scripted")}
        assert shares == {"learned": 0.25, "persona": 0.5, "scripted": 0.25}
        assert rows[-1][f"{role}/validation_persona_return_0"]
        assert any(row[f"{role}/return_0"] for row in rows)  # RARL's are of the player in turn
    # One chain per role and iteration; the two look-aheads of LOLA are drawn separately. Tasks: 1 duel, 2 x 1 scripted,
    # 2 x 2 with personas; ``joint`` and ``rarl`` play all shots' episodes at once.
    if game == "IteratedPrisonersDilemma" and method in ("maml", "meta_mapg"):
        assert float(rows[0]["environment_steps"]) == 7 * 2 * 4 * 3
    assert set(run.agents) == {"protagonist", "adversary"}


def test_a_persona_learns_while_it_is_met():
    config = TrainConfig(game="IteratedPrisonersDilemma", roles=("protagonist",)).override(
        method="meta_mapg", tasks=2, episodes=200, steps=3, persona_share=1.0, hidden=(4,), horizon=20
    )
    source = DuelSource(config)
    batch = source.problem(0)
    assert isinstance(batch, Mixture)
    assert [set(part.given) for part in batch.parts] == [{"adversary"}]
    update = make_learner(config, source).update(batch)
    # An untrained protagonist cooperates half of the time: the cooperative persona learns to exploit it.
    gains = [joined_returns(shot)["protagonist"][0] for shot in update.shots]
    assert len(gains) == 4
    assert gains[-1] < gains[0] - 2
    assert source.record(update)["environment_steps"] == 2 * 200 * 4 * 20


def test_the_same_iteration_is_the_same_batch_and_another_one_is_not():
    source = DuelSource(TrainConfig(game="RockPaperScissors").override(**TINY))
    tables = [source.problem(i).parts[1].given["adversary"].weights["table"] for i in (0, 0, 1)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


@pytest.mark.parametrize("method", ["meta_mapg", "lola_dice"])
@pytest.mark.parametrize("settings", [{"roles": ("protagonist",)}, {"learned_share": 0.0}])
def test_a_peer_term_without_a_learning_opponent_is_refused(method, settings):
    with pytest.raises(InvalidInputError, match="no opponent learns: set persona_share above 0"):
        TrainConfig(game="Pursuit").override(method=method, **settings)
    TrainConfig(game="Pursuit").override(method=method, persona_share=0.5, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"persona_share": 1.5}, r"persona_share=1.5 must be in \[0, 1\]"),
        ({"persona_share": 0.75}, r"persona_share=0.75 and learned_share=0.5 must be at most 1 together"),
        ({"persona_lr": 0.0}, "persona_lr=0.0 must be above 0"),
    ],
)
def test_shares_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        TrainConfig(game="Navigation").override(**settings)


def test_many_personas_are_several_problems_for_a_player_with_a_memory(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 50)  # of 20 x 2 x 3 environment steps
    config = TrainConfig(game="IteratedPrisonersDilemma", roles=("protagonist",)).override(
        method="meta_mapg", tasks=20, episodes=2, steps=1, persona_share=1.0, hidden=(4,), horizon=3
    )
    source = DuelSource(config.override(network="lstm"))
    batch = source.problem(0)
    assert [part.problem.tasks["adversary"] for part in batch.parts] == [7, 7, 6]
    tables = torch.cat([part.given["adversary"].weights["table"] for part in batch.parts])
    assert len({tuple(table.flatten().tolist()) for table in tables}) == 20
    update = make_learner(config, source).update(batch)
    assert joined_returns(update.shots[0])["protagonist"].shape == (20,)
    assert source.record(update)["environment_steps"] == 20 * 2 * 2 * 3
    assert [part.problem.tasks["adversary"] for part in DuelSource(config).problem(0).parts] == [20]


@pytest.mark.parametrize("game", games())
def test_games_that_claim_few_states_show_one_of_them(game):
    duel = Duel(make_game(find(game)))
    states = duel.game.states
    tables = duel.game.personas(3, 0)
    if not states:
        assert tables is None
        return
    params = duel.game.params([{}] * 4)
    rows = duel.reset(params, torch.arange(4), torch.zeros(4, dtype=torch.int64))
    assert tables.shape == (3, states, duel.action_space("adversary").n)
    for _ in range(3):
        for observation in duel.observe(rows):
            assert observation.shape[1] == states
            assert (observation.sum(1) == 1).all()
            assert (observation.amax(1) == 1).all()
        rows, _ = duel.step(rows, (torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])))


@pytest.mark.parametrize("method", ["meta_pg", "meta_mapg", "lola_dice"])
def test_a_run_with_personas_gives_the_same_numbers_again_and_interrupted(method, tmp_path, monkeypatch):
    config = TrainConfig(game="RockPaperScissors").override(method=method, **(TINY | {"iterations": 3}))
    train(config, tmp_path / "one", quiet=True)
    original = DuelSource.problem

    def problem(self, iteration):
        if iteration == 2:
            raise KeyboardInterrupt
        return original(self, iteration)

    monkeypatch.setattr(DuelSource, "problem", problem)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "two", quiet=True)
    monkeypatch.undo()
    train(config, tmp_path / "two", resume=True, quiet=True)
    one, two = (load_checkpoint(tmp_path / name / LAST)[0] for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
