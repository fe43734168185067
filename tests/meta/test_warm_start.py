"""Runs that begin with the best weights of another run."""

import functools
import shutil

import pytest
import torch
from pettingzoo.classic import rps_v2

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES
from metaduel.meta.runs.checkpoint import load_checkpoint, read_config, save_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner, train, train_all, train_meta_adversarial
from metaduel.meta.runs.trainer import BEST, LAST
from metaduel.meta.runs.warm import warm_started

TINY = TrainConfig(game="Pursuit", method="joint").override(
    tasks=4, episodes=2, horizon=3, hidden=(4,), steps=1, iterations=3, validate_every=1, validation_tasks=1,
    normalise_observations=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "joint"
    train(TINY, folder, quiet=True)
    return folder


def begun(config, tmp_path):
    source = DuelSource(config)
    return warm_started(make_learner(config, source), source, config, tmp_path / "new"), source


@pytest.mark.parametrize("method", ["maml", "self_play", "maml_trpo", "promp"])
@pytest.mark.parametrize("roles", [ROLES, ROLES[1:]])
def test_the_start_is_the_best_of_the_other_run(method, roles, joint, tmp_path):
    if method == "self_play" and len(roles) < 2:
        return
    config = TINY.override(method=method, roles=roles, warm_start=joint)
    learner, source = begun(config, tmp_path)
    best, last = (load_checkpoint(joint / name)[0] for name in (BEST, LAST))
    cold = make_learner(config, DuelSource(config))
    assert list(learner.start) == list(roles)
    for role in roles:
        for name, value in learner.start[role].items():
            assert torch.equal(value, best[f"{role}/start/{name}"])
        assert not torch.equal(learner.start[role]["layer0.weight"], cold.start[role]["layer0.weight"])
        count = f"{role}/statistics/count"
        assert source.state()[count] == last[count] > 0
    before = learner.start[roles[0]]["layer0.weight"].detach().clone()
    learner.update(source.problem(0))
    assert learner.start[roles[0]]["layer0.weight"].requires_grad
    if method != "maml_trpo":  # its search may find no step
        assert not torch.equal(learner.start[roles[0]]["layer0.weight"], before)


@pytest.mark.parametrize("method", ["rl2", "latent"])
def test_critics_go_on_in_their_scale(method, tmp_path):
    config = TINY.override(method=method, iterations=2)
    train(config, tmp_path / "first", quiet=True)
    old = load_checkpoint(tmp_path / "first" / LAST)[0]
    for roles in (ROLES, ROLES[1:]):
        learner, _ = begun(config.override(warm_start=tmp_path / "first", roles=roles), tmp_path)
        for role in roles:
            assert old[f"{role}/value_squares"][1] > 0
            assert torch.equal(learner.state()[f"{role}/value_squares"], old[f"{role}/value_squares"])


def test_runs_of_before_rewards_were_scaled_are_starts_too(tmp_path):
    config = TINY.override(method="fomaml", network="gru", normalise_observations=False, iterations=1)
    train(config, tmp_path / "first", quiet=True)
    for name in (BEST, LAST):
        tensors, state = load_checkpoint(tmp_path / "first" / name)
        kept = {one: value for one, value in tensors.items() if "fixed.reward" not in one and "/statistics/" not in one}
        save_checkpoint(tmp_path / "first" / name, kept, state)
    learner, source = begun(config.override(warm_start=tmp_path / "first"), tmp_path)
    source.record(learner.update(source.problem(0)))
    assert source.fixed("protagonist") == {}
    assert learner.start["protagonist"]["fixed.reward"].tolist() == [1.0, 1.0]


def test_it_is_recorded_and_a_run_that_has_begun_needs_the_folder_no_more(joint, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(joint, folder)
    config = TINY.override(method="fomaml", warm_start=folder)
    train(config, tmp_path / "whole", quiet=True)
    assert read_config(tmp_path / "whole")["warm_start"] == str(folder)
    assert load(tmp_path / "whole").config.warm_start == str(folder)
    shutil.copytree(tmp_path / "whole", tmp_path / "copy")
    shutil.rmtree(folder)
    train(config, tmp_path / "copy", resume=True, quiet=True)
    one, two = (load_checkpoint(tmp_path / name / LAST)[0] for name in ("whole", "copy"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    with pytest.raises(InvalidInputError, match="holds no run"):
        train(config, tmp_path / "new", quiet=True)


def test_runs_trained_together_may_begin_with_it(joint, tmp_path):
    configs = [TINY.override(method="fomaml", iterations=1, warm_start=start) for start in (joint, "")]
    train_all(configs, [tmp_path / name for name in ("warm", "cold")], quiet=True)
    train(configs[0], tmp_path / "alone", quiet=True)
    warm, cold, alone = (
        load_checkpoint(tmp_path / name / LAST)[0]["adversary/start/layer0.weight"]
        for name in ("warm", "cold", "alone")
    )
    torch.testing.assert_close(warm, alone, rtol=0, atol=1e-4)
    assert (warm - cold).abs().max() > 0.002


def test_environments_of_your_own_have_it_too(tmp_path):
    game = functools.partial(rps_v2.parallel_env, max_cycles=2)
    more = {
        "tasks": 1,
        "episodes": 2,
        "steps": 1,
        "iterations": 1,
        "hidden": (4,),
        "validation_tasks": 1,
        "horizon": 2,
        "quiet": True,
    }
    train_meta_adversarial(game, "joint", tmp_path / "joint", **more)
    train_meta_adversarial(game, "maml", tmp_path / "maml", warm_start=tmp_path / "joint", outer_lr=1e-12, **more)
    one, two = (load_checkpoint(tmp_path / name / BEST)[0] for name in ("joint", "maml"))
    torch.testing.assert_close(
        one["adversary/start/layer0.weight"], two["adversary/start/layer0.weight"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": (5,)}, "has another network: the protagonist's layer0.bias is .4,. there and .5,. here"),
        ({"hidden": (4, 4)}, "has another network"),
        ({"context": 2}, "has another network"),
        ({"informed": True}, "has another network"),
        ({"network": "gru"}, "has network='mlp', this run 'gru'"),
        (
            {"method": "rl2", "normalise_observations": False},
            "is of method joint, whose network method rl2 does not have",
        ),
        ({"normalise_observations": False}, "must have normalise_observations=False, as this run"),
    ],
)
def test_other_networks_are_refused(settings, words, joint, tmp_path):
    with pytest.raises(InvalidInputError, match=f"^warm_start=.*{words}") as caught:
        train(TINY.override(warm_start=joint, **settings), tmp_path / "new", quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_folders_without_the_player_are_refused(joint, tmp_path):
    train(TINY.override(roles=ROLES[:1], iterations=1), tmp_path / "one", quiet=True)
    with pytest.raises(InvalidInputError, match="holds no adversary"):
        train(TINY.override(warm_start=tmp_path / "one"), tmp_path / "new", quiet=True)
    for wrong in (tmp_path, tmp_path / "none", joint / "config.yaml"):
        with pytest.raises(InvalidInputError, match="holds no run with a checkpoint"):
            train(TINY.override(warm_start=wrong), tmp_path / "new", quiet=True)
    assert not (tmp_path / "new").exists()
