"""The tanh network on stacked weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metaduel.agents.policies.base import ActionSpace, Policy, Weights
from metaduel.agents.policies.distributions import Distribution
from metaduel.agents.policies.groups import Group, even_groups, spread
from metaduel.agents.policies.tanh import acting, folded, played, tanh_network
from metaduel.agents.trajectories import Carry


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

    by_row = True

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
        """Fold the normalisation of observations and the context's share into the first layer."""
        matrix, bias = self._fold(weights, weights["layer0.weight"], weights["layer0.bias"])
        if self.context:
            bias = bias + (weights["context"].unsqueeze(-2) @ weights["context.weight"]).squeeze(-2)
        return {**weights, "layer0.weight": matrix, "layer0.bias": bias}

    def outputs(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Means or logits [N, M, A]."""
        if torch.is_grad_enabled():
            n, length, size = observation.shape
            rows = self._network(prepared, observation.reshape(n * length, size), even_groups(n, length))
            return self._masked(rows.view(n, length, -1), observation)
        return self._masked(played(observation, *self._layers(prepared)), observation)

    def ready(self, weights: Weights) -> Weights:
        """See ``Policy``; of ``choose`` alone, since the layers' weights are those of ``tanh.acting``."""
        prepared = super().ready(weights)
        matrices, biases = folded(*self._layers(prepared))
        layers = {f"layer{i}.weight": matrix for i, matrix in enumerate(matrices)}
        return {**prepared, **layers, **{f"layer{i}.bias": bias for i, bias in enumerate(biases)}}

    def choose(
        self, prepared: Weights, given: Tensor, carry: Carry, scaled_noise: Tensor | None
    ) -> tuple[Tensor, Carry]:
        """See ``Policy``."""
        out = self._masked(acting(given, *self._layers(prepared)), given)
        return self.head(prepared, out).mode() if scaled_noise is None else self.pick(
            prepared, out, scaled_noise
        ), carry

    def at_rows(self, prepared: Weights, given: Tensor, groups: tuple[Group, ...]) -> Distribution:
        """See ``Policy``."""
        out = self._masked(self._network(prepared, given, groups), given).unsqueeze(1)
        if self.discrete:
            return self.head(prepared, out)
        return self.head({"log_std": spread(prepared["log_std"], groups)}, out)

    def _network(self, prepared: Weights, given: Tensor, groups: tuple[Group, ...]) -> Tensor:
        return tanh_network(given, *self._layers(prepared), groups)

    def _layers(self, prepared: Weights) -> tuple[list[Tensor], list[Tensor]]:
        """Matrices and biases."""
        layers = range(len(self.sizes) - 1)
        return [prepared[f"layer{i}.weight"] for i in layers], [prepared[f"layer{i}.bias"] for i in layers]
