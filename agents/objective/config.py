"""From trajectories to a loss: the settings, and the losses that they define."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from metaduel.agents.objective.baselines import fit_linear
from metaduel.agents.objective.losses import SURROGATES, Surrogate, policy_gradient_loss
from metaduel.agents.objective.packing import Index, log_probs
from metaduel.agents.objective.returns import discounted_returns, gae, normalise, spread
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.spec import Role


@dataclass(frozen=True)
class LossConfig:
    """Settings of the loss; the objective is the return within the horizon.

    Attributes:
        surrogate: see ``agents.objective.losses``; None: the method's own choice, ``lvc`` where it has none.
        discount: gamma of the query's returns and advantages.
        inner_discount: gamma of the support's. An update from a few episodes has little data; where rewards are dense, a
            shorter horizon makes it less noisy.
        adversary_inner_discount: the adversary's ``inner_discount``, where its rewards come later or sooner than the
            protagonist's; None: the same. `metaduel signal` measures which discount and clip an update can use, per role.
        gae_lambda: lambda of the advantages; None: 1, or 0.95 in methods with a critic.
        baseline: the query's linear baseline and normalisation: fitted per ``task``, or once for the whole ``batch`` of
            tasks, which is better with few episodes per task (see ``fit_linear``).
        inner_baseline: fit a linear baseline to the support, always per task; without it, advantages are
            discounted returns, shifted and scaled if ``normalise``.
        normalise: scale advantages to mean 0 and standard deviation 1.
        inner_clip: the support's normalised advantages are clipped to [-inner_clip, inner_clip]: in a few episodes one rare
            large reward would outweigh all others. 0: not clipped; otherwise it needs ``normalise``.
        adversary_inner_clip: the adversary's ``inner_clip``; None: the same.
        exact_discount: weigh step t by discount^t, as the derivative of the discounted return does. Otherwise all steps
            have the same weight, which is usual, but is not the derivative of any objective.
    """

    surrogate: Surrogate | None = None
    discount: float = 0.99
    inner_discount: float = 0.99
    adversary_inner_discount: float | None = None
    gae_lambda: float | None = None
    baseline: Literal["task", "batch"] = "task"
    inner_baseline: bool = True
    normalise: bool = True
    inner_clip: float = 0.0
    adversary_inner_clip: float | None = None
    exact_discount: bool = False

    def __post_init__(self) -> None:
        if self.surrogate is not None and self.surrogate not in SURROGATES:
            raise unknown("surrogate", self.surrogate, SURROGATES)
        for name in ("discount", "inner_discount", "adversary_inner_discount", "gae_lambda"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise InvalidInputError(f"{name}={getattr(self, name)!r} must be in [0, 1]")
        for name in ("inner_clip", "adversary_inner_clip"):
            clip = getattr(self, name)
            if clip is not None and (not clip >= 0 or (clip and not self.normalise)):
                raise InvalidInputError(f"{name}={clip!r} must be at least 0, and 0 without normalise")

    @property
    def kind(self) -> Surrogate:
        """The surrogate, ``lvc`` where none is named."""
        return self.surrogate or "lvc"

    def of(self, role: Role) -> LossConfig:
        """The settings of one role: those of the adversary alone are merged, or left out."""
        discount, clip = self.adversary_inner_discount, self.adversary_inner_clip
        if discount is None and clip is None:
            return self
        if role == "protagonist":
            discount = clip = None
        return replace(
            self,
            inner_discount=self.inner_discount if discount is None else discount,
            inner_clip=self.inner_clip if clip is None else clip,
            adversary_inner_discount=None,
            adversary_inner_clip=None,
        )

    def support_advantages(self, data: Trajectories, index: Index | None = None) -> Tensor:
        """Advantages for the update within each task: [N, T, E]. ``index``: of the data, if it is known."""
        advantage = self._advantages(data, self.inner_discount, index, self.inner_baseline)
        advantage = self._scaled(advantage, data.alive, self.inner_discount)
        return advantage.clamp(-self.inner_clip, self.inner_clip) if self.inner_clip else advantage

    def query_advantages(
        self, data: Trajectories, runs: Sequence[int] | None = None, index: Index | None = None
    ) -> Tensor:
        """Advantages for the outer objective: [N, T, E].

        Args:
            data: the trajectories.
            runs: number of tasks of each run, run after run: what is for the whole batch of tasks is for each run's. None: one.
            index: of the data, if it is known.
        """
        shared = self._shared([data.reward.shape[0]] if runs is None else runs)
        advantage = self._advantages(data, self.discount, index, shared=shared)
        return self._scaled(advantage, data.alive, self.discount, shared)

    def _shared(self, runs: Sequence[int]) -> Sequence[int]:
        """Numbers of tasks that have one baseline; none: each has its own."""
        return runs if self.baseline == "batch" else ()

    def _advantages(
        self, data: Trajectories, discount: float, index: Index | None, fit: bool = True, shared: Sequence[int] = ()
    ) -> Tensor:
        returns = discounted_returns(data.reward, discount)
        if not fit:
            return returns
        value = fit_linear(data.observation, returns, data.alive, shared, index)
        return gae(data.reward, value, data.alive, discount, 1.0 if self.gae_lambda is None else self.gae_lambda)

    def _scaled(self, advantage: Tensor, alive: Tensor, discount: float, shared: Sequence[int] = ()) -> Tensor:
        if self.normalise:
            advantage = normalise(advantage, alive, shared)
        if self.exact_discount:
            time = torch.arange(advantage.shape[1], dtype=advantage.dtype, device=advantage.device)
            advantage = advantage * (discount**time).view(1, -1, 1)
        return advantage

    def cost(self, data: Trajectories, horizon: int, index: Index | None = None) -> Tensor:
        """See ``Played.costs``: [N]. The baseline is the other tasks' mean; a single task has none. The divisor is one for
        all tasks: each task's own would credit its batches for the spread of what follows.

        Args:
            data: the trajectories.
            horizon: the most steps that an episode can have.
            index: of the data, if it is known.
        """
        cost = -discounted_returns(data.reward, self.discount)[:, 0].mean(1) / horizon
        if self.normalise:
            own = self._advantages(data, self.discount, index, shared=self._shared([len(cost)]))
            cost = cost / spread(own, data.alive, [len(cost)])
        return (cost - cost.mean()) * len(cost) / (len(cost) - 1) if len(cost) > 1 else cost

    def advantages(
        self, data: Trajectories, runs: Sequence[int] | None = None, index: Index | None = None
    ) -> tuple[Tensor, Tensor]:
        """Advantages of support and query, [N, T, E] each; the same tensor where they are the same function. ``runs`` and
        ``index``: see ``query_advantages``.
        """
        support = self.support_advantages(data, index)
        return support, support if self._one_loss else self.query_advantages(data, runs, index)

    def evaluate(self, policy: Policy, weights: Weights, data: Trajectories, horizon: int) -> tuple[Tensor, Tensor]:
        """The support and query losses [N] of stacked weights on their own trajectories; ``horizon``: see ``losses``."""
        index = Index(data.alive)
        advantages = self.advantages(data, index=index)
        return self.losses(log_probs(policy, weights, data, index), advantages, data.alive, horizon)

    def losses(
        self, log_prob: Tensor, advantages: tuple[Tensor, Tensor], alive: Tensor, horizon: int
    ) -> tuple[Tensor, Tensor]:
        """The support and query losses [N].

        Args:
            log_prob: the player's own, [N, T, E], or the sum over both players where the gradient through the other's sampling
                is wanted too.
            advantages: of support and query.
            alive: [N, T, E] 1 or 0.
            horizon: the most steps that an episode can have; losses are per step of it.
        """
        support = policy_gradient_loss(log_prob, advantages[0], alive, self.kind, horizon)
        if advantages[1] is advantages[0]:
            return support, support
        return support, policy_gradient_loss(log_prob, advantages[1], alive, self.kind, horizon)

    @property
    def _one_loss(self) -> bool:
        """Whether support and query are the same function of the trajectories."""
        same_fit = self.inner_baseline and self.baseline == "task"
        return same_fit and self.inner_discount == self.discount and not self.inner_clip


def advantages_of(
    losses: Sequence[LossConfig], data: Trajectories, counts: Sequence[int], index: Index | None = None
) -> tuple[Tensor, Tensor]:
    """Advantages of support and query of several runs, see ``LossConfig.advantages``.

    Args:
        losses: of each run.
        data: of all runs, whose tasks are run after run.
        counts: number of tasks of each run.
        index: of the data, if it is known.
    """
    if all(loss == losses[0] for loss in losses):
        return losses[0].advantages(data, counts, index)
    ends = itertools.accumulate(counts)
    own = [loss.advantages(data.rows(slice(end - n, end))) for loss, end, n in zip(losses, ends, counts, strict=True)]
    support = torch.cat([pair[0] for pair in own])
    same = all(pair[1] is pair[0] for pair in own)
    return support, support if same else torch.cat([pair[1] for pair in own])
