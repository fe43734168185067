"""What adapters share for turn-based games: masks of legal actions, spaces that sample them, and the refusal of others."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.spec import ROLES, GameSpec, Role

Mask = npt.NDArray[np.int8]


class LegalDiscrete(spaces.Discrete):
    """A Discrete space whose ``sample()`` gives actions that are legal now; whatever is in it stays in it.

    Libraries sample a space without asking for a mask, and some do so before a reset: right after ``seed``, the actions
    that are legal at the start of an episode are sampled.

    Args:
        n: number of actions.
        opening: [n] int8, 1 where an action is legal at the start of an episode.

    Attributes:
        legal: [n] int8, kept up to date by the environment.
    """

    def __init__(self, n: int, opening: Mask) -> None:
        super().__init__(n)
        self.opening = self.legal = opening

    def seed(self, seed: int | None = None) -> Any:
        """Seed, and think of the start of an episode."""
        self.legal = self.opening
        return super().seed(seed)

    def sample(self, mask: Mask | None = None, probability: npt.NDArray[Any] | None = None) -> Any:
        """Draw an action: a legal one, unless a mask or probabilities are given."""
        return super().sample(self.legal if mask is None and probability is None else mask, probability)


def own_space(duel: Duel, role: Role) -> spaces.Box | spaces.Discrete:
    """The role's action space for one environment: a copy, since seeding it must not touch another's."""
    space = duel.action_space(role)
    if not duel.spec.turn_based or not isinstance(space, spaces.Discrete):
        return copy.deepcopy(space)
    zero = torch.zeros(1, dtype=torch.int64)
    start = duel.reset(duel.game.params([{}]), zero, zero)
    return LegalDiscrete(int(space.n), int8(duel.legal(start)[ROLES.index(role)])[0])


def int8(mask: Tensor) -> Mask:
    """A mask as Gymnasium and PettingZoo want it; a new array."""
    return mask.numpy().astype(np.int8)


def legal_actions(spec: GameSpec, mask: Mask) -> str:
    """The legal actions by number and name: ``1 (pass) or 2 (bet)``."""
    return " or ".join(f"{action} ({spec.action_names[action]})" for action in np.flatnonzero(mask))
