"""A problem that times its rollouts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.duels import DuelProblem
from metaduel.meta.problems.problem import Players


class TimedProblem(DuelProblem):
    """A problem that records the beginning and end of its rollouts; all other parts of a shot follow its rollout."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rollouts: list[tuple[float, float]] = []

    def collect(
        self, players: Players, shot: int, carries: Mapping[Role, Carry] | None = None
    ) -> dict[Role, Trajectories]:
        """See ``DuelProblem.collect``."""
        start = time.perf_counter()
        data = super().collect(players, shot, carries)
        self.rollouts.append((start, time.perf_counter()))
        return data
