"""The outer optimiser: Adam where one player learns, optimistic Adam where two do."""

from __future__ import annotations

import torch
from torch import Tensor

from metaduel.agents.runtime import torch_defaults

Named = dict[str, Tensor]


class OuterOptimiser:
    """Adam over named tensors, with its whole state as named tensors.

    Simultaneous plain steps of two players cycle around an equilibrium. With ``optimistic`` each step is extrapolated: it
    moves by 2 d_t - d_{t-1}, where d_t is Adam's own step (optimistic Adam; Daskalakis et al., ICLR 2018, algorithm 1).

    Args:
        params: leaves that are updated in place.
        lr: step size.
        optimistic: extrapolate.
        momentum: Adam's first coefficient.
        max_norm: gradients are scaled down to this global norm first.
        eps: what Adam adds to its divisor.
    """

    def __init__(
        self, params: Named, lr: float, optimistic: bool, momentum: float, max_norm: float, eps: float = 1e-8
    ) -> None:
        self.params, self.lr, self.optimistic, self.max_norm = params, lr, optimistic, max_norm
        self._adam = torch.optim.Adam(list(params.values()), lr=lr, betas=(momentum, 0.999), eps=eps)
        self._previous: Named = {}

    @torch.no_grad()
    def step(self, gradients: Named, lr_scale: float = 1.0) -> float:
        """Take a step and return the gradients' global norm before clipping."""
        norm = float(torch.sqrt(torch.stack([(g * g).sum() for g in gradients.values()]).sum()))
        shrink = min(1.0, self.max_norm / (norm + 1e-12))
        before = {name: param.clone() for name, param in self.params.items()} if self.optimistic else {}
        for name, param in self.params.items():
            param.grad = gradients[name] * shrink
        for group in self._adam.param_groups:
            group["lr"] = self.lr * lr_scale
        with torch_defaults():  # it counts its steps in tensors
            self._adam.step()
        for name, start in before.items():
            moved = self.params[name] - start
            self.params[name].add_(moved - self._previous.get(name, moved))
            self._previous[name] = moved
        return norm

    def state(self) -> Named:
        """All that ``load`` needs, by name."""
        state = {f"previous/{name}": value for name, value in self._previous.items()} if self.optimistic else {}
        for name, param in self.params.items():
            state |= {f"{key}/{name}": value for key, value in self._adam.state.get(param, {}).items()}
        return state

    def load(self, state: Named) -> None:
        """Continue from ``state``."""
        self._previous = {n: state[f"previous/{n}"].clone() for n in self.params if f"previous/{n}" in state}
        for name, param in self.params.items():
            if f"step/{name}" in state:
                kept = {key: state[f"{key}/{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
                self._adam.state[param] = kept
