"""CartPole's scripted players: some know the target and how the motors are wired, others don't."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metaduel.envs.cart_pole.game import Params, State
from metaduel.envs.core.game import View
from metaduel.envs.core.geometry import polar, sign
from metaduel.envs.players.scripted import Option, Scripted

Choice = tuple[Tensor, Tensor]


# Protagonists

_STRENGTH = Option("strength", 1.0, 0.3, 1.0, "share of the largest force")
_PLACE = Option("place", 0.0, -0.8, 0.8, "m: where it balances")
_BRISK = (0.25, 0.22, 0.2, 0.16)  # leans further and faster than the others


def _side(
    view: View, place: Tensor, spring: float = 0.12, friction: float = 0.15, lead: float = 0.3, most: float = 0.1
) -> Tensor:
    """Where to push, [B], to the right where positive, for the cart to come to ``place`` [B] m and to stop there.

    A cart under a leaning pole speeds up to the side of the lean, so place and velocity say how the pole should lean,
    and the push goes to the side to which it leans too much.
    """
    s: State = view.state
    lean = (spring * (place - s.x) - friction * s.speed).clamp(-most, most)
    return s.angle - lean + lead * s.turn


def _wired(view: View, side: Tensor) -> Tensor:
    """The action [B] that pushes to ``side`` with the motor as it is wired."""
    p: Params = view.params
    return _right(side * (1 - 2 * p.reversed))


def _right(side: Tensor) -> Tensor:
    return (side > 0).long()


def _steady(view: View, memory: Tensor, noise: Tensor, spring: float = 0.12, friction: float = 0.15) -> Choice:
    return _wired(view, _side(view, view.params.target, spring, friction)), memory


def _brisk(view: View, memory: Tensor, noise: Tensor, most: float = 0.16) -> Choice:
    return _wired(view, _side(view, view.params.target, *_BRISK[:3], most)), memory


def _shuttle(view: View, memory: Tensor, noise: Tensor, width: float = 0.5, period: float = 100) -> Choice:
    # To the right of the target for half the period, then to its left.
    there = width * sign(view.step % period < period / 2, view.state.x)
    return _wired(view, _side(view, view.params.target + there)), memory


def _stay(view: View, memory: Tensor, noise: Tensor, place: float = 0.0) -> Choice:
    return _wired(view, _side(view, torch.full_like(view.state.x, place))), memory


def _slow(view: View, memory: Tensor, noise: Tensor, period: float = 3) -> Choice:
    # Decides once in a period and holds on to it.
    action = _wired(view, _side(view, view.params.target)).to(memory).unsqueeze(1)
    held = torch.where((view.step % period == 0).unsqueeze(1), action, memory)
    return held[:, 0].long(), held


def _classic(view: View, memory: Tensor, noise: Tensor, place: float = 0.0) -> Choice:
    return _right(_side(view, torch.full_like(view.state.x, place))), memory


def _probe(view: View, memory: Tensor, noise: Tensor) -> Choice:
    # Memory: the last push, the cart's velocity before it, and how far pushes and changes of velocity agreed so far.
    s: State = view.state
    push, before, agreed = memory.unbind(1)
    agreed = agreed + push * (s.speed - before)
    side = _side(view, torch.zeros_like(s.x), *_BRISK)
    action = _right(sign(agreed >= 0, agreed) * side)
    return action, torch.stack([2 * action.to(agreed) - 1, s.speed, agreed], 1)


def _coin(view: View, memory: Tensor, noise: Tensor, right: float = 0.5) -> Choice:
    return _right(noise[:, 0] - (1 - right)), memory


def _alternate(view: View, memory: Tensor, noise: Tensor, period: float = 2) -> Choice:
    return (view.step % period >= period / 2).long(), memory


# Adversaries


def _push_tip(view: View, side: Tensor) -> Tensor:
    """The action [B, 2] that puts all its force on the tip, to the right where ``side`` [B] is not negative."""
    p: Params = view.params
    return sign(side >= 0, side).unsqueeze(1) * polar(-p.wiring)


def _idle(view: View, memory: Tensor, noise: Tensor) -> Choice:
    return torch.zeros_like(view.observation[:, :2]), memory


def _counter(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    return strength * _push_tip(view, view.state.x - view.params.target), memory


def _derail(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    return strength * _push_tip(view, view.params.target), memory


def _ride(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    return strength * _push_tip(view, view.state.speed), memory


def _rock(view: View, memory: Tensor, noise: Tensor, period: float = 100) -> Choice:
    # To the right for half the period and to the left for the other half.
    return _push_tip(view, sign(view.step % period < period / 2, view.state.x)), memory


def _wind(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    # Its mixture of controls is drawn at the first step and kept for the episode.
    angle = torch.where((view.step == 0).unsqueeze(1), noise * (2 * math.pi), memory)
    return strength * polar(angle[:, 0]), angle


def _gusts(view: View, memory: Tensor, noise: Tensor, period: float = 10) -> Choice:
    angle = torch.where((view.step % period == 0).unsqueeze(1), noise * (2 * math.pi), memory)
    return polar(angle[:, 0]), angle


def _guess(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    # Away from the middle, as if its first control drove the tip and its second the cart.
    away = sign(view.state.x >= 0, view.state.x)
    return strength * torch.stack([away, torch.zeros_like(away)]).t(), memory


PLAYERS = (
    Scripted(
        "steady",
        "protagonist",
        "train",
        "knows all; goes gently to the target",
        _steady,
        informed=True,
        options=(
            Option("spring", 0.12, 0.06, 0.2, "rad of lean per m"),
            Option("friction", 0.15, 0.1, 0.25, "rad of lean per m/s"),
        ),
    ),
    Scripted(
        "shuttle",
        "protagonist",
        "train",
        "knows all; goes to and fro about the target",
        _shuttle,
        informed=True,
        options=(
            Option("width", 0.5, 0.2, 0.8, "m to either side"),
            Option("period", 100, 40, 200, "steps to and fro", integer=True),
        ),
    ),
    Scripted(
        "classic",
        "protagonist",
        "train",
        "balances in the middle if its motor is wired right",
        _classic,
        options=(_PLACE,),
    ),
    Scripted(
        "coin",
        "protagonist",
        "train",
        "pushes at random",
        _coin,
        noise=1,
        options=(Option("right", 0.5, 0.3, 0.7, "chance of the right"),),
    ),
    Scripted(
        "brisk",
        "protagonist",
        "held_out",
        "knows all; hurries to the target",
        _brisk,
        informed=True,
        options=(Option("most", 0.16, 0.12, 0.2, "rad: how far it leans"),),
    ),
    Scripted(
        "stay",
        "protagonist",
        "held_out",
        "knows its motor; balances in the middle",
        _stay,
        informed=True,
        options=(_PLACE,),
    ),
    Scripted(
        "slow",
        "protagonist",
        "held_out",
        "knows all; decides at every third step",
        _slow,
        memory=1,
        informed=True,
        options=(Option("period", 3, 2, 5, "steps between decisions", integer=True),),
    ),
    Scripted(
        "probe", "protagonist", "held_out", "finds out its motor's wiring; balances in the middle", _probe, memory=3
    ),
    Scripted(
        "alternate",
        "protagonist",
        "held_out",
        "pushes left and right in turn",
        _alternate,
        options=(Option("period", 2, 2, 10, "steps of a left and a right", integer=True),),
    ),
    Scripted("idle", "adversary", "train", "never pushes", _idle),
    Scripted(
        "counter",
        "adversary",
        "train",
        "knows all; pushes the tip away from the target",
        _counter,
        informed=True,
        options=(_STRENGTH,),
    ),
    Scripted(
        "ride",
        "adversary",
        "train",
        "knows its wiring; pushes the tip along the cart's movement",
        _ride,
        informed=True,
        options=(_STRENGTH,),
    ),
    Scripted(
        "wind",
        "adversary",
        "train",
        "applies one mixture of forces, drawn for each episode",
        _wind,
        memory=1,
        noise=1,
        options=(_STRENGTH,),
    ),
    Scripted(
        "derail",
        "adversary",
        "held_out",
        "knows all; pushes towards the end nearer to the target",
        _derail,
        informed=True,
        options=(_STRENGTH,),
    ),
    Scripted(
        "rock",
        "adversary",
        "held_out",
        "knows its wiring; pushes the tip right and left in turn",
        _rock,
        informed=True,
        options=(Option("period", 100, 20, 200, "steps to and fro", integer=True),),
    ),
    Scripted(
        "gusts",
        "adversary",
        "held_out",
        "applies a new mixture of forces every 10 steps",
        _gusts,
        memory=1,
        noise=1,
        options=(Option("period", 10, 3, 40, "steps of a gust", integer=True),),
    ),
    Scripted(
        "guess",
        "adversary",
        "held_out",
        "pushes away from the middle, blind to its wiring",
        _guess,
        options=(_STRENGTH,),
    ),
)
