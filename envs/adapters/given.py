"""What the adapters of both kinds, one seat and two, share about tasks and seeds: how they are given, and how an episode draws
its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from metaduel.envs.core import noise, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.spec import FROZEN_SPLITS, GameSpec, Split, Task


def resolve_task(duel: Duel, task: Mapping[str, float] | str) -> Task:
    """Check a task given as a mapping, or look up ``held_out:3``.

    Raises:
        InvalidInputError: there is no such task, or it cannot be played.
    """
    if isinstance(task, str):
        return tasks.find_task(duel.spec, task)
    full = tasks.check_task(duel.spec, task)
    duel.game.check(full)
    return full


def draw_tasks(spec: GameSpec, split: Split, key: Tensor) -> Tensor:
    """The tasks that belong to episodes' noise keys [B]: drawn from it, or picked by it from a frozen list; [B, C] float64."""
    step = torch.zeros_like(key)
    if split in FROZEN_SPLITS:
        table = _frozen_table(spec, split)
        u = noise.uniform(key, step, noise.TASK, 1, torch.float64)
        return table[(u[:, 0] * len(table)).long()]
    u = noise.uniform(key, step, noise.TASK, len(spec.contexts), torch.float64)
    return tasks.draw(spec, split, u)


@lru_cache(maxsize=256)
def _frozen_table(spec: GameSpec, split: Split) -> Tensor:
    """[M, C] float64."""
    listed = [[task[name] for name in spec.context_names] for task in tasks.frozen_tasks(spec, split)]
    return torch.tensor(listed, dtype=torch.float64, device="cpu")


def fresh_seeds(n: int) -> Tensor:
    """[n] int64 seeds from the operating system's entropy, for environments that were given none."""
    return torch.from_numpy(np.random.default_rng().integers(1 << 63, size=n))
