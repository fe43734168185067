"""Rows of inputs in groups of tasks: a network computes a group at a time, while its numbers are in the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Rows of a group: with 64 units of 4 bytes, a tensor of 1 MiB, and a handful of them are in use at a time. Half and twice as many
# cost the same; with fewer, the operations' own overhead grows (1024: 10 % more), with many more, they leave the cache (32 MiB),
# and products cost 1.3 times, elementwise operations twice as much.
ROWS = 4096


class Group(NamedTuple):
    """Tasks that go through the network together."""

    tasks: slice | Tensor  # of the stacked weights; a tensor: [n] int64
    first: int  # its first row
    n: int
    length: int  # rows of each task, next to each other

    def of(self, rows: Tensor) -> Tensor:
        """The group's part of all rows [R, k]: [n, length, k], a view."""
        return rows[self.first : self.first + self.n * self.length].view(self.n, self.length, -1)


def even_groups(tasks: int, length: int) -> tuple[Group, ...]:
    """Groups for ``length`` rows of every task, task after task."""
    size = max(1, ROWS // max(length, 1))
    starts = range(0, tasks, size)
    return tuple(Group(slice(i, i + size), i * length, min(size, tasks - i), length) for i in starts)


def spread(values: Tensor, groups: tuple[Group, ...]) -> Tensor:
    """Each task's own of stacked values [N, k] in all of its rows: [R, k], differentiable any number of times."""
    result: Tensor = _Spread.apply(groups, values)  # type: ignore[no-untyped-call]
    return result


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, groups: tuple[Group, ...], values: Tensor) -> Tensor:
        ctx.groups, ctx.tasks = groups, len(values)
        out = values.new_empty(sum(group.n * group.length for group in groups), values.shape[-1])
        for group in groups:
            group.of(out).copy_(values[group.tasks].unsqueeze(1))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _Collect.apply(ctx.groups, ctx.tasks, gradient)  # type: ignore[no-untyped-call]


class _Collect(torch.autograd.Function):
    """Sums over the rows of each task: the transpose of ``_Spread``."""

    @staticmethod
    def forward(ctx: Any, groups: tuple[Group, ...], tasks: int, rows: Tensor) -> Tensor:
        ctx.groups = groups
        out, rows = rows.new_empty(tasks, rows.shape[-1]), rows.contiguous()
        for group in groups:
            out[group.tasks] = group.of(rows).sum(1)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, spread(gradient, ctx.groups)
