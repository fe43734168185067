"""The steps that were played, packed: networks and fits compute them alone, and not the steps after an episode's end."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.distributions import Distribution
from metaduel.agents.policies.groups import ROWS, Group, even_groups
from metaduel.agents.trajectories import Trajectories

# A group costs the time of about this many rows, and so it takes in the next shorter task as long as the rows that make up for
# the difference are fewer.
SPARE = 128


class Steps(NamedTuple):
    """Where the played steps of [N, T, E] are. Rows are those of one group of tasks after another; within a group, each task has
    as many rows as its longest, the rest being steps that were not played.
    """

    shape: tuple[int, int, int]  # N, T, E
    groups: tuple[Group, ...]
    index: Tensor | None  # [R] int64, each row's place among all N T E steps; None: all steps were played, in their order
    played: Tensor  # [R] 1 or 0

    @classmethod
    def of(cls, alive: Tensor) -> Steps:
        """The steps with ``alive`` [N, T, E] 1, and not 0."""
        n, steps, episodes = alive.shape
        flat, every = alive.reshape(n, -1) > 0, steps * episodes
        counts = flat.sum(1).tolist()
        if min(counts) == every:
            return cls((n, steps, episodes), even_groups(n, every), None, alive.reshape(-1))
        groups = _groups(counts, alive.device)
        order = _played_first(flat)
        rows = [
            (group.tasks.unsqueeze(1) * every + order[group.tasks, : group.length]).flatten()
            for group in groups
            if isinstance(group.tasks, Tensor)
        ]
        index = torch.cat(rows)
        return cls((n, steps, episodes), groups, index, alive.reshape(-1)[index])

    @property
    def time(self) -> Tensor:
        """The number of each row's step, [R] int64."""
        _, steps, episodes = self.shape
        if self.index is not None:
            return self.index % (steps * episodes) // episodes
        every = torch.arange(steps, dtype=torch.int64, device=self.played.device)
        return every.view(1, -1, 1).expand(self.shape).flatten()

    def pack(self, field: Tensor) -> Tensor:
        """Rows [R, ...] of a field [N, T, E, ...]."""
        flat = field.flatten(0, 2)
        return flat if self.index is None else flat.index_select(0, self.index)

    def unpack(self, rows: Tensor) -> Tensor:
        """[N, T, E] of rows [R], 0 where not played."""
        if self.index is None:
            return rows.view(self.shape)
        whole = rows.new_zeros(self.shape).flatten()
        return whole.scatter(0, self.index, rows * self.played).view(self.shape)


def _groups(counts: list[int], device: torch.device) -> tuple[Group, ...]:
    """Groups of tasks of similar counts, the longest first."""
    order = sorted(range(len(counts)), key=lambda task: -counts[task])
    groups: list[Group] = []
    members: list[int] = []
    first = spare = 0

    def close() -> int:
        length = max(counts[members[0]], 1)
        groups.append(Group(torch.tensor(members, dtype=torch.int64, device=device), first, len(members), length))
        return len(members) * length

    for task in order:
        if members:
            longest = counts[members[0]]
            spare += longest - counts[task]
            if spare > SPARE or (len(members) + 1) * longest > ROWS:
                first += close()
                members, spare = [], 0
        members.append(task)
    close()
    return tuple(groups)


def _played_first(played: Tensor) -> Tensor:
    """Per task the numbers of its steps, those that were played first, in their order: [N, T E] int64 for [N, T E] bool."""
    here = played.cumsum(1)
    place = torch.where(played, here, here[:, -1:] + (~played).cumsum(1)) - 1
    numbers = torch.arange(played.shape[1], dtype=torch.int64, device=played.device)
    return torch.empty_like(place).scatter_(1, place, numbers.expand_as(place))


def distribution(policy: Policy, weights: Weights, steps: Steps, observation: Tensor) -> Distribution:
    """Distributions over the actions at packed observations [R, d], with a graph to the stacked weights: a batch of shape [R, 1]."""
    return policy.at_rows(policy.prepare(weights), observation, steps.groups)


def log_probs(policy: Policy, weights: Weights, data: Trajectories) -> Tensor:
    """Log-probabilities [N, T, E] of the actions taken, with a graph to the weights; 0 where no action was, if the policy's
    outputs can be computed one by one.
    """
    if not policy.by_row:
        return policy.log_prob(policy.prepare(weights), data.observation, data.action)
    steps = Steps.of(data.alive)
    at = distribution(policy, weights, steps, steps.pack(data.observation))
    return steps.unpack(at.log_prob(steps.pack(data.action).unsqueeze(1)).squeeze(1))
