"""The search for settings, and the settings that a method starts from on a family."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from metaduel.benchmarks.core import trainings
from metaduel.benchmarks.tools import tune as tool
from metaduel.benchmarks.tools.tune import Search, tune
from metaduel.cli import training as cli
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES
from metaduel.meta.runs import recommended
from metaduel.meta.runs.config import TrainConfig

SETTINGS = {
    "tasks": 2,
    "episodes": 1,
    "steps": 1,
    "hidden": (4,),
    "validation_tasks": 1,
    "horizon": 5,
    "compile": False,
}
SHIPPED = recommended.PATH
SPACE = {"inner_discount": (0.0, 0.5), "outer_lr": (0.001, 0.002)}


@pytest.fixture(autouse=True)
def nothing_recommended(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches begin with defaults, whatever the package recommends."""
    path = tmp_path_factory.mktemp("none") / "recommended.yaml"
    path.write_text("{}")
    monkeypatch.setattr(recommended, "PATH", path)


def test_search_finds_the_settings_with_the_best_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Scores are a known function of the settings: each player has its own best discount, both share the best step size.
    goals = {"protagonist": 0.5, "adversary": 0.0}

    def score(folder: Path, role: str) -> float:
        config = yaml.safe_load((folder / "settings.yaml").read_text())
        mine = config["loss"]["inner_discount" if role == "protagonist" else "adversary_inner_discount"]
        return (
            100 * (role == "adversary") * (mine == goals[role]) + (mine == goals[role]) + config["learner"]["outer_lr"]
        )

    def learn(plans: list[trainings.Budgeted], quiet: bool) -> None:
        for config, _, folder in plans:
            folder.mkdir(parents=True)
            (folder / "settings.yaml").write_text(yaml.safe_dump(config.to_dict()))

    monkeypatch.setattr(tool, "learn_steps", learn)
    monkeypatch.setattr(tool, "best_score", score)
    found = tune("Pursuit", "fomaml", tmp_path / "all", Search(8, 1, 2, 100, {}, SPACE))
    assert found.settings == {"inner_discount": 0.5, "outer_lr": 0.002, "adversary_inner_discount": 0.0}
    # Both were not together in any candidate of a smaller search: they are put together for the last round.
    few = [{**found.settings, "inner_discount": 0.0}, {**found.settings, "adversary_inner_discount": 0.5}]
    monkeypatch.setattr(tool, "_draw", lambda *_: iter(few))
    assert tune("Pursuit", "fomaml", tmp_path / "few", Search(2, 1, 2, 100, {}, SPACE)).settings == found.settings


def test_a_search_trains_writes_a_config_file_and_resumes(tmp_path: Path) -> None:
    size = Search(2, 1, 1, 60, SETTINGS, SPACE)
    found = tune("Pursuit", "fomaml", tmp_path, size)
    config = TrainConfig.from_dict(yaml.safe_load((tmp_path / "tuned.yaml").read_text()))
    assert config == TrainConfig(game="Pursuit").override(method="fomaml").override(**SETTINGS).override(
        **found.settings
    )
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/run/checkpoints/last.safetensors")}
    assert len(made) >= 3
    assert tune("Pursuit", "fomaml", tmp_path, size) == found
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert found.sheets[0].markdown() in (tmp_path / "tuning.md").read_text()
    with pytest.raises(InvalidInputError, match="another search"):
        tune("Pursuit", "fomaml", tmp_path, Search(3, 1, 1, 60, SETTINGS, SPACE))


def test_settings_that_are_set_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _without_training(monkeypatch)
    own = {**SETTINGS, "adversary_inner_discount": 0.7}
    found = tune("Pursuit", "fomaml", tmp_path / "a", Search(4, 1, 1, 60, own, SPACE))
    assert {config.loss.adversary_inner_discount for config in trained} == {0.7}
    assert "adversary_inner_discount" not in found.settings
    # Values that are given for the adversary alone are its own.
    trained.clear()
    space = {"inner_discount": (0.0, 0.5), "adversary_inner_discount": (0.1, 0.2)}
    tune("Pursuit", "fomaml", tmp_path / "b", Search(5, 1, 1, 60, SETTINGS, space))
    assert {config.loss.adversary_inner_discount for config in trained} <= {0.1, 0.2, 0.99}


def test_settings_without_effect_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "discount" not in tool._space(TrainConfig(game="Pursuit").override(method="reptile"))
    trained = _without_training(monkeypatch)
    for settings, space in (({}, {"discount": (0.9, 0.95)}), ({"discount": 0.9}, {})):
        with pytest.raises(InvalidInputError, match=r"discount=0\.9.* has no effect: method reptile has no use"):
            tune("Pursuit", "reptile", tmp_path / "a", Search(2, 1, 1, 60, {**SETTINGS, **settings}, space))
    assert not trained
    # What has an effect in some candidates is searched.
    personas = {"persona_share": (0.0, 0.5), "persona_lr": (0.1, 0.2)}
    assert tune("Pursuit", "fomaml", tmp_path / "b", Search(4, 1, 1, 60, SETTINGS, personas)).settings


def test_a_search_keeps_what_was_recommended_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.yaml"
    recommended.recommend(path, "Pursuit", "fomaml", {"inner_lr": 0.25, "outer_lr": 0.123})
    monkeypatch.setattr(recommended, "PATH", path)
    _without_training(monkeypatch)
    cli.tune(
        "Pursuit", "fomaml", tmp_path / "tune", candidates=2, finalists=1, seeds=1, set=["tasks=3"],
        search=["outer_lr=[0.1]"], recommend=path,
    )  # fmt: skip
    kept = recommended.recommended("Pursuit", "fomaml")
    assert (kept["inner_lr"], kept["tasks"]) == (0.25, 3)
    assert kept["outer_lr"] in (0.1, 0.123)


def test_an_interrupted_search_names_the_command_that_resumes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "learn_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cli.tune(
            "Pursuit", "fomaml", tmp_path, candidates=3, finalists=1, set=["tasks=3"], search=["outer_lr=[0.1,0.2]"]
        )
    words = shlex.split(capsys.readouterr().err.split("resume with: ")[1])
    for option in (["--candidates", "3"], ["--set", "tasks=3"], ["--search", "outer_lr=[0.1,0.2]"]):
        assert words[words.index(option[0]) + 1] == option[1]


def _without_training(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The settings that would be trained, which all get the same score."""
    trained: list[TrainConfig] = []
    monkeypatch.setattr(tool, "learn_steps", lambda plans, quiet: trained.extend(config for config, _, _ in plans))
    monkeypatch.setattr(tool, "best_score", lambda *_: 0.0)
    return trained


def test_scores_of_both_players_count_alike() -> None:
    scores = np.array([[0.0, 300.0], [1.0, 100.0], [0.9, 290.0]])
    assert tool._standard(scores).mean(1).argmax() == 2
    assert tool._standard(np.ones((3, 2))).tolist() == np.zeros((3, 2)).tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"candidates": 0}, "candidates=0"),
        ({"finalists": 9, "candidates": 3}, "finalists=9"),
        ({"space": {"outer_lr": 0.1}}, "outer_lr=0.1 must be a list"),
        ({"space": {"outer_lr": "high"}}, "outer_lr='high' must be a list"),
        ({"space": {"outer_lr": [0.1]}, "settings": {"outer_lr": 0.2}}, "outer_lr=0.2"),
        ({"settings": {"player_steps": 100}}, "player_steps=100 .*: give --steps"),
        ({"settings": {"method": "rl2"}}, "method='rl2' .*: give --method"),
        ({"space": {"seed": [0, 1]}}, r"seed=\[0, 1\] .*: give --seeds"),
    ],
)
def test_bad_searches_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Search(**settings)  # type: ignore[arg-type]


def test_bad_values_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="outer_lr=-"):
        tune("Pursuit", "fomaml", tmp_path / "a", Search(4, 1, 1, 60, SETTINGS, {"outer_lr": (-1.0, -2.0)}))
    with pytest.raises(InvalidInputError, match="outer_speed"):
        tune("Pursuit", "fomaml", tmp_path / "a", Search(4, 1, 1, 60, SETTINGS, {"outer_speed": (1.0, 2.0)}))
    for method, name in (("rl2", "inner_discount"), ("joint", "inner_lr")):
        with pytest.raises(InvalidInputError, match=rf"{name}=0\.25 has no effect: method {method}"):
            tune("Pursuit", method, tmp_path / "a", Search(4, 1, 1, 60, SETTINGS, {name: (0.25, 0.5)}))
    assert not (tmp_path / "a").exists()


def test_recommended_settings_are_valid_and_of_present_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommended, "PATH", SHIPPED)
    table = recommended._read(SHIPPED)
    assert table
    for family, methods in table.items():
        for method, settings in methods.items():
            config = recommended.advised(family, method)
            assert (config.family, config.method) == (family, method)
            assert config == TrainConfig(game=find(family).name).override(method=method).override(**settings)


def test_a_method_starts_from_recommended_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.yaml"
    recommended.recommend(path, "Pursuit", "fomaml", {"inner_discount": 0.25, "outer_lr": 0.123})
    recommended.recommend(path, "Sumo", "rl2", {"outer_lr": 0.5})
    recommended.recommend(path, "Pursuit", "fomaml", {"inner_discount": 0.75})
    monkeypatch.setattr(recommended, "PATH", path)
    assert recommended.recommended("Pursuit", "fomaml") == {"inner_discount": 0.75}
    assert recommended.recommended("Sumo", "rl2") == {"outer_lr": 0.5}
    assert recommended.recommended("Pursuit", "maml") == recommended.recommended("Goalkeeper", "rl2") == {}

    from metaduel import train_meta_adversarial

    run = train_meta_adversarial(
        "Pursuit", "fomaml", tmp_path / "run", quiet=True, iterations=1, outer_lr=0.5, **SETTINGS
    )
    assert (run.config.loss.inner_discount, run.config.learner.outer_lr) == (0.75, 0.5)
    assert len(run.config.roles) == len(ROLES)


def test_recommended_settings_that_stand_in_the_way_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.yaml"
    recommended.recommend(path, "Pursuit", "fomaml", {"inner_clip": 0.4, "tasks": 8})
    monkeypatch.setattr(recommended, "PATH", path)
    for settings, words in (
        (
            {"normalise": False},
            r"inner_clip=0.4.* \(recommended for fomaml on Pursuit, unless set: inner_clip=0.4, tasks=8\)$",
        ),
        ({"normalise": False, "tasks": 0}, "^tasks=0 must be a whole number of at least 1$"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            recommended.starting("Pursuit", "fomaml", settings)
    assert recommended.starting("Pursuit", "fomaml", {"normalise": False, "inner_clip": 0.0}).tasks == 8
