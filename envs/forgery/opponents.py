"""Forgery's scripted players: forgers and judges that know the real distribution, or a part of it, and some that don't."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metaduel.envs.core.game import View
from metaduel.envs.forgery.game import (
    CERTAIN,
    EXTENT,
    RING,
    Params,
    State,
    mode_place,
    real_sample,
)
from metaduel.envs.players.scripted import Option, Scripted

Choice = tuple[Tensor, Tensor]
_MODES = 9  # the most that a task has
_REMEMBERED = 6  # points that the judge by familiarity keeps


def _emit(place: Tensor) -> Tensor:
    """The action that makes the sample ``place`` [B, 2] m, or the nearest one in the plane."""
    return (place * (1 / EXTENT)).clamp(-1.0, 1.0)


def _numbers(view: View) -> Tensor:
    """[B, 3] in [0, 1): the latent noise."""
    state: State = view.state
    return 0.5 * (state.latent + 1)


def _kept(view: View, memory: Tensor, noise: Tensor) -> Tensor:
    """Noise of the first step, kept for the episode."""
    return torch.where((view.step == 0).unsqueeze(1), noise, memory)


def _normal(numbers: Tensor) -> Tensor:
    """[B, 2] standard normals of two uniforms."""
    far, around = (column.contiguous() for column in numbers.unbind(1))
    distance, angle = torch.sqrt(-2 * torch.log1p(-far)), around * (2 * math.pi)
    return torch.stack([distance * torch.cos(angle), distance * torch.sin(angle)], 1)


# Generators


def _forger(view: View, memory: Tensor, noise: Tensor) -> Choice:
    return _emit(real_sample(view.params, _numbers(view))), memory


def _collapsed(view: View, memory: Tensor, noise: Tensor) -> Choice:
    # Always the same mode, drawn at the first step.
    kept = _kept(view, memory, noise)
    return _emit(real_sample(view.params, torch.cat([kept, _numbers(view)[:, 1:]], 1))), kept


def _blurred(view: View, memory: Tensor, noise: Tensor, factor: float = 3.5) -> Choice:
    params: Params = view.params
    return _emit(real_sample(params._replace(spread=factor * params.spread), _numbers(view))), memory


def _shifted(view: View, memory: Tensor, noise: Tensor, distance: float = 1.0) -> Choice:
    # Everything moved by a multiple of the radius, in a direction drawn at the first step.
    kept = _kept(view, memory, noise)
    angle = kept[:, 0].contiguous() * (2 * math.pi)
    move = distance * view.params.radius * torch.stack([torch.cos(angle), torch.sin(angle)])
    return _emit(real_sample(view.params, _numbers(view)) + move.t()), kept


def _hollow(view: View, memory: Tensor, noise: Tensor, factor: float = 1.0) -> Choice:
    # The outline alone: anywhere on the circle.
    params: Params = view.params
    whole = params._replace(shape=torch.full_like(params.shape, RING), modes=torch.full_like(params.modes, 64.0))
    whole = whole._replace(spread=factor * params.spread)
    return _emit(real_sample(whole, _numbers(view))), memory


def _mirrored(view: View, memory: Tensor, noise: Tensor, part: float = 1.0) -> Choice:
    # The real distribution on the other side of the plane.
    return _emit(-part * real_sample(view.params, _numbers(view))), memory


def _uniform(view: View, memory: Tensor, noise: Tensor, extent: float = 1.0) -> Choice:
    return extent * view.state.latent[:, :2], memory


def _stranger(view: View, memory: Tensor, noise: Tensor) -> Choice:
    # A good forger of another task's distribution, drawn at the first step.
    kept = _kept(view, memory, noise)
    shape, x, y, radius, modes, rotation = kept.unbind(1)
    other = Params(
        torch.floor(3 * shape),
        1.6 * x - 0.8,
        1.6 * y - 0.8,
        0.4 + 0.3 * radius,
        3 + torch.floor(4 * modes),
        torch.full_like(x, 0.08),
        2 * math.pi * rotation,
    )
    return _emit(real_sample(other, _numbers(view))), kept


def _blob(view: View, memory: Tensor, noise: Tensor, spread: float = 0.7) -> Choice:
    return _emit(spread * _normal(_numbers(view)[:, :2])), memory


def _stamp(view: View, memory: Tensor, noise: Tensor) -> Choice:
    # One and the same point, drawn at the first step.
    kept = _kept(view, memory, noise)
    return _emit(2.4 * kept - 1.2), kept


def _roamer(view: View, memory: Tensor, noise: Tensor, stride: float = 0.25) -> Choice:
    # Walks about: every point is near the last one.
    start = torch.where((view.step == 0).unsqueeze(1), 1.6 * noise - 0.8, memory)
    place = (start + stride * view.state.latent[:, :2]).clamp(-1.4, 1.4)
    return _emit(place), place


# Discriminators


def _verdict(probability: Tensor) -> Tensor:
    """The action that calls a point real with ``probability`` [B], or as nearly so as may be."""
    return ((2 * probability - 1) * (1 / (2 * CERTAIN - 1))).clamp(-1.0, 1.0).unsqueeze(1)


def _squared_distances(view: View) -> tuple[Tensor, Tensor]:
    """Of the shown point to every mode, [9, B] m^2, and which of the modes there are, [9, B] bool."""
    params: Params = view.params
    numbers = torch.arange(_MODES, dtype=params.radius.dtype, device=params.radius.device)
    numbers = numbers.unsqueeze(1).expand(-1, params.radius.shape[0])
    x, y = mode_place(params, numbers)
    shown_x, shown_y = view.state.shown.t()
    gap_x, gap_y = shown_x - x, shown_y - y
    return gap_x * gap_x + gap_y * gap_y, numbers < params.modes


def _density(view: View) -> Tensor:
    """Of the real distribution at the shown point, [B] 1/m^2."""
    params: Params = view.params
    squared, there = _squared_distances(view)
    variance = params.spread * params.spread
    bumps = torch.exp(-0.5 * squared / variance) * there
    total = bumps[0]
    for bump in bumps[1:]:
        total = total + bump
    return total / (2 * math.pi * variance * params.modes)


_EVEN = 1 / (4 * EXTENT * EXTENT)  # 1/m^2: the density of points all over the plane


def _expert(view: View, memory: Tensor, noise: Tensor, trust: float = 0.5) -> Choice:
    # Bayes' rule, if forgeries are as good as real in a share of the cases and all over the plane in the others.
    density = _density(view)
    return _verdict(density / ((1 + trust) * density + (1 - trust) * _EVEN)), memory


def _strict(view: View, memory: Tensor, noise: Tensor) -> Choice:
    # Bayes' rule, if forgeries are all over the plane.
    density = _density(view)
    return _verdict(density / (density + _EVEN)), memory


def _critic(view: View, memory: Tensor, noise: Tensor, doubt: float = 4.0) -> Choice:
    # The nearer to a mode, the better, from afar on.
    squared, there = _squared_distances(view)
    nearest = torch.where(there, squared, 100.0).amin(0)
    beyond = (torch.sqrt(nearest) - 2 * view.params.spread).clamp(min=0.0)
    return _verdict(0.7 / (1 + doubt * beyond)), memory


def _from_centre(view: View) -> Tensor:
    """Distance of the shown point from the distribution's middle, [B] m."""
    params: Params = view.params
    x, y = view.state.shown.t()
    gap_x, gap_y = x - params.centre_x, y - params.centre_y
    return torch.sqrt(gap_x * gap_x + gap_y * gap_y)


def _radial(view: View, memory: Tensor, noise: Tensor, belief: float = 0.65) -> Choice:
    # Inside the circle around the distribution, and not far inside.
    params: Params = view.params
    share = _from_centre(view) / (params.radius + 2 * params.spread)
    inside = torch.where(share < 0.3, 0.4, torch.full_like(share, belief))
    return _verdict(torch.where(share > 1, 0.1, inside)), memory


def _locator(view: View, memory: Tensor, noise: Tensor, belief: float = 0.68) -> Choice:
    # Knows no more than the middle.
    near = _from_centre(view)
    return _verdict(belief * torch.exp(-near * near)), memory


def _undecided(view: View, memory: Tensor, noise: Tensor, belief: float = 0.5) -> Choice:
    return _verdict(torch.full_like(view.state.begun, belief)), memory


def _doubter(view: View, memory: Tensor, noise: Tensor, belief: float = 0.3) -> Choice:
    # In a mood that changes, but never convinced.
    return _verdict(belief + 0.15 * noise[:, 0]), memory


def _prior(view: View, memory: Tensor, noise: Tensor, belief: float = 0.75) -> Choice:
    # What is known of all tasks: their distributions are around the middle of the plane.
    far = view.state.shown.abs().amax(1)
    return _verdict((belief - 0.35 * far).clamp(0.1, 0.6)), memory


def _familiar(view: View, memory: Tensor, noise: Tensor, near: float = 0.15) -> Choice:
    # Believes in what is close to any of the last points that it was shown.
    shown = view.state.shown
    nearest = torch.full_like(shown[:, 0], 100.0)
    for x, y in memory.reshape(-1, _REMEMBERED, 2).permute(1, 2, 0):
        gap_x, gap_y = shown[:, 0] - x, shown[:, 1] - y
        nearest = torch.minimum(nearest, gap_x * gap_x + gap_y * gap_y)
    return _verdict(torch.where(nearest < near * near, nearest.new_full((), 0.62), 0.42)), torch.cat(
        [shown, memory[:, :-2]], 1
    )


PLAYERS = (
    Scripted("forger", "protagonist", "train", "knows the distribution and draws from it", _forger, informed=True),
    Scripted(
        "collapsed",
        "protagonist",
        "train",
        "knows the distribution; makes only one of its modes",
        _collapsed,
        memory=1,
        noise=1,
        informed=True,
    ),
    Scripted(
        "blurred",
        "protagonist",
        "train",
        "knows the distribution; blurs it",
        _blurred,
        informed=True,
        options=(Option("factor", 3.5, 2.0, 6.0, "times the spread"),),
    ),
    Scripted(
        "uniform",
        "protagonist",
        "train",
        "samples the whole plane evenly",
        _uniform,
        options=(Option("extent", 1.0, 0.5, 1.0, "share of the plane"),),
    ),
    Scripted("stranger", "protagonist", "train", "forges another distribution", _stranger, memory=6, noise=6),
    Scripted(
        "shifted",
        "protagonist",
        "held_out",
        "knows the distribution; draws from it, shifted",
        _shifted,
        memory=1,
        noise=1,
        informed=True,
        options=(Option("distance", 1.0, 0.5, 1.5, "radii by which it is off"),),
    ),
    Scripted(
        "hollow",
        "protagonist",
        "held_out",
        "knows the outline; samples along it",
        _hollow,
        informed=True,
        options=(Option("factor", 1.0, 0.5, 3.0, "times the spread"),),
    ),
    Scripted(
        "mirrored",
        "protagonist",
        "held_out",
        "knows the distribution; makes its mirror image",
        _mirrored,
        informed=True,
        options=(Option("part", 1.0, 0.6, 1.2, "how far out"),),
    ),
    Scripted(
        "blob",
        "protagonist",
        "held_out",
        "draws from one wide Gaussian in the middle of the plane",
        _blob,
        options=(Option("spread", 0.7, 0.3, 1.0, "m"),),
    ),
    Scripted("stamp", "protagonist", "held_out", "makes the same point again and again", _stamp, memory=2, noise=2),
    Scripted(
        "roamer",
        "protagonist",
        "held_out",
        "walks about the plane",
        _roamer,
        memory=2,
        noise=2,
        options=(Option("stride", 0.25, 0.1, 0.6, "m"),),
    ),
    Scripted(
        "expert",
        "adversary",
        "train",
        "knows the distribution; expects good and bad forgers",
        _expert,
        informed=True,
        options=(Option("trust", 0.5, 0.3, 0.8, "share of forgers that are good"),),
    ),
    Scripted(
        "critic",
        "adversary",
        "train",
        "knows the modes; scores by the distance to the nearest",
        _critic,
        informed=True,
        options=(Option("doubt", 4.0, 2.0, 8.0, "1/m"),),
    ),
    Scripted(
        "undecided",
        "adversary",
        "train",
        "never decides",
        _undecided,
        options=(Option("belief", 0.5, 0.4, 0.6, "probability"),),
    ),
    Scripted(
        "prior",
        "adversary",
        "train",
        "believes points near the middle of the plane",
        _prior,
        options=(Option("belief", 0.75, 0.55, 0.85, "probability in the middle, before it is cut at 0.6"),),
    ),
    Scripted("strict", "adversary", "held_out", "knows the distribution; expects bad forgers", _strict, informed=True),
    Scripted(
        "radial",
        "adversary",
        "held_out",
        "knows the outline; believes points near it",
        _radial,
        informed=True,
        options=(Option("belief", 0.65, 0.55, 0.8, "probability"),),
    ),
    Scripted(
        "locator",
        "adversary",
        "held_out",
        "knows the middle; believes points near it",
        _locator,
        informed=True,
        options=(Option("belief", 0.68, 0.55, 0.8, "probability"),),
    ),
    Scripted(
        "doubter",
        "adversary",
        "held_out",
        "calls everything forged, more or less",
        _doubter,
        noise=1,
        options=(Option("belief", 0.3, 0.15, 0.4, "probability, at least"),),
    ),
    Scripted(
        "familiar",
        "adversary",
        "held_out",
        "believes points near those that it has seen before",
        _familiar,
        memory=2 * _REMEMBERED,
        options=(Option("near", 0.15, 0.05, 0.4, "m"),),
    ),
)
