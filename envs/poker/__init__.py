"""Poker: Kuhn's and Leduc's games, hand after hand against one opponent, with a hidden deck.

Two ids on one core. Both players put an ante into the pot and get a card each; then they bet in turn. A player that
folds loses what it has put in; otherwise the better card wins at the showdown, and equal cards share the pot. Kuhn's game has
one bet. Leduc's has two rounds with two raises each, and a public card before the second, with which a pair beats everything.
An episode is ten hands of Kuhn or eight of Leduc, enough to read a style of play. The protagonist acts first in the first
hand, the adversary in the second, and so on, so that both roles play the same game. The default tasks are the classic games:
H. W. Kuhn (1950), 'A simplified two-person poker', and Southey et al. (UAI 2005), 'Bayes' bluff'. Exact values, best
responses and exploitability of policies: ``values.py``.

Observation (both roles), from each player's own point of view; R ranks (6 in Kuhn, 3 in Leduc), A actions

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0 .. | Leduc: public card, one-hot, R numbers; all 0 in the first round | 0 | 1 | |
| .. | Leduc: how the first round was bet, one-hot: not yet over, c c, r c, c r c, r r c, c r r c | 0 | 1 | |
| .. | the bets of this round, one-hot: none, c, r, c r (and in Leduc r r, c r r) | 0 | 1 | |
| .. | own card, one-hot, R numbers | 0 | 1 | |
| .. | own card in the hand before, one-hot, R numbers; all 0 in the first hand | 0 | 1 | |
| .. | the other's, if there was a showdown | 0 | 1 | |
| .. | actions that are legal now, A numbers; the first one is 1 where it is the other's turn | 0 | 1 | |
| .. | whether this player acts first in this hand | 0 | 1 | |
| .. | chips won in the hand before, as a share of the most that a hand can cost | -1.000001 | 1.000001 | |
| .. | share of the hands that is left | 0 | 1 | |

(c: check or call, r: bet or raise.) Ante, bets and number of ranks follow, as numbers: both players see them.

Action (both roles)

| id | 0 | 1 | 2 | 3 |
|---|---|---|---|---|
| KuhnPoker | wait | pass: check, or fold to a bet | bet: bet, or call one | |
| LeducPoker | wait | fold | call: check or call | raise: bet or raise |

Waiting is legal for the player whose turn it isn't, and nothing else is; folding needs a bet, and raising a raise that is
left. In the batched core, and so in the vectorised environments and the parallel one, an illegal action of the player
whose turn it is counts as checking, or as calling where there is a bet, and what the waiting player does is ignored. One
environment of Gymnasium, and PettingZoo's AEC, refuse it and name the legal ones.

Reward, at the end of every hand: chips won or lost (zero-sum). After the last hand the episode terminates.

Contexts

| id | name | default | training range | extrapolation | unit | seen by | meaning |
|---|---|---|---|---|---|---|---|
| both | ante | 1 | [0.5, 1.5] | - | chips | both | what each puts in before the cards |
| KuhnPoker | bet | 1 | [0.5, 2] | 2 to 3 | chips | both | size of the bet |
| LeducPoker | first_raise | 2 | [1, 3] | 3 to 4 | chips | both | size of a raise before the public card |
| LeducPoker | second_raise | 4 | [2, 6] | 6 to 8 | chips | both | size of a raise after it |
| KuhnPoker | ranks | 3 | 3 to 5 | 6 | ranks | both | how many ranks the deck has |
| KuhnPoker | low, middle, high | 1 | 1 to 4 | 5 to 6 | cards | neither | cards of the lowest rank, each between, the highest |
| LeducPoker | low, middle, high | 2 | 1 to 5 | 6 to 7 | cards | neither | the same |

Version history: v0: first release.
"""

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import ROLES, Context, GameSpec, Split

OPPONENTS: dict[Split, tuple[str, ...]] = {
    "train": ("station", "maniac", "tight", "random", "punisher"),
    "held_out": ("equilibrium", "loose", "trapper", "catcher", "tilted", "reader"),
}


def _cards(default: float, most: float) -> tuple[Context, ...]:
    places = ("low", "the lowest rank"), ("middle", "each rank in between"), ("high", "the highest rank")
    beyond = ((most + 1, most + 2),)
    return tuple(
        Context(name, "cards", default, (1.0, most), f"cards of {rank}", beyond, (1.0, 20.0), integer=True)
        for name, rank in places
    )


def _stake(name: str, default: float, train: tuple[float, float], beyond: float | None, description: str) -> Context:
    extrapolation = ((train[1], beyond),) if beyond else ()
    return Context(name, "chips", default, train, description, extrapolation, (0.01, 100.0), visible_to=ROLES)


def _spec(
    name: str, summary: str, hands: int, longest: int, contexts: tuple[Context, ...], actions: tuple[str, ...]
) -> GameSpec:
    rounds = 1 if name == "KuhnPoker" else 2
    raises, ranks = (1, 6) if rounds == 1 else (2, 3)
    nodes = 2 * raises + 2
    width = (rounds - 1) * (ranks + nodes) + nodes + 3 * ranks + len(actions) + 3
    low, high = np.zeros(width, np.float32), np.ones(width, np.float32)
    high[-2] = 1 + 1e-6  # the chips of a hand and the most that it can cost are rounded apart
    low[-2] = -high[-2]
    observation = spaces.Box(low, high)
    space = spaces.Discrete(len(actions))
    return GameSpec(
        name=name,
        version=0,
        summary=summary,
        package="metaduel.envs.poker",
        game_class="Poker",
        horizon=hands * longest,
        contexts=contexts,
        observation_spaces={"protagonist": observation, "adversary": observation},
        action_spaces={"protagonist": space, "adversary": space},
        opponents={"protagonist": OPPONENTS, "adversary": OPPONENTS},
        options={"rounds": rounds, "raises": raises, "ranks": ranks, "hands": hands},
        fps=2,
        turn_based=True,
        action_names=actions,
    )


SPECS = (
    _spec(
        "KuhnPoker",
        "ten hands of Kuhn poker with three to five ranks; which cards the deck is made of is hidden",
        10,
        3,
        (
            _stake("ante", 1.0, (0.5, 1.5), None, "what each puts in before the cards"),
            _stake("bet", 1.0, (0.5, 2.0), 3.0, "size of the bet"),
            Context(
                "ranks",
                "ranks",
                3.0,
                (3.0, 5.0),
                "how many ranks the deck has",
                ((6.0, 6.0),),
                (3.0, 6.0),
                ROLES,
                integer=True,
            ),
            *_cards(1.0, 4.0),
        ),
        ("wait", "pass", "bet"),
    ),
    _spec(
        "LeducPoker",
        "eight hands of Leduc poker; which cards the deck is made of is hidden",
        8,
        8,
        (
            _stake("ante", 1.0, (0.5, 1.5), None, "what each puts in before the cards"),
            _stake("first_raise", 2.0, (1.0, 3.0), 4.0, "size of a raise before the public card"),
            _stake("second_raise", 4.0, (2.0, 6.0), 8.0, "size of a raise after it"),
            *_cards(2.0, 5.0),
        ),
        ("wait", "fold", "call", "raise"),
    ),
)
