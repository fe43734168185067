"""Networks on stacked weights equal torch's own layers, task by task, with their gradients of gradients."""

import pytest
import torch
from torch.nn import functional

from metaduel.agents.networks import EPSILON, Convolutional, Dense, folded, spectrally_normalised, windows


def doubled(weights, tasks, seed=0):
    """Different double-precision weights for each task."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.double() + 0.1 * torch.randn(tasks, *value.shape, generator=generator, dtype=torch.float64)
        for name, value in weights.items()
    }


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)])
def test_windows_are_torchs_and_folded_is_their_transpose(size):
    x = images(3, *size, 2)
    theirs = functional.unfold(x.permute(0, 3, 1, 2), 3, padding=1, stride=2)  # [B, C * 9, L]
    theirs = theirs.unflatten(1, (2, 9)).permute(0, 3, 2, 1).flatten(2)
    ours = windows(x)
    assert torch.equal(ours, theirs)
    g = images(*ours.shape)
    torch.testing.assert_close((ours * g).sum(), (x * folded(g, *size)).sum())
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: windows(x).square(), x)
    assert torch.autograd.gradgradcheck(lambda x: windows(x).pow(3), x)


@pytest.mark.parametrize("normalise", [True, False])
def test_convolutional_network_is_torchs_layers(normalise):
    net, x = Convolutional(1, 5, (6, 6, 4), normalise=normalise), images(2, 4, 12, 12, 1)
    weights = doubled(net.init(0), 2)
    ours = net(weights, x)
    for task in range(2):
        own = {name: value[task] for name, value in weights.items()}
        y = x[task].permute(0, 3, 1, 2)
        for i in range(3):
            matrix, bias = own[f"layer{i}.weight"], own[f"layer{i}.bias"]
            kernel = matrix.view(3, 3, -1, matrix.shape[1]).permute(3, 2, 0, 1)
            y = functional.conv2d(y, kernel, None if normalise else bias, 2, 1)
            if normalise:
                y = functional.batch_norm(y, None, None, own[f"layer{i}.scale"], bias, True, eps=EPSILON)
            y = torch.relu(y)
        expected = y.mean((2, 3)) @ own["layer3.weight"] + own["layer3.bias"]
        torch.testing.assert_close(ours[task], expected)


@pytest.mark.parametrize("net", [Convolutional(1, 3, (3, 3)), Dense((36, 5, 3), normalise=True)])
def test_gradients_of_gradients(net):
    x = images(2, 4, 6, 6, 1)
    weights = doubled(net.init(0), 2)
    names = list(weights)
    inputs = [weights[name].requires_grad_() for name in names]

    def run(*tensors):
        return torch.tanh(net(dict(zip(names, tensors, strict=True)), x)).sum()

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_spectral_normalisation():
    weights = doubled(Dense((6, 5, 4)).init(0), 3)
    sizes = torch.linalg.matrix_norm(spectrally_normalised(weights, iterations=200)["layer0.weight"], 2)
    torch.testing.assert_close(sizes, torch.ones(3, dtype=torch.float64))
    assert torch.equal(spectrally_normalised(weights)["layer0.bias"], weights["layer0.bias"])
