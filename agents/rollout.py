"""Joint rollouts of N tasks x E episodes: one Python loop over time, none over tasks, episodes or players' parameters.

Rows are task-major: row ``n * E + e`` is episode ``e`` of task ``n``. A seat assignment is, per seat, a list of actors with the
tasks that each plays, so that a learned player may sit in some tasks and scripted players in others. Tasks are given in the order
in which their actor has them, which need not be that of the batch. An actor is anything that can ``sit``: stacked policies here,
scripted players (``Seated``), objects that speak NumPy (``agents.adapters``).

Rows whose episode is over are dropped once there are many (``DROP``), and every played step stays as it would be with
them: steps that are not played are zeros in what is recorded.

A simulator that keeps an environment for every row (not ``at_once``) plays one episode of each task at a time, E times. That
does not change a player's random numbers, which depend on the episode and the step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.runtime import one_thread
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core import noise
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Episode, Pair, Player, View
from metaduel.envs.core.simulator import Rows, Simulator, Stepped
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.trees import take_rows
from metaduel.envs.players.scripted import setup_of

Where = slice | Tensor  # rows of a batch: a range, or [n] int64

# Rows that are over are dropped when they are this share of the batch, and as many: dropping costs about as much as a step.
# Many picks here are ``index_select``, which is four times as fast as indexing.
DROP, LEAST = 0.5, 64
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


@runtime_checkable
class Leaving(Acting, Protocol):
    """An actor that goes on with some of its rows when the others are over. With any other actor, a rollout plays all rows to the
    end of the longest episode.
    """

    def keep(self, mine: Tensor, rows: Where) -> None:
        """Go on with some of the rows, perhaps none; then neither ``act`` nor ``record`` follows.

        Args:
            mine: [k] int64, ascending: which of those that the actor has had so far.
            rows: where the batch has them from now on.
        """
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
    numbers = simulator.numbers(key, horizon, rows.dtype)
    place = Place(slice(0), 0, episodes, key, horizon, 0, rows.dtype, part=part)
    desks = [_Seat(seats[seat], places[seat], place._replace(channel=noise.SEAT[seat])) for seat in range(len(ROLES))]
    # Of other simulators' rows, none can be taken.
    drops = simulator.at_once and isinstance(rows, Episode) and all(desk.drops for desk in desks)
    there = (torch.ones_like(key, dtype=torch.bool),) * 2  # per seat
    alive, left, steps = there[0], None, 0
    for step in range(horizon):
        actions = [desk.act(step, rows, seen) for desk, seen in zip(desks, simulator.observe(rows), strict=True)]
        given = None if numbers is None else numbers[step] if left is None else numbers[step][left]
        rows, transition = simulator.step(rows, (actions[0], actions[1]), given, alive)
        if transition.left is not None:
            actions = [_where(here, action) for here, action in zip(there, actions, strict=True)]
        for desk, reward, here, other in zip(desks, transition.reward.unbind(1), there, actions[::-1], strict=True):
            desk.record(reward, here, other)
        there, alive = _still(there, alive, transition)
        steps, count = step + 1, int(alive.sum())
        if not count:
            break
        if drops and len(alive) - count >= max(DROP * len(alive), LEAST):
            kept = alive.nonzero().squeeze(1)
            rows, there, alive = take_rows(rows, kept), (there[0][kept], there[1][kept]), alive[kept]
            left = kept if left is None else left[kept]
            for desk in desks:
                desk.keep(kept)
    return desks[0].result(steps), desks[1].result(steps)


def _still(there: Pair, alive: Tensor, transition: Stepped) -> tuple[Pair, Tensor]:
    """After a step, per seat the rows [B] bool whose player is still there, and those whose episode goes on."""
    if transition.left is None:
        alive = alive & ~transition.terminated
        return (alive, alive), alive
    first, second = there[0] & ~transition.left[:, 0], there[1] & ~transition.left[:, 1]
    return (first, second), first | second


class _Seat:
    """The actors of one seat, and where their rows are in the batch.

    Args:
        sittings: the actors.
        where: their rows.
        place: their place but for what is each one's own; its key is that of the batch.
    """

    def __init__(self, sittings: Sequence[Sitting], where: Sequence[Where], place: Place) -> None:
        self.actors, self.where = [], list(where)
        for sitting, rows in zip(sittings, where, strict=True):
            key = place.key[rows]
            tasks = len(key) // place.episodes
            own = place._replace(rows=rows, tasks=tasks, key=key, deterministic=sitting.deterministic)
            self.actors.append(sitting.actor.sit(own))
        self.playing: list[Acting] = self.actors  # those that have rows left
        self.drops = all(isinstance(actor, Leaving) for actor in self.actors)
        self.back = _back(where, place.key)

    def act(self, step: int, rows: Rows, observation: Tensor) -> Tensor:
        """The actions [B, ...] of all."""
        parts = [actor.act(step, rows, observation) for actor in self.playing]
        action = parts[0] if len(parts) == 1 else torch.cat(parts)
        return action if self.back is None else action[self.back]

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``."""
        for actor in self.playing:
            actor.record(reward, alive, other)

    def keep(self, kept: Tensor) -> None:
        """Go on with these rows of the batch, [k] int64."""
        size = sum(len(_index(rows, kept)) for rows in self.where)
        now = kept.new_full((size,), -1)  # of every row so far, its place from now on
        now[kept] = torch.arange(len(kept), dtype=torch.int64, device=kept.device)
        playing: list[Acting] = []
        where: list[Where] = []
        for actor, rows in zip(self.playing, self.where, strict=True):
            mine = (now[rows] >= 0).nonzero().squeeze(1)
            after = _plain(now[rows][mine])
            assert isinstance(actor, Leaving)
            actor.keep(mine, after)
            if len(mine):
                playing.append(actor)
                where.append(after)
        self.playing, self.where, self.back = playing, where, _back(where, kept)

    def result(self, steps: int) -> Trajectories | None:
        """Of the actor that records some, over all ``steps`` of the batch."""
        found = next((found for actor in self.actors if (found := actor.result()) is not None), None)
        if found is None or found.reward.shape[1] == steps:
            return found
        other = None if found.other is None else _lengthened(found.other, steps)
        return found.map(lambda part: _lengthened(part, steps))._replace(other=other, carry=found.carry)


def _lengthened(part: Tensor, steps: int) -> Tensor:
    """Zeros after the last of [N, T, ...] steps."""
    return torch.cat([part, part.new_zeros(len(part), steps - part.shape[1], *part.shape[2:])], 1)


def _back(where: Sequence[Where], like: Tensor) -> Tensor | None:
    """Where each of the batch's rows is among the rows of all actors, [B]; None: in its own place."""
    index = _plain(torch.cat([_index(rows, like) for rows in where]))
    return torch.argsort(index) if isinstance(index, Tensor) else None


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
    first = int(index[0]) if len(index) else 0
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
        return join([_lengthened(field, steps) for field in fields], 2)

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


class _Record:
    """What is recorded of an actor's rows, some of which are dropped on the way.

    Args:
        rows: how many rows the actor has at first.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.left: Tensor | None = None  # [k] int64 which of the rows are left; None: all
        self.parts: list[tuple[Tensor | None, Sequence[Tensor]]] = []

    def add(self, fields: Sequence[Tensor]) -> None:
        """Steps of the rows that are left, [t, k, ...] each."""
        self.parts.append((self.left, fields))

    def keep(self, mine: Tensor) -> None:
        """Drop all but these of the rows that are left."""
        self.left = mine if self.left is None else self.left[mine]

    def whole(self) -> list[Tensor]:
        """All steps of all rows, [T, rows, ...] each; zeros after a row was dropped."""
        if len(self.parts) == 1:
            return list(self.parts[0][1])
        steps = sum(len(fields[0]) for _, fields in self.parts)
        wholes = [part.new_zeros(steps, self.rows, *part.shape[2:]) for part in self.parts[0][1]]
        first = 0
        for left, fields in self.parts:
            for whole, part in zip(wholes, fields, strict=True):
                where = slice(None) if left is None else left
                whole[first : first + len(part), where] = part
            first += len(fields[0])
        return wholes


def _trajectories(wholes: Sequence[Tensor], shape: tuple[int, int]) -> list[Tensor]:
    """Whole records [T, N M, ...] as trajectories [N, T, M, ...], zeros where they were not played; the last one says where they
    were, and is bool. Writes into them.
    """
    over, results = ~wholes[-1], []
    for whole in wholes[:-1]:
        whole.masked_fill_(over.view(*over.shape, *[1] * (whole.dim() - 2)), 0)
        results.append(whole)
    return [one.view(len(one), *shape, *one.shape[2:]).transpose(0, 1).contiguous() for one in (*results, wholes[-1])]


class _Ahead:
    """An actor's random numbers, made for many steps at once.

    Args:
        make: the numbers from a step on, [steps, ...].
    """

    def __init__(self, make: Callable[[int], Tensor]) -> None:
        self.make, self.done = make, 0
        self.block: Tensor | None = None  # [steps, ...], of which the first ``done`` were used

    def at(self, step: int) -> Tensor:
        """Those of a step; steps must come in order."""
        if self.block is None or self.done == len(self.block):
            self.block, self.done = self.make(step), 0
        self.done += 1
        return self.block[self.done - 1]

    def keep(self, pick: Callable[[Tensor], Tensor]) -> None:
        """Pick from those of the steps to come, [steps, ...]."""
        if self.block is not None and self.done < len(self.block):
            self.block, self.done = pick(self.block[self.done :]), 0


class LearnerRows:
    """A ``Learner`` in its seat. It records the network's input as its observation.

    Its rows fill a grid [n, m] for n sets of weights. When rows are dropped, each set's rows move together, sets without any
    are dropped, and where a set has fewer rows than others, its last places repeat another of its rows.
    """

    def __init__(self, learner: Learner, place: Place) -> None:
        self.rows, self.policy = place.rows, learner.policy
        self.every = self.weights = self.policy.ready(learner.weights)
        n, rows = len(next(iter(self.weights.values()))), len(place.key)
        self.whole = self.shape = n, rows // n
        self.own = self.rows  # as ``rows``, without repeated ones
        self.slots: Tensor | None = None  # [k] where these are in the grid; None: they fill it, in order
        self.place = place
        self.sampled = not (learner.deterministic or place.deterministic)
        self.noise = _Ahead(self._noise)
        if learner.carry is None:
            self.carry = self.policy.initial_carry(self.weights, self.shape[1])
        else:
            number, parts = place.part
            self.carry = learner.carry.repeated(self.shape[1] * parts // learner.carry.memory.shape[1])
            if parts > 1:
                self.carry = Carry(*(field[:, number::parts] for field in self.carry))
        # At the end of each episode, [rows, ...]:
        self.last = Carry(*(part.flatten(0, 1).clone() for part in self.carry)) if self.policy.lasting else None
        # Kept step by step and joined once: writing into one tensor costs a strided copy per step and field.
        self.kept: list[tuple[Tensor, ...]] = []  # of the grid: input, action, perhaps the other seat's action
        self.got: list[tuple[Tensor, Tensor]] = []  # of the batch: reward, alive
        self.past = _Record(rows)

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``Acting``."""
        given = self.policy.input(observation[self.rows].view(*self.shape, -1), self.carry)
        self.before = self.carry
        numbers = self.noise.at(step) if self.sampled else None
        action, self.carry = self.policy.choose(self.weights, given, self.carry, numbers)
        self.kept.append((given, action))
        played = self.policy.clip(action).flatten(0, 1)
        return played if self.slots is None else played[self.slots]

    def _noise(self, first: int) -> Tensor:
        numbers = self.policy.prepare_noise(self.place.uniforms(self.policy.noise, first))
        return self.policy.scale_noise(self.weights, numbers.view(len(numbers), *self.shape, -1))

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``."""
        self.got.append((reward, alive))
        if any(self.policy.carried):
            own = reward[self.rows].reshape(self.shape)
            self.carry = self.policy.remember(self.carry, self.kept[-1][1], own)
        if self.policy.lasting:  # its memory does not change after the end of an episode
            self.carry = self.carry.kept(alive[self.rows].view(self.shape), self.before)
            theirs = other[self.rows]
            self.kept[-1] += (theirs.view(*self.shape, *theirs.shape[1:]),)

    def keep(self, mine: Tensor, rows: Where) -> None:
        """See ``Leaving``."""
        self._close()
        self.past.keep(mine)
        if not len(mine):
            return
        slots, used, wide, source = _grid(mine if self.slots is None else self.slots[mine], self.shape)
        self.noise.keep(
            lambda numbers: numbers.flatten(1, 2).index_select(1, source).view(-1, len(used), wide, numbers.shape[-1])
        )
        self.carry = Carry(
            *(field.flatten(0, 1).index_select(0, source).view(len(used), wide, -1) for field in self.carry)
        )
        self.place = self.place._replace(key=self.place.key[source])
        if len(used) < self.shape[0]:
            self.weights = {name: value.index_select(0, used) for name, value in self.weights.items()}
        self.shape, self.own, self.rows, self.slots = (len(used), wide), rows, rows, None
        if len(mine) < len(source):
            self.slots, self.rows = slots, torch.zeros_like(source)
            self.rows[slots] = _index(rows, slots)

    def _close(self) -> None:
        """Record the steps since rows were dropped last."""
        parts = [torch.stack(part).flatten(1, 2) for part in zip(*self.kept, strict=True)]
        if self.slots is not None:
            parts = [part.index_select(1, self.slots) for part in parts]
        reward, alive = (torch.stack(part)[:, self.own] for part in zip(*self.got, strict=True))
        self.past.add((*parts, reward, alive))
        self.kept, self.got = [], []
        if self.last is not None:
            left = slice(None) if self.past.left is None else self.past.left
            slots = slice(None) if self.slots is None else self.slots
            for whole, part in zip(self.last, self.carry, strict=True):
                whole[left] = part.flatten(0, 1)[slots]

    def result(self) -> Trajectories:
        """See ``Acting``."""
        if self.kept:
            self._close()
        given, action, *other, reward, alive = _trajectories(self.past.whole(), self.whole)
        data = Trajectories(given, action, reward, alive.to(reward.dtype))
        if self.last is None:
            return data
        carry = Carry(*(part.view(*self.whole, -1) for part in self.last))
        return data._replace(other=other[0], carry=self.policy.end_episode(self.every, carry))


def _grid(slots: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor, int, Tensor]:
    """Move the rows at ``slots`` [k], ascending, of a grid [n, m] together.

    Returns:
        Their slots [k] in the new grid, which of the sets it has [n'], its width m', and which of the old slots each of the new
        ones is, [n' m'].
    """
    sets = torch.div(slots, shape[1], rounding_mode="floor")
    counts = torch.bincount(sets, minlength=shape[0])
    used, wide = counts.nonzero().squeeze(1), int(counts.max())
    place = torch.arange(len(slots), dtype=torch.int64, device=slots.device) - (counts.cumsum(0) - counts)[sets]
    number = (counts > 0).cumsum(0) - 1
    after = number[sets] * wide + place
    source = (used * shape[1]).repeat_interleave(wide)
    source[after] = slots
    return after, used, wide, source


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
        shown = self.kept[-1][1].flatten(0, 1)
        shown = wish if self.slots is None else shown.to(wish.dtype).index_copy(0, self.slots, wish)
        self.kept[-1] = self.kept[-1][0], shown.view(*self.shape, *wish.shape[1:])
        return torch.where(self.acts if self.policy.discrete else self.acts.unsqueeze(1), done, wish)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``."""
        super().record(reward, alive, other)
        self.teacher.record(reward, alive, other)

    def keep(self, mine: Tensor, rows: Where) -> None:
        """See ``Leaving``."""
        super().keep(mine, rows)
        self.teacher.keep(mine, rows)
        self.acts = self.acts[mine]


class PlayerRows:
    """A ``Seated`` player."""

    def __init__(self, player: Player, place: Place) -> None:
        self.rows, self.player, self.place = place.rows, player, place
        self.noise = _Ahead(lambda first: self.place.uniforms(self.player.noise, first))
        self.memory = place.key.new_zeros(len(place.key), player.memory, dtype=place.dtype)
        self.params: Any = None  # of its rows, and what it knows of them: the same in the whole episode
        self.known: Any = None
        self.reward = torch.zeros_like(place.key, dtype=place.dtype)

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        """See ``Acting``."""
        alone = not isinstance(self.rows, Tensor) and len(self.reward) == len(observation)
        if self.params is None:
            self.params = rows.params if alone else take_rows(rows.params, self.rows)
            setup = setup_of(self.player)
            self.known = None if setup is None else setup(self.params)
        seen = rows.state, observation, rows.step
        state, observation, now = seen if alone else [take_rows(part, self.rows) for part in seen]
        view = View(self.params, state, observation, now, self.reward, self.known)
        action, self.memory = self.player.act(view, self.memory, self.noise.at(step))
        return action

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """See ``Acting``; the player sees its last reward."""
        self.reward = reward[self.rows]

    def keep(self, mine: Tensor, rows: Where) -> None:
        """See ``Leaving``."""
        self.rows, self.memory, self.reward = rows, self.memory[mine], self.reward[mine]
        self.params, self.known = take_rows(self.params, mine), take_rows(self.known, mine)
        self.place = self.place._replace(key=self.place.key[mine])
        self.noise.keep(lambda numbers: numbers.index_select(1, mine))

    def result(self) -> Trajectories | None:
        """See ``Acting``."""
        return None


class WatchedRows(PlayerRows):
    """A ``Seated`` player whose trajectories are recorded."""

    def __init__(self, player: Player, place: Place) -> None:
        super().__init__(player, place)
        self.shape = (place.tasks, place.episodes)
        self.kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # observation, action, reward, alive
        self.past = _Record(len(place.key))
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
        self.kept.append((*self.now, self.reward, alive[self.rows]))

    def keep(self, mine: Tensor, rows: Where) -> None:
        """See ``Leaving``."""
        self._close()
        self.past.keep(mine)
        super().keep(mine, rows)

    def _close(self) -> None:
        """Record the steps since rows were dropped last."""
        self.past.add([torch.stack(part) for part in zip(*self.kept, strict=True)])
        self.kept = []

    def result(self) -> Trajectories:
        """See ``Acting``."""
        if self.kept:
            self._close()
        observation, action, reward, alive = _trajectories(self.past.whole(), self.shape)
        return Trajectories(observation, action, reward, alive.to(reward.dtype))
