"""Episodes as frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.spec import Task
from metaduel.envs.players.play import steps
from metaduel.envs.render.screen import Frame, Screen


@torch.no_grad()
def film(
    duel: Duel,
    players: Sequence[Any],
    task: Task,
    screen: Screen,
    seed: int = 0,
    episode: int = 0,
    caption: str = "",
) -> Iterator[Frame]:
    """Play one episode and draw it: a frame for the start and one per step, and the last one held for a second. ``players`` are
    the protagonist and the adversary, as ``load_player`` takes them.

    Where the screen is a window, nothing is yielded, and the episode stops when a person closes it.
    """
    params, numbers = duel.game.params([task]), torch.tensor([[seed], [episode]], dtype=torch.int64, device="cpu")
    start = duel.reset(params, *numbers.unbind(0))
    states, returns = [start.state], params[0].new_zeros(2)

    def frame() -> list[Frame]:
        picture = screen.frame(start.params, states, returns.tolist(), caption)
        return [] if picture is None else [picture]

    yield from frame()
    if screen.closed:  # a person closed the window, perhaps in an episode before: there is no person left to ask
        return
    for rows, outcome in steps(duel, players, start):
        states.append(rows.state)
        returns = returns + outcome.reward[0]
        yield from frame()
        if outcome.terminated[0] or screen.closed:
            break
    for _ in range(duel.spec.fps):
        yield from frame()
