"""Bring your own tasks: meta-learn to fit a sine curve from ten of its points. A few seconds."""

import math

import torch

from metaduel.agents import Dense
from metaduel.meta import Tasks, meta_train


class Sines(Tasks):
    networks = {"protagonist": Dense((1, 40, 40, 1))}

    def draw(self, n, split, seed):  # the data of n tasks: tensors [n, ...]
        generator = torch.Generator().manual_seed(seed)
        height, phase, x = (torch.rand(n, k, 1, generator=generator) for k in (1, 1, 20))
        return 10 * x - 5, (0.1 + 4.9 * height) * torch.sin(10 * x - 5 + math.pi * phase)

    def loss(self, role, players, data, part, shot):  # [n]; ten points to adapt to, ten to be judged by
        x, y = (tensor[:, :10] if part == "support" else tensor[:, 10:] for tensor in data)
        return (self.networks[role](players[role], x) - y).square().mean((1, 2))


def main(folder="runs/sines", iterations=1000):
    """Train, adapt to 100 unseen curves, and return the mean squared error after 0, 1, ..., 5 updates."""
    tasks = Sines()
    run = meta_train(tasks, folder, method="maml", iterations=iterations, steps=2, inner_lr=0.01, resume=True)
    curves = tasks.draw(100, "held_out", 1)
    return [tasks.loss("protagonist", now, curves, "query", 0).mean().item() for now in run.adapt(curves, steps=5)]


if __name__ == "__main__":
    for updates, error in enumerate(main()):
        print(f"{updates} updates: mean squared error {error:.2f}")
