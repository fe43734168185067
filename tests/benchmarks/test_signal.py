"""``metaduel signal``: the tables of what updates and outer steps know."""

from dataclasses import replace

import pytest
import torch

from metaduel.benchmarks.tools import signal
from metaduel.benchmarks.tools.signal import Measurement, agreement, measure, sheets
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.train import train

INNER = Measurement(episodes=(5,), tasks=16, truth=200, repeats=2, methods=())
TINY = Measurement(
    episodes=(2,), tasks=2, truth=4, repeats=1, methods=("joint", "fomaml"), outer_tasks=(2, 4), batches=3
)
SHORT = {"horizon": 4, "hidden": [4]}


def test_the_mean_cosine_of_three_vectors():
    # Cosines 0, 0.7071 and 0.7071. Without one vector: 0.7071, 0.7071, 0; their variance about 0.4714 is 1 / 9 on average,
    # times n - 1.
    found = agreement(torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]]))
    assert found == pytest.approx((2**1.5 / 6, 2**1.5 / 6))
    assert not found.enough  # within two standard errors of 0
    assert agreement(torch.ones(4, 5)) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert agreement(torch.ones(4, 5)).enough


def test_an_update_with_the_next_reward_alone_knows_nothing_in_goalkeeper():
    found = measure("Goalkeeper", {}, INNER, quiet=True)
    for role in ("protagonist", "adversary"):
        own = found.inner[role][5]
        assert not signal.above_noise(own.cosines[0.0, 0.4])
        assert own.cosines[0.9, 0.4].mean() > 0.15
        assert signal.above_noise(own.cosines[0.9, 0.4])
        assert 0.5 < own.best[0] < 1
        assert own.best not in own.level
        assert (0.0, 0.0) not in own.level
    table = sheets(found)[0]
    assert table.rows[0][0] == "0"
    assert all(cell.startswith("(") for cell in table.rows[0][1:])
    assert f"Best with 5 episodes: {found.inner['protagonist'][5].best[0]:g} with" in table.note


def test_the_same_seed_gives_the_same_tables():
    first, again, other = (
        [sheet.markdown() for sheet in sheets(measure("Pendulum", SHORT, replace(TINY, seed=seed), quiet=True))]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_outer_gradients_have_the_best_update_and_end_where_tasks_are_enough(monkeypatch):
    monkeypatch.setattr(signal, "ENOUGH", 2.0)
    found = measure("Pendulum", SHORT, TINY, quiet=True)
    assert all(list(own) == [2, 4] for one in found.outer.values() for own in one.values())
    assert found.enough("joint", "adversary") is None
    assert sheets(found)[-1].rows[0][-1] == "more than 4"
    for role in ("protagonist", "adversary"):
        own = found.config.loss.of(role)
        assert (own.inner_discount, own.inner_clip) == found.inner[role][2].best
    given = measure("Pendulum", {**SHORT, "inner_discount": 0.3}, TINY, quiet=True).config.loss
    assert given.of("protagonist").inner_discount == given.of("adversary").inner_discount == 0.3
    monkeypatch.setattr(signal.Outer, "enough", True)
    found = measure("Pendulum", SHORT, TINY, quiet=True)
    assert found.enough("fomaml", "adversary") == 2
    assert list(found.outer["fomaml"]["adversary"]) == [2]
    assert sheets(found)[-1].rows[-1][-2:] == ("", "2")


def test_a_runs_start_is_measured_with_its_own_settings(tmp_path):
    config = TrainConfig(game="Pendulum", iterations=1, tasks=2, episodes=2, validation_tasks=1).override(
        **SHORT, steps=1, inner_discount=0.7, network="gru"
    )
    train(config, tmp_path, quiet=True)
    found = measure("Pendulum", {}, TINY, tmp_path, quiet=True)
    assert found.config.loss == config.loss
    assert found.config.network == "gru"
    assert f"the start of {tmp_path}" in sheets(found)[0].title
    with pytest.raises(InvalidInputError, match="is a run on Pendulum, not on Sumo"):
        measure("Sumo", {}, TINY, tmp_path)


@pytest.mark.parametrize("settings", [{"peer": True}, {"recompute": True}])
def test_a_runs_ways_to_differentiate_do_not_matter(settings, tmp_path):
    own = {**SHORT, **settings, "tasks": 2, "episodes": 1, "steps": 1, "iterations": 1, "validation_tasks": 1}
    train(TrainConfig(game="Pursuit", method="maml").override(**own), tmp_path, quiet=True)
    assert measure("Pursuit", {}, replace(TINY, methods=("fomaml",)), tmp_path, quiet=True).outer["fomaml"]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"methods": ("rl2",)}, "rl2 has no outer gradient of one step; those that have: maml"),
        ({"episodes": ()}, r"episodes=\(\)"),
        ({"outer_tasks": (0,)}, "outer_tasks=0"),
        ({"batches": 2}, "batches=2 must be a whole number of at least 3"),
    ],
)
def test_bad_sizes_are_refused(sizes, words):
    with pytest.raises(InvalidInputError, match=words):
        Measurement(**sizes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "maml"}, "method='maml' is no setting here: give --methods"),
        ({"second_order": True}, "second_order=True has no effect"),
        ({"iner_discount": 1.0}, "inner_discount"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InvalidInputError, match=words):
        measure("Pendulum", settings, TINY)
