"""Budgets in steps of each player's own: ``player_steps``."""

import csv
import functools

import pytest
from pettingzoo.classic import rps_v2

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES
from metaduel.meta.learners.joint import Joint
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner, make_trainer, train, train_all, train_meta_adversarial
from metaduel.meta.runs.trainer import LAST

# Episodes of 3 steps: joint plays 4 tasks x 2 episodes x (1 + 1) shots x 3 = 48 steps of each player's own in an iteration.
TINY = TrainConfig(game="RockPaperScissors", method="joint").override(
    tasks=4, episodes=2, horizon=3, hidden=(4,), steps=1, iterations=50, validate_every=50, validation_tasks=1
)


def rows(folder):
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def steps(folder):
    """Per role its steps so far, at every iteration."""
    return {role: [float(row[f"{role}/player_steps"]) for row in rows(folder)] for role in ROLES}


def trained(config, folder, monkeypatch=None):
    scales = []
    if monkeypatch is not None:
        updating = Joint.updating
        monkeypatch.setattr(
            Joint, "updating", lambda self, problem, scale=1.0: scales.append(scale) or updating(self, problem, scale)
        )
    train(config, folder, quiet=True)
    return scales


def test_both_players_of_a_duel_count_their_steps(tmp_path):
    """2 of 4 tasks are duels: 6 tasks an iteration are played, of which each player plays 4."""
    trained(TINY.override(iterations=2), tmp_path / "run")
    assert steps(tmp_path / "run") == {role: [48.0, 96.0] for role in ROLES}
    assert [float(row["environment_steps"]) for row in rows(tmp_path / "run")] == [72.0, 144.0]


def test_the_run_ends_and_rates_decay_by_whichever_limit_comes_first(tmp_path, monkeypatch):
    scales = trained(TINY.override(player_steps=100), tmp_path / "run", monkeypatch)
    assert steps(tmp_path / "run") == {role: [48.0, 96.0, 144.0] for role in ROLES}
    assert scales == pytest.approx([1.0, 1 - 0.9 * 0.48, 1 - 0.9 * 0.96])
    scales = trained(TINY.override(player_steps=10_000, environment_steps=144), tmp_path / "both", monkeypatch)
    assert scales == pytest.approx([1.0, 1 - 0.9 * 0.5])


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("maml", {}, [48.0, 96.0]),
        ("reptile", {}, [24.0, 48.0, 72.0, 96.0]),  # no batch tests the last update
        ("rl2", {}, [48.0, 96.0]),
        ("self_play", {"learned_share": 0.5}, [48.0, 96.0]),
        ("joint", {"roles": ("adversary",)}, [48.0, 96.0]),
    ],
)
def test_steps_are_those_whose_loss_is_used(method, settings, expected, tmp_path):
    config = TINY.override(method=method, player_steps=96, **settings)
    train(config, tmp_path / "run", quiet=True)
    for role in config.roles:
        assert [float(row[f"{role}/player_steps"]) for row in rows(tmp_path / "run")] == expected


def test_a_run_lasts_until_every_learner_has_played(tmp_path):
    """RARL's players learn in turn: the adversary, every third iteration."""
    train(TINY.override(method="rarl", protagonist_turns=2, player_steps=48), tmp_path / "run", quiet=True)
    assert steps(tmp_path / "run") == {"protagonist": [48.0, 96.0, 96.0], "adversary": [0.0, 0.0, 48.0]}


def test_an_interrupted_run_counts_on(tmp_path):
    config = TINY.override(player_steps=200, validate_every=2)
    train(config, tmp_path / "whole", quiet=True)
    source = DuelSource(config)
    written = config.override(compile=False)
    trainer = make_trainer(
        make_learner(config, source), source, tmp_path / "parts", written.to_dict(), config, False, True
    )
    trainer.player_steps, trainer.iterations = 0, 2
    trainer.run()
    train(config, tmp_path / "parts", resume=True, quiet=True)
    whole, parts = (load_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert whole[1]["player_steps"] == parts[1]["player_steps"] == dict.fromkeys(ROLES, 240)
    assert steps(tmp_path / "whole") == steps(tmp_path / "parts")


def test_runs_trained_together_end_by_their_own_budgets(tmp_path):
    configs = [TINY.override(seed=i, player_steps=n) for i, n in enumerate((48, 144))]
    train_all(configs, [tmp_path / str(i) for i in range(2)], quiet=True)
    for i, config in enumerate(configs):
        train(config, tmp_path / f"alone{i}", quiet=True)
        assert steps(tmp_path / str(i)) == steps(tmp_path / f"alone{i}")
    assert [len(rows(tmp_path / str(i))) for i in range(2)] == [1, 3]


def test_environments_of_your_own_have_it_too(tmp_path):
    game = functools.partial(rps_v2.parallel_env, max_cycles=3)
    settings = {
        "tasks": 1,
        "episodes": 2,
        "steps": 1,
        "hidden": (4,),
        "validation_tasks": 1,
        "horizon": 3,
        "quiet": True,
    }
    train_meta_adversarial(game, "maml", tmp_path / "run", player_steps=24, **settings)
    assert steps(tmp_path / "run") == {role: [12.0, 24.0] for role in ROLES}


def test_runs_from_before_steps_were_counted_go_on_without(tmp_path):
    config = TINY.override(iterations=2, validate_every=1)
    train(config, tmp_path / "run", quiet=True)
    source = DuelSource(config)
    trainer = make_trainer(make_learner(config, source), source, tmp_path / "run", config.to_dict() | {"compile": False},
                           config, True, True)  # fmt: skip
    trainer.own_steps = None
    trainer.iterations = 3
    trainer.run()
    assert rows(tmp_path / "run")[-1]["adversary/player_steps"] == ""
    assert load_checkpoint(tmp_path / "run" / LAST)[1]["player_steps"] is None


@pytest.mark.parametrize("value", [-1, 1.5])
def test_bad_budgets_are_refused(value):
    with pytest.raises(InvalidInputError, match=f"player_steps={value}"):
        TINY.override(player_steps=value)


@pytest.mark.parametrize(
    ("at_once", "tasks", "sizes"), [(2, 5, [3, 2]), (0, 10, [3, 3, 2, 2]), (9, 3, [1, 1, 1]), (1, 4, [4])]
)
def test_scripted_opponents_of_an_iteration(at_once, tasks, sizes):
    config = TrainConfig(game="Pursuit", tasks=tasks, learned_share=0.0, opponents_at_once=at_once)
    source = DuelSource(config)
    rows = [source.problem(i).matchups.against_adversaries for i in range(4)]
    assert [[n for _, n in met] for met in rows] == [sizes] * 4
    seen = {id(player) for met in rows for player, _ in met}  # in turn: all are met
    assert len(seen) == len(source.opponents["protagonist"]) == 4
    with pytest.raises(InvalidInputError, match="opponents_at_once=-1"):
        TINY.override(opponents_at_once=-1)
