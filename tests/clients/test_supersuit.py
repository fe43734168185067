"""SuperSuit's wrappers around every interface that they take: whole episodes, in the spaces that are declared."""

import gymnasium
import numpy as np
import pettingzoo
import pytest
import supersuit as ss
from gymnasium import spaces

import metaduel

WRAPPERS = {
    "agent_indicator_v0": lambda env: ss.agent_indicator_v0(ss.pad_observations_v0(env)),
    "black_death_v3": ss.black_death_v3,
    "clip_actions_v0": ss.clip_actions_v0,
    "clip_reward_v0": ss.clip_reward_v0,
    "delay_observations_v0": lambda env: ss.delay_observations_v0(env, 2),
    "dtype_v0": lambda env: ss.dtype_v0(env, np.float64),
    "flatten_v0": ss.flatten_v0,
    "frame_skip_v0": lambda env: ss.frame_skip_v0(env, 2),
    "frame_stack_v1": lambda env: ss.frame_stack_v1(env, 3),
    "max_observation_v0": lambda env: ss.max_observation_v0(env, 2),
    "nan_random_v0": ss.nan_random_v0,
    "normalize_obs_v0": ss.normalize_obs_v0,
    "pad_action_space_v0": ss.pad_action_space_v0,
    "pad_observations_v0": ss.pad_observations_v0,
    "sticky_actions_v0": lambda env: ss.sticky_actions_v0(env, 0.25),
}
# What a wrapper can't do, with the reason.
CANNOT = {
    ("clip_actions_v0", "RockPaperScissors"): "clips Box actions",
    ("clip_actions_v0", "KuhnPoker"): "clips Box actions",
    ("frame_skip_v0", "KuhnPoker"): "repeats actions, whether they are legal or not",
    ("sticky_actions_v0", "KuhnPoker"): "repeats actions, whether they are legal or not",
}
SINGLE = {"frame_skip_v0", "frame_stack_v1", "dtype_v0", "clip_reward_v0", "sticky_actions_v0", "delay_observations_v0"}
DEATH = ("black_death_v3", "KuhnPoker", "aec")  # makes a parallel environment of it first, which turns can't be
GAMES = ("Navigation", "RockPaperScissors", "KuhnPoker")
CASES = [
    (w, g, a)
    for w in WRAPPERS
    for g in GAMES
    for a in ("parallel", "aec")
    if (w, g) not in CANNOT and (w, g, a) != DEATH
]


def choose(space, info, rng):
    if "action_mask" in info:
        return int(rng.choice(np.flatnonzero(info["action_mask"])))
    return (
        int(rng.integers(space.n))
        if isinstance(space, spaces.Discrete)
        else rng.uniform(-1, 1, space.shape).astype(np.float32)
    )


def play(env, seed):
    """All observations by agent, all rewards and the number of actions of one episode."""
    rng, seen, rewards, actions = np.random.default_rng(seed), [], [], 0
    if isinstance(env, pettingzoo.ParallelEnv):
        observations, infos = env.reset(seed=seed)
        while env.agents:
            seen += observations.items()
            chosen = {agent: choose(env.action_space(agent), infos[agent], rng) for agent in env.agents}
            observations, got, _, _, infos = env.step(chosen)
            rewards += got.values()
            actions += 1
        return [*seen, *observations.items()], rewards, actions
    env.reset(seed=seed)
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, info = env.last()
        seen.append((agent, observation))
        rewards.append(reward)
        over = terminated or truncated
        actions += not over
        env.step(None if over else choose(env.action_space(agent), info, rng))
    return seen, rewards, actions


@pytest.mark.parametrize(("wrapper", "game", "api"), CASES, ids=["-".join(case) for case in CASES])
def test_wrappers(wrapper, game, api):
    env = WRAPPERS[wrapper](pettingzoo.make(api, f"metaduel/{game}-v0"))
    seen, rewards, actions = play(env, 3)
    assert actions > 1
    assert np.isfinite(rewards).all()
    for agent, observation in seen:
        if wrapper == "agent_indicator_v0":  # a mark is as high as the highest bound, which its own space may not hold
            assert np.flatnonzero(observation[-2:]).tolist() == [env.possible_agents.index(agent)]
        else:
            assert env.observation_space(agent).contains(observation), (agent, observation)
    again = play(env, 3)  # random wrappers apart, the same seed is the same episode
    if wrapper not in ("sticky_actions_v0", "nan_random_v0"):
        np.testing.assert_equal(again, (seen, rewards, actions))
    if wrapper == "clip_reward_v0":
        assert max(map(abs, rewards)) <= 1
    if wrapper == "normalize_obs_v0":
        assert all(observation.min() >= 0 and observation.max() <= 1 for _, observation in seen)


@pytest.mark.parametrize("api", ["parallel", "aec"])
def test_skipped_frames_are_played(api):
    """50 steps of two players, two by two."""
    env = WRAPPERS["frame_skip_v0"](pettingzoo.make(api, "metaduel/RockPaperScissors-v0"))
    assert play(env, 0)[2] == (25 if api == "parallel" else 50)


def test_a_random_number_of_skipped_frames_repeats_by_seed():
    env = ss.frame_skip_v0(pettingzoo.make("parallel", "metaduel/RockPaperScissors-v0"), (1, 4))
    counts = [play(env, seed)[2] for seed in (3, 4, 5, 6, 3)]
    assert counts[0] == counts[4]
    assert len(set(counts)) > 1
    assert all(13 <= count < 50 for count in counts)


@pytest.mark.parametrize("game", GAMES)
def test_vector_environments_of_both_seats(game):
    env = pettingzoo.make("parallel", f"metaduel/{game}-v0")
    env = ss.pad_action_space_v0(ss.pad_observations_v0(env))
    rows = ss.concat_vec_envs_v1(ss.pettingzoo_env_to_vec_env_v1(env), 3)
    observations, infos = rows.reset()
    assert observations.shape == (6, *rows.observation_space.shape)
    drawn = [info["task"] for info in infos]
    assert drawn[0::2] == drawn[1::2]  # both seats of a duel are at the same task,
    assert len(set(drawn)) == 3  # and copies, which nobody seeded, at different ones
    for _ in range(3):
        actions = np.stack([rows.action_space.sample() for _ in range(6)])
        observations, rewards, *_ = rows.step(actions)
        assert rewards.shape == (6,)
        assert np.isfinite(rewards).all()


@pytest.mark.parametrize("game", ["Navigation", "RockPaperScissors"])
@pytest.mark.parametrize("wrapper", sorted(SINGLE))
def test_single(wrapper, game):
    env = WRAPPERS[wrapper](gymnasium.make(f"metaduel/{game}-v0"))
    rng, over, steps = np.random.default_rng(0), False, 0
    observation, _ = env.reset(seed=0)
    while not over:
        assert env.observation_space.contains(observation)
        observation, reward, terminated, truncated, _ = env.step(choose(env.action_space, {}, rng))
        over, steps = terminated or truncated, steps + 1
        assert np.isfinite(reward)
    horizon = metaduel.find(game).horizon
    assert steps <= (horizon // 2 if wrapper == "frame_skip_v0" else horizon)


def test_vector():
    rows = ss.gym_vec_env_v0(gymnasium.make("metaduel/Navigation-v0"), 3)
    observations, _ = rows.reset(seed=0)
    expected = gymnasium.make("metaduel/Navigation-v0").reset(seed=2)[0]
    np.testing.assert_array_equal(observations[2], expected)
    assert rows.step(rows.action_space.sample())[1].shape == (3,)
