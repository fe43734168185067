"""The table from above: both hands face up, the pot, all bets of this hand, how the hands before ended, the deck."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from metaduel.envs.poker.game import Params, State
from metaduel.envs.render.screen import ADVERSARY, GOAL, INK, MUTED, PAPER, PROTAGONIST, WALL, Canvas, box

_NAMES = ("8", "9", "10", "J", "Q", "K")
_SEATS = (("protagonist", PROTAGONIST, 2.0), ("adversary", ADVERSARY, 7.0))  # name, colour, height of its card
_CLOTH = "#e8f0ea"
Point = tuple[float, float]


def draw(canvas: Canvas, params: Params, states: Sequence[State]) -> None:
    """Draw the newest of the one-row ``states``: the hand that is played, or how it has just ended."""
    canvas.view(0, 10, 0, 10)
    over = len(states) > 1 and int(states[-1].hand) > int(states[-2].hand)
    if canvas.person is not None and canvas.person == int(states[-1].turn):
        over = False  # the player that is asked must see the new hand; the list tells how the old one ended
    result = states[-1] if over else None
    shown = states[-2] if over else states[-1]
    names = _NAMES[-int(params.ranks) :]
    canvas.polygon(box(0.3, 1.0, 6.5, 8.0), _CLOTH)
    canvas.text((0.5, 9.5), f"hand {int(shown.hand) + 1}", INK, 20, "midleft")
    _hands(canvas, shown, names, result)
    _pot(canvas, params, shown, called=over and bool(states[-1].shown))
    _bets(canvas, params, states, shown, result)
    _deck(canvas, params, names)
    _score(canvas, states)


def moves(states: Sequence[State]) -> list[tuple[int, str, int]]:
    """The moves of the hand that the newest step belongs to: (seat, word, round)."""
    made: list[tuple[int, str, int]] = []
    for before, after in itertools.pairwise(states):
        hand = int(before.hand)
        if hand < int(states[-2].hand):
            continue
        node, raised = int(before.node), int(after.node) > int(before.node) + 1
        facing = node >= 2
        if int(after.hand) > hand and not bool(after.shown):
            word = "fold"
        elif raised:
            word = "raise" if facing else "bet"
        else:
            word = "call" if facing else "check"
        made.append((int(before.turn), word, int(int(before.first) > 0)))
    return made


def _card(canvas: Canvas, centre: Point, name: str, colour: str, size: float = 1.0) -> None:
    wide, high = 1.1 * size, 1.5 * size
    outline = box(centre[0] - wide / 2, centre[1] - high / 2, wide, high)
    canvas.polygon(outline, PAPER)
    canvas.line([*outline, outline[0]], colour, 3 * size)
    canvas.text(centre, name, colour, round(34 * size))


def _hands(canvas: Canvas, state: State, names: Sequence[str], result: State | None) -> None:
    """Both cards, whose turn it is, and the public card once it is there."""
    cards = (int(state.protagonist), int(state.adversary))
    for seat, (name, colour, height) in enumerate(_SEATS):
        faces_up = canvas.person in (None, seat) or (result is not None and bool(result.shown))
        _card(canvas, (1.5, height + 0.5), names[cards[seat]] if faces_up else "?", colour)
        first = "acts first" if int(state.starter) == seat else "acts second"
        canvas.text((1.5, height - 0.5), first, MUTED, 12)
        if result is None and int(state.turn) == seat:
            canvas.arrow((3.3, height + 0.5), (2.25, height + 0.5), colour)
            canvas.text((3.4, height + 0.5), "its turn", colour, 13, "midleft")
        if result is not None:
            won = float(result.won) * (1 - 2 * seat)
            canvas.text((2.4, height + 0.5), f"{name} {won:+.2f}", colour if won > 0 else MUTED, 17, "midleft")
    if int(state.public) >= 0:
        if int(state.first) > 0:
            _card(canvas, (1.5, 5.0), names[int(state.public)], INK)
        else:
            outline = box(0.95, 4.25, 1.1, 1.5)
            canvas.line([*outline, outline[0]], MUTED, 1)
            canvas.text((1.5, 5.0), "public", MUTED, 12)


def stakes(params: Params, state: State) -> tuple[float, float]:
    """Chips that (protagonist, adversary) have in the pot."""
    sizes, second = [float(size) for size in params.raises], int(state.first) > 0
    base = float(params.ante) + (int(state.first) >> 1) * sizes[0]
    raises, size = int(state.node) >> 1, sizes[1] if second else sizes[0]
    behind, ahead = base + max(raises - 1, 0) * size, base + raises * size
    return (behind, ahead) if int(state.turn) == 0 else (ahead, behind)


def _pot(canvas: Canvas, params: Params, state: State, called: bool) -> None:
    """A stack of chips for what each has put in, at a showdown as much as the other."""
    chips = stakes(params, state)
    chips = (max(chips), max(chips)) if called else chips
    canvas.text((4.9, 5.9), f"pot {sum(chips):.2f}", INK, 17)
    for seat, (_, colour, _) in enumerate(_SEATS):
        x = 4.4 + seat
        whole, rest = divmod(chips[seat], 1.0)
        heights = [0.07] * int(whole) + ([0.07 * rest] if rest > 0.05 else [])
        y = 4.0
        for height in heights:
            canvas.polygon(box(x - 0.35, y, 0.7, height * 0.8), colour)
            y += height
        canvas.text((x, 3.75), f"{chips[seat]:.2f}", colour, 13)


def _bets(canvas: Canvas, params: Params, states: Sequence[State], shown: State, result: State | None) -> None:
    """Every move of this hand in order, a row for each round."""
    made = moves(states) if result is not None or int(shown.node) or int(shown.first) else []
    for number in range(len(params.raises)):
        words = [(seat, word) for seat, word, turn in made if turn == number]
        y = 8.5 - 0.45 * number
        label = ("bets", "then")[number] if len(params.raises) > 1 else "bets"
        canvas.text((3.3, y), label, MUTED, 13, "midleft")
        for place, (seat, word) in enumerate(words):
            canvas.text((3.85 + 0.78 * place, y), word, _SEATS[seat][1], 13, "midleft")


def _deck(canvas: Canvas, params: Params, names: Sequence[str]) -> None:
    """How many cards of each rank there are."""
    top = len(names) - 1
    canvas.legend.append((GOAL, "deck (hidden)"))
    canvas.text((8.4, 9.5), "deck, hidden", GOAL, 13)
    for rank, name in enumerate(names):
        count = int(params.low if rank == 0 else params.high if rank == top else params.middle)
        y = 9.0 - 0.38 * rank
        canvas.text((7.35, y), name, INK, 14)
        for place in range(count):
            canvas.polygon(box(7.7 + 0.3 * place, y - 0.13, 0.2, 0.26), GOAL)


def _score(canvas: Canvas, states: Sequence[State]) -> None:
    """How each hand ended: the chips and their winner, by showdown or by a fold."""
    canvas.text((8.4, 6.5), "hands so far", MUTED, 13)
    ended: list[Any] = [b for a, b in itertools.pairwise(states) if int(b.hand) > int(a.hand)]
    for number, state in enumerate(ended[-12:]):
        won, y = float(state.won), 6.05 - 0.42 * number
        colour = PROTAGONIST if won > 0 else ADVERSARY if won < 0 else WALL
        canvas.text((7.4, y), f"{int(state.hand)}", MUTED, 12)
        canvas.circle((7.85, y), 0.12, colour)
        canvas.text((8.15, y), f"{abs(won):.2f}", colour, 13, "midleft")
        canvas.text((8.95, y), "shown" if bool(state.shown) else "fold", MUTED, 12, "midleft")
