"""Updates that diverge: the task is left out and counted, and too many of them stop the run."""

from dataclasses import fields

import pytest
import torch

from metaduel.agents.policies.base import stack
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.adaptation.inner import Diverged, check_weights
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.problems.duels import DuelProblem
from metaduel.meta.problems.played import Drawn
from metaduel.meta.problems.problem import Losses, Mixture
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource, joined_returns
from metaduel.meta.runs.train import make_learner, train
from metaduel.meta.runs.trainer import LAST, TrainingStopped

ROLES = ("protagonist", "adversary")
TINY = TrainConfig(game="Navigation").override(
    iterations=3, tasks=6, episodes=2, horizon=5, steps=2, hidden=(4,), validate_every=1, validation_tasks=2
)


class Slopes:
    """L_i(w) = s_i w: an update moves w by - rate * s_i, to infinity where the slope is infinite."""

    def __init__(self, slopes):
        self.slopes, self.dropped = torch.tensor(slopes), []

    environment_steps = 0

    @property
    def tasks(self):
        return {"protagonist": len(self.slopes)}

    def draw(self, players, shot):
        assert torch.isfinite(players["protagonist"]["w"]).all()  # a player that diverged plays no more
        return self

    def losses(self, players, joint=False):
        loss = {"protagonist": self.slopes * players["protagonist"]["w"][:, 0]}
        return Losses(loss, loss)

    def without(self, role, tasks):
        self.dropped.append((role, tasks))
        return Slopes([slope for n, slope in enumerate(self.slopes.tolist()) if n not in tasks])


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile"])
def test_the_task_is_left_out_and_counted(method, steps):
    inf = float("inf")
    made = [METHODS[method].configure(MAMLConfig(steps=steps, inner_lr=0.1, max_skipped=2))] * 2
    start = {"protagonist": {"w": torch.tensor([1.0])}}
    learner, other = (METHODS[method].learner(start, config) for config in made)
    problem = Slopes([1.0, inf, 3.0, -inf])
    metrics = learner.update(problem).metrics
    assert problem.dropped == [("protagonist", [1, 3])]
    assert metrics["skipped_tasks"] == learner.skipped.count == 2
    other.update(Slopes([1.0, 3.0]))
    assert torch.equal(learner.start["protagonist"]["w"], other.start["protagonist"]["w"])
    other.load(learner.state())
    assert other.skipped.count == 2
    before = learner.start["protagonist"]["w"].clone()
    message = r"the protagonist's weights are not finite after update 1, in task 0 \(tasks skipped so far: 3\)"
    with pytest.raises(FloatingPointError, match=message):
        learner.update(Slopes([inf, 1.0]))
    assert torch.equal(learner.start["protagonist"]["w"], before)


def test_the_step_and_the_tasks_are_named():
    weights = {"a": torch.ones(3, 2), "b": torch.ones(3)}
    check_weights({"adversary": weights}, 1)
    weights["b"][2] = float("nan")
    with pytest.raises(Diverged, match="the adversary's weights are not finite after update 2, in task 2") as error:
        check_weights({"adversary": weights}, 2)
    assert (error.value.role, error.value.tasks) == ("adversary", [2])


@pytest.mark.parametrize(("role", "gone"), [("protagonist", [1, 4]), ("adversary", [0, 5])])
def test_the_other_tasks_of_a_game_keep_their_noise(role, gone):
    # Matchups: 3 against scripted adversaries, 3 duels, 3 of scripted protagonists.
    source = DuelSource(TINY)
    assert (source.problem(0).matchups.first, source.problem(0).matchups.duels, source.problem(0).matchups.last) == (
        3,
        3,
        3,
    )
    whole = source.problem(0)
    learner = make_learner(TINY, source)
    part = whole.without(role, gone)
    players = [{r: stack(learner.start[r], n) for r, n in p.tasks.items()} for p in (whole, part)]
    batches = [p.draw(own, 0) for p, own in zip((whole, part), players, strict=True)]
    before, after = (batch.losses(own) for batch, own in zip(batches, players, strict=True))
    # Protagonist's rows are matchups 0-5, the adversary's 3-8.
    out = {"protagonist": 0, "adversary": 3}
    matchups = {n + out[role] for n in gone}
    for r in ROLES:
        stay = [n for n in range(6) if n + out[r] not in matchups]
        assert part.tasks[r] == len(stay)
        assert torch.equal(after.support[r], before.support[r][stay])
        assert torch.equal(batches[1].returns[r], batches[0].returns[r][stay])
        assert whole.tasks[r] == 6


def test_a_game_without_tasks_left_is_an_error():
    problem = DuelSource(TINY.override(learned_share=1.0)).problem(0)
    with pytest.raises(FloatingPointError, match="every task of the protagonist, or of its opponent, diverged"):
        problem.without("protagonist", list(range(6)))


class Endless(Drawn):
    """A batch whose update blows the protagonist up in its first task."""

    def losses(self, players, joint=False):
        result = super().losses(players, joint)
        result.support["protagonist"][0] = result.support["protagonist"][0] * float("inf")
        return result


def endless(batch):
    return Endless(*(getattr(batch, f.name) for f in fields(batch)))


def test_too_many_stop_the_run_with_its_last_checkpoint(tmp_path, monkeypatch):
    original = DuelProblem.draw

    def draw(self, players, shot):
        batch = original(self, players, shot)
        return endless(batch) if shot == 1 else batch

    folder = tmp_path / "run"
    train(TINY.override(iterations=1, max_skipped=0), tmp_path / "whole", quiet=True)
    monkeypatch.setattr(DuelProblem, "draw", draw)
    with pytest.raises(TrainingStopped, match=r"^iteration 1: the protagonist's weights are not finite after update 2"):
        train(TINY.override(max_skipped=3), folder, quiet=True)  # every retry has a first task
    assert not (folder / LAST).exists()


# LOLA's second look-ahead, which the protagonist's updates are of, has shots K + 1..2 K + 1.
BLOWS_UP_AT = {"maml": 1, "promp": 1, "maml_trpo": 1, "reptile": 1, "meta_mapg": 1, "lola_dice": 4}


@pytest.mark.parametrize("method", BLOWS_UP_AT)
def test_steps_of_batches_that_were_given_up_count(method, monkeypatch):
    original, played = DuelProblem.draw, []

    def draw(self, players, shot):
        batch = original(self, players, shot)
        played.append((shot, batch.environment_steps))
        first = shot == BLOWS_UP_AT[method] and [one for one, _ in played].count(shot) == 1
        return endless(batch) if first else batch

    monkeypatch.setattr(DuelProblem, "draw", draw)
    config = TINY.override(method=method)
    source = DuelSource(config)
    update = make_learner(config, source).update(source.problem(0))
    assert update.metrics["skipped_tasks"] == 1
    assert source.record(update)["environment_steps"] == sum(steps for _, steps in played)


def test_what_blew_up_in_a_look_ahead_is_left_out_of_its_own_part(monkeypatch):
    # The adversary looks ahead in the first and the last of three parts.
    config = TINY.override(method="lola_dice", tasks=8, persona_share=0.25)
    source = DuelSource(config)
    problem, original, left_out, blown = source.problem(0), DuelProblem.draw, [], []
    last, without = problem.parts[2].problem, Mixture.without

    def draw(self, players, shot):
        batch = original(self, players, shot)
        return endless(batch) if self is last and shot == 4 and not blown and not blown.append(shot) else batch

    monkeypatch.setattr(DuelProblem, "draw", draw)
    monkeypatch.setattr(Mixture, "without", lambda self, *what: left_out.append(what) or without(self, *what))
    make_learner(config, source).update(problem)
    assert left_out == [(2, "protagonist", [0])]


def test_how_many_must_be_a_count():
    with pytest.raises(InvalidInputError, match="max_skipped=-1 must be a whole number of at least 0"):
        MAMLConfig(max_skipped=-1)
    assert MAML({"protagonist": {"w": torch.zeros(1)}}, MAMLConfig()).skipped.count == 0


def test_a_part_of_a_mixture_may_go_entirely():
    source = DuelSource(TINY.override(tasks=4, persona_share=0.25))
    problem = source.problem(0)
    sizes = [part.problem.tasks for part in problem.parts]
    assert sizes[1] == {"protagonist": 1, "adversary": 1}
    problem = problem.without(1, "protagonist", [0])
    assert [part.problem.tasks for part in problem.parts] == [sizes[0], sizes[2]]
    learner = make_learner(TINY.override(tasks=4, persona_share=0.25), source)
    assert all(torch.isfinite(v).all() for g, _ in learner.gradients(problem).values() for v in g.values())
    # The iteration's metrics leave it out.
    update = learner.update(problem)
    assert {role: len(value) for role, value in joined_returns(update.shots[0]).items()} == learner_tasks(problem)
    assert {role for batch in update.shots[0] for role, _ in batch.seen()} == set(ROLES)
    assert source.record(update)["environment_steps"] > 0


def learner_tasks(problem):
    """How many tasks each learner has in all parts of a mixture."""
    return {role: sum(part.problem.tasks[role] for part in problem.parts if role not in part.given) for role in ROLES}
