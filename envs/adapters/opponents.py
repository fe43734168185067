"""The players in the other seat of a batch of rows: one for each row, and the next one where it is to change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Rows, ask
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.core.trees import take_rows
from metaduel.envs.players.names import load_player, player_name
from metaduel.envs.players.scripted import Impaired, Scripted

_CPU = torch.device("cpu")


class Sitting(NamedTuple):
    """A player that was made for the seat."""

    player: Player
    name: str
    scripted: bool  # by its name, which says all about it

    @property
    def key(self) -> Any:
        """The same for rows that share a player. Scripted players of one name are one, whenever they were made."""
        return self.name if self.scripted else id(self.player)


class _Group(NamedTuple):
    """Rows that have the same player."""

    player: Player
    where: Tensor | None  # [n] int64 rows; None: all rows, in order


class Opponents:
    """The players in one seat of a batch of rows, with what they remember.

    Args:
        duel: the game.
        role: their seat.
        rows: how many rows, B.
        device: where the rows are.

    Attributes:
        names: [B] object array: the names of the players in the current episodes.
    """

    def __init__(self, duel: Duel, role: Role, rows: int, device: torch.device = _CPU) -> None:
        self._duel, self._role, self._seat = duel, role, ROLES.index(role)
        self.names = np.full(rows, None, object)
        self._sitting: list[Sitting | None] = [None] * rows
        self._next: dict[int, Sitting] = {}  # rows whose player changes with the next episode
        self._groups: list[_Group] = []
        self._width = 0  # of the memory: that of the player who remembers most
        self._memory = torch.zeros(rows, 0, dtype=torch.float32, device=device)

    def make(self, items: Iterable[tuple[int, Any]]) -> dict[int, Sitting]:
        """Make a player of every row's item; None is the family's first training opponent. Changes nothing.

        A file is read once in a call and anew in the next one: it may have been written again.

        Raises:
            InvalidInputError: an item is no player for this seat.
        """
        made: dict[Any, Sitting] = {}
        found = {}
        for row, item in items:
            given = self._duel.spec.opponents[self._role]["train"][0] if item is None else item
            same = given if isinstance(given, str) else id(given)
            if same not in made:
                player = load_player(self._duel, self._role, given)
                named = isinstance(given, str) and isinstance(player, (Scripted, Impaired))
                made[same] = Sitting(player, player_name(given), named)
            found[row] = made[same]
        return found

    def expect(self, players: dict[int, Sitting]) -> None:
        """Seat players with their rows' next episodes."""
        self._next.update(players)

    def begin(self, index: Tensor | None) -> None:
        """Start an episode in the rows at ``index`` (all by default): seat who is expected there, forget the last episode."""
        if self._next:
            rows = range(len(self._sitting)) if index is None else index.tolist()
            arrived = [(row, self._next.pop(row)) for row in rows if row in self._next]
            for row, sitting in arrived:
                self._sitting[row] = sitting
                self.names[row] = sitting.name
            if arrived:
                self._regroup()
        if self._width:
            memory = self._memory
            self._memory = torch.zeros_like(memory) if index is None else memory.index_fill(0, index, 0.0)

    def _regroup(self) -> None:
        sitting = [one for one in self._sitting if one is not None]
        keys = [one.key for one in sitting]
        used = {key: one.player for key, one in zip(keys, sitting, strict=True)}
        if len(used) == 1:
            self._groups = [_Group(sitting[0].player, None)]
        else:
            number = {key: i for i, key in enumerate(used)}
            which = torch.tensor([number[key] for key in keys], dtype=torch.int64, device=self._memory.device)
            index = [(which == i).nonzero().squeeze(1) for i in range(len(used))]
            self._groups = [_Group(player, rows) for player, rows in zip(used.values(), index, strict=True)]
            self._inverse = torch.argsort(torch.cat(index))
        # Rows that keep their player keep what it remembers; the others are about to forget.
        self._width = max(player.memory for player in used.values())
        self._memory = _widen(self._memory[:, : self._width], self._width)

    def act(self, rows: Rows, observation: Tensor, paid: Tensor) -> Tensor:
        """Ask all of them: [B, a] or [B] int64.

        Args:
            rows: where the episodes are.
            observation: [B, d] what they see.
            paid: [B] their rewards of the step before.
        """
        memory, seat = self._memory, self._seat
        if self._groups[0].where is None:
            action, self._memory = ask(self._groups[0].player, seat, rows, observation, paid, memory)
            return action
        actions, memories = [], []
        for player, index in self._groups:
            part = take_rows(rows, index)  # type: ignore[type-var, arg-type]
            own = memory[index, : player.memory].contiguous()
            action, new = ask(player, seat, part, observation[index], paid[index], own)
            actions.append(action)
            memories.append(_widen(new, self._width))
        self._memory = torch.cat(memories)[self._inverse]
        return torch.cat(actions)[self._inverse]


def _widen(memory: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(memory, (0, width - memory.shape[1]))
