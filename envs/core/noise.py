"""Counter-based random numbers: a row's numbers depend on (seed, episode, step, channel) and on nothing else.

Not on the batch that the row sits in, not on the device, not on how many numbers were drawn before. The generator is
the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) applied to ``key + counter * gamma``: a key is mixed
once per episode, and a number once.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

# Channels: every source of draws has its own, so that adding a draw in one place never shifts the numbers of another.
DYNAMICS, INIT, TASK, PICK = range(4)
SEAT = (4, 5)  # the player in the protagonist's seat, in the adversary's: scripted or learned
TEACHER = 6  # the player that a learner is taught by

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_PER_CHANNEL = 1 << 10  # numbers per step and channel
_PER_STEP = 1 << 14  # 16 channels


def _wrap(value: int) -> int:
    """Reduce to a signed 64-bit number, as tensor arithmetic does."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 tensors (arithmetic wraps; the masks make right shifts logical)."""
    x = _multiply(x)
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _multiply(x: Tensor) -> Tensor:
    """The finaliser but for its last line, which changes the low 33 bits alone."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    return (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685


def episode_key(seed: Tensor, episode: Tensor) -> Tensor:
    """Key of an episode.

    Args:
        seed: [B] int64.
        episode: [B] int64, how many episodes came before under this seed.

    Returns:
        [B] int64.
    """
    return mix(mix(seed + _GAMMA) + (episode + 1) * _GAMMA)


def derive_seed(*parts: int) -> int:
    """Make one non-negative 63-bit seed out of several whole numbers (run seed, iteration, purpose)."""
    key = 0
    for part in parts:
        key = int(mix(torch.tensor(_wrap(key + (part + 1) * _GAMMA), dtype=torch.int64, device="cpu")))
    return key & ((1 << 63) - 1)


@functools.lru_cache(maxsize=256)
def _offsets(channel: int, n: int, device: torch.device) -> Tensor:
    if not 0 <= n <= _PER_CHANNEL:
        raise ValueError(f"n={n}: a channel has {_PER_CHANNEL} numbers per step")
    return torch.tensor(
        [_wrap((channel * _PER_CHANNEL + j) * _GAMMA) for j in range(n)], dtype=torch.int64, device=device
    )


def uniform(key: Tensor, step: Tensor, channel: int, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw ``n`` numbers in [0, 1) per row, multiples of 2^-24.

    Args:
        key: [..., B] int64 from ``episode_key``.
        step: [..., B] int64, step within the episode; broadcast against ``key`` (a [T, 1] step draws a whole rollout).
        channel: the source of the draws.
        n: how many.
        dtype: floating type of the result.

    Returns:
        [..., B, n].
    """
    if n == 0:  # most games and players draw nothing, at every step
        return torch.zeros((*(key + step).shape, 0), dtype=dtype, device=key.device)
    bits = _multiply((key + step * _wrap(_PER_STEP * _GAMMA)).unsqueeze(-1) + _offsets(channel, n, key.device))
    return ((bits >> 40) & 0xFFFFFF).to(dtype) * (1.0 / (1 << 24))


def normal(u: Tensor) -> Tensor:
    """Turn 2m uniforms into 2m standard normals (Box-Muller): [..., 2m] to [..., 2m]."""
    half = u.shape[-1] // 2
    radius = torch.sqrt(-2.0 * torch.log1p(-u[..., :half].contiguous()))
    angle = u[..., half:].contiguous() * (2.0 * math.pi)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
