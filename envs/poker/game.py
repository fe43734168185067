"""Poker's rules. See the package's docstring for the tables.

The bets of a round are a number, the *node*: twice the raises so far, plus 1 if the first player checked. That is all of their
history, since a round that was checked goes on with the other player's bet or is over.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.placed import Placed
from metaduel.envs.core.spec import GameSpec

FOLD, CALL, RAISE = range(3)  # moves; checking is calling nothing
NOBODY = -1  # no card


class KuhnParams(NamedTuple):
    """A task of Kuhn poker, one row per episode."""

    ante: Tensor  # [B] chips
    bet: Tensor  # [B] chips
    ranks: Tensor  # [B] number of ranks
    low: Tensor  # [B] cards of the lowest rank
    middle: Tensor  # [B] cards of each rank in between
    high: Tensor  # [B] cards of the highest rank

    @property
    def raises(self) -> tuple[Tensor, ...]:
        """[B] chips, size of a raise in each round."""
        return (self.bet,)


class LeducParams(NamedTuple):
    """A task of Leduc poker, one row per episode."""

    ante: Tensor  # [B] chips
    first_raise: Tensor  # [B] chips
    second_raise: Tensor  # [B] chips
    low: Tensor  # [B] cards of the lowest rank
    middle: Tensor  # [B] cards of each rank in between
    high: Tensor  # [B] cards of the highest rank

    @property
    def ranks(self) -> Tensor:
        """[B] number of ranks: three."""
        return torch.full_like(self.ante, 3.0)

    @property
    def raises(self) -> tuple[Tensor, ...]:
        """[B] chips, size of a raise in each round."""
        return self.first_raise, self.second_raise


Params = KuhnParams | LeducParams


class State(NamedTuple):
    """Where a hand is, and how the one before ended. Cards are ranks from 0; -1 where there is none."""

    protagonist: Tensor  # [B] int64 card
    adversary: Tensor  # [B] int64 card
    public: Tensor  # [B] int64 card, seen in the second round
    starter: Tensor  # [B] int64 seat that acts first in this hand
    first: Tensor  # [B] int64 node at which the first round was closed; 0 in the first round
    node: Tensor  # [B] int64 of this round
    hand: Tensor  # [B] int64 hands that are over
    last_protagonist: Tensor  # [B] int64 card in the hand before
    last_adversary: Tensor  # [B] int64 card in the hand before
    shown: Tensor  # [B] bool: the hand before had a showdown
    won: Tensor  # [B] chips that the protagonist won in the hand before

    @property
    def turn(self) -> Tensor:
        """[B] int64 seat that acts: both in turn, the starter first in either round."""
        return (self.starter + self.node + (self.node >> 1)) & 1  # node = 2 raises + checks; raises + checks were made


class Poker(Game[Params, State]):
    """Kuhn's or Leduc's game.

    Args:
        spec: the family.
        rounds: of betting, 1 or 2.
        raises: allowed in each.
        ranks: the most that a deck may have.
        hands: in an episode.
    """

    def __init__(self, spec: GameSpec, rounds: int, raises: int, ranks: int, hands: int) -> None:
        self.params_type = KuhnParams if rounds == 1 else LeducParams
        super().__init__(spec)
        self.rounds, self.ranks, self.hands = rounds, ranks, hands
        self.nodes = 2 * raises + 2
        self.actions = len(spec.action_names)
        before = self.nodes + 3 * ranks + (ranks + self.nodes if rounds == 2 else 0)  # see ``observe``
        self.mask = slice(before, before + self.actions)
        self.init_noise = self.step_noise = 1 + rounds  # cards of a hand
        facing, full = [node >= 2 for node in range(self.nodes)], [node >= 2 * raises for node in range(self.nodes)]
        # What an action means at a node, where it is one's turn: [actions, nodes]. What is illegal is a check or call.
        fold, bet = [FOLD if f else CALL for f in facing], [CALL if f else RAISE for f in full]
        call = [CALL] * self.nodes
        self.moves = torch.tensor(
            [call, fold, bet] if rounds == 1 else [call, fold, call, bet], dtype=torch.int64, device="cpu"
        )
        # Which actions are legal there; the column after the last node is for the player that waits: [actions, nodes + 1].
        waiting, always = [False] * self.nodes, [True] * self.nodes
        can_bet = [not f for f in full]
        choices = [waiting, always, always] if rounds == 1 else [waiting, facing, always, can_bet]
        self.choices = torch.tensor(
            [[*row, number == 0] for number, row in enumerate(choices)], dtype=torch.bool, device="cpu"
        )
        # The legal action that makes a move there, -1 where the move is not legal: [moves, nodes].
        folds = [1 if f else -1 for f in facing]
        bets = [self.actions - 1 if c else -1 for c in can_bet]
        calls = [2 if f else 1 for f in facing] if rounds == 1 else [2] * self.nodes
        self.action_for = torch.tensor([folds, calls, bets], dtype=torch.int64, device="cpu")
        # The node after a move, [moves, nodes]; a round that is over leaves 0.
        self.after = torch.tensor(
            [[0] * self.nodes, [1, *[0] * (self.nodes - 1)], [node + 2 for node in range(self.nodes)]],
            dtype=torch.int64,
            device="cpu",
        )
        self._moves, self._choices, self._after = map(Placed, (self.moves.view(-1), self.choices, self.after.view(-1)))

    @property
    def information_states(self) -> int:
        """How many different situations a player can be in on its turn, as ``information_state`` numbers them."""
        first = self.ranks * self.nodes
        return first if self.rounds == 1 else first * (1 + self.ranks * (self.nodes - 1))

    def information_state(self, card: Tensor, public: Tensor, first: Tensor, node: Tensor) -> Tensor:
        """Number what a player on its turn knows of this hand, [B] int64: its card, the public one, all bets."""
        index = card * self.nodes + node
        if self.rounds == 1:
            return index
        second = ((card * self.ranks + public) * (self.nodes - 1) + first - 1) * self.nodes + node
        return torch.where(first > 0, self.ranks * self.nodes + second, index)

    def situation(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(card, public, first, node) of information states: the inverse of ``information_state``, -1 for no card."""
        place, node = index // self.nodes, index % self.nodes
        none = torch.full_like(index, NOBODY)
        if self.rounds == 1:
            return place, none, torch.zeros_like(index), node
        later, second = place >= self.ranks, place - self.ranks
        cards, first = second // (self.nodes - 1), second % (self.nodes - 1) + 1
        return (
            torch.where(later, cards // self.ranks, place),
            torch.where(later, cards % self.ranks, none),
            torch.where(later, first, 0),
            node,
        )

    def most(self, params: Params) -> Tensor:
        """The most that a hand can cost, [B] chips."""
        return params.ante + sum(params.raises) * (self.nodes // 2 - 1)

    def init(self, params: Params, noise: Tensor) -> State:
        """Deal the first hand; the protagonist acts first."""
        zero = torch.zeros_like(params.ante)
        number = zero.long()
        nobody = number + NOBODY
        cards = self.deal(params, noise)
        return State(*cards, number, number, number, number, nobody, nobody, number > 0, zero)

    def deal(self, params: Params, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ranks of the protagonist's, the adversary's and the public card, [B] int64, from [B, 1 + rounds] uniforms.

        Without replacement: a card is a place in the sorted deck, drawn from those that are left.
        """
        size = params.low + params.middle * (params.ranks - 2) + params.high
        draws = noise.unbind(1)
        one = (draws[0] * size).floor()
        other = (draws[1] * (size - 1)).floor()
        other = other + (other >= one)
        if self.rounds == 1:
            return _rank(params, one), _rank(params, other), torch.full_like(one, NOBODY).long()
        public = (draws[2] * (size - 2)).floor()
        public = public + (public >= torch.minimum(one, other))
        public = public + (public >= torch.maximum(one, other))
        return _rank(params, one), _rank(params, other), _rank(params, public)

    def turn(self, params: Params, state: State) -> Tensor:
        """Whose turn it is, [B] int64."""
        return state.turn

    def legal(self, params: Params, state: State) -> Pair:
        """Which actions are legal, [B, A] bool each."""
        return self._legal(state, 0).t(), self._legal(state, 1).t()

    def _legal(self, state: State, seat: int) -> Tensor:
        """[A, B]."""
        return self._choices.on(state.node.device)[:, torch.where(state.turn == seat, state.node, self.nodes)]

    def observe(self, params: Params, state: State) -> Pair:
        """Own card, bets, the last hand's result; never what the other holds now."""
        dtype = params.ante.dtype
        most = max(self.nodes, self.ranks)
        numbers = torch.arange(most, dtype=torch.int64, device=state.node.device).unsqueeze(1)
        nodes, ranks = numbers[: self.nodes], numbers[: self.ranks]
        bets = [state.node == nodes]
        if self.rounds == 2:
            public = torch.where(state.first > 0, state.public, NOBODY)
            bets = [public == ranks, state.first == nodes, *bets]
        left = (1 - state.hand.to(dtype) * (1 / self.hands)).clamp(min=0.0)
        share = state.won / self.most(params)
        cards = state.protagonist == ranks, state.adversary == ranks
        last = state.last_protagonist == ranks, state.last_adversary == ranks
        seen = []
        for seat, won in enumerate((share, -share)):
            facts = [
                *bets,
                cards[seat],
                last[seat],
                last[1 - seat] & state.shown,
                self._legal(state, seat),
                (state.starter == seat).unsqueeze(0),
            ]
            seen.append(torch.cat([torch.cat(facts).to(dtype), torch.stack([won, left])]).t())
        return seen[0], seen[1]

    def step(self, params: Params, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Play the turn of the player that has it; a hand that is over is paid, and the next one dealt."""
        turn, node = state.turn, state.node
        move = self._moves.on(node.device)[torch.where(turn == 0, *actions) * self.nodes + node]
        folded = move == FOLD
        closed = (move == CALL) & (node > 0)
        second = state.first > 0
        over = folded | (closed & second) if self.rounds == 2 else folded | closed

        won = self._result(params, state, folded)
        first = torch.where(closed, node, state.first) if self.rounds == 2 else state.first
        after = self._after.on(node.device)[move * self.nodes + node]
        hand = state.hand + over
        cards = self.deal(params, noise)
        played = State(
            torch.where(over, cards[0], state.protagonist),
            torch.where(over, cards[1], state.adversary),
            torch.where(over, cards[2], state.public),
            state.starter ^ over.long(),
            torch.where(over, 0, first),
            after,
            hand,
            torch.where(over, state.protagonist, state.last_protagonist),
            torch.where(over, state.adversary, state.last_adversary),
            torch.where(over, ~folded, state.shown),
            torch.where(over, won, state.won),
        )
        reward = torch.where(over, won, 0.0)
        return played, Outcome(torch.stack([reward, -reward]).t(), hand >= self.hands)

    def _result(self, params: Params, state: State, folded: Tensor) -> Tensor:
        """Chips that the protagonist wins if the hand is over now, [B]."""
        raises = (state.node >> 1) - folded.long()  # a player that folds has not put in the last one
        if self.rounds == 1:
            loss = params.ante + raises * params.raises[0]
        else:
            second = state.first > 0
            before = torch.where(second, state.first >> 1, raises)
            loss = params.ante + before * params.raises[0] + torch.where(second, raises, 0) * params.raises[1]
        one, other = state.protagonist, state.adversary
        if self.rounds == 2:
            one, other = one + self.ranks * (one == state.public), other + self.ranks * (other == state.public)
        better = (one > other).long() - (one < other).long()
        return torch.where(folded, 2 * state.turn - 1, better) * loss


def _rank(params: Params, place: Tensor) -> Tensor:
    """The rank of a card by its place in the sorted deck, [B] int64."""
    between = 1 + ((place - params.low) / params.middle).floor()
    return torch.where(place < params.low, 0.0, torch.minimum(between, params.ranks - 1)).long()
