"""RL^2: fast reinforcement learning via slow reinforcement learning (Duan et al., 2016; Wang et al., 2016), for both players.

    memory       h <- f_theta(h, observation, previous action and reward, end of episode), from one episode into the next
    policy       pi_theta(action | h)
    outer loss   the clipped surrogate of PPO (Schulman et al., 2017) on the discounted return of a whole chain of episodes

Nothing in the weights changes within a task: a player adapts by remembering, and both players do so at once, each with the
other's in its memory. A chain has as many episodes as ``steps`` updates and a test after each of them have in the gradient-based
methods: (K + 1) times ``episodes``. Credit flows over the ends of episodes.

Order: first. Differs from the paper: a linear baseline, of the whole chain and one for all tasks.

Limits: the gradient goes back through the whole chain, so that memory grows with its length; needs a policy with a memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.learners.maml import MAML, MAMLConfig, check_finite
from metaduel.meta.problems.chains import Chain, ChainProblem
from metaduel.meta.problems.problem import Batch


@dataclass(frozen=True)
class RL2Config(MAMLConfig):
    """MAML's settings, of which those of the inner step play no part but for ``steps``, and

    Attributes:
        outer_steps: steps on every batch of chains.
        clip: ratios count within [1 - clip, 1 + clip].
        momentum: as in MAML's settings, with PPO's usual one.
    """

    outer_steps: int = 5
    clip: float = 0.2
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("outer_steps", self.outer_steps)
        if not 0 < self.clip < 1:
            raise InvalidInputError(f"clip={self.clip!r} must be between 0 and 1")


def configure(config: MAMLConfig) -> MAMLConfig:
    """RL^2's settings.

    Raises:
        InvalidInputError: something is to flow through updates that there are not, or no episode to remember.
    """
    if config.peer:
        raise InvalidInputError("peer=True: there is no update to differentiate; use method maml")
    if config.steps < 1:
        raise InvalidInputError(
            f"steps={config.steps}: must be at least 1, or there is nothing to remember; see method joint"
        )
    if config.adapts != "all":
        raise InvalidInputError(f"adapts={config.adapts!r}: no weight adapts, a memory does; use method anil")
    if config.recompute:
        raise InvalidInputError("recompute=True: there is no update whose graph could be built again; leave it out")
    return replace(config, learn_inner_lr=False, inner_lr_per="step", adapts="all", second_order=False)


class RL2(MAML):
    """See the module."""

    config: RL2Config

    def update(self, problem: Batch, lr_scale: float = 1.0) -> dict[str, float]:
        """``outer_steps`` steps on one batch of chains; returns metrics by name."""
        if not isinstance(problem, ChainProblem):
            raise InvalidInputError(
                f"{type(problem).__name__}: a memory that lasts over episodes is not supported here"
            )
        return self.learn(problem.chain(self._players(), self.config.steps + 1), lr_scale)

    def learn(self, chain: Chain, lr_scale: float) -> dict[str, float]:
        """Take the steps; returns metrics by name."""
        before, metrics = chain.log_probs(self._players()), {}
        for _ in range(self.config.outer_steps):
            for role, loss in chain.losses(self._players(), before, self.config.clip).items():
                metrics[f"{role}/gradient_norm"] = self._descend(role, self._optimisers[role], loss, lr_scale)
        return metrics

    def _players(self) -> dict[Role, Weights]:
        return {role: {n: value.unsqueeze(0) for n, value in weights.items()} for role, weights in self.start.items()}

    @staticmethod
    def _descend(role: Role, optimiser: OuterOptimiser, loss: Tensor, lr_scale: float) -> float:
        """One step of a player's optimiser on a loss; returns the gradient's norm."""
        flat = torch.autograd.grad(loss, list(optimiser.params.values()), materialize_grads=True)
        gradient = dict(zip(optimiser.params, flat, strict=True))
        check_finite(role, gradient)
        return optimiser.step(gradient, lr_scale)
