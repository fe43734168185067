"""Chains (RL^2's trials): episodes played one after another by players with a memory, and their loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.ppo import chain_advantages, ppo_loss
from metaduel.agents.policies.base import Weights
from metaduel.agents.policies.memory import MemoryPolicy, Played, join
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Players, Problem

CRITIC_LAMBDA = 0.95  # lambda of generalised advantage estimates where a critic gives the values and no other is chosen


class Credit(NamedTuple):
    """All that the steps on a player's chains need beside its present weights: constants at R rows, see ``Played``."""

    played: Played
    whole: Played  # the same in whole chains
    rows: Tensor  # [R] int64: the rows of ``whole`` in the order of ``played``
    carries: Tensor | None  # [S, units] the memory before each sequence; None: sequences are whole chains
    old: Tensor  # [R] log-probabilities under the weights that played
    advantage: Tensor  # [R]
    target: Tensor  # [R] of the critic, as returns

    def of(self, tasks: Tensor) -> Credit:
        """Of some tasks [k] int64; ``whole`` stays."""
        played, rows, sequences = self.played.of(tasks)
        carries = None if self.carries is None else self.carries[sequences]
        old, advantage, target = (part[rows] for part in (self.old, self.advantage, self.target))
        return Credit(played, self.whole, self.rows[rows], carries, old, advantage, target)


@dataclass(frozen=True)
class Chain:
    """The trajectories of each player with a memory on every task, from its first episode to its last.

    Attributes:
        policies: per role.
        episodes: per role its episodes in order, each [1, T, tasks, ...]: one set of weights on all tasks.
        objectives: per role, the settings of the loss.
        seed: seed of the loss's random numbers.
        shots: number of parts of the chain whose returns are told apart.
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
        parts = {role: _parts(chain, self.shots) for role, chain in self.episodes.items()}
        return [
            {role: torch.stack([data.returns.flatten() for data in own[shot]]).mean(0) for role, own in parts.items()}
            for shot in range(self.shots)
        ]

    def seen(self) -> Iterator[tuple[Role, Trajectories]]:
        """All trajectories, episode by episode."""
        for episodes in zip(*self.episodes.values(), strict=True):
            yield from zip(self.episodes, episodes, strict=True)

    def credit(
        self, role: Role, weights: Weights, value_scale: float, episode_discount: float, truncation: int = 0
    ) -> Credit:
        """What a player's steps earned, under the weights that played.

        Args:
            role: the player.
            weights: [1, ...] each.
            value_scale: the deviation that the critic's values are in.
            episode_discount: gamma from the last step of an episode to the first of the next; within episodes it is the loss's.
            truncation: inputs of a segment through which gradients go back; 0: the whole chain.
        """
        loss, policy, played = self.objectives[role], self.policies[role], self._played[role]
        with torch.no_grad():
            prepared = policy.prepare(weights)
            hidden = policy.over_chain(prepared, played)
            old = self._head(role, prepared, played, hidden)[0]
            value = policy.value(prepared, played.given.unsqueeze(0), hidden)[0] * value_scale
        reward = played.pick(self._joined[role].reward)
        factor = torch.where(played.last, value.new_full((), episode_discount), value.new_full((), loss.discount))
        gae_lambda = CRITIC_LAMBDA if loss.gae_lambda is None else loss.gae_lambda
        advantage = chain_advantages(reward, value, factor, played.ends, played.sizes, gae_lambda)
        target = advantage + value
        if loss.normalise:
            own = advantage[~played.ends]
            advantage = (advantage - own.mean()) / (own.std(correction=0) + 1e-8)
        every = torch.arange(len(old), dtype=torch.int64, device=old.device)
        found = Credit(played, played, every, None, old, advantage, target)
        if not truncation:
            return found
        cut, rows = played.cut(truncation)
        carries = _before(cut, hidden[0])
        return Credit(cut, played, rows, carries, old[rows], advantage[rows], target[rows])

    @torch.no_grad()
    def refreshed(self, role: Role, weights: Weights, credit: Credit) -> Credit:
        """The same with the memories before each segment that the present weights have."""
        policy = self.policies[role]
        hidden = policy.over_chain(policy.prepare(weights), credit.whole)
        return credit._replace(carries=_before(credit.played, hidden[0]))

    def loss(
        self,
        role: Role,
        weights: Weights,
        credit: Credit,
        value_scale: float,
        clip: float,
        value_coefficient: float,
        entropy: float,
    ) -> Tensor:
        """The loss [] of a player's weights [1, ...], see ``ppo_loss``, on the steps of ``credit``; values are divided by
        ``value_scale``.
        """
        policy, played = self.policies[role], credit.played
        prepared = policy.prepare(weights)
        hidden = policy.over_chain(prepared, played, credit.carries)
        log_prob, spread = self._head(role, prepared, played, hidden)
        value = policy.value(prepared, played.given.unsqueeze(0), hidden)[0]
        target = credit.target / value_scale
        return ppo_loss(
            log_prob,
            credit.old,
            credit.advantage,
            value,
            target,
            spread,
            ~played.ends,
            clip,
            value_coefficient,
            entropy,
        )

    def predictions(
        self, players: Players, draw: int, tasks: Mapping[Role, Tensor] | None = None
    ) -> dict[Role, Tensor]:
        """Per role the prediction loss [] of its belief, at a few steps of the chain, which depend on ``draw``; on some ``tasks``
        alone, or on all.
        """
        result = {}
        for role, data in self._joined.items():
            policy, played = self.policies[role], self._played[role]
            if tasks is not None:
                played = played.of(tasks[role])[0]
            prepared = policy.prepare(players[role])
            hidden = policy.over_chain(prepared, played)
            result[role] = policy.prediction_loss(prepared, data, played, hidden, self.seed + draw)
        return result

    def batches(self, role: Role, number: int, draw: int) -> list[Tensor]:
        """A player's tasks in ``number`` parts at random, [k] int64 each; the order depends on ``draw``."""
        generator = torch.Generator().manual_seed((self.seed + draw) % (1 << 63))
        tasks = self.episodes[role][0].reward.shape[2]
        return list(torch.randperm(tasks, generator=generator, dtype=torch.int64, device="cpu").tensor_split(number))

    @cached_property
    def _joined(self) -> dict[Role, Trajectories]:
        """Per role all episodes, concatenated along the time axis."""
        return {role: join(chain) for role, chain in self.episodes.items()}

    @cached_property
    def _played(self) -> dict[Role, Played]:
        """Per role the inputs of its chains."""
        return {role: self.policies[role].played(chain) for role, chain in self.episodes.items()}

    def _head(self, role: Role, prepared: Weights, played: Played, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities [R] of the actions taken, and the policy's entropies [R]."""
        policy = self.policies[role]
        head = policy.head(prepared, policy.read(prepared, played.given.unsqueeze(0), hidden))
        action = played.pick(self._joined[role].action).unsqueeze(0)
        return head.log_prob(action)[0], head.entropy()[0]


def _parts(episodes: Sequence[Trajectories], number: int) -> list[Sequence[Trajectories]]:
    """Episodes in parts of about equal size."""
    ends = [len(episodes) * i // number for i in range(number + 1)]
    return [episodes[first:end] for first, end in itertools.pairwise(ends)]


def _before(played: Played, hidden: Tensor) -> Tensor:
    """The memories [S, units] before each sequence, of those [R, units] of whole chains; 0 where a chain begins."""
    return torch.cat([hidden, torch.zeros_like(hidden[:1])])[played.before]


@runtime_checkable
class ChainProblem(Problem, Protocol):
    """A problem that plays episodes one after another with memories that last.

    Attributes:
        episodes: episodes of a shot.
    """

    episodes: int

    def chain(self, players: Players, episodes: int, shots: int) -> Chain:
        """Play ``episodes`` episodes, with one set of weights [1, ...] per player; returns are of ``shots`` parts of them."""
        ...
