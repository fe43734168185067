"""The differentiable adaptation step, for every task and player at once.

Tasks are independent rows of stacked weights, so the gradient of the summed loss holds every task's own gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metaduel.agents.policies import Weights
from metaduel.envs.errors import InvalidInputError
from metaduel.envs.spec import Role
from metaduel.meta.problem import Losses, Players, Problem


def adapt_step(
    players: Players, losses: dict[Role, Tensor], rates: dict[Role, Tensor], create_graph: bool, joint: bool = False
) -> Players:
    """One simultaneous gradient step of every player on its own loss.

    Args:
        players: stacked weights.
        losses: per role [N].
        rates: per role, the step sizes, see ``step_sizes``. They may require a gradient.
        create_graph: keep the graph through the gradients (second order) or treat them as constants (first order).
        joint: the losses depend on both players' weights, so that their sum must not be differentiated as one.

    Returns:
        The weights after the step.

    Raises:
        InvalidInputError: a weight that the loss does not depend on.
    """
    if joint:
        gradients = {role: _gradients(losses[role], players, (role,), create_graph)[role] for role in players}
    else:
        total = torch.stack([loss.sum() for loss in losses.values()]).sum()
        gradients = _gradients(total, players, tuple(players), create_graph)
    return {
        role: {
            name: value - rate * gradients[role][name]
            for (name, value), rate in zip(weights.items(), step_sizes(rates[role], weights), strict=True)
        }
        for role, weights in players.items()
    }


class Diverged(FloatingPointError):
    """Weights that an update left without finite values.

    Attributes:
        role: whose.
        tasks: in which tasks, by row.
    """

    def __init__(self, role: Role, tasks: list[int], step: int) -> None:
        super().__init__(
            f"the {role}'s weights are not finite after update {step}, in task {', '.join(map(str, tasks))}"
        )
        self.role, self.tasks = role, tasks


def check_weights(players: Players, step: int) -> None:
    """Raise ``Diverged`` for the first player with weights that are not finite after update ``step``."""
    for role, weights in players.items():
        sums = torch.stack([value.detach().reshape(len(value), -1).sum(1) for value in weights.values()]).sum(0)
        if not torch.isfinite(sums).all():
            raise Diverged(role, torch.nonzero(~torch.isfinite(sums)).flatten().tolist(), step)


def step_sizes(rates: Tensor, weights: Weights) -> list[Tensor]:
    """One step size per weight tensor, to be multiplied with its gradient.

    Args:
        rates: one for all (a scalar or [1]), one for each of the P weight tensors [P], or one for each of all D numbers in
            them [D], in the order of ``weights``.
        weights: stacked.

    Raises:
        InvalidInputError: any other number of step sizes.
    """
    sizes = [value[0].numel() for value in weights.values()]
    if rates.dim() == 0 or rates.shape[0] in (1, len(sizes)):
        return list(rates.expand(len(sizes)).unbind(0))
    if rates.shape[0] != sum(sizes):
        raise InvalidInputError(
            f"{rates.shape[0]} step sizes: must be 1, {len(sizes)} (weight tensors) or {sum(sizes)} (numbers in them)"
        )
    parts: list[Tensor] = list(torch.split(rates, sizes))
    return [part.view(value.shape[1:]) for part, value in zip(parts, weights.values(), strict=True)]


def _gradients(loss: Tensor, players: Players, roles: tuple[Role, ...], create_graph: bool) -> Players:
    named = [(role, name) for role in roles for name in players[role]]
    inputs = [players[role][name] for role, name in named]
    flat = torch.autograd.grad(loss.sum(), inputs, create_graph=create_graph, retain_graph=True, allow_unused=True)
    result: Players = {role: {} for role in roles}
    for (role, name), gradient in zip(named, flat, strict=True):
        if gradient is None:
            raise InvalidInputError(f"the {role}'s loss does not depend on its weight {name!r}: nothing to adapt")
        result[role][name] = gradient
    return result


def unroll(
    problem: Problem,
    players: Players,
    rates: dict[Role, Tensor],
    steps: int,
    second_order: bool,
    joint: bool = False,
) -> list[Losses]:
    """Adapt ``steps`` times and return the losses at every shot 0..steps.

    The data of shot k serve twice: as the test of the k-th update and as the support of the next.

    Args:
        problem: the tasks.
        players: stacked start.
        rates: per role [steps], or [steps, ...] as ``step_sizes`` takes them.
        steps: K.
        second_order: differentiate through the updates.
        joint: see ``Problem.losses``.

    Returns:
        K + 1 ``Losses``, per role [N].

    Raises:
        Diverged: weights that are not finite.
    """
    history = []
    for shot in range(steps + 1):
        losses = problem.losses(players, shot, joint)
        history.append(losses)
        if shot < steps:
            now = {role: rates[role][shot] for role in players}
            players = adapt_step(players, losses.support, now, second_order, joint)
            check_weights(players, shot + 1)
    return history
