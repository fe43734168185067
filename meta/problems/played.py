"""Batches of trajectories: their losses, for the weights that played and for weights that have moved since."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.losses import clipped_loss, policy_gradient_loss
from metaduel.agents.objective.packing import Actions, log_probs
from metaduel.agents.policies.base import Policy
from metaduel.agents.policies.distributions import Distribution
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Losses, Players

OpponentLogProbs = Callable[[dict[Role, Tensor]], dict[Role, Tensor]]


@dataclass(frozen=True)
class Drawn:
    """Trajectories of one shot, see ``problem.Played``.

    Attributes:
        policies: per role.
        objectives: per role, the settings of the loss.
        players: the weights that played, see ``copies``.
        data: per learner its trajectories.
        environment_steps: steps played, both seats of a game counted once.
        opponent_log_probs: turns the learners' log-probabilities into their opponents', which ``joint`` losses add:
            [N, T, E] on a learner's own tasks, or no entry; None: the learners don't meet.
    """

    policies: Mapping[Role, Policy]
    objectives: Mapping[Role, LossConfig]
    players: Players
    data: Mapping[Role, Trajectories]
    environment_steps: int
    opponent_log_probs: OpponentLogProbs | None = None

    @cached_property
    def returns(self) -> dict[Role, Tensor]:
        """Per learner, mean undiscounted returns [N]."""
        return {role: data.returns.mean(1) for role, data in self.data.items()}

    @cached_property
    def _advantages(self) -> dict[Role, tuple[Tensor, Tensor]]:
        return {role: self.objectives[role].advantages(data) for role, data in self.data.items()}

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """See ``problem.Batch``."""
        own = {role: log_probs(self.policies[role], players[role], data) for role, data in self.data.items()}
        others = self.opponent_log_probs(own) if joint and self.opponent_log_probs is not None else {}
        pairs = {
            role: self.objectives[role].losses(
                own[role] + others[role] if role in others else own[role], self._advantages[role], data.alive
            )
            for role, data in self.data.items()
        }
        support, query = ({role: pair[i] for role, pair in pairs.items()} for i in (0, 1))
        log_prob = {role: (own[role] * data.alive).sum((1, 2)) for role, data in self.data.items()}
        return Losses(support, query, log_prob=log_prob)

    def costs(self) -> dict[Role, Tensor]:
        """See ``problem.Played``."""
        return {role: self.objectives[role].cost(data) for role, data in self.data.items()}

    def only(self, roles: Collection[Role]) -> Drawn:
        """See ``problem.Played``."""
        return replace(
            self, data={role: data for role, data in self.data.items() if role in roles}, opponent_log_probs=None
        )

    def seen(self) -> Iterator[tuple[Role, Trajectories]]:
        """See ``problem.Played``."""
        yield from self.data.items()

    @torch.no_grad()
    def replay(self, clip: float | None, share: float = 1.0) -> Replayed:
        """See ``problem.Played``.

        Raises:
            InvalidInputError: a surrogate other than ``lvc``, or a share that is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise InvalidInputError(f"share={share!r} must be above 0 and at most 1")
        kept = self._kept if share == 1 else {role: self._part(role, share) for role in self.data}
        return Replayed(self.policies, kept, clip)

    @cached_property
    def _kept(self) -> dict[Role, _Kept]:
        for role in self.data:
            if (kind := self.objectives[role].kind) != "lvc":
                raise InvalidInputError(f"surrogate={kind!r} must be 'lvc' where data are used more than once")
        return {role: self._of(role, data, *self._advantages[role]) for role, data in self.data.items()}

    def _part(self, role: Role, share: float) -> _Kept:
        kept = self._kept[role]
        n = max(1, math.ceil(share * kept.query.shape[2]))
        data = kept.data.map(lambda field: field[:, :, :n].contiguous())
        return self._of(role, data, kept.support[:, :, :n], kept.query[:, :, :n])

    def _of(self, role: Role, data: Trajectories, support: Tensor, query: Tensor) -> _Kept:
        actions = Actions.of(self.policies[role], data)
        before = actions.distribution(self.players[role])
        return _Kept(data, actions, before, actions.log_prob(before), support, query)


class _Kept(NamedTuple):
    """A player's trajectories, and the quantities that do not change when its weights move."""

    data: Trajectories
    actions: Actions
    before: Distribution  # over the actions, under the weights that played
    old: Tensor  # the actions' log-probabilities there [N, T, E]
    support: Tensor  # advantages [N, T, E]
    query: Tensor  # advantages [N, T, E]


@dataclass(frozen=True)
class Replayed:
    """Losses on data that were drawn before, see ``problem.Played.replay``.

    Attributes:
        policies: per role.
        kept: per role.
        clip: bound on the distance of the query's ratio from 1; None: not clipped.
    """

    policies: Mapping[Role, Policy]
    kept: Mapping[Role, _Kept]
    clip: float | None
    environment_steps: int = 0

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """See ``problem.Batch``.

        Raises:
            InvalidInputError: ``joint`` losses, which cannot reuse data.
        """
        if joint:
            raise InvalidInputError("peer=True: data cannot be used more than once with a total derivative")
        result = Losses({}, {}, divergence={}, coordinates={})
        for role, weights in players.items():
            then = self.kept[role]
            alive, old, now = then.data.alive, then.old, then.actions.distribution(weights)
            log_prob = then.actions.log_prob(now)
            result.support[role] = policy_gradient_loss(log_prob, then.support, alive, "lvc", old=old)
            if self.clip is None:
                result.query[role] = policy_gradient_loss(log_prob, then.query, alive, "lvc", old=old)
            else:
                result.query[role] = clipped_loss(log_prob, old, then.query, alive, self.clip)
            weight = alive / alive.sum((1, 2), keepdim=True)
            apart = then.actions.whole(then.before.kl(now))  # type: ignore[arg-type]
            result.divergence[role] = (apart * weight).sum((1, 2))
            parts = then.actions.whole(now.coordinates(then.before))  # type: ignore[arg-type]
            result.coordinates[role] = (parts * weight.sqrt().unsqueeze(-1)).flatten(1)
        return result


def copies(players: Players) -> Players:
    """Detached copies of weights, since outer steps move a start in place."""
    return {r: {n: value.detach().clone() for n, value in weights.items()} for r, weights in players.items()}
