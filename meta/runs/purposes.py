"""What the seeds of a training run are for."""

from __future__ import annotations

# What a seed is for; part of every derived seed, so that no two purposes share noise.
TASKS, EPISODES, INIT, VALIDATION_ADAPT, VALIDATION_TEST = range(5)
# The same with personas, per role.
PERSONA_TASKS, PERSONA_EPISODES = (5, 6), (7, 8)
