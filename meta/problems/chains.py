"""Chains (RL^2's trials): episodes played one after another by players with a memory, and their loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from metaduel.agents.policies.memory import MemoryPolicy, Played, join
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Players, Problem


@dataclass(frozen=True)
class Chain:
    """The trajectories of each player with a memory on every task, from its first episode to its last.

    Attributes:
        policies: per role.
        episodes: per role its episodes in order, each [1, T, tasks, ...]: one set of weights on all tasks.
        objectives: per role, the settings of the loss.
        seed: seed of the loss's random numbers.
        shots: number of batches of episodes in the chain.
        environment_steps: steps played, both seats of a game counted once.
    """

    policies: Mapping[Role, MemoryPolicy]
    episodes: Mapping[Role, Sequence[Trajectories]]
    objectives: Mapping[Role, LossConfig]
    seed: int
    shots: int = 1
    environment_steps: int = 0

    @property
    def returns(self) -> list[dict[Role, Tensor]]:
        """Per shot and role, mean undiscounted returns [tasks]."""
        result = []
        for shot in range(self.shots):
            size = {role: len(chain) // self.shots for role, chain in self.episodes.items()}
            parts = {r: chain[shot * size[r] : (shot + 1) * size[r]] for r, chain in self.episodes.items()}
            result.append({r: torch.stack([d.returns.flatten() for d in part]).mean(0) for r, part in parts.items()})
        return result

    def seen(self) -> Iterator[tuple[Role, Trajectories]]:
        """All trajectories, episode by episode."""
        for episodes in zip(*self.episodes.values(), strict=True):
            yield from zip(self.episodes, episodes, strict=True)

    def losses(self, players: Players, before: Mapping[Role, Tensor], clip: float) -> dict[Role, Tensor]:
        """Per role the clipped loss [] of one set of weights [1, ...].

        Args:
            players: the weights.
            before: log-probabilities under the weights that played, see ``log_probs``.
            clip: bound on the ratio's distance from 1.
        """
        result = {}
        for role, data in self._joined.items():
            now = self._log_prob(role, players[role])
            advantage, steps = self.advantages[role], data.alive.shape[1]
            result[role] = clipped_loss(now, before[role], advantage, data.alive, clip, steps).mean()
        return result

    @cached_property
    def _joined(self) -> dict[Role, Trajectories]:
        """Per role all episodes, concatenated along the time axis."""
        return {role: join(chain) for role, chain in self.episodes.items()}

    @cached_property
    def _played(self) -> dict[Role, Played]:
        """Per role the steps that were played."""
        return {role: self.policies[role].played(chain) for role, chain in self.episodes.items()}

    @cached_property
    def advantages(self) -> dict[Role, Tensor]:
        """Per role, [1, all steps, tasks]; the same at every outer step on these data."""
        return {role: self._advantages(role, data) for role, data in self._joined.items()}

    def predictions(self, players: Players, draw: int) -> dict[Role, Tensor]:
        """Per role the prediction loss [] of its belief, at a few steps of the chain, which depend on ``draw``."""
        result = {}
        for role, data in self._joined.items():
            policy, played = self.policies[role], self._played[role]
            prepared = policy.prepare(players[role])
            hidden = policy.over_chain(prepared, played)
            result[role] = policy.prediction_loss(prepared, data, played, hidden, self.seed + draw)
        return result

    @torch.no_grad()
    def log_probs(self, players: Players) -> dict[Role, Tensor]:
        """Per role the log-probabilities [1, all steps, tasks] of the actions taken, 0 where no step was played."""
        return {role: self._log_prob(role, players[role]) for role in self.episodes}

    def _log_prob(self, role: Role, weights: Weights) -> Tensor:
        policy, data, played = self.policies[role], self._joined[role], self._played[role]
        prepared = policy.prepare(weights)
        out = policy.read(prepared, played.seen, policy.over_chain(prepared, played))
        return played.spread(policy.head(prepared, out).log_prob(played.pick(data.action)))

    def _advantages(self, role: Role, data: Trajectories) -> Tensor:
        """Advantages [1, all steps, tasks] over the rest of the chain, not of the episode: exploration in one episode pays in
        the next.
        """
        loss = self.objectives[role]
        rows = data.map(lambda part: part[0].movedim(1, 0).unsqueeze(2))  # [tasks, all steps, 1, ...]
        # Episodes that ended early leave gaps: move the steps that were played together.
        order = torch.argsort(rows.alive, dim=1, descending=True, stable=True)
        observation = rows.observation.gather(1, order.unsqueeze(-1).expand_as(rows.observation))
        reward, alive = rows.reward.gather(1, order), rows.alive.gather(1, order)
        # One fit for all tasks, whatever the loss's settings: a fit to a task's only chain would remove the chain's return.
        value = fit_linear(observation, discounted_returns(reward, loss.discount), alive, [len(alive)])
        advantage = gae(reward, value, alive, loss.discount, loss.gae_lambda)
        if loss.normalise:
            advantage = normalise(advantage, alive, [len(alive)])
        return torch.zeros_like(advantage).scatter(1, order, advantage).squeeze(2).mT.unsqueeze(0)


@runtime_checkable
class ChainProblem(Problem, Protocol):
    """A problem that plays episodes one after another with memories that last."""

    def chain(self, players: Players, shots: int) -> Chain:
        """Play the episodes of ``shots`` shots, with one set of weights [1, ...] per player."""
        ...
