"""Policies that are the user's own modules: trained, loaded with the function that makes them, refused in one sentence."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import metaduel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource

SMALL = {"iterations": 2, "tasks": 4, "episodes": 2, "steps": 1, "horizon": 5, "validation_tasks": 2, "quiet": True}


def residual(size, actions):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = nn.Linear(size, size), nn.Linear(size, actions)

        def forward(self, x):
            return self.out(x + torch.tanh(self.inner(x)))

    return Residual()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "own"
    metaduel.train_meta_adversarial("Navigation", folder=folder, network=residual, **SMALL)
    return folder


def test_it_trains_plays_adapts_and_is_evaluated(folder, tmp_path):
    player = metaduel.load(folder, network=residual).protagonist
    assert set(player.weights) == {"inner.weight", "inner.bias", "out.weight", "out.bias", "log_std"}
    env = gym.make("metaduel/Navigation-v0", opponent="idle", horizon=5)
    adapted = player.adapt(env, shots=1, episodes=2)
    assert not torch.equal(adapted.weights["inner.weight"], player.weights["inner.weight"])
    assert env.action_space.contains(adapted.predict(env.reset(seed=0)[0])[0])
    table = metaduel.evaluate(
        folder, out=tmp_path, network=residual, shots=1, episodes=1, test_episodes=1, task_count=2
    )
    assert np.isfinite(table["return"]).all()


def test_without_its_function_it_is_not_loaded(folder):
    with pytest.raises(InvalidInputError, match="this run has a network of its own: give the function that makes it"):
        metaduel.load(folder)
    with pytest.raises(InvalidInputError, match="weights don't fit"):
        metaduel.load(folder, network=lambda size, actions: nn.Linear(size, actions))
    with pytest.raises(InvalidInputError, match="has a network of its own"):
        DuelSource(TrainConfig(game="Navigation", network="own"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": lambda d, a: nn.Sequential(nn.BatchNorm1d(d), nn.Linear(d, a))}, "running_mean.*function of its"),
        ({"network": lambda d, a: nn.Linear(d, a + 1)}, r"maps \[3, 2\] to \[3, 3\]; must be \[3, 2\]"),
        ({"network": residual, "method": "rl2"}, "method rl2 has a network of its own"),
        ({"network": residual, "method": "anil"}, "has no head of its own; use method maml"),
        ({"network": residual, "context": 2}, "context=2 must be a whole number, and 0"),
        ({"network": "cnn"}, "cnn"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_policy_is_refused_before_anything_is_written(settings, message, tmp_path):
    with pytest.raises(InvalidInputError, match=message):
        metaduel.train_meta_adversarial("Navigation", folder=tmp_path / "run", **SMALL, **settings)
    assert not list(tmp_path.iterdir())
