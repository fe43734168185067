"""Batches of trajectories: their losses, for the weights that played and for weights that have moved since."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig, advantages_of
from metaduel.agents.objective.losses import clipped_loss, policy_gradient_loss
from metaduel.agents.objective.packing import Actions, Index, log_probs
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.distributions import Distribution
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Batch, Losses, Players, Problem
from metaduel.meta.problems.together import counts_of

OpponentLogProbs = Callable[[dict[Role, Tensor]], dict[Role, Tensor]]
Advantages = tuple[Tensor, Tensor]  # of support and query, [N, T, E] each


@dataclass(frozen=True)
class Drawn:
    """Trajectories of one shot, see ``problem.Played``.

    Attributes:
        policies: per role.
        objectives: per role, the settings of the loss.
        players: the weights that played, see ``copies``.
        data: per learner its trajectories.
        environment_steps: steps played, both seats of a game counted once.
        horizon: the most steps that an episode can have; losses are per step of it.
        opponent_log_probs: turns the learners' log-probabilities into their opponents', which ``joint`` losses add:
            [N, T, E] on a learner's own tasks, or no entry; None: the learners don't meet.
        advantages: per learner its advantages, if they are known.
    """

    policies: Mapping[Role, Policy]
    objectives: Mapping[Role, LossConfig]
    players: Players
    data: Mapping[Role, Trajectories]
    environment_steps: int
    horizon: int
    opponent_log_probs: OpponentLogProbs | None = None
    advantages: Mapping[Role, Advantages] | None = None

    @cached_property
    def returns(self) -> dict[Role, Tensor]:
        """Per learner, mean undiscounted returns [N]."""
        return {role: data.returns.mean(1) for role, data in self.data.items()}

    @cached_property
    def _index(self) -> dict[Role, Index]:
        return {role: Index(data.alive) for role, data in self.data.items()}

    @cached_property
    def _advantages(self) -> Mapping[Role, Advantages]:
        if self.advantages is not None:
            return self.advantages
        return {
            role: self.objectives[role].advantages(data, index=self._index[role]) for role, data in self.data.items()
        }

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """See ``problem.Batch``."""
        opponents = self.opponent_log_probs if joint else None
        return _losses(self, players, self.data, self._index, self._advantages, opponents)

    def costs(self) -> dict[Role, Tensor]:
        """See ``problem.Played``."""
        return {
            role: self.objectives[role].cost(data, self.horizon, self._index[role]) for role, data in self.data.items()
        }

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
        return Replayed(self.policies, kept, clip, self.horizon, self if share == 1 else None)

    @cached_property
    def _kept(self) -> dict[Role, _Kept]:
        for role in self.data:
            if (kind := self.objectives[role].kind) != "lvc":
                raise InvalidInputError(f"surrogate={kind!r} must be 'lvc' where data are used more than once")
        return {
            role: self._of(role, data, *self._advantages[role], self._index[role]) for role, data in self.data.items()
        }

    def _part(self, role: Role, share: float) -> _Kept:
        kept = self._kept[role]
        n = max(1, math.ceil(share * kept.query.shape[2]))
        data = kept.data.map(lambda field: field[:, :, :n].contiguous())
        return self._of(role, data, kept.support[:, :, :n], kept.query[:, :, :n])

    def _of(self, role: Role, data: Trajectories, support: Tensor, query: Tensor, index: Index | None = None) -> _Kept:
        return _kept(self.policies[role], self.players[role], data, support, query, index)


class DrawnTogether:
    """Trajectories of one shot of several runs, whose tasks are run after run.

    Args:
        parts: of the runs.
        data: per learner its trajectories, of all runs.
        opponent_log_probs: see ``Drawn``, of all runs.

    Attributes:
        parts: of the runs, with their advantages.
    """

    def __init__(
        self,
        parts: Sequence[Drawn],
        data: Mapping[Role, Trajectories],
        opponent_log_probs: OpponentLogProbs | None,
    ) -> None:
        self.data, self._opponents = data, opponent_log_probs
        counts = {role: [len(part.data[role].reward) for part in parts] for role in data}
        self._index = {role: Index(one.alive) for role, one in data.items()}
        self._advantages = {
            role: advantages_of([part.objectives[role] for part in parts], one, counts[role], self._index[role])
            for role, one in data.items()
        }
        split = {role: _split(pair, counts[role]) for role, pair in self._advantages.items()}
        self.parts: Sequence[Drawn] = [
            replace(part, advantages={role: pairs[i] for role, pairs in split.items()}) for i, part in enumerate(parts)
        ]

    @property
    def environment_steps(self) -> int:
        """See ``problem.Batch``, of all runs."""
        return sum(part.environment_steps for part in self.parts)

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """See ``problem.Batch``."""
        opponents = self._opponents if joint else None
        return _losses(self.parts[0], players, self.data, self._index, self._advantages, opponents)


def _split(pair: Advantages, counts: Sequence[int]) -> list[Advantages]:
    """Advantages of all runs as those of each; support and query stay the same tensor where they are."""
    support = torch.split(pair[0], list(counts))
    query = support if pair[1] is pair[0] else torch.split(pair[1], list(counts))
    return list(zip(support, query, strict=True))


def _losses(
    drawn: Drawn,
    players: Players,
    data: Mapping[Role, Trajectories],
    index: Mapping[Role, Index],
    advantages: Mapping[Role, Advantages],
    opponent_log_probs: OpponentLogProbs | None,
) -> Losses:
    """The losses on ``data``, by the policies, settings of the loss and horizon of ``drawn``."""
    own = {role: log_probs(drawn.policies[role], players[role], one, index[role]) for role, one in data.items()}
    others = {} if opponent_log_probs is None else opponent_log_probs(own)
    pairs = {
        role: drawn.objectives[role].losses(
            own[role] + others[role] if role in others else own[role], advantages[role], one.alive, drawn.horizon
        )
        for role, one in data.items()
    }
    support, query = ({role: pair[i] for role, pair in pairs.items()} for i in (0, 1))
    log_prob = {role: (own[role] * one.alive).sum((1, 2)) for role, one in data.items()}
    return Losses(support, query, log_prob=log_prob)


class _Kept(NamedTuple):
    """A player's trajectories, and the quantities that do not change when its weights move."""

    data: Trajectories
    actions: Actions
    before: Distribution  # over the actions, under the weights that played
    old: Tensor  # the actions' log-probabilities there [N, T, E]
    support: Tensor  # advantages [N, T, E]
    query: Tensor  # advantages [N, T, E]


@torch.no_grad()
def _kept(
    policy: Policy, weights: Weights, data: Trajectories, support: Tensor, query: Tensor, index: Index | None = None
) -> _Kept:
    """What is kept of data that the weights played."""
    actions = Actions.of(policy, data, index=index)
    before = actions.distribution(weights)
    return _Kept(data, actions, before, actions.log_prob(before), support, query)


@dataclass(frozen=True)
class Replayed:
    """Losses on data that were drawn before, see ``problem.Played.replay``.

    Attributes:
        policies: per role.
        kept: per role.
        clip: bound on the distance of the query's ratio from 1; None: not clipped.
        horizon: see ``Drawn``.
        drawn: the whole of the batch, if all of it is used.
    """

    policies: Mapping[Role, Policy]
    kept: Mapping[Role, _Kept]
    clip: float | None
    horizon: int
    drawn: Drawn | None = None
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
            result.support[role] = policy_gradient_loss(log_prob, then.support, alive, "lvc", self.horizon, old=old)
            if self.clip is None:
                result.query[role] = policy_gradient_loss(log_prob, then.query, alive, "lvc", self.horizon, old=old)
            else:
                result.query[role] = clipped_loss(log_prob, old, then.query, alive, self.clip, self.horizon)
            weight = alive / alive.sum((1, 2), keepdim=True)
            apart = then.actions.whole(then.before.kl(now))  # type: ignore[arg-type]
            result.divergence[role] = (apart * weight).sum((1, 2))
            parts = then.actions.whole(now.coordinates(then.before))  # type: ignore[arg-type]
            result.coordinates[role] = (parts * weight.sqrt().unsqueeze(-1)).flatten(1)
        return result


class Replay:
    """A problem on batches that were drawn before, one per shot.

    Args:
        batches: of the shots, as ``Played.replay`` gives them.
        tasks: number of tasks per learner.
    """

    def __init__(self, batches: Sequence[Batch], tasks: dict[Role, int]) -> None:
        self.batches, self.tasks = batches, tasks
        self._together: ReplaysTogether | None = None

    @property
    def kind(self) -> Hashable | None:
        """See ``together``."""
        batch = self.batches[0]
        if not isinstance(batch, Replayed) or batch.drawn is None:
            return None
        return (Replay, batch.clip, batch.horizon, tuple((role, id(policy)) for role, policy in batch.policies.items()))

    def merge(self, problems: Sequence[Replay]) -> ReplaysTogether:
        """Several problems of its kind as one; the same one for the same problems."""
        if self._together is None or list(map(id, self._together.problems)) != list(map(id, problems)):
            self._together = ReplaysTogether(problems)
        return self._together

    def forget(self) -> None:
        """Let go of what was made together with others, which holds this problem in turn."""
        self._together = None

    def draw(self, players: Players, shot: int) -> Batch:
        """See ``Problem.draw``; nothing is drawn."""
        return self.batches[shot]

    def without(self, role: Role, tasks: Collection[int]) -> Problem:
        """Not supported: an update diverged that did not diverge when the data were drawn.

        Raises:
            FloatingPointError: always.
        """
        raise FloatingPointError(
            f"the {role}'s updates in task {', '.join(map(str, tasks))} diverged on data that are used again"
        )


class ReplaysTogether:
    """Several runs' replays as one, see ``together``.

    Args:
        problems: of equal ``kind``.
    """

    def __init__(self, problems: Sequence[Replay]) -> None:
        self.problems, self.counts = problems, counts_of(problems)
        self._again: dict[int, ReplayedTogether] = {}

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per learner, of all runs."""
        return {role: sum(counts) for role, counts in self.counts.items()}

    def draw(self, players: Players, shot: int) -> ReplayedTogether:
        """See ``Problem.draw``; nothing is drawn."""
        if shot not in self._again:
            self._again[shot] = ReplayedTogether([cast(Replayed, one.batches[shot]) for one in self.problems])
        return self._again[shot]

    def without(self, role: Role, tasks: Collection[int]) -> Problem:
        """Not supported: each run's own problem says why.

        Raises:
            TypeError: always.
        """
        raise TypeError("replays of several runs leave no tasks out")


class ReplayedTogether:
    """Losses of several runs on data that were drawn before.

    Args:
        parts: of each run.
    """

    environment_steps = 0

    def __init__(self, parts: Sequence[Replayed]) -> None:
        self.parts, first = parts, parts[0]
        steps = max(one.data.reward.shape[1] for part in parts for one in part.kept.values())
        kept = {role: _joined(parts, role, steps) for role in first.kept}
        self._all = Replayed(first.policies, kept, first.clip, first.horizon)

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """See ``problem.Batch``."""
        return self._all.losses(players, joint)


def _joined(parts: Sequence[Replayed], role: Role, steps: int) -> _Kept:
    """What several runs keep, with ``steps`` steps each."""
    own = [part.kept[role] for part in parts]

    def join(fields: Iterable[Tensor]) -> Tensor:
        return torch.cat([_lengthened(one, steps) for one in fields])

    observation, action, reward, alive = (join(fields) for fields in zip(*(one.data[:4] for one in own), strict=True))
    data = Trajectories(observation, action, reward, alive)
    support, query = join(one.support for one in own), join(one.query for one in own)
    played = [part.drawn.players[role] for part in parts if part.drawn is not None]
    weights = {name: torch.cat([one[name] for one in played]) for name in played[0]}
    return _kept(parts[0].policies[role], weights, data, support, query)


def _lengthened(field: Tensor, steps: int) -> Tensor:
    """The same with ``steps`` steps, 0 after the end."""
    missing = steps - field.shape[1]
    return field if not missing else torch.cat([field, field.new_zeros(len(field), missing, *field.shape[2:])], 1)


def spread(players: Players, tasks: Mapping[Role, int]) -> Players:
    """Sets of weights for several tasks each as one for each task; views."""
    result: Players = {}
    for role, weights in players.items():
        result[role] = {
            name: value.unsqueeze(1).expand(-1, tasks[role] // len(value), *value.shape[1:]).flatten(0, 1)
            for name, value in weights.items()
        }
    return result


def copies(players: Players) -> Players:
    """Detached copies of weights, since outer steps move a start in place."""
    return {r: {n: value.detach().clone() for n, value in weights.items()} for r, weights in players.items()}
