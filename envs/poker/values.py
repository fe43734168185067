"""Exact values of poker policies: one hand of a task, as a tree over all deals, in NumPy and float64.

A policy is a table [S, A]: for each information state (numbered by ``Poker.information_state``) the probabilities of the
id's actions; it holds for both positions, since the bets tell which player acts. What an illegal action means is the game's rule:
``Hand.moves`` turns probabilities of actions into those of folding, calling and raising. A policy that does more with an
episode's earlier hands than such a table has no value here.

Best responses, NashConv and exploitability (half of NashConv) are defined as in OpenSpiel (Lanctot et al., 2019), the
equilibrium's linear program as by Koller, Megiddo and von Stengel (1994).
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Task
from metaduel.envs.poker.game import CALL, FOLD, NOBODY, RAISE, Poker, State

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Table = npt.ArrayLike | Mapping[int, npt.ArrayLike]  # [S, A], or the rows of some information states
MOVES = (FOLD, CALL, RAISE)


class BestResponse(NamedTuple):
    """What does best against a policy."""

    value: float  # chips per hand, both positions equally often
    table: Array  # [S, A] of a policy that earns it, without chance


class Equilibrium(NamedTuple):
    """A Nash equilibrium."""

    value: float  # chips per hand of the player that acts first
    table: Array  # [S, A] for both positions


class Hand:
    """One hand of a task.

    Args:
        spec: KuhnPoker's or LeducPoker's.
        task: contexts; those left out are the defaults.
        suits: tell cards of the same rank apart, as OpenSpiel's Leduc does; information states are then numbered with cards
            for ranks, and policies' tables are as long as that needs.

    Attributes:
        states: S, how many information states are numbered; with a small deck not all of them can occur.
    """

    def __init__(self, spec: GameSpec, task: Task | None = None, suits: bool = False) -> None:
        game = make_game(spec)
        if not isinstance(game, Poker):
            raise InvalidInputError(f"{spec.name} is not a poker game")
        self.spec, self.game = spec, game
        params = game.params([task or {}], torch.float64)
        self.ante, self.raises = float(params.ante), [float(size) for size in params.raises]
        ranks = int(params.ranks)
        copies = [int(params.low), *[int(params.middle)] * (ranks - 2), int(params.high)]
        # Kinds of card that players tell apart: the rank and the number of each.
        kinds = [(rank, count) for rank, count in enumerate(copies)]
        if suits:
            kinds = [(rank, 1) for rank, count in kinds for _ in range(count)]
        self._deal(kinds)
        self.kinds = len(kinds) if suits else game.ranks
        first = self.kinds * game.nodes
        self.states = first if game.rounds == 1 else first * (1 + self.kinds * (game.nodes - 1))
        self.node_of = np.arange(self.states) % game.nodes
        self._action_for: Integers = game.action_for.numpy()

    def _deal(self, kinds: list[tuple[int, int]]) -> None:
        """All deals: kinds of the cards [D, 3] of (the player that acts first, the other, the public), probability, showdown."""
        cards, chances, better = [], [], []
        for deal in itertools.product(range(len(kinds)), repeat=1 + self.game.rounds):
            left = [count for _, count in kinds]
            chance = 1.0
            for kind in deal:
                chance *= left[kind] / sum(left)
                left[kind] -= 1
            if chance > 0:
                ranks = [kinds[kind][0] for kind in deal]
                strength = [rank + len(kinds) * (rank in ranks[2:]) for rank in ranks[:2]]
                cards.append([*deal, NOBODY][:3])
                chances.append(chance)
                better.append(np.sign(strength[0] - strength[1]))
        self.cards: Integers = np.array(cards)
        self.chance: Array = np.array(chances)
        self.better: Array = np.array(better, np.float64)

    # Policies

    def uniform(self) -> Array:
        """The policy that takes each legal action equally often: [S, A]."""
        legal: Array = self.game.choices.numpy()[:, self.node_of].T.astype(np.float64)
        legal /= legal.sum(1, keepdims=True)
        return legal

    def table(self, policy: Table) -> Array:
        """Check a policy, and complete one that is given for some information states by uniform rows: [S, A].

        Raises:
            InvalidInputError: another shape, or rows that are no probabilities.
        """
        if isinstance(policy, Mapping):
            full = self.uniform()
            for state, row in policy.items():
                if not 0 <= state < self.states:
                    raise InvalidInputError(f"policy: information state {state} must be in [0, {self.states})")
                full[state] = row
        else:
            full = np.array(policy, np.float64)
        if full.shape != (self.states, self.game.actions):
            raise InvalidInputError(
                f"policy of shape {full.shape} must be {(self.states, self.game.actions)}: a row per information state"
            )
        if not (np.all(full >= 0) and np.allclose(full.sum(1), 1.0, atol=1e-5)):
            raise InvalidInputError("policy: every row must be probabilities that add up to 1")
        full /= full.sum(1, keepdims=True)
        return full

    def moves(self, policy: Table) -> Array:
        """[S, 3] probabilities of folding, calling (or checking) and raising, of a policy over actions."""
        table, meaning = self.table(policy), self.game.moves.numpy()
        result = np.zeros((self.states, len(MOVES)))
        for action in range(self.game.actions):
            np.add.at(result, (np.arange(self.states), meaning[action, self.node_of]), table[:, action])
        return result

    def information_states(self) -> Integers:
        """The information states that can occur, ascending."""
        found: set[int] = set()
        for first, node in self._nodes():
            found.update(self._information(first, node).tolist())
        return np.array(sorted(found))

    # The tree: every function walks the bets, and has an array over the deals at each of them

    def _nodes(self) -> list[tuple[int, int]]:
        """All (node at which the first round was closed, node of this round) in which a player acts."""
        nodes = range(self.game.nodes)
        return [(0, node) for node in nodes] + [
            (first, node) for first in nodes[1:] for node in nodes if self.game.rounds == 2
        ]

    def _information(self, first: int, node: int) -> Integers:
        """[D] information state of the player that acts."""
        cards = self.cards[:, self._actor(node)]
        index = cards * self.game.nodes + node
        if first == 0:
            return index
        second = (cards * self.kinds + self.cards[:, 2]) * (self.game.nodes - 1) + first - 1
        return self.kinds * self.game.nodes + second * self.game.nodes + node

    @staticmethod
    def _actor(node: int) -> int:
        """The player that acts: 0, the one that acts first in each round, or 1."""
        return (node + (node >> 1)) & 1

    def _options(self, node: int) -> list[int]:
        return [move for move in MOVES if self._action_for[move, node] >= 0]

    def _move(self, first: int, node: int, move: int) -> tuple[int, int] | Array:
        """What follows a move: the next (first, node), or [D] chips of the player that acts first if the hand is over."""
        if move == RAISE:
            return first, node + 2
        if move == CALL and node == 0:
            return first, 1
        last_round = first > 0 or self.game.rounds == 1
        if move == CALL and not last_round:
            return node, 0
        raises = (node >> 1) - (move == FOLD)
        if first > 0:
            loss = self.ante + (first >> 1) * self.raises[0] + raises * self.raises[1]
        else:
            loss = self.ante + raises * self.raises[0]
        if move == FOLD:
            return np.full(len(self.chance), loss if self._actor(node) else -loss)
        return self.better * loss

    def value(self, one: Table, other: Table) -> float:
        """Expected chips per hand of the player that acts first: ``one`` acts first."""
        moves = self.moves(one), self.moves(other)

        def walk(first: int, node: int) -> Array:
            own = moves[self._actor(node)][self._information(first, node)]
            total = np.zeros(len(self.chance))
            for move in self._options(node):
                after = self._move(first, node, move)
                total += own[:, move] * (walk(*after) if isinstance(after, tuple) else after)
            return total

        return float(self.chance @ walk(0, 0))

    def match_value(self, one: Table, other: Table) -> float:
        """Chips per hand of ``one`` against ``other``, both positions equally often."""
        return (self.value(one, other) - self.value(other, one)) / 2

    def _best(self, position: int, other: Table, table: Array) -> float:
        """Chips of the best response in a position; its choices are written into ``table``."""
        moves, sign = self.moves(other), 1.0 - 2.0 * position

        def walk(first: int, node: int, reach: Array) -> Array:
            """[D] chips of the player that responds, times how likely chance and the other are to come here."""
            information, options = self._information(first, node), self._options(node)
            own = self._actor(node) == position
            values: list[Array] = []
            for move in options:
                onward = reach if own else reach * moves[information, move]
                after = self._move(first, node, move)
                values.append(walk(*after, onward) if isinstance(after, tuple) else onward * after * sign)
            each: Array = np.stack(values)
            if not own:
                total: Array = each.sum(0)
                return total
            # One choice for all deals that look the same.
            totals = np.stack([np.bincount(information, value, self.states) for value in each])
            choice = totals.argmax(0)
            for state in np.unique(information):
                table[state] = np.eye(self.game.actions)[self._action_for[options[choice[state]], node]]
            chosen: Array = each[choice[information], np.arange(len(information))]
            return chosen

        return float(walk(0, 0, self.chance).sum())

    def best_response(self, policy: Table) -> BestResponse:
        """The best that a player that knows ``policy`` can do against it, in both positions."""
        table = self.uniform()
        values = [self._best(position, policy, table) for position in (0, 1)]
        return BestResponse(sum(values) / 2, table)

    def nash_conv(self, one: Table, other: Table | None = None) -> float:
        """What the best responses of both positions gain together; ``one`` acts first, ``other`` is ``one`` by default."""
        reply = one if other is None else other
        return self._best(0, reply, self.uniform()) + self._best(1, one, self.uniform())

    def exploitability(self, policy: Table) -> float:
        """Half of NashConv of a policy that plays both positions: chips per hand that a best response wins of it."""
        return self.nash_conv(policy) / 2

    # Equilibrium

    def equilibrium(self) -> Equilibrium:
        """A Nash equilibrium by the sequence form's linear program."""
        first, second = _Sequences(self, 0), _Sequences(self, 1)
        rows, columns, chips = self._payoffs(first, second)
        payoff = sparse.coo_matrix((chips, (rows, columns)), (first.count, second.count)).tocsr()
        table = self.uniform()
        value = first.solve(payoff, second, table)
        second.solve(-payoff.T.tocsr(), first, table)
        return Equilibrium(value, table)

    def _payoffs(self, one: _Sequences, other: _Sequences) -> tuple[list[int], list[int], list[float]]:
        """Expected chips of the player that acts first for every pair of last sequences, as coordinates."""
        rows: list[int] = []
        columns: list[int] = []
        chips: list[float] = []

        def walk(first: int, node: int, last: list[Integers]) -> None:
            actor, information = self._actor(node), self._information(first, node)
            for move in self._options(node):
                now = list(last)
                now[actor] = (one, other)[actor].number[information, move]
                after = self._move(first, node, move)
                if isinstance(after, tuple):
                    walk(*after, now)
                else:
                    rows.extend(now[0].tolist())
                    columns.extend(now[1].tolist())
                    chips.extend((self.chance * after).tolist())

        nothing = np.zeros(len(self.chance), np.int64)
        walk(0, 0, [nothing, nothing])
        return rows, columns, chips


class _Sequences:
    """A player's sequences: number 0 is the empty one, the others are a move in an information state.

    Attributes:
        count: how many.
        number: [S, 3] the sequence that ends with a move.
        parent: information state -> the sequence before it.
    """

    def __init__(self, hand: Hand, position: int) -> None:
        self.hand, self.count = hand, 1
        self.number: Integers = np.full((hand.states, len(MOVES)), -1)
        self.parent: dict[int, int] = {}

        def walk(first: int, node: int, last: Integers) -> None:
            information = hand._information(first, node)
            mine = hand._actor(node) == position
            if mine:
                for state, before in zip(information.tolist(), last.tolist(), strict=True):
                    if state not in self.parent:
                        self.parent[state] = before
                        for move in hand._options(node):
                            self.number[state, move] = self.count
                            self.count += 1
            for move in hand._options(node):
                after = hand._move(first, node, move)
                if isinstance(after, tuple):
                    walk(*after, self.number[information, move] if mine else last)

        walk(0, 0, np.zeros(len(hand.chance), np.int64))

    def _flow(self) -> sparse.csr_matrix:
        """[1 + information states, count]: what flows into a state flows out of it."""
        rows, columns, values = [0], [0], [1.0]
        for row, (state, before) in enumerate(self.parent.items(), 1):
            out = [number for number in self.number[state].tolist() if number >= 0]
            rows += [row] * (1 + len(out))
            columns += [before, *out]
            values += [-1.0, *[1.0] * len(out)]
        return sparse.coo_matrix((values, (rows, columns)), (1 + len(self.parent), self.count)).tocsr()

    def solve(self, payoff: sparse.csr_matrix, other: _Sequences, table: Array) -> float:
        """Maximise what an optimal opponent leaves; ``payoff``: [own count, other's]. Writes into ``table``."""
        own, theirs = self._flow(), other._flow()
        # Variables: own realisation plan, then the other's values of its states; its row 0 is the value of the game.
        goal = np.zeros(self.count + theirs.shape[0])
        goal[self.count] = -1.0
        start = np.zeros(own.shape[0])
        start[0] = 1.0
        found = linprog(
            goal,
            A_ub=sparse.hstack([-payoff.T, theirs.T]).tocsr(),
            b_ub=np.zeros(other.count),
            A_eq=sparse.hstack([own, sparse.csr_matrix((own.shape[0], theirs.shape[0]))]).tocsr(),
            b_eq=start,
            bounds=[(0, None)] * self.count + [(None, None)] * theirs.shape[0],
            method="highs-ds",
        )
        if not found.success:
            raise ArithmeticError(f"no equilibrium found: {found.message}")
        plan = np.clip(found.x[: self.count], 0.0, None)
        for state in self.parent:
            weights = np.array([plan[number] if number >= 0 else 0.0 for number in self.number[state].tolist()])
            if weights.sum() > 1e-9:
                node = int(self.hand.node_of[state])
                table[state] = 0.0
                for move in self.hand._options(node):
                    table[state, self.hand._action_for[move, node]] = weights[move] / weights.sum()
        return float(-found.fun)


# Networks and stored equilibria


def situations(duel: Duel, task: Task, role: Role) -> Tensor:
    """What a role sees in each information state, as in the first hand of an episode: [S, d].

    Nothing has been shown yet, and the player that has to be first for the state to occur has started. States of ranks that the
    task's deck does not have are included, and of no importance.
    """
    game = duel.game
    if not isinstance(game, Poker):
        raise InvalidInputError(f"{duel.spec.name} is not a poker game")
    seat, states = ROLES.index(role), torch.arange(game.information_states, dtype=torch.int64, device="cpu")
    card, public, first, node = game.situation(states)
    zero, nobody = torch.zeros_like(states), torch.full_like(states, NOBODY)
    params = game.params([task] * len(states))
    starter = (seat + node + (node >> 1)) & 1  # so that it is the role's turn
    hands = (card, zero) if seat == 0 else (zero, card)
    state = State(*hands, public, starter, first, node, zero, nobody, nobody, zero > 0, torch.zeros_like(params.ante))
    return duel.observe(duel.reset(params, zero, zero)._replace(state=state))[seat]


def network_table(duel: Duel, task: Task, role: Role, probabilities: Callable[[Tensor], Tensor]) -> Array:
    """A network's policy as a table [S, A], in the first hand of an episode.

    Args:
        duel: the game as the network sees it (informed or not).
        task: contexts.
        role: whose seat it takes.
        probabilities: maps observations [S, d] to probabilities of actions [S, A].
    """
    with torch.no_grad():
        return probabilities(situations(duel, task, role)).to(torch.float64).numpy()


def kuhn_equilibrium(alpha: float = 1 / 3) -> Array:
    """Kuhn's own family of equilibria of the classic game, as a table [S, A]: the first player bets the lowest card with
    probability ``alpha`` in [0, 1/3], the highest with 3 alpha, and calls with the middle one with alpha + 1/3.

    Rows of ranks above the third are those of the third.
    """
    if not 0 <= alpha <= 1 / 3:
        raise InvalidInputError(f"alpha={alpha!r} must be in [0, 1/3]")
    # Probability of betting (or calling a bet) by card: with nothing played, after a check, after a bet, after check and bet.
    bets = [
        [alpha, 1 / 3, 0.0, 0.0],
        [0.0, 0.0, 1 / 3, alpha + 1 / 3],
        [3 * alpha, 1.0, 1.0, 1.0],
    ]
    bets += [bets[2]] * 3
    bet = np.array(bets).reshape(-1)
    return np.stack([np.zeros_like(bet), 1 - bet, bet], 1)


@functools.lru_cache(maxsize=2)
def stored_equilibria(name: str) -> dict[int, Array]:
    """Equilibria of the default stakes and one (Kuhn) or two (Leduc) cards of each rank, by the number of ranks: [S, A].

    They are stored, since a linear program's solution may change with its solver, and a scripted player must not.
    """
    content = json.loads((resources.files("metaduel.envs.poker") / "equilibria.json").read_text(encoding="utf-8"))
    return {int(ranks): np.array(table) for ranks, table in content[name].items()}
