"""Personas: peers that learn during a meeting, each from a start of its own (Kim et al., ICML 2021).

A persona has no meta-learned start. One is drawn for every task, and then takes a plain policy-gradient step whenever its
opponent takes a step.

- Families that have personas of their own (``Game.personas``: the repeated matrix games, by the paper's recipe) draw tables.
  Their steps are along the discounted return, not normalised, so that a rate of 1 is the paper's.
- In every other family a persona is a freshly initialised network of the learners' kind, and learns from the learners' loss.

Personas of the splits train, validation and held_out are disjoint: no two splits share a seed.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy
from metaduel.agents.policies.tabular import TabularPolicy
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import unknown
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import Role, Split
from metaduel.meta.problems.problem import Given

AT_ONCE = 70_000  # environment steps of a batch in one problem, for a recurrent opponent of the personas: bounds memory
_SEEDS: dict[Split, Purpose] = {
    "train": Purpose.TRAIN_PERSONAS,
    "validation": Purpose.VALIDATION_PERSONAS,
    "held_out": Purpose.HELD_OUT_PERSONAS,
}


def problem_sizes(n: int, policy: Policy, steps: int) -> list[int]:
    """Sizes of the problems into which ``n`` personas are divided, with ``steps`` environment steps of a batch each, for an
    opponent with ``policy``. Graphs are freed one problem after another.
    """
    parts = min(n, -(-n * steps // AT_ONCE)) if policy.carried[0] else 1
    return [n // parts + (i < n % parts) for i in range(parts)]


class Personas:
    """The personas in one seat of a game, and their learning.

    Args:
        duel: the game.
        role: the seat.
        network: the policy of a persona where the family has none of its own.
        loss: the loss of the learners' updates.
        rate: step size of a persona's updates; None: 1 of the discounted return for a family's own personas,
            ``network_rate`` for networks.
        network_rate: the learners' own step size.

    Attributes:
        policy: the personas' policy.
        loss: the loss of their updates.
    """

    def __init__(
        self, duel: Duel, role: Role, network: Policy, loss: LossConfig, rate: float | None, network_rate: float
    ) -> None:
        self._game, self._dtype, space = duel.game, duel.dtype, duel.observation_space(role)
        self.tabular = duel.game.personas(1, 0) is not None
        if self.tabular:
            self.policy: Policy = TabularPolicy(duel.game.states, space.shape[0], duel.action_space(role))
            self.loss = replace(loss.of(role), normalise=False, inner_clip=0.0, exact_discount=True)
            # The loss is per step of the horizon, the recipe's rate is of the return.
            self.rate = (1.0 if rate is None else rate) * duel.horizon
        else:
            self.policy, self.loss = network, loss.of(role)
            self.rate = network_rate if rate is None else rate

    def sample(self, n: int, split: Split, *seeds: int) -> Given:
        """Draw the starts of ``n`` personas of a split; the same for the same seeds.

        Raises:
            InvalidInputError: a split that has no personas.
        """
        if split not in _SEEDS:
            raise unknown("split of personas", split, _SEEDS)
        seed = derive_seed(_SEEDS[split], *seeds)
        if self.tabular:
            tables = self._game.personas(n, seed)
            assert tables is not None
            return Given({"table": tables.log().to(self._dtype)}, self.rate)
        each = [self.policy.init(derive_seed(seed, i), self._dtype) for i in range(n)]
        return Given({name: torch.stack([one[name] for one in each]) for name in each[0]}, self.rate)
