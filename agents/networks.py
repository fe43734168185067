"""Networks on stacked weights for tasks that are data: N tasks are one set of tensors with a leading dimension N, and no loop.

Inputs are [N, M, ...]: M examples for each of N tasks; each task has weights of its own. Batch normalisation is always over a
task's own M examples (transductive, as in MAML's and Reptile's experiments): nothing is carried from batch to batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metaduel.agents.policies.base import Weights
from metaduel.agents.runtime import torch_defaults
from metaduel.envs.core.errors import InvalidInputError

EPSILON = 1e-3  # of batch normalisation: five examples of a constant pixel have no variance


class Network(Protocol):
    """The interface of a network."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the weights of the last layer; empty where they are unknown."""
        ...

    def init(self, seed: int) -> Weights:
        """Fresh weights of one player."""
        ...

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Outputs [N, M, ...] for stacked weights and inputs [N, M, ...]."""
        ...


class Dense:
    """Fully connected layers with ReLU between them.

    ``Dense((784, 256, 128, 64, 64, ways), normalise=True)`` is MAML's network for Omniglot without convolutions (Finn, Abbeel and
    Levine, ICML 2017, section 5.2).

    Args:
        sizes: inputs, widths of the hidden layers, outputs. The dimensions after M of an input's shape are flattened.
        normalise: batch normalisation before each ReLU.
        slope: of the ReLU below 0.
        bounded: spectral normalisation of every layer, see ``spectrally_normalised``.
    """

    def __init__(
        self, sizes: Sequence[int], normalise: bool = False, slope: float = 0.0, bounded: bool = False
    ) -> None:
        self.sizes, self.normalise, self.slope, self.bounded = tuple(sizes), normalise, slope, bounded

    @property
    def head_names(self) -> tuple[str, ...]:
        """See ``Network``."""
        return _names(len(self.sizes) - 2)

    def init(self, seed: int) -> Weights:
        """Fresh weights of one player: He et al. (ICCV 2015), the head Glorot and Bengio (AISTATS 2010)."""
        generator, weights = torch.Generator().manual_seed(seed), Weights()
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            last = i == len(self.sizes) - 2
            weights |= _layer(i, fan_in, fan_out, generator, self.normalise and not last, 1.0 if last else 2.0)
        return weights

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """See ``Network``: [N, M, outputs]."""
        x, last = x.flatten(2), len(self.sizes) - 2
        weights = spectrally_normalised(weights) if self.bounded else weights
        for i in range(last):
            x = nn.functional.leaky_relu(_affine(weights, i, x, self.normalise), self.slope)
        return _affine(weights, last, x, False)


class Convolutional:
    """Blocks of a 3 x 3 convolution with stride 2, batch normalisation and ReLU; then the mean over pixels, and a linear layer.

    With four blocks of 64 filters it is MAML's network for Omniglot (Finn, Abbeel and Levine, ICML 2017, section 5.2). A
    convolution is one product of matrices per task: windows of its inputs [N, M * pixels, 9 C] with [N, 9 C, filters].

    Args:
        channels: C of the images [N, M, height, width, C].
        outputs: of the linear layer.
        filters: of each block.
        normalise: batch normalisation.
        slope: of the ReLU below 0.
        pooled: take the mean over the last block's pixels; otherwise they are the linear layer's inputs, for images of ``side``.
        side: height and width, where not ``pooled``.
        bounded: spectral normalisation of every layer, see ``spectrally_normalised``.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        filters: Sequence[int] = (64, 64, 64, 64),
        normalise: bool = True,
        slope: float = 0.0,
        pooled: bool = True,
        side: int = 28,
        bounded: bool = False,
    ) -> None:
        self.sizes, self.outputs, self.normalise = (channels, *filters), outputs, normalise
        self.slope, self.pooled, self.bounded = slope, pooled, bounded
        for _ in filters:
            side = (side + 1) // 2
        self.features = filters[-1] * (1 if pooled else side * side)

    @property
    def head_names(self) -> tuple[str, ...]:
        """See ``Network``."""
        return _names(len(self.sizes) - 1)

    def init(self, seed: int) -> Weights:
        """Fresh weights of one player, see ``Dense.init``."""
        generator, weights = torch.Generator().manual_seed(seed), Weights()
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            weights |= _layer(i, 9 * fan_in, fan_out, generator, self.normalise, 2.0)
        return weights | _layer(len(self.sizes) - 1, self.features, self.outputs, generator, False, 1.0)

    def embed(self, weights: Weights, x: Tensor) -> Tensor:
        """Inputs of the linear layer: [N, M, features]."""
        n, m = x.shape[:2]
        for i in range(len(self.sizes) - 1):
            height, width = ((s + 1) // 2 for s in x.shape[2:4])
            seen = windows(x.flatten(0, 1)).view(n, m * height * width, -1)
            if i == 0 and self.normalise:
                x = _normalised_map(weights, seen)
            else:
                x = _affine(weights, i, seen, self.normalise)
            x = nn.functional.leaky_relu(x, self.slope).view(n, m, height, width, -1)
        return x.mean((2, 3)) if self.pooled else x.flatten(2)

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """See ``Network``: [N, M, outputs]."""
        weights = spectrally_normalised(weights) if self.bounded else weights
        return _affine(weights, len(self.sizes) - 1, self.embed(weights, x), False)


class Module:
    """Any ``nn.Module`` without buffers, through ``functional_call`` under ``vmap``.

    Args:
        build: makes the module; called once per ``init``, under the seed.

    Raises:
        InvalidInputError: the module has buffers (such as batch statistics), which cannot be adapted per task.
    """

    head_names: tuple[str, ...] = ()

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build
        with torch.random.fork_rng(devices=[]), torch_defaults():
            self._module = build()
        if buffers := [name for name, _ in self._module.named_buffers()]:
            raise InvalidInputError(f"the module has buffers {buffers}: it must be a function of its parameters")

    def init(self, seed: int) -> Weights:
        """Fresh weights of one player, as the module's own initialisation makes them."""
        with torch.random.fork_rng(devices=[]), torch_defaults():
            torch.default_generator.manual_seed(seed)  # that of the CPU alone
            module = self._build()
        return {name: value.detach().clone() for name, value in module.named_parameters()}

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """See ``Network``."""
        result: Tensor = vmap(lambda w, rows: functional_call(self._module, w, (rows,)))(weights, x)
        return result


def spectrally_normalised(weights: Weights, iterations: int = 4) -> Weights:
    """Every weight matrix divided by its largest singular value (Miyato et al., ICLR 2018). With ReLUs and fully connected layers
    this bounds the network's Lipschitz constant by 1. A convolution's matrix is that of its windows, as in the paper.

    The singular vectors are constants, found by power iteration from the same vector each time: nothing is carried along.

    Args:
        weights: stacked.
        iterations: of the power method.
    """
    result = dict(weights)
    for name, matrix in weights.items():
        if not name.endswith(".weight"):
            continue
        with torch.no_grad():
            v = torch.ones_like(matrix[:, :1]).mT / math.sqrt(matrix.shape[2])  # [N, out, 1]
            for _ in range(iterations):
                u = nn.functional.normalize(matrix @ v, dim=1)
                v = nn.functional.normalize(matrix.mT @ u, dim=1)
        result[name] = matrix / (u.mT @ (matrix @ v))
    return result


class _Windows(torch.autograd.Function):
    """See ``windows``; its derivative is ``folded``, and the other way round, at every order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.height, ctx.width = height, width = x.shape[1:3]
        rows, columns = (height + 1) // 2, (width + 1) // 2
        padded = nn.functional.pad(x, (0, 0, 1, 2 * columns - width, 1, 2 * rows - height))
        return padded.unfold(1, 3, 2).unfold(2, 3, 2).permute(0, 1, 2, 4, 5, 3).reshape(len(x), rows * columns, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return folded(gradient, ctx.height, ctx.width)


class _Folded(torch.autograd.Function):
    """See ``folded``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int) -> Tensor:
        rows, columns = (height + 1) // 2, (width + 1) // 2
        parts = x.view(len(x), rows, columns, 3, 3, -1)
        padded = x.new_zeros(len(x), 2 * rows + 1, 2 * columns + 1, parts.shape[-1])
        for i in range(3):
            for j in range(3):
                padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] += parts[:, :, :, i, j]
        return padded[:, 1 : height + 1, 1 : width + 1].contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return windows(gradient), None, None


def windows(x: Tensor) -> Tensor:
    """Windows of 3 x 3 pixels with stride 2, of images in a border of zeros: [B, h, w, C] to [B, ceil(h/2) ceil(w/2), 9 C]."""
    result: Tensor = _Windows.apply(x)  # type: ignore[no-untyped-call]
    return result


def folded(x: Tensor, height: int, width: int) -> Tensor:
    """The transpose of ``windows``: add windows [B, ceil(h/2) ceil(w/2), 9 C] up at their places in the images: [B, h, w, C]."""
    result: Tensor = _Folded.apply(x, height, width)  # type: ignore[no-untyped-call]
    return result


def _names(i: int) -> tuple[str, str]:
    return f"layer{i}.weight", f"layer{i}.bias"


def _layer(i: int, fan_in: int, fan_out: int, generator: torch.Generator, normalise: bool, gain: float) -> Weights:
    """A layer's weights, of variance gain / fan_in; a normalised layer has a scale as well."""
    weight, bias = _names(i)
    drawn = torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float32, device=generator.device)
    layer = {weight: drawn * math.sqrt(gain / fan_in), bias: drawn.new_zeros(fan_out)}
    return layer | ({f"layer{i}.scale": drawn.new_ones(fan_out)} if normalise else {})


def _affine(weights: Weights, i: int, x: Tensor, normalise: bool) -> Tensor:
    """A layer's output [N, M, out] for inputs [N, M, in]; normalised over M before scale and bias, or with a bias alone."""
    weight, bias = (weights[name] for name in _names(i))
    if not normalise:
        return torch.baddbmm(bias.unsqueeze(1), x, weight)
    x = torch.bmm(x, weight)
    centred = x - x.mean(1, keepdim=True)
    factor = weights[f"layer{i}.scale"].unsqueeze(1) * torch.rsqrt((centred * centred).mean(1, keepdim=True) + EPSILON)
    return torch.addcmul(bias.unsqueeze(1), centred, factor)


def _normalised_map(weights: Weights, x: Tensor) -> Tensor:
    """The first layer's ``_affine``, normalised. Mean and variance of a linear map follow from those of its few inputs, so that
    the normalisation is applied to the weights, and the large outputs are computed once.
    """
    weight = weights["layer0.weight"]
    centred = x - x.mean(1, keepdim=True)
    covariance = centred.mT @ centred / x.shape[1]
    variance = (weight * (covariance @ weight)).sum(1, keepdim=True)
    scaled = weight * (weights["layer0.scale"].unsqueeze(1) * torch.rsqrt(variance + EPSILON))
    return torch.baddbmm(weights["layer0.bias"].unsqueeze(1), centred, scaled)
