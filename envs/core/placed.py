"""Small tables of numbers that games and players look things up in, kept on every device where they are used."""

from __future__ import annotations

import torch
from torch import Tensor


class Placed:
    """A constant, copied to a device once. A copy at every step would have the processor wait for an accelerator every time, and
    could be no part of a CUDA graph.

    Args:
        value: the constant; it must not be changed.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        """The constant on a device, in a dtype: its own by default. The same tensor at every call."""
        key = (device, self.value.dtype if dtype is None else dtype)
        if key not in self._copies:
            self._copies[key] = self.value.to(*key)
        return self._copies[key]
