"""Self-play with a pool: the choice of opponents, the pool's members, and ``latest``, which is joint training."""

import pytest
import torch

from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.adaptation.work import alone
from metaduel.meta.learners.self_play import AVERAGE
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource, joined_returns
from metaduel.meta.runs.train import make_learner, train
from metaduel.meta.runs.trainer import LAST

TINY = TrainConfig(game="RockPaperScissors", method="self_play").override(
    tasks=6, episodes=2, horizon=3, hidden=(4,), pool=2, pool_every=1
)


def made(**settings):
    config = TINY.override(**settings)
    source = DuelSource(config)
    return make_learner(config, source), source


def test_who_is_met_by_hand():
    learner, _ = made()
    learner.win_rates["adversary"] = torch.tensor([0.5, 0.0, 1.0])
    # (1 - w)^2: 0.25, 1, 0.
    assert learner.probabilities("adversary").tolist() == pytest.approx([0.2, 0.8, 0.0])
    learner.win_rates["adversary"] = torch.ones(2)  # all are beaten: a uniform choice
    assert learner.probabilities("adversary").tolist() == [0.5, 0.5]
    uniform, _ = made(opponents="uniform")
    uniform.win_rates["adversary"] = torch.tensor([0.5, 0.0, 1.0])
    assert uniform.probabilities("adversary").tolist() == pytest.approx([1 / 3] * 3)


def test_the_pool_takes_the_present_and_the_oldest_leave():
    learner, source = made()
    starts = []
    for i in range(4):
        learner.update(source.problem(i))
        starts.append({r: {n: v.detach().clone() for n, v in w.items()} for r, w in learner.start.items()})
    for role in learner.start:
        assert len(learner.pool[role]) == 2
        assert len(learner.win_rates[role]) == 3
        for kept, was in zip(learner.pool[role], starts[-2:], strict=True):
            assert all(torch.equal(kept[name], value) for name, value in was[role].items())


@pytest.mark.parametrize("role", ["protagonist", "adversary"])
def test_win_rates_by_hand(role):
    learner, source = made(opponents="uniform")
    problem = source.problem(0)
    n, seat = problem.duels, ["protagonist", "adversary"].index(role)
    _, batch = alone(learner._loss(problem, role, seat))
    met = "adversary" if role == "protagonist" else "protagonist"
    own, other = batch.returns["protagonist"][-n:], batch.returns["adversary"][:n]
    if role == "adversary":
        own, other = other, own
    better = float(torch.where(own == other, 0.5, (own > other).float()).mean())
    assert learner.win_rates[met].tolist() == pytest.approx([0.5 + AVERAGE * (better - 0.5)])


def test_the_latest_is_joint_training():
    ours, source = made(opponents="latest")
    joint = make_learner(TINY.override(method="joint"), source)
    ours.update(source.problem(0))
    joint.update(source.problem(0))
    for role, weights in joint.start.items():
        assert all(torch.equal(value, ours.start[role][name]) for name, value in weights.items())


def test_past_selves_stand_still_and_are_met():
    learner, source = made(opponents="uniform", learned_share=1.0, tasks=24, pool_every=2)
    for i in range(3):  # one joined after the second, and the present one has moved since
        learner.update(source.problem(i))
    (past,) = learner.pool["adversary"]
    present = {name: value.detach().clone() for name, value in learner.start["adversary"].items()}
    before = {name: value.clone() for name, value in past.items()}
    seen = []
    problem = source.problem(3)
    original = problem.draw
    problem.draw = lambda players, shot: seen.append(players) or original(players, shot)
    update = learner.update(problem)
    rows = seen[0]["adversary"]["layer1.bias"]
    then, now = ((rows == own["layer1.bias"]).all(1) for own in (before, present))
    assert then.any()
    assert now.any()
    assert (then ^ now).all()
    assert all(torch.equal(value, past[name]) for name, value in before.items())
    assert len(update.shots) == 1
    assert set(joined_returns(update.shots[0])) == {"protagonist", "adversary"}


def test_past_selves_see_with_the_statistics_of_their_time(tmp_path):
    config = TINY.override(normalise_observations=True, pool=3, iterations=2, validation_tasks=2)
    train(config, tmp_path / "run", quiet=True)
    tensors, _ = load_checkpoint(tmp_path / "run" / LAST)
    for role in ("protagonist", "adversary"):
        shifts = [tensors[f"{role}/pool/{i}/fixed.shift"] for i in range(2)]
        assert not torch.equal(*shifts)
        assert not torch.equal(shifts[1], tensors[f"{role}/start/fixed.shift"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roles": ("protagonist",)}, "self-play trains both players; use method joint for one"),
        ({"peer": True}, "peer=True: self-play has no updates to differentiate"),
        ({"pool": 0}, "pool=0 must be a whole number of at least 1"),
        ({"opponents": "all"}, "opponents"),
        ({"persona_share": 0.2}, "method self_play cannot meet personas"),
        ({"learned_share": 0.0}, "self_play needs tasks on which the learners meet; set it above 0"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        made(**settings)
