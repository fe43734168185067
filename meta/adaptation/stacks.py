"""Several adapters as one: the same network and loss with weights, step sizes and memories of each, in one batch.

Rows are those of a ``GameArena`` with a copy for each adapter: opponent-major, then by adapter, then by task, so that every
opponent's rows lie together and every adapter's rows of one opponent, too. Rows are independent, so that an adapter's players are
those that it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.adapters.protocol import Adapter, Experience, SeatInfo
from metaduel.agents.policies.base import Policy, Weights, adapting
from metaduel.agents.rollout import Learner
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.placed import Placed
from metaduel.meta.adaptation.adapters import (
    GradientAdapter,
    GradientPlayer,
    MemoryAdapter,
    check_size,
    support_gradient,
    support_only,
)
from metaduel.meta.adaptation.inner import moved, rate_at


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
    """Gradient adapters as one.

    Before the first update, an adapter's rows have the same weights, and adapters that differ in their step sizes alone, such as
    the trials of a grid, are one player: they share the first episodes and their gradient.

    Attributes:
        adapters: A of them, with the same network and loss.
        tasks: see ``stack_of``.
        places: the place of each adapter's start among ``starts``.
        starts: the different starts.
    """

    adapters: Sequence[GradientAdapter]
    tasks: int
    places: list[int] = field(init=False, default_factory=list)
    starts: list[Weights] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        for one in self.adapters:
            known = (i for i, start in enumerate(self.starts) if all(start[n] is one.weights[n] for n in start))
            self.places.append(next(known, len(self.starts)))
            self.starts.extend([one.weights] if self.places[-1] == len(self.starts) else [])

    def start(self, seat: SeatInfo, rows: int) -> GradientPlayer:
        """The players before the first update.

        Args:
            seat: their seat.
            rows: rows of an arena with a copy for each of the starts.

        Returns:
            A player with a set of weights for each opponent and start, [opponents * starts, ...].
        """
        policy = self.adapters[0].policy
        check_size(policy, seat)
        weights = _repeated(_stacked(self.starts), rows // (len(self.starts) * self.tasks))
        return GradientPlayer(policy, weights, horizon=seat.horizon)

    def first(self, player: GradientPlayer, experience: Experience) -> GradientPlayer:
        """The players after the first update; ``player`` and ``experience`` have the rows of the starts."""
        data = experience.play(player).map(self._by_row)
        weights = {name: value.repeat_interleave(self.tasks, 0) for name, value in player.weights.items()}
        player = replace(player, weights=weights)
        gradient = self._gradient(player, data)
        if len(self.starts) < len(self.adapters):
            player, gradient = replace(player, weights=self._of_adapters(weights)), self._of_adapters(gradient)
        return self._moved(player, gradient)

    def update(self, player: GradientPlayer, experience: Experience) -> GradientPlayer:
        """The players after an update of every adapter's rows; they count the updates of the stack."""
        return self._moved(player, self._gradient(player, experience.play(player)))

    def part(self, player: GradientPlayer, number: int) -> GradientPlayer:
        """The player of one adapter, as it would be alone, after an update."""
        own = self.adapters[number]
        weights = {
            name: value.view(-1, len(self.adapters), self.tasks, *value.shape[1:])[:, number].flatten(0, 1)
            for name, value in player.weights.items()
        }
        return replace(player, policy=own.policy, weights=weights, shot=own.shot + player.shot)

    def _gradient(self, player: GradientPlayer, data: Trajectories) -> Weights:
        return support_gradient(self.adapters[0].role, self.adapters[0].loss, player, data)

    def _moved(self, player: GradientPlayer, gradient: Weights) -> GradientPlayer:
        own = [rate_at(one.rates, one.shot + player.shot).reshape(-1) for one in self.adapters]
        count = max(len(one) for one in own)
        rates = torch.stack([_as_many(one, count, self.starts[0]) for one in own])
        rows = len(next(iter(player.weights.values())))
        return replace(player, weights=moved(player.weights, gradient, self._spread(rates, rows)), shot=player.shot + 1)

    def _by_row(self, values: Tensor) -> Tensor:
        """Trajectories [n, T, tasks * E, ...] of sets of weights as [n * tasks, T, E, ...]."""
        n, steps, _, *rest = values.shape
        return values.view(n, steps, self.tasks, -1, *rest).transpose(1, 2).flatten(0, 1)

    def _of_adapters(self, weights: Weights) -> Weights:
        """The rows of every adapter from those of its start."""
        return {
            name: value.view(-1, len(self.starts), self.tasks, *value.shape[1:])[:, self.places].flatten(0, 2)
            for name, value in weights.items()
        }

    def _spread(self, values: Tensor, rows: int) -> Tensor:
        """Each player's values [A, ...] in each of its rows: [rows, ...]."""
        count, rest = len(values), values.shape[1:]
        opponents = rows // (count * self.tasks)
        return values.view(1, count, 1, *rest).expand(opponents, count, self.tasks, *rest).reshape(rows, *rest)


@dataclass(frozen=True, repr=False)
class MemoryStack:
    """Memory adapters as one. An adapter has a set of weights for every opponent, equal ones.

    Attributes:
        adapters: A of them, with the same network.
        tasks: see ``stack_of``.
    """

    adapters: Sequence[MemoryAdapter]
    tasks: int

    @property
    def starts(self) -> list[Weights]:
        """As in ``GradientStack``: every adapter's own."""
        return [one.weights for one in self.adapters]

    @property
    def places(self) -> list[int]:
        """As in ``GradientStack``."""
        return list(range(len(self.adapters)))

    def start(self, seat: SeatInfo, rows: int) -> Learner:
        """As in ``GradientStack``."""
        policy = self.adapters[0].policy
        check_size(policy, seat)
        opponents = rows // (len(self.adapters) * self.tasks)
        carries = [self._carry(one) for one in self.adapters]
        carry = Carry(*(torch.cat(parts).repeat(opponents, 1, 1) for parts in zip(*carries, strict=True)))
        return Learner(policy, _repeated(_stacked(self.starts), opponents), carry=carry)

    def first(self, player: Learner, experience: Experience) -> Learner:
        """As in ``GradientStack``."""
        return self.update(player, experience)

    def update(self, player: Learner, experience: Experience) -> Learner:
        """As in ``GradientStack``."""
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


def _stacked(starts: Sequence[Weights]) -> Weights:
    return {name: torch.stack([one[name] for one in starts]) for name in starts[0]}


def _repeated(weights: Weights, times: int) -> Weights:
    """All sets of weights ``times`` times, one set after the other."""
    return {name: value.repeat(times, *(1 for _ in value.shape[1:])) for name, value in weights.items()}


def _as_many(rates: Tensor, count: int, weights: Weights) -> Tensor:
    """Step sizes, see ``inner.step_sizes``, as ``count`` of them: for each tensor or number of the weights that adapt."""
    if len(rates) in (1, count):
        return rates.expand(count)
    sizes = [value.numel() for value in adapting(weights).values()]
    return rates.repeat_interleave(torch.tensor(sizes, dtype=torch.int64, device=rates.device))


def _same_steps(first: GradientAdapter, second: GradientAdapter) -> bool:
    return (
        first.role == second.role
        and first.adapts == second.adapts
        and first.rates.dtype == second.rates.dtype
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
    if isinstance(first, Placed) and isinstance(second, Placed):
        return torch.equal(first.value, second.value)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(_same(*pair) for pair in zip(first, second, strict=True))
    plain = (bool, int, float, str, tuple, slice, type(None), spaces.Box, spaces.Discrete)
    return first is second or (isinstance(first, plain) and type(first) is type(second) and first == second)
