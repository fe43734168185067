"""A belief about task and opponent, for both players: VariBAD (Zintgraf et al., ICLR 2020), with the opponent's actions as in
LIAM (Papoudakis, Christianos and Albrecht, NeurIPS 2021).

    belief       q(z | h) from a memory h of all observations, actions and rewards on a task, over its episodes
    policy       pi_theta(action | observation, mean and deviation of q), trained as RL^2's, critic included; its gradient stops
                 at the belief
    memory       trained to predict rewards and the opponent's actions from z, at any step of the chain (see ``LatentPolicy``)

In every iteration the policy takes its steps first, on the beliefs that it acted with, and then the memory takes its own. If
both moved together, the changed beliefs would add noise to the ratios of PPO.

Order: first. Differs from VariBAD: no buffer of older chains; observations are not predicted. Limits: as RL^2's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, adapting
from metaduel.agents.policies.latent import PREDICTING
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.adaptation.rates import below
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.learner import Learner, Starts, Update, check_finite
from metaduel.meta.learners.rl2 import EPS, RL2, RL2Config
from metaduel.meta.problems.chains import Chain
from metaduel.meta.problems.problem import Tasks


class Latent(Learner):
    """See the module.

    Args:
        start: initial weights per player.
        config: settings.
        heads: unused: no weight adapts.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: RL2Config,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
    ) -> None:
        self.config = config
        self._policy = RL2(start, config, moves=lambda name: not _predicts(name))
        self.starts, self.scales = self._policy.starts, self._policy.scales
        self._beliefs = Beliefs(self.starts, config)
        self.parts = (*self._policy.parts, self._beliefs)

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """The policy's steps on one batch of chains, then the memory's; see ``Learner.updating``."""
        chain = yield from self._policy.chain(problem)
        metrics = self._policy.learn(chain, lr_scale)
        step = 0
        for epoch in range(self.config.outer_steps):
            for tasks in self._policy.batches(chain, self.config.outer_steps + epoch):
                metrics |= self._beliefs.step(chain, tasks, step, lr_scale)
                step += 1
        return Update(metrics, chain=chain)


class Beliefs:
    """The optimiser of the weights that predict.

    Args:
        starts: the players.
        config: settings.
    """

    def __init__(self, starts: Starts, config: RL2Config) -> None:
        self._starts = starts
        self._optimisers = {
            role: OuterOptimiser(
                {name: value for name, value in adapting(weights).items() if _predicts(name)},
                config.outer_lr, False, 0.9, config.max_norm, EPS,
            )
            for role, weights in starts.weights.items()
        }  # fmt: skip

    def step(self, chain: Chain, tasks: Mapping[Role, Tensor], draw: int, lr_scale: float) -> dict[str, float]:
        """One step of every player on its belief's prediction loss on some tasks; returns metrics by name."""
        metrics: dict[str, float] = {}
        for role, loss in chain.predictions(self._starts.once(), draw, tasks).items():
            optimiser = self._optimisers[role]
            flat = torch.autograd.grad(loss, list(optimiser.params.values()), materialize_grads=True)
            gradient = dict(zip(optimiser.params, flat, strict=True))
            check_finite(role, gradient)
            optimiser.step(gradient, lr_scale)
            metrics[f"{role}/prediction_loss"] = float(loss.detach())
        return metrics

    def state(self) -> dict[str, Tensor]:
        """See ``Stateful``."""
        return {
            f"{role}/predictor/{name}": value
            for role, optimiser in self._optimisers.items()
            for name, value in optimiser.state().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Stateful``."""
        for role, optimiser in self._optimisers.items():
            optimiser.load(below(state, f"{role}/predictor/"))


def _predicts(name: str) -> bool:
    """Whether a weight belongs to a layer that learns to predict; the others act."""
    return name.split(".")[0] in PREDICTING
