"""The command line: its output, its files, and one line with exit code 2 for every kind of bad input."""

import shutil
import subprocess
import sys

import imageio.v2 as imageio
import pytest
import yaml
from rich.console import Console

from metaduel import cli
from metaduel.envs.core.registry import find
from metaduel.meta.runs import train as training
from metaduel.meta.runs.checkpoint import AGENT
from metaduel.meta.runs.load import load
from metaduel.meta.runs.trainer import TrainingStopped

TINY = (
    *("--iterations", "2", "--tasks", "4", "--episodes", "2", "--set", "horizon=5", "--set", "steps=1", "--set"),
    *("hidden=[4]", "--set", "validate_every=1", "--set", "validation_tasks=2", "--quiet"),
)


TOOLS = ("clouds", "digests", "dynamics", "pages", "proofs", "published", "signal", "speed")


def fails(capsys, *args):
    """Run and return standard error; the exit code must be 2, and the output must hold no traceback."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(args)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_help_names_every_subcommand(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(
        name in out
        for name in (
            "list",
            "info",
            "watch",
            "gallery",
            "train",
            "evaluate",
            "headroom",
            "adapt",
            "methods",
            "exploit",
            "demo",
            *TOOLS,
        )
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_says_what_it_does_and_takes(tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([tool, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"metaduel {tool}" in out
    assert getattr(cli, tool).__doc__.split()[0] in out


def test_help_and_list_do_not_import_torch():
    code = "import sys; from metaduel import cli; cli.main(['list']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Navigation" in done.stdout


def test_waiting_threads_sleep(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # recorded, so that it is put back
    monkeypatch.delenv("OMP_WAIT_POLICY")
    cli.main(["list"])
    assert cli.os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_info_shows_contexts_and_both_opponent_splits(capsys):
    cli.main(["info", "Navigation"])
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("metaduel/Navigation-v0", "goal_x", "held_out", "swirl", "zero-sum", "strength")
    )


def test_info_shows_ratings_headroom_and_a_picture(capsys, monkeypatch):
    found = {
        "headroom": {"mean": 0.5, "low": 0.4, "high": 0.6},
        "share": 0.3,
        "trained_share": 0.3,
        "random_start_share": 0.1,
    }
    found |= {"recurrent_share": 0.2, "verdict": "adaptation pays"}
    panel = {
        role: {"ratings": {"seeker": {"mu": 31.4}, "repel": {"mu": 27.1}}} for role in ("protagonist", "adversary")
    }
    monkeypatch.setattr(
        cli.games, "measured", lambda spec: {"headroom": {"roles": {"adversary": found}}, "panel": panel}
    )
    monkeypatch.setattr(cli.games, "Console", lambda: Console(force_terminal=True, width=200))
    cli.main(["info", "Navigation"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("31.4", "27.1", "0.500 [0.400, 0.600]", "30%", "adaptation pays"))
    assert out.count("\N{UPPER HALF BLOCK}") == 48 * 28  # a frame of 576 x 672 px


def test_info_needs_no_pictures(capsys, monkeypatch):
    monkeypatch.setattr(cli.games, "Console", lambda: Console(force_terminal=True, width=200))
    monkeypatch.setattr(cli.games.importlib.util, "find_spec", lambda name: None)
    cli.main(["info", "Navigation"])
    assert 'pip install "metaduel[render]"' in capsys.readouterr().out


def test_gallery_writes_one_picture_of_every_family(tmp_path, capsys):
    path = tmp_path / "pictures" / "all.png"
    cli.main(["gallery", "--out", str(path)])
    assert capsys.readouterr().out == f"wrote {path}\n"
    picture = imageio.imread(path)
    # Three columns of 288 x 336 px with 12 px between them.
    assert picture.shape == (3 * 336 + 4 * 12, 3 * 288 + 4 * 12, 3)
    tiles = [picture[r * 348 + 12 : (r + 1) * 348, c * 300 + 12 : (c + 1) * 300] for r in range(3) for c in range(3)]
    assert len({tile.tobytes() for tile in tiles}) == 9
    assert [found.name for found in path.parent.iterdir()] == ["all.png"]


def test_watch_writes_a_video(tmp_path, capsys):
    video = tmp_path / "folder" / "walk.mp4"
    goal = '{"goal_x": 0.2, "goal_y": 0.0, "push": 0.0}'  # two steps of 0.1 m
    cli.main(
        ["watch", "Navigation", "--protagonist", "seeker", "--adversary", "idle", "--task", goal, "--video", str(video)]
    )
    assert capsys.readouterr().out == f"wrote {video}\n"
    assert [path.name for path in video.parent.iterdir()] == ["walk.mp4"]
    frames = imageio.mimread(video)
    assert len(frames) == 1 + 2 + 20  # the start, the steps, and the last frame for a second
    assert frames[0].shape == (672, 576, 3)


@pytest.mark.parametrize("way", [["--window"], ["--human", "protagonist"], ["--video", "a.mp4"]])
def test_a_missing_extra_is_named_before_any_work(way, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pygame", None)  # as where the render extra is not installed
    with pytest.raises(SystemExit):
        cli.main(["watch", "Navigation", *way])
    out, error = capsys.readouterr()
    assert out == ""
    assert 'rendering needs pygame-ce: pip install "metaduel[render]"' in error
    assert list(tmp_path.iterdir()) == []


def test_watch_opens_a_window(monkeypatch, tmp_path):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.chdir(tmp_path)
    goal = '{"goal_x": 0.1, "goal_y": 0.0, "push": 0.0}'
    cli.main(["watch", "Navigation", "--task", goal, "--window"])
    assert list(tmp_path.iterdir()) == []


def test_a_person_plays(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pygame.time.Clock", type("Clock", (), {"tick": lambda self, fps: 0}))
    cli.main(["watch", "Pursuit", "--human", "adversary", "--opponent", "sweep(radius=0.5)", "--task", "held_out:3"])
    assert "You are the adversary" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["info", "Navigatoin"], "unknown game 'Navigatoin' (did you mean 'Navigation'?)"),
        (["watch", "Chess"], "unknown game 'Chess'"),
        (["watch", "Navigation", "--adversary", "swril"], "(did you mean 'swirl'?)"),
        (["watch", "Navigation", "--protagonist", "repel"], "protagonist's seat"),
        (["watch", "Navigation", "--task", "held_out:100"], "task='held_out:100' must be SPLIT:INDEX"),
        (["watch", "Navigation", "--task", "train:0"], "frozen split"),
        (["watch", "Navigation", "--task", '{"goal": 1}'], "unknown context of Navigation 'goal'"),
        (["watch", "Navigation", "--task", '{"push": 1'], "is not JSON"),
        (["watch", "Navigation", "--task", '{"push": 7}'], "push=7 must be a finite number in [0, 0.1]"),
        (["watch", "Navigation", "--task", '{"push": NaN}'], "push=nan must be"),
        (["watch", "Navigation", "--task", '{"push": "x"}'], "not str"),
        (["watch", "Navigation", "--video", "a.avi"], "must end with .mp4 or .gif"),
        (["watch", "Navigation", "--video", "a.mp4", "--window"], "choose one"),
        (["watch", "Navigation", "--video", "a.mp4", "--human", "adversary"], "choose one"),
        (["watch", "Navigation", "--human", "walker"], "unknown role 'walker'"),
        (["watch", "Navigation", "--human", "protagonist", "--protagonist", "seeker"], "choose one"),
        (["watch", "Navigation", "--opponent", "wind", "--adversary", "idle"], "choose one"),
        (["watch", "Navigation", "--opponent", "wind(force=1)"], "character 6: no option 'force'"),
        (["gallery", "--out", "a.jpg"], "must end with .png"),
        (["watch", "Navigation", "--episodes", "0"], "episodes=0"),
    ],
)
def test_bad_input_is_one_line(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = fails(capsys, *args)
    assert error.startswith("metaduel: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    error = fails(capsys, "watch", "Navigation", "--video", str(tmp_path / "file" / "a.mp4"))
    assert error.startswith("metaduel: ")
    assert error.count("\n") == 1


def test_a_reader_that_leaves_is_no_traceback():
    code = "from metaduel import cli; cli.main(['list'])"
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    done.stdout.close()
    with done.stderr as stream:
        assert stream.read() == ""
    done.wait(timeout=60)


@pytest.mark.parametrize(
    "args", [[], ["wach"], ["watch"], ["watch", "Navigation", "--seed", "x"], ["list", "--nope"], ["proofs", "--nope"]]
)
def test_bad_arguments_exit_with_2(args, capsys):
    fails(capsys, *args)


def test_interrupt_exits_with_130(monkeypatch):
    def stop(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app, "cli", stop)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["list"])
    assert stopped.value.code == 130


# Training and what comes after it


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    cli.main(["train", "Pursuit", "--folder", str(folder), "--seed", "3", "--set", "outer_lr=1e-3", *TINY])
    return folder


@pytest.fixture(scope="module")
def saved(run):
    return load(run).adversary.save(run.parent / "saved")


def settings(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_train_takes_flags_and_any_setting(run):
    made = settings(run)
    assert (made["game"], made["method"], made["seed"], made["iterations"]) == ("Pursuit", "maml", 3, 2)
    assert (made["horizon"], made["hidden"], made["learner"]["steps"], made["learner"]["outer_lr"]) == (5, [4], 1, 1e-3)


def test_a_runs_config_can_be_passed_back_in(run, tmp_path, capsys):
    config = str(run / "config.yaml")
    cli.main(["train", "--config", config, "--folder", str(tmp_path / "a"), "--quiet", "--informed"])
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a'}\n"
    made = settings(tmp_path / "a")
    assert made["learner"].pop("fine_tuning_lrs")  # joint's own
    assert made == settings(run) | {"method": "joint", "informed": True}


def test_several_seeds_are_trained_in_one_process(tmp_path, capsys):
    flags = ("--folder", str(tmp_path / "runs"), "--seeds", "3", "4", "--quiet")
    cli.main(["train", "Pursuit", "--method", "joint", *TINY, *flags])
    assert capsys.readouterr().out == f"wrote {tmp_path / 'runs' / 'seed-3'}\nwrote {tmp_path / 'runs' / 'seed-4'}\n"
    assert [settings(tmp_path / "runs" / f"seed-{seed}")["seed"] for seed in (3, 4)] == [3, 4]
    cli.main(["train", "--resume", *flags])
    for wrong in (("--seeds", "1", "1"), ("--seed", "1", "--seeds", "1", "2")):
        with pytest.raises(SystemExit):
            cli.main(["train", "Pursuit", *wrong, *TINY])
        assert "must be different ones, without --seed" in capsys.readouterr().err


def test_resuming_a_finished_run_needs_its_folder_alone(run, capsys):
    before = (run / "metrics.csv").read_text()
    cli.main(["train", "--resume", "--folder", str(run), "--quiet"])
    assert (run / "metrics.csv").read_text() == before


def test_several_seeds_are_runs_of_one_folder(tmp_path, capsys):
    base = tmp_path / "runs"
    args = ["train", "Pursuit", "--folder", str(base), "--seeds", "4", "7", *TINY]
    cli.main(args)
    assert capsys.readouterr().out == "".join(f"wrote {base / f'seed-{seed}'}\n" for seed in (4, 7))
    made = [settings(base / f"seed-{seed}") for seed in (4, 7)]
    assert [one["seed"] for one in made] == [4, 7]
    assert made[0] | {"seed": 7} == made[1]
    before = (base / "seed-7" / "metrics.csv").read_text()
    cli.main(["train", "--resume", "--folder", str(base), "--seeds", "4", "7", "--quiet"])
    assert (base / "seed-7" / "metrics.csv").read_text() == before


def test_evaluate_prints_tables_and_writes_the_report(run, tmp_path, capsys):
    small = ["--shots", "1", "--episodes", "1", "--test-episodes", "1", "--task-count", "2", "--quiet"]
    cli.main(["evaluate", str(run), "--out", str(tmp_path / "out"), *small])
    out = capsys.readouterr().out
    assert "random start" in out
    assert str(tmp_path / "out" / "report.md") in out
    written = {"report.md", "results.csv.gz", "shots.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written
    own = tmp_path / "copy"
    shutil.copytree(run, own)
    cli.main(["evaluate", str(own), *small])
    assert {path.name for path in (own / "evaluation").iterdir()} == written


def test_signal_prints_and_writes_its_tables(tmp_path, capsys):
    path = tmp_path / "made" / "signal.md"
    sizes = ("--episodes", "2", "--tasks", "2", "--outer-tasks", "2", "--batches", "3", "--methods", "joint")
    cli.main(["signal", "Pendulum", *sizes, "--set", "horizon=3", "--set", "hidden=[4]", "--out", str(path)])
    shown = capsys.readouterr()
    assert shown.out.endswith(f"wrote {path}\n")
    assert "Inner signal of the adversary" in shown.out
    assert "s left" in shown.err
    assert path.read_text().count("### ") == 3


def test_exploit_prints_gains_and_writes_rows(run, tmp_path, capsys):
    small = ["--tasks", "1", "--shots", "1", "--episodes", "1", "--steps", "1", "--test-episodes", "1", "--quiet"]
    cli.main(["exploit", str(run), "--out", str(tmp_path), *small])
    out = capsys.readouterr().out
    assert "gain" in out
    assert len((tmp_path / "exploitability.csv").read_text().splitlines()) == 3


def test_adapt_films_every_shot(run, tmp_path, capsys):
    video = tmp_path / "a.mp4"
    cli.main(["adapt", str(run), "--role", "adversary", "--shots", "1", "--episodes", "1", "--video", str(video)])
    out = capsys.readouterr().out
    assert "shot 0: mean return" in out
    assert "shot 1: mean return" in out
    assert len(imageio.mimread(video)) == 2 * (
        1 + 5 + find("Pursuit").fps
    )  # two shots of five steps, each held for a second


def test_a_saved_agent_is_watched_and_evaluated_and_its_folder_stays_as_it_is(saved, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["adapt", str(saved), "--shots", "1", "--episodes", "1"])
    assert "wrote adapt-adversary.mp4" in capsys.readouterr().out
    small = [
        "--shots",
        "1",
        "--episodes",
        "1",
        "--test-episodes",
        "1",
        "--task-count",
        "2",
        "--quiet",
        "--no-baselines",
    ]
    cli.main(["evaluate", str(saved), *small])
    assert (tmp_path / "runs" / "evaluation" / "report.md").is_file()
    load(saved).adversary.save(saved)
    assert [path.name for path in saved.iterdir()] == [AGENT]


def test_methods_lists_papers(capsys):
    cli.main(["methods"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("maml", "fomaml", "joint", "ICML"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train"], "GAME is missing"),
        (["train", "Pursiut"], "did you mean 'Pursuit'"),
        (["train", "Pursuit", "--method", "mamal"], "did you mean 'maml'"),
        (["train", "Pursuit", "--iterations", "0"], "iterations=0"),
        (["train", "Pursuit", "--set", "horizn=3"], "did you mean 'horizon'"),
        (["train", "Pursuit", "--set", "horizon"], "must be NAME=VALUE"),
        (["train", "Pursuit", "--set", "horizon=[3"], "is not YAML"),
        (["train", "Pursuit", "--set", "horizon=long"], "must be of type int"),
        (["train", "Pursuit", "--set", "fixed={push: 0}"], "unknown context of Pursuit 'push'"),
        (["train", "Pursuit", "--resume"], "--resume needs --folder"),
        (["train", "Pursuit", "--seeds", "0", "0"], "--seeds 0 0 must be different ones, without --seed"),
        (
            ["train", "Pursuit", "--seeds", "0", "1", "--seed", "2"],
            "--seeds 0 1 must be different ones, without --seed",
        ),
        (["train", "Pursuit", "--config", "none.yaml"], "none.yaml: No such file or directory: name a YAML file"),
        (["train", "--resume", "--folder", "none"], "--folder none has no config.yaml, and is no run to resume"),
        (["train", "--resume", "--folder", "{saved}"], "holds a saved agent, which is no run to resume"),
        (["train", "--resume", "--folder", "{saved}", "--config", "{run}/config.yaml"], "holds a saved agent"),
        (["exploit", "{saved}"], "is a saved agent: give the folder of its run"),
        (["adapt", "{saved}", "--role", "protagonist"], "has no protagonist"),
        (["train", "Pursuit", "--config", "{cwd}/bad.yaml"], "not YAML"),
        (["train", "Pursuit", "--config", "{cwd}/list.yaml"], "mapping of settings"),
        (["train", "Pursuit", "--config", "{cwd}/foreign.yaml"], "on your own environments"),
        (["train", "Navigation", "--config", "{run}/config.yaml"], "is for the game Pursuit"),
        (["train", "Pursuit", "--folder", "{run}"], "holds a run already"),
        (["train", "--resume", "--folder", "{run}", "--seed", "4"], "seed"),
        (["evaluate", "none", "--out", "out"], "no folder or file of this name"),
        (["evaluate", "--out", "out"], "at least one run folder"),
        (["exploit"], "at least one run folder"),
        (["exploit", "{run}", "--steps", "0"], "steps=0 must be a whole number"),
        (["evaluate", "{run}", "--out", "out", "--tasks", "test"], "unknown split of tasks"),
        (["evaluate", "{run}", "--out", "out", "--opponents", "validation"], "or name a split: train, held_out"),
        (["evaluate", "{run}", "--out", "out", "--actions", "best"], "'sampled' or 'mode'"),
        (["adapt", "none"], "not a run folder"),
        (["adapt", "{run}", "--role", "evader"], "unknown role"),
        (["adapt", "{run}", "--opponent", "nobody"], "unknown opponent"),
        (["adapt", "{run}", "--shots", "0"], "shots=0"),
        (["adapt", "{run}", "--task", "held_out:x"], "SPLIT:INDEX"),
        (["adapt", "{run}", "--video", "a.avi"], "must end with"),
        (["clouds"], "name at least one run folder"),
        (["clouds", "{run}"], "trained no generator of Forgery"),
        (["clouds", "{run}", "--tasks", "0"], "tasks=0 must be at least 1"),
        (["published"], "name at least one run folder"),
        (["published", "{run}"], "is no run of Navigation"),
        (["dynamics", "--seeds", "0"], "seeds=0 must be at least 1"),
        (["speed", "--games", "Pursiut"], "did you mean 'Pursuit'"),
        (["digests", "--check", "none.json"], "none.json"),
        (["digests", "--check", "{cwd}/bad.yaml"], "holds no digests"),
    ],
)
def test_bad_input_to_training_is_one_line(args, message, run, saved, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = {"bad.yaml": "a: [1", "list.yaml": "- 1", "foreign.yaml": "environment: x"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    error = fails(
        capsys, *(arg.format(run=run, saved=saved, cwd=tmp_path) if arg.startswith("{") else arg for arg in args)
    )
    assert error.startswith("metaduel: ")
    assert error.count("\n") == 1
    assert message in error
    assert {path.name for path in tmp_path.iterdir()} == set(texts)
    assert [path.name for path in saved.iterdir()] == [AGENT]


def test_a_number_that_is_not_finite_exits_with_1(monkeypatch, capsys, tmp_path):
    def stop(*_):
        raise TrainingStopped("iteration 3: nan")

    monkeypatch.setattr(training, "train_all", stop)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "Pursuit", "--folder", str(tmp_path / "run")])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "metaduel: iteration 3: nan\n"


def test_interrupted_training_says_how_to_go_on(monkeypatch, capsys, run):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_all", stop)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "Pursuit", "--folder", str(run)])
    assert stopped.value.code == 130
    assert f"metaduel train --resume --folder {run}" in capsys.readouterr().err
    shutil.copytree(run, run.parent / "several" / "seed-3")
    with pytest.raises(SystemExit):
        cli.main(["train", "Pursuit", "--folder", str(run.parent / "several"), "--seeds", "3", "4"])
    assert f"metaduel train --resume --folder {run.parent / 'several'} --seeds 3 4" in capsys.readouterr().err
