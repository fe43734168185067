"""Personas by Meta-MAPG's recipe: memory-1 policies that favour an action, as starts of opponents that learn."""

from __future__ import annotations

import torch
from torch import Tensor

from metaduel.envs.core import noise as counter
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import GameSpec
from metaduel.envs.repeated_matrix_game import ACTIONS, PERSONAS


def sample_personas(game: str | GameSpec, n: int, seed: int, kind: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw memory-1 policies by the recipe of Meta-MAPG (Kim et al., ICML 2021).

    In each state a persona plays its favourite action with a probability that is uniform in [1 / number of actions, 1];
    the other actions share the rest. In the prisoner's dilemma this is P(cooperate) in [0.5, 1] for cooperative personas
    and in [0, 0.5] for defecting ones, in rock-paper-scissors a favourite in [1/3, 1].

    Args:
        game: the id's stem, for example ``RockPaperScissors``, or its spec.
        n: how many.
        seed: the same seed gives the same personas, and the first of many are the few.
        kind: which action they favour, for example ``cooperative`` or ``rock``.
        dtype: floating type of the result.

    Returns:
        [n, 1 + number of actions ** 2, number of actions], own action first.

    Raises:
        InvalidInputError: an unknown game or kind, or ``n`` below 1.
    """
    spec = find(game)
    if spec.game_class not in PERSONAS:
        raise unknown("repeated matrix game", spec.name, PERSONAS)
    if kind not in PERSONAS[spec.game_class]:
        raise unknown(f"kind of persona of {spec.name}", kind, PERSONAS[spec.game_class])
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InvalidInputError(f"n={n!r} must be a whole number of at least 1 persona")
    favourite, actions = PERSONAS[spec.game_class].index(kind), len(ACTIONS[spec.game_class])
    # A seed of their own, so that persona i has nothing to do with task i or episode i of the same seed.
    number = torch.arange(n, dtype=torch.int64, device="cpu")
    own = torch.full_like(number, counter.derive_seed(seed, favourite, Purpose.MATRIX_PERSONAS))
    key = counter.episode_key(own, number)
    u = counter.uniform(key, torch.zeros_like(key), counter.PICK, 1 + actions**2, torch.float64)
    return persona_rows(u, favourite, actions).to(dtype)


def persona_rows(u: Tensor, favourite: int, n: int, least: float = 0.0) -> Tensor:
    """A persona's table out of uniform numbers.

    Args:
        u: [...] in [0, 1), one for each state.
        favourite: the action that it likes.
        n: how many actions there are.
        least: what counts as the smallest uniform number; above 0 it is more decided.

    Returns:
        [..., n] probabilities.
    """
    liked = 1 / n + (1 - 1 / n) * (least + (1 - least) * u)
    rest = (1 - liked) / (n - 1)
    return torch.stack([liked if action == favourite else rest for action in range(n)], -1)
