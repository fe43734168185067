"""Units over whole episodes against a loop over their steps that autograd records, derivatives included."""

import pytest
import torch

from metaduel.agents.policies import recurrence

N, T, M, H = 2, 5, 3, 4


def lstm_loop(given, weight, steps):
    hidden = cells = given.new_zeros(len(given), given.shape[1] // steps, weight.shape[1])
    result = []
    for share in given.view(len(given), steps, -1, given.shape[-1]).unbind(1):
        enter, keep, new, leave = torch.sigmoid(share + hidden @ weight).chunk(4, -1)
        cells = keep * cells + enter * (2 * new - 1)
        hidden = leave * torch.tanh(cells)
        result.append(hidden)
    return torch.stack(result, 1)


def gru_loop(given, weight, bias, start, steps):
    hidden, result = start, []
    for share in given.view(len(given), steps, -1, given.shape[-1]).unbind(1):
        new, reset, keep = share.chunk(3, -1)
        own_reset, own_keep, own = (hidden @ weight).chunk(3, -1)
        reset, keep = torch.sigmoid(reset + own_reset), torch.sigmoid(keep + own_keep)
        new = torch.tanh((new + reset * (own + bias.unsqueeze(1))) / 2)
        hidden = new + keep * (hidden - new)
        result.append(hidden)
    return torch.stack(result, 1)


def random(*sizes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]


LSTM = (recurrence.lstm, lstm_loop, [(N, T * M, 4 * H), (N, H, 4 * H)])
GRU = (recurrence.gru, gru_loop, [(N, T * M, 3 * H), (N, H, 3 * H), (N, H), (N, M, H)])


def derivatives(unit, inputs, recorded):
    """Outputs and the derivatives of three orders; ``recorded``: the second with a graph, too."""
    out = unit(inputs[0].clone(), *inputs[1:], T)
    first = torch.autograd.grad(out.pow(3).sum() + out[:, ::2].sum(), inputs, create_graph=True)
    size = sum(part.square().sum() for part in first)
    second = torch.autograd.grad(size, inputs, create_graph=recorded, retain_graph=True)
    if not recorded:
        return [out, *first, *second]
    third = torch.autograd.grad(sum(part.square().sum() for part in second), inputs)
    return [out, *first, *second, *third]


@pytest.mark.parametrize(("unit", "loop", "sizes"), [LSTM, GRU])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("block", [1 << 17, 2 * N * M * H])  # all steps at once, or two
def test_a_unit_and_its_derivatives_equal_a_loop_that_autograd_records(unit, loop, sizes, recorded, block, monkeypatch):
    monkeypatch.setattr(recurrence, "BLOCK", block)
    inputs = random(*sizes)
    found, expected = (derivatives(one, inputs, recorded) for one in (unit, loop))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * float(other.detach().abs().max()))


@pytest.mark.parametrize(("unit", "loop", "sizes"), [LSTM, GRU])
def test_single_precision_stays_close(unit, loop, sizes):
    inputs = random(*sizes, dtype=torch.float32)
    single = derivatives(unit, inputs, False)
    exact = derivatives(loop, [value.detach().double().requires_grad_() for value in inputs], False)
    for one, other in zip(single, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * float(other.detach().abs().max()))


@pytest.mark.parametrize(("unit", "sizes"), [(LSTM[0], LSTM[2]), (GRU[0], GRU[2])])
def test_derivatives_equal_finite_differences(unit, sizes):
    def run(given, *rest):
        return unit(given.clone(), *rest, 3)

    inputs = [value[:1].detach().requires_grad_() for value in random(*sizes)]
    inputs[0] = inputs[0][:, : 3 * 2].detach().requires_grad_()
    inputs[3:] = [value[:, :2].detach().requires_grad_() for value in inputs[3:]]
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize(("unit", "loop", "sizes"), [LSTM, GRU])
def test_one_step_and_constants_among_the_inputs(unit, loop, sizes):
    given, *rest = random(*sizes)
    given, rest = given[:, :M].detach(), [rest[0], *(part.detach() for part in rest[1:])]
    for one, other in zip(
        *(
            torch.autograd.grad(f(given.clone(), *rest, 1).square().sum(), rest[0], materialize_grads=True)
            for f in (unit, loop)
        ),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("unit", "sizes"), [(LSTM[0], LSTM[2]), (GRU[0], GRU[2])])
def test_every_call_gives_the_same_numbers(unit, sizes):
    inputs = random(*sizes, dtype=torch.float32)
    once, again = (derivatives(unit, inputs, False) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


@pytest.mark.parametrize("block", [1 << 16, 1])  # all steps at once, or one
def test_packed_sequences_equal_a_loop_that_autograd_records(block, monkeypatch):
    monkeypatch.setattr(recurrence, "PACKED_BLOCK", block)
    sizes = [3, 3, 2, 1, 1]
    given, weight, bias, start = random((1, T * M, 3 * H), (1, H, 3 * H), (1, H), (1, M, H))
    there = torch.stack([torch.arange(M) < size for size in sizes]).flatten()
    found = recurrence.packed_gru(given[0][there], weight[0], bias[0], start[0], sizes)
    expected = gru_loop(given, weight, bias, start, T).flatten(0, 2)[there]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    scale = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    inputs = given, weight, bias, start
    for one, other in zip(
        torch.autograd.grad((found * scale).sum(), inputs),
        torch.autograd.grad((expected * scale).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
