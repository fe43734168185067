"""E-MAML: MAML that credits the start for exploration (Stadie, Yang, Houthooft, Chen, Duan et al., 2018).

    objective    F(theta) = sum over the possible batches tau of an update of P(tau | theta) L(U(theta, tau))
    gradient     E[ grad L(U(theta, tau))  +  L(U(theta, tau)) sum over the batch of grad log pi_theta(tau) ]

The first term is MAML's, with the data of an update held fixed (surrogate ``plain``, whose second derivative is that of the
update as a function of the weights alone). The second term makes the batches that led to good adapted players more probable. It
is exact for the finite batches of an update, where LVC and DiCE estimate the gradient of an update with infinitely many episodes.

With several updates, and losses at several shots, each loss is credited to the data of all updates before it. The other player
adapts to the same batches, so that the second term also covers the effect of a player's exploration on the other's learning.

Order: second. Limits: the second term's variance grows with the number of steps per update; ``exploration`` scales the term
down, at the price of a bias; not with ``peer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.maml import MAML, MAMLConfig, Unrolled
from metaduel.meta.problems.problem import Tasks


@dataclass(frozen=True)
class EMAMLConfig(MAMLConfig):
    """MAML's settings, and

    Attributes:
        exploration: weight of the second term, above 0; 1 gives the gradient of the objective.
    """

    exploration: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.exploration < float("inf"):
            raise InvalidInputError(
                f"exploration={self.exploration!r} must be a finite number above 0; use method maml to have no second term"
            )


def configure(config: MAMLConfig) -> MAMLConfig:
    """E-MAML's settings.

    Raises:
        InvalidInputError: there is no update to explore for, or it is not differentiated.
    """
    if config.peer:
        raise InvalidInputError("peer=True: E-MAML's second term covers the other's learning already; set peer=False")
    if not config.second_order or config.steps < 1:
        name = "second_order=False" if config.steps else "steps=0"
        raise InvalidInputError(f"{name}: E-MAML differentiates at least 1 update; use method fomaml, or joint")
    if config.recompute:
        raise InvalidInputError("recompute=True: E-MAML needs what every update was made of; set recompute=False")
    return config


def explored(exploration: float, learner: MAML, problem: Tasks) -> Work[tuple[dict[Role, Tensor], Sequence[Unrolled]]]:
    """E-MAML's objective: MAML's, and ``exploration`` times the term whose gradient is that of the data's probability."""
    unrolled = yield from learner.unrolling(problem)
    history = unrolled.losses
    first = learner.config.steps if learner.config.outer_shots == "last" else 1
    result = {}
    for role in history[0].query:
        drawn = torch.stack([losses.log_prob[role] for losses in history]).cumsum(0)
        terms = [(drawn[k - 1] * unrolled.costs(role, k)).mean() for k in range(first, len(history))]
        # The start's own play has no adaptation data: where shot 0 counts, its term is 0.
        mean = torch.stack(terms).sum() / len(learner.counted(history))
        result[role] = learner.outer_loss(role, history) + exploration * mean
    return result, [unrolled]


def EMAML(
    start: Mapping[Role, Weights], config: EMAMLConfig, heads: Mapping[Role, tuple[str, ...]] | None = None
) -> MAML:
    """MAML with E-MAML's objective; see the module."""
    return MAML(start, config, heads, partial(explored, config.exploration))
