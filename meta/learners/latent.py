"""A belief about task and opponent, for both players: VariBAD (Zintgraf et al., ICLR 2020), with the other's actions as in LIAM
(Papoudakis, Christianos and Albrecht, NeurIPS 2021).

    belief       q(z | h) from a memory h of all that was seen, done and got, from one episode of a task into the next
    policy       pi_theta(action | observation, mean and deviation of q), trained as RL^2's; its gradient stops at the belief
    memory       trained to predict rewards and the other's actions from z, at any step of the chain (see ``agents.latent``)

In every iteration the policy takes its steps first, on the beliefs that it acted with, and the memory takes its own after that:
moved together, new beliefs would turn the ratios of PPO into noise.

Order: first. Differs from VariBAD: no buffer of older chains; observations are not predicted. Limits: as RL^2's.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.agents.policies.latent import PREDICTING
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.learners.maml import MAMLConfig, below
from metaduel.meta.learners.rl2 import RL2
from metaduel.meta.problems.chains import Chain


class Latent(RL2):
    """See the module."""

    def __init__(
        self, start: Mapping[Role, Weights], config: MAMLConfig, heads: Mapping[Role, tuple[str, ...]] | None = None
    ) -> None:
        super().__init__(start, config, heads)
        parts = {
            role: [
                {n: v for n, v in weights.items() if (n.split(".")[0] in PREDICTING) == predicts} for predicts in (0, 1)
            ]
            for role, weights in self.start.items()
        }
        self._optimisers = {
            role: self.outer_optimiser(acting, self.config.outer_lr) for role, (acting, _) in parts.items()
        }
        self._predictors = {
            role: OuterOptimiser(predicting, self.config.outer_lr, False, 0.9, self.config.max_norm)
            for role, (_, predicting) in parts.items()
        }

    def learn(self, chain: Chain, lr_scale: float) -> dict[str, float]:
        """The policy's steps, then the memory's; returns metrics by name."""
        metrics = super().learn(chain, lr_scale)
        for step in range(self.config.outer_steps):
            for role, loss in chain.predictions(self._players(), step).items():
                self._descend(role, self._predictors[role], loss, lr_scale)
                metrics[f"{role}/prediction_loss"] = float(loss.detach())
        return metrics

    def state(self) -> dict[str, Tensor]:
        """See ``MAML.state``."""
        state = super().state()
        for role, optimiser in self._predictors.items():
            state |= {f"{role}/predictor/{name}": value for name, value in optimiser.state().items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``MAML.load``."""
        super().load(state)
        for role, optimiser in self._predictors.items():
            optimiser.load(below(state, f"{role}/predictor/"))
