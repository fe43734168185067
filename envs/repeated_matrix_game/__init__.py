"""Repeated matrix games: the same payoff matrix, played again and again, with hidden entries.

Five ids on one core: rock-paper-scissors and matching pennies (zero-sum), the iterated prisoner's dilemma, chicken and
stag hunt (general-sum). Payoffs and horizons of the prisoner's dilemma and of rock-paper-scissors are those of Meta-MAPG
(Kim et al., ICML 2021), which plays them with discounts 0.96 and 0.9. Exact values of memory-1 policies: ``values.py``.

Observation (both roles), one-hot, from each player's own point of view; n actions

| index | meaning | minimum | maximum | unit |
|---|---|---|---|---|
| 0 | nothing has been played yet | 0 | 1 | - |
| 1 + own * n + other | the last step's own and other action | 0 | 1 | - |

Action (both roles): Discrete(n)

| id | 0 | 1 | 2 |
|---|---|---|---|
| RockPaperScissors | rock | paper | scissors |
| MatchingPennies | heads | tails | |
| IteratedPrisonersDilemma | cooperate | defect | |
| Chicken | swerve | straight | |
| StagHunt | stag | hare | |

Reward, in points, for the row player (the protagonist) against the column player

- RockPaperScissors: the value of the winning action, to the winner from the loser; a draw is 0.
- MatchingPennies: ``heads`` or ``tails`` to the protagonist where the coins match, 1 to the adversary where they don't.
- the others: own and other action 00 ``reward``, 01 ``sucker``, 10 ``temptation``, 11 ``punishment``, for both players.

Contexts (hidden from both roles)

| id | name | default | training range | extrapolation | unit | meaning |
|---|---|---|---|---|---|---|
| RockPaperScissors | rock, paper, scissors | 1 | [0.5, 2] | 0.25 to 0.5, 2 to 3 | points | what a win with it is worth |
| RockPaperScissors | permutation | 0 | 0 to 5 | - | index | protagonist's action i counts as sigma(i) |
| MatchingPennies | heads, tails | 1 | [0.5, 2] | 0.25 to 0.5, 2 to 3 | points | what a match on it is worth |
| MatchingPennies | permutation | 0 | 0 to 1 | - | index | 1: the protagonist's coin counts turned over |
| IteratedPrisonersDilemma | reward | 0.5 | [0.35, 0.65] | 0.2 to 0.35, 0.65 to 0.8 | points | both cooperate |
| IteratedPrisonersDilemma | sucker | -1.5 | [-1.8, -1.2] | -2.1 to -1.8 | points | cooperate, the other defects |
| IteratedPrisonersDilemma | temptation | 1.5 | [1.2, 1.8] | 0.9 to 1.2, 1.8 to 2 | points | defect, the other cooperates |
| IteratedPrisonersDilemma | punishment | -0.5 | [-0.65, -0.35] | -0.8 to -0.65, -0.35 to -0.2 | points | both defect |
| Chicken | reward | 0 | [-0.3, 0.3] | -0.5 to -0.3, 0.3 to 0.5 | points | both swerve |
| Chicken | sucker | -1 | [-1.3, -0.7] | -1.6 to -1.3 | points | swerve, the other goes straight |
| Chicken | temptation | 1 | [0.7, 1.3] | 0.55 to 0.7, 1.3 to 1.6 | points | straight, the other swerves |
| Chicken | punishment | -3 | [-4, -1.5] | -7 to -4 | points | crash |
| StagHunt | reward | 2 | [1.6, 2.4] | 2.4 to 2.9 | points | both hunt the stag |
| StagHunt | sucker | 0 | [-1, 0.4] | -1.8 to -1 | points | stag, the other leaves for the hare |
| StagHunt | temptation | 1.2 | [1, 1.4] | 1.4 to 1.6 | points | hare, the other hunts the stag |
| StagHunt | punishment | 0.8 | [0.6, 1] | 0.45 to 0.6 | points | both hunt the hare |

Every task keeps its game: temptation > reward > punishment > sucker and 2 reward > temptation + sucker in the prisoner's
dilemma, temptation > reward > sucker > punishment in chicken, reward > temptation >= punishment > sucker in stag hunt.
Permutations are numbered in lexicographic order; number 0 changes nothing.

Horizon: 150 steps in the prisoner's dilemma and 50 in rock-paper-scissors (Meta-MAPG); matching pennies has 50 and the other
general-sum games 150, so that returns compare within each kind. The clock truncates; nothing terminates.

Version history: v0: first release.
"""

import numpy as np
from gymnasium import spaces

from metaduel.envs.core.spec import Context, GameSpec, Role, Split

# The names of actions 0, 1, ... of each id.
ACTIONS: dict[str, tuple[str, ...]] = {
    "RockPaperScissors": ("rock", "paper", "scissors"),
    "MatchingPennies": ("heads", "tails"),
    "IteratedPrisonersDilemma": ("cooperate", "defect"),
    "Chicken": ("swerve", "straight"),
    "StagHunt": ("stag", "hare"),
}
# The kinds of persona of each id; kind number i favours action i.
PERSONAS: dict[str, tuple[str, ...]] = {
    "RockPaperScissors": ("rock", "paper", "scissors"),
    "MatchingPennies": ("heads", "tails"),
    "IteratedPrisonersDilemma": ("cooperative", "defecting"),
    "Chicken": ("swerving", "daring"),
    "StagHunt": ("stag", "hare"),
}

_Ranges = tuple[tuple[float, float], ...]


def _worth(name: str, description: str) -> Context:
    return Context(name, "points", 1.0, (0.5, 2.0), description, ((0.25, 0.5), (2.0, 3.0)), (0.01, 10.0))


def _payoff(name: str, default: float, train: tuple[float, float], extrapolation: _Ranges, description: str) -> Context:
    return Context(name, "points", default, train, description, extrapolation, (-10.0, 10.0))


def _permutation(count: int, description: str) -> Context:
    last = float(count - 1)
    return Context(
        "permutation", "index", 0.0, (0.0, last), description, (), (0.0, last), integer=True, shown_as="category"
    )


def _spec(
    name: str,
    summary: str,
    horizon: int,
    contexts: tuple[Context, ...],
    train: tuple[str, ...],
    held_out: tuple[str, ...],
    zero_sum: bool,
) -> GameSpec:
    n = len(ACTIONS[name])
    opponents: dict[Split, tuple[str, ...]] = {
        "train": train + tuple(f"{kind}_persona" for kind in PERSONAS[name]),
        "held_out": held_out,
    }
    observation = spaces.Box(0.0, 1.0, (1 + n * n,), np.float32)
    actions: dict[Role, spaces.Box | spaces.Discrete] = {
        "protagonist": spaces.Discrete(n),
        "adversary": spaces.Discrete(n),
    }
    return GameSpec(
        name=name,
        version=0,
        summary=summary,
        package="metaduel.envs.repeated_matrix_game",
        game_class=name,
        horizon=horizon,
        contexts=contexts,
        observation_spaces={"protagonist": observation, "adversary": observation},
        action_spaces=actions,
        opponents={"protagonist": opponents, "adversary": opponents},
        zero_sum=zero_sum,
    )


SPECS = (
    _spec(
        "RockPaperScissors",
        "rock-paper-scissors, repeated; what each win is worth, and what your own actions are, is hidden",
        50,
        (
            _worth("rock", "what a win with rock is worth"),
            _worth("paper", "what a win with paper is worth"),
            _worth("scissors", "what a win with scissors is worth"),
            _permutation(6, "which permutation is applied to the protagonist's actions"),
        ),
        ("always_rock", "random", "cycle", "copy_last"),
        ("beat_last", "win_stay_lose_shift", "biased", "fictitious_play", "equilibrium"),
        zero_sum=True,
    ),
    _spec(
        "MatchingPennies",
        "matching pennies, repeated; what each match is worth, and whether your coin is turned over, is hidden",
        50,
        (
            _worth("heads", "what a match on heads is worth to the protagonist"),
            _worth("tails", "what a match on tails is worth to the protagonist"),
            _permutation(2, "whether the protagonist's coin counts turned over"),
        ),
        ("always_heads", "random", "cycle"),
        ("win_stay_lose_shift", "biased", "fictitious_play", "equilibrium"),
        zero_sum=True,
    ),
    _spec(
        "IteratedPrisonersDilemma",
        "the iterated prisoner's dilemma with hidden payoffs (Meta-MAPG's by default)",
        150,
        (
            _payoff("reward", 0.5, (0.35, 0.65), ((0.2, 0.35), (0.65, 0.8)), "both cooperate"),
            _payoff(
                "sucker", -1.5, (-1.8, -1.2), ((-2.1, -1.8),), "to the player that cooperates while the other defects"
            ),
            _payoff(
                "temptation",
                1.5,
                (1.2, 1.8),
                ((0.9, 1.2), (1.8, 2.0)),
                "to the player that defects while the other doesn't",
            ),
            _payoff("punishment", -0.5, (-0.65, -0.35), ((-0.8, -0.65), (-0.35, -0.2)), "both defect"),
        ),
        ("always_cooperate", "always_defect", "random", "tit_for_tat", "generous"),
        ("pavlov", "grim", "tit_for_two_tats", "alternate"),
        zero_sum=False,
    ),
    _spec(
        "Chicken",
        "the game of chicken, repeated, with hidden payoffs",
        150,
        (
            _payoff("reward", 0.0, (-0.3, 0.3), ((-0.5, -0.3), (0.3, 0.5)), "both swerve"),
            _payoff(
                "sucker",
                -1.0,
                (-1.3, -0.7),
                ((-1.6, -1.3),),
                "to the player that swerves while the other goes straight",
            ),
            _payoff(
                "temptation",
                1.0,
                (0.7, 1.3),
                ((0.55, 0.7), (1.3, 1.6)),
                "to the player that goes straight while the other swerves",
            ),
            _payoff("punishment", -3.0, (-4.0, -1.5), ((-7.0, -4.0),), "both go straight"),
        ),
        ("always_swerve", "always_straight", "random", "tit_for_tat", "generous"),
        ("pavlov", "grim", "tit_for_two_tats", "alternate", "fictitious_play"),
        zero_sum=False,
    ),
    _spec(
        "StagHunt",
        "the stag hunt, repeated, with hidden payoffs: which equilibrium is the safer one differs between tasks",
        150,
        (
            _payoff("reward", 2.0, (1.6, 2.4), ((2.4, 2.9),), "both hunt the stag"),
            _payoff("sucker", 0.0, (-1.0, 0.4), ((-1.8, -1.0),), "to the player that hunts the stag alone"),
            _payoff(
                "temptation",
                1.2,
                (1.0, 1.4),
                ((1.4, 1.6),),
                "to the player that hunts the hare while the other waits for the stag",
            ),
            _payoff("punishment", 0.8, (0.6, 1.0), ((0.45, 0.6),), "both hunt the hare"),
        ),
        ("always_stag", "always_hare", "random", "tit_for_tat", "generous"),
        ("pavlov", "grim", "tit_for_two_tats", "alternate", "fictitious_play"),
        zero_sum=False,
    ),
)
