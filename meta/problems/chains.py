"""Episodes played one after another by players with a memory, and the loss that they are trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from metaduel.agents.objective.baselines import fit_linear
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.losses import clipped_loss
from metaduel.agents.objective.returns import discounted_returns, gae, normalise
from metaduel.agents.policies.base import Weights
from metaduel.agents.policies.latent import LatentPolicy
from metaduel.agents.policies.memory import MemoryPolicy, join
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Players, Problem


@dataclass(frozen=True)
class Chain:
    """What each player with a memory saw, did and got on every task, from its first episode to its last.

    Attributes:
        policies: per role.
        episodes: per role its episodes in order, each [1, T, tasks, ...]: one set of weights on all tasks.
        objectives: per role, how they become a loss.
        seed: of anything random in the loss.
    """

    policies: Mapping[Role, MemoryPolicy]
    episodes: Mapping[Role, Sequence[Trajectories]]
    objectives: Mapping[Role, LossConfig]
    seed: int

    def losses(self, players: Players, before: Mapping[Role, Tensor], clip: float) -> dict[Role, Tensor]:
        """Per role the clipped loss [] of one set of weights [1, ...].

        Args:
            players: the weights.
            before: log-probabilities under the weights that played, see ``log_probs``.
            clip: of the ratio.
        """
        result = {}
        for role, data in self._joined.items():
            now = self._log_prob(role, players[role])
            result[role] = clipped_loss(now, before[role], self.advantages[role], data.alive, clip).mean()
        return result

    @cached_property
    def _joined(self) -> dict[Role, Trajectories]:
        """Per role all episodes along the axis of time."""
        return {role: join(chain) for role, chain in self.episodes.items()}

    @cached_property
    def advantages(self) -> dict[Role, Tensor]:
        """Per role, [1, all steps, tasks]; the same at every step that is taken on the data."""
        return {role: self._advantages(role, data) for role, data in self._joined.items()}

    def predictions(self, players: Players, draw: int) -> dict[Role, Tensor]:
        """Per role the loss [] of what its belief predicts, at a few steps of the chain; another ``draw`` has others."""
        result = {}
        for role, chain in self.episodes.items():
            policy = self.policies[role]
            if not isinstance(policy, LatentPolicy):
                raise TypeError(f"{type(policy).__name__} predicts nothing")
            prepared = policy.prepare(players[role])
            result[role] = policy.prediction_loss(prepared, chain, policy.over_chain(prepared, chain), self.seed + draw)
        return result

    @torch.no_grad()
    def log_probs(self, players: Players) -> dict[Role, Tensor]:
        """Per role the log-probabilities [1, all steps, tasks] of what was done."""
        return {role: self._log_prob(role, players[role]) for role in self.episodes}

    def _log_prob(self, role: Role, weights: Weights) -> Tensor:
        policy, data = self.policies[role], self._joined[role]
        prepared = policy.prepare(weights)
        hidden = torch.cat(policy.over_chain(prepared, self.episodes[role]), 1)
        out = policy.read(prepared, data.observation.flatten(1, 2), hidden.flatten(1, 2))
        return policy.head(prepared, out).log_prob(data.action.flatten(1, 2)).view_as(data.reward)

    def _advantages(self, role: Role, data: Trajectories) -> Tensor:
        """[1, all steps, tasks]: what an action led to in all episodes that followed, since what is found out in one pays in
        the next.
        """
        loss = self.objectives[role]
        rows = Trajectories(*(part[0].movedim(1, 0).unsqueeze(2) for part in data[:4]))  # [tasks, all steps, 1, ...]
        # Episodes that ended early leave gaps: bring the steps that were played together.
        order = torch.argsort(rows.alive, dim=1, descending=True, stable=True)
        observation = rows.observation.gather(1, order.unsqueeze(-1).expand_as(rows.observation))
        reward, alive = rows.reward.gather(1, order), rows.alive.gather(1, order)
        # One fit for all tasks, whatever the loss says: fitted to the only chain of a task, it would take its return away.
        value = fit_linear(observation, discounted_returns(reward, loss.discount), alive, shared=True)
        advantage = gae(reward, value, alive, loss.discount, loss.gae_lambda)
        if loss.normalise:
            advantage = normalise(advantage, alive, shared=True)
        return torch.zeros_like(advantage).scatter(1, order, advantage).squeeze(2).mT.unsqueeze(0)


@runtime_checkable
class ChainProblem(Problem, Protocol):
    """A problem that plays episodes one after another with memories that last."""

    def chain(self, players: Players, shots: int) -> Chain:
        """Draw ``shots`` times the episodes of a shot, for one set of weights [1, ...] per player."""
        ...

    def remember(self, players: Players, shot: int) -> Players:
        """The players with the memory that they have after playing the episodes of ``shot`` one after another."""
        ...
