"""How many runs are trained at once: as many as fit a bound on memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource

STACK_BYTES = 3 << 29  # of a stack's graphs and trajectories, about; rows beyond some ten thousand are no faster
_COPIES = 3  # of an activation in the graph of a shot: itself, its gradient, and a temporary


def stacks(configs: Sequence[TrainConfig], source: DuelSource, quiet: bool) -> list[list[int]]:
    """The places of the runs of each stack; says if there are several.

    Args:
        configs: of the runs.
        source: of one of them.
        quiet: says nothing.
    """
    found: list[list[int]] = [[]]
    size = 0
    for i, config in enumerate(configs):
        own = run_bytes(config, source)
        if found[-1] and size + own > STACK_BYTES:
            found.append([])
            size = 0
        found[-1].append(i)
        size += own
    if len(found) > 1 and not quiet:
        sizes = ", ".join(str(len(stack)) for stack in found)
        print(f"{len(configs)} runs in stacks of {sizes}: more do not fit {STACK_BYTES >> 20} MiB", file=sys.stderr)
    return found


def run_bytes(config: TrainConfig, source: DuelSource) -> int:
    """About how much memory an iteration of a run takes."""
    learner = config.configured
    graphs = learner.steps + 1 if learner.second_order and not learner.recompute else 1
    floats = 0
    for role, policy in source.policies.items():
        rows = config.tasks * config.episodes_per_batch
        units = sum(
            value.numel() for value in policy.init(0).values() if value.dim() == 1
        )  # about the network's neurons
        seen = policy.input_size + source.duel.observation_space(role).shape[0] + 8
        floats += rows * source.duel.horizon * (graphs * _COPIES * units + (learner.steps + 1) * seen)
    return 4 * floats
