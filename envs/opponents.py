"""How a string becomes a player.

``idle`` is a scripted player of the family, ``run:FOLDER`` an agent trained here, ``sb3:FILE`` a model trained with
Stable-Baselines3.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metaduel.envs import registry
from metaduel.envs.core import Duel, Player, View
from metaduel.envs.errors import InvalidInputError, unknown
from metaduel.envs.spec import GameSpec, Role, Split

# Prefix -> function (duel, role, rest of the string) -> Player. As strings, because envs imports nothing of ours.
LOADERS: dict[str, str] = {"run": "metaduel.meta.agent:load_player", "sb3": "metaduel.agents.sb3:load_player"}


@dataclass(frozen=True)
class Scripted:
    """A player written by hand.

    Attributes:
        name: how a string names it.
        role: whose seat it takes.
        split: ``train`` (may be met in training) or ``held_out``.
        description: what it does, for people.
        rule: ``(view, memory, noise) -> (actions, memory)``, batched; see ``core.Player.act``.
        memory: numbers per row remembered within an episode, zero at its start.
        noise: uniform numbers per row and step.
        informed: it reads contexts that its role is not shown, so that it is no yardstick for players that must infer.
    """

    name: str
    role: Role
    split: Split
    description: str
    rule: Callable[[View, Tensor, Tensor], tuple[Tensor, Tensor]]
    memory: int = 0
    noise: int = 0
    informed: bool = False

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose; see ``core.Player.act``."""
        return self.rule(view, memory, noise)


def scripted(spec: GameSpec, role: Role) -> dict[str, Scripted]:
    """The family's scripted players for a seat, by name (``PLAYERS`` of ``<package>.opponents``, a tuple or a function
    of the spec for families with several ids).
    """
    players: Any = importlib.import_module(f"{spec.package}.opponents").PLAYERS
    players = players(spec) if callable(players) else players
    return {p.name: p for p in players if p.role == role}


def names(spec: GameSpec, role: str, split: str) -> tuple[str, ...]:
    """Names of the scripted opponents that take ``role``'s seat, of one split."""
    return registry.opponents(spec, role, split)


def load_player(duel: Duel, role: str, name: str) -> Player:
    """Make the player that ``name`` names, for ``role``'s seat.

    Raises:
        InvalidInputError: no such scripted player, no such prefix, or a file whose spaces don't match the seat.
    """
    seat = duel.spec.check_role(role)
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"opponent={name!r} must be a string: a scripted name, run:FOLDER or sb3:FILE")
    prefix, colon, rest = name.partition(":")
    if colon and prefix in LOADERS:
        module, function = LOADERS[prefix].split(":")
        player: Player = getattr(importlib.import_module(module), function)(duel, seat, rest)
        return player
    known = scripted(duel.spec, seat)
    if name not in known:
        raise unknown(f"opponent for the {seat}'s seat of {duel.spec.name}", name, known)
    return known[name]
