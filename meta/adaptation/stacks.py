"""Several adapters as one: the same network and loss with weights, step sizes and memories of each, in one batch.

Rows are those of a ``GameArena`` with a copy for each adapter: opponent-major, then by adapter, then by task, so that every
opponent's rows lie together and every adapter's rows of one opponent, too. Rows are independent, so that an adapter's players are
those that it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.adapters.protocol import Adapter, Experience, SeatInfo
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.rollout import Learner
from metaduel.agents.trajectories import Carry
from metaduel.meta.adaptation.adapters import (
    GradientAdapter,
    GradientPlayer,
    MemoryAdapter,
    check_size,
    gradient_step,
    support_only,
)
from metaduel.meta.adaptation.inner import rate_at


def stack_of(adapters: Sequence[Adapter], tasks: int) -> GradientStack | MemoryStack | None:
    """The adapters as one; None: they are of different kinds, networks or losses, or of a kind that is played alone.

    Args:
        adapters: one or more.
        tasks: number of tasks, the rows of an adapter that lie together.
    """
    gradient = [one for one in adapters if type(one) is GradientAdapter]
    if len(gradient) == len(adapters):
        return GradientStack(gradient, tasks) if all(_same_steps(gradient[0], one) for one in gradient) else None
    memory = [one for one in adapters if type(one) is MemoryAdapter]
    if len(memory) == len(adapters):
        return MemoryStack(memory, tasks) if all(_same_memory(memory[0], one) for one in memory) else None
    return None


def groups(adapters: Sequence[Adapter]) -> list[list[int]]:
    """The places of adapters that can be one stack, in order of their first; others are alone."""
    found: list[list[int]] = []
    for i, adapter in enumerate(adapters):
        for group in found:
            if stack_of([adapters[group[0]], adapter], 1) is not None:
                group.append(i)
                break
        else:
            found.append([i])
    return found


@dataclass(frozen=True, repr=False)
class GradientStack:
    """Gradient adapters as one, see ``Adapter``.

    Attributes:
        adapters: A of them, with the same network, loss, and number of step sizes.
        tasks: see ``stack_of``.
    """

    adapters: Sequence[GradientAdapter]
    tasks: int
    adapts: bool = True

    def start(self, seat: SeatInfo, rows: int, seed: int) -> GradientPlayer:
        """See ``Adapter``; the player counts the updates of the stack."""
        first = self.adapters[0]
        check_size(first.policy, seat)
        weights = {name: self._spread(value, rows) for name, value in _stacked(self.adapters).items()}
        return GradientPlayer(first.policy, weights)

    def update(self, player: GradientPlayer, experience: Experience) -> GradientPlayer:
        """See ``Adapter``."""
        first, data = self.adapters[0], experience.play(player)
        rates = torch.stack([rate_at(one.rates, one.shot + player.shot).reshape(-1) for one in self.adapters])
        # A loss is per step of the longest episode of its own rows, and not of another adapter's.
        lengths = data.alive.amax(2).view(-1, len(self.adapters), self.tasks, data.alive.shape[1]).amax((0, 2)).sum(1)
        scale = self._spread(data.alive.shape[1] / lengths, experience.rows)
        return gradient_step(first.role, first.loss, player, data, self._spread(rates, experience.rows), scale)

    def part(self, player: GradientPlayer, number: int) -> GradientPlayer:
        """The player of one adapter, as it would be alone."""
        own = self.adapters[number]
        weights = {
            name: value.view(-1, len(self.adapters), self.tasks, *value.shape[1:])[:, number].flatten(0, 1)
            for name, value in player.weights.items()
        }
        return replace(player, policy=own.policy, weights=weights, shot=own.shot + player.shot)

    def _spread(self, values: Tensor, rows: int) -> Tensor:
        """Each adapter's values [A, ...] in each of its rows: [rows, ...]."""
        count, rest = len(self.adapters), values.shape[1:]
        opponents = rows // (count * self.tasks)
        wide = values.view(1, count, 1, *rest).expand(opponents, count, self.tasks, *rest)
        return wide.reshape(rows, *rest)


@dataclass(frozen=True, repr=False)
class MemoryStack:
    """Memory adapters as one, see ``Adapter``. An adapter has a set of weights for every opponent, equal ones.

    Attributes:
        adapters: A of them, with the same network.
        tasks: see ``stack_of``.
    """

    adapters: Sequence[MemoryAdapter]
    tasks: int
    adapts: bool = True

    def start(self, seat: SeatInfo, rows: int, seed: int) -> Learner:
        """See ``Adapter``."""
        policy = self.adapters[0].policy
        check_size(policy, seat)
        opponents = rows // (len(self.adapters) * self.tasks)
        starts = [self._carry(one) for one in self.adapters]
        carry = Carry(*(torch.cat(parts).repeat(opponents, 1, 1) for parts in zip(*starts, strict=True)))
        weights = {n: v.repeat(opponents, *(1 for _ in v.shape[1:])) for n, v in _stacked(self.adapters).items()}
        return Learner(policy, weights, carry=carry)

    def update(self, player: Learner, experience: Experience) -> Learner:
        """See ``Adapter``."""
        return self.adapters[0].update(player, experience)

    def part(self, player: Learner, number: int) -> Learner:
        """The player of one adapter, as it would be alone."""
        assert player.carry is not None
        count = len(self.adapters)
        weights = {name: value[number : number + 1] for name, value in player.weights.items()}
        carry = Carry(*(field[number::count].flatten(0, 1).unsqueeze(0) for field in player.carry))
        return Learner(self.adapters[number].policy, weights, carry=carry)

    def _carry(self, adapter: MemoryAdapter) -> Carry:
        """With which an adapter's tasks start: [1, tasks, ...]."""
        if adapter.carry is not None:
            return adapter.carry.repeated(self.tasks)
        return adapter.policy.initial_carry({name: v.unsqueeze(0) for name, v in adapter.weights.items()}, self.tasks)


def _stacked(adapters: Sequence[GradientAdapter] | Sequence[MemoryAdapter]) -> Weights:
    return {name: torch.stack([one.weights[name] for one in adapters]) for name in adapters[0].weights}


def _same_steps(first: GradientAdapter, second: GradientAdapter) -> bool:
    return (
        first.role == second.role
        and first.adapts == second.adapts
        and first.rates.shape[1:].numel() == second.rates.shape[1:].numel()
        and support_only(first.loss.of(first.role)) == support_only(second.loss.of(second.role))
        and _same_network(first, second)
    )


def _same_memory(first: MemoryAdapter, second: MemoryAdapter) -> bool:
    return first.adapts == second.adapts and _same_network(first, second)


def _same_network(first: GradientAdapter | MemoryAdapter, second: GradientAdapter | MemoryAdapter) -> bool:
    kinds = [[(n, v.shape, v.dtype, v.device) for n, v in one.weights.items()] for one in (first, second)]
    return kinds[0] == kinds[1] and _same_policy(first.policy, second.policy)


def _same_policy(first: Policy, second: Policy) -> bool:
    """Whether the two are the same function of weights and observations."""
    if first is second:
        return True
    own, theirs = vars(first), vars(second)
    return type(first) is type(second) and own.keys() == theirs.keys() and all(_same(own[n], theirs[n]) for n in own)


def _same(first: object, second: object) -> bool:
    """Whether two attributes are equal; objects whose equality is unknown are the same only if they are one."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    plain = (bool, int, float, str, tuple, slice, type(None), spaces.Box, spaces.Discrete)
    return first is second or (isinstance(first, plain) and type(first) is type(second) and first == second)
