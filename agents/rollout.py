"""Joint rollouts of N tasks x E episodes: one Python loop over time, none over tasks, episodes or players' parameters.

Rows are task-major: row ``n * E + e`` is episode ``e`` of task ``n``. A seat assignment is, per seat, a list of actors with the
tasks that each plays, so that a learned player may sit in some tasks and scripted players in others. Tasks are given in the order
in which their actor has them, which need not be that of the batch. An actor is anything that can ``sit``: stacked policies here,
scripted players (``Seated``), objects that speak NumPy (``agents.adapters``).

A simulator that keeps an environment for every row (not ``at_once``) plays one episode of each task at a time, E times. That
does not change a player's random numbers, which depend on the episode and the step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.runtime import one_thread
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core import noise
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player, View
from metaduel.envs.core.simulator import Rows, Simulator
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.trees import take_rows

Where = slice | Tensor  # rows of a batch: a range, or [n] int64

BLOCK = 1024  # steps whose random numbers are drawn at once: more than the horizon of most games


class Place(NamedTuple):
    """An actor's place in a rollout."""

    rows: Where  # of the batch, in the actor's own order: an index of tensors whose first dimension is the batch
    tasks: int
    episodes: int
    key: Tensor  # [rows] the episodes' noise keys
    horizon: int  # the most steps that an episode can have
    channel: int  # of its random numbers, see ``core.noise``
    dtype: torch.dtype  # of observations, rewards and random numbers
    deterministic: bool = False  # take the most probable actions, where there is a choice
    part: tuple[int, int] = (0, 1)  # (i, k): each of its tasks' episodes is the i-th of k; the others are played apart

    def uniforms(self, n: int, first: int = 0) -> Tensor:
        """The actor's own uniforms in [0, 1) from step ``first`` on, [steps, rows, n]: of ``BLOCK`` steps, or of all left."""
        end = min(first + BLOCK, self.horizon)
        time = torch.arange(first, end, dtype=torch.int64, device=self.key.device).view(-1, 1)
        return noise.uniform(self.key, time, self.channel, n, self.dtype)


class Acting(Protocol):
    """An actor in its seat, for one episode in every row."""

    def act(self, step: int, rows: Rows, observation: Tensor) -> Tensor:
        """Actions of its rows [rows, a] (or [rows] int64), within their space.

        Args:
            step: number of the step.
            rows: rows of the whole batch; for scripted players, which are part of the world.
            observation: [B, d] of the seat, of the whole batch.
        """
        ...

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """Record a step of the whole batch: own rewards [B], whether the actor played the step [B] bool, and the other seat's
        actions (0 after it has left).
        """
        ...

    def result(self) -> Trajectories | None:
        """The trajectories; None for an actor that records none."""
        ...


class Actor(Protocol):
    """Anything that can take a seat in a rollout."""

    @property
    def noise(self) -> int:
        """Number of uniforms that the actor draws per row and step."""
        ...

    def sit(self, place: Place) -> Acting:
        """Start one episode in each of the place's rows."""
        ...


@dataclass(frozen=True)
class Learner:
    """A policy with weights: one set per task, one for every k tasks that follow each other in its own order, or one for all.

    Attributes:
        policy: the network.
        weights: [n, ...] each, n sets for n * k tasks.
        deterministic: its actions are the modes of its distributions.
        carry: the carry with which episodes start: [n, episodes of a task, ...], or one per task, which is copied for each
            episode; None: the policy's initial carry.
    """

    policy: Policy
    weights: Weights = field(repr=False)
    deterministic: bool = False
    carry: Carry | None = field(default=None, repr=False)

    @property
    def noise(self) -> int:
        """See ``Actor``."""
        return self.policy.noise

    def sit(self, place: Place) -> LearnerRows:
        """See ``Actor``."""
        return LearnerRows(self, place)


@dataclass(frozen=True)
class Taught:
    """A learner with a teacher. The teacher's action at every step is recorded as the learner's. The learner acts in every other
    episode, so that the teacher also labels the states that the learner's own mistakes lead to (as in DAgger, Ross et al.,
    AISTATS 2011).

    Attributes:
        learner: the learner; its policy must have no memory.
        teacher: the player.
    """

    learner: Learner
    teacher: Player

    @property
    def noise(self) -> int:
        """See ``Actor``."""
        return self.learner.noise

    def sit(self, place: Place) -> TaughtRows:
        """See ``Actor``."""
        if any(self.learner.policy.carried):
            raise TypeError(f"{type(self.learner.policy).__name__} has a memory and cannot be taught")
        return TaughtRows(self, place)


@dataclass(frozen=True)
class Seated:
    """A player of the batched core, such as a scripted one.

    Attributes:
        player: the player.
        recorded: whether the rollout returns its trajectories.
    """

    player: Player
    recorded: bool = False

    @property
    def noise(self) -> int:
        """See ``Actor``."""
        return self.player.noise

    def sit(self, place: Place) -> PlayerRows:
        """See ``Actor``."""
        return (WatchedRows if self.recorded else PlayerRows)(self.player, place)


class Sitting(NamedTuple):
    """The actor of some tasks."""

    tasks: slice | Tensor  # a range, or [n] int64 task numbers in the actor's own order
    actor: Actor
    deterministic: bool = False  # see ``Place``


def rollout(
    simulator: Simulator,
    params: Any,
    seats: tuple[Sequence[Sitting], Sequence[Sitting]],
    episodes: int,
    seed: Tensor,
    episode: Tensor,
) -> tuple[Trajectories | None, Trajectories | None]:
    """Play one episode in every row and record the learners' trajectories.

    Args:
        simulator: the world.
        params: the tasks, one row per (task, episode).
        seats: the seat assignment: per seat, sittings that cover every task once; ranges of tasks follow each other. At most one
            of a seat's sittings gives trajectories.
        episodes: E.
        seed: [N E] int64.
        episode: [N E] int64.

    Returns:
        Per seat, the learner's trajectories over its tasks alone, in its own order; None for a seat without a learner. T is the
        length of the longest episode. With n sets of weights for n * k tasks, trajectories are [n, T, k E, ...].

    Raises:
        InvalidInputError: a seat's sittings do not cover every task once.
    """
    with torch.no_grad(), one_thread():
        key = noise.episode_key(seed, episode)
        if simulator.at_once or episodes == 1:
            return _play(simulator, params, seats, episodes, key)
        results = []
        for i in range(episodes):
            every = slice(i, None, episodes)
            results.append(_play(simulator, take_rows(params, every), seats, 1, key[every].contiguous(), (i, episodes)))
        return _joined([first for first, _ in results]), _joined([second for _, second in results])


def _play(
    simulator: Simulator,
    params: Any,
    seats: tuple[Sequence[Sitting], Sequence[Sitting]],
    episodes: int,
    key: Tensor,
    part: tuple[int, int] = (0, 1),
) -> tuple[Trajectories | None, Trajectories | None]:
    order, places = _layout(seats, episodes, key)
    if order is not None:
        params, key = take_rows(params, order), key[order]
    rows, horizon = simulator.start(params, key), simulator.horizon
    dtype = rows.dtype
    numbers = simulator.numbers(key, horizon, dtype)
    desks = []
    for seat, (sittings, where) in enumerate(zip(seats, places, strict=True)):
        actors = []
        for sitting, own in zip(sittings, where, strict=True):
            mine = key[own]
            actors.append(
                sitting.actor.sit(
                    Place(
                        own,
                        len(mine) // episodes,
                        episodes,
                        mine,
                        horizon,
                        noise.SEAT[seat],
                        dtype,
                        sitting.deterministic,
                        part,
                    )
                )
            )
        desks.append(_Seat(actors, where))
    alive = torch.ones_like(key, dtype=torch.bool)
    there = (alive, alive)  # per seat
    for step in range(horizon):
        actions = [seat.act(step, rows, seen) for seat, seen in zip(desks, simulator.observe(rows), strict=True)]
        given = numbers[step] if numbers is not None else None
        rows, transition = simulator.step(rows, (actions[0], actions[1]), given, alive)
        if transition.left is not None:
            actions = [_where(here, action) for here, action in zip(there, actions, strict=True)]
        for seat, reward, here, other in zip(desks, transition.reward.unbind(1), there, actions[::-1], strict=True):
            seat.record(reward, here, other)
        if transition.left is None:
            alive = alive & ~transition.terminated
            there = (alive, alive)
        else:
            there = (there[0] & ~transition.left[:, 0], there[1] & ~transition.left[:, 1])
            alive = there[0] | there[1]
        if not alive.any():
            break
    return desks[0].result(), desks[1].result()


class _Seat:
    """The actors of one seat; ``where``: their rows."""

    def __init__(self, actors: Sequence[Acting], where: Sequence[Where]) -> None:
        self.actors = actors
        # The place of every row of the world among the rows of all actors, where that is another order.
        tensors = [one for one in where if isinstance(one, Tensor)]
        self.back: Tensor | None = (
            torch.argsort(torch.cat([_index(one, tensors[0]) for one in where])) if tensors else None
        )

    def act(self, step: int, rows: Rows, observation: Tensor) -> Tensor:
        """The actions [B, ...] of all."""
        parts = [actor.act(step, rows, observation) for actor in self.actors]
        action = parts[0] if len(parts) == 1 else torch.cat(parts)
        return action if self.back is None else action[self.back]

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``."""
        for actor in self.actors:
            actor.record(reward, alive, other)

    def result(self) -> Trajectories | None:
        """Of the actor that records some."""
        return next((found for actor in self.actors if (found := actor.result()) is not None), None)


def _layout(
    seats: tuple[Sequence[Sitting], Sequence[Sitting]], episodes: int, key: Tensor
) -> tuple[Tensor | None, list[list[Where]]]:
    """In which order the world has the batch's rows ([B] int64; None: as they are), and per seat the rows of each sitting in it.

    Scripted players look at the world's rows, which costs least where they are next to each other: rows are put together by the
    sitting in the first seat, and among these by that in the second.
    """
    tasks, owners = len(key) // episodes, []
    for role, sittings in zip(ROLES, seats, strict=True):
        index = torch.cat([_index(sitting.tasks, key) for sitting in sittings])
        if not torch.equal(torch.sort(index).values, torch.arange(tasks, dtype=torch.int64, device=key.device)):
            raise InvalidInputError(
                f"seats: the sittings of the {role} must cover each of the {tasks} tasks once, not {str(index.tolist())[:80]}"
            )
        owners.append(torch.empty_like(index))
        for number, own in enumerate(sittings):
            owners[-1][own.tasks] = number
    if all(isinstance(sitting.tasks, slice) for sittings in seats for sitting in sittings):
        return None, [[slice(s.tasks.start * episodes, s.tasks.stop * episodes) for s in seat] for seat in seats]  # type: ignore[union-attr]
    order = torch.argsort(owners[0] * len(seats[1]) + owners[1], stable=True)
    now = torch.argsort(order)
    return _rows(order, episodes), [[_plain(_rows(now[s.tasks], episodes)) for s in seat] for seat in seats]


def _rows(tasks: Tensor, episodes: int) -> Tensor:
    """The rows of tasks: [n] to [n E]."""
    return (tasks.unsqueeze(1) * episodes + torch.arange(episodes, dtype=torch.int64, device=tasks.device)).flatten()


def _index(where: Where, like: Tensor) -> Tensor:
    """As a tensor: [n] int64."""
    if isinstance(where, Tensor):
        return where
    return torch.arange(where.start, where.stop, dtype=torch.int64, device=like.device)


def _plain(index: Tensor) -> Where:
    """The same rows as a slice, where they follow each other: a slice copies nothing."""
    first = int(index[0])
    straight = torch.equal(index, _index(slice(first, first + len(index)), index))
    return slice(first, first + len(index)) if straight else index


def _where(mask: Tensor, action: Tensor) -> Tensor:
    """Actions in the rows of ``mask`` [B], 0 in the others."""
    return torch.where(mask if action.dim() == 1 else mask.unsqueeze(1), action, 0)


def _joined(parts: Sequence[Trajectories | None]) -> Trajectories | None:
    """Join episodes that were played separately, [N, T, M, ...] each with a T of its own, as if they had been played together."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    steps = max(part.reward.shape[1] for part in found)

    def join(fields: list[Tensor], dim: int) -> Tensor:
        return torch.stack(fields, dim + 1).flatten(dim, dim + 1).contiguous()

    def over_time(fields: list[Tensor]) -> Tensor:
        return join([torch.cat([f, f.new_zeros(len(f), steps - f.shape[1], *f.shape[2:])], 1) for f in fields], 2)

    observation, action, reward, alive = (over_time(list(fields)) for fields in zip(*(part[:4] for part in found)))
    others = [part.other for part in found if part.other is not None]
    carries = [part.carry for part in found if part.carry is not None]
    return Trajectories(
        observation,
        action,
        reward,
        alive,
        over_time(others) if others else None,
        Carry(*(join(list(fields), 1) for fields in zip(*carries))) if carries else None,
    )


class LearnerRows:
    """A ``Learner`` in its seat. It records the network's input as its observation."""

    def __init__(self, learner: Learner, place: Place) -> None:
        self.rows, self.policy = place.rows, learner.policy
        # Stacked weights may be views of one set; rollouts are faster on real copies.
        prepared = self.policy.prepare({name: value.detach() for name, value in learner.weights.items()})
        self.weights = {name: value.contiguous() for name, value in prepared.items()}
        n, rows = len(next(iter(self.weights.values()))), len(place.key)
        self.shape, self.place = (n, rows // n), place
        self.sampled = not (learner.deterministic or place.deterministic)
        self.noise: list[Tensor] = []  # for the steps so far, and for later steps of the same block
        if learner.carry is None:
            self.carry = self.policy.initial_carry(self.weights, self.shape[1])
        else:
            number, parts = place.part
            self.carry = learner.carry.repeated(self.shape[1] * parts // learner.carry.memory.shape[1])
            if parts > 1:
                self.carry = Carry(*(field[:, number::parts] for field in self.carry))
        # Kept step by step and joined once: writing into one tensor costs a strided copy per step and field.
        self.kept: list[tuple[Tensor, Tensor]] = []  # input, action
        self.got: list[tuple[Tensor, Tensor]] = []  # reward, alive
        self.others: list[Tensor] = []

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``Acting``."""
        given = self.policy.input(observation[self.rows].view(*self.shape, -1), self.carry)
        self.before = self.carry
        action, self.carry = self.policy.choose(self.weights, given, self.carry, self._noise(step))
        self.kept.append((given, action))
        return self.policy.clip(action).flatten(0, 1)

    def _noise(self, step: int) -> Tensor | None:
        if not self.sampled:
            return None
        if step == len(self.noise):
            numbers = self.policy.prepare_noise(self.place.uniforms(self.policy.noise, step))
            self.noise += self.policy.scale_noise(self.weights, numbers.view(len(numbers), *self.shape, -1)).unbind(0)
        return self.noise[step]

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``."""
        own = reward[self.rows].reshape(self.shape)
        played = alive[self.rows].view(self.shape)
        self.got.append((own, played))
        self.carry = self.policy.remember(self.carry, self.kept[-1][1], own)
        if self.policy.lasting:  # its memory does not change after the end of an episode
            self.carry = self.carry.kept(played, self.before)
            theirs = other[self.rows]
            self.others.append(theirs.view(*self.shape, *theirs.shape[1:]))

    def result(self) -> Trajectories:
        """See ``Acting``."""
        given, action = (torch.stack(part, 1) for part in zip(*self.kept, strict=True))
        reward, alive = (torch.stack(part, 1) for part in zip(*self.got, strict=True))
        data = Trajectories(given, action, torch.where(alive, reward, 0.0), alive.to(reward.dtype))
        if not self.policy.lasting:
            return data
        carry = self.policy.end_episode(self.weights, self.carry)
        return data._replace(other=torch.stack(self.others, 1), carry=carry)


class TaughtRows(LearnerRows):
    """A ``Taught`` learner in its seat."""

    def __init__(self, taught: Taught, place: Place) -> None:
        super().__init__(taught.learner, place)
        self.teacher = PlayerRows(taught.teacher, place._replace(channel=noise.TEACHER))
        number, parts = place.part
        rows = torch.arange(len(place.key), dtype=torch.int64, device=place.key.device)
        self.acts = (rows * parts + number) % 2 == 0  # [rows]

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``Acting``."""
        done = super().act(step, rows, observation)
        wish = self.teacher.act(step, rows, observation)
        self.kept[-1] = self.kept[-1][0], wish.view(*self.shape, *wish.shape[1:])
        return torch.where(self.acts if self.policy.discrete else self.acts.unsqueeze(1), done, wish)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``."""
        super().record(reward, alive, other)
        self.teacher.record(reward, alive, other)


class PlayerRows:
    """A ``Seated`` player."""

    def __init__(self, player: Player, place: Place) -> None:
        self.rows, self.player, self.place = place.rows, player, place
        self.noise: list[Tensor] = []  # as in ``LearnerRows``
        self.memory = place.key.new_zeros(len(place.key), player.memory, dtype=place.dtype)
        self.reward = torch.zeros_like(place.key, dtype=place.dtype)

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``Acting``."""
        view = View(rows.params, rows.state, observation, rows.step)
        if isinstance(self.rows, Tensor) or len(self.reward) < len(observation):  # several players share the seat
            view = take_rows(view, self.rows)
        view = view._replace(reward=self.reward)
        if step == len(self.noise):
            self.noise += self.place.uniforms(self.player.noise, step).unbind(0)
        action, self.memory = self.player.act(view, self.memory, self.noise[step])
        return action

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``; the player sees its last reward."""
        self.reward = reward[self.rows]

    def result(self) -> Trajectories | None:
        """See ``Acting``."""
        return None


class WatchedRows(PlayerRows):
    """A ``Seated`` player whose trajectories are recorded."""

    def __init__(self, player: Player, place: Place) -> None:
        super().__init__(player, place)
        self.shape = (place.tasks, place.episodes)
        self.kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # observation, action, reward, alive
        self.now: tuple[Tensor, Tensor] | None = None

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``Acting``."""
        action = super().act(step, rows, observation)
        self.now = observation[self.rows], action
        return action

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``."""
        super().record(reward, alive, other)
        assert self.now is not None
        self.kept.append(
            (*self.now, torch.where(alive[self.rows], self.reward, 0.0), alive[self.rows].to(reward.dtype))
        )

    def result(self) -> Trajectories:
        """See ``Acting``."""
        observation, action, reward, alive = (
            torch.stack([one.view(*self.shape, *one.shape[1:]) for one in part], 1) for part in zip(*self.kept)
        )
        return Trajectories(observation, action, reward, alive)
