"""ProMP: proximal meta-policy search (Rothfuss, Lee, Clavera, Asfour and Abbeel, ICLR 2019).

    inner step   theta_i' = theta - a grad L_LR(theta_i),  L_LR = - sum_t (pi_theta / pi_old) A
    outer loss   L_clip(theta_i') + eta KL(pi_old, pi_theta), mean over tasks

Every sample serves several outer steps. At the first, the ratios are 1, and it is MAML with the LVC surrogate. The others use the
same data, with ratios to the players that drew them; the ratios of the query are clipped. The divergence of each player from its
old self counts at every shot that is adapted from.

Order: second. Biased as LVC is. Limits: the surrogate must be ``lvc``; not with ``peer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.learner import Gradients, Learner, Update
from metaduel.meta.learners.maml import MAML, MAMLConfig, Unrolled, after_adaptation
from metaduel.meta.problems.problem import Tasks, parts_of

Shot = TypeVar("Shot")


@dataclass(frozen=True)
class ProMPConfig(MAMLConfig):
    """MAML's settings, and

    Attributes:
        outer_steps: outer steps on every sample.
        clip: the query's ratio is clipped to [1 - clip, 1 + clip].
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


class ProMP(Learner):
    """See the module.

    Args:
        start: initial weights per adapting player.
        config: settings.
        heads: see ``MAML``.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: ProMPConfig,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
    ) -> None:
        self.config = config
        self.maml = MAML(start, config, heads, partial(proximal, config.kl_penalty))
        self.starts, self.parts, self.inner = self.maml.starts, self.maml.parts, self.maml.inner

    def counted(self, history: list[Shot]) -> list[Shot]:
        """See ``Learner``."""
        return self.maml.counted(history)

    def gradients(self, problem: Tasks) -> Gradients:
        """See ``MAML.gradients``."""
        return self.maml.gradients(problem)

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """``outer_steps`` outer steps on a set of tasks; the metrics are the last one's."""
        gradients, (unrolled,) = yield from self.maml.outer_gradients(problem)
        update = self.maml.outcome(self.maml.step(gradients, lr_scale), [unrolled])
        metrics = update.metrics
        if self.config.outer_steps > 1:
            replay = unrolled.replay(self.config.clip)
            for _ in range(self.config.outer_steps - 1):
                gradients, _ = yield from self.maml.outer_gradients(replay)
                metrics = metrics | self.maml.step(gradients, lr_scale)
            for part in parts_of(replay):
                part.problem.forget()  # type: ignore[attr-defined]
        return update._replace(metrics=metrics)


def proximal(penalty: float, learner: MAML, problem: Tasks) -> Work[tuple[dict[Role, Tensor], Sequence[Unrolled]]]:
    """ProMP's objective: MAML's, and in a replay the divergence at every shot that was adapted from."""
    result, (unrolled,) = yield from after_adaptation(learner, problem)
    for role in result:
        before = unrolled.losses[: learner.config.steps]
        apart = [losses.divergence[role].mean() for losses in before if role in losses.divergence]
        if apart:
            result[role] = result[role] + penalty * torch.stack(apart).mean()
    return result, [unrolled]
