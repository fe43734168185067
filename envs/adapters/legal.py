"""What adapters share about actions: what is one, masks of legal ones, spaces that sample them, and the refusal of others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, one_line
from metaduel.envs.core.spec import ROLES, Role

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
    zero = torch.zeros(1, dtype=torch.int64, device="cpu")
    start = duel.reset(duel.game.params([{}]), zero, zero)
    return LegalDiscrete(int(space.n), int8(duel.legal(start)[ROLES.index(role)])[0])


def int8(mask: Tensor) -> Mask:
    """A mask as Gymnasium and PettingZoo want it; a new array."""
    return mask.numpy().astype(np.int8)


def as_actions(who: str, actions: Any, space: spaces.Space[Any], shape: tuple[int, ...] | None) -> npt.NDArray[Any]:
    """Turn actions into an array: float32, or int64.

    Args:
        who: gives them: ``metaduel/Navigation-v0: the adversary``.
        actions: one action, or a batch.
        space: a Box or a Discrete.
        shape: what they must have.

    Raises:
        InvalidInputError: a wrong shape or type, NaN, or a value outside the space.
    """
    if isinstance(space, spaces.Box):
        try:
            array: npt.NDArray[Any] = np.array(actions, dtype=np.float32)
        except (TypeError, ValueError):
            raise bad_action(who, actions, f"must be numbers of shape {shape}") from None
        if array.shape != shape:
            raise bad_action(who, actions, f"must have shape {shape}, not {array.shape}")
        inside = (array >= space.low) & (array <= space.high)
    else:
        assert isinstance(space, spaces.Discrete)
        array = np.asarray(actions)
        if array.dtype.kind not in "iu" or array.shape != shape:
            wrong = f"{array.dtype} of shape {array.shape}"
            raise bad_action(who, actions, f"must be whole numbers of shape {shape}, not {wrong}")
        array = array.astype(np.int64)
        inside = (array >= space.start) & (array < space.start + space.n)
    if not inside.all():  # NaN is inside nothing
        rows = array.reshape(-1, *(space.shape or ()))  # one action, or those of a batch
        wrong_rows = rows[~inside.reshape(len(rows), -1).all(1)]
        raise bad_action(who, wrong_rows[0].tolist(), f"must be inside {space}")
    return array


def refuse_illegal(who: str, action: Any, mask: Mask, names: Sequence[str] = ()) -> None:
    """Raise ``InvalidInputError`` where an action is not legal now; the message names those that are."""
    if not mask[action]:
        called = f"({names[int(action)]}) " if names else ""
        raise bad_action(who, int(action), f"{called}must be legal now: {legal_actions(names, mask)}")


def bad_action(who: str, value: object, right: str) -> InvalidInputError:
    """The error of an action."""
    return InvalidInputError(f"{who}'s action {one_line(repr(value), 60)} {right}")


def legal_actions(names: Sequence[str], mask: Mask) -> str:
    """The legal actions by number and name, if they have any: ``1 (pass) or 2 (bet)``."""
    return " or ".join(
        f"{action} ({names[action]})" if names else str(action) for action in np.flatnonzero(mask).tolist()
    )
