"""The adapters of trained policies: gradient steps with the run's step sizes, or a memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metaduel.agents.adapters.protocol import Adapter, Experience, SeatInfo
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.losses import policy_gradient_loss
from metaduel.agents.objective.packing import log_probs
from metaduel.agents.policies.base import Policy, Weights, stack
from metaduel.agents.rollout import Learner
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import constants, gradients, leaves, moved, rate_at


@dataclass(frozen=True)
class GradientPlayer(Learner):
    """A policy with weights of its own in every row.

    Attributes:
        shot: number of updates so far.
        horizon: the most steps that an episode of its seat can have; losses are per step of it.
    """

    shot: int = 0
    horizon: int = field(kw_only=True)


@dataclass(frozen=True)
class GradientAdapter:
    """Gradient steps on the policy-gradient loss of a shot, see ``Adapter``.

    Attributes:
        role: the seat.
        policy: the network.
        weights: [...] each, of the start.
        rates: [K] or [K, ...] step sizes, see ``inner.step_sizes``; updates after K use the last. Empty: it does not adapt.
        loss: the loss of an update.
        shot: number of updates that the start has behind it: the next one has the step size that follows theirs.
    """

    role: Role
    policy: Policy
    weights: Weights = field(repr=False)
    rates: Tensor = field(repr=False)
    loss: LossConfig = field(repr=False)
    shot: int = 0

    @property
    def adapts(self) -> bool:
        """See ``Adapter``."""
        return len(self.rates) > 0

    def start(self, seat: SeatInfo, rows: int, seed: int) -> GradientPlayer:
        """See ``Adapter``."""
        check_size(self.policy, seat)
        # Real copies: products with views of one set may be rounded otherwise.
        weights = {name: value.clone() for name, value in stack(self.weights, rows).items()}
        return GradientPlayer(self.policy, weights, shot=self.shot, horizon=seat.horizon)

    def update(self, player: GradientPlayer, experience: Experience) -> GradientPlayer:
        """See ``Adapter``."""
        data = experience.play(player)
        gradient = support_gradient(self.role, self.loss, player, data)
        weights = moved(player.weights, gradient, rate_at(self.rates, player.shot))
        return replace(player, weights=weights, shot=player.shot + 1)


@dataclass(frozen=True)
class MemoryAdapter:
    """A policy whose carry outlives an episode and which adapts by remembering, see ``Adapter``.

    Attributes:
        policy: the network.
        weights: [...] each; the same in every row.
        carry: [1, 1, ...] the memory with which every row starts; None: the policy's initial carry.
    """

    policy: Policy
    weights: Weights = field(repr=False)
    adapts: bool = True
    carry: Carry | None = field(default=None, repr=False)

    def start(self, seat: SeatInfo, rows: int, seed: int) -> Learner:
        """See ``Adapter``."""
        check_size(self.policy, seat)
        one = {name: value.unsqueeze(0) for name, value in self.weights.items()}
        carry = self.policy.initial_carry(one, rows) if self.carry is None else self.carry.repeated(rows)
        return Learner(self.policy, one, carry=carry)

    def update(self, player: Learner, experience: Experience) -> Learner:
        """See ``Adapter``."""
        for episode in experience.one_by_one():
            player = replace(player, carry=episode.play(player).carry)
        return player


def adapter_of(role: Role, policy: Policy, weights: Weights, rates: Tensor, loss: LossConfig) -> Adapter:
    """The adapter of a trained policy: its carry, if that lasts, and gradient steps otherwise.

    Args:
        role: the seat.
        policy: the network.
        weights: of the start.
        rates: step sizes of its updates; empty: no updates.
        loss: the loss of an update.
    """
    if policy.lasting:
        return MemoryAdapter(policy, constants({role: weights})[role])
    return GradientAdapter(role, policy, constants({role: weights})[role], rates.detach(), loss)


def support_gradient(role: Role, loss: LossConfig, player: GradientPlayer, data: Trajectories) -> Weights:
    """The gradients of an update by the weights that adapt.

    Args:
        role: the seat.
        loss: the loss of an update.
        player: N rows.
        data: [N, T, E, ...], played by the player.
    """
    own, players = loss.of(role), leaves({role: player.weights})
    log_prob = log_probs(player.policy, players[role], data)
    support = policy_gradient_loss(log_prob, own.support_advantages(data), data.alive, own.kind, player.horizon)
    return gradients(support, players, (role,), create_graph=False)[role]


def support_only(loss: LossConfig) -> LossConfig:
    """The settings of one role's updates, with the defaults in place of those that updates do not read."""
    default = LossConfig()
    return replace(loss, surrogate=loss.kind, discount=default.discount, baseline=default.baseline)


def check_size(policy: Policy, seat: SeatInfo) -> None:
    """Raise ``InvalidInputError`` where a policy's inputs or actions are not the seat's."""
    size = seat.observation_space.shape[0]
    if policy.observation_size != size or policy.action_space != seat.action_space:
        raise InvalidInputError(
            f"its policy takes {policy.observation_size} observations and acts in {policy.action_space}; the seat of "
            f"{seat.game}'s {seat.role} has {size} and {seat.action_space}"
        )


def rows_of(weights: Weights, row: int) -> Weights:
    """One row of stacked weights; a single set is every row's."""
    return {name: value[row if len(value) > 1 else 0] for name, value in weights.items()}


def copied(weights: Weights) -> Weights:
    """Detached copies."""
    with torch.no_grad():
        return {name: value.detach().clone() for name, value in weights.items()}
