"""A policy that reads a belief about task and opponent from its memory (VariBAD, Zintgraf et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metaduel.agents.policies.base import ActionSpace, Weights
from metaduel.agents.policies.memory import MemoryPolicy, join
from metaduel.agents.policies.recurrent import affine
from metaduel.agents.trajectories import Trajectories

LATENT = 8  # numbers in the latent variable
PREDICTING = ("input", "memory", "belief", "decoder", "decoded")  # layers that learn to predict; the others act
PAST, STEPS = 8, 32  # moments at which the belief is judged, and steps of the chain that judge each


class LatentPolicy(MemoryPolicy):
    """A recurrent posterior over a latent variable z, and a feed-forward policy that reads the posterior's parameters.

        belief       q(z | observations, actions and rewards so far): a Gaussian, from the memory
        policy       pi(action | observation, mean and log standard deviation of z)
        decoder      p(reward, the opponent's action | z, observation, action), at any step of the chain, before or after

    The memory is trained by the decoder alone (see ``prediction_loss``); the policy's gradient stops at the belief. Rewards
    are evidence of the task, the opponent's actions of the opponent (as in LIAM, Papoudakis et al., NeurIPS 2021). The decoder
    is for training, and only there does it see the opponent's actions.

    Args:
        observation_size: d.
        action_space: Box or Discrete.
        other_space: the opponent's action space.
        units: width of the memory, of the policy's layer and of the decoder's.
        initial_log_std: see ``Policy``.
        mask: see ``Policy``.
    """

    def __init__(
        self,
        observation_size: int,
        action_space: ActionSpace,
        other_space: ActionSpace,
        units: int = 64,
        initial_log_std: float = 0.0,
        mask: slice | None = None,
    ) -> None:
        super().__init__(observation_size, action_space, units, initial_log_std, mask)
        self.other_space = other_space
        self.other_size = int(spaces.flatdim(other_space))

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player: orthogonal, gain 0.1 at the outputs."""
        weights = super().init(seed, dtype)
        generator = torch.Generator().manual_seed(seed + 1)
        decoded = LATENT + self.observation_size + self.action_size
        for name, rows, columns, gain in (
            ("belief", self.units, 2 * LATENT, 0.1),
            ("layer", self.observation_size + 2 * LATENT, self.units, 1.0),
            ("decoder", decoded, self.units, 1.0),
            ("decoded", self.units, 1 + self.other_size, 0.1),
        ):
            matrix = torch.empty(rows, columns, dtype=torch.float64, device="cpu")
            weights[f"{name}.weight"] = nn.init.orthogonal_(matrix, gain=gain, generator=generator).to(dtype)
            weights[f"{name}.bias"] = torch.zeros(columns, dtype=dtype, device="cpu")
        return weights

    def prepare(self, weights: Weights) -> Weights:
        """Fold the normalisation of observations into the layers that see them."""
        prepared = super().prepare(weights)
        for name in ("layer", "decoder"):
            matrix, bias = self._fold(weights, weights[f"{name}.weight"], weights[f"{name}.bias"])
            prepared |= {f"{name}.weight": matrix, f"{name}.bias": bias}
        return prepared

    def read(self, prepared: Weights, observation: Tensor, hidden: Tensor) -> Tensor:
        """Means or logits [N, M, A] at inputs [N, M, d + A + 2] with the memory [N, M, units] that includes them."""
        belief = affine(prepared, "belief", hidden).detach()
        x = torch.cat([observation[..., : self.observation_size], belief], -1)
        return self._masked(affine(prepared, "output", torch.tanh(affine(prepared, "layer", x))), observation)

    def prediction_loss(
        self, prepared: Weights, chain: Sequence[Trajectories], hidden: Sequence[Tensor], seed: int
    ) -> Tensor:
        """Minus the evidence lower bound per step, []: the error of decoding a few steps from the belief at a few moments, and
        the divergence of the belief from step to step (at the first step, from a standard normal distribution).

        Args:
            prepared: [N, ...].
            chain: episodes that were played one after another.
            hidden: the memory at every step of the chain, see ``over_chain``.
            seed: seed of the steps, the moments and the samples.
        """
        generator = torch.Generator().manual_seed(seed % (1 << 63))
        data, memory = join(chain), torch.cat(list(hidden), 1)
        n, steps, rows = data.reward.shape
        belief = affine(prepared, "belief", memory.flatten(1, 2)).view(n, steps, rows, 2 * LATENT)
        mean, log_std = belief.chunk(2, -1)
        moments = torch.randint(steps, (PAST,), generator=generator, dtype=torch.int64, device="cpu")
        noise = torch.randn(n, PAST, rows, LATENT, generator=generator, dtype=mean.dtype, device="cpu")
        z = mean[:, moments] + torch.exp(log_std[:, moments]) * noise
        at = torch.randint(steps, (STEPS,), generator=generator, dtype=torch.int64, device="cpu")
        shape = (n, PAST, STEPS, rows)
        known = torch.cat([data.observation[..., : self.observation_size], self.shown(data.action).to(mean.dtype)], -1)[
            :, at
        ]
        given = torch.cat([known.unsqueeze(1).expand(*shape, -1), z.unsqueeze(2).expand(*shape, -1)], -1)
        out = torch.tanh(affine(prepared, "decoder", given.flatten(1, 3)))
        out = affine(prepared, "decoded", out).view(*shape, -1)
        wrong = self._wrong(out, data, at)
        counted = (data.alive[:, moments].unsqueeze(2) * data.alive[:, at].unsqueeze(1)).view(shape)
        decoding = (wrong * counted).sum() / counted.sum().clamp(min=1)
        before_mean = torch.cat([torch.zeros_like(mean[:, :1]), mean[:, :-1]], 1)
        before_log_std = torch.cat([torch.zeros_like(log_std[:, :1]), log_std[:, :-1]], 1)
        moved = (_divergence(mean, log_std, before_mean, before_log_std) * data.alive).sum() / data.alive.sum()
        # A moment's bound is a sum over all steps of the chain; it is given per step, like the decoding error.
        return decoding + moved / steps

    def _wrong(self, out: Tensor, data: Trajectories, at: Tensor) -> Tensor:
        """Minus the log-likelihood [N, PAST, STEPS, M] of rewards and the opponent's actions, up to a constant."""
        assert data.other is not None
        scale = data.reward[data.alive > 0].square().mean().sqrt().clamp(min=1e-6)
        wrong = 0.5 * (out[..., 0] - data.reward[:, at].unsqueeze(1) / scale) ** 2
        other = data.other[:, at].unsqueeze(1)
        if isinstance(self.other_space, spaces.Discrete):
            log_probs = torch.log_softmax(out[..., 1:], -1)
            return wrong - log_probs.gather(-1, other.expand(out.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        low, high = torch.from_numpy(self.other_space.low), torch.from_numpy(self.other_space.high)
        target = 2 * (other - low) / (high - low) - 1
        return wrong + 0.5 * ((out[..., 1:] - target) ** 2).sum(-1)


def _divergence(mean: Tensor, log_std: Tensor, before_mean: Tensor, before_log_std: Tensor) -> Tensor:
    """KL divergence [...] of one belief from the one before, in nats."""
    ratio = torch.exp(2 * (log_std - before_log_std)) + ((mean - before_mean) * torch.exp(-before_log_std)) ** 2
    return (before_log_std - log_std + 0.5 * ratio - 0.5).sum(-1)
