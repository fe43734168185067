"""Random opponents: scripted controllers with other numbers."""

from __future__ import annotations

import math

import torch

from metaduel.envs.core import noise as counter
from metaduel.envs.core import registry
from metaduel.envs.core.errors import check_seed, check_whole
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, GameSpec
from metaduel.envs.players.names import names
from metaduel.envs.players.scripted import DELAY, NOISE, Scripted, options_of, scripted


def sample_opponents(
    game: str | GameSpec, n: int, role: str = "adversary", split: str = "train", seed: int = 0
) -> tuple[str, ...]:
    """Draw ``n`` scripted opponents of a family: controllers of one split with random numbers for their options.

    Args:
        game: the family's name, id or spec.
        n: how many.
        role: whose seat they take.
        split: ``train`` or ``held_out``.
        seed: the same seed gives the same opponents, and the first of many are the few.

    Returns:
        Names that ``load_player`` and every environment take, such as ``lead(horizon=0.6,noise=0.12,delay=1)``.

    Raises:
        InvalidInputError: an unknown game, role or split, ``n`` below 1, or a seed that is not a whole number.
    """
    spec = registry.find(game)
    n, seed = check_whole("n", n, unit=" opponent"), check_seed(seed)
    listed, known = names(spec, role, split), scripted(spec, spec.check_role(role))
    most = 1 + max(len(options_of(spec, known[name])) for name in listed)
    purpose = (ROLES.index(spec.check_role(role)), OPPONENT_SPLITS.index(split), Purpose.SAMPLED_OPPONENTS)  # type: ignore[arg-type]
    number = torch.arange(n, dtype=torch.int64, device="cpu")
    key = counter.episode_key(torch.full_like(number, counter.derive_seed(seed, *purpose)), number)
    drawn = counter.uniform(key, torch.zeros_like(key), counter.PICK, most, torch.float64).tolist()
    return tuple(_sampled(spec, known[listed[int(row[0] * len(listed))]], row[1:]) for row in drawn)


def _sampled(spec: GameSpec, player: Scripted, drawn: list[float]) -> str:
    parts = []
    for option, u in zip(options_of(spec, player), drawn, strict=False):
        if option is DELAY:
            value = float(math.floor(u * 3))  # later ones hardly play any more
        elif option is NOISE:
            value = 0.3 * u
        elif option.integer:
            value = option.low + math.floor(u * (option.high - option.low + 1))
        else:
            value = option.low + u * (option.high - option.low)
        parts.append(f"{option.name}={float(f'{value:.3g}'):g}")
    return f"{player.name}({','.join(parts)})"
