"""Few-shot adaptation of one player against fixed opponents: returns at every shot, on the same evaluation episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.adapters.protocol import Adapter, adaptation
from metaduel.agents.rollout import Actor
from metaduel.envs.core.errors import InvalidInputError, one_line
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import Role


class FewShot(NamedTuple):
    """The result of an adaptation."""

    returns: Tensor  # [shots + 1, opponents, tasks, test episodes], undiscounted
    players: Sequence[Actor]  # after every shot


class Failed(InvalidInputError):
    """A player that could not continue.

    Attributes:
        shot: number of updates so far.
        row: the row of opponents and tasks, if it failed in one row alone.
    """

    def __init__(self, why: str, shot: int, row: int | None) -> None:
        super().__init__(why)
        self.shot, self.row = shot, row


def adapt_and_test(
    simulator: Simulator,
    adapter: Adapter,
    role: Role,
    tasks: Tensor,
    opponents: Sequence[Player],
    shots: int,
    episodes: int,
    test_episodes: int,
    adapt_seed: int,
    test_seed: int,
    deterministic: bool = False,
    seed: int | None = None,
) -> FewShot:
    """Adapt on every (opponent, task) at once and test after every shot.

    Args:
        simulator: the game or environment; it chooses what ``role`` observes.
        adapter: makes and updates the player.
        role: the seat of the player that adapts.
        tasks: [M, C] as ``Simulator.params`` takes them: a game's context values.
        opponents: the players in the other seat.
        shots: number of updates.
        episodes: episodes per update.
        test_episodes: fresh episodes per test; the same noise at every shot.
        adapt_seed: seed of the adaptation episodes.
        test_seed: seed of the test episodes; keep it far from ``adapt_seed``.
        deterministic: test with the most probable actions instead of samples.
        seed: seed of the player's own random numbers; None: ``adapt_seed``.

    Raises:
        Failed: the player does not fit the seat, returns an invalid action, or plays more episodes than its shot has.
    """
    arena = GameArena(simulator, role, tasks, opponents, max(episodes, 1), adapt_seed)
    test = GameArena(simulator, role, tasks, opponents, test_episodes, test_seed, deterministic)
    loop = adaptation(adapter, arena, shots, adapt_seed if seed is None else seed)
    players: list[Actor] = []
    returns: list[Tensor] = []
    for shot in range(shots + 1):
        try:
            players.append(next(loop))
            returns.append(test.test(players[-1]).returns)
        except InvalidInputError as error:
            raise Failed(str(error), shot, getattr(error, "row", None)) from error
        except Exception as error:  # the player may be foreign code
            why = one_line(error, 200)
            raise Failed(f"it raises {type(error).__name__}: {why}", shot, None) from error
    shape = (shots + 1, len(opponents), tasks.shape[0], test_episodes)
    return FewShot(torch.stack([one.view(shape[1:]) for one in returns]), players)
