"""PPO + fine-tuning: the same actions as Stable-Baselines3's policy, its own steps, and a resumed choice."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from metaduel.agents.policies.base import stack
from metaduel.agents.sb3 import MlpPlayer
from metaduel.benchmarks.core import few_shot, pretraining
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.benchmarks.core.pretraining import PPOSettings, converted, pretrain, pretrained
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.meta.adaptation.adapters import GradientAdapter
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import make_duel, make_policy

SMALL = PPOSettings(n_envs=8, n_steps=8, batch_size=32, n_epochs=2)


def config_of(game, **changes):
    return TrainConfig(game=game).override(**{"method": "joint", "hidden": [8, 6], "horizon": 6, **changes})


@pytest.mark.parametrize(("game", "context"), [("Pursuit", 0), ("Sumo", 3), ("Chicken", 0)])
def test_a_converted_policy_has_the_same_distribution(game, context):
    config = config_of(game, context=context)
    model = pretraining._ppo(config, "protagonist", SMALL)
    policy = make_policy(config, make_duel(config), "protagonist")
    with torch.no_grad():
        for value in model.policy.parameters():  # as if it had learned
            value += 0.3 * torch.randn_like(value)
    weights = converted(model.policy, policy.init(0))
    seen = model.env.reset()
    actions = model.policy.action_space.sample()
    batch = torch.as_tensor(np.stack([actions] * len(seen)))
    with torch.no_grad():
        _, expected, entropy = model.policy.evaluate_actions(torch.as_tensor(seen), batch)
        found = policy(stack(weights, 1), torch.as_tensor(seen)[None])
        torch.testing.assert_close(found.log_prob(batch[None])[0], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.entropy()[0], entropy, rtol=1e-5, atol=1e-5)
    model.env.close()


@pytest.mark.parametrize("game", ["Pursuit", "Chicken"])
def test_a_converted_policy_plays_the_same_episodes(game):
    config = config_of(game)
    model = pretraining._ppo(config, "protagonist", SMALL)
    weights = converted(model.policy, make_policy(config, make_duel(config), "protagonist").init(0))
    ours = pretraining.contender(config, "protagonist", weights, "ppo")
    protocol = Protocol(shots=0, episodes=1, test_episodes=2, task_count=3, actions="mode")
    returns = few_shot.evaluate(ours, protocol).returns
    theirs = few_shot.evaluate_player(
        find(game), "protagonist", protocol, "sb3", MlpPlayer(model.policy), config.horizon
    ).returns
    np.testing.assert_allclose(returns, theirs, rtol=1e-4, atol=1e-4)
    model.env.close()


def test_checkpoints_are_spread_over_the_players_own_steps_and_learning_changes_them():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    kept = pretrain(config_of("Pursuit"), "adversary", SMALL, 64 * 12)
    assert [one.steps for one in kept] == [128, 256, 384, 512, 640, 768]
    assert torch.equal(torch.get_rng_state(), state)
    again = pretrain(config_of("Pursuit"), "adversary", SMALL, 64 * 12)
    for one, two in zip(kept, again, strict=True):
        assert all(torch.equal(value, two.weights[name]) for name, value in one.weights.items())
    assert not torch.equal(kept[0].weights["layer0.weight"], kept[-1].weights["layer0.weight"])


def test_each_row_meets_an_opponent_in_turn_and_new_tasks():
    config = config_of("Pursuit")
    model = pretraining._ppo(config, "protagonist", SMALL)
    model.env.reset()
    infos = model.env.venv.reset_infos
    names = config.opponents("protagonist")
    assert [info["opponent"] for info in infos] == [names[i % len(names)] for i in range(8)]
    assert len({info["task"] for info in infos}) == 8
    model.env.close()


def test_checkpoint_and_rate_are_those_of_the_best_fine_tuned_validation_and_are_kept(tmp_path, monkeypatch):
    config, protocol = config_of("Pursuit"), Protocol(shots=1, episodes=2, test_episodes=2, task_count=2)
    found = pretrained(config, "protagonist", SMALL, 64 * 6, protocol, "ppo", tmp_path)
    scores = [score for _, score in found.curve]
    assert len(scores) == pretraining.CHECKPOINTS
    assert found.score == max(scores)
    assert found.steps == found.curve[int(np.argmax(scores))][0]
    assert isinstance(found.player.adapter, GradientAdapter)
    assert few_shot.validation_scores([found.player], protocol) == [pytest.approx(found.score)]
    assert few_shot.rate_of(few_shot.tune_rate(found.player, protocol)) == few_shot.rate_of(found.player)

    monkeypatch.setattr(PPO, "learn", None)
    monkeypatch.setattr(few_shot, "tune_rates", None)
    again = pretrained(config, "protagonist", SMALL, 64 * 6, protocol, "ppo", tmp_path)
    assert again.curve == found.curve
    for name, value in found.player.adapter.weights.items():
        assert torch.equal(again.player.adapter.weights[name], value)


def test_an_informed_player_sees_contexts_and_does_not_adapt(tmp_path):
    config, protocol = config_of("Pursuit", informed=True), Protocol(shots=1, episodes=1, test_episodes=1, task_count=2)
    found = pretrained(config, "protagonist", SMALL, 64, protocol, "informed ppo", tmp_path)
    assert not found.player.adapter.adapts
    assert (
        found.player.duel.observation_space("protagonist").shape[0]
        > Duel(make_game(find("Pursuit"))).observation_space("protagonist").shape[0]
    )


@pytest.mark.parametrize(
    ("game", "changes", "message"),
    [
        ("Pursuit", {"network": "gru"}, "network='gru': PPO"),
        ("Pursuit", {"normalise_observations": True}, "normalise_observations=True: PPO"),
        ("Pursuit", {"fixed": {"push": 0.0}}, "fixed="),
    ],
)
def test_what_ppo_cannot_be_is_refused(game, changes, message):
    if "fixed" in changes:
        changes = {"fixed": {find(game).context_names[0]: 0.5}}
    with pytest.raises(InvalidInputError, match=message):
        pretrain(config_of(game, **changes), "protagonist", SMALL, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_envs": 0}, "n_envs=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"gamma": 1.5}, "gamma=1.5"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        PPOSettings(**changes)
