"""Paths with ``~`` and one thing where several are expected, in every public function and command that takes them."""

import ast
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import yaml

import metaduel
from metaduel import cli
from metaduel.benchmarks.core import report, summary, table
from metaduel.benchmarks.core.entries import entries_of, opponents_of
from metaduel.benchmarks.core.evaluate import evaluate_runs
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.benchmarks.core.runs import named_runs
from metaduel.benchmarks.studies import published
from metaduel.benchmarks.studies.classification.settings import Settings as Classification
from metaduel.benchmarks.studies.generation.settings import Settings as Generation
from metaduel.benchmarks.studies.images.classes import omniglot
from metaduel.benchmarks.tools import clouds, digests, exploitability, film
from metaduel.envs.core.arguments import as_path, several
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import frozen_tasks
from metaduel.envs.players.names import load_player as load_named
from metaduel.envs.render.gallery import write_gallery
from metaduel.envs.render.screen import write_video
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load_player
from metaduel.meta.runs.train import TaskList, train

ROOT = Path(__file__).parents[1]
ROOMS = ("envs", "agents", "meta", "benchmarks", "metaduel")
TINY = {
    "iterations": 2, "tasks": 4, "episodes": 2, "horizon": 5, "steps": 1, "hidden": 4, "validate_every": 1,
    "validation_tasks": 2,
}  # fmt: skip
EVADER = find("Pursuit").opponents["adversary"]["train"][0]
SMALL = {"shots": 1, "episodes": 1, "test_episodes": 1, "task_count": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder with a run of Pursuit and a model of Stable-Baselines3, while another folder is the present one."""
    folder, here = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("USERPROFILE", str(folder))
        patch.chdir(here)
        metaduel.train_meta_adversarial("Pursuit", folder="~/run", quiet=True, **TINY)
        from stable_baselines3 import PPO

        PPO("MlpPolicy", metaduel.make_sb3("Pursuit", 1, "protagonist"), n_steps=8, batch_size=8).save(folder / "ppo")
        yield folder
        assert list(here.iterdir()) == []  # no folder is called ~


@pytest.fixture(scope="module")
def run(home):
    return metaduel.load("~/run")


def made(home, name):
    """Whether something was written there; it is moved away."""
    path = home / name
    there = path.exists()
    if there:
        path.rename(home / f"{name}.seen.{os.urandom(4).hex()}")
    return there


def test_a_path_is_read_as_a_shell_reads_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    for given, right in {
        "~": "/home/me", "~/runs/a": "/home/me/runs/a", "runs/~/a": "runs/~/a", "a~": "a~", "~no-such-user/a": "~no-such-user/a",
        Path("~/a"): "/home/me/a", PurePosixPath("~/a"): "/home/me/a",
    }.items():  # fmt: skip
        assert as_path(given) == Path(right)
    if os.name == "posix":
        import pwd

        root = pwd.getpwuid(0)
        assert as_path(f"~{root.pw_name}/a") == Path(root.pw_dir) / "a"


@pytest.mark.parametrize("value", ["", b"a", 3, None, ["a"]], ids=repr)
def test_what_is_no_path_is_refused(value):
    with pytest.raises(InvalidInputError, match=r"folder=.* must be a path: a string or an os\.PathLike"):
        metaduel.load(value)


def test_one_thing_is_a_list_of_one():
    pair = report.Comparison("maml", 1, "joint", 1)
    for one in ("abc", b"abc", Path("abc"), {"a": 1}, pair, 3, find("Pursuit")):
        assert several(one) == [one]
    for many in (
        ["a", "b"],
        ("a", "b"),
        iter(["a", "b"]),
        np.array(["a", "b"]),
        {"a": 0, "b": 1}.keys(),
        {0: "a", 1: "b"}.values(),
    ):
        assert several(many) == ["a", "b"]
    assert several({"a"}) == ["a"]


def test_no_function_makes_a_path_of_its_argument_by_itself():
    """``as_path`` does, which knows ``~``."""
    found = []
    for file in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            names = {arg.arg for arg in (*function.args.args, *function.args.kwonlyargs)}
            for call in ast.walk(function):
                of_path = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Path"
                if of_path and any(isinstance(arg, ast.Name) and arg.id in names for arg in call.args):
                    found.append(f"{file.relative_to(ROOT)}:{call.lineno}")
    assert found == []


def test_functions_that_write_know_home(home, run):
    task = frozen_tasks(find("Pursuit"), "held_out")[0]
    found = metaduel.evaluate("~/run", out="~/a", quiet=True, **SMALL)
    assert made(home, "a")
    evaluate_runs("~/run", Protocol(**SMALL), "~/a", quiet=True, crossed=False, tuning_tasks=2)
    assert made(home, "a")
    summary.write_report(found, "~/a", "a line", "a line")
    assert "- a line\n" in (home / "a" / "report.md").read_text(encoding="utf-8")
    assert made(home, "a")
    report.plot_shots(summary.headline(found).filter(method="maml"), "~/a.png")
    assert made(home, "a.png")
    found.write("~/a.csv.gz")
    assert len(table.read("~/a.csv.gz")) == len(found)
    assert made(home, "a.csv.gz")
    settings = exploitability.Exploitation(1, 1, 1, 1, 1, 1)
    exploitability.exploit("~/run", settings, "~/a", quiet=True)
    assert made(home, "a")
    film.film_adaptation(run, "protagonist", EVADER, task, "~/a.gif", 1, 1)
    assert made(home, "a.gif")
    write_video("~/a.gif", [np.zeros((16, 16, 3), np.uint8)] * 2, 10)
    assert made(home, "a.gif")
    write_gallery("~/a.png", {"Pursuit": find("Pursuit")})
    assert made(home, "a.png")
    digests.write({"steps": {"a": "b"}}, "~/a.json")
    assert digests.read("~/a.json") == {"steps": {"a": "b"}}
    assert made(home, "a.json")
    train(TrainConfig(game="Pursuit").override(**TINY), "~/a", quiet=True)
    assert made(home, "a")


def test_settings_of_studies_know_home(home):
    for kind in (Classification, Generation):
        settings = kind(folder="~/study", methods="maml")
        assert (settings.folder, settings.methods) == (home / "study", ("maml",))
    with pytest.raises(InvalidInputError, match=f"{home}/images: expected images_background"):
        omniglot("~/images")


def test_names_of_players_know_home(home, run):
    duel = Duel(make_game(find("Pursuit")))
    for name in ("run:~/run", "sb3:~/ppo", "sb3:~/ppo.zip?sample=1"):
        assert callable(load_named(duel, "protagonist", name).act)
    assert callable(load_player(duel, "adversary", Path("~/run")).act)
    for entry in ("~/run", "run:~/run", Path("~/run"), "~/ppo.zip", "sb3:~/ppo.zip?trust=PPO"):
        assert len(entries_of(entry, find("Pursuit"))) == 1
    for opponent in ("~/run", Path("~/run")):
        assert opponents_of(opponent) == (("run:~/run", "run:~/run"),)


def test_one_run_counts_as_a_list_of_one(home, run):
    for one in ("~/run", Path("~/run"), run, ["~/run"], (run,), iter([run])):
        assert [found.config for _, found in named_runs(one)] == [run.config]
    first = metaduel.evaluate([run], baselines=False, **SMALL)
    for one in (run, "~/run", Path("~/run"), ("~/run",)):
        assert metaduel.evaluate(one, baselines=False, **SMALL)["return"].tolist() == first["return"].tolist()
    settings = exploitability.Exploitation(1, 1, 1, 1, 1, 1)
    rows = exploitability.exploit(run, settings, "~/exploited", quiet=True)
    assert exploitability.exploit([Path("~/run")], settings, "~/exploited", quiet=True) == rows
    with pytest.raises(InvalidInputError, match="~/run trained no generator"):
        clouds.compare("~/run", "~/clouds")
    with pytest.raises(InvalidInputError, match="maml, seed 0 is no run of Navigation"):
        published.sheet(run)


def test_one_name_counts_as_a_list_of_one(home, run):
    config = TrainConfig(game="Pursuit", hidden=8, roles="protagonist", against_protagonist=EVADER)
    assert config.hidden == (8,)
    assert config.roles == ("protagonist",)
    assert config.opponents("protagonist") == (EVADER,)
    again = TrainConfig(game="Pursuit").override(hidden=8, roles="protagonist", against_protagonist=EVADER)
    assert again == config
    assert yaml.safe_load((home / "run" / "config.yaml").read_text(encoding="utf-8"))["hidden"] == [4]
    assert Duel(make_game(find("Navigation")), informed="protagonist").informed == ("protagonist",)
    task = {"push": 0.05}
    assert TaskList("Navigation", task).tasks == [task]
    trained = metaduel.train_meta_adversarial(TaskList("Navigation", task), folder="~/one", quiet=True, **TINY)
    assert trained.config.game == "Navigation"
    with pytest.raises(InvalidInputError, match="task='held_out:3' must map context names to numbers"):
        metaduel.train_meta_adversarial(TaskList("Navigation", "held_out:3"), folder="~/two", quiet=True, **TINY)
    assert not (home / "two").exists()
    rows = {
        "role": "protagonist", "seed": 0, "task_split": "held_out", "opponent_split": "held_out", "actions": "sampled",
        "tasks": "held_out:3", "opponents": "wind",
    }  # fmt: skip
    array, spec = np.ones((2, 1, 1, 1)), find("Navigation")
    both = table.concatenate(table.from_returns(array, spec, method=name, **rows) for name in ("maml", "joint"))
    assert (both.values("task"), both.values("opponent")) == (["held_out:3"], ["wind"])
    assert len(report.difference_sheet(both, "protagonist", report.Comparison("maml", 1, "joint", 1)).rows) == 1
    assert len(report.crossed_sheet(both, "maml", 1).rows) == 1


def test_commands_know_home(home, capsys):
    small = ["--shots", "1", "--episodes", "1", "--test-episodes", "1", "--task-count", "2", "--quiet"]
    own = home / "run" / "evaluation"
    for entry in ("run:~/run", "mine=~/run"):
        cli.main(["evaluate", entry, "--no-baselines", *small])
        assert (own / "report.md").is_file()
        own.rename(home / f"evaluation-{os.urandom(4).hex()}")
    cli.main(["train", "--config=~/run/config.yaml", "--folder", "~/b", "--quiet"])
    assert (home / "b" / "config.yaml").is_file()
    assert capsys.readouterr().out.endswith(f"wrote {home / 'b'}\n")
    for args, message in {
        ("published", "~/run"): f"{home}/run is no run of Navigation",
        ("clouds", "~/run"): f"{home}/run trained no generator",
        ("digests", "--check=~/none.json"): f"{home}/none.json",
        ("adapt", "~/none"): f"{home}/none is not a run folder",
        ("exploit", "~/none"): f"{home}/none is not a run folder",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            cli.main(args)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_settings_take_paths_as_the_players_there(tmp_path):
    (tmp_path / "run").mkdir()
    paths = [tmp_path / "run", tmp_path / "model.zip"]
    config = TrainConfig(game="Pursuit").override(against_protagonist=["guard", *paths], against_adversary=paths[0])
    assert config.against_protagonist == ("guard", f"run:{paths[0]}", f"sb3:{paths[1]}")
    assert config.against_adversary == (f"run:{paths[0]}",)
    assert TrainConfig.from_dict(config.to_dict()) == config
