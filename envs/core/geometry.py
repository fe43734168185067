"""Vectors in the plane, a row each, and signs."""

from __future__ import annotations

import torch
from torch import Tensor


def sign(positive: Tensor, like: Tensor) -> Tensor:
    """1 where ``positive`` [...], else -1, in the precision of ``like``."""
    return torch.where(positive, like.new_ones(()), -1.0)


def both(protagonist: Tensor, adversary: Tensor) -> Tensor:
    """Put two [B, 2] side by side: [B, 2, 2]. In memory the rows come last, which makes everything twice as fast."""
    return torch.stack([protagonist.t(), adversary.t()]).permute(2, 0, 1)


def length(vector: Tensor) -> Tensor:
    """Euclidean length: [..., 2] to [...]."""
    x, y = vector.unbind(-1)
    return torch.sqrt(x * x + y * y)


def unit_disc(vector: Tensor) -> Tensor:
    """Cut vectors [..., 2] to length 1."""
    return vector / length(vector).clamp(min=1.0).unsqueeze(-1)


def unit(vector: Tensor) -> Tensor:
    """Vectors [B, 2] of length 1 in the same direction; what is shorter than 1e-6 stays short."""
    return vector / length(vector).clamp(min=1e-6).unsqueeze(1)


def polar(angle: Tensor) -> Tensor:
    """Unit vectors [B, 2] at ``angle`` [B] rad. In memory the rows come last."""
    angle = angle.contiguous()
    return torch.stack([torch.cos(angle), torch.sin(angle)]).t()


def left_of(vector: Tensor) -> Tensor:
    """Turn vectors [B, 2] by a right angle to the left."""
    return torch.stack([-vector[:, 1], vector[:, 0]], 1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products of [B, 2] and [B, 2]: [B, 1]."""
    return (a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1]).unsqueeze(1)
