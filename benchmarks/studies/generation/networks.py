"""A discriminator of points in the plane, and the latents of generators."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaduel.agents.networks import Dense
from metaduel.agents.policies.base import Weights


class Waves:
    """A network on random Fourier features of its inputs (Tancik et al., NeurIPS 2020): few updates make it rise in one place.

    Frequencies are of every scale alike, and amplitudes fall with their roots, as in the energy distance's kernel in the plane.

    Args:
        inputs: number of inputs.
        units: width of the hidden layer.
        low: lowest frequency, radians per unit of input.
        high: highest frequency.
        features: number of features.
    """

    def __init__(self, inputs: int, units: int = 64, low: float = 0.5, high: float = 6.0, features: int = 96) -> None:
        generator = torch.Generator().manual_seed(0)
        size = torch.rand(features, generator=generator, dtype=torch.float32, device="cpu")
        size = low * (high / low) ** size
        way = torch.randn(inputs, features, generator=generator, dtype=torch.float32, device="cpu")
        self._frequencies = size * nn.functional.normalize(way, dim=0)
        self._amplitudes = size**-0.5 / (1 / size).sum() ** 0.5
        self._net = Dense((2 * features, units, 1), slope=0.2, bounded=True)
        self.head_names, self.init = self._net.head_names, self._net.init

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Outputs [N, M, 1] for inputs [N, M, d]."""
        phase = x @ self._frequencies
        return self._net(weights, torch.cat([torch.sin(phase), torch.cos(phase)], -1) * self._amplitudes.repeat(2))


def latents(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal latents [*shape], d numbers each, that fill their space evenly: a few of them represent the generator's
    distribution better than independent ones.

    Sobol points, moved by a random shift in every set (Cranley and Patterson, SIAM Journal on Numerical Analysis 1976).
    """
    engine = torch.quasirandom.SobolEngine(shape[-1], scramble=True, seed=0)  # type: ignore[no-untyped-call]
    points: Tensor = engine.draw(shape[-2], dtype=torch.float32)
    shift = torch.rand(*shape[:-2], 1, shape[-1], generator=generator, dtype=points.dtype, device=points.device)
    moved = (points + shift) % 1
    normal: Tensor = torch.special.ndtri(moved.clamp(1e-6, 1 - 1e-6))
    return normal
