import itertools

import pytest
import torch

from metaduel.agents.policies import tanh
from metaduel.agents.policies.groups import Group, even_groups, spread
from metaduel.agents.policies.tanh import tanh_network

# Three tasks; the third and the first go together, in that order, and the second alone: 3 + 3 + 2 rows.
GROUPS = (Group(torch.tensor([2, 0]), 0, 2, 3), Group(slice(1, 2), 6, 1, 2))
# The second set alone, cut in two; then the third and the first.
CUT = (Group(slice(1, 2), 0, 1, 2), Group(slice(1, 2), 2, 1, 2, 2), Group(torch.tensor([2, 0]), 4, 2, 2))
SIZES = [(3, 4, 3, 2), (3, 2), (2, 3, 5)]


def network(sizes, tasks=3, rows=8, seed=0):
    """Inputs [R, d], and matrices, then biases, of every layer."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return 0.6 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    pairs = list(itertools.pairwise(sizes))
    weights = [numbers(tasks, i, o) for i, o in pairs] + [numbers(tasks, o) for _, o in pairs]
    return numbers(rows, sizes[0]), [weight.requires_grad_() for weight in weights]


def fused(x, groups=GROUPS):
    return lambda *weights: tanh_network(x, weights[: len(weights) // 2], weights[len(weights) // 2 :], groups)


def plain(x, groups=GROUPS):
    return lambda *weights: tanh._plain(x, weights, groups)


@pytest.mark.parametrize("sizes", SIZES)
def test_first_and_second_derivatives_equal_finite_differences(sizes):
    x, weights = network(sizes)
    torch.testing.assert_close(fused(x)(*weights), plain(x)(*weights))
    assert torch.autograd.gradcheck(fused(x), weights)
    assert torch.autograd.gradgradcheck(fused(x), weights)


@pytest.mark.parametrize("sizes", SIZES)
def test_derivatives_of_higher_orders_equal_those_of_plain_operations(sizes):
    x, weights = network(sizes)

    def derivatives(function):
        value, generator, found = (function(*weights) ** 3).sum(), torch.Generator().manual_seed(1), []
        for _ in range(4):
            gradient = torch.autograd.grad(value, weights, create_graph=True)
            found.append(torch.cat([part.detach().flatten() for part in gradient]))
            parts = (g * torch.randn(g.shape, generator=generator, dtype=torch.float64) for g in gradient)
            value = torch.stack([part.sum() for part in parts]).sum()
        return found

    for ours, theirs in zip(derivatives(fused(x)), derivatives(plain(x)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_product_with_the_jacobian_of_an_update_equals_that_of_plain_operations():
    """As TRPO's curvature forms it: the derivative, with respect to u, of the gradient of <outputs, u> through an update."""
    x, start = network((3, 4, 3, 2))
    generator = torch.Generator().manual_seed(2)
    v = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in start]

    def product(function):
        gradient = torch.autograd.grad((function(*start) ** 2).sum(), start, create_graph=True)
        out = function(*(w - 0.1 * g for w, g in zip(start, gradient, strict=True)))
        u = torch.zeros_like(out, requires_grad=True)
        pulled = torch.autograd.grad(out, start, u, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
        return pushed, *torch.autograd.grad(out, start, pushed)

    for ours, theirs in zip(product(fused(x)), product(plain(x)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def updated(function, weights, linear=False):
    """A loss that depends on two gradients of the same outputs, and unless ``linear`` on these themselves; and the outputs."""
    out = function(*weights)
    loss, other = (out.sum(), 0.5 * out.sum()) if linear else ((out**3).sum(), (out**2).sum())
    one, two = (torch.autograd.grad(each, weights, create_graph=True) for each in (loss, other))
    total = torch.stack([(a * a).sum() + (a * b).sum() for a, b in zip(one, two, strict=True)]).sum()
    return (total if linear else total + loss), out


@pytest.mark.parametrize("groups", [GROUPS, CUT])
def test_second_order_parts_are_pulled_back_with_the_first(monkeypatch, groups):
    """In one go, in any pass, and after a pass that failed halfway."""
    x, weights = network((3, 4, 3, 2))
    loss, out = updated(fused(x, groups), weights)
    theirs = torch.autograd.grad(updated(plain(x, groups), weights)[0], weights)

    def fail(_):
        raise RuntimeError("stop")

    calls = []
    monkeypatch.setattr(tanh, "_gradient", lambda *_, **__: calls.append(1))
    hook = out.register_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        torch.autograd.grad(loss, weights, retain_graph=True)
    hook.remove()
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(loss, weights, retain_graph=True), theirs)
    some = torch.autograd.grad(loss, [out, weights[1]], retain_graph=True)
    torch.testing.assert_close(some[1], theirs[1])
    assert not calls


def test_second_order_parts_of_outputs_that_are_not_differentiated():
    x, weights = network((3, 4, 3, 2))
    ours, theirs = (updated(function(x), weights, linear=True)[0] for function in (fused, plain))
    for wanted in (weights, weights[1:2]):
        found = torch.autograd.grad(ours, wanted, retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(
            found, torch.autograd.grad(theirs, wanted, retain_graph=True, materialize_grads=True)
        )


@pytest.mark.parametrize("graph", [True, False])
def test_frozen_weights_and_inputs_with_a_gradient(graph):
    x, weights = network((3, 4, 3, 2))
    frozen = [weight.detach() if i % 2 else weight for i, weight in enumerate(weights)]
    inputs = [weight for weight in frozen if weight.requires_grad]
    given = x.clone().requires_grad_()
    for at, wanted in ((x, inputs), (given, [*inputs, given])):
        ours, theirs = (
            torch.autograd.grad(function(at)(*frozen).square().sum(), wanted, create_graph=graph)
            for function in (fused, plain)
        )
        torch.testing.assert_close(ours, theirs)
        if graph:
            seconds = [torch.autograd.grad(sum(g.square().sum() for g in first), wanted) for first in (ours, theirs)]
            torch.testing.assert_close(*seconds)


def test_repeated_weights_add_up_their_gradients():
    x, weights = network((3, 4, 2), tasks=1)
    groups = even_groups(4, 2)
    stacked = [weight.expand(4, *weight.shape[1:]) for weight in weights]
    ours, theirs = (
        torch.autograd.grad(function(x, groups)(*stacked).square().sum(), weights) for function in (fused, plain)
    )
    torch.testing.assert_close(ours, theirs)


def test_even_groups_hold_every_task_once_and_few_rows(monkeypatch):
    monkeypatch.setattr("metaduel.agents.policies.groups.ROWS", 10)
    groups = even_groups(7, 3)
    assert [group.n for group in groups] == [3, 3, 1]
    assert [group.first for group in groups] == [0, 9, 18]
    assert [list(range(7))[group.sets] for group in groups] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [group.start for group in even_groups(2, 25)] == [0, 9, 18, 0, 9, 18]
    assert [group.first for group in even_groups(2, 25)] == [0, 9, 18, 25, 34, 43]
    x, weights = network((3, 4, 2), tasks=7, rows=21)
    one = (Group(slice(0, 7), 0, 7, 3),)
    torch.testing.assert_close(fused(x, groups)(*weights), plain(x, one)(*weights))


def test_rows_of_one_set_in_several_groups():
    x, weights = network((3, 4, 3, 2))
    torch.testing.assert_close(fused(x, CUT)(*weights), plain(x, CUT)(*weights))
    assert torch.autograd.gradcheck(fused(x, CUT), weights)
    assert torch.autograd.gradgradcheck(fused(x, CUT), weights)
    values = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.equal(spread(values, CUT), values[[1, 1, 1, 1, 2, 2, 0, 0]])
    assert torch.autograd.gradcheck(lambda v: spread(v, CUT), values)
    assert torch.autograd.gradgradcheck(lambda v: spread(v, CUT) ** 2, values)


def test_spreading_is_differentiable():
    values = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    rows = spread(values, GROUPS)
    assert torch.equal(rows, values[[2, 2, 2, 0, 0, 0, 1, 1]])
    assert torch.autograd.gradcheck(lambda v: spread(v, GROUPS), values)
    assert torch.autograd.gradgradcheck(lambda v: spread(v, GROUPS) ** 2, values)


@pytest.mark.parametrize("sizes", SIZES)
def test_folded_weights_act_the_same(sizes):
    x, weights = network(sizes, rows=24)
    matrices, biases = weights[: len(sizes) - 1], weights[len(sizes) - 1 :]
    given = x.view(3, 8, -1)
    with torch.no_grad():
        ours = tanh.acting(given, *tanh.folded(matrices, biases))
    torch.testing.assert_close(ours, tanh.played(given, matrices, biases), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.flatten(0, 1), plain(x, even_groups(3, 8))(*weights), rtol=1e-12, atol=1e-12)


def test_single_precision_is_as_good_as_promised():
    x = torch.linspace(-9, 9, 20_001).unsqueeze(1)
    one = [torch.ones(1, 1, 1), torch.ones(1, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1)]
    exact = torch.tanh(x.double())
    for out in (
        tanh_network(x, one[:2], one[2:], even_groups(1, len(x))),
        tanh.played(x.unsqueeze(0), one[:2], one[2:])[0],
        tanh.acting(x.unsqueeze(0), *tanh.folded(one[:2], one[2:]))[0],
    ):
        assert (out.double() - exact).abs().max() <= 1.5 * 2**-23
