"""Mean and variance of players' observations, gathered during play."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class RunningStatistics:
    """Mean and variance over batches of any size, as if all had been one (Chan, Golub and LeVeque, 1979), in float64.

    Args:
        size: d.
    """

    def __init__(self, size: int) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device="cpu")  # steps seen
        self.mean = torch.zeros(size, dtype=torch.float64, device="cpu")  # [d]
        self.squares = torch.zeros(size, dtype=torch.float64, device="cpu")  # [d] sum of squared distances to the mean

    def add(self, observation: Tensor, alive: Tensor) -> None:
        """Include the steps that were played.

        Args:
            observation: [N, T, E, d or more]; numbers after the first d (a memory's other inputs) are left out.
            alive: [N, T, E] 1 or 0.
        """
        seen = observation[..., : len(self.mean)][alive > 0].double()  # [steps, d]
        if not len(seen):
            return
        mean = seen.mean(0)
        total, apart = self.count + len(seen), mean - self.mean
        self.squares = self.squares + (seen - mean).square().sum(0) + apart.square() * self.count * len(seen) / total
        self.mean = self.mean + apart * len(seen) / total
        self.count = total

    @property
    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """Mean [d] and standard deviation [d], see ``Policy.statistics``; None before the first observation."""
        return (self.mean, torch.sqrt(self.squares / self.count)) if self.count > 0 else None

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs to continue from here."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state``."""
        self.count, self.mean, self.squares = (state[name].clone() for name in ("count", "mean", "squares"))
