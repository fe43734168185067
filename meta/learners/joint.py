"""Joint pretraining: one policy for all tasks, without an inner step. The no-adaptation baseline.

    outer step   theta <- theta - lr grad mean_i L_i(theta)

It gets the same number of episodes per iteration as a method with K updates: all shots' episodes at once. Order: first.

It is fine-tuned on a new task, so validation fine-tunes it: every learner adapts by ``steps`` plain gradient steps at each rate
of a grid. The score of a checkpoint is that of the best rate, which the checkpoint keeps. Training otherwise goes on long after
the weights have lost their plasticity: the best return before an update is not the best after it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.arguments import several
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import FIRST_ORDER, Diverged
from metaduel.meta.adaptation.pieces import Unrolling
from metaduel.meta.adaptation.work import Work, alone
from metaduel.meta.learners.learner import Gradients, Learner, Skipped, Starts, Update, adam, as_learners_saw
from metaduel.meta.learners.maml import MAMLConfig, Unrolled
from metaduel.meta.problems.problem import Players, Tasks, join, parts_of


@dataclass(frozen=True)
class JointConfig(MAMLConfig):
    """MAML's settings, without effect for those of the outer step's derivative and the step sizes, and

    Attributes:
        steps: K, updates in validation, and batches of episodes per outer step less one; 0: validated as it is.
        adapts: the weights that fine-tuning changes: ``all``, or those of the ``head`` alone.
        fine_tuning_lrs: step sizes that are tried at every validation; each is that of all updates.
    """

    fine_tuning_lrs: tuple[float, ...] = (0.1, 0.3, 1.0, 2.5, 6.0, 15.0, 40.0, 100.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = tuple(several(self.fine_tuning_lrs))
        if not rates or not all(isinstance(rate, int | float) and 0 < rate < math.inf for rate in rates):
            raise InvalidInputError(
                f"fine_tuning_lrs={self.fine_tuning_lrs!r} must be finite numbers above 0, at least one"
            )
        object.__setattr__(self, "fine_tuning_lrs", tuple(map(float, rates)))


def configure(config: MAMLConfig) -> MAMLConfig:
    """The settings of joint pretraining."""
    return replace(config, steps=0, second_order=False, peer=False)


class Joint(Learner):
    """See the module.

    Args:
        start: initial weights per player.
        config: settings.
        heads: unused: nothing adapts in training.
        simultaneous: both players move in an outer step.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: MAMLConfig,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
        simultaneous: bool = True,
    ) -> None:
        self.config = config
        optimiser = adam(len(start), config.momentum, config.max_norm, simultaneous)
        self.starts = Starts(start, config.outer_lr, optimiser)
        self.skipped = Skipped(config.max_skipped)
        self.parts = (self.skipped, self.starts)

    def gradients(self, problem: Tasks) -> Gradients:
        """Each player's gradient of its mean loss; there are no step sizes."""
        gradients, _ = alone(self._gradients(problem))
        return {role: (gradient, self.rates(role)) for role, gradient in gradients.items()}

    def drawn_gradients(self, problem: Tasks, moving: Collection[Role] | None = None) -> Work[tuple[Players, Unrolled]]:
        """``gradients``, and the batches that they come from; tasks with weights that are not finite are left out.

        Args:
            problem: the tasks.
            moving: the players that need a gradient; None: all.

        Raises:
            FloatingPointError: a gradient that is not finite.
        """
        return (yield from self.skipped.run(problem, lambda tasks: self._gradients(tasks, moving)))

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """See ``Learner``."""
        gradients, unrolled = yield from self.drawn_gradients(problem)
        return self.step(gradients, unrolled, lr_scale)

    def step(self, gradients: Players, unrolled: Unrolled, lr_scale: float) -> Update:
        """Move the players along given gradients."""
        metrics: dict[str, float] = {}
        for role, gradient in gradients.items():
            metrics |= self.starts.step(role, gradient, lr_scale)
        metrics["skipped_tasks"] = float(self.skipped.count)
        shots = as_learners_saw(unrolled.parts, unrolled.batches)
        return Update(metrics, shots, unrolled.losses, abandoned_steps=self.skipped.abandoned_steps)

    def _gradients(self, problem: Tasks, moving: Collection[Role] | None = None) -> Work[tuple[Players, Unrolled]]:
        histories, batches = [], []
        then = (Joint, None if moving is None else tuple(moving))
        for number, part in enumerate(parts_of(problem)):
            players = {role: self.starts.stacked(role, part.problem.tasks[role]) for role in part.learners}
            players |= {role: persona.weights for role, persona in part.given.items()}
            try:
                start = self.starts.shared(players, part)
                history, drawn = yield Unrolling(part.problem, players, {}, 0, FIRST_ORDER, start=start, then=then)
            except Diverged as error:
                error.part = number
                raise
            histories.append([losses.of(part.learners) for losses in history] if part.given else history)
            batches.append(drawn)
        unrolled = Unrolled(join(histories), parts_of(problem), batches)
        query = unrolled.losses[0].query
        losses = {role: query[role].mean() for role in query if moving is None or role in moving}
        return (yield from self.starts.gradients(losses)), unrolled
