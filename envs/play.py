"""Whole episodes between two players, for ratings, panels and checks. Learners collect with ``agents.rollout``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.envs import noise
from metaduel.envs.core import Duel, Player, View


class Played(NamedTuple):
    """One episode per row."""

    returns: Tensor  # [B, 2] undiscounted, (protagonist, adversary)
    length: Tensor  # [B] int64 steps until the end
    terminated: Tensor  # [B] bool: ended by the rules, not by the clock


@torch.no_grad()
def play(duel: Duel, players: tuple[Player, Player], params: Any, seed: Tensor, episode: Tensor) -> Played:
    """Play one episode in every row.

    Args:
        duel: the game.
        players: who sits in the protagonist's and in the adversary's seat.
        params: the rows' tasks.
        seed: [B] int64.
        episode: [B] int64.
    """
    rows = duel.reset(params, seed, episode)
    dtype = params[0].dtype
    memory = [torch.zeros(seed.shape[0], p.memory, dtype=dtype) for p in players]
    returns = torch.zeros(seed.shape[0], 2, dtype=dtype)
    alive = torch.ones_like(seed, dtype=torch.bool)
    length, terminated = torch.zeros_like(seed), torch.zeros_like(alive)
    for _ in range(duel.horizon):
        actions = []
        for seat, (player, observation) in enumerate(zip(players, duel.observe(rows), strict=True)):
            numbers = noise.uniform(rows.key, rows.step, noise.SEAT[seat], player.noise, dtype)
            view = View(rows.params, rows.state, observation, rows.step)
            action, memory[seat] = player.act(view, memory[seat], numbers)
            actions.append(action)
        rows, outcome = duel.step(rows, (actions[0], actions[1]))
        returns = returns + outcome.reward * alive.unsqueeze(1)
        length = length + alive
        terminated |= outcome.terminated & alive
        alive = alive & ~outcome.terminated
        if not alive.any():
            break
    return Played(returns, length, terminated)
