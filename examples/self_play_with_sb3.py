"""Self-play with Stable-Baselines3: every row meets one of the learner's last copies, of which one is frozen now and then."""

import numpy as np
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

import metaduel
from metaduel.agents import freeze


class SelfPlay(BaseCallback):
    def __init__(self, every: int, keep: int = 5, seed: int = 0) -> None:
        super().__init__()
        self.every, self.keep, self.copies, self.next = every, keep, [], 0
        self.rng = np.random.default_rng(seed)

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.next:
            self.next += self.every
            self.copies = [*self.copies, freeze(self.model, sample=True)][-self.keep :]
            drawn = self.rng.integers(len(self.copies), size=self.training_env.num_envs)
            self.training_env.unwrapped.set_opponent([self.copies[i] for i in drawn])  # from each row's next reset on

    def _on_step(self) -> bool:
        return True


def main(game: str = "Sumo", steps: int = 400_000, every: int = 20_000, seed: int = 0) -> dict[str, float]:
    env = metaduel.make_sb3(game, num_envs=40, seed=seed)  # a game whose two seats have the same spaces
    model = PPO("MlpPolicy", env, n_steps=50, batch_size=500, gamma=0.98, seed=seed, device="cpu")
    model.learn(steps, callback=SelfPlay(every, seed=seed))
    tests = {name: metaduel.make_sb3(game, 50, opponent=name) for name in metaduel.opponents(game, split="held_out")}
    return {name: evaluate_policy(model, test, 200, deterministic=False)[0] for name, test in tests.items()}


if __name__ == "__main__":
    print(tyro.cli(main))
