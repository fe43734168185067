"""Chains of episodes: the credit of their steps, and players with a memory that improve by it."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import metaduel  # noqa: F401 (registers the games)
from metaduel.agents.policies.base import REWARD, adapting
from metaduel.agents.policies.memory import join
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.adaptation.work import alone
from metaduel.meta.learners.learner import Update
from metaduel.meta.learners.rl2 import RL2, ValueScales
from metaduel.meta.problems.chains import Chain
from metaduel.meta.runs.checkpoint import load_checkpoint, read_config, save_checkpoint, write_config
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner, train, train_meta_adversarial
from metaduel.meta.runs.trainer import BEST

SMALL = {"tasks": 4, "episodes": 2, "steps": 1, "horizon": 6, "hidden": (5,), "validation_tasks": 1}


def made(game="Pursuit", method="rl2", **more):
    """A learner of the protagonist, and its chain."""
    config = TrainConfig(game=game, method=method, roles=("protagonist",)).override(**{**SMALL, **more})
    source = DuelSource(config)
    learner = make_learner(config, source)
    chains = learner if isinstance(learner, RL2) else learner._policy
    return learner, alone(chains.chain(source.problem(0))), source


def by_hand(chain, weights, scale, discount, episode_discount, gae_lambda):
    """Advantages and critic's targets of every task's steps, by a loop over its episodes from the last step back."""
    policy, episodes = chain.policies["protagonist"], chain.episodes["protagonist"]
    prepared, played = policy.prepare(weights), policy.played(episodes)
    value = policy.value(prepared, played.given[None], policy.over_chain(prepared, played))[0] * scale
    whole = join(episodes)
    values = torch.split(played.spread(value, whole.reward)[0], [data.reward.shape[1] for data in episodes])
    advantages = [torch.zeros_like(data.reward[0]) for data in episodes]
    for task in range(whole.reward.shape[2]):
        later, after, factor = 0.0, 0.0, 0.0
        for data, own, found in reversed(list(zip(episodes, values, advantages, strict=True))):
            for t in reversed(range(int(data.alive[0, :, task].sum()))):
                later = float(data.reward[0, t, task]) + factor * (after + gae_lambda * later) - float(own[t, task])
                after, factor = float(own[t, task]), discount
                found[t, task] = later
            factor = episode_discount
    advantage = played.pick(torch.cat(advantages)[None])
    return advantage, advantage + value


@pytest.mark.parametrize("truncation", [0, 3])
def test_credit_flows_over_the_ends_of_episodes_and_over_gaps(truncation):
    learner, chain, _ = made(horizon=40, episodes=3, normalise=False, discount=0.8, gae_lambda=0.7)
    assert any(not data.alive.all() for data in chain.episodes["protagonist"])
    weights = learner.starts.once()["protagonist"]
    credit = chain.credit("protagonist", weights, 2.0, 0.5, truncation)
    with torch.no_grad():
        advantage, target = by_hand(chain, weights, 2.0, 0.8, 0.5, 0.7)
    steps = ~credit.played.ends
    torch.testing.assert_close(credit.advantage[steps], advantage[credit.rows][steps], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(credit.target[steps], target[credit.rows][steps], rtol=1e-4, atol=1e-5)
    assert credit.advantage[steps].std() > 0


def test_advantages_are_normalised_over_the_steps_that_were_played():
    learner, chain, _ = made()
    credit = chain.credit("protagonist", learner.starts.once()["protagonist"], 1.0, 0.9)
    own = credit.advantage[~credit.played.ends]
    assert float(own.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(own.std(correction=0)) == pytest.approx(1.0, abs=1e-4)


def loss_of(learner, chain, credit):
    weights = learner.starts.once()["protagonist"]
    return chain.loss("protagonist", weights, credit, 1.0, 0.2, 0.5, 0.0)


def test_minibatches_of_tasks_are_the_whole_batch():
    """Their losses, weighted by their steps, add up to that of all; every task is in one of them."""
    learner, chain, _ = made(minibatches=3)
    weights = learner.starts.once()["protagonist"]
    for truncation in (0, 4):
        credit = chain.credit("protagonist", weights, 1.0, 0.9, truncation)
        whole, total, count = loss_of(learner, chain, credit), 0.0, 0
        batches = [part["protagonist"] for part in learner.batches(chain, 0)]
        assert sorted(torch.cat(batches).tolist()) == [0, 1, 2, 3]
        for tasks in batches:
            own = credit.of(tasks)
            steps = int((~own.played.ends).sum())
            total, count = total + steps * loss_of(learner, chain, own), count + steps
        torch.testing.assert_close(total / count, whole)
    assert not torch.equal(torch.cat(batches), torch.cat([p["protagonist"] for p in learner.batches(chain, 1)]))


def test_stored_carries_stay_and_refreshed_ones_follow_the_weights():
    learner, chain, _ = made()
    once = learner.starts.once()["protagonist"]
    credit = chain.credit("protagonist", once, 1.0, 0.9, 3)
    same = chain.refreshed("protagonist", once, credit)
    torch.testing.assert_close(same.carries, credit.carries)
    moved = {name: value + 0.1 if name == "memory.weight" else value for name, value in once.items()}
    assert not torch.allclose(chain.refreshed("protagonist", moved, credit).carries, credit.carries)


@pytest.mark.parametrize("settings", [{}, {"truncation": 5}, {"truncation": 5, "carries": "refreshed"}])
def test_at_the_weights_that_played_the_loss_is_the_policy_gradient(settings):
    """All ratios are 1: minus the mean advantage, which is 0 after normalising, and the critic's error."""
    learner, chain, _ = made(**settings)
    weights = learner.starts.once()["protagonist"]
    credit = chain.credit("protagonist", weights, 1.0, 0.9, settings.get("truncation", 0))
    steps = ~credit.played.ends
    error = 0.25 * (credit.target - credit.target + chain_error(chain, weights, credit)).square()[steps].mean()
    torch.testing.assert_close(loss_of(learner, chain, credit), error, rtol=1e-4, atol=1e-6)
    learner.learn(chain, 1.0)


def chain_error(chain, weights, credit):
    """How far the critic's values are from their targets, [R]."""
    policy = chain.policies["protagonist"]
    prepared = policy.prepare(weights)
    hidden = policy.over_chain(prepared, credit.whole)
    return policy.value(prepared, credit.whole.given[None], hidden)[0][credit.rows] - credit.target


def test_a_chain_has_a_length_of_its_own():
    _, chain, _ = made(chain_episodes=5)
    assert len(chain.episodes["protagonist"]) == 5
    # Returns are of parts of about equal size, one for each shot: episodes 0 and 1, and 2 to 4.
    own = [data.returns.flatten() for data in chain.episodes["protagonist"]]
    first, second = (one["protagonist"] for one in chain.returns)
    torch.testing.assert_close(first, (own[0] + own[1]) / 2)
    torch.testing.assert_close(second, (own[2] + own[3] + own[4]) / 3)


def test_values_are_scaled_to_their_targets_deviation():
    scales = ValueScales(["protagonist"])
    assert scales.scales == {"protagonist": 1.0}
    scales.add("protagonist", torch.tensor([30.0, -40.0]))
    assert scales.scales["protagonist"] == pytest.approx(1250**0.5)
    scales.add("protagonist", torch.zeros(3))
    # Mean squares 1250 and 0, the older with 0.95 of the newer's weight.
    assert scales.scales["protagonist"] == pytest.approx((1250 * 0.95 / 1.95) ** 0.5)
    other = ValueScales(["protagonist"])
    other.load(scales.state())
    assert other.scales == scales.scales


def test_sumos_reward_input_is_of_unit_size():
    """It was 0.005: the smallest of all inputs by far, while results of 1 or -1 come once an episode."""
    learner, chain, source = made("Sumo", tasks=16, horizon=0)
    policy = source.policies["protagonist"]
    before, around = reward_input(chain, policy)
    assert before < 0.02
    source.record(Update({}, chain=chain))
    learner.starts.normalise("protagonist", source.fixed("protagonist"))
    within, last = learner.start["protagonist"][REWARD].tolist()
    assert around * within == pytest.approx(1.0, abs=1e-3)  # around 0, which says that there was none
    assert before * within > 0.4
    results = torch.cat([data.reward.sum(1).flatten() for data in chain.episodes["protagonist"]])
    assert last < 5 < within  # a result keeps its size
    assert results.abs().max() > 0.5


def reward_input(chain, policy):
    """Deviations of the reward among the inputs of a chain, around their mean and around 0."""
    data = join(chain.episodes["protagonist"])
    seen = data.observation[..., policy.reward_at][data.alive > 0]
    return float(seen.std()), float(seen.square().mean().sqrt())


def test_rl2_learns_to_remember():
    """Rock-paper-scissors with one move per episode: the first is a guess, and its result pays in the others."""
    config = TrainConfig(game="RockPaperScissors", method="rl2", roles=("protagonist",)).override(
        tasks=60, episodes=4, steps=1, horizon=2, hidden=(16,), outer_lr=0.01, validation_tasks=20
    )
    source = DuelSource(config)
    learner = make_learner(config, source)
    for i in range(25):
        learner.update(source.problem(i))
    metrics = alone(source.validate(learner)).metrics
    assert metrics["protagonist/validation_return_1"] > metrics["protagonist/validation_return_0"] + 0.2


def test_the_latent_learner_moves_what_acts_and_what_predicts_apart(monkeypatch):
    config = TrainConfig(game="RockPaperScissors", method="latent").override(
        tasks=4, episodes=2, steps=1, horizon=3, hidden=(4,), outer_steps=2, minibatches=1
    )
    source = DuelSource(config)
    learner = make_learner(config, source)
    acts = {f"{layer}.{part}" for layer in ("layer", "output", "critic", "value") for part in ("weight", "bias")}

    def moved(work):
        before = {r: {n: v.detach().clone() for n, v in w.items()} for r, w in learner.start.items()}
        work()
        return [{n for n, v in w.items() if not torch.equal(v, before[r][n])} for r, w in learner.start.items()]

    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "predictions", lambda self, players, draw, tasks: steps.append(draw) or {})
        assert moved(lambda: learner.update(source.problem(0))) == [acts, acts]
    assert steps == [0, 1]
    everything = moved(lambda: learner.update(source.problem(0)))
    assert all(acts < names and "belief.weight" in names and "decoder.weight" in names for names in everything)


def test_a_checkpoint_of_before_rewards_were_scaled_plays_as_it_did(tmp_path):
    """It has no critic, and sees rewards as they are."""
    config = TrainConfig(game="Pursuit", method="rl2", roles=("protagonist",)).override(
        **SMALL, iterations=2, validate_every=2, normalise_observations=False
    )
    train(config, tmp_path, quiet=True)
    now = load(tmp_path).protagonist
    tensors, state = load_checkpoint(tmp_path / BEST)
    new = [name for name in tensors if name.split("/")[-1].split(".")[0] in ("critic", "value", "fixed")]
    assert len(new) == 5
    save_checkpoint(tmp_path / BEST, {name: value for name, value in tensors.items() if name not in new}, state)
    settings = read_config(tmp_path)
    added = (
        "minibatches",
        "value_coefficient",
        "entropy",
        "episode_discount",
        "chain_episodes",
        "truncation",
        "carries",
    )
    settings["learner"] = {name: value for name, value in settings["learner"].items() if name not in added}
    settings["loss"]["gae_lambda"] = 1.0
    write_config(tmp_path, settings)
    before = load(tmp_path).protagonist
    assert set(now.weights) - set(before.weights) == {name.split("/")[-1] for name in new}
    unscaled = replace(now, weights=adapting(now.weights))
    env = gym.make("metaduel/Pursuit-v0", horizon=6)
    ours, theirs, scaled = (play(agent, env) for agent in (before, unscaled, now))
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours, scaled)


def play(agent, env):
    """Actions in an episode."""
    observation, _ = env.reset(seed=0)
    state, actions, over = None, [], False
    while not over:
        action, state = agent.predict(observation, state, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        state = agent.remember(state, 100 * reward)
        actions.append(action)
        over = terminated or truncated
    return np.stack(actions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minibatches": 5}, "minibatches=5: there are 4 tasks; use at most as many"),
        ({"minibatches": 0}, "minibatches=0 must be a whole number of at least 1"),
        ({"discount": 0.0, "episode_discount": 0.0}, "the critic has nothing to bootstrap"),
        ({"value_coefficient": 0.0}, r"value_coefficient=0.0 must be above 0"),
        ({"entropy": -1.0}, r"entropy=-1.0 must be at least 0"),
        ({"episode_discount": 1.5}, r"episode_discount=1.5 must be in \[0, 1\]"),
        ({"carries": "refreshed"}, "carries='refreshed' has no effect: truncation=0"),
        ({"carries": "kept", "truncation": 3}, "kept"),
        ({"chain_episodes": -1}, "chain_episodes=-1 must be a whole number of at least 0"),
        ({"truncation": 28, "chain_episodes": 4}, "truncation=28 has no effect: chains have at most 27 inputs"),
        (
            {"chain_episodes": 1_000_000},
            r"chains of 1000000 episodes of 6 steps on 4 tasks need about .* GiB .* 4 are allowed",
        ),
    ],
)
def test_chains_that_cannot_work_are_refused_before_training(tmp_path, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        train_meta_adversarial("Pursuit", method="rl2", folder=tmp_path / "run", **{**SMALL, **settings})
    assert not (tmp_path / "run").exists()


def test_memories_see_normalised_observations_unless_told_otherwise():
    assert TrainConfig(game="Pursuit", method="rl2").normalise_observations is True
    assert TrainConfig(game="Pursuit", method="maml").override(method="rl2").normalise_observations is True
    assert TrainConfig(game="Pursuit", method="rl2").override(method="maml").normalise_observations is False
    chosen = TrainConfig(game="Pursuit", method="maml", normalise_observations=True)
    assert chosen.override(method="fomaml").normalise_observations is True
    assert (
        TrainConfig(game="Pursuit", method="rl2", normalise_observations=False).override(seed=1).normalise_observations
        is False
    )
