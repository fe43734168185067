"""The step sizes of a player's updates, meta-learned as logarithms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, adapting
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.problems.problem import Players

Per = Literal["step", "tensor", "number"]


class Rates:
    """Step sizes of every update: one for all weights, for each weight tensor, or for each number in them.

    Args:
        start: weights per adapting player.
        steps: K.
        inner_lr: per role, the initial value of every step size.
        per: the unit that has a step size of its own.
        heads: per player, the names of the weights that adapt; None: all adapt.

    Attributes:
        log_rates: per role, a leaf: [K, 1], [K, P] (weight tensors) or [K, D] (numbers in them).

    Raises:
        InvalidInputError: the head alone is to adapt, and a player has none.
    """

    def __init__(
        self,
        start: Players,
        steps: int,
        inner_lr: Mapping[Role, float],
        per: Per = "tensor",
        heads: Mapping[Role, tuple[str, ...]] | None = None,
    ) -> None:
        self.steps = steps
        own = {role: adapting(weights) for role, weights in start.items()}
        self.log_rates = {
            role: next(iter(weights.values()))
            .new_full((steps, _count(weights, per)), math.log(inner_lr[role]))
            .requires_grad_()
            for role, weights in own.items()
        }
        self._masks = {} if heads is None else {r: _mask(r, w, heads.get(r, ()), per) for r, w in own.items()}
        self._optimisers: dict[Role, OuterOptimiser] = {}

    def learn_with(self, optimisers: Mapping[Role, OuterOptimiser]) -> None:
        """Let optimisers over {"log_rates": ...} move the logarithms."""
        self._optimisers = dict(optimisers)

    def of(self, role: Role) -> Tensor:
        """The player's step sizes, shaped as its ``log_rates``; 0 for weights that don't adapt ([K, P] at least, then)."""
        rates = torch.exp(self.log_rates[role])
        return rates * self._masks[role] if role in self._masks else rates

    def step(self, role: Role, gradient: Tensor, lr_scale: float) -> dict[str, float]:
        """Move the step sizes, if they are learned; returns them as metrics."""
        if role in self._optimisers:
            self._optimisers[role].step({"log_rates": gradient}, lr_scale)
        rates = self.log_rates[role].mean(1).exp().tolist()
        return {f"{role}/inner_lr_{k + 1}": rate for k, rate in enumerate(rates)}

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs, by name."""
        state = {f"{role}/log_rates": rates.detach() for role, rates in self.log_rates.items()}
        for role, optimiser in self._optimisers.items():
            state |= {f"{role}/rate_outer/{name}": value for name, value in optimiser.state().items()}
        return state

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state``."""
        for role, rates in self.log_rates.items():
            rates.copy_(state[f"{role}/log_rates"])
        for role, optimiser in self._optimisers.items():
            optimiser.load(below(state, f"{role}/rate_outer/"))


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors in ``state`` whose names begin with ``prefix``, by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _count(weights: Weights, per: Per) -> int:
    """Number of step sizes of an update."""
    return {"step": 1, "tensor": len(weights), "number": sum(value.numel() for value in weights.values())}[per]


def _mask(role: Role, weights: Weights, head: tuple[str, ...], per: Per) -> Tensor:
    """1 for weights of the head, else 0: per weight tensor, or per number."""
    if not head:
        raise InvalidInputError(
            f"adapts='head': the {role}'s policy has no head of its own; use method maml, which adapts all weights"
        )
    mask = next(iter(weights.values())).new_tensor([float(name in head) for name in weights])
    if per != "number":
        return mask
    return mask.repeat_interleave(mask.new_tensor([value.numel() for value in weights.values()], dtype=torch.int64))
