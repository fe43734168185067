"""A learner's gradient in a listed game, and the gradient that its method declares, in closed form."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.benchmarks.tools.enumerated import (
    AllBatches,
    AllTrajectories,
    Flow,
    batches_loss,
    declared_loss,
    exact_chain,
)
from metaduel.benchmarks.tools.proofs.cases import HEAD, RATE, Case
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.learners.reptile import Reptile

BOUND = 1e-6  # relative error of a proof


class Gradient(NamedTuple):
    """A gradient with respect to a player's start and to its log step sizes."""

    start: Tensor  # [D]
    log_rates: Tensor  # as the learner's


def shipped(case: Case, steps: int, rate: float = RATE, game: AllTrajectories | None = None) -> dict[Role, Gradient]:
    """The learner's gradient in the listed game."""
    found = case.learner(steps, rate).gradients(game or case.problem(steps))
    return {role: Gradient(flat(weights), rates) for role, (weights, rates) in found.items()}


def declared(
    case: Case,
    steps: int,
    rate: float = RATE,
    game: AllTrajectories | None = None,
    flow: Flow | None = None,
) -> dict[Role, Gradient]:
    """The gradient that the method declares to estimate, in closed form; with another ``flow``, another method's."""
    learner, problem, result = case.learner(steps, rate), game or case.problem(steps), {}
    last = learner.config.outer_shots == "last"
    for role in ROLES:
        flats, rates, leaf, log_rates = _leaves(learner, role)
        if isinstance(problem, AllBatches):
            loss = batches_loss(problem.drawn, flats, rates, role, last)
        elif isinstance(learner, Reptile) and flow is None:
            adapted = exact_chain(problem, flats, rates, Flow(second="none"), role)[-1][role]
            result[role] = Gradient(leaf.detach() - adapted.detach().mean(0), torch.zeros_like(log_rates))
            continue
        else:
            loss = declared_loss(problem, flats, rates, flow or case.flow, role, last)
        result[role] = Gradient(*torch.autograd.grad(loss, [leaf, log_rates], materialize_grads=True))
    return result


def _leaves(learner: Any, role: Role) -> tuple[dict[Role, Tensor], dict[Role, Tensor], Tensor, Tensor]:
    """Flat weights and step sizes of both players, and the leaves of ``role`` behind them."""
    flats = {r: flat(weights).detach().requires_grad_() for r, weights in learner.start.items()}
    none = {r: flats[r].detach().new_zeros(0, 1) for r in learner.start}
    own = none if learner.inner is None else learner.inner.log_rates
    logs = {r: value.detach().clone().requires_grad_() for r, value in own.items()}
    rates = {}
    for r, weights in learner.start.items():
        sizes = torch.tensor([value.numel() for value in weights.values()], dtype=torch.int64, device="cpu")
        full = logs[r].exp()
        if full.shape[1] == len(sizes):  # one for each weight tensor
            full = full.repeat_interleave(sizes, 1)
        if learner.config.adapts == "head":
            full = full * full.new_tensor([float(name in HEAD) for name in weights]).repeat_interleave(sizes)
        rates[r] = full.expand(-1, int(sizes.sum()))
    return flats, rates, flats[role], logs[role]


def flat(weights: Weights) -> Tensor:
    """[D] of weights that are not stacked."""
    return torch.cat([value.flatten() for value in weights.values()])


def relative(ours: Tensor, exact: Tensor) -> float:
    """|ours - exact| / |exact|; 0 where both are 0."""
    return float((ours - exact).norm() / exact.norm()) if (ours != exact).any() else 0.0


def error(ours: Gradient, exact: Gradient) -> float:
    """The larger of the relative errors of the two parts."""
    return max(relative(a, b) for a, b in zip(ours, exact, strict=True))
