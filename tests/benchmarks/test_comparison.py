"""The comparison: everybody gets the same trials and steps, and every kind of opponent is met."""

import pytest

from metaduel.benchmarks import comparison, reproduce, suite
from metaduel.envs.errors import InvalidInputError

TINY = {
    "iterations": 2,
    "tasks": 2,
    "episodes": 2,
    "horizon": 6,
    "hidden": [4],
    "validate_every": 1,
    "validation_tasks": 2,
}


def small(**changes):
    values = suite.settings("comparison") | {"seeds": 2, "families": {"Pursuit": {}}, "response_steps": 1}
    values["settings"] |= TINY
    values["methods"] = {
        "fomaml": {"settings": {"method": "fomaml"}, "trials": [{"outer_lr": 0.001}, {"outer_lr": 0.01}]},
        "joint": {"settings": {"method": "joint"}, "trials": [{"outer_lr": 0.001}, {"outer_lr": 0.01}]},
    }
    values |= {"rates": [0.1, 1.0], "evaluation": {"shots": 1, "episodes": 2, "test_episodes": 2, "task_count": 3}}
    return reproduce.make(values | changes)


def test_a_small_suite_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "ENVIRONMENTS", 2)
    monkeypatch.setattr(comparison, "ROLLOUT", 8)
    one = small()
    found = suite.run("comparison", one, tmp_path, quiet=True)
    assert len(found.sheets) == 6
    for sheet in found.sheets:
        assert [row[0] for row in sheet.rows] == ["fomaml", "joint", "random start"]
    for name in found.pictures:
        assert (tmp_path / name).stat().st_size > 10_000
    chances = found.sheets[2].rows
    assert float(chances[0][2]) + float(chances[1][1]) == pytest.approx(1, abs=0.002)


def test_every_method_of_the_file_plays_as_many_steps():
    one = reproduce.make(suite.settings("comparison"))
    steps = {}
    for name in ("fomaml", "joint", "self_play", "rl2"):
        config = one.config("Pursuit", name, 0, 0)
        batches = config.tasks * config.episodes_per_batch * (config.configured.steps + 1)
        steps[name] = config.iterations * batches * (2 if name == "self_play" else 1)
    assert len(set(steps.values())) == 1, steps


def test_numbers_that_do_not_fit_each_other_are_refused():
    for changes, message in (
        ({"seeds": 1}, "seeds=1 must be at least 2"),
        ({"rates": [0.1]}, "fomaml has 2 trials, and there are 1 rates"),
        ({"evaluation": {"shot": 1}}, r"unknown setting of evaluation 'shot' \(did you mean 'shots'\?\)"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            small(**changes)
