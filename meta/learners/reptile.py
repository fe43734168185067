"""Reptile (Nichol, Achiam and Schulman, 2018): move the start towards the adapted weights.

    inner step   theta_i <- theta_i - a grad L(theta_i), K times on fresh data, for every task i
    outer step   along theta - mean_i theta_i^K, as if that were a gradient

Both players at once, each by its own difference. Order: first, and no query data: K batches per iteration instead of K + 1.

Limits: with K = 1 it is joint training. Step sizes cannot be learned (nothing is differentiated); they stay at ``inner_lr``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, stack
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import Diverged, adapt_step, check_weights
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.problems.problem import Batch, Part, Players, parts_of


def configure(config: MAMLConfig) -> MAMLConfig:
    """Reptile's settings.

    Raises:
        InvalidInputError: no inner step, or one through which something should flow.
    """
    if config.peer:
        raise InvalidInputError("peer=True: Reptile differentiates no update; use method maml")
    if config.steps < 1:
        raise InvalidInputError(f"steps={config.steps}: Reptile needs at least 1 update, 2 to differ from method joint")
    return replace(config, learn_inner_lr=False, second_order=False)


class Reptile(MAML):
    """See the module; everything but the outer gradient is MAML's."""

    def gradients(self, problem: Batch) -> dict[Role, tuple[Weights, Tensor]]:
        """What stands for each player's outer gradient: the mean over tasks of start - adapted; 0 for the step sizes."""
        adapted = [self._adapted(number, part) for number, part in enumerate(parts_of(problem))]
        result: dict[Role, tuple[Weights, Tensor]] = {}
        for role in dict.fromkeys(role for players in adapted for role in players):
            ends = [players[role] for players in adapted if role in players]
            gradient = {
                name: (value - torch.cat([end[name] for end in ends]).mean(0)).detach()
                for name, value in self.start[role].items()
            }
            result[role] = gradient, torch.zeros_like(self.log_rates[role])
        return result

    def _adapted(self, number: int, part: Part) -> Players:
        """The meta-learned players' weights after the last update."""
        players: Players = {
            role: stack(self.start[role], n) for role, n in part.problem.tasks.items() if role not in part.given
        } | {role: persona.weights for role, persona in part.given.items()}
        for shot in range(self.config.steps):
            players = {
                role: {name: value.detach().requires_grad_() for name, value in weights.items()}
                for role, weights in players.items()
            }
            losses = part.problem.losses(players, shot)
            rates = {
                role: torch.tensor(part.given[role].rate) if role in part.given else self.rates(role)[shot].detach()
                for role in players
            }
            players = adapt_step(players, losses.support, rates, create_graph=False)
            try:
                check_weights(players, shot + 1)
            except Diverged as error:
                error.part = number
                raise
        return {role: weights for role, weights in players.items() if role not in part.given}
