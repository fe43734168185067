"""The settings that differ between the plane, characters and digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def blank(outputs: Tensor) -> Tensor:
    """Ink in [0, 1]: little where the outputs are 0, as on most of a page."""
    return torch.sigmoid(outputs - 3)


@dataclass(frozen=True)
class Kind:
    """The settings that depend on the data.

    Attributes:
        latent: d, numbers in a sample's latent.
        squash: of the generator's outputs.
        witness: share of the energy distance's witness in a verdict, see ``Forging.verdicts``.
        learners: settings by method, other than ``LEARNERS``'.
    """

    latent: int
    squash: Callable[[Tensor], Tensor]
    witness: float = 0.0
    learners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# Images need many outer steps, on few tasks each; the outer loss is then that after ten updates only.
LAST: dict[str, Any] = {"outer_shots": "last"}
WITNESSED: dict[str, Any] = {**LAST, "inner_lr": 0.1, "outer_lr": 3e-3}
KINDS = {
    "plane": Kind(4, nn.Identity()),
    "characters": Kind(8, blank, learners={"maml": LAST, "fomaml": LAST}),
    "digits": Kind(16, torch.sigmoid, witness=2.0, learners={"maml": WITNESSED, "fomaml": WITNESSED}),
}
