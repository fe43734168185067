"""RARL: robust adversarial reinforcement learning (Pinto, Davidson, Sukthankar and Gupta, ICML 2017), which never adapts.

    repeat   N_mu iterations: theta <- theta - lr grad L_protagonist(theta, phi), the adversary's phi held fixed
             N_nu iterations: phi   <- phi   - lr grad L_adversary(theta, phi),   the protagonist's theta held fixed

Both are trained on all tasks at once, as with method joint; what makes it robust is whom the protagonist meets: set
``learned_share`` to 1 for the paper's, which has no scripted opponents.

Order: none, there is no inner step. Differs from the paper: an Adam step on the policy gradient instead of TRPO. One moves while
the other stands still, so the step is not optimistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.problems.problem import Batch


@dataclass(frozen=True)
class RARLConfig(MAMLConfig):
    """MAML's settings, of which those of the inner step play no part, and

    Attributes:
        protagonist_turns: N_mu, iterations in a row that the protagonist learns.
        adversary_turns: N_nu, iterations in a row that the adversary learns.
    """

    protagonist_turns: int = 1
    adversary_turns: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("protagonist_turns", "adversary_turns"):
            check_whole(name, getattr(self, name))


def configure(config: MAMLConfig) -> MAMLConfig:
    """RARL's settings.

    Raises:
        InvalidInputError: something is to flow through updates that there are not.
    """
    if config.peer:
        raise InvalidInputError("peer=True: RARL has no updates to differentiate; use method maml")
    return replace(config, steps=0, second_order=False)


class RARL(MAML):
    """See the module.

    Raises:
        InvalidInputError: only one player learns.
    """

    config: RARLConfig
    simultaneous = False

    def __init__(
        self, start: Mapping[Role, Weights], config: MAMLConfig, heads: Mapping[Role, tuple[str, ...]] | None = None
    ) -> None:
        if len(start) < 2:
            raise InvalidInputError(f"roles={list(start)}: RARL trains both players in turn; use method joint for one")
        super().__init__(start, config, heads)
        self._done = 0

    @property
    def turn(self) -> Role:
        """Whose turn it is to learn."""
        own, other = self.config.protagonist_turns, self.config.adversary_turns
        return ROLES[0] if self._done % (own + other) < own else ROLES[1]

    def gradients(self, problem: Batch) -> dict[Role, tuple[Weights, Tensor]]:
        """The gradient of the player whose turn it is."""
        found = super().gradients(problem)
        return {self.turn: found[self.turn]}

    def update(self, problem: Batch, lr_scale: float = 1.0) -> dict[str, float]:
        """One step of one player; see ``MAML.update``."""
        metrics = super().update(problem, lr_scale)
        self._done += 1
        return metrics

    def state(self) -> dict[str, Tensor]:
        """See ``MAML.state``."""
        return super().state() | {"turns": torch.tensor(self._done)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``MAML.load``."""
        super().load(state)
        self._done = int(state["turns"])
