"""ProMP: proximal meta-policy search (Rothfuss, Lee, Clavera, Asfour and Abbeel, ICLR 2019).

    inner step   theta_i' = theta - a grad L_LR(theta_i),  L_LR = - sum_t (pi_theta / pi_old) A
    outer loss   L_clip(theta_i') + eta KL(pi_old, pi_theta), mean over tasks

Several outer steps on every sample: the first one where it was drawn (the ratios are 1, and it is MAML with the LVC surrogate),
the others on the same data with ratios to the players that drew them, those of the query clipped. The divergence counts at every
shot that is adapted from, each player against its own old self.

Order: second. Biased as LVC is. Limits: the surrogate must be ``lvc``; not with ``peer``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import Role
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.problems.problem import Batch, Losses, Mixture, sampled


@dataclass(frozen=True)
class ProMPConfig(MAMLConfig):
    """MAML's settings, and

    Attributes:
        outer_steps: outer steps on every sample.
        clip: the query's ratio counts within [1 - clip, 1 + clip].
        kl_penalty: eta.
    """

    outer_steps: int = 5
    clip: float = 0.3
    kl_penalty: float = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("outer_steps", self.outer_steps)
        if not 0 < self.clip < 1:
            raise InvalidInputError(f"clip={self.clip!r} must be between 0 and 1")
        if not self.kl_penalty >= 0:
            raise InvalidInputError(f"kl_penalty={self.kl_penalty!r} must be at least 0")
        if self.peer:
            raise InvalidInputError("peer=True: ProMP uses data several times, each player for itself; use method maml")


class ProMP(MAML):
    """See the module."""

    config: ProMPConfig

    def outer_loss(self, role: Role, history: list[Losses]) -> Tensor:
        """MAML's, and the divergence at every shot that was adapted from, in a replay."""
        loss = super().outer_loss(role, history)
        apart = [losses.divergence[role].mean() for losses in history[: self.config.steps] if role in losses.divergence]
        return loss + self.config.kl_penalty * torch.stack(apart).mean() if apart else loss

    def update(self, problem: Batch, lr_scale: float = 1.0) -> dict[str, float]:
        """``outer_steps`` outer steps on a batch of tasks; returns the last one's metrics by name."""
        metrics = super().update(problem, lr_scale)
        if self.config.outer_steps > 1:
            whole = problem if isinstance(problem, Mixture) else sampled(problem)
            replay = whole.replay(self.config.clip)
            for _ in range(self.config.outer_steps - 1):
                metrics = super().update(replay, lr_scale)
        return metrics
