"""Goalkeeper's scripted players: shooters and keepers that know the air and the reflexes, and some that don't."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.game import View
from metaduel.envs.core.geometry import sign
from metaduel.envs.goalkeeper.game import (
    AIM,
    DT,
    FLIGHT,
    GOAL,
    KEEPER_SPEED,
    KICK,
    MEMORY,
    RUN_UP,
    STRIDE,
    Params,
    State,
    drift,
)
from metaduel.envs.players.scripted import Option, Scripted

Choice = tuple[Tensor, Tensor]
_CORNER = 2.2  # m from the middle
_USUAL_DELAY = 0.3  # s: what a keeper takes for its own delay where it does not know it


def _first(view: View) -> Tensor:
    """[B, 1] bool: whether a kick begins."""
    state: State = view.state
    return (state.phase == 0).unsqueeze(1)


def _kick(view: View) -> Tensor:
    """[B] int64: the number of the kick, from 0."""
    return torch.div(view.step, KICK, rounding_mode="floor")


def _side(noise: Tensor, share_right: float = 0.5) -> Tensor:
    """[B]: 1 for right in a share of the draws, else -1."""
    return sign(noise[:, 0] < share_right, noise)


# Shooters


def _shoot(view: View, place: Tensor, known: bool, offset: Tensor | float = 0.0) -> Tensor:
    """Run up to ``offset`` m to the side and strike the ball so that it crosses at ``place`` [B] m.

    A shooter that knows the air allows for it, ``known``; any other takes it for calm.
    """
    state: State = view.state
    params: Params = view.params
    run = ((offset - state.shooter) / STRIDE).clamp(-1.0, 1.0)
    if known:
        place = place - drift(params, (state.shooter + STRIDE * run).clamp(-1.0, 1.0))
    action = torch.stack([run, (place / AIM).clamp(-1.0, 1.0)], 1)
    return torch.where(state.in_flight.unsqueeze(1), 0.0, action)


def _corners(view: View, memory: Tensor, noise: Tensor, aim: float = _CORNER) -> Choice:
    return _shoot(view, aim * _side(noise), True), memory


def _bender(view: View, memory: Tensor, noise: Tensor, aim: float = 1.6) -> Choice:
    # Comes from the side from which the spin takes the ball to the post that was drawn at the kick's first step.
    drawn = torch.where(_first(view), noise, memory)
    side, params = _side(drawn), view.params
    return _shoot(view, aim * side, True, side * sign(params.curve >= 0, side)), drawn


def _placer(view: View, memory: Tensor, noise: Tensor, right: float = 0.65) -> Choice:
    # Midway between what this keeper can cover after the strike and the post, a little more often to the right.
    params: Params = view.params
    cover = KEEPER_SPEED * (FLIGHT * DT - params.delay) + params.reach
    return _shoot(view, (0.5 * (cover + GOAL)).clamp(1.5, 2.4) * _side(noise, right), True), memory


def _opposite(view: View, memory: Tensor, noise: Tensor, aim: float = 2.1) -> Choice:
    # Away from a keeper that has set out already.
    keeper = view.state.keeper
    side = torch.where(keeper.abs() > 0.2, -torch.sign(keeper), _side(noise))
    return _shoot(view, aim * side, True), memory


def _middle(view: View, memory: Tensor, noise: Tensor, share: float = 0.5) -> Choice:
    # A share of the kicks, by chance, into the middle, from where a keeper that guesses is gone.
    place = torch.where(noise[:, 1] < share, 0.0, 2.25 * _side(noise))
    return _shoot(view, place, True), memory


def _alternate(view: View, memory: Tensor, noise: Tensor, aim: float = 2.3) -> Choice:
    side = 1.0 - 2.0 * (_kick(view) % 2).to(noise.dtype)
    return _shoot(view, aim * side, True, 0.4 * side), memory


def _hopeful(view: View, memory: Tensor, noise: Tensor, aim: float = 1.6, right: float = 0.5) -> Choice:
    return _shoot(view, aim * _side(noise, right), False), memory


def _scatter(view: View, memory: Tensor, noise: Tensor, aim: float = 2.4) -> Choice:
    drawn = torch.where(_first(view), noise, memory)
    return _shoot(view, aim * (2 * drawn[:, 0] - 1), False, 2 * drawn[:, 1] - 1), drawn


def _swerver(view: View, memory: Tensor, noise: Tensor, aim: float = 0.8) -> Choice:
    drawn = torch.where(_first(view), noise, memory)
    side = _side(drawn)
    return _shoot(view, aim * side, False, -side), drawn


def _onesided(view: View, memory: Tensor, noise: Tensor, aim: float = 1.3) -> Choice:
    # One side, drawn at the first step and kept for the episode.
    drawn = torch.where((view.step == 0).unsqueeze(1), noise, memory)
    return _shoot(view, aim * _side(drawn), False), drawn


def _watcher(view: View, memory: Tensor, noise: Tensor, aim: float = 1.2) -> Choice:
    keeper = view.state.keeper
    side = torch.where(keeper.abs() > 0.2, -torch.sign(keeper), _side(noise))
    return _shoot(view, aim * side, False, 0.5), memory


# Keepers


class _Legs(NamedTuple):
    """How far a keeper's legs have still to run for a command of 1, [B, 3] m by its age: the same in a whole episode."""

    own: Tensor  # with the task's delay
    usual: Tensor  # with the usual one


def _legs(params: Params) -> _Legs:
    usual = torch.full_like(params.delay, _USUAL_DELAY * (1 / DT))
    return _Legs(*(_still_to_run(steps) for steps in (params.delay * (1 / DT), usual)))


def _still_to_run(steps: Tensor) -> Tensor:
    ages = torch.arange(MEMORY, dtype=steps.dtype, device=steps.device).unsqueeze(1)
    return (KEEPER_SPEED * DT * (steps - ages).clamp(0.0, 1.0)).t()


def _run(view: View, target: Tensor | float, legs: Tensor) -> Tensor:
    """Run to ``target`` and stop there, counting the commands that the legs [B, 3] have still to carry out."""
    state: State = view.state
    place = state.keeper
    for way in (legs * state.commands).unbind(1):
        place = place + way
    return ((target - place) / (KEEPER_SPEED * DT)).clamp(-1.0, 1.0).unsqueeze(1)


def _landing(view: View) -> Tensor:
    """[B] m: where a ball in flight will cross, inside the posts; the middle before the strike."""
    state: State = view.state
    crossing = (state.heading + drift(view.params, state.shooter)).clamp(-GOAL, GOAL)
    return torch.where(state.in_flight, crossing, 0.0)


def _reader(view: View, memory: Tensor, noise: Tensor, part: float = 1.0) -> Choice:
    return _run(view, part * _landing(view), view.known.own), memory


def _guesser(view: View, memory: Tensor, noise: Tensor, share: float = 0.6) -> Choice:
    # Sets out so late that the shooter does not see it any more, or stays, by chance; puts it right after the strike.
    params: Params = view.params
    drawn = torch.where(_first(view), noise, memory)
    guess = torch.where(drawn[:, 1] < share, 1.9 * _side(drawn), 0.0)
    late = view.state.phase.to(params.delay.dtype) >= RUN_UP - params.delay / DT
    target = torch.where(view.state.in_flight, _landing(view), torch.where(late, guess, 0.0))
    return _run(view, target, view.known.own), drawn


def _downwind(view: View, memory: Tensor, noise: Tensor, lean: float = 0.1) -> Choice:
    # Waits a little downwind of the middle.
    params: Params = view.params
    target = torch.where(view.state.in_flight, _landing(view), (lean * params.wind).clamp(-0.6, 0.6))
    return _run(view, target, view.known.own), memory


def _tracker(view: View, memory: Tensor, noise: Tensor, part: float = 1.0) -> Choice:
    return _run(view, (part * view.state.heading).clamp(-GOAL, GOAL), view.known.usual), memory


def _sceptic(view: View, memory: Tensor, noise: Tensor, part: float = 0.5) -> Choice:
    # A ball that heads far out is likelier to be bent back: a shooter that aims there knows the air.
    return _run(view, part * view.state.heading, view.known.usual), memory


def _gambler(view: View, memory: Tensor, noise: Tensor, dive: float = 2.0, right: float = 0.5) -> Choice:
    drawn = torch.where(_first(view), noise, memory)
    return _run(view, dive * _side(drawn, right), view.known.usual), drawn


def _stay(view: View, memory: Tensor, noise: Tensor, place: float = 0.0) -> Choice:
    if place == 0.0:
        return torch.zeros_like(view.state.keeper).unsqueeze(1), memory
    return _run(view, place, view.known.usual), memory


def _shadow(view: View, memory: Tensor, noise: Tensor, part: float = 0.75) -> Choice:
    # Mirrors the run-up, then follows the strike.
    state: State = view.state
    target = torch.where(state.in_flight, part * state.heading, -1.0 * state.shooter)
    return _run(view, target.clamp(-GOAL, GOAL), view.known.usual), memory


def _habit(view: View, memory: Tensor, noise: Tensor, dive: float = 1.8) -> Choice:
    # Dives to where the last ball was struck; to the right in the first kick.
    state: State = view.state
    seen = torch.where((state.phase == KICK - 1).unsqueeze(1), state.heading.unsqueeze(1), memory)
    target = torch.where(state.phase >= 1, dive * sign(memory[:, 0] >= 0, memory), 0.0)
    return _run(view, target, view.known.usual), seen


PLAYERS = (
    Scripted(
        "corners",
        "protagonist",
        "train",
        "knows the air; shoots into either corner",
        _corners,
        noise=1,
        informed=True,
        options=(Option("aim", _CORNER, 1.6, 2.4, "m from the middle"),),
    ),
    Scripted(
        "bender",
        "protagonist",
        "train",
        "knows the air; bends the ball to either side from a long run-up",
        _bender,
        memory=1,
        noise=1,
        informed=True,
        options=(Option("aim", 1.6, 1.2, 2.2, "m from the middle"),),
    ),
    Scripted(
        "placer",
        "protagonist",
        "held_out",
        "knows the air and the keeper; shoots just past its reach",
        _placer,
        noise=1,
        informed=True,
        options=(Option("right", 0.65, 0.3, 0.7, "share of the right side"),),
    ),
    Scripted(
        "hopeful",
        "protagonist",
        "train",
        "assumes calm air; shoots to either side",
        _hopeful,
        noise=1,
        options=(
            Option("aim", 1.6, 0.8, 2.2, "m from the middle"),
            Option("right", 0.5, 0.3, 0.7, "share of the right side"),
        ),
    ),
    Scripted(
        "scatter",
        "protagonist",
        "train",
        "shoots anywhere, from any run-up",
        _scatter,
        memory=2,
        noise=2,
        options=(Option("aim", 2.4, 1.2, 2.6, "m from the middle"),),
    ),
    Scripted(
        "opposite",
        "protagonist",
        "held_out",
        "knows the air; shoots away from where the keeper moves",
        _opposite,
        noise=1,
        informed=True,
        options=(Option("aim", 2.1, 1.4, 2.4, "m from the middle"),),
    ),
    Scripted(
        "middle",
        "protagonist",
        "train",
        "knows the air; shoots into the middle or a corner",
        _middle,
        noise=2,
        informed=True,
        options=(Option("share", 0.5, 0.2, 0.8, "of kicks into the middle"),),
    ),
    Scripted(
        "alternate",
        "protagonist",
        "held_out",
        "knows the air; shoots left and right in turn",
        _alternate,
        informed=True,
        options=(Option("aim", 2.3, 1.4, 2.4, "m from the middle"),),
    ),
    Scripted(
        "swerver",
        "protagonist",
        "held_out",
        "assumes calm air; shoots to the side opposite its run-up",
        _swerver,
        memory=1,
        noise=1,
        options=(Option("aim", 0.8, 0.4, 1.6, "m from the middle"),),
    ),
    Scripted(
        "onesided",
        "protagonist",
        "held_out",
        "assumes calm air; always shoots to one side",
        _onesided,
        memory=1,
        noise=1,
        options=(Option("aim", 1.3, 0.8, 2.2, "m from the middle"),),
    ),
    Scripted(
        "watcher",
        "protagonist",
        "held_out",
        "assumes calm air; shoots away from where the keeper moves",
        _watcher,
        noise=1,
        options=(Option("aim", 1.2, 0.6, 2.0, "m from the middle"),),
    ),
    Scripted(
        "reader",
        "adversary",
        "train",
        "knows the air; waits for the strike",
        _reader,
        informed=True,
        setup=_legs,
        options=(Option("part", 1.0, 0.6, 1.0, "of the way to the landing"),),
    ),
    Scripted(
        "tracker",
        "adversary",
        "train",
        "runs to where the ball is heading",
        _tracker,
        setup=_legs,
        options=(Option("part", 1.0, 0.85, 1.3, "of the heading that it runs"),),
    ),
    Scripted(
        "gambler",
        "adversary",
        "train",
        "sets out for a side before the strike",
        _gambler,
        memory=1,
        noise=1,
        setup=_legs,
        options=(
            Option("dive", 2.0, 1.0, 2.4, "m from the middle"),
            Option("right", 0.5, 0.3, 0.7, "share of the right side"),
        ),
    ),
    Scripted(
        "stay",
        "adversary",
        "train",
        "stays in the middle",
        _stay,
        setup=_legs,
        options=(Option("place", 0.0, -0.8, 0.8, "m: where it stays"),),
    ),
    Scripted(
        "guesser",
        "adversary",
        "held_out",
        "knows the air; guesses unseen, then corrects",
        _guesser,
        memory=2,
        noise=2,
        informed=True,
        setup=_legs,
        options=(Option("share", 0.6, 0.2, 1.0, "of kicks before which it guesses"),),
    ),
    Scripted(
        "downwind",
        "adversary",
        "held_out",
        "knows the air; waits downwind",
        _downwind,
        informed=True,
        setup=_legs,
        options=(Option("lean", 0.1, 0.0, 0.2, "m per m/s of wind"),),
    ),
    Scripted(
        "sceptic",
        "adversary",
        "held_out",
        "runs half-way to where the ball is heading",
        _sceptic,
        setup=_legs,
        options=(Option("part", 0.5, 0.2, 0.6, "of the heading that it runs"),),
    ),
    Scripted(
        "shadow",
        "adversary",
        "held_out",
        "mirrors the run-up, then runs after the ball",
        _shadow,
        setup=_legs,
        options=(Option("part", 0.75, 0.4, 1.0, "of the heading that it runs"),),
    ),
    Scripted(
        "habit",
        "adversary",
        "held_out",
        "sets out for where the last ball was struck",
        _habit,
        memory=1,
        setup=_legs,
        options=(Option("dive", 1.8, 1.0, 2.4, "m from the middle"),),
    ),
)
