"""Gradients of sampled batches: their bias, beside the deviation by chance."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.packing import Index
from metaduel.agents.policies.base import stack
from metaduel.agents.trajectories import Trajectories
from metaduel.benchmarks.tools.enumerated import GAME, TASKS, AllTrajectories
from metaduel.benchmarks.tools.proofs.cases import DISCOUNT, Case
from metaduel.benchmarks.tools.proofs.gradients import declared
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.adaptation.inner import Through, unroll
from metaduel.meta.learners.learner import Learner
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.problem import Losses, Players, Problem

SAMPLED_HORIZON, ROWS = 2, 200_000  # of sampled episodes; how many are played at once
FEW, MANY = 20, 100_000  # episodes of a batch
SMALLER = 100  # batches of 1000 for the standard error of a batch of MANY


class NoBaseline(LossConfig):
    """Settings whose advantages are discounted returns, in the query, too."""

    def _advantages(
        self, data: Trajectories, discount: float, index: Index | None, fit: bool = True, shared: Sequence[int] = ()
    ) -> Tensor:
        return super()._advantages(data, discount, index, fit=False)


def estimates(
    case: Case, steps: int, episodes: int, repeats: int, seed: int = 0, baseline: bool = True
) -> dict[Role, Tensor]:
    """Sampled gradients of the start, advantages not normalised.

    Args:
        case: a case of MAML's kind.
        steps: K.
        episodes: episodes in a batch: per task and shot.
        repeats: number of gradients.
        seed: seed of all noise.
        baseline: fit the usual linear baseline to every batch.

    Returns:
        Per role [repeats, D].
    """
    learner, found = case.learner(steps), {role: list[Tensor]() for role in ROLES}
    kind = LossConfig if baseline else NoBaseline
    loss = kind(case.surrogate, DISCOUNT, DISCOUNT, normalise=False, exact_discount=True)
    policies = AllTrajectories(horizon=1).policies
    duel, at_once = Duel(GAME, SAMPLED_HORIZON, dtype=torch.float64), max(1, ROWS // (episodes * len(TASKS)))
    for done in range(0, repeats, at_once):
        n = min(at_once, repeats - done)
        matchups = Matchups(TASKS.repeat(n, 1), duels=n * len(TASKS))
        for number_of, roles in enumerate([ROLES] if case.flow.own else [(role,) for role in ROLES]):
            problem = DuelProblem(
                duel, policies, matchups, episodes, derive_seed(seed, episodes, done, number_of), loss
            )
            for role, rows in row_gradients(learner, problem, roles).items():
                found[role].append(rows.view(n, len(TASKS), -1).mean(1))
    return {role: torch.cat(parts) for role, parts in found.items()}


def row_gradients(learner: Any, problem: Problem, roles: Collection[Role] = ROLES) -> dict[Role, Tensor]:
    """Each task's own outer gradient [N, D] with respect to its start, for learners that share MAML's outer loss.

    Args:
        learner: the learner.
        problem: a problem in which learners meet only each other.
        roles: the players; a single one for LOLA, where the player itself does not update.
    """
    players: Players = {
        role: {n: v.detach().clone().requires_grad_() for n, v in stack(weights, problem.tasks[role]).items()}
        for role, weights in learner.start.items()
    }
    config, rates = learner.config, {role: learner.rates(role).detach() for role in players}
    still = "own" not in getattr(config, "terms", ("own",))
    moving = [role for role in ROLES if role not in roles] if still else None
    through = Through(config.second_order, config.peer)
    history, _ = unroll(problem, players, rates, config.steps, through, moving)
    result = {}
    for role in roles:
        loss = outer_loss(learner, role, history) * problem.tasks[role]
        parts = torch.autograd.grad(loss, list(players[role].values()), retain_graph=True)
        result[role] = torch.cat([part.flatten(1) for part in parts], 1)
    return result


def outer_loss(learner: Learner, role: Role, history: list[Losses]) -> Tensor:
    """A player's mean loss over the shots that training counts."""
    return torch.stack([losses.query[role].mean() for losses in learner.counted(history)]).mean()


class Sampled(NamedTuple):
    """The distance of the mean of sampled gradients from the declared gradient, over both players' components."""

    bias: float  # |mean - exact| / |exact|
    error: float  # its value by chance: the standard errors' norm / |exact|
    z: float  # the largest |mean - exact| / standard error of a component


def sampled(case: Case, steps: int, episodes: int, repeats: int = 1, seed: int = 0, baseline: bool = True) -> Sampled:
    """Compare sampled gradients with the declared one; see ``estimates``.

    Standard errors are those of the repeats, or of a single batch from ``SMALLER`` of 1000 episodes.
    """
    exact = declared(case, steps, game=AllTrajectories(case.surrogate, SAMPLED_HORIZON, DISCOUNT))
    wanted = torch.cat([exact[role].start for role in ROLES])
    every = _both(estimates(case, steps, episodes, repeats, seed, baseline))
    if repeats > 1:
        deviation = every.std(0) / math.sqrt(repeats)
    else:
        deviation = _both(estimates(case, steps, 1000, SMALLER, seed, baseline)).std(0) * math.sqrt(1000 / episodes)
    off, norm = every.mean(0) - wanted, float(wanted.norm())
    return Sampled(float(off.norm()) / norm, float(deviation.norm()) / norm, float((off / deviation).abs().max()))


def _both(found: Mapping[Role, Tensor]) -> Tensor:
    return torch.cat([found[role] for role in ROLES], 1)
