"""PPO in one file, for one seat of a game against its training scripts: a loop of your own on a batch of duels, torch alone.

It reads from top to bottom: settings, network, environment, rollout, advantages, loss, log. About a minute on one core.
"""

from dataclasses import dataclass

import torch
import tyro
from torch import nn

import metaduel


@dataclass
class Config:
    game: str = "Pursuit"
    role: str = "protagonist"  # the seat that learns
    seed: int = 0
    num_envs: int = 256  # rows of the batch
    steps: int = 64  # of each row, between updates
    updates: int = 60
    epochs: int = 6  # passes over the data of an update
    minibatches: int = 8
    lr: float = 1e-3  # falls to 0
    gamma: float = 0.98  # discount
    lam: float = 0.95  # of generalised advantage estimation
    clip: float = 0.2  # how far the probability of an action may move
    entropy: float = 0.001
    test_rows: int = 512  # episodes in each test


class Player(nn.Module):
    """A Gaussian policy and a value, both of what the seat sees."""

    def __init__(self, seen, acts, width=64):
        super().__init__()
        self.mean = nn.Sequential(
            nn.Linear(seen, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, acts)
        )
        self.value = nn.Sequential(
            nn.Linear(seen, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )
        self.log_std = nn.Parameter(torch.full((acts,), -0.5))

    def policy(self, observation):
        return torch.distributions.Normal(self.mean(observation), self.log_std.exp())


def make(config, split, rows):
    """A batch of duels whose other seat is played by the scripts of a split, taken in turn."""
    other = "adversary" if config.role == "protagonist" else "protagonist"
    scripts = metaduel.opponents(config.game, other, split)
    return metaduel.make_batched(config.game, rows, **{other: [scripts[i % len(scripts)] for i in range(rows)]})


def limits(env, role):
    return torch.from_numpy(env.action_spaces[role].low), torch.from_numpy(env.action_spaces[role].high)


@torch.no_grad()
def evaluate(player, config):
    """Mean return of the mean actions, one episode in every row, against scripts that were never met."""
    env, me = make(config, "held_out", config.test_rows), int(config.role == "adversary")
    low, high = limits(env, config.role)
    seen = env.reset(seed=10_000)[me]
    total, alive = torch.zeros(config.test_rows), torch.ones(config.test_rows, dtype=torch.bool)
    for _ in range(env.horizon):
        action = player.mean(seen).clamp(low, high)
        both, rewards, terminated, truncated, _ = env.step((None, action) if me else (action, None))
        total, seen = total + rewards[:, me] * alive, both[me]
        alive &= ~(terminated | truncated)
    return total.mean().item()


def main(config):
    torch.manual_seed(config.seed)
    env, me = make(config, "train", config.num_envs), int(config.role == "adversary")
    low, high = limits(env, config.role)
    player = Player(env.observation_spaces[config.role].shape[0], len(low))
    optimizer = torch.optim.Adam(player.parameters(), config.lr, eps=1e-5)
    before, seen = evaluate(player, config), env.reset(config.seed)[me]
    print(f"held-out scripts, before: return {before:+.3f}")

    for update in range(config.updates):
        # Storage and rollout: [steps, rows, ...]
        data = {name: [] for name in ("seen", "action", "log_prob", "reward", "last", "terminated", "over")}
        with torch.no_grad():
            for _ in range(config.steps):
                policy = player.policy(seen)
                action = policy.sample()
                log_prob, inside = policy.log_prob(action).sum(1), action.clamp(low, high)
                both, rewards, terminated, truncated, infos = env.step((None, inside) if me else (inside, None))
                last = infos["final_observations"][me]  # what was seen before a row restarted
                row = (seen, action, log_prob, rewards[:, me], last, terminated, terminated | truncated)
                for name, value in zip(data, row, strict=True):
                    data[name].append(value)
                seen = both[me]
            data = {name: torch.stack(values) for name, values in data.items()}

            # Advantages: a clock that runs out is no end, and bootstraps from what was seen last
            value, following = player.value(data["seen"]).squeeze(2), player.value(data["last"]).squeeze(2)
            error = data["reward"] + config.gamma * following * ~data["terminated"] - value
            advantage, running = torch.zeros_like(error), torch.zeros(config.num_envs)
            for t in reversed(range(config.steps)):
                running = error[t] + config.gamma * config.lam * running * ~data["over"][t]
                advantage[t] = running
            data["target"] = advantage + value
            data["advantage"] = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

        # Loss: minibatches of all rows and steps
        optimizer.param_groups[0]["lr"] = config.lr * (1 - update / config.updates)
        flat = {name: values.flatten(0, 1) for name, values in data.items()}
        for _ in range(config.epochs):
            for index in torch.randperm(len(flat["reward"])).chunk(config.minibatches):
                part = {name: values[index] for name, values in flat.items()}
                policy = player.policy(part["seen"])
                ratio = (policy.log_prob(part["action"]).sum(1) - part["log_prob"]).exp()
                clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
                gain = torch.minimum(ratio * part["advantage"], clipped * part["advantage"]).mean()
                misfit = (player.value(part["seen"]).squeeze(1) - part["target"]).square().mean()
                loss = 0.5 * misfit - gain - config.entropy * policy.entropy().sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(player.parameters(), 0.5)
                optimizer.step()

        # Log
        if (update + 1) % 10 == 0 or update == config.updates - 1:
            episodes = max(1, int(data["over"].sum()))
            print(f"update {update + 1}: return {data['reward'].sum().item() / episodes:+.3f} per episode")
    after = evaluate(player, config)
    print(f"held-out scripts, after: return {after:+.3f}")
    return before, after


if __name__ == "__main__":
    main(tyro.cli(Config))
