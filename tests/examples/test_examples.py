"""The examples run from end to end with short settings, and report bad settings in one line."""

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metaduel.envs.core.registry import find

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(monkeypatch, name, *arguments):
    """An example as a script."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


# A trainer in one file, which calls no learner of ours, is as long as its algorithm.
WHOLE = {"ppo_batched": 145}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < WHOLE.get(path.stem, 40)


# Studies


def test_few_shot_classification(tmp_path, monkeypatch):
    start(
        monkeypatch, "few_shot_classification", "--data", "digits", "--ways", 3, "--methods", "maml", "--network", "dense",
        "--iterations", 1, "--tasks", 2, "--test-episodes", 4, "--folder", tmp_path, "--quiet",
    )  # fmt: skip
    assert {"results.md", "results.csv", "steps.png", "episode.png"} <= {path.name for path in tmp_path.iterdir()}


def test_few_shot_generation(tmp_path, monkeypatch):
    start(
        monkeypatch, "few_shot_generation", "--iterations", 1, "--tasks", 2, "--test-tasks", 4, "--methods", "reptile",
        "--folder", tmp_path, "--quiet",
    )  # fmt: skip
    assert {"results.md", "results.csv", "steps.png", "samples.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "few_shot_classification",
            ("--methods", "mamml"),
            "few_shot_classification: method 'mamml' must be one of maml, fomaml, reptile, anil, meta_sgd\n",
        ),
        (
            "few_shot_generation",
            ("--test-tasks", 101),
            "few_shot_generation: 101 distributions: the held_out list of Forgery holds 100\n",
        ),
    ],
)
def test_bad_settings_are_one_line(tmp_path, monkeypatch, capsys, name, arguments, message):
    with pytest.raises(SystemExit) as exit:
        start(monkeypatch, name, *arguments, "--folder", tmp_path, "--quiet")
    assert exit.value.code == 2
    assert capsys.readouterr().err == message
    assert not any(tmp_path.iterdir())


def test_settings_need_no_torch():
    code = """
import sys
import metaduel.benchmarks.studies.classification.settings, metaduel.benchmarks.studies.generation.settings
print("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# Your own


def test_bring_your_own_task(tmp_path, monkeypatch):
    page = (EXAMPLES.parent / "docs" / "results" / "beyond-games.md").read_text()
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(page.split("```python\n")[1].split("```")[0], "beyond-games.md", "exec"), namespace)
    assert namespace["adapted"]["protagonist"]["layer0.weight"].shape == (5, 1, 40)


def test_own_tasks_are_those_of_the_page(tmp_path):
    page = (EXAMPLES.parent / "docs" / "results" / "beyond-games.md").read_text()
    task = page.split("```python\n")[1].split("run = meta_train")[0]
    source = (EXAMPLES / "own_tasks.py").read_text()
    assert task[task.index("class Sines") :] in source
    errors = load("own_tasks").main(tmp_path, iterations=200)
    assert len(errors) == 6
    assert errors[5] < errors[0]


def test_train_and_adapt(tmp_path):
    before, after = load("train_and_adapt").main(tmp_path, iterations=1, tasks=2, episodes=2)
    assert before < 0  # minus a distance
    assert after < 0
    assert before != after


def test_play_a_game():
    game = load("play_a_game")
    returns = game.play_both()
    assert returns["protagonist"] == -returns["adversary"] != 0
    for seat, other in (("protagonist", "adversary"), ("adversary", "protagonist")):
        names = find("Pursuit").opponents[other]["train"]
        found = [game.play_against(name, seat) for name in names]
        assert len(set(found)) == len(names)  # each opponent plays in a way of its own
        assert [game.play_against(name, seat) for name in names] == found


def test_self_play_with_sb3(monkeypatch):
    """Rows meet copies of the learner as it was, from their next reset on, and copies don't change."""
    example = load("self_play_with_sb3")
    met, played = [], []

    class Watched(example.SelfPlay):
        def _on_step(self):
            met.extend(info["opponent"] for info, done in zip(self.locals["infos"], self.locals["dones"]) if done)
            if self.num_timesteps % 2_000 == 0:
                played.append(
                    [copy.predict(np.ones((1, 13), np.float32), deterministic=True)[0].tolist() for copy in self.copies]
                )
            return True

    monkeypatch.setattr(example, "SelfPlay", Watched)
    returns = example.main(steps=8_000, every=2_000)
    assert set(returns) == set(find("Sumo").opponents["adversary"]["held_out"])
    assert all(np.isfinite(list(returns.values())))
    first = find("Sumo").opponents["adversary"]["train"][0]
    assert met.count(first) == 40  # the episodes that had begun, one in each row
    copies = {f"PPO at {steps} steps" for steps in (0, 2_000, 4_000, 6_000)}
    assert set(met) == {first, *copies}
    assert len(met) > 140
    assert [len(copies) for copies in played] == [1, 2, 3, 4]
    assert all(copies == played[-1][: len(copies)] for copies in played)
    assert len({str(copy) for copy in played[-1]}) == 4


def test_ppo_batched_learns(capsys):
    example = load("ppo_batched")
    before, after = example.main(example.Config(num_envs=64, updates=8, test_rows=128))
    assert after > before + 0.1  # in Pursuit a return lies between about -1.5 and 1.5
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"held-out scripts, before: return {before:+.3f}"
    assert lines[-1] == f"held-out scripts, after: return {after:+.3f}"


def test_ppo_batched_takes_the_other_seat_and_other_games():
    example = load("ppo_batched")
    config = example.Config(game="Goalkeeper", role="adversary", num_envs=8, steps=8, updates=2, test_rows=8)
    before, after = example.main(config)
    assert np.isfinite([before, after]).all()
    assert before != after
