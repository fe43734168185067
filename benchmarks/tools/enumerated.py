"""Two games so short that all their outcomes can be listed, so that an estimate of a gradient *is* its expectation.

- ``AllTrajectories``: the iterated prisoner's dilemma over a few steps; every trajectory is an episode with its probability as
  weight. The data of an update are exact, as with infinitely many episodes.
- ``AllBatches``: one play of a 2 x 2 game; every possible sequence of the updates' *batches* is a task with its probability as
  weight. It is for E-MAML, whose objective is about the finite batch of an update.

Both go through the shipped losses as a ``Problem``. The reference is derived independently: ``declared_loss`` and
``batches_loss`` are the objectives in closed form, as functions of flat weights, to be differentiated by autograd.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.objective.losses import Surrogate, policy_gradient_loss
from metaduel.agents.objective.returns import gae
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.tabular import TabularPolicy
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.problems.problem import Batch, Losses, Players, Problem

GAME = make_game(find("IteratedPrisonersDilemma"))
# Payoffs of two tasks, for own and other: (C, C), (C, D), (D, C), (D, D). Not symmetric, so that no symmetry hides a mistake.
TASKS = torch.tensor([[0.5, -1.5, 1.5, -0.5], [0.4, -1.3, 1.7, -0.6]], dtype=torch.float64, device="cpu")
STATES = 5  # the first step, and the last joint action
BASELINE = TASKS.new_tensor([0.3, -0.2, 0.7, 0.1, -0.5])  # some function of the state

_LISTED = "everything that can happen is in it already: use a method that draws its data once, such as maml"


class Listing(ABC):
    """A ``Problem`` without sampling: all outcomes are listed."""

    tasks: dict[Role, int]

    @abstractmethod
    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """Each player's loss per task at a shot, see ``Batch.losses``."""

    def draw(self, players: Players, shot: int) -> Listed:
        """See ``Problem.draw``; nothing is drawn."""
        return Listed(self, shot)

    def costs(self, shot: int) -> dict[Role, Tensor]:
        """See ``Played.costs``; not supported by default."""
        raise InvalidInputError(_LISTED)

    def without(self, role: Role, tasks: Collection[int]) -> Problem:
        """Not supported: no update diverges here."""
        raise InvalidInputError(_LISTED)


class Listed(NamedTuple):
    """A listing at one shot, see ``Played``."""

    problem: Listing
    shot: int
    environment_steps: int = 0

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """See ``Batch.losses``."""
        return self.problem.losses(players, self.shot, joint)

    def costs(self) -> dict[Role, Tensor]:
        """See ``Played.costs``."""
        return self.problem.costs(self.shot)

    def replay(self, clip: float | None, share: float = 1.0) -> Batch:
        """Not supported: there are no samples to reuse."""
        raise InvalidInputError(_LISTED)


class AllTrajectories(Listing):
    """Every trajectory of a short iterated prisoner's dilemma, once per task of ``TASKS``, in float64.

    Args:
        surrogate: see ``agents.objective.losses``.
        horizon: T; there are 4^T trajectories.
        discount: gamma; the objective is the discounted return per step.
        baseline: factor of ``BASELINE``, which is subtracted from the advantages.
        tabular: the roles whose policy is a table of logits; other policies also have a bias, and so two weight tensors.
    """

    def __init__(
        self,
        surrogate: Surrogate = "dice",
        horizon: int = 3,
        discount: float = 0.9,
        baseline: float = 1.0,
        tabular: Collection[Role] = (),
    ) -> None:
        self.surrogate, self.horizon, self.discount, self.baseline = surrogate, horizon, discount, baseline
        self.duel = Duel(GAME, horizon)
        space = GAME.spec.action_spaces["protagonist"]
        self.policies: dict[Role, Policy] = {
            role: TabularPolicy(STATES, STATES, space) if role in tabular else MLPPolicy(STATES, space, hidden=())
            for role in ROLES
        }
        self.tasks = dict.fromkeys(ROLES, len(TASKS))
        every = list(itertools.product(range(4), repeat=horizon))
        joint = torch.tensor(every, dtype=torch.int64, device="cpu").T  # [T, E] 2 * protagonist's + adversary's
        self.actions = (joint // 2, joint % 2)
        self.seen, self.got = self._play()  # [2, N, T, E, STATES] and [2, N, T, E], by seat

    def _play(self) -> tuple[Tensor, Tensor]:
        n, e = len(TASKS), self.actions[0].shape[1]
        zeros = self.actions[0].new_zeros(n * e)
        episodes = self.duel.reset(GAME.params_from_rows(TASKS.repeat_interleave(e, 0), torch.float64), zeros, zeros)
        seen, got = [], []
        for own, other in zip(*self.actions, strict=True):
            seen.append(torch.stack(self.duel.observe(episodes)).view(2, n, e, STATES).double())
            episodes, transition = self.duel.step(episodes, (own.repeat(n), other.repeat(n)))
            got.append(transition.reward.T.reshape(2, n, e))
        return torch.stack(seen, 2), torch.stack(got, 2)

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """See ``Problem.losses``."""
        own = [self._log_prob(players[role], seat) for seat, role in enumerate(ROLES)]
        both = own[0] + own[1]
        probability = both.detach().sum(1).exp()
        discounts = self.discount ** torch.arange(self.horizon, dtype=torch.float64, device="cpu").view(1, -1, 1)
        result: dict[Role, Tensor] = {}
        for seat, role in enumerate(ROLES):
            alive = torch.ones_like(self.got[seat])
            advantage = gae(self.got[seat], self.baseline * self.seen[seat] @ BASELINE, alive, self.discount)
            log_prob = both if joint else own[seat]
            result[role] = policy_gradient_loss(
                log_prob, advantage * discounts, alive, self.surrogate, self.horizon, probability
            )
        return Losses(result, result)

    def _log_prob(self, weights: Weights, seat: int) -> Tensor:
        policy, action = self.policies[ROLES[seat]], self.actions[seat].expand(self.got[seat].shape)
        return policy.log_prob(policy.prepare(weights), self.seen[seat], action)

    # The same in closed form; ``flats``: per role [N, D] flat weights

    def exact_loss(self, flats: Mapping[Role, Tensor], role: Role) -> Tensor:
        """[N] minus the return per step, by the values of memory-1 strategies."""
        payoffs = GAME.params_from_rows(TASKS, torch.float64).payoffs
        own, other = (strategy(flats[r]) for r in ROLES)
        values: Tensor = memory_one_values(own, other, payoffs, self.discount, self.horizon)
        return -values[:, ROLES.index(role)] / self.horizon

    def surrogate_curvature(
        self, flats: Mapping[Role, Tensor], role: Role, kind: Literal["lvc", "plain"]
    ) -> dict[Role, Tensor]:
        """Second derivatives of the LVC or plain loss, in scores s = grad log pi:

            own weights, twice        - E[sum_t A_t (grad^2 log pi_t + s_t s_t^T)] / T
            own, then the opponent's  - E[sum_t A_t s_t s'_t^T] / T

        of which ``plain`` has grad^2 log pi_t alone.

        Returns:
            Per role of the second weights, [N, D, D'].
        """
        seat, discounts = (
            ROLES.index(role),
            self.discount ** torch.arange(self.horizon, dtype=torch.float64, device="cpu"),
        )
        to_come = (self.got[seat] * discounts.view(1, -1, 1)).flip(1).cumsum(1).flip(1)
        advantage = to_come - discounts.view(1, -1, 1) * self.baseline * (self.seen[seat] @ BASELINE)
        likely, scores, features, chances = discounts.new_ones(1), [], [], []
        for i, r in enumerate(ROLES):
            flat = flats[r].detach()
            chances.append(torch.einsum("ntes,nsa->ntea", self.seen[i], strategy(flat)))
            action = torch.nn.functional.one_hot(self.actions[i], 2).expand(chances[i].shape)
            likely = likely * (chances[i] * action).sum(-1).prod(1)
            features.append(
                torch.cat([self.seen[i], torch.ones_like(self.seen[i][..., :1])], -1)[..., : flat.shape[1] // 2]
            )
            scores.append(torch.einsum("ntes,ntea->ntesa", features[i], action - chances[i]).flatten(3))
        weight = -likely.unsqueeze(1) * advantage / self.horizon  # [N, T, E]
        pi = chances[seat]
        spread = torch.diag_embed(pi) - pi.unsqueeze(-1) * pi.unsqueeze(-2)
        curve = -torch.einsum("nte,ntes,ntex,nteab->nsaxb", weight, features[seat], features[seat], spread)
        size = flats[role].shape[1]
        result = {role: curve.reshape(-1, size, size)}
        for i, r in enumerate(ROLES):
            product = torch.einsum("nte,ntei,ntej->nij", weight, scores[seat], scores[i])
            result[r] = result.get(r, torch.zeros_like(product)) + (product if kind == "lvc" else 0.0)
        return result


def strategy(flat: Tensor) -> Tensor:
    """Probabilities [N, STATES, 2] of flat weights [N, D]: logits of every state, and a bias if there is one."""
    logits = flat[:, : 2 * STATES].view(-1, STATES, 2)
    return torch.softmax(logits + flat[:, None, 2 * STATES :] if flat.shape[1] > 2 * STATES else logits, -1)


class Flow(NamedTuple):
    """The derivatives of an update that a method includes in its declared objective.

    Attributes:
        own: the player's own weights are updated; otherwise they are fixed.
        peer: the opponent's update is a function of the player's weights; otherwise it is a constant.
        second: the derivative of an update: its own (``exact``), that of a surrogate's formula, or ``none``.
    """

    own: bool = True
    peer: bool = False
    second: Literal["exact", "lvc", "plain", "none"] = "exact"


def exact_update(
    game: AllTrajectories, flats: Mapping[Role, Tensor], rates: Mapping[Role, Tensor], flow: Flow, me: Role
) -> dict[Role, Tensor]:
    """Both players' flat weights [N, D] after an update, as ``me`` differentiates it; ``rates``: per role [D]."""
    after: dict[Role, Tensor] = {}
    for role, flat in flats.items():
        if role == me and not flow.own:
            after[role] = flat
            continue
        exact = flow.second == "exact"
        here = dict(flats) if exact else {r: f.detach().requires_grad_() for r, f in flats.items()}
        (slope,) = torch.autograd.grad(game.exact_loss(here, role).sum(), here[role], create_graph=exact)
        if flow.second in ("lvc", "plain"):
            curvature = game.surrogate_curvature(flats, role, "lvc" if flow.second == "lvc" else "plain")
            for r, f in flats.items():  # 0, with the formula's derivative
                slope = slope + torch.einsum("nij,nj->ni", curvature[r], f - f.detach())
        moved = flat - rates[role] * slope
        after[role] = moved if role == me or flow.peer else moved.detach().requires_grad_()
    return after


def exact_chain(
    game: AllTrajectories, flats: Mapping[Role, Tensor], rates: Mapping[Role, Tensor], flow: Flow, me: Role
) -> list[dict[Role, Tensor]]:
    """Flat weights [N, D] after 0, 1, .. K updates; ``flats``: [D] each, with a graph; ``rates``: [K, D] each."""
    chain = [{role: flat.expand(len(TASKS), -1) for role, flat in flats.items()}]
    chain[0] = {r: f if f.requires_grad else f.detach().requires_grad_() for r, f in chain[0].items()}
    for k in range(len(rates[me])):
        chain.append(exact_update(game, chain[-1], {role: rate[k] for role, rate in rates.items()}, flow, me))
    return chain


def declared_loss(
    game: AllTrajectories,
    flats: Mapping[Role, Tensor],
    rates: Mapping[Role, Tensor],
    flow: Flow,
    me: Role,
    last: bool = False,
) -> Tensor:
    """The outer objective of ``me``, whose derivative is what a method declares to estimate.

    Args:
        game: the game.
        flats: per role [D] or [N, D] flat weights of the start.
        rates: per role [K, D] step sizes.
        flow: the included derivatives.
        me: the player.
        last: the loss of the last shot alone, not the mean over shots 1..K.
    """
    losses = [game.exact_loss(flats, me).mean() for flats in exact_chain(game, flats, rates, flow, me)]
    return losses[-1] if last or len(losses) == 1 else torch.stack(losses[1:]).mean()


# Batches

# Points of (protagonist, adversary) by own and other action: general-sum, so that no symmetry hides a mistake.
POINTS: dict[Role, Tensor] = {
    "protagonist": TASKS.new_tensor([[0.5, -1.5], [1.5, -0.2]]),
    "adversary": TASKS.new_tensor([[-0.3, 1.1], [-1.2, 0.7]]),
}
JOINT = torch.tensor(
    list(itertools.product((0, 1), repeat=2)), dtype=torch.int64, device="cpu"
)  # [4, 2] (protagonist's, adversary's)


class AllBatches(Listing):
    """Every possible sequence of K batches for the updates of one play, as one task each. The loss at the end of a sequence is an
    expectation, weighted by the sequence's probability.

    Args:
        steps: K.
        episodes: episodes in a batch; there are 4^(steps * episodes) sequences.
    """

    def __init__(self, steps: int, episodes: int) -> None:
        batches = JOINT.new_tensor(list(itertools.product(range(4), repeat=episodes)))  # [4^E, E]
        chosen = JOINT.new_tensor(list(itertools.product(range(len(batches)), repeat=steps)))  # [B, K]
        self.drawn = JOINT[batches[chosen]]  # [B, K, E, 2]
        self.steps, self.size = steps, len(chosen)
        self.tasks = dict.fromkeys(ROLES, self.size)
        self.policy = MLPPolicy(1, spaces.Discrete(2), hidden=())
        self._likely = TASKS.new_ones(self.size)
        self._costs: list[dict[Role, Tensor]] = []

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """See ``Problem.losses``."""
        everything = JOINT.expand(self.size, 4, 2)
        exact = [self._log_prob(players[role], everything[..., i]) for i, role in enumerate(ROLES)]
        probability = (exact[0] + exact[1]).exp().detach()  # [B, 4]
        # Tasks are averaged over, batches are summed, except later ones.
        here = self._likely * self.size / len(JOINT) ** (self.drawn.shape[2] * (self.steps - shot))
        self._costs.append({role: -here * (probability * points(everything, role)).sum(1) for role in ROLES})
        query: dict[Role, Tensor] = {}
        support: dict[Role, Tensor] = {}
        drawn: dict[Role, Tensor] = {}
        for i, role in enumerate(ROLES):
            reward = points(everything, role).unsqueeze(1)
            query[role] = here * policy_gradient_loss(
                exact[i].unsqueeze(1), reward, torch.ones_like(reward), "plain", 1, probability
            )
            if shot < self.steps:
                seen = self.drawn[:, shot]
                reward, log_prob = points(seen, role).unsqueeze(1), self._log_prob(players[role], seen[..., i])
                support[role] = policy_gradient_loss(log_prob.unsqueeze(1), reward, torch.ones_like(reward), "plain", 1)
                drawn[role] = log_prob.sum(1)
            else:
                support[role], drawn[role] = query[role], TASKS.new_zeros(self.size)
        self._likely = self._likely * (drawn[ROLES[0]] + drawn[ROLES[1]]).exp().detach()
        return Losses(support, query, {}, drawn)

    def _log_prob(self, weights: Weights, action: Tensor) -> Tensor:
        ones = torch.ones_like(action, dtype=torch.float64).unsqueeze(-1)
        return self.policy(weights, ones).log_prob(action)

    def costs(self, shot: int) -> dict[Role, Tensor]:
        """See ``Problem.costs``."""
        return self._costs[shot]


def points(joint: Tensor, role: Role) -> Tensor:
    """The points of joint actions [..., 2]: [...]."""
    return POINTS[role][joint[..., 0], joint[..., 1]]


def batches_loss(
    drawn: Tensor, flats: Mapping[Role, Tensor], rates: Mapping[Role, Tensor], me: Role, last: bool = False
) -> Tensor:
    """The outer objective of ``me``: the sum over all sequences of batches of their probability times the loss at their end.

    Args:
        drawn: [B, K, E, 2] every sequence of batches.
        flats: per role [4]: a logit of each action as a weight on a constant input, and the same as a bias.
        rates: per role [K, 4]. An update moves both by the mean over its episodes of points * (one-hot action - pi).
        me: the player.
        last: the loss of the last shot alone, not the mean over shots 1..K.
    """
    sequences, steps, episodes, _ = drawn.shape
    logits = {role: (flat[:2] + flat[2:]).expand(sequences, 2) for role, flat in flats.items()}
    likely, found = TASKS.new_ones(sequences), []
    for shot in range(steps + 1):
        pi = {role: torch.softmax(value, -1) for role, value in logits.items()}
        if shot:  # rows that differ only in later batches have the same loss here
            value = torch.einsum("bi,bj,ij->b", pi[ROLES[0]], pi[ROLES[1]], POINTS[me])
            found.append(-(likely * value).sum() / len(JOINT) ** (episodes * (steps - shot)))
        if shot < steps:
            seen = drawn[:, shot]
            for i, role in enumerate(ROLES):
                likely = likely * pi[role].gather(1, seen[..., i]).prod(1)
                score = torch.nn.functional.one_hot(seen[..., i], 2) - pi[role].unsqueeze(1)
                rate = rates[role][shot, :2] + rates[role][shot, 2:]
                logits[role] = logits[role] + rate * (points(seen, role).unsqueeze(-1) * score).mean(1)
    return found[-1] if last else torch.stack(found).mean()
