"""The steps that were played, packed: networks and fits compute them alone, and not the steps after an episode's end."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.distributions import Distribution
from metaduel.agents.policies.groups import ROWS, Group, even_groups, parts
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError

# A group costs the time of about this many rows, and so it takes in the next shorter set as long as the rows that make up for
# the difference are fewer.
SPARE = 256


class Steps(NamedTuple):
    """Where the played steps of [N, T, E] are, as rows of n sets of tasks, N / n consecutive tasks each. Rows are those of one
    group after another; within a group, each set has as many rows as its longest, the rest being steps that were not played.
    """

    shape: tuple[int, int, int]  # N, T, E
    groups: tuple[Group, ...]
    places: Tensor | None  # [R] int64, of each row among all N T E; None: all steps were played, and are in their order
    played: Tensor  # [R] 1 or 0

    @classmethod
    def of(cls, alive: Tensor, sets: int | None = None) -> Steps:
        """The steps with ``alive`` [N, T, E] 1, and not 0.

        Args:
            alive: of all tasks.
            sets: n; None: each task is one.

        Raises:
            InvalidInputError: a number that does not divide the number of tasks.
        """
        shape = (alive.shape[0], alive.shape[1], alive.shape[2])
        n = shape[0] if sets is None else sets
        _check_sets(n, shape[0])
        flat = alive.reshape(n, -1) > 0
        counts, every = flat.sum(1).tolist(), flat.shape[1]
        if min(counts) == every:
            return cls(shape, even_groups(n, every), None, alive.reshape(-1))
        groups = _groups(counts, alive.device)
        order = _played_first(flat)
        order = order + every * torch.arange(n, dtype=torch.int64, device=alive.device).unsqueeze(1)
        places = [order[group.sets, group.start : group.start + group.length].flatten() for group in groups]
        rows = torch.cat(places)
        return cls(shape, groups, rows, alive.reshape(-1)[rows])

    @property
    def sets(self) -> int:
        """Number of sets, n."""
        return sum(group.n for group in self.groups if not group.start)

    @property
    def time(self) -> Tensor:
        """The number of each row's step, [R] int64."""
        _, steps, episodes = self.shape
        if self.places is not None:
            return self.places % (steps * episodes) // episodes
        every = torch.arange(steps, dtype=torch.int64, device=self.played.device)
        return every.view(1, -1, 1).expand(self.shape).flatten()

    def pack(self, field: Tensor) -> Tensor:
        """Rows [R, ...] of a field [N, T, E, ...]."""
        flat = field.flatten(0, 2)
        return flat if self.places is None else flat.index_select(0, self.places)

    def unpack(self, rows: Tensor) -> Tensor:
        """[N, T, E, ...] of rows [R, ...], 0 where not played."""
        if self.places is None:
            return rows.view(*self.shape, *rows.shape[1:])
        played = self.played.view(-1, *(1 for _ in rows.shape[1:]))
        whole: Tensor = _Unpack.apply(rows * played, self.places, math.prod(self.shape))  # type: ignore[no-untyped-call]
        return whole.view(*self.shape, *rows.shape[1:])


class Index:
    """The played steps of trajectories, found once for every number of sets: losses and fits of the same data share it.

    Args:
        alive: [N, T, E] 1 or 0.
    """

    def __init__(self, alive: Tensor) -> None:
        self.alive = alive
        self._found: dict[int, Steps] = {}

    def steps(self, sets: int | None = None) -> Steps:
        """See ``Steps.of``."""
        n = self.alive.shape[0] if sets is None else sets
        if n not in self._found:
            self._found[n] = Steps.of(self.alive, n)
        return self._found[n]

    @classmethod
    def of(cls, alive: Tensor, index: Index | None) -> Index:
        """The index, or a new one for None.

        Raises:
            ValueError: the index is that of other steps.
        """
        if index is not None and index.alive is not alive:
            raise ValueError("index: of other trajectories")
        return cls(alive) if index is None else index


class _Unpack(torch.autograd.Function):
    """Rows at their places among ``size``, zeros elsewhere. Its derivative is a selection whose own derivative is this again:
    autograd's own adds row after row.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros(size, *rows.shape[1:]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _Pack.apply(gradient, index), None, None  # type: ignore[no-untyped-call]


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, index: Tensor) -> Tensor:
        ctx.size = len(whole)
        ctx.save_for_backward(index)
        return whole.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _Unpack.apply(gradient, index, ctx.size), None  # type: ignore[no-untyped-call]


def _check_sets(sets: int, others: int) -> None:
    if not 0 < sets <= others or others % sets:
        raise InvalidInputError(
            f"weights: {sets} stacked sets for {others} tasks or larger sets: the second number must be a multiple of the first"
        )


def for_sets(weights: Weights, sets: int) -> Weights:
    """Stacked weights repeated for more sets, each for as many consecutive ones as the others; gradients add up.

    Raises:
        InvalidInputError: a number of sets that is no multiple.
    """
    n = _count(weights)
    _check_sets(n, sets)
    return weights if n == sets else {name: _repeated(value, sets // n) for name, value in weights.items()}


def _repeated(value: Tensor, times: int) -> Tensor:
    return value.unsqueeze(1).expand(-1, times, *value.shape[1:]).flatten(0, 1)


def _count(weights: Weights) -> int:
    return next(iter(weights.values())).shape[0]


def _groups(counts: list[int], device: torch.device) -> tuple[Group, ...]:
    """Groups of sets of similar counts, the longest first."""
    order = sorted(range(len(counts)), key=lambda one: -counts[one])
    groups: list[Group] = []
    members: list[int] = []
    first = spare = 0
    while order and counts[order[0]] > ROWS:
        large = order.pop(0)
        groups += parts(slice(large, large + 1), first, counts[large])
        first += counts[large]

    def close() -> int:
        length = max(counts[members[0]], 1)
        groups.append(Group(torch.tensor(members, dtype=torch.int64, device=device), first, len(members), length))
        return len(members) * length

    for one in order:
        if members:
            longest = counts[members[0]]
            spare += longest - counts[one]
            if spare > SPARE or (len(members) + 1) * longest > ROWS:
                first += close()
                members, spare = [], 0
        members.append(one)
    if members:
        close()
    return tuple(groups)


def _played_first(played: Tensor) -> Tensor:
    """Per set the numbers of its steps, those that were played first, in their order: [n, k] int64 for [n, k] bool."""
    here = played.cumsum(1)
    place = torch.where(played, here, here[:, -1:] + (~played).cumsum(1)) - 1
    numbers = torch.arange(played.shape[1], dtype=torch.int64, device=played.device)
    return torch.empty_like(place).scatter_(1, place, numbers.expand_as(place))


class Actions(NamedTuple):
    """The actions in trajectories, laid out as their policy computes them: packed if it is ``by_row``, else whole episodes."""

    policy: Policy
    steps: Steps | None  # None: whole episodes
    shape: torch.Size  # N, T, E
    observation: Tensor  # [R, d], or [N, T, E, d]
    action: Tensor  # [R, 1, a], or [N, T E, a]; or without a, int64

    @classmethod
    def of(cls, policy: Policy, data: Trajectories, sets: int | None = None, index: Index | None = None) -> Actions:
        """Those of a policy's trajectories, for at most ``sets`` sets of weights, see ``distribution``; None: one for each task.
        ``index``: of the data, if it is known.

        Raises:
            InvalidInputError: a number of sets that does not divide the number of tasks.
        """
        shape = data.reward.shape
        if not policy.by_row:
            return cls(policy, None, shape, data.observation, data.action.flatten(1, 2))
        steps = Index.of(data.alive, index).steps(sets)
        return cls(policy, steps, shape, steps.pack(data.observation), steps.pack(data.action).unsqueeze(1))

    def distribution(self, weights: Weights) -> Distribution:
        """The distributions that the actions are drawn from, with a graph to the weights: [R, 1] or [N, T E].

        Args:
            weights: stacked; n sets are those of N / n consecutive tasks each.

        Raises:
            InvalidInputError: n does not divide N, or is larger than the number of sets that the rows are laid out for.
        """
        if self.steps is not None:
            prepared = self.policy.prepare(for_sets(weights, self.steps.sets))
            return self.policy.at_rows(prepared, self.observation, self.steps.groups)
        prepared = self.policy.prepare(for_sets(weights, self.shape[0]))
        return self.policy.head(prepared, self.policy.over_time(prepared, self.observation).flatten(1, 2))

    def whole(self, values: Tensor) -> Tensor:
        """[N, T, E, ...] of values of the distributions' batch; packed, they are 0 at steps that were not played."""
        if self.steps is not None:
            return self.steps.unpack(values.squeeze(1))
        return values.view(*self.shape, *values.shape[2:])

    def log_prob(self, distribution: Distribution) -> Tensor:
        """The actions' log-probabilities [N, T, E]."""
        return self.whole(distribution.log_prob(self.action))


def log_probs(policy: Policy, weights: Weights, data: Trajectories, index: Index | None = None) -> Tensor:
    """Log-probabilities [N, T, E] of the actions taken, with a graph to the weights; at steps that were not played, those of a
    policy that is ``by_row`` are 0.

    Args:
        policy: the player.
        weights: n stacked sets, of N / n consecutive tasks each: tasks that share their weights cost one large product instead
            of N / n small ones.
        data: its trajectories.
        index: of the data, if it is known.

    Raises:
        InvalidInputError: n does not divide N.
    """
    if not policy.by_row:
        prepared = policy.prepare(for_sets(weights, data.reward.shape[0]))
        return policy.log_prob(prepared, data.observation, data.action)
    actions = Actions.of(policy, data, _count(weights), index)
    return actions.log_prob(actions.distribution(weights))
