"""The 2-D navigation suite: every method of its file trains, is played by the published protocol, and stands in one table."""

import pytest

from metaduel.benchmarks.core import suite
from metaduel.benchmarks.studies import published, reproduce
from metaduel.envs.core.errors import InvalidInputError

TINY = {"iterations": 1, "tasks": 2, "episodes": 2, "hidden": [4], "validate_every": 1, "validation_tasks": 2}


def small(**changes):
    values = suite.settings("navigation") | {"seeds": 2} | changes
    values["settings"] |= TINY
    values["methods"] = {
        name: {k: v for k, v in own.items() if k == "method"} for name, own in values["methods"].items()
    }
    return reproduce.make(values)


def test_a_small_suite_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "TRAJECTORIES", 2)
    one = small()
    for name in set(one.methods) - {"MAML", "Reptile"}:
        one.methods.pop(name)
    (sheet,) = suite.run("navigation", one, tmp_path, quiet=True).sheets
    assert [row[0] for row in sheet.rows] == [f"{name} (published)" for name in published.PUBLISHED] + list(one.methods)
    assert all(cell for row in sheet.rows[3:] for cell in row)
    assert (tmp_path / "navigation.png").stat().st_size > 10_000


def test_when_a_training_crosses_the_published_return(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text(
        "iteration,protagonist/validation_return_1,protagonist/validation_return_2,seconds\n"
        "25,-30,-20,60\n26,,,62\n50,-11.68,-3.5,120\n75,-9,-3.4,180\n"
    )
    assert published.crossed(log, 1) == 2.0
    assert published.crossed(log, 2) is None


def test_an_unknown_method_is_refused_before_anything_is_trained():
    values = suite.settings("navigation")
    values["methods"]["MAML"] = {"method": "mamll"}
    with pytest.raises(InvalidInputError, match=r"unknown method 'mamll' \(did you mean 'maml'\?\)"):
        reproduce.make(values).cells()
