"""Characters of our own, of no known script: classes of pen strokes, and drawings of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SIDE = 28  # pixels
DRAWINGS = 20  # of a class, in our characters as in Omniglot
POINTS = 36  # along a stroke
STROKES, PIECES = 4, 3  # at most, of a character and of a stroke


class _Characters(NamedTuple):
    """The features of classes, [classes, strokes, ...] each."""

    exists: Tensor  # [C, S] bool
    heading: Tensor  # [C, S] rad, in which a stroke sets out
    turn: Tensor  # [C, S, P] rad, along each of its pieces
    corner: Tensor  # [C, S, P] rad, before each of them
    length: Tensor  # [C, S, P] of a piece
    host: Tensor  # [C, S] int64, the earlier stroke that it starts at
    along: Tensor  # [C, S] in [0, 1], where on it
    gap: Tensor  # [C, S, 2] how far from there


def characters(classes: int = 1000, drawings: int = DRAWINGS, seed: int = 0) -> Tensor:
    """Handwritten characters of no known script: [classes, drawings, 28, 28] in [0, 1].

    A class is one to four strokes, each a pen's path of up to three arcs with corners between them, most of which start on an
    earlier one. Drawings of it differ in every turn and length, in slant, size and place, and in the pen's width and pressure.

    Args:
        classes: how many.
        drawings: of each.
        seed: of all of it.
    """
    generator = torch.Generator().manual_seed(seed)
    alphabet = _alphabet(classes, generator)
    images = torch.empty(classes, drawings, SIDE, SIDE, dtype=torch.float32, device="cpu")
    for first in range(0, classes, 25):  # a distance from every pixel to every point: in parts, for memory
        part = _Characters(*(field[first : first + 25] for field in alphabet))
        images[first : first + 25] = _drawn(part, drawings, generator)
    return images


def _alphabet(n: int, generator: torch.Generator) -> _Characters:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(n, *shape, generator=generator, dtype=torch.float32, device="cpu")
        return low + (high - low) * drawn

    def whole(chances: Sequence[float], count: int) -> Tensor:
        weights = torch.tensor(chances, dtype=torch.float32, device="cpu")
        return torch.multinomial(weights, count, True, generator=generator) + 1

    strokes = whole((0.15, 0.35, 0.35, 0.15), n)
    pieces = whole((0.4, 0.4, 0.2), n * STROKES).view(n, STROKES)
    stroke = torch.arange(STROKES, dtype=torch.int64, device="cpu")
    piece = torch.arange(PIECES, dtype=torch.int64, device="cpu")
    exists = stroke < strokes.unsqueeze(1)
    # A pen goes down and to the right, in straight lines, gentle arcs, and now and then a loop.
    heading = torch.round(uniform(-0.5, 4.5, STROKES)) * (math.pi / 4) + uniform(-0.25, 0.25, STROKES) - math.pi / 4
    bent = uniform(0, 1, STROKES, PIECES)
    turn = torch.where(
        bent < 0.4, 0.0, uniform(0.8, 2.6, STROKES, PIECES) * torch.where(bent < 0.92, 1.0, torch.full_like(bent, 2.2))
    )
    turn = turn * torch.sign(uniform(-1, 1, STROKES, PIECES))
    corner = uniform(1.0, 2.4, STROKES, PIECES) * torch.sign(uniform(-1, 1, STROKES, PIECES))
    corner = torch.where(uniform(0, 1, STROKES, PIECES) < 0.6, corner, 0.0)
    corner[:, :, 0] = 0
    length = uniform(0.35, 1.0, STROKES, PIECES) * (piece < pieces.unsqueeze(2))
    length[:, 0] *= 1.3  # the first stroke is the character's back
    host = (uniform(0, 1, STROKES) * stroke.clamp(min=1)).floor().long()
    along = torch.round(uniform(-0.4, 4.4, STROKES)).clamp(0, 4) / 4
    loose = uniform(0, 1, STROKES, 1) < 0.35
    gap = torch.where(loose, uniform(-0.45, 0.45, STROKES, 2), 0.0)
    return _Characters(exists, heading, turn, corner, length, host, along, gap)


def _paths(c: _Characters) -> Tensor:
    """The pen's points [..., strokes, POINTS, 2] of characters whose fields have any leading dimensions."""
    where = torch.linspace(0, 1, POINTS, dtype=torch.float32, device="cpu")
    ends = torch.cumsum(c.length, -1)
    reached = where * ends[..., -1:]  # [..., S, POINTS] along the stroke
    into = (reached.unsqueeze(-1) - (ends - c.length).unsqueeze(-2)) / c.length.clamp(min=1e-6).unsqueeze(-2)
    begun = (into > 0) & (c.length > 0).unsqueeze(-2)
    angle = c.heading.unsqueeze(-1) + torch.where(
        begun, c.corner.unsqueeze(-2) + c.turn.unsqueeze(-2) * into.clamp(0, 1), 0.0
    ).sum(-1)
    step = ends[..., -1:] / (POINTS - 1)
    path = torch.cumsum(torch.stack([torch.cos(angle) * step, torch.sin(angle) * step], -1), -2)
    strokes = [path[..., 0, :, :]]
    for s in range(1, STROKES):
        earlier = torch.stack(strokes, -3)
        host = c.host[..., s].view(*c.host.shape[:-1], 1, 1, 1).expand(*earlier.shape[:-3], 1, POINTS, 2)
        place = (c.along[..., s] * (POINTS - 1)).long()
        place = place.view(*place.shape, 1, 1, 1).expand(*place.shape, 1, 1, 2)
        start = earlier.gather(-3, host).gather(-2, place).squeeze(-3)
        strokes.append(path[..., s, :, :] + start + c.gap[..., s, None, :])
    return torch.stack(strokes, -3)


def _drawn(c: _Characters, drawings: int, generator: torch.Generator) -> Tensor:
    """Drawings [classes, drawings, SIDE, SIDE] of characters."""
    classes = len(c.exists)

    def normal(scale: float, *shape: int) -> Tensor:
        drawn = torch.randn(classes, drawings, *shape, generator=generator, dtype=torch.float32, device="cpu")
        return scale * drawn

    one = _Characters(*(f.unsqueeze(1).expand(classes, drawings, *f.shape[1:]) for f in c))
    own = one._replace(
        heading=one.heading + normal(0.1, STROKES),
        turn=one.turn * torch.exp(normal(0.12, STROKES, PIECES)) + normal(0.1, STROKES, PIECES),
        corner=one.corner + torch.where(one.corner != 0, normal(0.12, STROKES, PIECES), 0.0),
        length=one.length * torch.exp(normal(0.1, STROKES, PIECES)),
        gap=one.gap + normal(0.04, STROKES, 2),
    )
    seen = c.exists.view(classes, STROKES, 1, 1)
    ideal, points = _paths(c), _paths(own)
    low = torch.where(seen, ideal, math.inf).amin((1, 2))
    high = torch.where(seen, ideal, -math.inf).amax((1, 2))
    extent = (high - low).amax(1).clamp(min=0.3)
    # The class's middle is the page's, and its larger side 18 of 28 pixels, give or take the writer's habit.
    middle = ((low + high) / 2).view(classes, 1, 1, 1, 2)
    shape = torch.eye(2, dtype=torch.float32, device="cpu") + normal(0.08, 2, 2)
    points = (points - middle) / extent.view(classes, 1, 1, 1, 1) * 18
    points = torch.einsum("cdspi,cdij->cdspj", points, shape) + SIDE / 2 + normal(1.0, 1, 1, 2)
    pen = (1.0 + normal(0.2)).clamp(0.75, 1.6).view(classes, drawings, 1, 1)
    wave = torch.linspace(0, 3, POINTS, dtype=torch.float32, device="cpu")
    pressure = 1 + 0.25 * torch.sin(wave + normal(1.5, STROKES, 1))
    width = (pen * pressure).flatten(2)  # [classes, drawings, points]
    grid = torch.arange(SIDE, dtype=torch.float32, device="cpu") + 0.5
    pixels = torch.cartesian_prod(grid, grid).flip(1)  # x to the right, y down, row by row
    # How far a pixel is within the ink of a point at distance d: width - d at the edge, about (width^2 - d^2) / (2 width), which
    # is linear in x, y and x^2 + y^2. So all distances are one product of matrices.
    x, y = points.flatten(2, 3).unbind(-1)
    exists = one.exists.unsqueeze(-1).expand(*own.heading.shape, POINTS).flatten(2)
    inside = torch.where(exists, 0.0, torch.full_like(x, -1e3))
    point = torch.stack(
        [x / width, y / width, -0.5 / width, (width * width - x * x - y * y) / (2 * width) + inside], -1
    )
    pixel = torch.cat([pixels, pixels.square().sum(1, keepdim=True), torch.ones_like(pixels[:, :1])], 1)
    ink = (pixel @ point.mT).amax(-1)
    return torch.sigmoid(3.5 * ink).view(classes, drawings, SIDE, SIDE)
