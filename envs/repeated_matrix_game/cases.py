"""Golden transitions of repeated matrix games: short plays with the numbers that they must give, and where those come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A few steps of one game.

    Attributes:
        game: the id's stem.
        task: contexts that differ from their defaults.
        actions: per step, (protagonist's, adversary's).
        rewards: per step, (protagonist's, adversary's) points.
        seen: per step, index of the 1 in (protagonist's, adversary's) observation afterwards: 1 + own * n + other.
        source: the publication or the arithmetic.
    """

    game: str
    task: dict[str, float]
    actions: tuple[tuple[int, int], ...]
    rewards: tuple[tuple[float, float], ...]
    seen: tuple[tuple[int, int], ...]
    source: str


CASES = (
    Case(
        "RockPaperScissors",
        {},
        ((0, 2), (1, 1), (0, 1), (2, 1)),
        ((1.0, -1.0), (0.0, 0.0), (-1.0, 1.0), (1.0, -1.0)),
        ((3, 7), (5, 5), (2, 4), (8, 6)),
        "payoffs +1 / 0 / -1 of Meta-MAPG (Kim et al., ICML 2021); (rock, scissors) is 1 + 0 * 3 + 2 = 3 and 1 + 2 * 3 + 0 = 7",
    ),
    Case(
        "RockPaperScissors",
        {"rock": 2.0, "paper": 0.5, "scissors": 1.5},
        ((0, 2), (1, 0), (2, 1), (2, 0), (2, 2)),
        ((2.0, -2.0), (0.5, -0.5), (1.5, -1.5), (-2.0, 2.0), (0.0, 0.0)),
        ((3, 7), (4, 2), (8, 6), (7, 3), (9, 9)),
        "the winning action's worth: rock beats scissors for 2, paper beats rock for 0.5, scissors beats paper for 1.5",
    ),
    Case(
        "RockPaperScissors",
        {"rock": 2.0, "paper": 0.5, "scissors": 1.5, "permutation": 3.0},
        ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2)),
        ((0.5, -0.5), (1.5, -1.5), (2.0, -2.0), (0.0, 0.0), (-1.5, 1.5)),
        ((1, 1), (5, 5), (9, 9), (2, 4), (3, 7)),
        "permutation 3 of 012 021 102 120 201 210 is 120: the protagonist's rock counts as paper, paper as scissors, "
        "scissors as rock; so (rock, rock) is paper over rock; observations show the actions as they were chosen",
    ),
    Case(
        "MatchingPennies",
        {"heads": 2.0, "tails": 0.5},
        ((0, 0), (1, 1), (0, 1), (1, 0)),
        ((2.0, -2.0), (0.5, -0.5), (-1.0, 1.0), (-1.0, 1.0)),
        ((1, 1), (4, 4), (2, 3), (3, 2)),
        "a match pays its worth to the protagonist, a miss 1 to the adversary",
    ),
    Case(
        "MatchingPennies",
        {"heads": 2.0, "tails": 0.5, "permutation": 1.0},
        ((0, 0), (1, 1), (0, 1), (1, 0)),
        ((-1.0, 1.0), (-1.0, 1.0), (0.5, -0.5), (2.0, -2.0)),
        ((1, 1), (4, 4), (2, 3), (3, 2)),
        "the protagonist's coin turned over: (heads, tails) is a match on tails",
    ),
    Case(
        "IteratedPrisonersDilemma",
        {},
        ((0, 0), (0, 1), (1, 0), (1, 1)),
        ((0.5, 0.5), (-1.5, 1.5), (1.5, -1.5), (-0.5, -0.5)),
        ((1, 1), (2, 3), (3, 2), (4, 4)),
        "Meta-MAPG (Kim et al., ICML 2021): row player's CC +0.5, CD -1.5, DC +1.5, DD -0.5",
    ),
    Case(
        "IteratedPrisonersDilemma",
        {"reward": -1.0, "sucker": -3.0, "temptation": 0.0, "punishment": -2.0},
        ((0, 0), (0, 1), (1, 0), (1, 1)),
        ((-1.0, -1.0), (-3.0, 0.0), (0.0, -3.0), (-2.0, -2.0)),
        ((1, 1), (2, 3), (3, 2), (4, 4)),
        "LOLA (Foerster et al., AAMAS 2018): CC -1, CD -3, DC 0, DD -2",
    ),
    Case(
        "Chicken",
        {},
        ((0, 0), (0, 1), (1, 0), (1, 1)),
        ((0.0, 0.0), (-1.0, 1.0), (1.0, -1.0), (-3.0, -3.0)),
        ((1, 1), (2, 3), (3, 2), (4, 4)),
        "the defaults: the player that swerves alone loses 1 to the other, a crash costs both 3",
    ),
    Case(
        "StagHunt",
        {},
        ((0, 0), (0, 1), (1, 0), (1, 1)),
        ((2.0, 2.0), (0.0, 1.2), (1.2, 0.0), (0.8, 0.8)),
        ((1, 1), (2, 3), (3, 2), (4, 4)),
        "the defaults: a stag is worth 2 to each, a hare 1.2 alone and 0.8 shared, half a stag hunt nothing",
    ),
)
