"""What `compile` becomes, and that a run keeps to it."""

import json

import pytest
import torch
import yaml

from metaduel import train_meta_adversarial
from metaduel.agents import compiled
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.runs import compiling
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import train, train_all

SMALL = {
    "iterations": 2, "tasks": 4, "episodes": 2, "steps": 1, "hidden": (4,), "horizon": 5, "validate_every": 1,
    "validation_tasks": 2,
}  # fmt: skip
LONG = {"iterations": 10_000, "tasks": 4, "episodes": 2, "hidden": (4,)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def plain(monkeypatch):
    """Steps are one function that is not compiled; the functions made."""
    made = []
    monkeypatch.setattr(compiled, "_compile", lambda step, *_: made.append(step) or step)
    monkeypatch.setattr(compiling, "compiler_missing", lambda: "")
    return made


def small(**settings):
    return TrainConfig(game="Navigation").override(**SMALL | settings)


def recorded(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())["compile"]


def settle(seconds=1.0, monkeypatch=None, **settings):
    config = TrainConfig(game="Navigation").override(**LONG | settings)
    source = DuelSource(config)
    if monkeypatch:
        monkeypatch.setattr(compiling, "_seconds_per_step", lambda *_: seconds)
    return compiling.settled([config], source, [compiling._memory()], False)[0].compile


@pytest.mark.parametrize(("value", "becomes"), [("auto", "auto"), (True, True), (False, False)])
def test_values(value, becomes):
    assert small(compile=value).compile is becomes or small(compile=value).compile == becomes


@pytest.mark.parametrize("value", ["on", "yes", None, 2])
def test_other_values_are_refused(value):
    with pytest.raises(InvalidInputError, match="compile"):
        small(compile=value)


def test_a_short_run_is_not_compiled_and_config_yaml_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_seconds_per_step", lambda *_: pytest.fail("nothing need be measured"))
    train(small(), tmp_path / "run", quiet=True)
    assert recorded(tmp_path / "run") is False


def test_a_run_is_compiled_if_it_saves_more_than_compiling_takes(plain, monkeypatch, cache):
    config = TrainConfig(game="Navigation").override(**LONG)
    steps = LONG["iterations"] * (config.configured.steps + 1) * DuelSource(config).duel.horizon
    even = compiling.WORTH * compiling.EXPECTED["first"] / compiling.SAVED / steps
    assert settle(1.01 * even, monkeypatch) is True
    assert settle(0.99 * even, monkeypatch) is False
    # What was compiled before is in the compiler's cache, and takes less.
    source = DuelSource(config)
    compiling._note(compiling._identity([config], source), 12.0)
    assert json.loads((cache / "metaduel.json").read_text())["first"] == 12.0
    again = even * compiling.EXPECTED["again"] / compiling.EXPECTED["first"]
    assert settle(1.01 * again, monkeypatch) is True
    assert settle(0.99 * again, monkeypatch) is False
    # Something else has never been compiled, but how long that takes is known now.
    assert settle(1.01 * even * 12 / 30, monkeypatch, tasks=6) is True
    assert settle(0.99 * even * 12 / 30, monkeypatch, tasks=6) is False


@pytest.mark.parametrize("content", ["", "[]", '{"first": "x", "compiled": 3}', "\x00"])
def test_a_memory_that_cannot_be_read_is_measured_again(cache, content):
    cache.mkdir()
    (cache / "metaduel.json").write_text(content)
    assert compiling._costs() == {**compiling.EXPECTED, "compiled": []}


def test_steps_are_measured_on_the_first_iterations_rows():
    config = small()
    assert 0 < compiling._seconds_per_step(config, DuelSource(config)) < 10


def test_a_limit_of_environment_steps_counts(plain, monkeypatch):
    assert settle(1.0, monkeypatch) is True
    assert settle(1.0, monkeypatch, environment_steps=1000) is False


@pytest.mark.parametrize("method", ["maml", "rl2"])
def test_a_compiled_run_is_the_plain_run(tmp_path, plain, method):
    runs = {
        value: train(small(compile=value, method=method), tmp_path / str(value), quiet=True) for value in (False, True)
    }
    assert plain
    for role in runs[True].agents:
        for name, weight in runs[False].agents[role].weights.items():
            torch.testing.assert_close(runs[True].agents[role].weights[name], weight)
    assert recorded(tmp_path / "True") is True


def test_a_run_goes_on_as_it_began(tmp_path, plain):
    train(small(compile=True), tmp_path / "run", quiet=True)
    made = len(plain)
    train(small(compile="auto", iterations=2), tmp_path / "run", resume=True, quiet=True)
    assert recorded(tmp_path / "run") is True
    assert len(plain) == made  # nothing was left to play
    with pytest.raises(InvalidInputError, match="compile"):
        train(small(compile=False), tmp_path / "run", resume=True, quiet=True)


def test_a_run_from_before_is_never_compiled(tmp_path, plain):
    train(small(compile=False), tmp_path / "run", quiet=True)
    path = tmp_path / "run" / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "compile" not in line))
    config = small()
    assert compiling.settled([config], DuelSource(config), [tmp_path / "run"], True)[0].compile is False
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert not plain


def test_runs_that_are_trained_together_share_one_function(tmp_path, plain):
    folders = [tmp_path / str(seed) for seed in range(2)]
    train_all([small(compile=True, seed=seed) for seed in range(2)], folders, quiet=True)
    assert len(plain) == 1
    assert [recorded(folder) for folder in folders] == [True, True]


def test_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InvalidInputError, match=r"compile=True: .* there is no no-such-compiler here; install one"):
        train_meta_adversarial("Navigation", folder=tmp_path / "run", compile=True, quiet=True, **SMALL)
    assert not (tmp_path / "run").exists()
    assert compiling.settled([small()], DuelSource(small()), [tmp_path], False)[0].compile is False
