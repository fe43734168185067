"""Vectors in the plane: a few by hand, and every row by itself."""

import math

import pytest
import torch

from metaduel.envs.core import geometry

VECTORS = torch.tensor([[3.0, 4.0], [-0.3, 0.4], [0.0, 0.0], [1e-9, 0.0]], dtype=torch.float64)


def test_lengths_and_cuts():
    assert geometry.length(VECTORS).tolist() == [5.0, 0.5, 0.0, 1e-9]
    cut = geometry.unit_disc(VECTORS)
    assert cut[0].tolist() == [0.6, 0.8]
    assert torch.equal(cut[1:], VECTORS[1:])  # inside already
    unit = geometry.unit(VECTORS)
    assert unit.tolist() == [[0.6, 0.8], [-0.6, 0.8], [0.0, 0.0], [pytest.approx(1e-3), 0.0]]


def test_directions():
    assert torch.allclose(geometry.polar(torch.tensor([0.0, math.pi / 2])), torch.eye(2), atol=1e-7)
    assert geometry.left_of(VECTORS[:2]).tolist() == [[-4.0, 3.0], [-0.4, -0.3]]
    assert geometry.dot(VECTORS[:2], VECTORS[[0, 0]]).tolist() == [[25.0], [pytest.approx(0.7)]]


def test_pairs_stand_side_by_side():
    pair = geometry.both(VECTORS, -VECTORS)
    assert torch.equal(pair[:, 0], VECTORS)
    assert torch.equal(pair[:, 1], -VECTORS)
    assert torch.equal(geometry.unit_disc(pair)[:, 1], -geometry.unit_disc(VECTORS))


@pytest.mark.parametrize("function", [geometry.length, geometry.unit_disc, geometry.unit, geometry.left_of])
def test_a_row_has_the_same_bits_in_any_batch_and_layout(function):
    rows = torch.randn(37, 2, generator=torch.Generator().manual_seed(0))
    together = function(rows)
    assert torch.equal(together, torch.cat([function(row.unsqueeze(0)) for row in rows]))
    assert torch.equal(together, function(rows.t().contiguous().t()))
