"""The tanh network on stacked weights: its outputs, and its first and second derivatives by hand.

    z_l = h_l W_l + b_l,  h_0 = x,  h_l+1 = tanh(z_l); the last z is the output, and g its cotangent
    first        s_l = dL / dz_l,  s_l-1 = (s_l W_l^T) (1 - h_l^2),  dL / dW_l = h_l^T s_l,  dL / db_l = sum s_l
    second       of L(W, g) = <output, g>, a product of its Hessian with (U, v): ``_curvature``

Autograd keeps a tensor for every operation of these, and builds each anew in memory that it has not touched yet. Here a group
of rows at a time goes through all layers, in place, while its numbers are in the cache. The Hessian is symmetric, so that its
product is its own transpose: derivatives with respect to (U, v), which the curvature of TRPO needs, are the same function. The
third derivative, with respect to weights and g, is left to autograd and plain operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.groups import Group


class _Laid(NamedTuple):
    """Sets of weights in the order of their groups: a group's own are a view."""

    groups: tuple[Group, ...]  # of these
    order: Tensor | None  # [n] int64: where each of these is among the sets as given; None: they are as given
    weights: tuple[Tensor, ...]  # the matrices [n, i, o] of all layers, then the biases [n, o]

    @classmethod
    def out(cls, groups: tuple[Group, ...], weights: tuple[Tensor, ...]) -> _Laid:
        """Weights that are given for groups of any sets."""
        if all(isinstance(group.sets, slice) for group in groups):
            return cls(groups, None, weights)
        own, parts, end = list[Group](), list[Tensor](), 0
        for group in groups:
            if not group.start:  # otherwise its one set is that of the group before
                numbers = group.sets
                if isinstance(numbers, slice):
                    numbers = torch.arange(numbers.start, numbers.stop, dtype=torch.int64, device=weights[0].device)
                parts.append(numbers)
                end += group.n
            own.append(group._replace(sets=slice(end - group.n, end)))
        order = torch.cat(parts)
        return cls(tuple(own), order, tuple(weight.index_select(0, order) for weight in weights))

    def like(self, weights: tuple[Tensor, ...]) -> _Laid:
        """Other weights, of the same order."""
        order = self.order
        return self._replace(weights=weights if order is None else tuple(one.index_select(0, order) for one in weights))

    def given(self, results: Sequence[Tensor]) -> list[Tensor]:
        """Results in the order of these weights, in that of the sets as given."""
        order = self.order
        return list(results) if order is None else [torch.empty_like(one).index_copy_(0, order, one) for one in results]

    def at(self, group: Group) -> tuple[list[Tensor], list[Tensor]]:
        """Matrices [n, i, o] and biases [n, 1, o] of a group."""
        own, layers = [weight[group.sets] for weight in self.weights], len(self.weights) // 2
        return own[:layers], [bias.unsqueeze(1) for bias in own[layers:]]


class _Point(NamedTuple):
    """The network at some weights and inputs."""

    groups: tuple[Group, ...]
    weights: tuple[Tensor, ...]  # the matrices [n, i, o] of all layers, then the biases [n, o]
    inputs: tuple[Tensor, ...]  # of each layer [R, i]
    laid: _Laid  # the weights, without a graph

    @property
    def layers(self) -> int:
        return len(self.inputs)


def tanh_network(x: Tensor, matrices: Sequence[Tensor], biases: Sequence[Tensor], groups: tuple[Group, ...]) -> Tensor:
    """Outputs [R, A] for rows of inputs [R, d], and n sets of matrices [n, i, o] and biases [n, o]: differentiable any
    number of times.

    In float32, tanh(x) is 2 sigmoid(2 x) - 1, nine times faster on CPUs: within 1.5 units of the last place of 1.0.
    """
    weights = (*matrices, *biases)
    if torch.is_grad_enabled() and x.requires_grad:
        return _plain(x, weights, groups)
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        result: Tensor = _Outputs.apply(groups, x, *weights)  # type: ignore[no-untyped-call]
        return result
    return _forward(x, _Laid.out(groups, weights))[0]


def played(x: Tensor, matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Outputs [N, M, A] for inputs [N, M, d] without a graph, in as few operations as there are."""
    for matrix, bias in zip(matrices[:-1], biases[:-1], strict=True):
        x = torch.rsub(torch.baddbmm(bias.unsqueeze(1), x, matrix, beta=-2, alpha=-2).sigmoid_(), 1.0, alpha=2)
    return torch.baddbmm(biases[-1].unsqueeze(1), x, matrices[-1])


def folded(matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights for ``acting``, for many steps. With s = sigmoid(-2 z), the tanh is 1 - 2 s, so that the next layer's z is
    (b + the sum of W over its inputs) - 2 s W; the last matrix is transposed, [N, A, i].
    """
    steps: list[Tensor] = []
    starts: list[Tensor] = []
    for i, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
        start, step = (bias + matrix.sum(1), -2 * matrix) if i else (bias, matrix)
        last = i == len(matrices) - 1
        steps.append(step.mT.contiguous() if last else -2 * step)
        starts.append(start if last else -2 * start)
    return steps, starts


def acting(x: Tensor, matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """As ``played``, with weights that are ``folded``."""
    for matrix, bias in zip(matrices[:-1], biases[:-1], strict=True):
        x = torch.baddbmm(bias.unsqueeze(1), x, matrix).sigmoid_()
    return torch.baddbmm(biases[-1].unsqueeze(1), x, matrices[-1].mT)


def _plain(x: Tensor, weights: Sequence[Tensor], groups: tuple[Group, ...]) -> Tensor:
    """``tanh_network`` in plain operations."""
    layers, parts = len(weights) // 2, []
    for group in groups:
        h = group.of(x)
        for i in range(layers):
            matrix, bias = (weights[j][group.sets] for j in (i, layers + i))
            h = torch.baddbmm(bias.unsqueeze(1), h, matrix)
            h = torch.tanh(h) if i < layers - 1 else h
        parts.append(h.flatten(0, 1))
    return torch.cat(parts)


def _forward(x: Tensor, laid: _Laid) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The outputs, and the inputs of all layers."""
    layers, minus = len(laid.weights) // 2, x.new_full((), -1.0)
    out = [x.new_empty(len(x), matrix.shape[-1]) for matrix in laid.weights[:layers]]
    inputs = (x, *out[:-1])
    for group in laid.groups:
        (matrices, biases), h = laid.at(group), _of(group, inputs)
        for i in range(layers - 1):
            z = torch.baddbmm(biases[i], h[i], matrices[i], beta=2, alpha=2, out=h[i + 1])
            torch.add(minus, z.sigmoid_(), alpha=2, out=z)
        torch.baddbmm(biases[-1], h[-1], _by_output(matrices[-1]), out=group.of(out[-1]))
    return out[-1], inputs


def _gradient(point: _Point, g: Tensor, keep: bool) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Gradients of all weights, and s [R, o] of all layers but the last, if they are to be kept."""
    result = _like(point.laid.weights)
    slopes = tuple(torch.empty_like(h) for h in point.inputs[1:]) if keep else ()
    for group in point.laid.groups:
        (matrices, _), h = point.laid.at(group), _of(group, point.inputs)
        kept, s = _of(group, slopes), group.of(g)
        for i in reversed(range(point.layers)):
            _sum_outer(group, result[i], (h[i], s))
            group.put(result[point.layers + i], s.sum(1))
            if i:
                s = _through(torch.bmm(s, matrices[i].mT, out=kept[i - 1] if keep else None), h[i])
    return point.laid.given(result), slopes


def _push(point: _Point, directions: tuple[Tensor, ...], keep: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The first half of ``_curvature``: its part for g, the derivative of the outputs along the directions, and those of z
    [R, o] of all layers but the last, if they are to be kept.
    """
    last, moves = point.layers - 1, point.laid.like(directions)
    change = point.inputs[0].new_empty(len(point.inputs[0]), moves.weights[last].shape[-1])
    kept = tuple(torch.empty_like(h) for h in point.inputs[1:]) if keep else ()
    for group in point.laid.groups:
        (matrices, _), (ways, shifts), h = point.laid.at(group), moves.at(group), _of(group, point.inputs)
        outs = [*(_of(group, kept) if keep else [None] * last), group.of(change)]
        moved = h[0]  # derivative of a layer's input; the first does not move
        for i in range(last + 1):
            z = torch.baddbmm(shifts[i], h[i], _by_output(ways[i]) if i == last else ways[i], out=outs[i])
            if i:
                z = torch.baddbmm(z, moved, _by_output(matrices[i]) if i == last else matrices[i], out=z)
            if i < last:
                moved = torch.ops.aten.tanh_backward(z, h[i + 1])
    return change, kept


class _Pushed(NamedTuple):
    """What the second half of ``_curvature`` needs."""

    slopes: tuple[Tensor, ...]  # s of all layers but the last
    g: Tensor  # s of the last [R, A]
    directions: tuple[Tensor, ...]  # of the weights, U and u
    changes: tuple[Tensor, ...]  # the derivatives of z along them, of all layers but the last


def _pull(point: _Point, pushed: _Pushed, v: Tensor) -> list[Tensor]:
    """The second half of ``_curvature``: its parts for the weights; ``v``: the direction's part for g [R, A]."""
    result, moves = _like(point.laid.weights), point.laid.like(pushed.directions)
    for group in point.laid.groups:
        (matrices, _), (ways, _), h = point.laid.at(group), moves.at(group), _of(group, point.inputs)
        s, z = _of(group, (*pushed.slopes, pushed.g)), _of(group, pushed.changes)
        e = group.of(v)  # derivatives of s
        for i in reversed(range(point.layers)):
            moved = [(torch.ops.aten.tanh_backward(z[i - 1], h[i]), s[i])] if i else []
            _sum_outer(group, result[i], (h[i], e), *moved)
            group.put(result[point.layers + i], e.sum(1))
            if i:
                below = torch.bmm(s[i], ways[i].mT)
                below = torch.baddbmm(below, e, matrices[i].mT, out=below)
                e = _through(below, h[i]).addcmul_(z[i - 1] * s[i - 1], h[i], value=-2)
    return point.laid.given(result)


def _curvature(
    point: _Point, slopes: tuple[Tensor, ...], g: Tensor, v: Tensor, directions: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor]]:
    """The product of the Hessian of L(W, g) with a direction (v, (U, u)) of (g, W): its part for g, and those for the weights."""
    change, changes = _push(point, directions, keep=True)
    return change, _pull(point, _Pushed(slopes, g, directions, changes), v)


def _of(group: Group, rows: Sequence[Tensor]) -> list[Tensor]:
    return [group.of(one) for one in rows]


def _like(weights: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_like(weight, memory_format=torch.contiguous_format) for weight in weights]


def _by_output(matrix: Tensor) -> Tensor:
    """The same matrices laid out output by output: a product with few outputs takes a quarter of the time."""
    return matrix.mT.contiguous().mT


def _sum_outer(group: Group, totals: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Put the sum of h^T s over pairs (h, s) of a group into its sets' totals, which hold those of earlier groups."""
    total, fresh = totals[group.sets], not group.start
    for h, s in pairs:
        if s.shape[-1] < h.shape[-1]:  # as (s^T h)^T: on CPUs the other form costs as much for two outputs as for 40
            part = (s.mT @ h).mT
            total.copy_(part) if fresh else total.add_(part)
        else:
            torch.baddbmm(total, h.mT, s, beta=0 if fresh else 1, out=total)
        fresh = False


def _through(s: Tensor, h: Tensor) -> Tensor:
    """In place, s (1 - h^2)."""
    result: Tensor = torch.ops.aten.tanh_backward.grad_input(s, h, grad_input=s)
    return result


class _Outputs(torch.autograd.Function):
    """``tanh_network`` as a function of its weights."""

    @staticmethod
    def forward(ctx: Any, groups: tuple[Group, ...], x: Tensor, *weights: Tensor) -> Tensor:
        laid = _Laid.out(groups, weights)
        out, inputs = _forward(x, laid)
        ctx.groups, ctx.laid = groups, laid._replace(weights=())
        ctx.pushed = {}  # by the pass that runs: halves of products, see ``_Gradient``
        ctx.save_for_backward(*inputs, *laid.weights, *weights, out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        *saved, out = ctx.saved_tensors
        n = len(saved) // 5
        weights = tuple(saved[3 * n :])
        point = _Point(ctx.groups, weights, tuple(saved[:n]), ctx.laid._replace(weights=tuple(saved[n : 3 * n])))
        if torch.is_grad_enabled():
            gradients = _Gradient.apply(point, ctx.pushed, g.contiguous(), out, *weights)  # type: ignore[no-untyped-call]
            return None, None, *gradients
        first, *others = ctx.pushed.pop(torch._C._current_graph_task_id(), [None])
        if first is None:
            return None, None, *_gradient(point, g.contiguous(), keep=False)[0]
        total = _pull(point, first, g.contiguous())
        for other in others:
            total = [a + b for a, b in zip(total, _pull(point, other, torch.zeros_like(g)), strict=True)]
        return None, None, *total


def _wanted(edge: tuple[Any, int]) -> bool:
    """Whether the pass that runs needs the derivative along an edge of the graph: ``needs_input_grad`` says whether any pass may.
    The engine does not answer for leaves.
    """
    node, _ = edge
    if node is None or hasattr(node, "variable"):
        return node is not None
    result: bool = torch._C._will_engine_execute_node(node)
    return result


class _Gradient(torch.autograd.Function):
    """The gradient of <output, g> with respect to the weights, as a function of them and of g.

    A product with its derivative has two halves, and the part for g is known after the first. Where that changes the output's own
    cotangent, autograd is to pull that one back next, through the same layers: both are pulled back at once, by the output's
    node, which this one leaves its first half to. It runs later in the same pass, since the output is an input here.
    """

    @staticmethod
    def forward(
        ctx: Any, point: _Point, pushed: dict[int, list[_Pushed]], g: Tensor, out: Tensor, *weights: Tensor
    ) -> Any:
        result, slopes = _gradient(point, g, keep=True)
        ctx.groups, ctx.laid, ctx.pushed = point.groups, point.laid._replace(weights=()), pushed
        ctx.save_for_backward(*point.inputs, *slopes, g, *point.laid.weights, *weights)
        return tuple(result)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        saved, n = ctx.saved_tensors, len(ctx.saved_tensors) // 6
        inputs, slopes, g, weights = saved[:n], saved[n : 2 * n - 1], saved[2 * n - 1], saved[4 * n :]
        point = _Point(ctx.groups, weights, inputs, ctx.laid._replace(weights=saved[2 * n : 4 * n]))
        if torch.is_grad_enabled():
            change, *result = _bend(point, slopes, g, torch.zeros_like(g), directions)
            return None, None, change, None, *result
        _, output, *others = ctx.next_functions
        wanted = any(map(_wanted, others))
        change, changes = _push(point, directions, keep=wanted)
        pushed = _Pushed(slopes, g, directions, changes)
        if wanted and _wanted(output):
            ctx.pushed.setdefault(torch._C._current_graph_task_id(), []).append(pushed)
        elif wanted:
            return None, None, change, None, *_pull(point, pushed, torch.zeros_like(g))
        return None, None, change, None, *(None for _ in weights)


def _bend(
    point: _Point, slopes: tuple[Tensor, ...], g: Tensor, v: Tensor, directions: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """``_curvature``, differentiable any number of times where a graph is wanted."""
    if not torch.is_grad_enabled():
        change, parts = _curvature(point, slopes, g, v, directions)
        return change, *parts
    linear = _Linear.apply(point, slopes, g, v, *directions)  # type: ignore[no-untyped-call]
    rest = _Rest.apply(point.groups, point.inputs[0], (v, *directions), g, *point.weights)  # type: ignore[no-untyped-call]
    return tuple(a + b for a, b in zip(linear, rest, strict=True))


class _Linear(torch.autograd.Function):
    """``_curvature`` as a function of the direction alone."""

    @staticmethod
    def forward(
        ctx: Any, point: _Point, slopes: tuple[Tensor, ...], g: Tensor, v: Tensor, *directions: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.point, ctx.slopes, ctx.g = point, slopes, g
        change, parts = _curvature(point, slopes, g, v, directions)
        return change, *parts

    @staticmethod
    def backward(ctx: Any, v: Tensor, *directions: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *_bend(ctx.point, ctx.slopes, ctx.g, v, directions)


class _Rest(torch.autograd.Function):
    """Zeros, with the derivatives of ``_curvature`` with respect to g and the weights. A node of its own, without ways to the
    direction: autograd does not tell a function which of its derivatives are wanted, but leaves out a node of which none is.
    """

    @staticmethod
    def forward(
        ctx: Any, groups: tuple[Group, ...], x: Tensor, direction: tuple[Tensor, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.groups, ctx.direction = groups, direction
        ctx.save_for_backward(x, *tensors)
        return tuple(tensor.new_zeros(()).expand(tensor.shape) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            # Views: g and the direction may depend on the weights, and those ways are not this node's.
            variables = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in tensors]
            (g, *weights), (v, *directions) = variables, ctx.direction
            out = _plain(x, weights, ctx.groups)
            first = torch.autograd.grad(out, weights, g, create_graph=True)
            second = torch.autograd.grad(first, variables, directions, create_graph=True, materialize_grads=True)
            also = torch.autograd.grad(out, weights, v, create_graph=True)
            product = [second[0], *(a + b for a, b in zip(second[1:], also, strict=True))]
            known = [(part, c) for part, c in zip(product, cotangents, strict=True) if part.requires_grad]
            parts, theirs = zip(*known, strict=True) if known else ((), ())
            wanted = torch.autograd.grad(parts, variables, theirs, create_graph=graph, allow_unused=True)
        return None, None, None, *wanted
