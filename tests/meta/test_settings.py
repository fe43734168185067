"""A setting that was chosen either has an effect or is refused by name."""

import contextlib
from pathlib import Path

import pytest
import torch

import metaduel
from metaduel.benchmarks.tools.digests import _Lines, run_digests
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.supervised import meta_train
from metaduel.meta.runs.train import train

TINY = {
    "iterations": 2, "tasks": 2, "episodes": 2, "horizon": 3, "hidden": (4,), "validate_every": 2, "validation_tasks": 2,
}  # fmt: skip
# A value of each setting that is not the default.
OTHER = {
    "inner_lr": 0.3, "adversary_inner_lr": 0.3,
    "learn_inner_lr": False, "inner_lr_per": "step", "inner_lr_outer_lr": 0.3, "adapts": "head",
    "second_order": False, "outer_shots": "last", "peer": True, "recompute": True, "outer_lr": 0.1, "momentum": 0.5,
    "discount": 0.5, "inner_discount": 0.5, "adversary_inner_discount": 0.5, "inner_baseline": False, "baseline": "batch",
}  # fmt: skip
IGNORED = [(method.name, name) for method in METHODS.values() for name in method.ignores]


def trained(folder: Path, method: str, **settings):
    """Digests of a run whose settings come as from a file: nothing is refused."""
    train(TrainConfig(game="RockPaperScissors", method=method, **TINY).override(**settings), folder, quiet=True)
    return run_digests(folder)


@pytest.mark.parametrize("method", [method.name for method in METHODS.values() if method.ignores])
def test_ignored_settings_have_no_effect_and_the_others_have(method, tmp_path):
    """All at once: so that it is short. A setting that the method refuses is not in question."""
    config, ignored = TrainConfig(game="RockPaperScissors", method=method, **TINY), {}
    for name in METHODS[method].ignores:
        with contextlib.suppress(InvalidInputError):
            config.override(**ignored, **{name: OTHER[name]})
            ignored[name] = OTHER[name]
    without = trained(tmp_path / "default", method)
    assert trained(tmp_path / "changed", method, **ignored) == without
    for name in ("outer_lr", "momentum"):
        if name not in METHODS[method].ignores:
            assert trained(tmp_path / name, method, **{name: OTHER[name]}) != without, name


@pytest.mark.parametrize(("method", "name"), IGNORED)
def test_settings_that_a_method_ignores_are_refused(method, name, tmp_path):
    value = OTHER[name]
    config = TrainConfig(game="RockPaperScissors", method=method, **TINY)
    if getattr(METHODS[method].configure(METHODS[method].settings()), name, None) == value:
        config.override(**{name: value}).refuse_idle([name])  # it says what the method does anyway
        return
    with pytest.raises(InvalidInputError, match=f"^{name}={value!r}|method {method}") as caught:
        metaduel.train_meta_adversarial(
            "RockPaperScissors", method, tmp_path / "run", quiet=True, **TINY | {name: value}
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("game", "settings", "words"),
    [
        ("Pursuit", {"persona_lr": 0.3}, "persona_lr=0.3 has no effect: persona_share=0"),
        ("Pursuit", {"roles": ("adversary",), "learned_share": 0.3}, "learned_share=0.3 .* only the adversary learns"),
        (
            "Pursuit",
            {"roles": ("protagonist",), "adversary_inner_discount": 0.3},
            "adversary_inner_discount=0.3 .* not learn",
        ),
        (
            "Pursuit",
            {"roles": ("protagonist",), "adversary_inner_clip": 0.4},
            "adversary_inner_clip=0.4 .* not learn",
        ),
        ("Pursuit", {"roles": ("protagonist",), "adversary_inner_lr": 0.4}, "adversary_inner_lr=0.4 .* not learn"),
        ("Pursuit", {"method": "rl2", "adversary_inner_clip": 0.4}, "adversary_inner_clip=0.4: method rl2"),
        ("Pursuit", {"method": "rl2", "network": "gru"}, "network='gru' has no effect: method rl2 has a network"),
        ("Pursuit", {"network": lambda n, a: torch.nn.Linear(n, a), "hidden": (3,)}, "hidden=.3,. has no effect"),
        ("Pursuit", {"method": "fomaml", "second_order": True}, "second_order=True has no effect: method fomaml"),
        ("Pursuit", {"method": "reptile", "learn_inner_lr": True}, "learn_inner_lr=True has no effect: method reptile"),
        (
            "Pursuit",
            {"method": "meta_sgd", "inner_lr_per": "step"},
            "inner_lr_per='step' has no effect: method meta_sgd",
        ),
        ("Pursuit", {"method": "anil", "adapts": "all"}, "adapts='all' has no effect: method anil"),
        ("Pursuit", {"method": "meta_mapg", "peer": False}, "peer=False has no effect: method meta_mapg"),
        ("Pursuit", {"roles": ("adversary",), "momentum": 0.3}, "momentum=0.3 .* only the adversary learns"),
        (
            "Pursuit",
            {"roles": ("adversary",), "against_protagonist": ("lead",)},
            "against_protagonist=.*does not learn",
        ),
        ("Pursuit", {"learned_share": 1.0, "against_adversary": ("dodge",)}, "against_adversary=.*no task is left"),
        ("RockPaperScissors", {"initial_log_std": -1.0}, "initial_log_std=-1.0 .* discrete"),
        (
            "RockPaperScissors",
            {"method": "joint", "persona_share": 0.5, "persona_lr": 1.0, "inner_lr": 0.3},
            "inner_lr",
        ),
    ],
)
def test_settings_without_effect_beside_others_are_refused(game, settings, words, tmp_path):
    with pytest.raises(InvalidInputError, match=words):
        metaduel.train_meta_adversarial(game, folder=tmp_path / "run", quiet=True, **TINY | settings)
    assert not (tmp_path / "run").exists()


def test_inner_lr_is_the_rate_of_personas_without_one():
    config = TrainConfig(game="Pursuit", method="joint", **TINY).override(persona_share=0.5, inner_lr=0.3)
    config.refuse_idle(["persona_share", "inner_lr"])


def test_settings_of_data_are_refused_too(tmp_path):
    with pytest.raises(InvalidInputError, match=r"inner_lr=0\.3 has no effect: method joint"):
        meta_train(_Lines(), tmp_path / "run", method="joint", inner_lr=0.3)
    assert not (tmp_path / "run").exists()
