"""Scripted poker players, the same for both roles: fixed styles as tables, and some that change with what happens.

A style is judged by the hand's *equity*: how often it would win a showdown against a random card, ties counting half. Players
that don't know the deck count one card of each rank in Kuhn and two in Leduc.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Split
from metaduel.envs.players.scripted import Option, Scripted
from metaduel.envs.poker.game import CALL, FOLD, NOBODY, RAISE, Params, Poker, State
from metaduel.envs.poker.values import Array, stored_equilibria

Choice = tuple[Tensor, Tensor]
Rule = Callable[..., Choice]  # (view, memory, noise, **options)
# (equity, whether there is a bet, **options) -> probability of raising, and of calling (or checking) where it does not raise.
Style = Callable[..., tuple[Tensor, Tensor]]


def equity(copies: Tensor, card: Tensor, public: Tensor, rounds: int) -> Tensor:
    """How often a card wins the showdown against a random one, [B]; a tie counts half.

    Args:
        copies: [B, R] cards of each rank in the deck.
        card: [B] int64.
        public: [B] int64, -1 where it is not known.
        rounds: of the game; in the first of two, the public card is drawn at random.
    """
    ranks = torch.arange(copies.shape[1], dtype=torch.int64, device=copies.device)
    left = copies - (card.unsqueeze(1) == ranks).to(copies.dtype)

    def known(public: Tensor) -> Tensor:
        shown = public.unsqueeze(1) == ranks
        others = (left - shown.to(left.dtype)).clamp(min=0.0)
        own = (card + (card == public) * len(ranks)).unsqueeze(1)
        theirs = ranks + shown * len(ranks)
        won = (own > theirs).to(left.dtype) + 0.5 * (own == theirs).to(left.dtype)
        return (others * won).sum(1) / others.sum(1)

    if rounds == 1:
        return known(public)
    mean = torch.zeros_like(left[:, 0])
    for rank in range(len(ranks)):
        mean = mean + left[:, rank] * known(torch.full_like(card, rank))
    return torch.where(public < 0, mean / left.sum(1), known(public.clamp(min=0)))


def copies_of(game: Poker, params: Params) -> Tensor:
    """Cards of each rank in the deck, [B, R]."""
    ranks = torch.arange(game.ranks, dtype=torch.int64, device=params.ranks.device)
    top = params.ranks.unsqueeze(1) - 1
    between = torch.where(ranks < top, params.middle.unsqueeze(1), 0.0)
    return torch.where(
        ranks == 0, params.low.unsqueeze(1), torch.where(ranks == top, params.high.unsqueeze(1), between)
    )


@dataclass(frozen=True)
class Seat:
    """What the players of one seat of one id read.

    Attributes:
        game: the rules.
        seat: 0 protagonist, 1 adversary.
        equities: [4, R, R + 1] equity by number of ranks (from 3), card and public card (the last: not known), in a deck with
            equally many cards of each rank.
    """

    game: Poker
    seat: int
    equities: Tensor

    def card(self, state: State) -> Tensor:
        """[B] the own card."""
        return state.protagonist if self.seat == 0 else state.adversary

    def public(self, state: State) -> Tensor:
        """[B] the public card, -1 where it is not seen."""
        return torch.where(state.first > 0, state.public, NOBODY)

    def equity(self, view: View) -> Tensor:
        """[B] of the own hand, in a deck with equally many cards of each rank."""
        public = self.public(view.state) % (self.game.ranks + 1)
        equities = self.equities.to(public.device)
        return equities[view.params.ranks.long() - 3, self.card(view.state), public].to(view.observation.dtype)

    def won(self, state: State) -> Tensor:
        """[B] chips won in the hand before."""
        return state.won if self.seat == 0 else -state.won

    def act(self, view: View, raises: Tensor, calls: Tensor, u: Tensor) -> Tensor:
        """[B] the action that raises with probability ``raises`` and otherwise calls with probability ``calls``.

        ``u``: [B, 2] uniforms. Where no raise is left it calls; where there is no bet it checks instead of folding.
        """
        state, making = view.state, self.game.action_for.to(view.state.node.device)
        move = torch.where(u[:, 0] < raises, RAISE, torch.where(u[:, 1] < calls, CALL, FOLD))
        action = making[move, state.node]
        action = torch.where(action < 0, making[CALL, state.node], action)
        return torch.where(state.turn == self.seat, action, 0)


def _style(seat: Seat, style: Style) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor, **options: float) -> Choice:
        return seat.act(view, *style(seat.equity(view), view.state.node >= 2, **options), noise), memory

    return rule


def _at_least(equity: Tensor, bound: float) -> Tensor:
    # A little lower, so that rounding decides nothing.
    return (equity > bound - 1e-3).to(equity.dtype)


def _station(equity: Tensor, bet: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(equity), torch.ones_like(equity)


def _maniac(equity: Tensor, bet: Tensor, often: float = 0.9) -> tuple[Tensor, Tensor]:
    return torch.full_like(equity, often), torch.ones_like(equity)


def _tight(equity: Tensor, bet: Tensor, bets: float = 0.75, calls: float = 0.65) -> tuple[Tensor, Tensor]:
    return _at_least(equity, bets), _at_least(equity, calls)


def _loose(equity: Tensor, bet: Tensor, bets: float = 0.5, calls: float = 0.25) -> tuple[Tensor, Tensor]:
    return _at_least(equity, bets), _at_least(equity, calls)


def _trapper(equity: Tensor, bet: Tensor, bluffs: float = 0.35, calls: float = 0.5) -> tuple[Tensor, Tensor]:
    weak = 1 - _at_least(equity, bluffs)
    return torch.where(bet, _at_least(equity, 0.75), weak), _at_least(equity, calls)


def _random(seat: Seat) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        choices = seat.game.legal(view.params, view.state)[seat.seat].to(noise.dtype).cumsum(1)
        return (noise * choices[:, -1:] >= choices).sum(1), memory

    return rule


def _rules(game: Poker) -> str:
    # Not the spec's name: a variant has one of its own.
    return "KuhnPoker" if game.rounds == 1 else "LeducPoker"


def _equilibrium(seat: Seat) -> Rule:
    tables = stored_equilibria(_rules(seat.game))
    # Cumulated, so that drawing is comparing; rows of [number of ranks, information state].
    stored = [tables[ranks].tolist() for ranks in sorted(tables)]
    table = torch.tensor(stored, dtype=torch.float64, device="cpu").cumsum(2)

    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        state = view.state
        # Where there is no public card yet, any will do: the index is not used.
        index = seat.game.information_state(seat.card(state), state.public, state.first, state.node)
        chances = table.to(index.device)[view.params.ranks.long() - 3, index].to(noise.dtype)
        action = (noise >= chances[:, :-1]).sum(1)
        return torch.where(state.turn == seat.seat, action, 0), memory

    return rule


def _tilted(seat: Seat) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        equity, bet = seat.equity(view), view.state.node >= 2
        angry = seat.won(view.state) < 0
        (wild, any_), (raises, calls) = _maniac(equity, bet), _tight(equity, bet)
        return seat.act(view, torch.where(angry, wild, raises), torch.where(angry, any_, calls), noise), memory

    return rule


def _punisher(seat: Seat) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor, value: float = 0.6) -> Choice:
        # Remembers: hands seen, whether it bet in this one, how often it bet, how often the other folded to that.
        hands, betted, bets, folds = memory.unbind(1)
        state, one = view.state, torch.ones_like(hands)
        new = state.hand > hands
        bets = torch.where(new, bets + betted, bets)
        gave_up = ~state.shown & (seat.won(state) > 0)
        folds = torch.where(new & gave_up, folds + betted, folds)
        folds_a_lot = 2 * folds + 1 > bets
        equity = seat.equity(view)
        raises = torch.where(folds_a_lot, one, _at_least(equity, value))
        action = seat.act(view, raises, _at_least(equity, 0.5), noise)
        betting = action == seat.game.action_for.to(action.device)[RAISE, state.node]
        betted = torch.where(betting, one, torch.where(new, 0.0, betted))
        return action, torch.stack([state.hand.to(hands.dtype), betted, bets, folds], 1)

    return rule


def _catcher(seat: Seat) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor, trust: float = 0.9) -> Choice:
        # Remembers in which hands it was bet at: the newest, and how many.
        newest, count = memory.unbind(1)
        state = view.state
        number = state.hand.to(newest.dtype) + 1
        faced = (state.turn == seat.seat) & (state.node >= 2) & (number > newest)
        newest, count = torch.where(faced, number, newest), count + faced
        often = (count + 1) / (number + 2)
        equity = seat.equity(view)
        action = seat.act(view, _at_least(equity, 0.75), (equity + often > trust).to(equity.dtype), noise)
        return action, torch.stack([newest, count], 1)

    return rule


def _reader(seat: Seat) -> Rule:
    game = seat.game

    def rule(view: View, memory: Tensor, noise: Tensor, bluffs: float = 0.2) -> Choice:
        state = view.state
        own = equity(copies_of(game, view.params), seat.card(state), seat.public(state), game.rounds)
        raises = torch.where(own > 0.65, 1.0, torch.where((own < 0.2) & (state.node < 2), bluffs, 0.0))
        return seat.act(view, raises, (own > 0.35).to(own.dtype), noise), memory

    return rule


@functools.lru_cache(maxsize=4)
def _seat(spec: GameSpec, seat: int) -> Seat:
    game = make_game(spec)
    assert isinstance(game, Poker)
    each = 1.0 if game.rounds == 1 else 2.0
    known = torch.arange(game.ranks + 1, dtype=torch.int64, device="cpu")  # the last: no public card
    ranks = known[:-1]
    card, public = torch.meshgrid(ranks, known, indexing="ij")
    tables = []
    for count in range(3, 7):
        copies = (ranks < count).to(torch.float64).expand(card.numel(), -1) * each
        seen = torch.where(public == game.ranks, NOBODY, public).flatten()
        if game.rounds == 1:  # no public card: any counts as none
            seen = torch.full_like(seen, NOBODY)
        tables.append(equity(copies, card.flatten(), seen, game.rounds).view(card.shape))
    return Seat(game, seat, torch.stack(tables))


STYLES: dict[str, Style] = {
    "station": _station,
    "maniac": _maniac,
    "tight": _tight,
    "loose": _loose,
    "trapper": _trapper,
}


def tables(spec: GameSpec, ranks: int = 3) -> dict[str, Array]:
    """The players that play every hand alike, as tables for ``values.Hand``: [S, A] float64, by name.

    Args:
        spec: of either id.
        ranks: how many the deck has.
    """
    seat = _seat(spec, 0)
    game = seat.game
    states = torch.arange(game.information_states, dtype=torch.int64, device="cpu")
    card, public, _, node = game.situation(states)
    equity, making = seat.equities[ranks - 3, card, public % (game.ranks + 1)], game.action_for[:, node]
    # What is not legal is a call or check instead.
    making = torch.where(making < 0, making[CALL], making)
    result = {"equilibrium": stored_equilibria(_rules(game))[ranks]}
    legal = game.choices[:, node].to(torch.float64)
    result["random"] = (legal / legal.sum(0)).t().numpy()
    for name, style in STYLES.items():
        raises, calls = style(equity, node >= 2)
        chances = torch.stack([(1 - raises) * (1 - calls), (1 - raises) * calls, raises])
        actions = chances.new_zeros(game.actions, len(node)).scatter_add(0, making, chances)
        result[name] = actions.t().numpy()
    return result


_EQUITY = "equity from which it "
OPTIONS: dict[str, tuple[Option, ...]] = {
    "maniac": (Option("often", 0.9, 0.6, 1.0, "chance of raising"),),
    "tight": (Option("bets", 0.75, 0.6, 0.9, _EQUITY + "bets"), Option("calls", 0.65, 0.5, 0.8, _EQUITY + "calls")),
    "loose": (Option("bets", 0.5, 0.3, 0.55, _EQUITY + "bets"), Option("calls", 0.25, 0.1, 0.4, _EQUITY + "calls")),
    "trapper": (
        Option("bluffs", 0.35, 0.2, 0.5, "equity below which it bluffs"),
        Option("calls", 0.5, 0.3, 0.7, _EQUITY + "calls"),
    ),
    "punisher": (Option("value", 0.6, 0.5, 0.8, _EQUITY + "bets"),),
    "catcher": (Option("trust", 0.9, 0.7, 1.1, "equity and share of bets together from which it calls"),),
    "reader": (Option("bluffs", 0.2, 0.0, 0.5, "chance of a bluff with the worst hands"),),
}

# name: (split, description, rule of a seat (None: one of STYLES), memory, noise, informed)
_Entry = tuple[Split, str, Callable[[Seat], Rule] | None, int, int, bool]
_PLAYERS: dict[str, _Entry] = {
    "station": ("train", "never bets, calls everything", None, 0, 2, False),
    "maniac": ("train", "raises whatever it holds", None, 0, 2, False),
    "tight": ("train", "bets and calls only with the best cards", None, 0, 2, False),
    "random": ("train", "plays any legal action", _random, 0, 1, False),
    "punisher": ("train", "bets any hand while the other keeps folding, later for value", _punisher, 4, 2, False),
    "equilibrium": ("held_out", "equilibrium of the classic stakes and deck, not of the task", _equilibrium, 0, 1, False),
    "loose": ("held_out", "bets and calls with many cards, never bluffs", None, 0, 2, False),
    "trapper": ("held_out", "bets the worst cards, checks good ones", None, 0, 2, False),
    "catcher": ("held_out", "calls more, the more often the other has bet", _catcher, 2, 2, False),
    "tilted": ("held_out", "tight, but raises everything after a hand that it lost", _tilted, 0, 2, False),
    "reader": ("held_out", "knows the deck; bets and calls by its odds in it, bluffs a little", _reader, 0, 2, True),
}  # fmt: skip


@functools.lru_cache(maxsize=2)
def PLAYERS(spec: GameSpec) -> tuple[Scripted, ...]:
    """The scripted players of both seats of one id."""

    def player(name: str, role: Role) -> Scripted:
        split, description, make, memory, noise, informed = _PLAYERS[name]
        seat = _seat(spec, ROLES.index(role))
        rule = make(seat) if make is not None else _style(seat, STYLES[name])
        return Scripted(name, role, split, description, rule, memory, noise, informed, OPTIONS.get(name, ()))

    return tuple(player(name, role) for role in ROLES for name in _PLAYERS)
