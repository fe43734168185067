"""Poker's golden numbers: single steps with their arithmetic, and published values of the classic games."""

from __future__ import annotations

from typing import NamedTuple

# Stakes that tell every part of a sum apart.
KUHN_TASK = {"ante": 1.25, "bet": 0.5, "ranks": 4}
LEDUC_TASK = {"ante": 1.25, "first_raise": 1.5, "second_raise": 5.0}
WAIT = 0
PASS, BET = 1, 2  # Kuhn
FOLD, CALL, RAISE = 1, 2, 3  # Leduc


class Case(NamedTuple):
    """One transition. Cards are ranks from 0; seats 0 protagonist, 1 adversary."""

    why: str
    game: str
    cards: tuple[int, int, int]  # protagonist's, adversary's, public
    starter: int
    bets: tuple[int, int]  # before: (node that closed the first round, node), node = 2 raises + 1 if the first checked
    actions: tuple[int, int]  # (protagonist's, adversary's)
    after: tuple[int, int] | None  # bets after; None: the hand is over
    reward: float = 0.0  # the protagonist's


K, L = "KuhnPoker", "LeducPoker"
CASES = (
    Case("a check passes the turn", K, (3, 0, -1), 0, (0, 0), (PASS, WAIT), (0, 1)),
    Case("a bet does, too", K, (3, 0, -1), 0, (0, 0), (BET, WAIT), (0, 2)),
    Case("the adversary starts; what the waiting one does is ignored", K, (3, 0, -1), 1, (0, 0), (BET, PASS), (0, 1)),
    # both checked: the ante is won
    Case("two checks show the cards", K, (1, 2, -1), 0, (0, 1), (WAIT, PASS), None, -1.25),
    # a player that folds loses the ante, whatever the cards
    Case("folding to a bet", K, (0, 3, -1), 0, (0, 2), (WAIT, PASS), None, 1.25),
    Case("folding to a bet after a check", K, (3, 0, -1), 0, (0, 3), (PASS, WAIT), None, -1.25),
    # 1.25 + 0.5
    Case("a called bet", K, (3, 1, -1), 1, (0, 2), (BET, WAIT), None, 1.75),
    Case("equal cards share", K, (2, 2, -1), 0, (0, 2), (WAIT, BET), None, 0.0),
    Case("waiting on one's turn is a check", K, (0, 3, -1), 0, (0, 0), (WAIT, WAIT), (0, 1)),
    Case("waiting at a bet calls it", K, (0, 3, -1), 0, (0, 2), (WAIT, WAIT), None, -1.75),
    Case("folding without a bet is a check", L, (0, 1, 2), 0, (0, 0), (FOLD, WAIT), (0, 1)),
    Case("two checks open the second round", L, (0, 1, 2), 0, (0, 1), (WAIT, CALL), (1, 0)),
    Case("a raise can be raised", L, (0, 1, 2), 0, (0, 2), (WAIT, RAISE), (0, 4)),
    # the second raise is the last: a third is a call, which closes the round at its node
    Case("and not once more", L, (0, 1, 2), 0, (0, 4), (RAISE, WAIT), (4, 0)),
    # the adversary raised last, to 1.25 + 2 * 1.5; the protagonist has put in one raise: 1.25 + 1.5
    Case("folding to the second raise", L, (2, 0, 2), 0, (0, 4), (FOLD, WAIT), None, -2.75),
    # check, raise, raise, call before: 1.25 + 2 * 1.5 each; now neither bets: 4.25, and 2 beats 1
    Case("the higher card wins", L, (2, 1, 0), 0, (5, 1), (WAIT, CALL), None, 4.25),
    # raise and call before, two raises now: 1.25 + 1.5 + 2 * 5
    Case("a pair beats a higher card", L, (2, 0, 0), 0, (2, 4), (CALL, WAIT), None, -12.75),
    # after check, raise and call the adversary folds to a raise: 1.25 + 1.5
    Case("folding in the second round", L, (0, 2, 2), 0, (3, 2), (WAIT, FOLD), None, 2.75),
)

# Exact values of the classic games. Kuhn (1950): -1/18 to the player that acts first. The rest are those of OpenSpiel's tests and
# documentation (Lanctot et al., 2019); exploitability is half of NashConv.
KUHN_VALUE = -1 / 18
KUHN_UNIFORM_EXPLOITABILITY = 0.458333333333
LEDUC_VALUE = -0.085606424078
LEDUC_UNIFORM_EXPLOITABILITY = 2.373611111111
LEDUC_INFORMATION_STATES = 936  # with suits told apart
KUHN_INFORMATION_STATES = 12
