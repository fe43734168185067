"""The search for settings, and the settings that a method starts from on a family."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from metaduel.benchmarks.core import trainings
from metaduel.benchmarks.tools import tune as tool
from metaduel.benchmarks.tools.tune import Search, tune
from metaduel.envs.core.errors import InvalidInputError
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
SPACE = {"inner_discount": (0.0, 0.5), "outer_lr": (0.001, 0.002)}


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


def test_recommended_settings_are_valid_and_of_present_families() -> None:
    table = recommended._read(recommended.PATH)
    for family, methods in table.items():
        for method, settings in methods.items():
            config = recommended.advised(family, method)
            assert (config.family, config.method) == (family, method)
            assert config == TrainConfig(game=family).override(method=method).override(**settings)


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
