"""Self-play with a pool of past selves (Heinrich, Lanctot and Silver, ICML 2015; Vinyals et al., Nature 2019): no adaptation.

    every iteration   each player meets, on the tasks that it would play against the other learner, past selves of the other
    every so often    both players' weights join their pools; the oldest leave
    outer step        theta <- theta - lr grad L(theta, past phi), phi likewise, at once

Who is met: the ``latest`` (which is method joint), ``uniform``ly one of the pool and the present other, or ``prioritised``
by how often it still wins: with a weight of (1 - w)^2, w being an average of how often the learner did better than it, over the
tasks on which they met, in which the recent ones count most (prioritised fictitious self-play).

Order: none, there is no inner step. Limits: both roles must learn; each iteration plays its tasks twice, once for each player;
"better" is a higher return, so that priorities mean something where neither seat has the better returns by its nature. Not
with ``normalise_observations``: past selves saw with the statistics of their time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, stack
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.learners.maml import MAML, MAMLConfig, check_finite
from metaduel.meta.problems.problem import Batch, Players, Problem

AVERAGE = 0.1  # by how much a meeting moves a win rate


@dataclass(frozen=True)
class SelfPlayConfig(MAMLConfig):
    """MAML's settings, of which those of the inner step play no part, and

    Attributes:
        opponents: who is met, see the module.
        pool: how many past selves of each player are kept.
        pool_every: iterations between two that join.
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
        InvalidInputError: something is to flow through updates that there are not.
    """
    if config.peer:
        raise InvalidInputError("peer=True: self-play has no updates to differentiate; use method maml")
    return replace(config, steps=0, second_order=False)


@runtime_checkable
class Meeting(Problem, Protocol):
    """A problem in which the two learners meet.

    Attributes:
        duels: on how many tasks: the protagonist's last, the adversary's first.
        returns: per shot and role, mean undiscounted returns [N_role].
        seed: of its noise.
    """

    returns: list[dict[Role, Tensor]]
    seed: int

    @property
    def duels(self) -> int:
        """See the class."""
        ...


class SelfPlay(MAML):
    """See the module.

    Raises:
        InvalidInputError: only one player learns.

    Attributes:
        pool: per role its past selves, the oldest first.
        win_rates: per role, how often the other learner does better than each of them and, last, than the present one.
    """

    config: SelfPlayConfig

    def __init__(
        self, start: Mapping[Role, Weights], config: MAMLConfig, heads: Mapping[Role, tuple[str, ...]] | None = None
    ) -> None:
        if len(start) < 2:
            raise InvalidInputError(f"roles={list(start)}: self-play trains both players; use method joint for one")
        super().__init__(start, config, heads)
        self.pool: dict[Role, list[Weights]] = {role: [] for role in self.start}
        self.win_rates = {role: torch.full((1,), 0.5) for role in self.start}
        self._done = 0

    def update(self, problem: Batch, lr_scale: float = 1.0) -> dict[str, float]:
        """One step of both players, each against past selves of the other; see ``MAML.update``."""
        if self.config.opponents == "latest":
            return super().update(problem, lr_scale)
        if not isinstance(problem, Meeting) or not problem.duels:
            raise InvalidInputError(
                "self-play needs tasks on which the learners meet alone: learned_share > 0, no personas"
            )
        gradients: dict[Role, tuple[Weights, Tensor]] = {}
        for seat, role in enumerate(ROLES):
            loss = self._loss(problem, role, seat)
            flat = torch.autograd.grad(loss, list(self.start[role].values()))
            none = torch.zeros_like(self.log_rates[role])
            gradients[role] = dict(zip(self.start[role], flat, strict=True)), none
            check_finite(role, gradients[role][0])
        # What is told of the iteration is how the learners did, not their past selves.
        problem.returns[:] = [{role: problem.returns[seat][role] for seat, role in enumerate(ROLES)}]
        metrics = self.step(gradients, lr_scale)
        for role, rates in self.win_rates.items():
            metrics |= {f"{role}/pool": float(len(self.pool[role])), f"{role}/beaten": float(rates.mean())}
        self._done += 1
        if self._done % self.config.pool_every == 0:
            self._join()
        return metrics

    def probabilities(self, role: Role) -> Tensor:
        """With which each of a role's past selves, and last the present one, is met."""
        weights = torch.ones_like(self.win_rates[role])
        if self.config.opponents == "prioritised":
            weights = (1 - self.win_rates[role]) ** 2
        return weights / weights.sum() if weights.sum() > 0 else torch.full_like(weights, 1 / len(weights))

    def _loss(self, problem: Meeting, role: Role, shot: int) -> Tensor:
        """A player's loss against selves of the other, which are drawn anew for every task."""
        met, n = ROLES[1 - ROLES.index(role)], problem.duels
        generator = torch.Generator().manual_seed(derive_seed(problem.seed, shot))
        picks = torch.multinomial(self.probabilities(met), problem.tasks[met], replacement=True, generator=generator)
        selves = [*self.pool[met], {name: value.detach() for name, value in self.start[met].items()}]
        theirs = {name: torch.stack([one[name] for one in selves])[picks] for name in self.start[met]}
        players: Players = {role: stack(self.start[role], problem.tasks[role]), met: theirs}
        loss = problem.losses(players, shot).query[role].mean()
        returns = problem.returns[shot]
        own, other = returns["protagonist"][-n:], returns["adversary"][:n]
        own, other = (own, other) if role == "protagonist" else (other, own)
        picks = picks[:n] if met == "adversary" else picks[-n:]
        better = torch.where(own == other, 0.5, (own > other).float())
        for one in set(picks.tolist()):
            rate = self.win_rates[met]
            rate[one] += AVERAGE * (better[picks == one].mean() - rate[one])
        return loss

    def _join(self) -> None:
        """The present players join the pools; the oldest leave."""
        for role, weights in self.start.items():
            self.pool[role].append({name: value.detach().clone() for name, value in weights.items()})
            # The newcomer is the present one, whose rate it takes along.
            rates = torch.cat([self.win_rates[role], self.win_rates[role][-1:]])
            if len(self.pool[role]) > self.config.pool:
                self.pool[role], rates = self.pool[role][1:], rates[1:]
            self.win_rates[role] = rates

    def state(self) -> dict[str, Tensor]:
        """See ``MAML.state``."""
        state = super().state() | {"done": torch.tensor(self._done)}
        for role, selves in self.pool.items():
            state[f"{role}/win_rates"] = self.win_rates[role]
            for i, one in enumerate(selves):
                state |= {f"{role}/pool/{i}/{name}": value for name, value in one.items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``MAML.load``."""
        super().load(state)
        self._done = int(state["done"])
        for role, weights in self.start.items():
            self.win_rates[role] = state[f"{role}/win_rates"].clone()
            size = len(self.win_rates[role]) - 1
            self.pool[role] = [
                {name: state[f"{role}/pool/{i}/{name}"].clone() for name in weights} for i in range(size)
            ]
