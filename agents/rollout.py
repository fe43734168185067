"""Joint rollouts of N tasks x E episodes: one Python loop over time, none over tasks, episodes or players' parameters.

Rows are task-major: row ``n * E + e`` is episode ``e`` of task ``n``. Each seat is a list of contiguous row ranges with
whoever acts there, so that a learned player may sit in some tasks and scripted ones in others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.recurrent import RecurrentPolicy
from metaduel.agents.runtime import one_thread
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core import noise
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import Player, View
from metaduel.envs.core.trees import take_rows


class Learner(NamedTuple):
    """A learned player: one set of weights per task, or one for all of them."""

    policy: Policy
    weights: Weights  # each [n, ...], n tasks or 1
    deterministic: bool = False
    teacher: Player | None = None  # what it would do is kept as the learner's actions, and done in every other episode


class Sitting(NamedTuple):
    """Who acts in a contiguous range of tasks."""

    tasks: slice
    actor: Learner | Player


def rollout(
    duel: Duel,
    params: Any,
    seats: tuple[Sequence[Sitting], Sequence[Sitting]],
    episodes: int,
    seed: Tensor,
    episode: Tensor,
) -> tuple[Trajectories | None, Trajectories | None]:
    """Play one episode in every row and record what the learners need.

    Args:
        duel: the game.
        params: the tasks, one row per (task, episode).
        seats: per seat, sittings that cover all tasks in order. At most one of a seat's sittings is a ``Learner``.
        episodes: E.
        seed: [N E] int64.
        episode: [N E] int64.

    Returns:
        Per seat the learner's trajectories, over its tasks alone; None for a seat without a learner. T is the length of
        the longest episode. With one set of weights for n tasks they are [1, T, n E, ...].
    """
    with torch.no_grad(), one_thread():
        return _Rollout(duel, params, seats, episodes, seed, episode).run()


class _Rollout:
    """The state of one call of ``rollout``."""

    def __init__(
        self,
        duel: Duel,
        params: Any,
        seats: tuple[Sequence[Sitting], Sequence[Sitting]],
        episodes: int,
        seed: Tensor,
        episode: Tensor,
    ) -> None:
        self.duel, self.episodes = duel, episodes
        self.rows = duel.reset(params, seed, episode)
        self.dtype = params[0].dtype
        time = torch.arange(duel.horizon).view(-1, 1)
        self.numbers = duel.step_noise(self.rows.key, time, self.dtype).unbind(0) if duel.game.step_noise else None
        self.actors = [
            [self._actor(seat, sitting, time) for sitting in sittings] for seat, sittings in enumerate(seats)
        ]

    def _actor(self, seat: int, sitting: Sitting, time: Tensor) -> _LearnerRows | _PlayerRows:
        rows = slice(sitting.tasks.start * self.episodes, sitting.tasks.stop * self.episodes)
        uniforms = noise.uniform(self.rows.key[rows], time, noise.SEAT[seat], _noise(sitting.actor), self.dtype)
        if isinstance(sitting.actor, Learner):
            kind = _kind(sitting.actor.policy)
            if sitting.actor.teacher is not None:
                if kind is not _LearnerRows:
                    raise TypeError(f"{type(sitting.actor.policy).__name__} has a memory and cannot be taught")
                own = noise.uniform(self.rows.key[rows], time, noise.TEACHER, sitting.actor.teacher.noise, self.dtype)
                return _TaughtRows(rows, sitting.actor, uniforms, self.duel.horizon, own)
            return kind(rows, sitting.actor, uniforms, self.duel.horizon)
        return _PlayerRows(rows, sitting.actor, uniforms)

    def run(self) -> tuple[Trajectories | None, Trajectories | None]:
        alive = torch.ones(self.rows.key.shape[0], dtype=torch.bool)
        for step in range(self.duel.horizon):
            actions = []
            for actors, observation in zip(self.actors, self.duel.observe(self.rows), strict=True):
                parts = [actor.act(step, self.rows, observation) for actor in actors]
                actions.append(parts[0] if len(parts) == 1 else torch.cat(parts))
            numbers = self.numbers[step] if self.numbers is not None else None
            self.rows, transition = self.duel.step(self.rows, (actions[0], actions[1]), numbers)
            rewards = transition.reward.unbind(1)
            for actors, reward, other in zip(self.actors, rewards, actions[::-1], strict=True):
                for actor in actors:
                    actor.record(reward, alive, other)
            alive = alive & ~transition.terminated
            if not alive.any():
                break
        results = [next((r for actor in actors if (r := actor.result())), None) for actors in self.actors]
        return results[0], results[1]


def _kind(policy: Policy) -> type[_LearnerRows]:
    """Who keeps a learner's rows."""
    if isinstance(policy, MemoryPolicy):
        return _MemoryRows
    return _RecurrentRows if isinstance(policy, RecurrentPolicy) else _LearnerRows


def _noise(actor: Learner | Player) -> int:
    return actor.policy.noise if isinstance(actor, Learner) else actor.noise


class _LearnerRows:
    def __init__(self, rows: slice, learner: Learner, uniforms: Tensor, horizon: int) -> None:
        self.rows, self.policy, self.deterministic = rows, learner.policy, learner.deterministic
        # Stacked weights may be views of one set; rollouts are faster on real copies.
        prepared = self.policy.prepare({name: value.detach() for name, value in learner.weights.items()})
        self.weights = {name: value.contiguous() for name, value in prepared.items()}
        n = len(next(iter(self.weights.values())))
        self.shape = (n, uniforms.shape[1] // n)
        numbers = self.policy.prepare_noise(uniforms).view(horizon, *self.shape, -1)
        self.noise = self.policy.scale_noise(self.weights, numbers).unbind(0)
        # Kept step by step and joined once: writing into a block costs a strided copy per step and field.
        self.kept: list[tuple[Tensor, Tensor]] = []  # observation, action
        self.got: list[tuple[Tensor, Tensor]] = []  # reward, alive

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        own = observation[self.rows].view(*self.shape, -1)
        if self.deterministic:
            action = self.policy.distribution(self.weights, own).mode()
        else:
            action = self.policy.sample(self.weights, own, self.noise[step])
        self.kept.append((own, action))
        return self.policy.clip(action).flatten(0, 1)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        self.got.append((reward[self.rows].reshape(self.shape), alive[self.rows].view(self.shape)))

    def result(self) -> Trajectories | None:
        observation, action = (torch.stack(part, 1) for part in zip(*self.kept, strict=True))
        reward, alive = (torch.stack(part, 1) for part in zip(*self.got, strict=True))
        return Trajectories(observation, action, torch.where(alive, reward, 0.0), alive.to(reward.dtype))


class _RecurrentRows(_LearnerRows):
    """What it records as its observation is what it is given: what it saw, did and got."""

    policy: RecurrentPolicy

    def __init__(self, rows: slice, learner: Learner, uniforms: Tensor, horizon: int) -> None:
        super().__init__(rows, learner, uniforms, horizon)
        self.hidden, self.before = (uniforms.new_zeros(*self.shape, n) for n in self.policy.remembered)

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        own = torch.cat([observation[self.rows].view(*self.shape, -1), self.before], -1)
        out, self.hidden = self.policy.advance(self.weights, own, self.hidden)
        if self.deterministic:
            action = self.policy.head(self.weights, out).mode()
        else:
            action = self.policy.pick(self.weights, out, self.noise[step])
        self.kept.append((own, action))
        return self.policy.clip(action).flatten(0, 1)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        super().record(reward, alive, other)
        self.before = self.policy.remember(self.kept[-1][1], self.got[-1][0])


class _MemoryRows(_RecurrentRows):
    """Its memory stands still after the end of an episode, which closes it."""

    policy: MemoryPolicy

    def __init__(self, rows: slice, learner: Learner, uniforms: Tensor, horizon: int) -> None:
        super().__init__(rows, learner, uniforms, horizon)
        self.hidden = self.policy.begin(self.weights, self.shape[1])
        self.others: list[Tensor] = []

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        self._before = self.hidden, self.before
        return super().act(step, rows, observation)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        super().record(reward, alive, other)
        own = other[self.rows]
        self.others.append(own.view(*self.shape, *own.shape[1:]))
        played = self.got[-1][1].unsqueeze(-1)
        hidden, before = self._before
        self.hidden = torch.where(played, self.hidden, hidden)
        self.before = torch.where(played, self.before, before)

    def result(self) -> Trajectories | None:
        data = super().result()
        assert data is not None
        memory = self.policy.close(self.weights, self.before, self.hidden)
        return data._replace(other=torch.stack(self.others, 1), memory=memory)


class _TaughtRows(_LearnerRows):
    """A learner beside a player that says at every step what it would do there, whoever of them acts: the learner in every
    other episode, so that it is also told what to do where its own mistakes lead (as in DAgger, Ross et al., AISTATS 2011).
    """

    def __init__(self, rows: slice, learner: Learner, uniforms: Tensor, horizon: int, own: Tensor) -> None:
        super().__init__(rows, learner, uniforms, horizon)
        assert learner.teacher is not None
        self.teacher = _PlayerRows(rows, learner.teacher, own)
        self.acts = torch.arange(uniforms.shape[1]) % 2 == 0  # [rows]

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        done = super().act(step, rows, observation)
        wish = self.teacher.act(step, rows, observation)
        self.kept[-1] = self.kept[-1][0], wish.view(*self.shape, *wish.shape[1:])
        return torch.where(self.acts if self.policy.discrete else self.acts.unsqueeze(1), done, wish)

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        super().record(reward, alive, other)
        self.teacher.record(reward, alive, other)


class _PlayerRows:
    def __init__(self, rows: slice, player: Player, uniforms: Tensor) -> None:
        self.rows, self.player, self.noise = rows, player, uniforms.unbind(0)
        self.memory = torch.zeros(uniforms.shape[1], player.memory, dtype=uniforms.dtype)
        self.reward = torch.zeros(uniforms.shape[1], dtype=uniforms.dtype)

    def act(self, step: int, rows: Any, observation: Tensor) -> Tensor:
        view = View(rows.params, rows.state, observation, rows.step)
        if self.memory.shape[0] < observation.shape[0]:  # not the only one in this seat
            view = take_rows(view, self.rows)
        view = view._replace(reward=self.reward)
        action, self.memory = self.player.act(view, self.memory, self.noise[step])
        return action

    def record(self, reward: Tensor, alive: Tensor, other: Tensor) -> None:
        """What it will be told."""
        self.reward = reward[self.rows]

    def result(self) -> Trajectories | None:
        return None
