"""Distances between samples, for a generator's loss and for its samples' distance to the shots."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metaduel.agents.networks import Convolutional
from metaduel.agents.policies.base import stack
from metaduel.agents.runtime import torch_defaults
from metaduel.benchmarks.studies.images.classes import ImageClasses

Distance = Callable[[Tensor, Tensor], Tensor]  # of samples [n, a, ...] and [n, b, ...]: [n]


def feature_distance(classes: ImageClasses, seed: int = 0) -> Distance:
    """Kernel distance (Binkowski et al., ICLR 2018: unbiased squared MMD, cubic kernel) in the features of a small classifier of
    the *training* classes.

    Args:
        classes: the training data of the classifier.
        seed: seed of the classifier.
    """
    images, count = classes.train.unsqueeze(-1), len(classes.train)
    net = Convolutional(1, count, (32, 32), normalise=False, pooled=False, side=images.shape[2])
    weights = {name: value.requires_grad_() for name, value in net.init(seed).items()}
    optimiser = torch.optim.Adam(weights.values(), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(300):
        which, drawing = (
            torch.randint(most, (64,), generator=generator, dtype=torch.int64, device="cpu")
            for most in (count, images.shape[1])
        )
        drawn = images[which, drawing]
        loss = nn.functional.cross_entropy(net(stack(weights, 1), drawn.unsqueeze(0))[0], which)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch_defaults():
            optimiser.step()
    fixed = {name: value.detach() for name, value in weights.items()}

    def features(x: Tensor) -> Tensor:
        found = net.embed(stack(fixed, len(x)), x)
        scaled: Tensor = found / found.shape[2] ** 0.5
        return scaled

    def distance(made: Tensor, real: Tensor) -> Tensor:
        a, b = features(made), features(real)
        own = [
            ((x @ x.mT + 1) ** 3 * (1 - torch.eye(x.shape[1], dtype=x.dtype, device=x.device))).sum((1, 2))
            / (x.shape[1] * (x.shape[1] - 1))
            for x in (a, b)
        ]
        found: Tensor = own[0] + own[1] - 2 * ((a @ b.mT + 1) ** 3).mean((1, 2))
        return found

    return distance


def away(x: Tensor, others: Tensor) -> Tensor:
    """Mean distance of each of x [N, M, ...] to the others: [N, M]. Twice differentiable, which ``torch.cdist`` is not."""
    a, b = x.flatten(2), others.flatten(2)
    squares = a.square().sum(2).unsqueeze(2) + b.square().sum(2).unsqueeze(1) - 2 * a @ b.mT
    return torch.sqrt(squares.clamp(min=0) + 1e-4).mean(2)  # a sample's distance to itself has a slope, too: 0


def nearest(samples: Tensor, shots: Tensor) -> Tensor:
    """Mean distance of samples to the nearest shot: [n]. Far below that of fresh samples, they are copies."""
    return torch.cdist(samples.flatten(2), shots.flatten(2)).amin(2).mean(1)
