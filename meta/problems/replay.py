"""Losses on trajectories, and on trajectories that were drawn before, for weights that have moved since."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig, log_probs
from metaduel.agents.objective.losses import clipped_loss, policy_gradient_loss
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.distributions import Distribution
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Drawn, Losses, Players


def drawn(
    policies: Mapping[Role, Policy],
    losses: Mapping[Role, LossConfig],
    data: Mapping[Role, Trajectories],
    facing: Callable[[dict[Role, Tensor]], dict[Role, Tensor]] | None = None,
) -> Drawn:
    """The losses of every learner on ``data`` as a function of the players; advantages are computed once.

    Args:
        policies: per role.
        losses: per role.
        data: per role.
        facing: turns the learners' log-probabilities into those of whom each one faced, as ``joint`` losses add them: [N, T, E]
            on its own tasks, or no entry; None: the learners don't meet.
    """
    advantages = {role: losses[role].advantages(d) for role, d in data.items()}

    def evaluate(players: Players, joint: bool) -> Losses:
        own = {role: log_probs(policies[role], players[role], d) for role, d in data.items()}
        others = facing(own) if joint and facing is not None else {}
        pairs = {
            role: losses[role].losses(
                own[role] + others[role] if role in others else own[role], advantages[role], d.alive
            )
            for role, d in data.items()
        }
        support, query = ({role: pair[i] for role, pair in pairs.items()} for i in (0, 1))
        return Losses(support, query, log_prob={role: (own[role] * d.alive).sum((1, 2)) for role, d in data.items()})

    return evaluate


def _distribution(policy: Policy, weights: Weights, data: Trajectories) -> Distribution:
    """Over the actions at every step that was recorded: a batch of shape [N, T E]."""
    prepared = policy.prepare(weights)
    return policy.head(prepared, policy.over_time(prepared, data.observation).flatten(1, 2))


def _of_actions(distribution: Distribution, data: Trajectories) -> Tensor:
    return distribution.log_prob(data.action.flatten(1, 2)).view(data.reward.shape)


Kept = tuple[Players, Mapping[Role, Trajectories]]  # who played a shot, and what came of it


def keep(players: Players, data: Mapping[Role, Trajectories]) -> Kept:
    """What a ``Replay`` needs of a shot: copies, since the start's weights are moved in place."""
    return {r: {n: value.detach().clone() for n, value in weights.items()} for r, weights in players.items()}, data


class _Shot(NamedTuple):
    """What one player played at one shot, and whatever of it stays the same when the players move."""

    weights: Weights  # who played
    data: Trajectories
    before: Distribution  # over the actions then
    support: Tensor  # advantages [N, T, E]
    query: Tensor  # advantages [N, T, E]

    def part(self, policy: Policy, share: float) -> _Shot:
        """The first episodes of every task."""
        n = max(1, math.ceil(share * self.query.shape[2]))
        data = Trajectories(*(field[:, :, :n].contiguous() for field in self.data[:4]))
        before = _distribution(policy, self.weights, data)
        return _Shot(self.weights, data, before, self.support[:, :, :n], self.query[:, :, :n])


class Replay:
    """A problem on data that has been drawn already, not clipped; see ``Sampled.replay``.

    Args:
        policies: per role.
        losses: per role, how trajectories become a loss; the surrogate must be ``lvc``.
        kept: every shot, see ``keep``.
        tasks: number of tasks per learner.

    Raises:
        InvalidInputError: another surrogate.
    """

    def __init__(
        self,
        policies: Mapping[Role, Policy],
        losses: Mapping[Role, LossConfig],
        kept: Sequence[Kept],
        tasks: dict[Role, int],
    ) -> None:
        for loss in losses.values():
            if loss.kind != "lvc":
                raise InvalidInputError(f"surrogate={loss.kind!r} must be 'lvc' where data are used more than once")
        self.policies, self._losses, self.tasks = policies, losses, tasks
        self._clip: float | None = None
        with torch.no_grad():
            self._shots = [
                {role: self._shot(role, players[role], d) for role, d in data.items()} for players, data in kept
            ]

    def _shot(self, role: Role, weights: Weights, data: Trajectories) -> _Shot:
        loss, before = self._losses[role], _distribution(self.policies[role], weights, data)
        return _Shot(weights, data, before, loss.support_advantages(data), loss.query_advantages(data))

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """See ``Problem.losses``."""
        if joint:
            raise InvalidInputError("peer=True: data cannot be used more than once with a total derivative")
        result = Losses({}, {}, divergence={}, coordinates={})
        for role, weights in players.items():
            then = self._shots[shot][role]
            data, alive, now = then.data, then.data.alive, _distribution(self.policies[role], weights, then.data)
            log_prob, old = _of_actions(now, data), _of_actions(then.before, data)
            result.support[role] = policy_gradient_loss(log_prob, then.support, alive, "lvc", old=old)
            if self._clip is None:
                result.query[role] = policy_gradient_loss(log_prob, then.query, alive, "lvc", old=old)
            else:
                result.query[role] = clipped_loss(log_prob, old, then.query, alive, self._clip)
            weight = alive / alive.sum((1, 2), keepdim=True)
            result.divergence[role] = (then.before.kl(now).view(alive.shape) * weight).sum((1, 2))  # type: ignore[arg-type]
            parts = now.coordinates(then.before)  # type: ignore[arg-type]
            result.coordinates[role] = (parts * weight.sqrt().flatten(1).unsqueeze(-1)).flatten(1)
        return result

    def draw(self, players: Players, shot: int) -> Drawn:
        """See ``Problem.draw``; nothing is drawn."""
        return lambda players, joint: self.losses(players, shot, joint)

    def costs(self, shot: int) -> dict[Role, Tensor]:
        """See ``Sampled.costs``: of the same data."""
        return {role: self._losses[role].cost(then.data) for role, then in self._shots[shot].items()}

    def drop(self, role: Role, tasks: list[int]) -> None:
        """Not supported: an update blew up that did not when the data were drawn.

        Raises:
            FloatingPointError: always.
        """
        raise FloatingPointError(
            f"the {role}'s updates in task {', '.join(map(str, tasks))} blew up on data used again"
        )

    def replay(self, clip: float | None, share: float = 1.0) -> Replay:
        """See ``Sampled.replay``."""
        if not 0 < share <= 1:
            raise InvalidInputError(f"share={share!r} must be above 0 and at most 1")
        result = copy.copy(self)
        result._clip = clip
        if share < 1:
            with torch.no_grad():
                result._shots = [
                    {role: one.part(self.policies[role], share) for role, one in shot.items()} for shot in self._shots
                ]
        return result
