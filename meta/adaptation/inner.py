"""The differentiable adaptation step, for every task and player at once, and its derivatives.

Tasks are independent rows of stacked weights, so the gradient of the summed loss holds every task's own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaduel.agents.policies.base import Weights, adapting
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Batch, Losses, Players, Problem


@dataclass(frozen=True)
class Through:
    """Settings of the derivative of the loss after adaptation.

    Attributes:
        second_order: differentiate through the player's own updates; otherwise their gradients are constants.
        joint: the total derivative, through the other player's updates too.
        recompute: keep only each shot's weights and data, and build its graph again in the backward pass: the memory of one
            shot's graph instead of K, for one more evaluation and first-order gradient of every shot.
    """

    second_order: bool = True
    joint: bool = False
    recompute: bool = False


OWN, TOTAL, FIRST_ORDER = Through(), Through(joint=True), Through(second_order=False)


def adapt_step(
    players: Players,
    losses: Mapping[Role, Tensor],
    rates: Mapping[Role, Tensor],
    create_graph: bool,
    joint: bool = False,
    moving: Collection[Role] | None = None,
) -> Players:
    """One simultaneous gradient step of every player on its own loss.

    Args:
        players: stacked weights; those that never adapt (``fixed.``) stay as they are.
        losses: per role [N].
        rates: per role, the step sizes, see ``step_sizes``. They may require a gradient.
        create_graph: keep the graph through the gradients (second order) or treat them as constants (first order).
        joint: the losses depend on both players' weights, so that their sum must not be differentiated as one.
        moving: the roles that step; the others' weights stay as they are. None: all.

    Returns:
        The weights after the step.

    Raises:
        InvalidInputError: a weight that the loss does not depend on.
    """
    steppers = tuple(role for role in players if moving is None or role in moving)
    if joint:
        found = {role: gradients(losses[role], players, (role,), create_graph)[role] for role in steppers}
    else:
        total = torch.stack([losses[role].sum() for role in steppers]).sum()
        found = gradients(total, players, steppers, create_graph)
    return dict(players) | {role: moved(players[role], found[role], rates[role]) for role in steppers}


def moved(weights: Weights, gradient: Weights, rates: Tensor) -> Weights:
    """Stacked weights after a step along their gradient, see ``step_sizes``; those that never adapt stay as they are."""
    own = adapting(weights)
    sizes = step_sizes(rates, own)
    return weights | {n: v - rate * gradient[n] for (n, v), rate in zip(own.items(), sizes, strict=True)}


class Diverged(FloatingPointError):
    """Weights that are not finite after an update.

    Attributes:
        role: the player.
        tasks: the tasks, by row.
        step: number of the update.
        part: in a mixture, the number of the problem.
        batches: the abandoned batches of that problem.
        environment_steps: environment steps of all abandoned batches.
    """

    part = 0
    batches: Sequence[Batch] = ()
    environment_steps = 0

    def __init__(self, role: Role, tasks: list[int], step: int) -> None:
        super().__init__(
            f"the {role}'s weights are not finite after update {step}, in task {', '.join(map(str, tasks))}"
        )
        self.role, self.tasks, self.step = role, tasks, step

    def of(self, batches: Sequence[Batch]) -> None:
        """Note the abandoned batches."""
        self.batches, self.environment_steps = batches, sum(one.environment_steps for one in batches)


def check_weights(players: Players, step: int) -> None:
    """Raise ``Diverged`` for the first player with weights that are not finite after update ``step``."""
    for role, weights in players.items():
        sums = torch.stack([value.detach().reshape(len(value), -1).sum(1) for value in weights.values()]).sum(0)
        if not torch.isfinite(sums).all():
            raise Diverged(role, torch.nonzero(~torch.isfinite(sums)).flatten().tolist(), step)


def leaves(players: Players) -> Players:
    """The same weights without their graph; those that adapt are leaves of a new one."""
    result: Players = {}
    for role, weights in players.items():
        own = adapting(weights)
        result[role] = {n: v.detach().requires_grad_() if n in own else v.detach() for n, v in weights.items()}
    return result


def constants(players: Players) -> Players:
    """The same weights without a graph."""
    return {role: {name: value.detach() for name, value in weights.items()} for role, weights in players.items()}


def rate_at(rates: Tensor, shot: int) -> Tensor:
    """The inner rate of an update; updates after the trained number of shots use the last rate."""
    return rates[min(shot, rates.shape[0] - 1)]


def step_sizes(rates: Tensor, weights: Weights) -> list[Tensor]:
    """One step size per weight tensor, to be multiplied with its gradient.

    Args:
        rates: one for all (a scalar or [1]), one for each of the P weight tensors [P], or one for each of all D numbers in
            them [D], in the order of ``weights``. With a leading dimension N: each row's own.
        weights: stacked, those that adapt.

    Raises:
        InvalidInputError: any other number of step sizes.
    """
    sizes = [value[0].numel() for value in weights.values()]
    rates = rates.view(1) if rates.dim() == 0 else rates
    count, rows = rates.shape[-1], rates.shape[:-1]
    if count in (1, len(sizes)):
        found = rates.expand(*rows, len(sizes)).unbind(-1)
        return [
            one.view(*rows, *(1 for _ in value.shape[1:])) if rows else one for one, value in _pairs(found, weights)
        ]
    if count != sum(sizes):
        raise InvalidInputError(
            f"{count} step sizes: must be 1, {len(sizes)} (weight tensors) or {sum(sizes)} (numbers in them)"
        )
    parts: tuple[Tensor, ...] = torch.split(rates, sizes, -1)
    return [part.reshape(*rows, *value.shape[1:]) for part, value in _pairs(parts, weights)]


def _pairs(parts: tuple[Tensor, ...], weights: Weights) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(parts, weights.values(), strict=True)


def gradients(loss: Tensor, players: Players, roles: tuple[Role, ...], create_graph: bool) -> Players:
    """Per role, the gradients of a summed loss by the weights that adapt.

    Raises:
        InvalidInputError: a weight that the loss does not depend on.
    """
    named = [(role, name) for role in roles for name in adapting(players[role])]
    inputs = [players[role][name] for role, name in named]
    flat = torch.autograd.grad(loss.sum(), inputs, create_graph=create_graph, retain_graph=True, allow_unused=True)
    result: Players = {role: {} for role in roles}
    for (role, name), gradient in zip(named, flat, strict=True):
        if gradient is None:
            raise InvalidInputError(f"the {role}'s loss does not depend on its weight {name!r}: nothing to adapt")
        result[role][name] = gradient
    return result


class Adapted(NamedTuple):
    """Players after some updates."""

    players: Players  # stacked weights, leaves of a graph of their own
    batch: Batch | None  # the data of the next update; None after the last
    losses: Losses | None  # the players' losses on these data


def adapt(
    problem: Problem, players: Players, rates: Mapping[Role, Tensor], shots: int, check: bool = False
) -> Iterator[Adapted]:
    """Adapt every player at once, without a graph from one update to the next.

    Args:
        problem: the tasks.
        players: stacked weights to start from.
        rates: per player [K, ...], see ``step_sizes``; updates after K use the last.
        shots: number of updates.
        check: look at the weights after every update.

    Yields:
        The players at shots 0, 1, .. ``shots``.

    Raises:
        Diverged: weights that are not finite, if they are looked at.
    """
    for shot in range(shots):
        players = leaves(players)
        batch = problem.draw(players, shot)
        losses = batch.losses(players)
        yield Adapted(players, batch, losses)
        sizes = {role: rate_at(rates[role], shot) for role in players}
        players = adapt_step(players, losses.support, sizes, create_graph=False)
        if check:
            check_weights(players, shot + 1)
    yield Adapted(leaves(players), None, None)


def unroll(
    problem: Problem,
    players: Players,
    rates: Mapping[Role, Tensor],
    steps: int,
    through: Through,
    moving: Collection[Role] | None = None,
    first: int = 0,
    start: Players | None = None,
) -> tuple[list[Losses], list[Batch]]:
    """Adapt ``steps`` times and return the losses at every shot 0..steps, with their graph, and the batches.

    The data of shot k are used twice: to test the k-th update, and as the support of the next.

    Args:
        problem: the tasks.
        players: stacked start.
        rates: per role [steps], or [steps, ...] as ``step_sizes`` takes them.
        steps: K.
        through: settings of the derivative.
        moving: the roles that adapt; None: all.
        first: number of the first shot, for several chains of one problem that must not share data.
        start: the same weights as fewer sets, one for several tasks each, for problems whose ``draw`` takes them: products are
            larger, and fewer weights are read.

    Returns:
        K + 1 ``Losses``, per role [N], and K + 1 batches. Where graphs are recomputed, losses lack the supports of the shots that
        were adapted from.

    Raises:
        Diverged: weights that are not finite.
    """
    history: list[Losses] = []
    batches: list[Batch] = []
    for shot in range(steps + 1):
        now = {role: rates[role][shot] for role in players} if shot < steps else {}
        shared = start if shot == 0 and start is not None else players
        batch = problem.draw(shared, first + shot)
        batches.append(batch)
        if through.recompute and shot < steps:
            losses, players = _recomputed_step(batch, players, now, through.joint, moving)
        else:
            losses = batch.losses(players if shot < steps else shared, through.joint)
            if shot < steps:
                players = adapt_step(players, losses.support, now, through.second_order, through.joint, moving)
        try:
            check_weights(players, shot + 1)
        except Diverged as error:
            error.of(batches)
            raise
        history.append(losses)
    return history, batches


def _recomputed_step(
    batch: Batch, players: Players, rates: dict[Role, Tensor], joint: bool, moving: Collection[Role] | None
) -> tuple[Losses, Players]:
    """The query losses of a shot and the weights after its update, as one node of the graph."""
    names = [(role, name) for role, weights in players.items() for name in weights]
    roles = list(players)

    def run(tensors: list[Tensor], create_graph: bool) -> list[Tensor]:
        own: Players = {role: {} for role in roles}
        for (role, name), value in zip(names, tensors, strict=False):
            own[role][name] = value
        sizes = dict(zip(roles, tensors[len(names) :], strict=True))
        losses = batch.losses(own, joint)
        after = adapt_step(own, losses.support, sizes, create_graph, joint, moving)
        return [*(losses.query[role] for role in roles), *(after[role][name] for role, name in names)]

    inputs = [*(players[role][name] for role, name in names), *(rates[role] for role in roles)]
    outputs = _Recomputed.apply(run, *inputs)  # type: ignore[no-untyped-call]
    after: Players = {role: {} for role in roles}
    for (role, name), value in zip(names, outputs[len(roles) :], strict=True):
        after[role][name] = value
    return Losses({}, dict(zip(roles, outputs, strict=False))), after


class _Recomputed(torch.autograd.Function):
    """A recomputed function that itself differentiates, which ``torch.utils.checkpoint`` does not support."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[list[Tensor], bool], list[Tensor]], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        with torch.enable_grad():
            outputs = run([value.detach().requires_grad_() for value in inputs], False)
        return tuple(value.detach() for value in outputs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in ctx.saved_tensors]
            outputs = ctx.run(leaves, True)
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        known = [(value, g) for value, g in zip(outputs, gradients, strict=True) if g is not None]
        found = torch.autograd.grad(
            [value for value, _ in known], [leaves[i] for i in wanted], [g for _, g in known], allow_unused=True
        )
        result: list[Tensor | None] = [None] * len(leaves)
        for i, gradient in zip(wanted, found, strict=True):
            result[i] = gradient
        return (None, *result)
