"""The two action distributions, as NamedTuples of tensors: light enough for a rollout's inner loop, differentiable twice.

Log-probabilities are summed over action dimensions, never averaged. Samples are made from given uniform numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Independent normals."""

    mean: Tensor  # [..., A]
    log_std: Tensor  # broadcasts against mean

    def sample(self, normals: Tensor) -> Tensor:
        """Actions [..., A], not clipped; ``normals``: [..., A] standard normals."""
        return self.mean + torch.exp(self.log_std) * normals

    def mode(self) -> Tensor:
        """The mean, [..., A]."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [...] of the unbounded action [..., A]."""
        z = (action - self.mean) * torch.exp(-self.log_std)
        constant = self.log_std.sum(-1) + action.shape[-1] * _LOG_SQRT_2PI
        return -0.5 * (z * z).sum(-1) - constant

    def entropy(self) -> Tensor:
        """Entropy [...] in nats."""
        return (self.log_std + 0.5 + _LOG_SQRT_2PI).expand_as(self.mean).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        """Kullback-Leibler divergence KL(self, other) [...] in nats."""
        gap, precision = self.mean - other.mean, torch.exp(-2 * other.log_std)
        each = other.log_std - self.log_std + 0.5 * (torch.exp(2 * self.log_std) + gap * gap) * precision - 0.5
        return each.sum(-1)

    def coordinates(self, around: Gaussian) -> Tensor:
        """Parameters [..., 2 A], scaled so that near the constant ``around`` half of the squared distance is
        ``around.kl(self)``: the square root of the Fisher information there, times mean and log standard deviation.
        """
        mean = self.mean * torch.exp(-around.log_std)
        return torch.cat([mean, math.sqrt(2) * self.log_std.expand_as(mean)], -1)


class Categorical(NamedTuple):
    """One of A actions."""

    log_probs: Tensor  # [..., A], normalised

    def sample(self, u: Tensor) -> Tensor:
        """Actions [...] int64 by inverting the cumulative distribution; ``u``: [..., 1] uniforms."""
        cumulative = torch.exp(self.log_probs).cumsum(-1)
        # Rounding may leave the last sum below 1. Uniforms are scaled by it; otherwise the last actions would get the rest,
        # even those of probability 0.
        return (cumulative[..., :-1] <= u * cumulative[..., -1:]).sum(-1)

    def mode(self) -> Tensor:
        """The most probable action, [...] int64."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability [...] of actions [...] int64."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Entropy [...] in nats."""
        return -(torch.exp(self.log_probs) * self.log_probs).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """Kullback-Leibler divergence KL(self, other) [...] in nats."""
        return (torch.exp(self.log_probs) * (self.log_probs - other.log_probs)).sum(-1)

    def coordinates(self, around: Categorical) -> Tensor:
        """Parameters [..., A], scaled so that near the constant ``around`` half of the squared distance is
        ``around.kl(self)``: the square root of the Fisher information there, times the log-probabilities.
        """
        return torch.exp(0.5 * around.log_probs) * self.log_probs


Distribution = Gaussian | Categorical
