"""Games and environments as a ``Problem``: joint rollouts give each adapting player its policy-gradient loss on every task."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.core.trees import take_rows
from metaduel.meta.problems.chains import Chain
from metaduel.meta.problems.played import Drawn, copies
from metaduel.meta.problems.problem import Players


@dataclass(frozen=True)
class Matchups:
    """The matchup on each task. Rows of ``tasks`` in order: protagonist against scripted adversaries, learners
    against each other, scripted protagonists against the adversary.

    Attributes:
        tasks: [M, C] as ``Simulator.params`` takes them: a game's context values.
        against_adversaries: the protagonist's scripted opponents, with the number of tasks of each.
        duels: number of tasks that the two learners play against each other.
        against_protagonists: the adversary's scripted opponents, with the number of tasks of each.
    """

    tasks: Tensor
    against_adversaries: Sequence[tuple[Player, int]] = ()
    duels: int = 0
    against_protagonists: Sequence[tuple[Player, int]] = ()

    def __post_init__(self) -> None:
        if self.first + self.duels + self.last != self.tasks.shape[0]:
            raise ValueError(f"{self.tasks.shape[0]} tasks for {self.first} + {self.duels} + {self.last} matchups")

    @property
    def first(self) -> int:
        """Tasks of the protagonist against scripted adversaries."""
        return sum(n for _, n in self.against_adversaries)

    @property
    def last(self) -> int:
        """Tasks of the adversary against scripted protagonists."""
        return sum(n for _, n in self.against_protagonists)

    def where(self, keep: Tensor) -> Matchups:
        """The matchups of the tasks with ``keep`` [M] alone."""
        groups = []
        for group, start in ((self.against_adversaries, 0), (self.against_protagonists, self.first + self.duels)):
            counts = torch.split(keep[start : start + sum(n for _, n in group)], [n for _, n in group])
            groups.append(
                [(player, n) for (player, _), part in zip(group, counts, strict=True) if (n := int(part.sum()))]
            )
        duels = int(keep[self.first : self.first + self.duels].sum())
        return Matchups(self.tasks[keep], groups[0], duels, groups[1])


class DuelProblem:
    """Matchups of one game or environment, as a ``Problem``.

    Args:
        duel: the game, or any other simulator.
        policies: per role.
        matchups: the matchup on each task.
        episodes: episodes per task and shot.
        seed: seed of all noise; shot k is episode k of row seeds ``seed + row``.
        loss: settings of the loss, for all or per role.
        deterministic: act with the distributions' modes.
    """

    def __init__(
        self,
        duel: Simulator,
        policies: Mapping[Role, Policy],
        matchups: Matchups,
        episodes: int,
        seed: int,
        loss: LossConfig | Mapping[Role, LossConfig],
        deterministic: bool = False,
    ) -> None:
        self.duel, self.policies, self.matchups = duel, policies, matchups
        self.episodes, self.deterministic = episodes, deterministic
        self.objectives = {role: loss.of(role) if isinstance(loss, LossConfig) else loss[role] for role in policies}
        self._params = duel.params(matchups.tasks.repeat_interleave(episodes, 0))
        self.seed = seed
        # Row seeds wrap around like all arithmetic on keys.
        rows, device = matchups.tasks.shape[0] * episodes, matchups.tasks.device
        self._seeds = torch.arange(rows, dtype=torch.int64, device=device) + seed

    @property
    def duels(self) -> int:
        """Number of tasks on which the two learners meet: the protagonist's last, the adversary's first."""
        return self.matchups.duels

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per learner."""
        m = self.matchups
        counts: dict[Role, int] = {"protagonist": m.first + m.duels, "adversary": m.duels + m.last}
        return {role: n for role, n in counts.items() if n}

    def draw(self, players: Players, shot: int) -> Drawn:
        """See ``Problem.draw``."""
        data = self.collect(players, shot)
        opponent_log_probs = partial(_opponent_log_probs, self.matchups, data) if self.matchups.duels else None
        return Drawn(self.policies, self.objectives, copies(players), data, self._count(data), opponent_log_probs)

    def chain(self, players: Players, shots: int) -> Chain:
        """See ``ChainProblem.chain``."""
        played, _ = self.in_turn(players, 0, shots * self.episodes)
        steps = [self._count({role: one[i] for role, one in played.items()}) for i in range(shots * self.episodes)]
        policies = {role: cast(MemoryPolicy, self.policies[role]) for role in played}
        return Chain(policies, played, self.objectives, self.seed, shots, sum(steps))

    def in_turn(
        self, players: Players, first: int, episodes: int, carries: Mapping[Role, Carry] | None = None
    ) -> tuple[dict[Role, list[Trajectories]], dict[Role, Carry]]:
        """Play episodes one after another, one on each task at a time, with carries that last.

        Args:
            players: per role one set of weights for all tasks, or one per task.
            first: number of the first episode.
            episodes: number of episodes.
            carries: the carries with which the first episode starts; None: the policies' initial ones.

        Returns:
            Per role its episodes, and the carry after the last one.
        """
        played: dict[Role, list[Trajectories]] = {role: [] for role in players}
        rows = take_rows(self._params, slice(None, None, self.episodes))
        seeds = self._seeds[:: self.episodes]
        now = dict(carries or {})
        for episode in range(first, first + episodes):
            data = self._play(players, rows, 1, seeds, episode, now)
            for role, one in data.items():
                played[role].append(one)
            now |= {role: one.carry for role, one in data.items() if one.carry is not None}
        return played, now

    def without(self, role: Role, tasks: Collection[int]) -> DuelProblem:
        """See ``Problem.without``."""
        first = 0 if role == "protagonist" else self.matchups.first
        keep = torch.ones_like(self._seeds[:: self.episodes], dtype=torch.bool)
        keep[self._seeds.new_tensor(list(tasks)) + first] = False
        rest = copy.copy(self)
        rest.matchups = self.matchups.where(keep)
        if len(rest.tasks) < len(self.tasks):
            raise FloatingPointError(f"every task of the {role}, or of its opponent, diverged")
        rows = keep.repeat_interleave(self.episodes)
        rest._seeds = self._seeds[rows]
        rest._params = take_rows(self._params, rows)
        return rest

    def collect(
        self, players: Players, shot: int, carries: Mapping[Role, Carry] | None = None
    ) -> dict[Role, Trajectories]:
        """Play ``episodes`` episodes per task with the players' present weights; each starts with a copy of the task's carry."""
        return self._play(players, self._params, self.episodes, self._seeds, shot, carries or {})

    def _play(
        self, players: Players, params: Any, episodes: int, seeds: Tensor, episode: int, carries: Mapping[Role, Carry]
    ) -> dict[Role, Trajectories]:
        seats = self._seats(players, carries)
        results = rollout(self.duel, params, seats, episodes, seeds, torch.full_like(seeds, episode))
        return {role: result for role, result in zip(ROLES, results, strict=True) if result is not None}

    def _seats(self, players: Players, carries: Mapping[Role, Carry]) -> tuple[list[Sitting], list[Sitting]]:
        m, end = self.matchups, self.matchups.tasks.shape[0]
        learners = {
            role: Learner(self.policies[role], weights, self.deterministic, carries.get(role))
            for role, weights in players.items()
        }
        seats: tuple[list[Sitting], list[Sitting]] = ([], [])
        if m.first + m.duels:
            seats[0].append(Sitting(slice(0, m.first + m.duels), learners["protagonist"]))
        seats[0].extend(sittings(m.against_protagonists, m.first + m.duels))
        seats[1].extend(sittings(m.against_adversaries, 0))
        if m.duels + m.last:
            seats[1].append(Sitting(slice(m.first, end), learners["adversary"]))
        return seats

    def _count(self, data: dict[Role, Trajectories]) -> int:
        steps = sum(int(one.alive.sum(dtype=torch.float64)) for one in data.values())
        if len(data) == 2 and self.matchups.duels:  # steps that both learners played count once
            first, last = (data[role].alive.transpose(0, 1).flatten(1) for role in ROLES)  # [T, rows]
            shared = last.shape[1] // self.tasks["adversary"] * self.matchups.duels
            both = first[:, first.shape[1] - shared :] * last[:, :shared]
            steps -= int(both.sum(dtype=torch.float64))
        return steps


def _opponent_log_probs(
    matchups: Matchups, data: Mapping[Role, Trajectories], log_prob: dict[Role, Tensor]
) -> dict[Role, Tensor]:
    """Per role the opponent's log-probabilities, 0 for a scripted opponent and after the opponent has left."""
    first, duels, last = matchups.first, matchups.duels, matchups.last
    own = {role: value * data[role].alive for role, value in log_prob.items()}
    theirs = {"protagonist": own["adversary"][:duels], "adversary": own["protagonist"][first:]}
    return {
        "protagonist": torch.nn.functional.pad(theirs["protagonist"], (0, 0, 0, 0, first, 0)),
        "adversary": torch.nn.functional.pad(theirs["adversary"], (0, 0, 0, 0, 0, last)),
    }


def sittings(groups: Sequence[tuple[Player, int]], start: int) -> list[Sitting]:
    """Sittings of players of the core, with the number of tasks of each, from task ``start`` on."""
    result = []
    for player, n in groups:
        result.append(Sitting(slice(start, start + n), Seated(player)))
        start += n
    return result
