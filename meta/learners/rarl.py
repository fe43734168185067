"""RARL: robust adversarial reinforcement learning (Pinto, Davidson, Sukthankar and Gupta, ICML 2017), which never adapts.

    repeat   N_mu iterations: theta <- theta - lr grad L_protagonist(theta, phi), the adversary's phi held fixed
             N_nu iterations: phi   <- phi   - lr grad L_adversary(theta, phi),   the protagonist's theta held fixed

The player in turn is trained on all of its tasks at once, as with method joint; the other player's own tasks are not played. The
protagonist becomes robust by its opponent: as in the paper, every task is against the other learner, unless ``learned_share`` is
set below 1.

Order: none, there is no inner step; ``steps``, ``fine_tuning_lrs`` and the loss of updates are those of validation and test, see
``joint``. Differs from the paper: an Adam step on the policy gradient instead of TRPO. Only one player moves at a time, so the
step is not optimistic. Metrics are of the player in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.joint import Joint, JointConfig
from metaduel.meta.learners.learner import Counter, Learner, Update
from metaduel.meta.learners.maml import MAMLConfig
from metaduel.meta.learners.self_play import Meeting
from metaduel.meta.problems.problem import Mixture, Tasks, parts_of, played


@dataclass(frozen=True)
class RARLConfig(JointConfig):
    """The settings of joint pretraining, and

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
        InvalidInputError: a setting of the inner step, which this method does not have.
    """
    if config.peer:
        raise InvalidInputError("peer=True: RARL has no updates to differentiate; use method maml")
    return replace(config, steps=0, second_order=False)


class RARL(Learner):
    """See the module.

    Args:
        start: initial weights of both players.
        config: settings.
        heads: unused: nothing adapts in training.

    Raises:
        InvalidInputError: only one player learns.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: RARLConfig,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
    ) -> None:
        if len(start) < 2:
            raise InvalidInputError(f"roles={list(start)}: RARL trains both players in turn; use method joint for one")
        self.config = config
        self._joint = Joint(start, config, simultaneous=False)
        self._turns = Counter("turns")
        self.starts, self.parts = self._joint.starts, (*self._joint.parts, self._turns)

    @property
    def turn(self) -> Role:
        """The player that learns in this iteration."""
        own, other = self.config.protagonist_turns, self.config.adversary_turns
        return ROLES[0] if self._turns.count % (own + other) < own else ROLES[1]

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """One step of the player in turn; see ``Learner.updating``."""
        turn = self.turn
        gradients, unrolled = yield from self._joint.drawn_gradients(tasks_of(problem, turn), [turn])
        update = self._joint.step(gradients, unrolled, lr_scale)
        self._turns.count += 1
        return update._replace(shots=[[played(batch).only([turn]) for batch in shot] for shot in update.shots])


def tasks_of(problem: Tasks, role: Role) -> Tasks:
    """A player's tasks alone."""
    parts = tuple(
        part if part.given else part._replace(problem=cast(Meeting, part.problem).of(role))
        for part in parts_of(problem)
        if role in part.learners
    )
    return parts[0].problem if len(parts) == 1 and not parts[0].given else Mixture(parts)
