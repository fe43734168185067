"""Recurrent units over whole episodes on stacked weights, with derivatives that are written out.

Autograd records a dozen small operations per step, and computes the gradient of the weights as a product per step. Here a unit
over all steps is one node of the graph, and so is its gradient: a loop over time without autograd, and one product for the
gradient of the weights. The derivative of the gradient (second order) is written out for the LSTM; that of the GRU, and third
derivatives of both, come from the same loop as autograd records it.

Layouts: inputs' shares of the gates [N, T M, gates H], step by step; everything else [N, T, M, H].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_sigmoid_backward = torch.ops.aten.sigmoid_backward  # (g, s) -> g s (1 - s), in one pass


def lstm(given: Tensor, weight: Tensor, steps: int) -> Tensor:
    """The outputs [N, T, M, H] of an LSTM that starts from zeros.

    Args:
        given: [N, T M, 4 H] the inputs' share of the gates enter, keep, new, leave, all biases included. The new cells are
            doubled: tanh(x) = 2 sigmoid(2 x) - 1. It is overwritten.
        weight: [N, H, 4 H] from the outputs of a step to the gates of the next, with the new cells doubled, too.
        steps: T.
    """
    hidden: Tensor = _LSTM.apply(given, weight, steps)[0]  # type: ignore[no-untyped-call]
    return hidden


def gru(given: Tensor, weight: Tensor, bias: Tensor, start: Tensor, steps: int) -> Tensor:
    """The memory [N, T, M, H] of a GRU at every step.

    Args:
        given: [N, T M, 3 H] the inputs' share of new, reset and keep, the biases of reset and keep included. New is doubled:
            tanh(x) = 2 sigmoid(2 x) - 1. It is overwritten.
        weight: [N, H, 3 H] from the memory to reset, keep and new, with new doubled, too.
        bias: [N, H] of the memory's share of new, which reset multiplies.
        start: [N, M, H] the memory before the first step.
        steps: T.
    """
    hidden: Tensor = _GRU.apply(given, weight, bias, start, steps)[0]  # type: ignore[no-untyped-call]
    return hidden


def packed_gru(given: Tensor, weight: Tensor, bias: Tensor, start: Tensor, sizes: Sequence[int]) -> Tensor:
    """The memory [R, H] of a GRU at every step of sequences of different lengths, with first derivatives alone.

    Rows are packed: the first steps of all sequences, the longest sequence first, then the second steps of those that have one,
    and so on. Nothing is computed after a sequence's end.

    Args:
        given: [R, 3 H] as in ``gru``. It is overwritten.
        weight: [H, 3 H] as in ``gru``.
        bias: [H] as in ``gru``.
        start: [S, H] the memory before the first step of each sequence.
        sizes: the number of sequences that have each step; R is their sum.
    """
    hidden: Tensor = _PackedGRU.apply(given, weight, bias, start, list(sizes))[0]  # type: ignore[no-untyped-call]
    return hidden


class _LSTM(torch.autograd.Function):
    """See ``lstm``. Cells are kept doubled: c = 2 x cells, output = leave (2 sigmoid(c) - 1)."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.mark_dirty(given)
        ctx.set_materialize_grads(False)
        gates = given.view(len(given), steps, -1, given.shape[-1])
        hidden = gates.new_empty(*gates.shape[:-1], weight.shape[1])
        cells, squashed = torch.empty_like(hidden), torch.empty_like(hidden[:, 0])
        before: tuple[Tensor, Tensor] | None = None
        for gate, h, c in zip(gates.unbind(1), hidden.unbind(1), cells.unbind(1), strict=True):
            if before is not None:
                gate.baddbmm_(before[0], weight)
            enter, keep, new, leave = gate.sigmoid_().chunk(4, -1)
            torch.mul(enter, -2.0, out=c).addcmul_(enter, new, value=4.0)
            if before is not None:
                c.addcmul_(keep, before[1])
            torch.sigmoid(c, out=squashed)
            torch.addcmul(leave, leave, squashed, value=-2.0, out=h).neg_()
            before = h, c
        ctx.save_for_backward(given, hidden, cells, weight)
        return hidden, given, cells

    @staticmethod
    def backward(
        ctx: Any, hidden: Tensor | None, gates: Tensor | None, cells: Tensor | None
    ) -> tuple[Tensor, Tensor, None]:
        known = ctx.saved_tensors
        return *_LSTMGradient.apply(*known, hidden, gates, cells, torch.is_grad_enabled()), None  # type: ignore[no-untyped-call]


class _Swept(NamedTuple):
    """The result of a loop backwards over an LSTM's steps."""

    given: Tensor  # [N, T M, 4 H] the gradient of the gates before their sigmoid
    weight: Tensor  # [N, H, 4 H]
    outputs: list[Tensor]  # per step, the last first, the whole gradients of outputs and doubled cells
    cells: list[Tensor]


def _swept(
    gates: Tensor,
    hidden: Tensor,
    cells: Tensor,
    weight: Tensor,
    of_hidden: Tensor | None,
    of_gates: Tensor | None,
    of_cells: Tensor | None,
) -> _Swept:
    """Gradients of an LSTM from those of outputs, gates after their sigmoid, and cells; None: zeros."""
    steps = hidden.shape[1]
    zero = torch.zeros_like(hidden[:, 0])
    back = weight.mT
    s = gates.view(*hidden.shape[:-1], -1).unbind(1)
    c = cells.unbind(1)
    sources = [
        (None,) * steps if g is None else g.view(*hidden.shape[:-1], -1).unbind(1)
        for g in (of_hidden, of_gates, of_cells)
    ]
    found: list[Tensor] = []
    outputs, inside = [], []
    p = r = zero
    for t in range(steps - 1, -1, -1):
        from_output, from_gates, from_cells = (source[t] for source in sources)
        enter, _, new, leave = s[t].chunk(4, -1)
        if t < steps - 1:
            own = found[-1]
            p = torch.bmm(own, back) if from_output is None else torch.baddbmm(from_output, own, back)
            r = r * s[t + 1].chunk(4, -1)[1]
        elif from_output is not None:
            p = from_output
        squashed = torch.sigmoid(c[t])
        r = r + _sigmoid_backward(p * leave, squashed) * 2.0
        if from_cells is not None:
            r = r + from_cells
        before = c[t - 1] if t else zero
        parts = [r * (4.0 * new - 2.0), r * before, r * enter * 4.0, p * (2.0 * squashed - 1.0)]
        total = torch.cat(parts, -1)
        if from_gates is not None:
            total = total + from_gates
        found.append(_sigmoid_backward(total, s[t]))
        outputs.append(p)
        inside.append(r)
    given = torch.stack(found[::-1], 1)
    of_weight = _over_time(hidden[:, :-1], given[:, 1:])
    return _Swept(given.flatten(1, 2), of_weight, outputs, inside)


def _swept_in_place(
    gates: Tensor,
    hidden: Tensor,
    cells: Tensor,
    weight: Tensor,
    of_hidden: Tensor | None,
    of_gates: Tensor | None,
    of_cells: Tensor | None,
    kept: bool,
) -> _Swept:
    """As ``_swept``, in half of the time and without a graph; gradients of outputs and cells only if they are to be ``kept``."""
    shape = (*hidden.shape[:-1], -1)
    given = torch.empty_like(gates)
    parts = zip(*(x.view(shape).unbind(1) for x in (gates, given, cells)), strict=True)
    of_steps = [None if g is None else g.view(shape).unbind(1) for g in (of_hidden, of_gates, of_cells)]
    steps, back, zero = list(parts), weight.mT, torch.zeros_like(hidden[:, 0])
    minus = zero.new_full((), -1.0)
    outputs, inside = [], []
    p, r = zero, zero.clone()
    for t in range(len(steps) - 1, -1, -1):
        from_output, from_gates, from_cells = (None if of is None else of[t] for of in of_steps)
        (now, result, cell), before = steps[t], steps[t - 1][2] if t else zero
        if t < len(steps) - 1:
            later, of_later, _ = steps[t + 1]
            p = torch.bmm(of_later, back) if from_output is None else torch.baddbmm(from_output, of_later, back)
            keep = later.chunk(4, -1)[1]
            r = r * keep if kept else r.mul_(keep)
        elif from_output is not None:
            p = from_output
        enter, _, new, leave = now.chunk(4, -1)
        of_enter, of_keep, of_new, of_leave = result.chunk(4, -1)
        squashed = torch.sigmoid(cell)
        r.add_(_sigmoid_backward(torch.mul(p, leave, out=of_leave), squashed), alpha=2.0)
        if from_cells is not None:
            r.add_(from_cells)
        torch.mul(r, -2.0, out=of_enter).addcmul_(r, new, value=4.0)
        torch.mul(r, before, out=of_keep)
        torch.mul(r, enter, out=of_new).mul_(4.0)
        torch.mul(p, torch.add(minus, squashed, alpha=2.0, out=squashed), out=of_leave)
        if from_gates is not None:
            result.add_(from_gates)
        _sigmoid_backward.grad_input(result, now, grad_input=result)
        if kept:
            outputs.append(p)
            inside.append(r)
    through = given.view(shape)[:, 1:]
    return _Swept(given, _over_time(hidden[:, :-1], through), outputs, inside)


def _over_time(x: Tensor, y: Tensor) -> Tensor:
    """The sum of x^T y over steps and episodes: [N, T, M, a], [N, T, M, b] to [N, a, b]."""
    return torch.bmm(x.flatten(1, 2).mT, y.flatten(1, 2))


class _LSTMGradient(torch.autograd.Function):
    """The gradients of an LSTM's gates (before their sigmoid) and weight, from those of its outputs, see ``_swept``."""

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        hidden: Tensor,
        cells: Tensor,
        weight: Tensor,
        of_hidden: Tensor | None,
        of_gates: Tensor | None,
        of_cells: Tensor | None,
        again: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        swept = _swept_in_place(gates, hidden, cells, weight, of_hidden, of_gates, of_cells, again)
        if again:  # it will be differentiated
            kept = (swept.given, *swept.outputs, *swept.cells)
            ctx.save_for_backward(gates, hidden, cells, weight, of_hidden, of_gates, of_cells, *kept)
        return swept.given, swept.weight

    @staticmethod
    def backward(ctx: Any, of_given: Tensor | None, of_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        (*inputs, given), steps = ctx.saved_tensors[:8], ctx.saved_tensors[8:]
        if torch.is_grad_enabled() or any(source is not None for source in inputs[5:]):
            return *_recorded(_swept, inputs, (of_given, of_weight)), None
        gates, hidden, cells, weight = inputs[:4]
        outputs, inside = steps[: len(steps) // 2], steps[len(steps) // 2 :]
        found = _twice(gates, hidden, cells, weight, given, outputs, inside, of_given, of_weight)
        return *found, None, None, None


def _recorded(
    function: Any, inputs: Sequence[Tensor | None], gradients: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs of a function whose first results have ``gradients``, by autograd."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, since inputs depend on each other: a gradient by one of them must not go on through another.
        leaves = [v if v is None else v.view_as(v) if graph else v.detach().requires_grad_() for v in inputs]
        known = [pair for pair in zip(function(*leaves), gradients, strict=False) if pair[1] is not None]
        wanted = [value for value in leaves if value is not None and value.requires_grad]
        found = iter(
            torch.autograd.grad(
                [value for value, _ in known], wanted, [g for _, g in known], create_graph=graph, allow_unused=True
            )
        )
    return tuple(next(found) if value is not None and value.requires_grad else None for value in leaves)


def _twice(
    gates: Tensor,
    hidden: Tensor,
    cells: Tensor,
    weight: Tensor,
    given: Tensor,
    outputs: Sequence[Tensor],
    inside: Sequence[Tensor],
    of_given: Tensor | None,
    of_weight: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """The gradients of gates, outputs, cells, weight and the outputs' gradients, from those of ``_swept``'s ``given`` and
    ``weight``; ``given``, ``outputs`` and ``inside`` are its results.

    A bar marks the gradient of a quantity of ``_swept``; the loop runs forwards, as ``_swept`` runs backwards.
    """
    shape = (*hidden.shape[:-1], -1)
    s, delta = gates.view(shape), given.view(shape)
    source = torch.zeros_like(s) if of_given is None else of_given.view(shape)
    gates_bar, cells_bar, p_bars = torch.empty_like(s), torch.zeros_like(cells), torch.empty_like(hidden)
    hidden_bar = None if of_weight is None else torch.zeros_like(hidden)
    total = torch.empty_like(s[:, 0])
    r_bar = torch.zeros_like(hidden[:, 0])
    for t, (p, r) in enumerate(zip(reversed(outputs), reversed(inside), strict=True)):
        now, given_bar, s_bar, p_bar = s[:, t], source[:, t], gates_bar[:, t], p_bars[:, t]
        enter, keep, new, leave = now.chunk(4, -1)
        enter_bar, keep_bar, new_bar, leave_bar = s_bar.chunk(4, -1)
        if t:
            given_bar = torch.baddbmm(given_bar, p_bars[:, t - 1], weight, out=total)
            if of_weight is not None and hidden_bar is not None:
                given_bar.baddbmm_(hidden[:, t - 1], of_weight)
                torch.bmm(delta[:, t], of_weight.mT, out=hidden_bar[:, t - 1])
        squashed = torch.sigmoid(cells[:, t])
        y = 2.0 * squashed - 1.0
        slope = squashed.mul_(1.0 - squashed).mul_(2.0)  # of y
        doubled = 4.0 * new - 2.0
        # The sigmoid's second derivative: given = d s (1 - s), where d is the gradient of the gates.
        torch.mul(r, doubled, out=enter_bar)
        torch.mul(r, enter, out=new_bar).mul_(4.0)
        torch.mul(p, y, out=leave_bar)
        if t:
            torch.mul(r, cells[:, t - 1], out=keep_bar)
        else:
            keep_bar.zero_()
        s_bar.mul_(given_bar).addcmul_(s_bar, now, value=-2.0)
        of_enter, of_keep, of_new, of_leave = _sigmoid_backward(given_bar, now).chunk(4, -1)
        # d = (r (4 new - 2), r cells before, 4 r enter, p y)
        new_bar.addcmul_(of_enter, r, value=4.0)
        enter_bar.addcmul_(of_new, r, value=4.0)
        if t:
            cells_bar[:, t - 1].addcmul_(of_keep, r)
            keep_bar.addcmul_(r_bar, r)
            r_bar = r_bar * keep
            r_bar.addcmul_(of_keep, cells[:, t - 1])
        r_bar.addcmul_(of_enter, doubled).addcmul_(of_new, enter, value=4.0)
        # r = r after * keep after + p leave slope
        through = r_bar * slope
        torch.mul(through, leave, out=p_bar).addcmul_(of_leave, y)
        leave_bar.addcmul_(through, p)
        # y's gradient, times its slope: the slope's own slope is -y times as large.
        y_bar = (of_leave * p).mul_(slope).addcmul_(through.mul_(p), leave.mul(y), value=-1.0)
        cells_bar[:, t].add_(y_bar)
    weight_bar = _over_time(p_bars[:, :-1], delta[:, 1:])
    return gates_bar.flatten(1, 2), hidden_bar, cells_bar, weight_bar, p_bars


class _GRU(torch.autograd.Function):
    """See ``gru``."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, start: Tensor, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.mark_dirty(given)
        ctx.set_materialize_grads(False)
        units = weight.shape[1]
        gates = given.view(len(given), steps, -1, 3 * units)
        hidden = gates.new_empty(*gates.shape[:-1], units)
        own, minus = torch.empty_like(hidden), gates.new_full((), -1.0)
        pair, single, bias = weight[..., : 2 * units], weight[..., 2 * units :], bias.unsqueeze(1)
        last, both = torch.split(gates, [units, 2 * units], -1)
        reset, keep = both.chunk(2, -1)
        before = start
        parts = zip(*(part.unbind(1) for part in (both, reset, keep, last, own, hidden)), strict=True)
        for two, r, k, new, mine, h in parts:
            two.baddbmm_(before, pair).sigmoid_()
            torch.baddbmm(bias, before, single, out=mine)
            new.addcmul_(r, mine).sigmoid_()
            torch.add(minus, new, alpha=2.0, out=h).lerp_(before, k)  # n + k (before - n), where n = 2 new - 1
            before = h
        ctx.save_for_backward(given, own, hidden, weight, start)
        return hidden, given, own

    @staticmethod
    def backward(
        ctx: Any, hidden: Tensor | None, gates: Tensor | None, own: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        return *_GRUGradient.apply(*ctx.saved_tensors, hidden, gates, own), None  # type: ignore[no-untyped-call]


class _GRUGradient(torch.autograd.Function):
    """The gradients of a GRU, see ``_gru_gradient``."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        return _gru_gradient(*inputs)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _recorded(_gru_gradient, ctx.saved_tensors, gradients)


BLOCK = (
    1 << 17
)  # numbers of a step's state that are treated at once, where no step depends on another: they fit in a cache


def _gru_gradient(
    gates: Tensor,
    own: Tensor,
    hidden: Tensor,
    weight: Tensor,
    start: Tensor,
    of_hidden: Tensor | None,
    of_gates: Tensor | None,
    of_own: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of a GRU's ``given``, ``weight``, ``bias`` and ``start`` from those of the memory, the gates after their
    sigmoid, and the memory's share of new before reset; None: zeros.

    Gates are linear in the memory's gradient p: d gate = p x slope (+ what comes from ``of_gates`` and ``of_own``). Slopes are
    found for many steps at once; the loop has a product, and two operations more.
    """
    steps, units = hidden.shape[1], hidden.shape[-1]
    length = max(1, BLOCK // hidden[:, 0].numel())
    before = torch.cat([start.unsqueeze(1), hidden[:, :-1]], 1)
    back = weight.mT
    shape = (*hidden.shape[:-1], 3 * units)
    gates = gates.view(shape)
    of_gates = None if of_gates is None else of_gates.view(shape)
    sources = [None] * steps if of_hidden is None else of_hidden.unbind(1)
    keeps = gates[..., 2 * units :].unbind(1)
    p = torch.zeros_like(start) if sources[-1] is None else sources[-1]
    found: list[Tensor] = []
    for end in range(steps, 0, -length):
        part = slice(max(0, end - length), end)
        slopes, more = _gru_slopes(
            gates[:, part],
            own[:, part],
            before[:, part],
            None if of_gates is None else of_gates[:, part],
            None if of_own is None else of_own[:, part],
        )
        for t in range(end - 1, part.start - 1, -1):
            now = p.unsqueeze(-2) * slopes[t - part.start]
            if more is not None:
                now = now + more[t - part.start]
            now = now.flatten(-2)
            found.append(now)
            source = sources[t - 1] if t else None
            p = p * keeps[t] if source is None else torch.addcmul(source, p, keeps[t])
            p = torch.baddbmm(p, now[..., units:], back)
    gradient = torch.stack(found[::-1], 1)
    through = gradient[..., units:]
    given = gradient[..., : 3 * units].flatten(1, 2)
    return given, _over_time(before, through), through[..., 2 * units :].sum((1, 2)), p


def _gru_slopes(
    gates: Tensor, own: Tensor, before: Tensor, of_gates: Tensor | None, of_own: Tensor | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Per step, [N, M, 4, H] each: the derivatives of the memory by new, reset and keep (before their sigmoids) and the memory's
    share of new; and what the gradients of gates and share add to theirs.
    """
    new, reset, keep = gates.chunk(3, -1)
    by_new = _sigmoid_backward(2.0 - 2.0 * keep, new)
    by_keep = _sigmoid_backward(before - (2.0 * new - 1.0), keep)
    slopes = torch.stack([by_new, _sigmoid_backward(by_new * own, reset), by_keep, by_new * reset], -2)
    if of_gates is None and of_own is None:
        return slopes.unbind(1), None
    zeros = torch.zeros_like(gates) if of_gates is None else of_gates
    of_new, of_reset, of_keep = zeros.chunk(3, -1)
    of_new = _sigmoid_backward(of_new, new)
    of_reset = _sigmoid_backward(of_reset + of_new * own, reset)
    of_share = of_new * reset if of_own is None else of_new * reset + of_own
    return slopes.unbind(1), torch.stack([of_new, of_reset, _sigmoid_backward(of_keep, keep), of_share], -2).unbind(1)


class _PackedGRU(torch.autograd.Function):
    """See ``packed_gru``."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, start: Tensor, sizes: list[int]
    ) -> tuple[Tensor, Tensor]:
        ctx.mark_dirty(given)
        ctx.set_materialize_grads(False)
        units = len(weight)
        hidden, own = (given.new_empty(len(given), units) for _ in range(2))
        pair, single, minus = (
            weight[:, : 2 * units].contiguous(),
            weight[:, 2 * units :].contiguous(),
            given.new_tensor(-1.0),
        )
        new, reset, keep = given.chunk(3, -1)
        # Views of all steps at once: made step by step, they would cost as much as the operations on them.
        parts = (torch.split(part, sizes) for part in (given[:, units:], new, reset, keep, own, hidden))
        before = start
        for both, n, r, k, mine, h in zip(*parts, strict=True):
            if len(before) > len(h):
                before = before[: len(h)]
            both.addmm_(before, pair).sigmoid_()
            torch.addmm(bias, before, single, out=mine)
            n.addcmul_(r, mine).sigmoid_()
            torch.add(minus, n, alpha=2.0, out=h).lerp_(before, k)  # n + k (before - n), where n = 2 new - 1
            before = h
        ctx.sizes = sizes
        ctx.save_for_backward(given, own, hidden, weight, start)
        return hidden, given

    @staticmethod
    def backward(ctx: Any, of_hidden: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, own, hidden, weight, start = ctx.saved_tensors
        sizes, units = ctx.sizes, len(weight)
        if of_hidden is None:
            return None, None, None, None, None
        steps = torch.split(hidden, sizes)
        before = torch.cat([start, *(h[:size] for h, size in zip(steps, sizes[1:], strict=False))])
        found = gates.new_empty(len(gates), 4, units)
        flat = found.flatten(1)
        through = flat[:, units:]
        # The memory's whole gradient at every step; those of a step's rows are added to those of the step before.
        total, of_start, back = of_hidden.clone(), torch.zeros_like(start), weight.mT.contiguous()
        earlier = torch.split(total, sizes)
        end, last = len(sizes), len(gates)
        while end:
            first, begin = last, end
            while begin and (begin == end or (last - first + sizes[begin - 1]) * units <= PACKED_BLOCK):
                begin -= 1
                first -= sizes[begin]
            rows = slice(first, last)
            _packed_slopes(gates[rows], own[rows], before[rows], found[rows])
            fields = found, through, total, total.unsqueeze(1), gates[:, 2 * units :]
            parts = [torch.split(part[rows], sizes[begin:end])[::-1] for part in fields]
            targets = [*earlier[max(begin - 1, 0) : end - 1][::-1], *([] if begin else [of_start])]
            for now, slopes, p, wide, keep, target in zip(*parts, targets, strict=True):
                now.mul_(wide)
                target = target if len(target) == len(p) else target[: len(p)]
                target.addcmul_(p, keep).addmm_(slopes, back)
            last, end = first, begin
        return flat[:, : 3 * units], before.mT @ through, through[:, 2 * units :].sum(0), of_start, None


PACKED_BLOCK = 1 << 16  # as BLOCK, of the memory alone


def _packed_slopes(gates: Tensor, own: Tensor, before: Tensor, found: Tensor) -> None:
    """As ``_gru_slopes``, of rows [R, ...] into ``found`` [R, 4, H]."""
    new, reset, keep = gates.chunk(3, -1)
    by_new, by_reset, by_keep, by_own = found.unbind(1)
    slope = torch.mul(keep, -2.0).add_(2.0)
    _sigmoid_backward.grad_input(slope, new, grad_input=by_new)
    torch.mul(by_new, reset, out=by_own)
    torch.mul(by_new, own, out=slope)
    _sigmoid_backward.grad_input(slope, reset, grad_input=by_reset)
    torch.sub(before, new, alpha=2.0, out=slope).add_(1.0)
    _sigmoid_backward.grad_input(slope, keep, grad_input=by_keep)
