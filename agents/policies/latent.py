"""A policy that reads a belief about task and opponent from its memory (VariBAD, Zintgraf et al., ICLR 2020)."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metaduel.agents.policies.base import ActionSpace, Weights
from metaduel.agents.policies.memory import MemoryPolicy, Played
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
        self, prepared: Weights, data: Trajectories, played: Played, hidden: Tensor, seed: int
    ) -> Tensor:
        """Minus the evidence lower bound per step, []: the error of decoding a few steps from the belief at a few moments, and
        the divergence of the belief from step to step (at the first step, from a standard normal distribution).

        Args:
            prepared: [1, ...].
            data: [1, T, M, ...] episodes that were played one after another, joined.
            played: their steps.
            hidden: [1, P, units] the memory at these, see ``over_chain``.
            seed: seed of the steps, the moments and the samples.
        """
        generator = torch.Generator().manual_seed(seed % (1 << 63))
        _, steps, rows = data.reward.shape
        mean, log_std = affine(prepared, "belief", hidden)[0].chunk(2, -1)  # [P, LATENT]
        moments = torch.randint(steps, (PAST,), generator=generator, dtype=torch.int64, device="cpu")
        noise = torch.randn(1, PAST, rows, LATENT, generator=generator, dtype=mean.dtype, device="cpu")[0]
        at = torch.randint(steps, (STEPS,), generator=generator, dtype=torch.int64, device="cpu")
        # The tasks in which both were played, with what is decoded from what: P's index of moment and step.
        alive = played.alive.mT
        moment, step, task = torch.nonzero(alive[moments].unsqueeze(1) & alive[at]).unbind(1)
        index = (played.alive.flatten().cumsum(0) - 1).view(rows, steps)
        source, target = index[task, moments[moment]], index[task, at[step]]
        z = mean[source] + torch.exp(log_std[source]) * noise[moment, task]
        action = self.shown(played.pick(data.action)[0, target]).to(mean.dtype)
        given = torch.cat([played.seen[0, target, : self.observation_size], action, z], -1).unsqueeze(0)
        out = affine(prepared, "decoded", torch.tanh(affine(prepared, "decoder", given)))[0]
        decoding = self._wrong(out, data, played, target).sum() / max(len(target), 1)
        # The belief before, at the first step of every task a standard normal distribution.
        first = torch.zeros_like(played.alive)
        first[torch.arange(rows, dtype=torch.int64, device=first.device), played.alive.long().argmax(1)] = True
        later = ~first[played.alive].unsqueeze(-1)
        before_mean, before_log_std = (belief.roll(1, 0) * later for belief in (mean, log_std))
        moved = _divergence(mean, log_std, before_mean, before_log_std).mean()
        # A moment's bound is a sum over all steps of the chain; it is given per step, like the decoding error.
        return decoding + moved / steps

    def _wrong(self, out: Tensor, data: Trajectories, played: Played, target: Tensor) -> Tensor:
        """Minus the log-likelihood [Q] of rewards and the opponent's actions at P's steps ``target`` [Q], up to a constant."""
        assert data.other is not None
        reward, other = played.pick(data.reward)[0], played.pick(data.other)[0, target]
        scale = reward.square().mean().sqrt().clamp(min=1e-6)
        wrong = 0.5 * (out[:, 0] - reward[target] / scale) ** 2
        if isinstance(self.other_space, spaces.Discrete):
            return wrong - torch.log_softmax(out[:, 1:], -1).gather(-1, other.unsqueeze(-1)).squeeze(-1)
        low, high = torch.from_numpy(self.other_space.low), torch.from_numpy(self.other_space.high)
        return wrong + 0.5 * ((out[:, 1:] - (2 * (other - low) / (high - low) - 1)) ** 2).sum(-1)


def _divergence(mean: Tensor, log_std: Tensor, before_mean: Tensor, before_log_std: Tensor) -> Tensor:
    """KL divergence [...] of one belief from the one before, in nats."""
    ratio = torch.exp(2 * (log_std - before_log_std)) + ((mean - before_mean) * torch.exp(-before_log_std)) ** 2
    return (before_log_std - log_std + 0.5 * ratio - 0.5).sum(-1)
