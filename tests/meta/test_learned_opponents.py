"""Methods whose opponent is the other learner: the rows that they play, and their outer steps per step of a player's own."""

import pytest

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES
from metaduel.meta.adaptation.work import alone
from metaduel.meta.learners.joint import Joint
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.problems.duels import DuelProblem
from metaduel.meta.problems.problem import played
from metaduel.meta.runs.config import ForeignConfig, TrainConfig
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner

TINY = {"tasks": 8, "episodes": 2, "horizon": 3, "hidden": (4,), "steps": 1}
LEARNED = ("self_play", "rarl")  # methods whose opponent is the other learner


def made(method, game="Pursuit", **settings):
    config = TrainConfig(game=game, method=method).override(**TINY | settings)
    source = DuelSource(config)
    return make_learner(config, source), source


def own_steps(update, role):
    """Steps of a player's own whose loss was used."""
    batches = [played(batch) for shot in update.shots for batch in shot]
    return sum(float(batch.data[role].alive.sum()) for batch in batches if role in batch.data)


def rows_played(monkeypatch, learner, source):
    """Per rollout of an update, its tasks: scripted adversaries, duels, scripted protagonists."""
    seen, draw = [], DuelProblem.draw
    monkeypatch.setattr(DuelProblem, "draw", lambda self, *given: seen.append(self.matchups) or draw(self, *given))
    learner.update(source.problem(0))
    monkeypatch.undo()
    return [(one.first, one.duels, one.last) for one in seen]


@pytest.mark.parametrize("method", METHODS)
def test_the_default_share_of_learned_opponents(method):
    config = TrainConfig(game="Pursuit", method=method).override(**TINY)
    learned = 8 if method in LEARNED else 4
    assert config.learned_share is None
    assert config.met == {"learned": learned, "persona": 0, "scripted": 8 - learned}
    assert config.override(learned_share=0.25).met["learned"] == 2
    assert TrainConfig.from_dict(config.to_dict()) == config
    older = config.to_dict() | {"learned_share": 0.5}
    assert TrainConfig.from_dict(older).met["learned"] == 4
    scripted = dict.fromkeys(ROLES, ("guard",))
    foreign = ForeignConfig(environment="", agents=("a", "b"), spaces=(), scripted=scripted, method=method, tasks=8)
    assert foreign.met == {"learned": learned, "scripted": 8 - learned}


def test_rows_without_a_loss_are_not_played(monkeypatch):
    assert rows_played(monkeypatch, *made("self_play")) == [(0, 8, 0), (0, 8, 0)]
    # 2 duels of 8 tasks: for each player its own scripted opponents alone.
    assert rows_played(monkeypatch, *made("self_play", learned_share=0.25)) == [(6, 2, 0), (0, 2, 6)]
    learner, source = made("rarl", learned_share=0.25)
    assert rows_played(monkeypatch, learner, source) == [(6, 2, 0)]
    assert learner.turn == "adversary"
    assert rows_played(monkeypatch, learner, source) == [(0, 2, 6)]


def test_a_players_own_tasks_keep_their_noise():
    _, source = made("joint", learned_share=0.25)
    problem = source.problem(0)
    first, last = (problem.of(role) for role in ROLES)
    assert first.seeds.tolist() == problem.seeds[: 8 * 4].tolist()
    assert last.seeds.tolist() == problem.seeds[6 * 4 :].tolist()
    assert first.tasks == {"protagonist": 8, "adversary": 2}
    assert last.tasks == {"protagonist": 2, "adversary": 8}
    assert last.of("adversary") is last


@pytest.mark.parametrize("share", [None, 0.25])
@pytest.mark.parametrize("method", LEARNED)
def test_outer_steps_per_own_step_are_those_of_joint_pretraining(method, share):
    """RockPaperScissors has episodes of one length, so that steps are equal to the last one."""
    joint, source = made("joint", "RockPaperScissors", learned_share=0.5)
    update = joint.update(source.problem(0))
    expected = {role: own_steps(update, role) for role in ROLES}
    learner, source = made(method, "RockPaperScissors", learned_share=share)
    steps = dict.fromkeys(ROLES, 0.0)
    outer = dict.fromkeys(ROLES, 0)
    for i in range(4):
        update = learner.update(source.problem(i))
        for role in ROLES:
            steps[role] += own_steps(update, role)
            outer[role] += f"{role}/gradient_norm" in update.metrics
    assert outer == dict.fromkeys(ROLES, 2 if method == "rarl" else 4)
    assert {role: steps[role] / outer[role] for role in ROLES} == expected


def test_rarl_differentiates_the_loss_of_the_player_in_turn_alone(monkeypatch):
    learner, source = made("rarl")
    asked, gradients = [], Joint._gradients
    monkeypatch.setattr(
        Joint, "_gradients", lambda self, problem, moving=None: asked.append(moving) or gradients(self, problem, moving)
    )
    learner.update(source.problem(0))
    learner.update(source.problem(1))
    assert asked == [["protagonist"], ["adversary"]]
    found, _ = alone(learner._joint.drawn_gradients(source.problem(2), ["adversary"]))
    assert set(found) == {"adversary"}


def test_rarl_needs_tasks_on_which_the_learners_meet():
    with pytest.raises(InvalidInputError, match="rarl needs tasks on which the learners meet"):
        made("rarl", learned_share=0.0)
