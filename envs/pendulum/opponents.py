"""Pendulum's scripted players: some know the target and how the motors are wired, others don't."""

from __future__ import annotations

import torch
from torch import Tensor

from metaduel.envs.core.game import View
from metaduel.envs.core.geometry import sign
from metaduel.envs.pendulum.game import DT, Params, State, wrap
from metaduel.envs.players.scripted import Option, Scripted

Choice = tuple[Tensor, Tensor]


def _error(view: View, target: Tensor) -> Tensor:
    """[B] rad from ``target``."""
    state: State = view.state
    return wrap(state.angle - target)


def _gravity(view: View) -> Tensor:
    """[B] N m: how gravity twists it."""
    p: Params = view.params
    return p.weight * torch.sin(view.state.angle.contiguous()) / p.inverse_inertia


def _pull_to(view: View, target: Tensor, stiffness: float, friction: float, lift: float = 1.0) -> Tensor:
    """[B] N m: a spring and a damper to ``target``, and ``lift`` times what gravity takes."""
    state: State = view.state
    pull = -stiffness * _error(view, target) - friction * state.speed
    return pull - lift * _gravity(view)


def _apply(torque: Tensor, motor: Tensor) -> Tensor:
    """The action [B, 1] that makes ``torque`` [B] N m, as far as ``motor`` [B] N m reaches."""
    return (torque / motor).clamp(-1.0, 1.0).unsqueeze(1)


def _full(side: Tensor, motor: Tensor) -> Tensor:
    """The action [B, 1] that twists with all force, anticlockwise where ``side`` [B] is not negative."""
    return sign((side >= 0) == (motor >= 0), side).unsqueeze(1)


_STRENGTH = Option("strength", 1.0, 0.3, 1.0, "share of its torque")

# Protagonists

_STIFF = (18.0, 3.5)  # N m / rad, N m s


def _servo(view: View, memory: Tensor, noise: Tensor, stiffness: float = 18.0, friction: float = 3.5) -> Choice:
    p: Params = view.params
    return _apply(_pull_to(view, p.target, stiffness, friction), p.motor), memory


def _bang(view: View, memory: Tensor, noise: Tensor, slope: float = 0.25) -> Choice:
    # Full torque to the one side or the other of a line that leads to the target.
    p: Params = view.params
    line = _error(view, p.target) + slope * view.state.speed
    return _full(-line, p.motor), memory


def _upright(view: View, memory: Tensor, noise: Tensor, stiffness: float = 18.0) -> Choice:
    p: Params = view.params
    return _apply(_pull_to(view, torch.zeros_like(p.target), stiffness, _STIFF[1]), p.torque), memory


def _wander(view: View, memory: Tensor, noise: Tensor) -> Choice:
    return noise * 2 - 1, memory


def _sway(view: View, memory: Tensor, noise: Tensor, width: float = 0.5) -> Choice:
    # Never rests: swings to either side of the target.
    p: Params = view.params
    phase = 0.3 * view.step.to(p.target)
    return _apply(_pull_to(view, p.target + width * torch.sin(phase), *_STIFF), p.motor), memory


def _slack(view: View, memory: Tensor, noise: Tensor, stiffness: float = 7.0) -> Choice:
    # A soft spring that forgets gravity.
    p: Params = view.params
    return _apply(_pull_to(view, p.target, stiffness, 1.5, 0.0), p.motor), memory


def _detour(view: View, memory: Tensor, noise: Tensor, speed: float = 4.0) -> Choice:
    # Takes the long way round, at a steady speed, and brakes at the target.
    p: Params = view.params
    error = _error(view, p.target)
    way = torch.where(view.step == 0, sign(error >= 0, error), memory[:, 0])
    way = torch.where(error.abs() < 0.5, torch.zeros_like(way), way)  # 0: it is there
    turn = 4.0 * (speed * way - view.state.speed) - _gravity(view)
    torque = torch.where(way == 0, _pull_to(view, p.target, *_STIFF), turn)
    return _apply(torque, p.motor), way.unsqueeze(1)


def _probe(view: View, memory: Tensor, noise: Tensor) -> Choice:
    # Memory: the last action, the speed that gravity alone would have led to, and how far actions and what changed
    # the speed beside gravity agreed so far.
    p: Params = view.params
    s: State = view.state
    last, expected, agreed = memory.unbind(1)
    agreed = agreed + last * (s.speed - expected)
    wired = sign(agreed >= 0, agreed)
    action = _apply(wired * _pull_to(view, torch.zeros_like(agreed), *_STIFF), p.torque)
    expected = s.speed + DT * p.weight * torch.sin(s.angle.contiguous())
    return action, torch.stack([action[:, 0], expected, agreed], 1)


def _brake(view: View, memory: Tensor, noise: Tensor, friction: float = 0.5) -> Choice:
    return (-friction * view.state.speed).clamp(-1.0, 1.0).unsqueeze(1), memory


# Adversaries


def _idle(view: View, memory: Tensor, noise: Tensor) -> Choice:
    return torch.zeros_like(view.state.speed).unsqueeze(1), memory


def _away(view: View, memory: Tensor, noise: Tensor, lead: float = 0.6) -> Choice:
    p: Params = view.params
    # Where it is going counts, too: that feeds every swing about the target.
    lean = _error(view, p.target) + lead * view.state.speed
    return _full(lean, p.adversary_motor), memory


def _fall(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    return strength * _full(_gravity(view), view.params.adversary_motor), memory


def _push(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    return torch.full_like(view.state.speed, strength).unsqueeze(1), memory


def _wind(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    drawn = torch.where((view.step == 0).unsqueeze(1), noise * 2 - 1, memory)
    return strength * drawn, drawn


def _pump(view: View, memory: Tensor, noise: Tensor, strength: float = 1.0) -> Choice:
    p: Params = view.params
    return strength * _full(view.state.speed, p.adversary_motor), memory


def _gusts(view: View, memory: Tensor, noise: Tensor, period: float = 8) -> Choice:
    gust = torch.where((view.step % period == 0).unsqueeze(1), noise * 2 - 1, memory)
    return sign(gust >= 0, gust), gust


def _kick(view: View, memory: Tensor, noise: Tensor, period: float = 20) -> Choice:
    # Away from the target for half the period, then calm.
    action, memory = _away(view, memory, noise)
    return action * (view.step % period < period / 2).unsqueeze(1), memory


PLAYERS = (
    Scripted(
        "servo",
        "protagonist",
        "train",
        "knows all; acts as a stiff spring to the target",
        _servo,
        informed=True,
        options=(
            Option("stiffness", 18.0, 10.0, 25.0, "N m / rad"),
            Option("friction", 3.5, 2.0, 5.0, "N m s"),
        ),
    ),
    Scripted(
        "bang",
        "protagonist",
        "train",
        "knows all; applies full torque one way or the other",
        _bang,
        informed=True,
        options=(Option("slope", 0.25, 0.15, 0.5, "s: how early it brakes"),),
    ),
    Scripted(
        "upright",
        "protagonist",
        "train",
        "holds it upright if its motor is wired right",
        _upright,
        options=(Option("stiffness", 18.0, 10.0, 25.0, "N m / rad"),),
    ),
    Scripted("wander", "protagonist", "train", "twists at random", _wander, noise=1),
    Scripted(
        "sway",
        "protagonist",
        "held_out",
        "knows all; swings about the target",
        _sway,
        informed=True,
        options=(Option("width", 0.5, 0.2, 1.0, "rad to either side"),),
    ),
    Scripted(
        "slack",
        "protagonist",
        "held_out",
        "knows all; acts as a soft spring that ignores gravity",
        _slack,
        informed=True,
        options=(Option("stiffness", 7.0, 4.0, 10.0, "N m / rad"),),
    ),
    Scripted(
        "detour",
        "protagonist",
        "held_out",
        "knows all; takes the long way round",
        _detour,
        memory=1,
        informed=True,
        options=(Option("speed", 4.0, 3.0, 6.0, "rad/s"),),
    ),
    Scripted("probe", "protagonist", "held_out", "finds out its motor's wiring; holds it upright", _probe, memory=3),
    Scripted(
        "brake",
        "protagonist",
        "held_out",
        "twists against the motion, blind to its wiring",
        _brake,
        options=(Option("friction", 0.5, 0.2, 1.0, "share of its torque per rad/s"),),
    ),
    Scripted("idle", "adversary", "train", "never twists", _idle),
    Scripted(
        "away",
        "adversary",
        "train",
        "knows all; twists away from the target",
        _away,
        informed=True,
        options=(Option("lead", 0.6, 0.0, 1.0, "s: how much the motion counts"),),
    ),
    Scripted(
        "fall",
        "adversary",
        "train",
        "knows its wiring; twists with gravity",
        _fall,
        informed=True,
        options=(_STRENGTH,),
    ),
    Scripted(
        "wind",
        "adversary",
        "train",
        "applies one torque, drawn for each episode",
        _wind,
        memory=1,
        noise=1,
        options=(_STRENGTH,),
    ),
    Scripted(
        "pump",
        "adversary",
        "held_out",
        "knows its wiring; twists along the motion",
        _pump,
        informed=True,
        options=(_STRENGTH,),
    ),
    Scripted(
        "kick",
        "adversary",
        "held_out",
        "knows all; twists away from the target every other half second",
        _kick,
        informed=True,
        options=(Option("period", 20, 6, 40, "steps from kick to kick", integer=True),),
    ),
    Scripted(
        "gusts",
        "adversary",
        "held_out",
        "applies full torque, to a new side every 8 steps",
        _gusts,
        memory=1,
        noise=1,
        options=(Option("period", 8, 3, 30, "steps of a gust", integer=True),),
    ),
    Scripted("push", "adversary", "held_out", "applies full torque to one side", _push, options=(_STRENGTH,)),
)
