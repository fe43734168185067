"""A policy that reads a belief about task and opponent from its memory (VariBAD, Zintgraf et al., ICLR 2020)."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.policies.base import ActionSpace, Weights
from metaduel.agents.policies.memory import MemoryPolicy, Played, layers
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
        decoded = LATENT + self.observation_size + self.action_size
        for i, (names, sizes, gains) in enumerate((
            (("belief",), (self.units, 2 * LATENT), (0.1,)),
            (("layer",), (self.observation_size + 2 * LATENT, self.units), (1.0,)),
            (("decoder", "decoded"), (decoded, self.units, 1 + self.other_size), (1.0, 0.1)),
        )):  # fmt: skip
            weights |= layers(names, sizes, gains, seed + 3 + i, dtype)
        return weights

    @property
    def read_size(self) -> int:
        """See ``MemoryPolicy``: mean and log standard deviation of the belief."""
        return 2 * LATENT

    def prepare(self, weights: Weights) -> Weights:
        """See ``MemoryPolicy``."""
        prepared = super().prepare(weights)
        for name in ("layer", "decoder"):
            matrix, bias = self._fold(weights, weights[f"{name}.weight"], weights[f"{name}.bias"])
            prepared |= {f"{name}.weight": matrix, f"{name}.bias": bias}
        return prepared

    def read(self, prepared: Weights, observation: Tensor, hidden: Tensor) -> Tensor:
        """Means or logits [N, M, A] at inputs [N, M, d + A + 2] with the memory [N, M, units] that includes them."""
        x = torch.cat([observation[..., : self.observation_size], self.readable(prepared, hidden)], -1)
        return self._masked(affine(prepared, "output", torch.tanh(affine(prepared, "layer", x))), observation)

    def readable(self, prepared: Weights, hidden: Tensor) -> Tensor:
        """See ``MemoryPolicy``: the belief [N, M, 2 LATENT], a constant."""
        return affine(prepared, "belief", hidden).detach()

    def prediction_loss(
        self, prepared: Weights, data: Trajectories, played: Played, hidden: Tensor, seed: int
    ) -> Tensor:
        """Minus the evidence lower bound per step, []: the error of decoding a few steps from the belief at a few moments, and
        the divergence of the belief from step to step (at the first step, from a standard normal distribution).

        Args:
            prepared: [1, ...].
            data: [1, T, M, ...] episodes that were played one after another, joined.
            played: the inputs of whole chains, of all tasks or some.
            hidden: [1, R, units] the memory at these, see ``over_chain``.
            seed: seed of the steps, the moments and the samples.
        """
        generator = torch.Generator().manual_seed(seed % (1 << 63))
        _, steps, tasks = data.reward.shape
        mean, log_std = affine(prepared, "belief", hidden)[0].chunk(2, -1)  # [R, LATENT]
        moments = torch.randint(steps, (PAST,), generator=generator, dtype=torch.int64, device="cpu")
        noise = torch.randn(1, PAST, tasks, LATENT, generator=generator, dtype=mean.dtype, device="cpu")[0]
        at = torch.randint(steps, (STEPS,), generator=generator, dtype=torch.int64, device="cpu")
        # The tasks in which both were played, with what is decoded from what: the rows of moment and step.
        own = (~played.ends).nonzero().squeeze(1)
        rows = torch.full((steps * tasks,), -1, dtype=torch.int64, device=own.device)
        rows[played.step[own]] = own
        rows = rows.view(steps, tasks)
        moment, step, task = torch.nonzero((rows[moments] >= 0).unsqueeze(1) & (rows[at] >= 0)).unbind(1)
        source, target = rows[moments[moment], task], rows[at[step], task]
        z = mean[source] + torch.exp(log_std[source]) * noise[moment, task]
        action = self.shown(played.pick(data.action)[target]).to(mean.dtype)
        given = torch.cat([played.given[target, : self.observation_size], action, z], -1).unsqueeze(0)
        out = affine(prepared, "decoded", torch.tanh(affine(prepared, "decoder", given)))[0]
        decoding = self._wrong(out, data, played, target).sum() / max(len(target), 1)
        # The belief before, at the first step of every task a standard normal distribution.
        own = own[torch.argsort(played.task[own] * (int(played.place.max()) + 1) + played.place[own])]
        later = (played.place[own] > 0).unsqueeze(-1)
        mean, log_std = mean[own], log_std[own]
        before_mean, before_log_std = (belief.roll(1, 0) * later for belief in (mean, log_std))
        moved = _divergence(mean, log_std, before_mean, before_log_std).mean()
        # A moment's bound is a sum over all steps of the chain; it is given per step, like the decoding error.
        return decoding + moved / steps

    def _wrong(self, out: Tensor, data: Trajectories, played: Played, target: Tensor) -> Tensor:
        """Minus the log-likelihood [Q] of rewards and the opponent's actions at rows ``target`` [Q], up to a constant."""
        assert data.other is not None
        other = played.pick(data.other)[target]
        wrong = 0.5 * (out[:, 0] - self.targets(data, played)[target]) ** 2
        if isinstance(self.other_space, spaces.Discrete):
            return wrong - torch.log_softmax(out[:, 1:], -1).gather(-1, other.unsqueeze(-1)).squeeze(-1)
        low, high = torch.from_numpy(self.other_space.low), torch.from_numpy(self.other_space.high)
        return wrong + 0.5 * ((out[:, 1:] - (2 * (other - low) / (high - low) - 1)) ** 2).sum(-1)

    def targets(self, data: Trajectories, played: Played) -> Tensor:
        """The rewards that the decoder predicts, [R]: those within episodes and those that end one, each divided by a deviation
        of their own. A few results would be all of the variance otherwise, and rewards that tell the task would not be learned.
        """
        reward, scaled = played.pick(data.reward), torch.zeros_like(played.given[:, 0])
        for part in (played.last, ~played.last & ~played.ends):
            own = reward[part]
            scaled[part] = own / own.square().mean().sqrt().clamp(min=1e-6) if len(own) else own
        return scaled


def _divergence(mean: Tensor, log_std: Tensor, before_mean: Tensor, before_log_std: Tensor) -> Tensor:
    """KL divergence [...] of one belief from the one before, in nats."""
    ratio = torch.exp(2 * (log_std - before_log_std)) + ((mean - before_mean) * torch.exp(-before_log_std)) ** 2
    return (before_log_std - log_std + 0.5 * ratio - 0.5).sum(-1)
