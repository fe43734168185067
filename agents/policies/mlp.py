"""The tanh network on stacked weights: one ``baddbmm`` per layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metaduel.agents.policies.base import ActionSpace, Policy, Weights


class _Affine(torch.autograd.Function):
    """``baddbmm`` whose weight gradient is computed as (g^T x)^T: on CPUs x^T g costs as much for two outputs as for 64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, matrix)
        return torch.baddbmm(bias.unsqueeze(1), x, matrix)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, matrix = ctx.saved_tensors
        return (g @ matrix.mT if ctx.needs_input_grad[0] else None), (g.mT @ x).mT, g.sum(1)


class MLPPolicy(Policy):
    """A tanh network with orthogonal initialisation (gain 0.1 at the output).

    With ``context`` > 0 it has inputs that are weights themselves, zero at the start: a few numbers in which an update can
    encode the task (the bias transformation of Finn, Yu et al., CoRL 2017; the context parameters of CAVIA, Zintgraf et al.,
    ICML 2019).

    Args:
        observation_size: d.
        action_space: Box or Discrete.
        hidden: widths.
        initial_log_std: see ``Policy``.
        context: number of such inputs.
        gain: gain of the hidden layers' initial weights.
        bias: the hidden layers' initial biases are drawn from [-bias, bias]. Without biases, a tanh network is an odd function of
            its inputs, and a product of two inputs is not odd: the network cannot represent a hidden sign times a state until
            its biases have grown.
        mask: see ``Policy``.
    """

    def __init__(
        self,
        observation_size: int,
        action_space: ActionSpace,
        hidden: Sequence[int] = (64, 64),
        initial_log_std: float = 0.0,
        context: int = 0,
        gain: float = 1.0,
        bias: float = 0.0,
        mask: slice | None = None,
    ) -> None:
        super().__init__(observation_size, action_space, initial_log_std, mask)
        self.sizes, self.context = (observation_size, *hidden, self.action_size), context
        self.gain, self.bias = gain, bias

    @property
    def head_names(self) -> tuple[str, ...]:
        """See ``Policy``."""
        last = len(self.sizes) - 2
        return (f"layer{last}.weight", f"layer{last}.bias", "log_std")

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player."""
        generator = torch.Generator().manual_seed(seed)
        weights: Weights = {}
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            matrix = torch.empty(fan_in, fan_out, dtype=torch.float64, device="cpu")
            last = i == len(self.sizes) - 2
            nn.init.orthogonal_(matrix, gain=0.1 if last else self.gain, generator=generator)
            bias = matrix.new_zeros(fan_out)
            if self.bias and not last:
                bias.uniform_(-self.bias, self.bias, generator=generator)
            weights[f"layer{i}.weight"], weights[f"layer{i}.bias"] = matrix.to(dtype), bias.to(dtype)
        if self.context:
            matrix = torch.empty(self.context, self.sizes[1], dtype=torch.float64, device="cpu")
            # A gain above 1 makes one update of the context matter.
            weights["context.weight"] = nn.init.orthogonal_(matrix, gain=3.0, generator=generator).to(dtype)
            weights["context"] = torch.zeros(self.context, dtype=dtype, device="cpu")
        if not self.discrete:
            weights["log_std"] = torch.full((self.action_size,), self.initial_log_std, dtype=dtype, device="cpu")
        return weights

    def prepare(self, weights: Weights) -> Weights:
        """Fold tanh(x) = 2 sigmoid(2 x) - 1 into the layers around it: sigmoid is several times faster than tanh on CPUs,
        and the two affine maps cost nothing once they are part of the weights, like those that normalise observations.
        """
        prepared, last = dict(weights), len(self.sizes) - 2
        for i in range(last + 1):
            matrix, bias = weights[f"layer{i}.weight"], weights[f"layer{i}.bias"]
            if i == 0:
                matrix, bias = self._fold(weights, matrix, bias)
            if i == 0 and self.context:
                bias = bias + (weights["context"].unsqueeze(-2) @ weights["context.weight"]).squeeze(-2)
            if i > 0:
                matrix, bias = 2.0 * matrix, bias - matrix.sum(-2)
            if i < last:
                matrix, bias = 2.0 * matrix, 2.0 * bias
            prepared[f"layer{i}.weight"], prepared[f"layer{i}.bias"] = matrix, bias
        return prepared

    def outputs(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Means or logits [N, M, A]."""
        x, last = observation, len(self.sizes) - 2
        for i in range(last + 1):
            matrix, bias = prepared[f"layer{i}.weight"], prepared[f"layer{i}.bias"]
            if i == last and torch.is_grad_enabled():
                x = _Affine.apply(x, matrix, bias)  # type: ignore[no-untyped-call]
            else:
                x = torch.baddbmm(bias.unsqueeze(1), x, matrix)
            x = torch.sigmoid(x) if i < last else x
        return self._masked(x, observation)
