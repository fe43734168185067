"""Play Pursuit by a rule of your own: both seats in PettingZoo, then each seat against scripted opponents in Gymnasium."""

import gymnasium as gym
import numpy as np

import metaduel
from metaduel.envs.pursuit import pursuit_v0


def act(role, observation):
    """Circle around the centre; once the opponent is in sight, chase it as the adversary, or flee as the protagonist."""
    way = np.array([-observation[1], observation[0]], np.float32)
    if observation[8]:
        way = observation[4:6] if role == "adversary" else -observation[4:6]
    return way / max(float(np.hypot(*way)), 1e-6)


def play_both(seed=0):
    env, returns = pursuit_v0.parallel_env(), {"protagonist": 0.0, "adversary": 0.0}
    observations, _ = env.reset(seed=seed)
    while env.agents:
        observations, rewards, *_ = env.step({role: act(role, observations[role]) for role in env.agents})
        returns = {role: returns[role] + reward for role, reward in rewards.items()}
    return returns


def play_against(opponent, seat, seed=0):
    env = gym.make("metaduel/Pursuit-v0", seat=seat, opponent=opponent)
    (observation, _), done, total = env.reset(seed=seed), False, 0.0
    while not done:
        observation, reward, terminated, truncated, _ = env.step(act(seat, observation))
        total, done = total + float(reward), terminated or truncated
    return total


if __name__ == "__main__":
    print("both seats by the rule:", play_both())
    for seat, other in (("protagonist", "adversary"), ("adversary", "protagonist")):
        print(seat, "against", {name: play_against(name, seat) for name in metaduel.opponents("Pursuit", other)})
