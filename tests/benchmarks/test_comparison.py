"""All methods on several families: equal budgets, the best of the tuning runs, and a report of all rows."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import yaml

from metaduel.benchmarks.core import suite
from metaduel.benchmarks.studies import reproduce
from metaduel.benchmarks.studies.comparison import CURVE, RIVAL, TRIAL, best_score
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.runs import trainer

TRIALS = [{"outer_lr": 0.003}, {"outer_lr": 0.1}]
TINY = {
    "protocol": "comparison", "title": "", "about": "", "differs": "", "seeds": 2, "steps": 4000, "trial_steps": 1000,
    "evaluation": {"shots": 1, "episodes": 2, "test_episodes": 2, "task_count": 3},
    "settings": {
        "tasks": 4, "episodes": 2, "horizon": 5, "steps": 1, "hidden": [4], "learned_share": 0.25, "validation_tasks": 2,
        "against_protagonist": ["cycle"], "against_adversary": ["cycle"],
    },
    "families": {"MatchingPennies": {}}, "baseline": "joint",
    "methods": {
        "maml": {"trials": TRIALS}, "joint": {"trials": TRIALS},
        "informed": {"settings": {"method": "joint", "informed": True}},
    },
    "rivals": {"methods": ["maml"], "tasks": 2},
    "responses": {"tasks": 1, "opponents": 1, "shots": 1, "episodes": 2, "steps": 1, "test_episodes": 2},
}  # fmt: skip


def rows_of(folder):
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_equal_budgets_the_best_tuning_runs_and_a_report_of_all_methods(tmp_path, monkeypatch):
    made = reproduce.make(TINY)
    found = suite.run("comparison", made, tmp_path, quiet=True)
    cells = {cell.name: tmp_path / "work" / cell.stem for cell in made.cells()}

    runs = [folder / "run" for folder in cells.values() if (folder / "run").exists()]
    assert len(runs) == 3 * 2
    for run in runs:
        steps = [0.0, *(float(row["environment_steps"]) for row in rows_of(run))]
        assert steps[-2] < made.steps <= steps[-1]  # it ends with the iteration that reaches the budget
    by_name = {cell.name: cell for cell in made.cells()}
    learned = by_name["MatchingPennies, maml, seed 0"]
    assert by_name["MatchingPennies, maml, trials"].stem in learned.needs
    assert learned.stem in by_name["MatchingPennies, response to maml, seed 0"].needs
    assert len(by_name["MatchingPennies, maml against rivals, seed 0"].needs) == 1 + len(made.rivals.methods)

    for name in ("maml", "joint"):
        tried = cells[f"MatchingPennies, {name}, trials"]
        scores = [sum(best_score(tried / str(i), role) for role in ("protagonist", "adversary")) for i in range(2)]
        config = yaml.safe_load((cells[f"MatchingPennies, {name}, seed 0"] / "run" / "config.yaml").read_text())
        assert config["learner"]["outer_lr"] == TRIALS[int(np.argmax(scores))]["outer_lr"]

    assert [sheet.title for sheet in found.sheets] == [
        "MatchingPennies: return as protagonist", "MatchingPennies: return as adversary", "Probability of improvement",
        "Against learned opponents of other seeds", "Gain of a learned response",
    ]  # fmt: skip
    methods = {row[0] for row in found.sheets[0].rows}
    assert {"maml", "joint", "informed", "random start", "scripted: cycle"} <= methods
    wins = {row[0]: row[1:] for row in found.sheets[2].rows}
    assert float(wins["maml"][1]) + float(wins["joint"][0]) == pytest.approx(1, abs=0.011)
    assert (tmp_path / "comparison-MatchingPennies.png").stat().st_size > 10_000

    monkeypatch.setattr(trainer.Trainer, "run", None)  # nothing is trained again
    again = suite.run("comparison", made, tmp_path, quiet=True)
    assert [sheet.rows for sheet in again.sheets] == [sheet.rows for sheet in found.sheets]
    table = suite.play(made.cells(), tmp_path, quiet=True).table
    assert {TRIAL, CURVE, RIVAL} <= set(table.values("opponent_split"))
    assert "PPO against joint" in table.values("method")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": {"mamml": {"trials": TRIALS}, "joint": {"trials": TRIALS}}, "rivals": {}},
            "unknown method 'mamml'",
        ),
        ({"families": {"Pursit": {}}}, "Pursit"),
        ({"methods": {**TINY["methods"], "maml": {}}}, "every method must have the same number"),
        ({"baseline": "rarl"}, "unknown method 'rarl'"),
        ({"evaluation": {"shot": 1}}, "unknown setting of evaluation 'shot'"),
        ({"settings": {"taskss": 4}}, "unknown setting 'taskss'"),
        ({"seeds": 1}, "seeds=1 must be a whole number of at least 2"),
        ({"methods": {**TINY["methods"], "scripted": {"trials": TRIALS}}}, "'scripted' is always there"),
    ],
)
def test_a_suite_that_cannot_work_is_refused_before_anything_is_played(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        reproduce.make({**TINY, **changes})


def test_the_shipped_suite_is_of_eight_learners_and_four_baselines():
    made = reproduce.make(suite.settings("comparison"))
    names = [cell.name for cell in made.cells()]
    assert len(set(names)) == len(names)
    assert len(made.families) == 3
    assert len([name for name in names if name.startswith("Pursuit") and name.endswith("seed 0") and "," in name]) > 12
    other = replace(made, steps=made.steps + 1)
    assert {cell.stem for cell in made.cells()} & {cell.stem for cell in other.cells()}  # trials stay
