"""The memory of updates: the graph between the losses and their derivatives."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from metaduel.meta.problems.problem import Problem


def held(learner: Any, problem: Problem) -> int:
    """Bytes that the graph of the outer losses keeps for its derivatives."""
    alive: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def keep(tensor: Tensor) -> _Kept:
        kept = _Kept(tensor.detach())  # with its graph it would hold itself
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        losses = learner.outer_losses(problem)
    storages = [kept.tensor.untyped_storage() for kept in alive]
    total = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    del losses  # until here it held the graph
    return total


class _Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
