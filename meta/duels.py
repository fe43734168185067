"""Games as a ``Problem``: joint rollouts give each adapting player its policy-gradient loss on every task."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from metaduel.agents.baselines import fit_linear
from metaduel.agents.distributions import Distribution
from metaduel.agents.losses import SURROGATES, Surrogate, clipped_loss, policy_gradient_loss
from metaduel.agents.memory import MemoryPolicy
from metaduel.agents.policies import Policy, Weights
from metaduel.agents.returns import discounted_returns, gae, normalise, spread
from metaduel.agents.rollout import Learner, Sitting, rollout
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core import Duel, Player
from metaduel.envs.errors import InvalidInputError, unknown
from metaduel.envs.spec import ROLES, Role
from metaduel.meta.chains import Chain
from metaduel.meta.problem import Drawn, Losses, Players


@dataclass(frozen=True)
class LossConfig:
    """How trajectories become a loss; the objective is the return within the horizon.

    Attributes:
        surrogate: see ``agents.losses``; None: what the method needs, ``lvc`` where it has no preference.
        discount: gamma of the returns that the query's advantages are made of.
        inner_discount: the same for the support: an update from a few episodes has to do with little data, and where
            rewards are dense a shorter horizon makes it less noisy.
        adversary_inner_discount: the adversary's, where its rewards come later or sooner than the protagonist's; None: the
            same.
        gae_lambda: lambda of the advantages.
        baseline: the query's linear baseline and normalisation: fitted per ``task``, or once for the whole ``batch`` of
            tasks, which few episodes per task need (see ``fit_linear``).
        inner_baseline: fit a linear baseline to the support, always per task; without it, advantages are
            discounted returns, shifted and scaled if ``normalise``.
        normalise: scale advantages to mean 0 and standard deviation 1.
        inner_clip: the support's normalised advantages are cut to [-inner_clip, inner_clip]: in a few episodes one rare
            large reward would outweigh everything else that was seen. 0: not cut; needs ``normalise``.
        exact_discount: weigh step t by discount^t, as the derivative of the discounted return does; otherwise every step
            counts alike, which is usual, and of no objective the derivative.
    """

    surrogate: Surrogate | None = None
    discount: float = 0.99
    inner_discount: float = 0.99
    adversary_inner_discount: float | None = None
    gae_lambda: float = 1.0
    baseline: Literal["task", "batch"] = "task"
    inner_baseline: bool = True
    normalise: bool = True
    inner_clip: float = 0.0
    exact_discount: bool = False

    def __post_init__(self) -> None:
        if self.surrogate is not None and self.surrogate not in SURROGATES:
            raise unknown("surrogate", self.surrogate, SURROGATES)
        for name in ("discount", "inner_discount", "adversary_inner_discount", "gae_lambda"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise InvalidInputError(f"{name}={getattr(self, name)!r} must be in [0, 1]")
        if not self.inner_clip >= 0 or (self.inner_clip and not self.normalise):
            raise InvalidInputError(f"inner_clip={self.inner_clip!r} must be at least 0, and 0 without normalise")

    @property
    def kind(self) -> Surrogate:
        """The surrogate, ``lvc`` where none is named."""
        return self.surrogate or "lvc"

    def of(self, role: Role) -> LossConfig:
        """The settings of one role."""
        if role == "protagonist" or self.adversary_inner_discount is None:
            return self
        return replace(self, inner_discount=self.adversary_inner_discount)

    def support_advantages(self, data: Trajectories) -> Tensor:
        """What an update of each task learns from: [N, T, E]."""
        advantage = self._advantages(data, self.inner_discount, fit=self.inner_baseline)
        advantage = self._scaled(advantage, data.alive, self.inner_discount)
        return advantage.clamp(-self.inner_clip, self.inner_clip) if self.inner_clip else advantage

    def query_advantages(self, data: Trajectories) -> Tensor:
        """What the start is judged by: [N, T, E]."""
        advantage = self._advantages(data, self.discount, shared=self._shared)
        return self._scaled(advantage, data.alive, self.discount, self._shared)

    @property
    def _shared(self) -> bool:
        return self.baseline == "batch"

    def _advantages(self, data: Trajectories, discount: float, fit: bool = True, shared: bool = False) -> Tensor:
        returns = discounted_returns(data.reward, discount)
        if not fit:
            return returns
        value = fit_linear(data.observation, returns, data.alive, shared)
        return gae(data.reward, value, data.alive, discount, self.gae_lambda)

    def _scaled(self, advantage: Tensor, alive: Tensor, discount: float, shared: bool = False) -> Tensor:
        advantage = normalise(advantage, alive, shared) if self.normalise else advantage
        if self.exact_discount:
            time = torch.arange(advantage.shape[1], dtype=advantage.dtype)
            advantage = advantage * (discount**time).view(1, -1, 1)
        return advantage

    def cost(self, data: Trajectories) -> Tensor:
        """See ``Sampled.costs``: [N]. The baseline is the other tasks' mean; a single task has none."""
        cost = -discounted_returns(data.reward, self.discount)[:, 0].mean(1) / data.reward.shape[1]
        if self.normalise:
            cost = cost / spread(self._advantages(data, self.discount, shared=self._shared), data.alive, self._shared)
        return (cost - cost.mean()) * len(cost) / (len(cost) - 1) if len(cost) > 1 else cost

    def advantages(self, data: Trajectories) -> tuple[Tensor, Tensor]:
        """Those of support and query, [N, T, E] each; the same tensor where they are the same function."""
        support = self.support_advantages(data)
        return support, support if self._one_loss else self.query_advantages(data)

    def evaluate(self, policy: Policy, weights: Weights, data: Trajectories) -> tuple[Tensor, Tensor]:
        """The support and query losses [N] of stacked weights on their own trajectories."""
        return self.losses(log_probs(policy, weights, data), self.advantages(data), data.alive)

    def losses(self, log_prob: Tensor, advantages: tuple[Tensor, Tensor], alive: Tensor) -> tuple[Tensor, Tensor]:
        """The support and query losses [N]; ``log_prob``: the player's own, [N, T, E], or the sum over both players where the
        gradient through the other's sampling is wanted too.
        """
        support = policy_gradient_loss(log_prob, advantages[0], alive, self.kind)
        if advantages[1] is advantages[0]:
            return support, support
        return support, policy_gradient_loss(log_prob, advantages[1], alive, self.kind)

    @property
    def _one_loss(self) -> bool:
        """Whether support and query are the same function of the trajectories."""
        same_fit = self.inner_baseline and self.baseline == "task"
        return same_fit and self.inner_discount == self.discount and not self.inner_clip


def drawn(
    policies: Mapping[Role, Policy],
    losses: Mapping[Role, LossConfig],
    data: Mapping[Role, Trajectories],
    facing: Callable[[dict[Role, Tensor]], dict[Role, Tensor]] | None = None,
) -> Drawn:
    """The losses of every learner on ``data`` as a function of the players; advantages are computed once.

    Args:
        policies: per role.
        losses: per role.
        data: per role.
        facing: turns the learners' log-probabilities into those of whom each one faced, as ``joint`` losses add them: [N, T, E]
            on its own tasks, or no entry; None: the learners don't meet.
    """
    advantages = {role: losses[role].advantages(d) for role, d in data.items()}

    def evaluate(players: Players, joint: bool) -> Losses:
        own = {role: log_probs(policies[role], players[role], d) for role, d in data.items()}
        others = facing(own) if joint and facing is not None else {}
        pairs = {
            role: losses[role].losses(
                own[role] + others[role] if role in others else own[role], advantages[role], d.alive
            )
            for role, d in data.items()
        }
        support, query = ({role: pair[i] for role, pair in pairs.items()} for i in (0, 1))
        return Losses(support, query, log_prob={role: (own[role] * d.alive).sum((1, 2)) for role, d in data.items()})

    return evaluate


def log_probs(policy: Policy, weights: Weights, data: Trajectories) -> Tensor:
    """Log-probabilities [N, T, E] of the actions taken, with a graph to the weights."""
    return policy.log_prob(policy.prepare(weights), data.observation, data.action)


def _distribution(policy: Policy, weights: Weights, data: Trajectories) -> Distribution:
    """Over the actions at every step that was recorded: a batch of shape [N, T E]."""
    prepared = policy.prepare(weights)
    return policy.head(prepared, policy.over_time(prepared, data.observation).flatten(1, 2))


def _of_actions(distribution: Distribution, data: Trajectories) -> Tensor:
    return distribution.log_prob(data.action.flatten(1, 2)).view(data.reward.shape)


Kept = tuple[Players, Mapping[Role, Trajectories]]  # who played a shot, and what came of it


def keep(players: Players, data: Mapping[Role, Trajectories]) -> Kept:
    """What a ``Replay`` needs of a shot: copies, since the start's weights are moved in place."""
    return {r: {n: value.detach().clone() for n, value in weights.items()} for r, weights in players.items()}, data


class _Shot(NamedTuple):
    """What one player played at one shot, and whatever of it stays the same when the players move."""

    weights: Weights  # who played
    data: Trajectories
    before: Distribution  # over the actions then
    support: Tensor  # advantages [N, T, E]
    query: Tensor  # advantages [N, T, E]

    def part(self, policy: Policy, share: float) -> _Shot:
        """The first episodes of every task."""
        n = max(1, math.ceil(share * self.query.shape[2]))
        data = Trajectories(*(field[:, :, :n].contiguous() for field in self.data[:4]))
        before = _distribution(policy, self.weights, data)
        return _Shot(self.weights, data, before, self.support[:, :, :n], self.query[:, :, :n])


class Replay:
    """A problem on data that has been drawn already, not clipped; see ``Sampled.replay``.

    Args:
        policies: per role.
        losses: per role, how trajectories become a loss; the surrogate must be ``lvc``.
        kept: every shot, see ``keep``.
        tasks: number of tasks per learner.

    Raises:
        InvalidInputError: another surrogate.
    """

    def __init__(
        self,
        policies: Mapping[Role, Policy],
        losses: Mapping[Role, LossConfig],
        kept: Sequence[Kept],
        tasks: dict[Role, int],
    ) -> None:
        for loss in losses.values():
            if loss.kind != "lvc":
                raise InvalidInputError(f"surrogate={loss.kind!r} must be 'lvc' where data are used more than once")
        self.policies, self._losses, self.tasks = policies, losses, tasks
        self._clip: float | None = None
        with torch.no_grad():
            self._shots = [
                {role: self._shot(role, players[role], d) for role, d in data.items()} for players, data in kept
            ]

    def _shot(self, role: Role, weights: Weights, data: Trajectories) -> _Shot:
        loss, before = self._losses[role], _distribution(self.policies[role], weights, data)
        return _Shot(weights, data, before, loss.support_advantages(data), loss.query_advantages(data))

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """See ``Problem.losses``."""
        if joint:
            raise InvalidInputError("peer=True: data cannot be used more than once with a total derivative")
        result = Losses({}, {}, divergence={}, coordinates={})
        for role, weights in players.items():
            then = self._shots[shot][role]
            data, alive, now = then.data, then.data.alive, _distribution(self.policies[role], weights, then.data)
            log_prob, old = _of_actions(now, data), _of_actions(then.before, data)
            result.support[role] = policy_gradient_loss(log_prob, then.support, alive, "lvc", old=old)
            if self._clip is None:
                result.query[role] = policy_gradient_loss(log_prob, then.query, alive, "lvc", old=old)
            else:
                result.query[role] = clipped_loss(log_prob, old, then.query, alive, self._clip)
            weight = alive / alive.sum((1, 2), keepdim=True)
            result.divergence[role] = (then.before.kl(now).view(alive.shape) * weight).sum((1, 2))  # type: ignore[arg-type]
            parts = now.coordinates(then.before)  # type: ignore[arg-type]
            result.coordinates[role] = (parts * weight.sqrt().flatten(1).unsqueeze(-1)).flatten(1)
        return result

    def draw(self, players: Players, shot: int) -> Drawn:
        """See ``Problem.draw``; nothing is drawn."""
        return lambda players, joint: self.losses(players, shot, joint)

    def costs(self, shot: int) -> dict[Role, Tensor]:
        """See ``Sampled.costs``: of the same data."""
        return {role: self._losses[role].cost(then.data) for role, then in self._shots[shot].items()}

    def drop(self, role: Role, tasks: list[int]) -> None:
        """Not supported: an update blew up that did not when the data were drawn.

        Raises:
            FloatingPointError: always.
        """
        raise FloatingPointError(
            f"the {role}'s updates in task {', '.join(map(str, tasks))} blew up on data used again"
        )

    def replay(self, clip: float | None, share: float = 1.0) -> Replay:
        """See ``Sampled.replay``."""
        if not 0 < share <= 1:
            raise InvalidInputError(f"share={share!r} must be above 0 and at most 1")
        result = copy.copy(self)
        result._clip = clip
        if share < 1:
            with torch.no_grad():
                result._shots = [
                    {role: one.part(self.policies[role], share) for role, one in shot.items()} for shot in self._shots
                ]
        return result


@dataclass(frozen=True)
class Matches:
    """Who meets whom on which tasks. Rows of ``tasks`` in order: protagonist against scripted adversaries, learners
    against each other, scripted protagonists against the adversary.

    Attributes:
        tasks: [M, number of contexts] context values.
        against_adversaries: the protagonist's scripted opponents, with how many tasks each.
        duels: how many tasks the two learners play against each other.
        against_protagonists: the adversary's scripted opponents, with how many tasks each.
    """

    tasks: Tensor
    against_adversaries: Sequence[tuple[Player, int]] = ()
    duels: int = 0
    against_protagonists: Sequence[tuple[Player, int]] = ()

    def __post_init__(self) -> None:
        if self.first + self.duels + self.last != self.tasks.shape[0]:
            raise ValueError(f"{self.tasks.shape[0]} tasks for {self.first} + {self.duels} + {self.last} matches")

    @property
    def first(self) -> int:
        """Tasks of the protagonist against scripted adversaries."""
        return sum(n for _, n in self.against_adversaries)

    @property
    def last(self) -> int:
        """Tasks of the adversary against scripted protagonists."""
        return sum(n for _, n in self.against_protagonists)

    def where(self, keep: Tensor) -> Matches:
        """Those of the tasks with ``keep`` [M] alone."""
        groups = []
        for group, start in ((self.against_adversaries, 0), (self.against_protagonists, self.first + self.duels)):
            counts = torch.split(keep[start : start + sum(n for _, n in group)], [n for _, n in group])
            groups.append(
                [(player, n) for (player, _), part in zip(group, counts, strict=True) if (n := int(part.sum()))]
            )
        duels = int(keep[self.first : self.first + self.duels].sum())
        return Matches(self.tasks[keep], groups[0], duels, groups[1])


class DuelProblem:
    """A batch of matches of one game.

    Args:
        duel: the game.
        policies: per role.
        matches: who meets whom on which tasks.
        episodes: episodes per task and shot.
        seed: of all noise; shot k is episode k of row seeds ``seed + row``.
        loss: how trajectories become a loss, for all or per role.
        deterministic: act with the distributions' modes.

    Attributes:
        returns: per shot, per role, mean undiscounted returns [N_role]; empty for shots that were not asked for.
        environment_steps: steps played so far, both seats of a game counted once.
    """

    def __init__(
        self,
        duel: Duel,
        policies: Mapping[Role, Policy],
        matches: Matches,
        episodes: int,
        seed: int,
        loss: LossConfig | Mapping[Role, LossConfig],
        deterministic: bool = False,
    ) -> None:
        self.duel, self.policies, self.matches = duel, policies, matches
        self.episodes, self.deterministic = episodes, deterministic
        self._losses = {role: loss.of(role) if isinstance(loss, LossConfig) else loss[role] for role in policies}
        dtype = torch.get_default_dtype()
        self._params = duel.game.params_from_rows(matches.tasks.repeat_interleave(episodes, 0), dtype)
        self.seed = seed
        # Row seeds wrap around like all arithmetic on keys.
        self._seeds = torch.arange(matches.tasks.shape[0] * episodes) + seed
        self.returns: list[dict[Role, Tensor]] = []
        self.environment_steps = 0
        self._kept: list[Kept] = []

    @property
    def duels(self) -> int:
        """On how many tasks two learners meet: the protagonist's last, the adversary's first."""
        return self.matches.duels

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per learner."""
        m = self.matches
        counts: dict[Role, int] = {"protagonist": m.first + m.duels, "adversary": m.duels + m.last}
        return {role: n for role, n in counts.items() if n}

    def in_turn(self, players: Players, first: int, episodes: int) -> dict[Role, list[Trajectories]]:
        """Play episodes one after another, one on each task at a time, with memories that last.

        Args:
            players: per role one set of weights for all tasks, or one per task.
            first: number of the first episode.
            episodes: how many.

        Returns:
            Per role its episodes.
        """
        played: dict[Role, list[Trajectories]] = {role: [] for role in players}
        rows = type(self._params)(*(column[:: self.episodes] for column in self._params))
        seeds = self._seeds[:: self.episodes]
        for episode in range(first, first + episodes):
            data = self._play(players, rows, 1, seeds, episode)
            for role, one in data.items():
                played[role].append(one)
            players = _remembering(players, data)
        return played

    def chain(self, players: Players, shots: int) -> Chain:
        """See ``ChainProblem.chain``."""
        played = self.in_turn(players, 0, shots * self.episodes)
        self._kept += [({}, {role: chain[i] for role, chain in played.items()}) for i in range(shots * self.episodes)]
        for shot in range(shots):
            part = slice(shot * self.episodes, (shot + 1) * self.episodes)
            mean = {r: torch.stack([d.returns.flatten() for d in chain[part]]).mean(0) for r, chain in played.items()}
            self.returns.append(mean)
        policies = {role: cast(MemoryPolicy, self.policies[role]) for role in played}
        return Chain(policies, played, self._losses, self.seed)

    def remember(self, players: Players, shot: int) -> Players:
        """See ``ChainProblem.remember``."""
        played = self.in_turn(players, shot * self.episodes, self.episodes)
        return _remembering(players, {role: episodes[-1] for role, episodes in played.items()})

    def drop(self, role: Role, tasks: list[int]) -> None:
        """See ``Problem.drop``."""
        first = 0 if role == "protagonist" else self.matches.first
        keep = torch.ones(self.matches.tasks.shape[0], dtype=torch.bool)
        keep[torch.tensor(tasks) + first] = False
        before, self.matches = self.tasks, self.matches.where(keep)
        if len(self.tasks) < len(before):
            raise FloatingPointError(f"every task of the {role}'s, or of its opponent's, blew up")
        rows = keep.repeat_interleave(self.episodes)
        self._seeds = self._seeds[rows]
        self._params = type(self._params)(*(column[rows] for column in self._params))
        self.returns, self._kept = [], []

    def collect(self, players: Players, shot: int) -> dict[Role, Trajectories]:
        """Play ``episodes`` episodes per task under the players' present weights."""
        return self._play(players, self._params, self.episodes, self._seeds, shot)

    def _play(
        self, players: Players, params: Any, episodes: int, seeds: Tensor, episode: int
    ) -> dict[Role, Trajectories]:
        seats = self._seats(players)
        results = rollout(self.duel, params, seats, episodes, seeds, torch.full_like(seeds, episode))
        data = {role: result for role, result in zip(ROLES, results, strict=True) if result is not None}
        self.environment_steps += self._count(data)
        return data

    def _seats(self, players: Players) -> tuple[list[Sitting], list[Sitting]]:
        m, end = self.matches, self.matches.tasks.shape[0]
        learners = {
            role: Learner(self.policies[role], weights, self.deterministic) for role, weights in players.items()
        }
        seats: tuple[list[Sitting], list[Sitting]] = ([], [])
        if m.first + m.duels:
            seats[0].append(Sitting(slice(0, m.first + m.duels), learners["protagonist"]))
        seats[0].extend(_sittings(m.against_protagonists, m.first + m.duels))
        seats[1].extend(_sittings(m.against_adversaries, 0))
        if m.duels + m.last:
            seats[1].append(Sitting(slice(m.first, end), learners["adversary"]))
        return seats

    def _count(self, data: dict[Role, Trajectories]) -> int:
        steps = {role: one.alive.sum(1).flatten() for role, one in data.items()}  # [rows]
        if len(steps) == 2:  # the rows of the adversary's duels are counted already
            own = steps["adversary"]
            steps["adversary"] = own[len(own) // self.tasks["adversary"] * self.matches.duels :]
        return sum(int(count.sum()) for count in steps.values())

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """See ``Problem.losses``."""
        return self.draw(players, shot)(players, joint)

    def draw(self, players: Players, shot: int) -> Drawn:
        """See ``Problem.draw``."""
        data = self.collect(players, shot)
        self.returns += [{} for _ in range(shot + 1 - len(self.returns))]
        self.returns[shot] = {role: d.returns.mean(1) for role, d in data.items()}
        self._kept.append(keep(players, data))
        return drawn(self.policies, self._losses, data, self._facing if self.matches.duels else None)

    def seen(self) -> Iterator[tuple[Role, Trajectories]]:
        """Everything that the learners were shown so far."""
        for _, data in self._kept:
            yield from data.items()

    def costs(self, shot: int) -> dict[Role, Tensor]:
        """See ``Sampled.costs``."""
        return {role: self._losses[role].cost(data) for role, data in self._kept[shot][1].items()}

    def replay(self, clip: float | None, share: float = 1.0) -> Replay:
        """See ``Sampled.replay``."""
        return Replay(self.policies, self._losses, self._kept, self.tasks).replay(clip, share)

    def _facing(self, log_prob: dict[Role, Tensor]) -> dict[Role, Tensor]:
        """Per role the other learner's log-probabilities, 0 where a scripted opponent sat."""
        first, duels, last = self.matches.first, self.matches.duels, self.matches.last
        theirs = {"protagonist": log_prob["adversary"][:duels], "adversary": log_prob["protagonist"][first:]}
        return {
            "protagonist": torch.nn.functional.pad(theirs["protagonist"], (0, 0, 0, 0, first, 0)),
            "adversary": torch.nn.functional.pad(theirs["adversary"], (0, 0, 0, 0, 0, last)),
        }


def _remembering(players: Players, data: Mapping[Role, Trajectories]) -> Players:
    """The players with the memory that their last episodes left."""
    memory = {role: one.memory for role, one in data.items()}
    return {r: w | {"memory.start": m} if (m := memory[r]) is not None else w for r, w in players.items()}


def _sittings(groups: Sequence[tuple[Player, int]], start: int) -> list[Sitting]:
    sittings = []
    for player, n in groups:
        sittings.append(Sitting(slice(start, start + n), player))
        start += n
    return sittings
