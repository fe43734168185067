"""All methods on several families: equal budgets, the best of the tuning runs, and a report of all rows."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import yaml

from metaduel.benchmarks.core import suite
from metaduel.benchmarks.core import table as tables
from metaduel.benchmarks.core.trainings import best_score
from metaduel.benchmarks.studies import reproduce
from metaduel.benchmarks.studies.comparison import CURVE, RIVAL, TRIAL
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.runs import trainer

TRIALS = [{"outer_lr": 0.003}, {"outer_lr": 0.1}]
TINY = {
    "protocol": "comparison", "title": "", "about": "", "differs": "", "seeds": 2, "steps": 600, "trial_steps": 200,
    "evaluation": {"shots": 1, "episodes": 2, "test_episodes": 2, "task_count": 3},
    "settings": {
        "tasks": 4, "episodes": 2, "horizon": 5, "steps": 1, "hidden": [4], "learned_share": 0.25, "validation_tasks": 2,
        "against_protagonist": ["cycle"], "against_adversary": ["cycle"],
    },
    "families": {"MatchingPennies": {}}, "non_adapting": ["joint", "ppo"], "baselines": ["joint", "ppo"],
    "methods": {
        "maml": {"trials": TRIALS}, "joint": {"trials": TRIALS},
        "ppo": {
            "sb3": True, "settings": {"n_envs": 16, "n_steps": 16, "n_epochs": 1},
            "trials": [{"learning_rate": 0.001}, {"learning_rate": 0.01}],
        },
        "informed": {"settings": {"method": "joint", "informed": True}, "trials": TRIALS},
    },
    "rivals": {"methods": ["maml"], "tasks": 2},
    "longer": {"families": ["MatchingPennies"], "steps": 900, "learners": 1, "beside": ["ppo"], "seeds": 1},
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
        steps = [
            [0.0, *(float(row[f"{role}/player_steps"]) for row in rows_of(run))]
            for role in ("protagonist", "adversary")
        ]
        # It ends with the iteration in which the last player reaches the budget.
        assert min(own[-2] for own in steps) < made.steps <= min(own[-1] for own in steps)
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

    titles = [
        "Recovered fraction at shot 1", "Floor and ceiling", "The best learner against fine-tuned baselines",
        "MatchingPennies: return as protagonist", "MatchingPennies: return as adversary", "Probability of improvement",
        "Against learned opponents of other seeds", "Gain of a learned response", "The best learners with a larger budget",
    ]  # fmt: skip
    assert [sheet.title for sheet in found.sheets] == titles
    sheets = {sheet.title: sheet for sheet in found.sheets}
    returns = sheets["MatchingPennies: return as protagonist"]
    methods = {row[0] for row in returns.rows}
    assert {"maml", "joint", "ppo", "informed", "random start", "scripted: cycle"} <= methods
    (row,) = [row for row in returns.rows if row[0] == "maml"]
    assert row[3].count(";") == 1  # both seeds
    # Two roles, each with three differences to joint and two of the best learner; and one learner and PPO for longer.
    assert "the 14 comparisons of this page" in returns.note
    assert "0.83 over five" in returns.note
    assert [row[1] for row in sheets[titles[2]].rows] == ["maml", "maml"]
    assert [row[1] for row in sheets[titles[-1]].rows] == ["maml", "ppo"] * 2
    wins = {row[0]: row[1:] for row in sheets["Probability of improvement"].rows}
    assert float(wins["maml"][1]) + float(wins["joint"][0]) == pytest.approx(1, abs=0.011)
    assert (tmp_path / "comparison-longer.png").stat().st_size > 10_000
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
        ({"methods": {**TINY["methods"], "mamml": {"trials": TRIALS}}}, "unknown method 'mamml'"),
        ({"families": {"Pursit": {}}}, "Pursit"),
        ({"methods": {**TINY["methods"], "maml": {}}}, "every method must have the same number"),
        ({"rivals": {"methods": ["ppo"]}}, "rivals: 'ppo' must be a method without sb3"),
        ({"baselines": ["rarl"]}, "unknown method 'rarl'"),
        ({"baselines": ["maml"]}, r"baselines=\['maml'\] must be one or more of \['joint', 'ppo'\]"),
        (
            {"methods": {**TINY["methods"], "maml": {"trials": TRIALS, "families": {"MatchingPenies": {}}}}},
            "unknown family of the suite 'MatchingPenies'",
        ),
        ({"longer": {**TINY["longer"], "seeds": 3}}, "longer.seeds=3 must be at most seeds=2"),
        (
            {"methods": {**TINY["methods"], "ppo": {"sb3": True, "trials": [{"gamma": 2}, {}]}}},
            r"gamma=2.0 must be in \[0, 1\]",
        ),
        (
            {
                "methods": {**TINY["methods"], "self_play": {"trials": TRIALS}},
                "non_adapting": ["joint", "ppo", "self_play"],
                "longer": {**TINY["longer"], "beside": ["self_play"]},
            },
            "longer: 'self_play' trains both players against each other",
        ),
        ({"evaluation": {"shot": 1}}, "unknown setting of evaluation 'shot'"),
        ({"settings": {"taskss": 4}}, "unknown setting 'taskss'"),
        ({"seeds": 1}, "seeds=1 must be a whole number of at least 2"),
        ({"methods": {**TINY["methods"], "scripted": {"trials": TRIALS}}}, "'scripted' is always there"),
    ],
)
def test_a_suite_that_cannot_work_is_refused_before_anything_is_played(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        reproduce.make({**TINY, **changes})


OWN = {"against_protagonist": ["random"], "against_adversary": ["random"]}


def test_a_method_has_settings_and_trials_of_its_own_in_a_family():
    maml = {
        "trials": TRIALS, "settings": {"inner_lr": 0.2},
        "families": {"MatchingPennies": {"settings": {"inner_lr": 0.7}, "trials": [{"outer_lr": 0.5}, {"outer_lr": 0.6}]}},
    }  # fmt: skip
    made = reproduce.make(
        {**TINY, "families": {"MatchingPennies": {}, "Chicken": OWN}, "methods": {**TINY["methods"], "maml": maml}}
    )
    own = made.methods["maml"]
    assert [made.config(family, "maml", {}, 0).learner.inner_lr for family in made.families] == [0.7, 0.2]
    assert own.trials_in("MatchingPennies") == ({"outer_lr": 0.5}, {"outer_lr": 0.6})
    assert own.trials_in("Chicken") == tuple(TRIALS)


def rows(method, role, values, shot=0, seeds=2, family="MatchingPennies"):
    """Returns of ``values`` [seeds, tasks] on the held-out panel."""
    return tables.concatenate([
        tables.Table(
            {name: one[name] for name in tables.COLUMNS} | {"shot": np.full(len(one), shot)}
        )
        for seed, own in zip([tables.UNTRAINED] if seeds == 1 else range(seeds), values, strict=True)
        for one in [tables.from_returns(
            np.array(own, float).reshape(1, 1, -1, 1), find(family), role=role, method=method, seed=seed, task_split="held_out",
            tasks=[str(i) for i in range(len(own))], opponent_split="held_out", opponents=["all"], actions="sampled",
        )]
    ])  # fmt: skip


def test_recovered_fractions_by_hand_and_returns_minus_the_floor_where_there_is_no_headroom():
    made = reproduce.make({**TINY, "longer": None, "rivals": {}, "responses": None})
    parts = []
    for role, ceiling in (("protagonist", 5.0), ("adversary", 0.5)):
        parts += [
            rows("scripted: cycle", role, [[1, 1]], seeds=1), rows("informed script: nash", role, [[7, 7]], seeds=1),
            rows("informed", role, [[ceiling, ceiling]] * 2),
        ]  # fmt: skip
        for method, first, last in (("maml", 0, 3), ("joint", 0.5, 2), ("ppo", 0.25, 2.5), ("random start", -1, 0)):
            # Seeds 0.4 apart around the value.
            parts += [rows(method, role, [[x - 0.2] * 2, [x + 0.2] * 2], shot) for shot, x in ((0, first), (1, last))]
    fractions, ends = made._recovered(tables.concatenate(parts))
    own = {row[0]: row[1:] for row in fractions.rows}
    # Floor 1 (the script, above joint's 0.5 at shot 0), ceiling 5: (3 - 1) / 4. As the adversary 3 - 1, below a ceiling of 0.5.
    assert own["maml"][0].startswith("0.500 [")
    assert own["maml"][1].startswith("2.000 [")
    assert own["maml"][1].endswith("†")
    assert own["random start"][0].startswith("−0.250 [")
    # t at one degree of freedom 12.7062, standard error of the fractions' seed means 0.45 and 0.55: 0.05.
    assert own["maml"][0] == "0.500 [−0.135, 1.135]"
    assert [row[1] for row in ends.rows] == ["scripted: cycle"] * 2
    assert ends.rows[0][3:5] == ("informed", "5.000 [5.000, 5.000]")
    assert ends.rows[0][5].startswith("informed script: nash: 7.000")
    assert [row[-1] for row in ends.rows] == ["fraction", "return minus the floor"]
    best = made._best_learners(tables.concatenate(parts))
    assert best.rows[0][1] == "maml"
    assert best.rows[0][3].startswith("1.000 [")


def test_the_shipped_suite_is_of_all_methods_on_five_families():
    made = reproduce.make(suite.settings("comparison"))
    names = [cell.name for cell in made.cells()]
    assert len(set(names)) == len(names)
    assert list(made.families) == ["Pursuit", "Sumo", "Goalkeeper", "CartPole", "Pendulum"]
    assert set(METHODS) - set(made.methods) <= {"maml_trpo", "meta_pg", "meta_mapg", "lola_dice"}
    assert made._informed == ["informed", "informed ppo"]
    assert made.baselines == ("joint", "ppo")
    other = replace(made, steps=made.steps + 1)
    assert {cell.stem for cell in made.cells()} & {cell.stem for cell in other.cells()}  # trials stay
