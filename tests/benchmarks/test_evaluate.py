"""Evaluations of whole runs: the players, the content of the table and the report, and the demonstration around it."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import metaduel
from metaduel.benchmarks.core import few_shot, summary
from metaduel.benchmarks.core.evaluate import EvaluationFailed, both_adapt, evaluate, evaluate_runs
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.benchmarks.core.table import UNTRAINED, concatenate, read
from metaduel.benchmarks.tools import demo
from metaduel.benchmarks.tools.film import film_adaptation
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.tasks import find_task
from metaduel.meta.adaptation import few_shot as adaptation
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.train import train
from metaduel.meta.runs.trainer import TrainingStopped

TINY = TrainConfig(game="Pursuit").override(
    iterations=1, tasks=4, episodes=2, horizon=5, steps=1, hidden=(4,), validate_every=1, validation_tasks=2
)
PROTOCOL = Protocol(shots=2, episodes=2, test_episodes=2, task_count=3)
RUNS = {
    "maml-0": {},
    "maml-1": {"seed": 1},
    "joint-0": {"method": "joint"},
    "informed-0": {"method": "joint", "informed": True},
}


@pytest.fixture(autouse=True, scope="module")
def few_rates():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_shot, "RATES", (0.1, 1.0))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp("runs") / name for name in RUNS}
    for name, changes in RUNS.items():
        train(TINY.override(**changes), made[name], quiet=True)
    return made


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "evaluation"
    return evaluate_runs(list(folders.values()), PROTOCOL, out, quiet=True), out


def test_all_players_play_the_headline_panel(finished):
    table, _ = finished
    panel = summary.headline(table).filter(role="adversary")
    shots = {method: panel.filter(method=method).values("shot") for method in panel.values("method")}
    seeds = {method: panel.filter(method=method).values("seed") for method in panel.values("method")}
    assert list(shots)[:4] == ["maml", "random start", "joint", "informed"]
    assert all(shots[name] == [0, 1, 2] for name in ("maml", "random start", "joint"))
    assert all(shots[name] == [0] for name in shots if name == "informed" or name.startswith("scripted: "))
    assert seeds["maml"] == seeds["random start"] == [0, 1]
    assert seeds["joint"] == [0]
    assert seeds["scripted: chase"] == [UNTRAINED]
    assert panel.values("task") == ["held_out:0", "held_out:1", "held_out:2"]


def test_the_table_holds_what_few_shot_evaluation_gives(finished, folders):
    table, _ = finished
    player = few_shot.contender(load(folders["maml-1"]), "protagonist")
    own = few_shot.evaluate(player, PROTOCOL).returns
    rows = summary.headline(table).filter(role="protagonist", method="maml", seed=1)
    np.testing.assert_allclose(rows["return"], own.ravel(), atol=1e-6)
    for shot in range(3):
        np.testing.assert_allclose(rows.pivot("maml", "protagonist", shot)[0], own[shot].mean((0, 2)), atol=1e-6)


def test_all_play_at_once_what_each_plays_alone(finished, folders):
    """The whole table, row by row, against contenders that are tuned and play one after another."""
    table, _ = finished
    for name in RUNS:
        run = load(folders[name])
        for role in ("protagonist", "adversary"):
            player = few_shot.contender(run, role)
            assert player.adapter.adapts != run.config.informed  # joint has the rate of its best validation
            for tasks in ("train", "held_out"):
                panel = replace(PROTOCOL, tasks=tasks)
                rows = table.filter(
                    method=player.method, seed=player.seed, role=role, task_split=tasks, opponent_split="held_out"
                )
                if not run.config.informed:
                    assert rows.values("shot") == [0, 1, 2]
                    np.testing.assert_allclose(
                        rows["return"], few_shot.evaluate(player, panel).returns.ravel(), atol=2e-5
                    )
                elif tasks == "held_out":
                    own = few_shot.evaluate(player, panel).returns[0]
                    np.testing.assert_allclose(rows["return"], own.ravel(), atol=2e-5)


def test_a_panel_is_played_in_one_batch(folders, monkeypatch):
    """Four runs with their random starts: a batch of trials and one of the panel for each role, and the informed player's."""
    played = []
    together = adaptation._together
    monkeypatch.setattr(
        adaptation, "_together", lambda *given: played.append(len(given[1].adapters)) or together(*given)
    )
    runs = [folders[name] for name in RUNS]
    evaluate(runs, shots=2, episodes=2, test_episodes=2, task_count=3)
    trials, panel = 2 * 2, 2 + 2 + 1  # two rates for two random starts; maml, random start, joint
    assert played == [trials, trials, panel, panel]


def test_trials_of_a_grid_are_those_of_each_rate(folders):
    player = few_shot.contender(load(folders["joint-0"]), "adversary")
    on = replace(PROTOCOL, tasks="validation", opponents="train")
    seeds = Purpose.TUNE_ADAPT, Purpose.TUNE_TEST
    scores = [
        few_shot._run([few_shot.with_rate(player, rate)], on, *seeds)[0][1:].mean() for rate in (0.01, 0.3, 3.0, 1e9)
    ]
    assert len(set(scores)) == 4
    best = few_shot.tune_rate(player, PROTOCOL, (0.01, 0.3, 3.0, 1e9))
    assert few_shot.rate_of(best) == pytest.approx((0.01, 0.3, 3.0, 1e9)[int(np.nanargmax(scores))])


def test_shots_that_nobody_reads_are_not_tested(folders):
    player = few_shot.contender(load(folders["maml-0"]), "adversary")
    whole = few_shot.evaluate(player, PROTOCOL).returns
    fixed = few_shot.contender(load(folders["informed-0"]), "adversary")
    first, second = few_shot.evaluate_all([player, fixed], PROTOCOL, tested=(0, 2))
    np.testing.assert_allclose(first.returns[[0, 2]], whole[[0, 2]], atol=2e-5)
    assert np.isnan(first.returns[1]).all()
    np.testing.assert_array_equal(second.returns, few_shot.evaluate(fixed, PROTOCOL).returns)  # the same at all shots


def test_who_fails_takes_no_others_rows_along(folders, tmp_path):
    class Odd:
        adapts = True

        def start(self, seat, rows, seed):
            raise ValueError("odd")

        def update(self, player, experience):
            raise AssertionError("it never started")

    entries = {"odd": Odd(), "fine": "flee", "maml": folders["maml-0"]}
    with pytest.raises(EvaluationFailed, match="entry odd, protagonist, shot 0: it raises ValueError: odd") as caught:
        evaluate(entries, roles="protagonist", baselines=False, out=tmp_path, shots=1, task_count=2)
    assert caught.value.table.values("method") == ["maml", "fine"]
    assert read(tmp_path / "results.csv.gz").values("method") == ["maml", "fine"]


def test_progress_counts_what_a_batch_has_played(folders, capsys):
    evaluate(folders["maml-0"], roles="protagonist", shots=1, episodes=1, test_episodes=1, task_count=1, quiet=False)
    lines = capsys.readouterr().err.splitlines()
    # A run, its random start with two rates, and the scripted players.
    assert lines[0].startswith("0/5 done")
    assert [line.split(" ")[0] for line in lines] == sorted(line.split(" ")[0] for line in lines)
    assert any("2 contenders, held_out tasks, held_out opponents" in line for line in lines)
    assert lines[-1].startswith("5/5 done")


def test_the_crossed_panels_are_all_there(finished):
    table, _ = finished
    learned = table.filter(method=("maml", "joint"), role="protagonist", opponent_split=("train", "held_out"))
    pairs = set(zip(learned["task_split"].tolist(), learned["opponent_split"].tolist(), strict=True))
    assert len(pairs) == 4
    assert table.filter(method="random start", task_split="train").values("task") == []


def test_crossed_panels_have_the_reported_shots_alone(folders, tmp_path):
    protocol = Protocol(shots=3, episodes=1, test_episodes=1, task_count=2)
    table = evaluate_runs([folders["maml-0"], folders["joint-0"]], protocol, tmp_path, quiet=True)
    own = table.filter(method=("maml", "joint"), role="protagonist")
    assert own.filter(task_split="held_out", opponent_split="held_out").values("shot") == [0, 1, 2, 3]
    assert own.filter(task_split="train", opponent_split="held_out").values("shot") == [0, 1, 3]


def test_both_players_adapting_is_a_two_by_two(folders, finished):
    run = load(folders["maml-0"])
    rows = concatenate(both_adapt(run, PROTOCOL))
    first = rows.filter(role="protagonist")
    by = {name: first.filter(opponent=f"adversary {name}") for name in ("unadapted", "adapted", "learning too")}
    assert by["unadapted"].values("shot") == by["adapted"].values("shot") == [0, 2]
    assert by["learning too"].values("shot") == [0, 1, 2]

    def corner(name, shot):
        return by[name].filter(shot=shot)["return"]

    np.testing.assert_array_equal(corner("unadapted", 0), corner("learning too", 0))
    np.testing.assert_array_equal(corner("adapted", 2), corner("learning too", 2))
    assert (corner("unadapted", 0) != corner("adapted", 0)).any()
    assert (corner("unadapted", 0) != corner("unadapted", 2)).any()
    # Zero-sum: the protagonist adapted against the adversary unadapted, seen from the other side.
    other = rows.filter(role="adversary", opponent="protagonist adapted", shot=0)["return"]
    np.testing.assert_array_equal(corner("unadapted", 2), -other)


def test_the_report_says_it_all(finished):
    table, out = finished
    assert {path.name for path in out.iterdir()} == {"report.md", "results.csv.gz", "shots.png"}
    again = read(out / "results.csv.gz")
    assert len(again) == len(table)
    assert [sheet.rows for sheet in summary.sheets(again)] == [sheet.rows for sheet in summary.sheets(table)]
    text = (out / "report.md").read_text()
    for words in (
        "the inner rate of the last one is kept",
        "maml − random start, shot 1",
        "maml − joint, shot 2",
        "maml, shot 1 − maml, shot 0",
        "Headroom and the fraction that adaptation recovers",
        "train tasks, held-out opponents",
        "opponent unadapted",
        "Learning against learning",
        "interquartile mean",
        "random start, adversary, seed 0: ",
        "maml-1: maml, seed 1",
    ):
        assert words in text


def test_headroom_names_the_best_that_does_not_adapt(finished):
    table, _ = finished
    panel = summary.headline(table)
    own = panel.filter(role="adversary")
    best = summary.best_non_adapting(own, "adversary")
    known = [m for m in own.values("method") if m == "joint" or m.startswith("scripted: ")]
    means = {method: own.pivot(method, "adversary", 0).mean() for method in known}
    assert means[best] == max(means.values())
    (sheet,) = [sheet for sheet in summary.sheets(table) if sheet.title.startswith("Headroom")]
    row = dict(zip(sheet.header, sheet.rows[1], strict=True))
    assert row["best non-adapting player"].removesuffix(", shot 0") == best


def test_one_method_alone_leaves_out_what_is_missing(folders, tmp_path):
    table = metaduel.evaluate(folders["joint-0"], out=tmp_path, shots=0, episodes=1, test_episodes=1, task_count=2)
    titles = [sheet.title for sheet in summary.sheets(table)]
    assert [title.split(",")[0] for title in titles] == ["Return as protagonist", "Return as adversary"]
    assert "tuned" not in (tmp_path / "report.md").read_text()


def test_contexts_that_a_run_fixed_stay_fixed(tmp_path, monkeypatch):
    changes = {"fixed": {"push": 0.0}, "roles": ("protagonist",), "against_protagonist": ("idle",)}
    train(TrainConfig(**{**vars(TINY), "game": "Navigation"}).override(**changes), tmp_path / "run", quiet=True)
    played = []
    kept = Protocol.task_list
    monkeypatch.setattr(Protocol, "task_list", lambda self, spec: played.append(kept(self, spec)) or played[-1])
    table = evaluate_runs([tmp_path / "run"], PROTOCOL, tmp_path / "out", quiet=True)
    assert {task["push"] for tasks in played for task in tasks} == {0.0}
    assert table.values("role") == ["protagonist"]


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ([], {}, "must hold"),
        (["maml-0", "maml-0"], {}, "both maml with seed 0"),
        (["maml-0"], {"opponents": "extrapolation"}, "or name a split: train, held_out"),
        (["maml-0"], {"tasks": "test"}, "unknown split"),
        (["maml-0"], {"task_count": 101}, "holds 100 tasks"),
        (["maml-0"], {"test_episodes": 0}, "test_episodes=0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(names, settings, message, folders, tmp_path):
    with pytest.raises(InvalidInputError, match=message):
        evaluate([folders[name] for name in names], out=tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"horizon": 4, "seed": 7}, "has horizon 4"), ({"informed": True}, "the ceiling must not adapt")],
)
def test_runs_that_cannot_be_compared(changes, message, folders, tmp_path):
    train(TINY.override(**changes), tmp_path / "run", quiet=True)
    with pytest.raises(InvalidInputError, match=message):
        evaluate([folders["maml-0"], tmp_path / "run"], out=tmp_path / "out")


def test_films_need_a_player_that_adapts(folders, tmp_path):
    run = load(folders["informed-0"])
    with pytest.raises(InvalidInputError, match="trained without adaptation"):
        film_adaptation(run, "adversary", "dodge", find_task(run.duel.spec, "held_out:0"), tmp_path / "a.mp4")


@pytest.mark.parametrize(("missing", "file"), [("pygame", "a.mp4"), ("imageio_ffmpeg", "a.mp4"), (None, "a.avi")])
def test_what_films_need_is_found_before_anything_is_played(missing, file, folders, tmp_path, monkeypatch):
    run = load(folders["maml-0"])
    monkeypatch.setattr("metaduel.benchmarks.tools.film.adapt_and_test", lambda *_, **__: pytest.fail("played"))
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InvalidInputError, match=r"metaduel\[render\]|must end with"):
        film_adaptation(run, "adversary", "dodge", find_task(run.duel.spec, "held_out:0"), tmp_path / file)


# The demonstration


@pytest.fixture
def suite():
    own = {name: {"method": "fomaml" if name == "fomaml" else "joint"} for name in ("fomaml", "joint", "informed")}
    own["informed"]["informed"] = True
    values = TINY.to_dict()
    return demo.read_suite("demo.yaml") | {
        "settings": {name: values[name] for name in values if name not in ("game", "method", "informed")},
        "runs": own,
        "tuning_tasks": 2,
        "evaluate": {"shots": 1, "episodes": 1, "test_episodes": 1, "task_count": 2},
    }


def test_the_demonstrations_settings_are_valid():
    suite = demo.read_suite("demo.yaml")
    base = {**demo.read_suite(suite["config"]), **suite["settings"]}
    configs = {name: TrainConfig.from_dict(base).override(**changes) for name, changes in suite["runs"].items()}
    assert {config.game for config in configs.values()} == {"Pursuit"}
    assert sorted(name for lane in suite["lanes"] for name in lane) == sorted(configs)
    assert configs["informed"].informed
    assert Protocol(**suite["evaluate"]).episodes == configs["fomaml"].episodes


def test_the_demonstration_repeats_no_finished_run(suite, tmp_path, monkeypatch, capsys):
    started = []

    def here(folder, name):
        """Train in a process that only says that it ran, after training in this one."""
        started.append(name)
        train(demo.TrainConfig.from_dict(demo.read_config(folder / "settings" / name)), folder / name, quiet=True)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(demo, "_start", here)
    demo.run_demo(tmp_path, suite)
    assert sorted(started) == ["fomaml", "informed", "joint"]
    assert started.index("joint") < started.index("informed")
    out = capsys.readouterr().out
    for name in ("evaluation/report.md", "evaluation/shots.png", "protagonist.mp4", "adversary.mp4"):
        assert (tmp_path / name).stat().st_size > 0
        assert str(tmp_path / name) in out
    started.clear()
    demo.run_demo(tmp_path, suite)
    assert started == []


def test_the_demonstration_says_why_training_failed(suite, tmp_path, monkeypatch):
    def failing(code):
        def start(folder, name):
            demo._log(folder, name).parent.mkdir(parents=True, exist_ok=True)
            demo._log(folder, name).write_text("metaduel: a reason\n")
            return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])

        return start

    for code, error in ((2, InvalidInputError), (1, TrainingStopped)):
        monkeypatch.setattr(demo, "_start", failing(code))
        with pytest.raises(error, match="a reason"):
            demo.run_demo(tmp_path, suite)


def test_interrupted_the_demonstration_ends_its_children(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    deaf = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    deaf.stdout.readline()
    began = time.monotonic()
    demo._end([child, deaf], patience=1.0)
    deaf.stdout.close()
    assert time.monotonic() - began < 30
    assert child.returncode != 0
    assert deaf.returncode == -signal.SIGKILL
