"""Goalkeeper's rules. See the package's docstring for the tables."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.geometry import sign

DT = 0.2  # s per step
RUN_UP = 3  # steps until the ball is struck: in the last of them
FLIGHT = 3  # steps from the strike to the goal line
KICK = RUN_UP + FLIGHT  # steps per kick
GOAL = 2.5  # m: half the goal's width
STRIDE = 0.5  # m that the shooter can step sideways in a step of its run-up
AIM = 4.5  # m: where an aim of 1 would cross the goal line in calm air, seen from the middle
KEEPER_SPEED = 4.5  # m/s
MEMORY = 3  # commands that the keeper's legs may still have to carry out: the longest delay is as many steps
GRADE = 0.5  # reward per m of margin, up to 1 m; below 1, so that no goal is worse than no goal


class Params(NamedTuple):
    """A task, one row per episode."""

    wind: Tensor  # [B] m/s^2
    curve: Tensor  # [B] m/s^2 per m of run-up
    delay: Tensor  # [B] s
    reach: Tensor  # [B] m


class State(NamedTuple):
    """Where a kick is; left and right are the shooter's, right is positive."""

    shooter: Tensor  # [B] m: how far to the side the run-up has come
    heading: Tensor  # [B] m: where the ball would cross the goal line in calm air; 0 until it is struck
    keeper: Tensor  # [B] m: place on the goal line
    commands: Tensor  # [B, 3] the keeper's last actions of this kick, newest first
    phase: Tensor  # [B] int64 steps of this kick played
    left: Tensor  # [B] share of the time that is left
    last: Tensor  # [B, 3] m, of the kick before: where the ball crossed, where the keeper was, the shooter's margin

    @property
    def in_flight(self) -> Tensor:
        """[B] bool: whether the ball has been struck."""
        return self.phase >= RUN_UP


class Goalkeeper(Game[Params, State]):
    """Penalty kicks against hidden wind, spin and reflexes."""

    params_type = Params

    def init(self, params: Params, noise: Tensor) -> State:
        """Start the first of the kicks."""
        zero = torch.zeros_like(params.wind)
        commands, last = zero.expand(MEMORY, -1).t(), zero.expand(3, -1).t()
        return State(zero, zero, zero, commands, zero.long(), torch.ones_like(zero), last)

    def observe(self, params: Params, state: State) -> Pair:
        """Both see the run-up, the keeper and how the ball is struck; neither sees how it bends in flight."""
        dtype = state.left.dtype
        seen = [
            state.shooter,
            state.keeper,
            state.heading,
            (state.phase == RUN_UP - 1).to(dtype),
            state.in_flight.to(dtype),
            1 - state.phase.to(dtype) * (1 / KICK),
            state.left,
        ]
        observation = torch.stack(seen).t()
        return observation, observation

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Run up or strike, move the keeper, and judge the kick when the ball is at the goal line."""
        run, aim = actions[0].unbind(1)
        moved = (state.shooter + STRIDE * run).clamp(-1.0, 1.0)
        shooter = torch.where(state.in_flight, state.shooter, moved)
        heading = torch.where(state.phase == RUN_UP - 1, AIM * aim, state.heading)
        commands = [actions[1][:, 0], *state.commands.unbind(1)]
        keeper = (state.keeper + DT * KEEPER_SPEED * delayed(commands, params.delay)).clamp(-GOAL, GOAL)

        over = state.phase == KICK - 1
        crossing = heading + drift(params, shooter)
        margin = shooters_margin(crossing, keeper, params.reach)
        result = sign(margin > 0, margin) + GRADE * margin.clamp(-1.0, 1.0)
        reward = torch.where(over, result, 0.0)

        # The next kick starts in the middle, at rest.
        after = torch.where(over, 0.0, torch.stack([shooter, heading, keeper, *commands[:MEMORY]]))
        last = torch.where(over, torch.stack([crossing, keeper, margin]), state.last.t())
        left = (state.left - 1 / self.spec.horizon).clamp(min=0.0)
        phase = torch.where(over, 0, state.phase + 1)
        played = State(after[0], after[1], after[2], after[3:].t(), phase, left, last.t())
        return played, Outcome(torch.stack([reward, -reward]).t(), torch.zeros_like(over))


def drift(params: Params, shooter: Tensor) -> Tensor:
    """How far wind and spin carry the ball to the side until the goal line, [B] m: a t^2 / 2."""
    time = FLIGHT * DT
    return (params.wind + params.curve * shooter) * (0.5 * time * time)


def delayed(commands: list[Tensor], delay: Tensor) -> Tensor:
    """The command that the keeper's legs carry out now, [B]: the one given ``delay`` s ago.

    Args:
        commands: newest first, one step apart, [B] each.
        delay: [B] s; between two steps, the two commands are blended.
    """
    steps = delay * (1 / DT)
    done = torch.zeros_like(delay)
    for age, command in enumerate(commands):
        done = done + command * (1 - (steps - age).abs()).clamp(min=0.0)
    return done


def shooters_margin(crossing: Tensor, keeper: Tensor, reach: Tensor) -> Tensor:
    """By how much it is a goal, [B] m: inside the nearer post and past the keeper's gloves, whichever is less.

    Positive for a goal, at most 0 for a ball that is saved or wide.
    """
    return torch.minimum(GOAL - crossing.abs(), (crossing - keeper).abs() - reach)
