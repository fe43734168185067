"""Pursuit's scripted players: evaders and pursuers that know the gate, and some that don't."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.game import View
from metaduel.envs.core.geometry import dot, left_of, length, polar, sign, unit, unit_disc
from metaduel.envs.players.scripted import Option, Scripted
from metaduel.envs.pursuit.game import ARENA, SEEN, Params, State

Choice = tuple[Tensor, Tensor]


def _steer(velocity: Tensor, direction: Tensor, speed: Tensor) -> Tensor:
    """Thrust that brings the velocity to ``speed`` [B] m/s along ``direction``."""
    return unit_disc(5.0 * (unit(direction) * speed.unsqueeze(1) - velocity))


def _evade(view: View, direction: Tensor, share: float = 1.0) -> Tensor:
    """The evader's thrust towards ``share`` of its top speed along ``direction``."""
    return _steer(view.state.evader_velocity, direction, share * view.params.evader_speed)


def _hunt(view: View, direction: Tensor) -> Tensor:
    """The pursuer's thrust towards its top speed along ``direction``."""
    return _steer(view.state.pursuer_velocity, direction, view.params.pursuer_speed)


def _park(position: Tensor, velocity: Tensor, target: Tensor) -> Tensor:
    """Go to ``target`` and stop there."""
    return 4.0 * (target - position) - 2.0 * velocity


class _Known(NamedTuple):
    """What those that know the gate know for a whole episode."""

    gate: Tensor  # [B, 2] m: its middle
    beyond: Tensor  # [B, 2] m: a little further out


def _known(params: Params) -> _Known:
    gate = params.gate
    return _Known(gate, 1.1 * gate)


def _gate(view: View) -> Tensor:
    known: _Known = view.known
    return known.gate


def _beyond(view: View) -> Tensor:
    known: _Known = view.known
    return known.beyond


def _around(position: Tensor, radius: float, turn: Tensor | float = 1.0) -> Tensor:
    """Direction in which to circle around the centre at ``radius``: anticlockwise, or clockwise with a ``turn`` of -1."""
    out = unit(position)
    return turn * left_of(out) + 5.0 * (radius - length(position)).unsqueeze(1) * out


# Evaders


def _dash(view: View, memory: Tensor, noise: Tensor, speed: float = 1.0) -> Choice:
    s: State = view.state
    return _evade(view, _beyond(view) - s.evader, speed), memory


def _seen(view: View) -> Tensor:
    """[B, 1] bool: whether the two see each other; a player must not react to one that is out of sight."""
    return view.observation[:, SEEN : SEEN + 1] > 0


def _around_pursuer(view: View, berth: float = 0.35) -> Tensor:
    """Potential field: drawn to the gate, pushed from the pursuer and past it on the nearer side, kept off the wall."""
    s: State = view.state
    to_gate = _beyond(view) - s.evader
    away = s.evader - s.pursuer
    left = left_of(away)
    side = torch.where(dot(left, to_gate) >= 0, left, -left)
    push = _seen(view) * (berth / length(away).clamp(min=0.05)).unsqueeze(1) ** 2
    wall = ((length(s.evader) - 0.7).clamp(min=0) * (length(to_gate) > 0.5)).unsqueeze(1)
    return unit(to_gate) + push * (0.6 * unit(away) + unit(side)) - 6.0 * wall * unit(s.evader)


def _dodge(view: View, memory: Tensor, noise: Tensor, berth: float = 0.35) -> Choice:
    return _evade(view, _around_pursuer(view, berth)), memory


def _feint(view: View, memory: Tensor, noise: Tensor, least: float = 4) -> Choice:
    # Direction and length of the feint are drawn at the first step and kept for the episode.
    s: State = view.state
    drawn = torch.where((view.step == 0).unsqueeze(1), noise, memory)
    feinting = view.step < least + 4 * drawn[:, 1]
    direction = torch.where(feinting.unsqueeze(1), polar(2 * math.pi * drawn[:, 0]), _beyond(view) - s.evader)
    return _evade(view, direction), drawn


def _sweep(view: View, memory: Tensor, noise: Tensor, radius: float = 0.75, speed: float = 0.9) -> Choice:
    s: State = view.state
    return _evade(view, _around(s.evader, radius), speed), memory


def _away(view: View, radius: float = 0.45) -> Tensor:
    """Direction away from the pursuer that bends along the wall before it gets there; out of sight, around the centre."""
    s: State = view.state
    away, out = unit(s.evader - s.pursuer), unit(s.evader)
    near_wall = ((length(s.evader + 0.3 * s.evader_velocity) - 0.55) * 2.5).clamp(0.0, 1.0).unsqueeze(1)
    left = left_of(out)
    along = torch.where(dot(left, away + 0.5 * s.evader_velocity) >= 0, left, -left)
    return torch.where(_seen(view), away + near_wall * (0.5 * along - out), _around(s.evader, radius))


def _flee(view: View, memory: Tensor, noise: Tensor, radius: float = 0.45) -> Choice:
    return _evade(view, _away(view, radius)), memory


def _patient(view: View, memory: Tensor, noise: Tensor, wait: float = 8) -> Choice:
    # To the gate; while it sees the pursuer nearer to the gate than itself, it backs off and tries again.
    s: State = view.state
    gate = _gate(view)
    blocked = _seen(view) & (length(s.pursuer - gate) < length(s.evader - gate)).unsqueeze(1)
    left = torch.where(blocked, wait * torch.ones_like(memory), (memory - 1).clamp(min=0))
    return _evade(view, torch.where(left > 0, _away(view), _beyond(view) - s.evader)), left


def _loiter(view: View, memory: Tensor, noise: Tensor, least: float = 8) -> Choice:
    # Keeps away for ``least`` to 12 steps more, drawn at the first step, then goes around the pursuer.
    drawn = torch.where((view.step == 0).unsqueeze(1), noise, memory)
    late = view.step.unsqueeze(1) > least + 12 * drawn
    return _evade(view, torch.where(late, _around_pursuer(view), _away(view))), drawn


def _curve(view: View, memory: Tensor, noise: Tensor, bend: float = 1.2) -> Choice:
    # Comes in along an arc: its heading turns into the gate as it gets near.
    s: State = view.state
    to_gate = _beyond(view) - s.evader
    return _evade(view, to_gate + bend * (length(to_gate) - 0.3).clamp(min=0).unsqueeze(1) * left_of(to_gate)), memory


def _creep(view: View, memory: Tensor, noise: Tensor, radius: float = 0.7) -> Choice:
    # Along a ring, either way round, and out when it passes the gate.
    s: State = view.state
    to_gate = _beyond(view) - s.evader
    drawn = torch.where((view.step == 0).unsqueeze(1), sign(noise >= 0.5, noise), memory)
    near = length(to_gate) < 0.6
    return _evade(view, torch.where(near.unsqueeze(1), to_gate, _around(s.evader, radius, drawn))), drawn


def _gambler(view: View, memory: Tensor, noise: Tensor, speed: float = 1.0) -> Choice:
    angle = torch.where((view.step == 0).unsqueeze(1), 2 * math.pi * noise, memory)
    return _evade(view, polar(angle[:, 0]), speed), angle


# Pursuers


def _chase(view: View, memory: Tensor, noise: Tensor, radius: float = 0.4) -> Choice:
    s: State = view.state
    return _hunt(view, torch.where(_seen(view), s.evader - s.pursuer, _around(s.pursuer, radius))), memory


def _lead(view: View, memory: Tensor, noise: Tensor, horizon: float = 1.0) -> Choice:
    # Aims at where the evader will be when it gets there, inside the wall.
    s: State = view.state
    params: Params = view.params
    gap = s.evader - s.pursuer
    ahead = (horizon * length(gap) / params.pursuer_speed).unsqueeze(1)
    aim = s.evader + ahead * s.evader_velocity
    aim = aim / (length(aim) / (0.95 * ARENA)).clamp(min=1.0).unsqueeze(1)
    wait = _park(s.pursuer, s.pursuer_velocity, torch.zeros_like(aim))
    return torch.where(_seen(view), _hunt(view, aim - s.pursuer), unit_disc(wait)), memory


def _guard(view: View, memory: Tensor, noise: Tensor, place: float = 0.9) -> Choice:
    s: State = view.state
    return unit_disc(_park(s.pursuer, s.pursuer_velocity, place * _gate(view))), memory


def _goalie(view: View, memory: Tensor, noise: Tensor, place: float = 0.8) -> Choice:
    # In front of the gate; leaves it to catch an evader that comes in sight.
    s: State = view.state
    target = torch.where(_seen(view), s.evader + 0.2 * s.evader_velocity, place * _gate(view))
    return unit_disc(_park(s.pursuer, s.pursuer_velocity, target)), memory


def _patrol(view: View, memory: Tensor, noise: Tensor, radius: float = 0.8) -> Choice:
    s: State = view.state
    return _hunt(view, _around(s.pursuer, radius)), memory


def _drift(view: View, memory: Tensor, noise: Tensor, period: float = 10) -> Choice:
    # A new random place to go to every ``period`` steps.
    s: State = view.state
    drawn = torch.where((view.step % period == 0).unsqueeze(1), noise, memory)
    place = 0.8 * torch.sqrt(drawn[:, 1:]) * polar(2 * math.pi * drawn[:, 0])
    return unit_disc(_park(s.pursuer, s.pursuer_velocity, place)), drawn


def _herd(view: View, memory: Tensor, noise: Tensor, radius: float = 0.6) -> Choice:
    # Keeps between an evader in sight and the wall; looks for it around the arena until then.
    s: State = view.state
    spot = 0.85 * unit(s.evader + 0.5 * s.evader_velocity)
    keep = unit_disc(_park(s.pursuer, s.pursuer_velocity, spot))
    return torch.where(_seen(view), keep, _hunt(view, _around(s.pursuer, radius, -1.0))), memory


PLAYERS = (
    Scripted(
        "dash",
        "protagonist",
        "train",
        "knows the gate and runs straight there",
        _dash,
        informed=True,
        setup=_known,
        options=(Option("speed", 1.0, 0.6, 1.0, "share of its top speed"),),
    ),
    Scripted(
        "feint",
        "protagonist",
        "train",
        "knows the gate and runs elsewhere first",
        _feint,
        memory=2,
        noise=2,
        informed=True,
        setup=_known,
        options=(Option("least", 4, 0, 12, "steps that it feints at least", integer=True),),
    ),
    Scripted(
        "loiter",
        "protagonist",
        "train",
        "knows the gate; keeps away for a while, then goes",
        _loiter,
        memory=1,
        noise=1,
        informed=True,
        setup=_known,
        options=(Option("least", 8, 0, 20, "steps that it stays away at least", integer=True),),
    ),
    Scripted(
        "sweep",
        "protagonist",
        "train",
        "circles along the wall, blind to the gate",
        _sweep,
        options=(
            Option("radius", 0.75, 0.4, 0.9, "m: of its circle"),
            Option("speed", 0.9, 0.5, 1.0, "share of its top speed"),
        ),
    ),
    Scripted(
        "dodge",
        "protagonist",
        "held_out",
        "knows the gate and passes around the pursuer",
        _dodge,
        informed=True,
        setup=_known,
        options=(Option("berth", 0.35, 0.15, 0.6, "m by which it clears the pursuer"),),
    ),
    Scripted(
        "patient",
        "protagonist",
        "held_out",
        "knows the gate; waits until the pursuer is off it",
        _patient,
        memory=1,
        informed=True,
        setup=_known,
        options=(Option("wait", 8, 3, 20, "steps that it backs off", integer=True),),
    ),
    Scripted(
        "flee",
        "protagonist",
        "held_out",
        "keeps away from the pursuer, blind to the gate",
        _flee,
        options=(Option("radius", 0.45, 0.2, 0.8, "m: of its circle until it sees the pursuer"),),
    ),
    Scripted(
        "curve",
        "protagonist",
        "train",
        "knows the gate and comes in along an arc",
        _curve,
        informed=True,
        setup=_known,
        options=(Option("bend", 1.2, 0.5, 2.0, "of its arc, to the left"),),
    ),
    Scripted(
        "creep",
        "protagonist",
        "held_out",
        "knows the gate; follows the wall to it",
        _creep,
        memory=1,
        noise=1,
        informed=True,
        setup=_known,
        options=(Option("radius", 0.7, 0.5, 0.85, "m: of its ring"),),
    ),
    Scripted(
        "gambler",
        "protagonist",
        "held_out",
        "runs out in a random direction",
        _gambler,
        memory=1,
        noise=1,
        options=(Option("speed", 1.0, 0.6, 1.0, "share of its top speed"),),
    ),
    Scripted(
        "chase",
        "adversary",
        "train",
        "runs at the evader",
        _chase,
        options=(Option("radius", 0.4, 0.2, 0.7, "m: of its circle until it sees the evader"),),
    ),
    Scripted(
        "guard",
        "adversary",
        "train",
        "knows the gate and stands in it",
        _guard,
        informed=True,
        setup=_known,
        options=(Option("place", 0.9, 0.5, 0.95, "m from the centre"),),
    ),
    Scripted(
        "patrol",
        "adversary",
        "train",
        "circles along the wall, blind to both",
        _patrol,
        options=(Option("radius", 0.8, 0.5, 0.95, "m: of its circle"),),
    ),
    Scripted(
        "drift",
        "adversary",
        "train",
        "wanders between random places",
        _drift,
        memory=2,
        noise=2,
        options=(Option("period", 10, 4, 25, "steps until it goes elsewhere", integer=True),),
    ),
    Scripted(
        "lead",
        "adversary",
        "held_out",
        "runs at where the evader will be",
        _lead,
        options=(Option("horizon", 1.0, 0.2, 2.0, "share of the way to the evader that it looks ahead"),),
    ),
    Scripted(
        "goalie",
        "adversary",
        "held_out",
        "knows the gate; keeps goal and catches an evader that comes near",
        _goalie,
        informed=True,
        setup=_known,
        options=(Option("place", 0.8, 0.5, 0.95, "m from the centre"),),
    ),
    Scripted(
        "herd",
        "adversary",
        "held_out",
        "keeps between the evader and the wall nearest to it",
        _herd,
        options=(Option("radius", 0.6, 0.3, 0.85, "m: of its circle until it sees the evader"),),
    ),
)
