"""Vectors in the plane, a row each, and signs.

Games keep vectors [B, 2] and pairs of them [B, 2, 2] with the rows last in memory. What they do at every step is shorter and
quicker on views with the features first, [2, B] and [2, 2, B], where numbers of the rows [B] fit as they are: ``features_first``,
``inner``, ``norm``.
"""

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


def features_first(pair: Tensor) -> Tensor:
    """A view of [B, 2, 2] as [2, 2, B]."""
    return pair.permute(1, 2, 0)


def rows_first(pair: Tensor) -> Tensor:
    """A view of [2, 2, B] as [B, 2, 2]."""
    return pair.permute(2, 0, 1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products, features first: [2, ...] and [2, ...] to [...]."""
    x, y = (a * b).unbind(0)
    return x + y


def norm(vector: Tensor) -> Tensor:
    """Euclidean length, features first: [2, ...] to [...]."""
    return torch.sqrt(inner(vector, vector))


def thrust(actions: tuple[Tensor, Tensor]) -> Tensor:
    """Both players' actions [B, 2], cut to length 1, side by side and features first: [2, 2, B]."""
    push = torch.stack([actions[0].t(), actions[1].t()])
    return push / norm(push.transpose(0, 1)).clamp(min=1.0).unsqueeze(1)
