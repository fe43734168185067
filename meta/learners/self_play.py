"""Self-play with a pool of past selves (Heinrich, Lanctot and Silver, ICML 2015; Vinyals et al., Nature 2019): no adaptation.

    every iteration   each player meets, on the tasks that it would play against the other learner, past selves of the other
    every so often    both players' weights join their pools; the oldest leave
    outer step        theta <- theta - lr grad L(theta, past phi), phi likewise, at once

The opponent is the ``latest`` (which is method joint), a ``uniform`` draw from the pool and the present opponent, or a draw
``prioritised`` by how often the opponent still wins: with a weight of (1 - w)^2, where w is the learner's win rate against it, a
moving average over the tasks on which they met (prioritised fictitious self-play).

Every task is against selves of the other learner, unless ``learned_share`` is set below 1; for each player its own tasks alone
are played.

Order: none, there is no inner step; ``steps``, ``fine_tuning_lrs`` and the loss of updates are those of validation and test, see
``joint``. Limits: both roles must learn; tasks on which the learners meet are played twice, once for each player; a win is a
higher return, so that priorities make sense only if neither seat has higher returns by its nature. Past selves normalise
observations by the statistics of their time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.adaptation.inner import FIRST_ORDER
from metaduel.meta.adaptation.pieces import Unrolling
from metaduel.meta.adaptation.rates import below
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.joint import Joint, JointConfig
from metaduel.meta.learners.learner import Counter, Learner, Starts, Update
from metaduel.meta.learners.maml import MAMLConfig
from metaduel.meta.problems.problem import Batch, Played, Players, Problem, Tasks, played

AVERAGE = 0.1  # weight of a meeting in a win rate


@dataclass(frozen=True)
class SelfPlayConfig(JointConfig):
    """The settings of joint pretraining, and

    Attributes:
        opponents: the choice of opponents, see the module.
        pool: number of past selves of each player that are kept.
        pool_every: iterations from one new member to the next.
    """

    opponents: Literal["latest", "uniform", "prioritised"] = "prioritised"
    pool: int = 20
    pool_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pool", "pool_every"):
            check_whole(name, getattr(self, name))


def configure(config: MAMLConfig) -> MAMLConfig:
    """Self-play's settings.

    Raises:
        InvalidInputError: a setting of the inner step, which this method does not have.
    """
    if config.peer:
        raise InvalidInputError("peer=True: self-play has no updates to differentiate; use method maml")
    return replace(config, steps=0, second_order=False)


@runtime_checkable
class Meeting(Problem, Protocol):
    """A problem in which the two learners meet.

    Attributes:
        duels: number of tasks on which they meet: the protagonist's last, the adversary's first.
        seed: seed of its noise.
    """

    seed: int

    @property
    def duels(self) -> int:
        """See the class."""
        ...

    def of(self, role: Role) -> Meeting:
        """The tasks of one player alone, those on which the learners meet among them; they keep their noise."""
        ...


class SelfPlay(Learner):
    """See the module.

    Args:
        start: initial weights of both players.
        config: settings.
        heads: unused: nothing adapts in training.

    Raises:
        InvalidInputError: only one player learns.

    Attributes:
        pool: per role its past selves, the oldest first.
        win_rates: per role, the other learner's win rate against each of them and, last, against the present player.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: SelfPlayConfig,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
    ) -> None:
        if len(start) < 2:
            raise InvalidInputError(f"roles={list(start)}: self-play trains both players; use method joint for one")
        self.config = config
        self._joint = Joint(start, config)
        self._done = Counter("done")
        self.pools = Pools(self._joint.starts, config.pool)
        self.starts, self.parts = self._joint.starts, (*self._joint.parts, self._done, self.pools)

    @property
    def pool(self) -> dict[Role, list[Weights]]:
        """See the class."""
        return self.pools.selves

    @property
    def win_rates(self) -> dict[Role, Tensor]:
        """See the class."""
        return self.pools.win_rates

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """One step of both players, each against past selves of the other; see ``Learner.updating``."""
        if self.config.opponents == "latest":
            return (yield from self._joint.updating(problem, lr_scale))
        if not isinstance(problem, Meeting) or not problem.duels:
            raise InvalidInputError(
                "self-play needs tasks on which the learners meet alone: learned_share > 0, no personas"
            )
        gradients: Players = {}
        batches: list[Batch] = []
        for seat, role in enumerate(ROLES):
            loss, batch = yield from self._loss(problem.of(role), role, seat)
            gradients |= yield from self.starts.gradients({role: loss})
            batches.append(batch.only([role]))  # metrics are of the learners, not of their past selves
        metrics: dict[str, float] = {}
        for role, gradient in gradients.items():
            metrics |= self.starts.step(role, gradient, lr_scale)
        for role, rates in self.win_rates.items():
            metrics |= {f"{role}/pool": float(len(self.pool[role])), f"{role}/beaten": float(rates.mean())}
        self._done.count += 1
        if self._done.count % self.config.pool_every == 0:
            self.pools.join()
        return Update(metrics, [batches])

    def probabilities(self, role: Role) -> Tensor:
        """Probability of meeting each of a role's past selves and, last, the present player."""
        weights = torch.ones_like(self.win_rates[role])
        if self.config.opponents == "prioritised":
            weights = (1 - self.win_rates[role]) ** 2
        return weights / weights.sum() if weights.sum() > 0 else torch.full_like(weights, 1 / len(weights))

    def _loss(self, problem: Meeting, role: Role, shot: int) -> Work[tuple[Tensor, Played]]:
        """A player's loss on its tasks, against selves of the opponent, which are drawn anew for every task."""
        met, n = ROLES[1 - ROLES.index(role)], problem.duels
        generator = torch.Generator().manual_seed(derive_seed(problem.seed, shot))
        picks = torch.multinomial(self.probabilities(met), problem.tasks[met], replacement=True, generator=generator)
        selves = [*self.pool[met], {name: value.detach() for name, value in self.start[met].items()}]
        theirs = {name: torch.stack([one[name] for one in selves])[picks] for name in self.start[met]}
        players: Players = {role: self.starts.stacked(role, problem.tasks[role]), met: theirs}
        (losses,), (drawn,) = yield Unrolling(problem, players, {}, 0, FIRST_ORDER, first=shot, then=(SelfPlay, role))
        loss, batch = losses.query[role].mean(), played(drawn)
        own, other = batch.returns["protagonist"][-n:], batch.returns["adversary"][:n]
        own, other = (own, other) if role == "protagonist" else (other, own)
        picks = picks[:n] if met == "adversary" else picks[-n:]
        better = torch.where(own == other, 0.5, (own > other).float())
        for one in set(picks.tolist()):
            rate = self.win_rates[met]
            rate[one] += AVERAGE * (better[picks == one].mean() - rate[one])
        return loss, batch


class Pools:
    """Past selves of both players, with the win rate against each.

    Args:
        starts: the present players.
        size: number of past selves of each that are kept.
    """

    def __init__(self, starts: Starts, size: int) -> None:
        self._starts, self._size = starts, size
        self.selves: dict[Role, list[Weights]] = {role: [] for role in starts.weights}
        self.win_rates = {role: torch.full((1,), 0.5, dtype=torch.float32, device="cpu") for role in starts.weights}

    def join(self) -> None:
        """The present players join the pools; the oldest leave."""
        for role, weights in self._starts.weights.items():
            self.selves[role].append({name: value.detach().clone() for name, value in weights.items()})
            # The new member is the present player and keeps its win rate.
            rates = torch.cat([self.win_rates[role], self.win_rates[role][-1:]])
            if len(self.selves[role]) > self._size:
                self.selves[role], rates = self.selves[role][1:], rates[1:]
            self.win_rates[role] = rates

    def state(self) -> dict[str, Tensor]:
        """See ``Stateful``."""
        state: dict[str, Tensor] = {}
        for role, selves in self.selves.items():
            state[f"{role}/win_rates"] = self.win_rates[role]
            for i, one in enumerate(selves):
                state |= {f"{role}/pool/{i}/{name}": value for name, value in one.items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Stateful``."""
        for role in self.selves:
            self.win_rates[role] = state[f"{role}/win_rates"].clone()
            self.selves[role] = [
                {name: value.clone() for name, value in below(state, f"{role}/pool/{i}/").items()}
                for i in range(len(self.win_rates[role]) - 1)
            ]
