"""The scripted players of a game as a panel: each player's strength, and the held-out players' difference from training players.

- **Rating**: all players of a role meet the same opponent on the same task with the same noise, and are ranked by their
  return; every such meeting is one match of a Plackett-Luce rating (openskill; Weng and Lin, JMLR 2011), start 25, scale 25/3.
  So it works for zero-sum and general-sum games alike. The order of the matches is drawn at a fixed seed.
- **Disagreement**: along the episodes of a held-out player, each training player of its role chooses actions at the same moments.
  Their disagreement is the mean distance between the two actions, as a share of the largest distance in the action space; for
  discrete actions, the share of different actions; in turn-based games, only at the player's turns. Training players remember the
  episode as if they had played it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from openskill.models import PlackettLuce
from torch import Tensor

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import Player, View, make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, GameSpec, Role, other
from metaduel.envs.core.tasks import frozen_tasks, task_rows
from metaduel.envs.players.names import names
from metaduel.envs.players.play import play, steps
from metaduel.envs.players.scripted import Scripted, scripted

TASKS, EPISODES = 30, 3


class Rated(NamedTuple):
    """A scripted player's strength."""

    mu: float  # the rating
    sigma: float  # its standard deviation
    mean: float  # return over all opponents, tasks and episodes


def panel(spec: GameSpec, tasks: int = TASKS, episodes: int = EPISODES) -> dict[str, Any]:
    """Ratings of all scripted players and the distances of the held-out ones, per role, as plain values.

    Args:
        spec: the game.
        tasks: number of tasks of its validation list.
        episodes: episodes per task and pair.

    Returns:
        Per role ``ratings`` (name to ``mu``, ``sigma``, ``mean``, strongest first) and ``nearest`` (held-out name to the nearest
        training player's ``name`` and ``disagreement``).
    """
    duel = Duel(make_game(spec))
    rows = task_rows(spec, frozen_tasks(spec, "validation")[:tasks], {}).repeat_interleave(episodes, 0)
    params, number = duel.game.params_from_rows(rows), torch.arange(len(rows), dtype=torch.int64, device="cpu")
    seeds = number + derive_seed(0, Purpose.PANEL_MATCHES)
    first, second = (scripted(spec, role) for role in ROLES)
    returns = np.empty((2, len(first), len(second), len(rows)))
    for i, protagonist in enumerate(first.values()):
        for j, adversary in enumerate(second.values()):
            played = play(duel, (protagonist, adversary), params, seeds, torch.zeros_like(seeds))
            returns[:, i, j] = played.returns.double().numpy().T
    result: dict[str, Any] = {}
    for seat, role in enumerate(ROLES):
        own = returns[seat] if seat == 0 else returns[seat].swapaxes(0, 1)
        rated = ratings(own.reshape(len(own), -1), list(scripted(spec, role)))
        result[role] = {
            "ratings": {name: {k: round(v, 3) for k, v in one._asdict().items()} for name, one in rated.items()},
            "nearest": nearest(duel, role, params, seeds),
        }
    return result


def ratings(returns: npt.NDArray[np.float64], players: list[str]) -> dict[str, Rated]:
    """Rate players by their returns [players, matches]: in each match they are ranked; equal returns tie. Strongest first."""
    model = PlackettLuce()
    held = [[model.rating(name=name)] for name in players]
    for match in np.random.default_rng(Purpose.PANEL_ORDER).permutation(returns.shape[1]):
        # Rounded, so that the last bits of equal outcomes don't decide.
        held = model.rate(held, scores=returns[:, match].round(4).tolist())
    rated = {
        name: Rated(own[0].mu, own[0].sigma, float(returns[i].mean()))
        for i, (name, own) in enumerate(zip(players, held, strict=True))
    }
    return dict(sorted(rated.items(), key=lambda item: -item[1].mu))


@torch.no_grad()
def nearest(duel: Duel, role: Role, params: Any, seeds: Tensor) -> dict[str, dict[str, Any]]:
    """For each held-out player of a role, the training player that it disagrees with least."""
    spec = duel.spec
    known, rivals = scripted(spec, role), list(scripted(spec, other(role)).values())
    shadows = [known[name] for name in names(spec, role, "train")]
    result = {}
    for name in names(spec, role, "held_out"):
        watched = _Shadowed(known[name], shadows, duel, role)
        for rival in rivals:
            pair: tuple[Player, Player] = (watched, rival) if role == "protagonist" else (rival, watched)
            watched.alive = torch.ones_like(seeds, dtype=torch.bool)
            for _, outcome in steps(duel, pair, duel.reset(params, seeds, torch.zeros_like(seeds))):
                watched.alive = watched.alive & ~outcome.terminated
        distances = watched.total / watched.count
        least = int(distances.argmin())
        result[name] = {"name": shadows[least].name, "disagreement": round(float(distances[least]), 3)}
    return result


class _Shadowed:
    """Plays like one player, and records the distances of other players' actions, in the rows that are ``alive`` [B]."""

    alive: Tensor

    def __init__(self, player: Scripted, shadows: list[Scripted], duel: Duel, role: Role) -> None:
        self.player, self.shadows, self.duel, self.role = player, shadows, duel, role
        self.memory = player.memory + sum(shadow.memory for shadow in shadows)
        self.noise = player.noise + sum(shadow.noise for shadow in shadows)
        self.total, self.count = torch.zeros(len(shadows), dtype=torch.float64, device="cpu"), 0

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See ``core.Player.act``. Each player draws random numbers of its own."""
        players = (self.player, *self.shadows)
        memories = torch.split(memory, [one.memory for one in players], 1)
        numbers = torch.split(noise, [one.noise for one in players], 1)
        chosen = [one.act(view, m, n) for one, m, n in zip(players, memories, numbers, strict=True)]
        action = chosen[0][0]
        asked = self.alive
        if self.duel.spec.turn_based:
            asked = asked & (self.duel.game.turn(view.params, view.state) == ROLES.index(self.role))
        self.total += torch.stack([self._distance(action, shadow)[asked].sum() for shadow, _ in chosen[1:]])
        self.count += int(asked.sum())
        return action, torch.cat([remembered for _, remembered in chosen], 1)

    def _distance(self, one: Tensor, two: Tensor) -> Tensor:
        space = self.duel.action_space(self.role)
        if isinstance(space, spaces.Discrete):
            return (one != two).double()
        gap: Tensor = torch.linalg.vector_norm((one - two).double(), dim=1)
        return gap / float(np.linalg.norm(space.high - space.low))
