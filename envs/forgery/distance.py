"""How far apart two clouds of samples are; what is reported of a generator besides its return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaduel.envs.core import noise
from metaduel.envs.core.trees import tree_map
from metaduel.envs.forgery.game import NUMBERS, real_sample


def energy_distance(first: Tensor, second: Tensor) -> Tensor:
    """Energy distance between two samples (Szekely and Rizzo, 2013): 2 E|X - Y| - E|X - X'| - E|Y - Y'|.

    The expectations are means over all pairs, a point with itself included, so that it is at least 0, and 0 for a sample
    and itself. The time and the memory are those of all pairs.

    Args:
        first: [..., n, d].
        second: [..., m, d].

    Returns:
        [...]; in one dimension the square of ``scipy.stats.energy_distance``.
    """
    return 2 * _mean_distance(first, second) - _mean_distance(first, first) - _mean_distance(second, second)


def _mean_distance(first: Tensor, second: Tensor) -> Tensor:
    # Through differences: products of matrices lose half of the digits where points are close.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").mean((-2, -1))


def draw_real(params: Any, n: int, seed: Tensor) -> Tensor:
    """Draw ``n`` samples of every task's real distribution.

    Args:
        params: the tasks, B rows.
        n: how many per row.
        seed: [B] int64; a row's samples depend on its seed and task alone.

    Returns:
        [B, n, 2] m.
    """
    rows = seed.shape[0]
    # Its own key: a plain one would repeat the numbers of an episode with this seed.
    number = torch.arange(n, dtype=torch.int64, device=seed.device).repeat(rows)
    key = noise.episode_key(noise.mix(seed).repeat_interleave(n), number)
    numbers = noise.uniform(key, torch.zeros_like(key), noise.INIT, NUMBERS, params[0].dtype)
    return real_sample(tree_map(lambda p: p.repeat_interleave(n), params), numbers).reshape(rows, n, 2)
