"""RL^2: fast reinforcement learning via slow reinforcement learning (Duan et al., 2016; Wang et al., 2016), for both players.

    memory       h <- f_theta(h, observation, previous action and reward, end of episode), from one episode into the next
    policy       pi_theta(action | h)
    outer loss   the clipped surrogate of PPO (Schulman et al., 2017) on the discounted return of a whole chain of episodes

No weight changes within a task: a player adapts by remembering, and both players do so at once. A chain (the paper's *trial*)
has as many episodes as a gradient-based method uses for ``steps`` updates and the tests: (K + 1) times ``episodes``. Credit
flows over the ends of episodes.

Order: first. Differs from the paper: a linear baseline, of the whole chain and one for all tasks.

Limits: the gradient goes back through the whole chain, so that memory grows with its length; needs a policy with a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.pieces import Chaining
from metaduel.meta.adaptation.work import Work, alone
from metaduel.meta.learners.learner import Learner, Starts, Update, adam
from metaduel.meta.learners.maml import MAMLConfig
from metaduel.meta.problems.chains import Chain, ChainProblem
from metaduel.meta.problems.problem import Tasks


@dataclass(frozen=True)
class RL2Config(MAMLConfig):
    """MAML's settings, without effect for those of the inner step except ``steps``, and

    Attributes:
        outer_steps: steps on every batch of chains.
        clip: ratios are clipped to [1 - clip, 1 + clip].
        momentum: as in MAML's settings, with PPO's usual default.
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
        InvalidInputError: a setting of the inner step, which this method does not have, or no episode to remember.
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


class RL2(Learner):
    """See the module.

    Args:
        start: initial weights per player.
        config: settings.
        heads: unused: no weight adapts.
        moves: names of the weights that these steps move; None: all.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: RL2Config,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
        moves: Callable[[str], bool] | None = None,
    ) -> None:
        self.config = config
        self.starts = Starts(start, config.outer_lr, adam(len(start), config.momentum, config.max_norm), moves)
        self.parts = (self.starts,)

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """``outer_steps`` steps on one batch of chains; see ``Learner.updating``."""
        chain = yield from self.chain(problem)
        return Update(self.learn(chain, lr_scale), chain=chain)

    def chain(self, problem: Tasks) -> Work[Chain]:
        """The chain of (K + 1) times ``episodes`` episodes of each task, one after another.

        Raises:
            InvalidInputError: a problem without episodes.
        """
        if not isinstance(problem, ChainProblem):
            raise InvalidInputError(
                f"{type(problem).__name__}: a memory that lasts over episodes is not supported here"
            )
        chain: Chain = yield Chaining(problem, self.starts.once(), self.config.steps + 1)
        return chain

    def learn(self, chain: Chain, lr_scale: float) -> dict[str, float]:
        """Take the steps; returns metrics by name."""
        metrics: dict[str, float] = {}
        before = chain.log_probs(self.starts.once())
        for _ in range(self.config.outer_steps):
            losses = chain.losses(self.starts.once(), before, self.config.clip)
            for role, gradient in alone(self.starts.gradients(losses)).items():
                metrics |= self.starts.step(role, gradient, lr_scale)
        return metrics
