"""Stable-Baselines3's PPO, DQN and SAC, and sb3-contrib's MaskablePPO, trained a little in every interface that they take."""

import gymnasium
import numpy as np
import pettingzoo
import pytest
import supersuit
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO, SAC

import metaduel

ON_POLICY = {"n_steps": 32, "batch_size": 32, "n_epochs": 1}
OFF_POLICY = {"learning_starts": 16, "buffer_size": 500, "batch_size": 16, "train_freq": 4}
LEARNERS = {
    "PPO": (PPO, "Navigation", ON_POLICY),
    "PPO on whole numbers": (PPO, "RockPaperScissors", ON_POLICY),
    "DQN": (DQN, "RockPaperScissors", OFF_POLICY),
    "SAC": (SAC, "Navigation", OFF_POLICY),
}
every_learner = pytest.mark.parametrize(("learner", "game", "settings"), LEARNERS.values(), ids=list(LEARNERS))


def make(learner, env, settings, seed=0):
    # policy_kwargs of its own: the libraries write into it
    return learner("MlpPolicy", env, policy_kwargs={"net_arch": [16]}, seed=seed, device="cpu", **settings)


def learn(model, steps):
    """Train; the weights are other ones afterwards, and finite."""
    before = [weight.clone() for weight in model.policy.parameters()]
    model.learn(steps)
    after = list(model.policy.parameters())
    assert steps <= model.num_timesteps <= steps + model.n_envs * 32
    assert all(weight.isfinite().all() for weight in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    return model


def obeyed(model):
    """Whether every action of the last rollout was one that its mask allowed, where masks forbid some."""
    masks = model.rollout_buffer.action_masks.reshape(-1, model.action_space.n)
    actions = model.rollout_buffer.actions.reshape(-1).astype(int)
    assert not masks.all()
    return masks[np.arange(len(actions)), actions].all()


@every_learner
def test_single(learner, game, settings):
    env = gymnasium.make(f"metaduel/{game}-v0")
    model = learn(make(learner, env, settings), 128)
    assert env.action_space.contains(model.predict(env.reset(seed=0)[0])[0])


@every_learner
def test_vector(learner, game, settings):
    env = metaduel.make_sb3(game, num_envs=4)
    model = learn(make(learner, env, settings), 512)
    horizon = metaduel.find(game).horizon
    lengths = [episode["l"] for episode in model.ep_info_buffer]
    assert lengths
    assert max(lengths) <= horizon
    assert len(model.predict(env.reset())[0]) == 4


@every_learner
def test_parallel(learner, game, settings):
    """One policy for both seats, through SuperSuit, which must see the same spaces in both."""
    env = pettingzoo.make("parallel", f"metaduel/{game}-v0")
    env = supersuit.pad_action_space_v0(supersuit.pad_observations_v0(env))
    rows = supersuit.pettingzoo_env_to_vec_env_v1(env)
    rows = supersuit.concat_vec_envs_v1(rows, 2, base_class="stable_baselines3")
    assert rows.num_envs == 4  # two copies, two seats
    rows.reset()
    rows.step(np.array([rows.action_space.sample() for _ in range(4)]))
    learn(make(learner, rows, settings, seed=None), 256)  # SuperSuit's rows can't be seeded by the model


@pytest.mark.parametrize("game", ["KuhnPoker", "RockPaperScissors"])
def test_maskable_single(game):
    """An illegal action of a turn-based game would raise; where all are legal, all masks are true."""
    env = gymnasium.make(f"metaduel/{game}-v0")
    model = learn(make(MaskablePPO, env, ON_POLICY), 128)
    if game == "KuhnPoker":
        assert obeyed(model)
    observation, _ = env.reset(seed=0)
    masks = env.unwrapped.action_masks()
    assert masks.dtype == np.bool_
    assert masks[model.predict(observation, action_masks=masks)[0]]


def test_maskable_vector():
    env = metaduel.make_sb3("LeducPoker", num_envs=4)
    model = learn(make(MaskablePPO, env, ON_POLICY), 256)
    assert obeyed(model)
    masks = np.stack(env.env_method("action_masks"))
    assert masks.shape == (4, env.action_space.n)
