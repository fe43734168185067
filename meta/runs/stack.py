"""How many runs are trained at once: as many as fit a bound on memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from metaduel.envs.core.errors import InvalidInputError, without_effect
from metaduel.meta.learners.rl2 import RL2Config
from metaduel.meta.runs.config import RunConfig, TrainConfig
from metaduel.meta.runs.source import DuelSource, PlayedSource

STACK_BYTES = 3 << 29  # of a stack's graphs and trajectories, about; rows beyond some ten thousand are no faster
CHAIN_BYTES = 4 << 30  # of a player's chains in training
CHAIN_UNITS = 16  # numbers of a width in the graph of an input: gates, their gradients, memories, the critic
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


def check_chains_fit(config: RunConfig, source: PlayedSource) -> None:
    """Refuse chains of a method that adapts by remembering that memory does not allow, or that are not cut.

    Raises:
        InvalidInputError: chains longer than ``CHAIN_BYTES`` allow, or shorter than a truncation.
    """
    learner = config.learner
    if not isinstance(learner, RL2Config):
        return
    longest = config.chain_episodes * (source.horizon + 1) - 1
    if learner.truncation > longest:
        raise without_effect("truncation", learner.truncation, f"chains have at most {longest} inputs")
    for role, policy in source.policies.items():
        # Inputs, actions and the like, which are all kept; and the graph of a minibatch.
        kept, graph = 2 * (policy.input_size + 8), CHAIN_UNITS * config.hidden[-1] / learner.parts(config.tasks)
        size = 4 * config.tasks * longest * (kept + graph)
        if size > CHAIN_BYTES:
            raise InvalidInputError(
                f"chains of {config.chain_episodes} episodes of {source.horizon} steps on {config.tasks} tasks need about "
                f"{size / 2**30:.1f} GiB for the {role}, and {CHAIN_BYTES / 2**30:.0f} are allowed: use fewer tasks, a smaller "
                "chain_episodes, or more minibatches"
            )


def run_bytes(config: TrainConfig, source: DuelSource) -> int:
    """About how much memory an iteration of a run takes."""
    learner = config.configured
    graphs = learner.steps + 1 if learner.second_order and not learner.recompute else 1
    shots = config.chain_episodes / config.episodes_per_batch or learner.steps + 1
    floats = 0.0
    for role, policy in source.policies.items():
        rows = config.tasks * config.episodes_per_batch
        units = sum(
            value.numel() for value in policy.init(0).values() if value.dim() == 1
        )  # about the network's neurons
        seen = policy.input_size + source.duel.observation_space(role).shape[0] + 8
        floats += rows * source.duel.horizon * (graphs * _COPIES * units + shots * seen)
    return round(4 * floats)
