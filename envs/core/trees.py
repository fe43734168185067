"""Trees of tensors: NamedTuples of tensors, perhaps nested."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Tree = TypeVar("Tree")


def tree_map(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply ``function`` to the tensors of (nested) NamedTuples of the same shape; None stays None."""
    if tree is None:
        return tree
    if isinstance(tree, Tensor):
        return function(tree, *others)  # type: ignore[return-value]
    leaves = (tree_map(function, *parts) for parts in zip(tree, *others, strict=True))  # type: ignore[call-overload]
    return type(tree)(*leaves)


def select_rows(mask: Tensor, yes: Tree, no: Tree) -> Tree:
    """Take rows of ``yes`` where ``mask`` ([B] bool) holds, of ``no`` elsewhere."""
    return tree_map(lambda a, b: torch.where(mask.view(-1, *([1] * (a.dim() - 1))), a, b), yes, no)


def take_rows(tree: Tree, index: Tensor | slice) -> Tree:
    """Take the rows at ``index``."""
    if tree is None:
        return tree
    if isinstance(tree, Tensor):
        return tree[index]  # type: ignore[return-value]
    # As ``tree_map``, but quicker: rollouts do this at every step.
    parts = [part[index] if isinstance(part, Tensor) else take_rows(part, index) for part in tree]  # type: ignore[attr-defined]
    return type(tree)(*parts)
