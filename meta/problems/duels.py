"""Games and environments as a ``Problem``: joint rollouts give each adapting player its policy-gradient loss on every task."""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from metaduel.agents.compiled import Play
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.envs.core.trees import take_rows, tree_map
from metaduel.meta.problems.chains import Chain
from metaduel.meta.problems.played import Drawn, DrawnTogether, copies, spread
from metaduel.meta.problems.problem import Players, Problem
from metaduel.meta.problems.together import counts_of


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


class Rows(ABC):
    """Rows of tasks and episodes that players play.

    Attributes:
        duel: the game, or any other simulator.
        policies: per role.
        episodes: episodes per task and shot.
        deterministic: act with the distributions' modes.
        params: of every row.
        seeds: of every row, [N E] int64.
        play: plays the episodes.
    """

    duel: Simulator
    policies: Mapping[Role, Policy]
    episodes: int
    deterministic: bool
    params: Any
    seeds: Tensor
    play: Play

    @property
    def compiled(self) -> bool:
        """Whether steps are compiled, for a number of rows and of sets of weights each."""
        return self.play is not rollout

    @abstractmethod
    def _seats(self, players: Players, carries: Mapping[Role, Carry]) -> tuple[list[Sitting], list[Sitting]]:
        """The seat assignment."""

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
        rows = take_rows(self.params, slice(None, None, self.episodes))
        seeds = self.seeds[:: self.episodes]
        now = dict(carries or {})
        for episode in range(first, first + episodes):
            data = self._play(players, rows, 1, seeds, episode, now)
            for role, one in data.items():
                played[role].append(one)
            now |= {role: one.carry for role, one in data.items() if one.carry is not None}
        return played, now

    def collect(
        self, players: Players, shot: int, carries: Mapping[Role, Carry] | None = None
    ) -> dict[Role, Trajectories]:
        """Play ``episodes`` episodes per task with the players' present weights; each starts with a copy of the task's carry."""
        return self._play(players, self.params, self.episodes, self.seeds, shot, carries or {})

    def _collected(self, players: Players, shot: int) -> dict[Role, Trajectories]:
        """The same, [N, T, E, ...] of every player, however many sets of weights it has."""
        return {role: one.split(self.episodes) for role, one in self.collect(players, shot).items()}

    def _play(
        self, players: Players, params: Any, episodes: int, seeds: Tensor, episode: int, carries: Mapping[Role, Carry]
    ) -> dict[Role, Trajectories]:
        seats = self._seats(players, carries)
        results = self.play(self.duel, params, seats, episodes, seeds, torch.full_like(seeds, episode))
        return {role: result for role, result in zip(ROLES, results, strict=True) if result is not None}

    def _learners(self, players: Players, carries: Mapping[Role, Carry]) -> dict[Role, Learner]:
        return {
            role: Learner(self.policies[role], weights, self.deterministic, carries.get(role))
            for role, weights in players.items()
        }


class DuelProblem(Rows):
    """Matchups of one game or environment, as a ``Problem``.

    Args:
        duel: the game, or any other simulator.
        policies: per role.
        matchups: the matchup on each task.
        episodes: episodes per task and shot.
        seed: seed of all noise; shot k is episode k of row seeds ``seed + row``.
        loss: settings of the loss, for all or per role.
        deterministic: act with the distributions' modes.
        play: plays the episodes: ``rollout``, or the same compiled.
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
        play: Play = rollout,
    ) -> None:
        self.duel, self.policies, self.matchups = duel, policies, matchups
        self.episodes, self.deterministic, self.play = episodes, deterministic, play
        self.objectives = {role: loss.of(role) if isinstance(loss, LossConfig) else loss[role] for role in policies}
        self.params = duel.params(matchups.tasks.repeat_interleave(episodes, 0))
        self.seed = seed
        # Row seeds wrap around like all arithmetic on keys.
        rows, device = matchups.tasks.shape[0] * episodes, matchups.tasks.device
        self.seeds = torch.arange(rows, dtype=torch.int64, device=device) + seed

    @property
    def kind(self) -> Hashable | None:
        """Problems of equal kind can be played and differentiated at once, see ``together``; None: this one cannot."""
        if not self.duel.at_once:
            return None
        surrogates = tuple(loss.kind for loss in self.objectives.values())
        policies = tuple((role, id(policy)) for role, policy in self.policies.items())
        return (DuelProblem, id(self.duel), policies, self.episodes, self.deterministic, surrogates, id(self.play))

    def merge(self, problems: Sequence[DuelProblem]) -> DuelsTogether:
        """Several problems of its kind as one."""
        return DuelsTogether(problems)

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
        """See ``Problem.draw``; a player may have fewer sets of weights than tasks, one for as many consecutive tasks each."""
        return self.drawn(spread(copies(players), self.tasks), self._collected(players, shot))

    def drawn(self, players: Players, data: Mapping[Role, Trajectories]) -> Drawn:
        """The batch of a shot that was played: the weights that played, and per learner its trajectories."""
        opponents = _Opponents([self.matchups], data) if self.matchups.duels else None
        return Drawn(self.policies, self.objectives, players, data, self._count(data), self.duel.horizon, opponents)

    def chain(self, players: Players, episodes: int, shots: int) -> Chain:
        """See ``ChainProblem.chain``."""
        played, _ = self.in_turn(players, 0, episodes)
        return self.chained(played, shots)

    def chained(self, played: Mapping[Role, Sequence[Trajectories]], shots: int) -> Chain:
        """The chain of episodes that were played."""
        steps = [
            self._count({role: one[i] for role, one in played.items()}) for i in range(len(next(iter(played.values()))))
        ]
        policies = {role: cast(MemoryPolicy, self.policies[role]) for role in played}
        return Chain(policies, played, self.objectives, self.seed, shots, sum(steps))

    def without(self, role: Role, tasks: Collection[int]) -> DuelProblem:
        """See ``Problem.without``."""
        first = 0 if role == "protagonist" else self.matchups.first
        keep = torch.ones_like(self.seeds[:: self.episodes], dtype=torch.bool)
        keep[self.seeds.new_tensor(list(tasks)) + first] = False
        rest = self._where(keep)
        if len(rest.tasks) < len(self.tasks):
            raise FloatingPointError(f"every task of the {role}, or of its opponent, diverged")
        return rest

    def of(self, role: Role) -> DuelProblem:
        """The tasks of one player alone, those on which the learners meet among them; they keep their noise."""
        m = self.matchups
        if not (m.last if role == "protagonist" else m.first):
            return self
        keep = torch.ones_like(self.seeds[:: self.episodes], dtype=torch.bool)
        keep[slice(m.first + m.duels, None) if role == "protagonist" else slice(m.first)] = False
        return self._where(keep)

    def _where(self, keep: Tensor) -> DuelProblem:
        """The tasks with ``keep`` [M] alone; they keep their noise."""
        rest, rows = copy.copy(self), keep.repeat_interleave(self.episodes)
        rest.matchups = self.matchups.where(keep)
        rest.seeds, rest.params = self.seeds[rows], take_rows(self.params, rows)
        return rest

    def _seats(self, players: Players, carries: Mapping[Role, Carry]) -> tuple[list[Sitting], list[Sitting]]:
        m, end = self.matchups, self.matchups.tasks.shape[0]
        learners = self._learners(players, carries)
        seats: tuple[list[Sitting], list[Sitting]] = ([], [])
        if m.first + m.duels:
            seats[0].append(Sitting(slice(0, m.first + m.duels), learners["protagonist"]))
        seats[0].extend(sittings(m.against_protagonists, m.first + m.duels))
        seats[1].extend(sittings(m.against_adversaries, 0))
        if m.duels + m.last:
            seats[1].append(Sitting(slice(m.first, end), learners["adversary"]))
        return seats

    def _count(self, data: Mapping[Role, Trajectories]) -> int:
        steps = sum(int(one.alive.sum(dtype=torch.float64)) for one in data.values())
        if len(data) == 2 and self.matchups.duels:  # steps that both learners played count once
            first, last = (data[role].alive.transpose(0, 1).flatten(1) for role in ROLES)  # [T, rows]
            shared = last.shape[1] // self.tasks["adversary"] * self.matchups.duels
            both = first[:, first.shape[1] - shared :] * last[:, :shared]
            steps -= int(both.sum(dtype=torch.float64))
        return steps


class DuelsTogether(Rows):
    """Several runs' problems as one, see ``together``.

    Args:
        problems: of equal ``kind``.
    """

    def __init__(self, problems: Sequence[DuelProblem]) -> None:
        first = problems[0]
        self.problems, self.counts = problems, counts_of(problems)
        self.duel, self.policies = first.duel, first.policies
        self.episodes, self.deterministic, self.play = first.episodes, first.deterministic, first.play
        self.params = tree_map(lambda *parts: torch.cat(parts), *(one.params for one in problems))
        self.seeds = torch.cat([one.seeds for one in problems])

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per learner, of all runs."""
        return {role: sum(counts) for role, counts in self.counts.items()}

    def draw(self, players: Players, shot: int) -> DrawnTogether:
        """See ``Problem.draw``."""
        data, weights = self._collected(players, shot), spread(copies(players), self.tasks)
        parts = [
            problem.drawn(
                {role: _rows(w, where[role]) for role, w in weights.items()},
                {role: one.rows(where[role]) for role, one in data.items()},
            )
            for problem, where in zip(self.problems, self._where(), strict=True)
        ]
        meet = [one.matchups for one in self.problems]
        opponents = _Opponents(meet, data) if any(one.duels for one in meet) else None
        return DrawnTogether(parts, data, opponents)

    def chains(self, players: Players, episodes: int, shots: int) -> list[Chain]:
        """Each run's chain; every run has one set of weights and as many tasks as the others."""
        played, _ = self.in_turn(players, 0, episodes)
        every = [{role: slice(i, i + 1) for role in played} for i in range(len(self.problems))]
        results = []
        for problem, where in zip(self.problems, every, strict=True):
            own = [_trimmed({role: chain[e] for role, chain in played.items()}, where) for e in range(episodes)]
            results.append(problem.chained({role: [one[role] for one in own] for role in played}, shots))
        return results

    def without(self, role: Role, tasks: Collection[int]) -> Problem:
        """Not supported: each run's own problem leaves tasks out.

        Raises:
            TypeError: always.
        """
        raise TypeError("problems of several runs leave tasks out one by one")

    def _where(self) -> list[dict[Role, slice]]:
        """Per run and role, its tasks among those of all."""
        ends = {role: list(itertools.accumulate(counts)) for role, counts in self.counts.items()}
        return [
            {role: slice(ends[role][i] - counts[i], ends[role][i]) for role, counts in self.counts.items()}
            for i in range(len(self.problems))
        ]

    def _seats(self, players: Players, carries: Mapping[Role, Carry]) -> tuple[list[Sitting], list[Sitting]]:
        """Each learner sits in its tasks of every run, and each scripted player in its tasks of every run."""
        tasks: tuple[dict[int | None, list[Tensor]], dict[int | None, list[Tensor]]] = ({}, {})
        scripted: dict[int, Player] = {}
        first = 0
        for problem in self.problems:
            for seat, own in zip(tasks, problem._seats({role: {} for role in players}, {}), strict=True):
                for sitting in own:
                    who = None
                    if isinstance(sitting.actor, Seated):
                        who = id(sitting.actor.player)
                        scripted[who] = sitting.actor.player
                    seat.setdefault(who, []).append(_numbers(sitting.tasks, self.seeds) + first)
            first += len(problem.matchups.tasks)
        learners = self._learners(players, carries)
        seats = [
            [Sitting(torch.cat(n), learners[role] if who is None else Seated(scripted[who])) for who, n in own.items()]
            for role, own in zip(ROLES, tasks, strict=True)
        ]
        return seats[0], seats[1]


def _numbers(tasks: slice | Tensor, like: Tensor) -> Tensor:
    """Task numbers, [n] int64."""
    if isinstance(tasks, Tensor):
        return tasks
    return torch.arange(tasks.start, tasks.stop, dtype=torch.int64, device=like.device)


class _Opponents:
    """Turns the learners' log-probabilities into their opponents', 0 for a scripted opponent and after the opponent has left.

    Args:
        matchups: of each run.
        data: per role its trajectories, run after run.
    """

    def __init__(self, matchups: Sequence[Matchups], data: Mapping[Role, Trajectories]) -> None:
        own, theirs, first, second = [], [], 0, 0
        alive = next(iter(data.values())).alive
        for m in matchups:  # the protagonist's last tasks are the adversary's first
            index = torch.arange(m.duels, dtype=torch.int64, device=alive.device)
            own.append(index + first + m.first)
            theirs.append(index + second)
            first, second = first + m.first + m.duels, second + m.duels + m.last
        self.places: dict[Role, Tensor] = {"protagonist": torch.cat(own), "adversary": torch.cat(theirs)}
        self.alive = {role: one.alive for role, one in data.items()}

    def __call__(self, log_prob: dict[Role, Tensor]) -> dict[Role, Tensor]:
        """Per role [N, T, E] on its own tasks."""
        result = {}
        for role, own in self.places.items():
            met = other(role)
            theirs = (log_prob[met] * self.alive[met])[self.places[met]]
            result[role] = torch.zeros_like(self.alive[role]).to(theirs).index_copy(0, own, theirs)
        return result


def _rows(weights: Weights, where: slice) -> Weights:
    return {name: value[where] for name, value in weights.items()}


def _trimmed(data: Mapping[Role, Trajectories], where: Mapping[Role, slice]) -> dict[Role, Trajectories]:
    """A run's trajectories among those of all, up to the end of its own longest episode: a chain's loss is per step of it."""
    own = {role: one.rows(where[role]) for role, one in data.items()}
    steps = max(int((one.alive.sum((0, 2)) > 0).sum()) for one in own.values())
    return {role: one.until(steps) for role, one in own.items()}


def sittings(groups: Sequence[tuple[Player, int]], start: int) -> list[Sitting]:
    """Sittings of players of the core, with the number of tasks of each, from task ``start`` on."""
    result = []
    for player, n in groups:
        result.append(Sitting(slice(start, start + n), Seated(player)))
        start += n
    return result
