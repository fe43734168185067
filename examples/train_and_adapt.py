"""Meta-train a walker that is pushed, then adapt it to an unseen goal and adversary. Half a minute."""

import gymnasium as gym

import metaduel


def mean_return(env, player, episodes=20):
    """The player's mean return over seeded episodes."""
    total = 0.0
    for seed in range(episodes):
        (observation, _), done = env.reset(seed=seed), False
        while not done:
            action, _ = player.predict(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
    return total / episodes


def main(folder="runs/navigation", iterations=60, tasks=20, episodes=20):
    """Train, and return the mean returns before and after three updates."""
    run = metaduel.train_meta_adversarial(
        "Navigation", method="maml", folder=folder, resume=True, roles=["protagonist"],
        iterations=iterations, tasks=tasks, episodes=episodes, steps=3, inner_lr=0.5, outer_lr=0.003,
        validate_every=iterations, validation_tasks=tasks,
    )  # fmt: skip
    env = gym.make("metaduel/Navigation-v0", seat="protagonist", opponent="swirl", task="held_out:3")
    env.reset(seed=1000)  # the episodes of adaptation are not the test episodes
    adapted = run.protagonist.adapt(env, shots=3, episodes=episodes)
    return mean_return(env, run.protagonist), mean_return(env, adapted)


if __name__ == "__main__":
    before, after = main()
    print(f"mean return before adapting: {before:.1f}, after three updates: {after:.1f}")
