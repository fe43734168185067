"""Whole episodes between two players, for ratings, panels and checks. Learners collect with ``agents.rollout``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.duel import Duel, Transition
from metaduel.envs.core.game import Episode
from metaduel.envs.core.simulator import ask
from metaduel.envs.core.spec import ROLES
from metaduel.envs.players.names import load_player


class Played(NamedTuple):
    """One episode per row."""

    returns: Tensor  # [B, 2] undiscounted, (protagonist, adversary)
    length: Tensor  # [B] int64 steps until the end
    terminated: Tensor  # [B] bool: ended by the rules, not by the clock


def steps(duel: Duel, players: Sequence[Any], rows: Episode) -> Iterator[tuple[Episode, Transition]]:
    """Play on from ``rows`` until the clock ends, one step at a time; rows that the rules ended are played on, too.

    ``players`` are the protagonist and the adversary, as ``load_player`` takes them.
    """
    seated, like = [load_player(duel, r, player) for r, player in zip(ROLES, players, strict=True)], rows.params[0]
    rewards = [like.new_zeros(rows.key.shape[0]) for _ in seated]
    memory = [like.new_zeros(rows.key.shape[0], p.memory) for p in seated]
    for _ in range(duel.horizon):
        actions = []
        for seat, (player, observation) in enumerate(zip(seated, duel.observe(rows), strict=True)):
            action, memory[seat] = ask(player, seat, rows, observation, rewards[seat], memory[seat])
            actions.append(action)
        rows, outcome = duel.step(rows, (actions[0], actions[1]))
        rewards = list(outcome.reward.unbind(1))
        yield rows, outcome


@torch.no_grad()
def play(duel: Duel, players: Sequence[Any], params: Any, seed: Tensor, episode: Tensor) -> Played:
    """Play one episode in every row.

    Args:
        duel: the game.
        players: the player in the protagonist's seat and the one in the adversary's, as ``load_player`` takes them.
        params: the rows' tasks.
        seed: [B] int64.
        episode: [B] int64.
    """
    rows = duel.reset(params, seed, episode)
    returns = params[0].new_zeros(seed.shape[0], 2)
    alive = torch.ones_like(seed, dtype=torch.bool)
    length, terminated = torch.zeros_like(seed), torch.zeros_like(alive)
    for _, outcome in steps(duel, players, rows):
        returns = returns + outcome.reward * alive.unsqueeze(1)
        length = length + alive
        terminated |= outcome.terminated & alive
        alive = alive & ~outcome.terminated
        if not alive.any():
            break
    return Played(returns, length, terminated)
