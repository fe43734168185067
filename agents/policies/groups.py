"""Rows of inputs in groups: a network computes a group at a time, while its numbers are in the cache.

The rows belong to sets of weights. A set is one task's, or one for many tasks, which start from the same weights; then its rows
are too many for a group, and are cut into several.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Rows of a group: with 64 units of 4 bytes, a tensor of 1 MiB, and a handful of them are in use at a time. Half and twice as many
# cost the same; with fewer, the operations' own overhead grows (1024: 10 % more), with many more, they leave the cache (32 MiB),
# and products cost 1.3 times, elementwise operations twice as much.
ROWS = 4096


class Group(NamedTuple):
    """Rows that go through the network together: some of each of several sets of weights."""

    sets: slice | Tensor  # of the stacked weights; a tensor: [n] int64
    first: int  # its first row
    n: int
    length: int  # rows of each set, next to each other
    start: int = 0  # number of the first of them among the set's own rows; earlier groups hold those before it

    def of(self, rows: Tensor) -> Tensor:
        """The group's part of all rows [R, k]: [n, length, k], a view."""
        return rows[self.first : self.first + self.n * self.length].view(self.n, self.length, -1)

    def put(self, totals: Tensor, sums: Tensor) -> None:
        """Put sums over the group's rows [n, ...] into the totals of all sets, which hold those of earlier groups."""
        if self.start:
            totals[self.sets] += sums
        else:
            totals[self.sets] = sums


def even_groups(sets: int, length: int) -> tuple[Group, ...]:
    """Groups for ``length`` rows of every set, set after set."""
    if length > ROWS:
        return tuple(part for i in range(sets) for part in parts(slice(i, i + 1), i * length, length))
    size = max(1, ROWS // max(length, 1))
    starts = range(0, sets, size)
    return tuple(Group(slice(i, i + size), i * length, min(size, sets - i), length) for i in starts)


def parts(one: slice, first: int, length: int) -> tuple[Group, ...]:
    """The ``length`` rows of one set, from row ``first`` on, in groups of nearly equal size."""
    size = math.ceil(length / math.ceil(length / ROWS))
    return tuple(Group(one, first + i, 1, min(size, length - i), i) for i in range(0, length, size))


def spread(values: Tensor, groups: tuple[Group, ...]) -> Tensor:
    """Each set's own of stacked values [n, k] in all of its rows: [R, k], differentiable any number of times."""
    result: Tensor = _Spread.apply(groups, values)  # type: ignore[no-untyped-call]
    return result


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, groups: tuple[Group, ...], values: Tensor) -> Tensor:
        ctx.groups, ctx.sets = groups, len(values)
        out = values.new_empty(sum(group.n * group.length for group in groups), values.shape[-1])
        for group in groups:
            group.of(out).copy_(values[group.sets].unsqueeze(1))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _Collect.apply(ctx.groups, ctx.sets, gradient)  # type: ignore[no-untyped-call]


class _Collect(torch.autograd.Function):
    """Sums over the rows of each set: the transpose of ``_Spread``."""

    @staticmethod
    def forward(ctx: Any, groups: tuple[Group, ...], sets: int, rows: Tensor) -> Tensor:
        ctx.groups = groups
        out, rows = rows.new_empty(sets, rows.shape[-1]), rows.contiguous()
        for group in groups:
            group.put(out, group.of(rows).sum(1))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, spread(gradient, ctx.groups)
