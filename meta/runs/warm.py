"""Warm starts: a run begins with the best weights of another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from metaduel.agents.policies.base import REWARD, Weights, adapting
from metaduel.envs.core.arguments import as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.rates import below
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.methods import find_method
from metaduel.meta.runs.checkpoint import load_checkpoint, read_config
from metaduel.meta.runs.config import RunConfig
from metaduel.meta.runs.source import PlayedSource
from metaduel.meta.runs.trainer import BEST, LAST


def warm_started(learner: Learner, source: PlayedSource, config: RunConfig, folder: Path) -> Learner:
    """The learner, with the weights that ``config.warm_start`` names, unless the run in ``folder`` has a checkpoint of its own.

    Where inputs are normalised, their statistics go on as well, and so do the scales of critics.

    Args:
        learner: the learner at its start.
        source: the source of its tasks.
        config: the run's settings.
        folder: the run's folder.

    Raises:
        InvalidInputError: a folder without a run, or a run of other roles or networks; nothing was changed.
    """
    if not config.warm_start or (folder / LAST).exists():
        return learner
    found, old = _best(config), read_config(as_path(config.warm_start, "warm_start"))
    before: dict[Role, Weights] = {}
    for role, weights in learner.start.items():
        before[role] = below(found, f"{role}/start/")
        if not before[role]:
            raise _refused(config, f"holds no {role}")
        _check_networks(config, old, role, weights, before[role])
    state = load_checkpoint(as_path(config.warm_start, "warm_start") / LAST)[0]
    if source.statistics:
        source.load(state)
    if learner.scales is not None:
        learner.scales.load(state)
    with torch.no_grad():
        for role, weights in learner.start.items():
            for name, value in adapting(weights).items():
                value.copy_(before[role][name])
            fixed = {name: value for name, value in before[role].items() if name not in adapting(before[role])}
            learner.starts.normalise(role, fixed)
    return learner


def _best(config: RunConfig) -> dict[str, torch.Tensor]:
    path = as_path(config.warm_start, "warm_start") / BEST
    if not path.is_file():
        raise _refused(config, "holds no run with a checkpoint: name the folder of a run that was validated")
    return load_checkpoint(path)[0]


def _check_networks(config: RunConfig, old: Mapping[str, object], role: Role, own: Weights, theirs: Weights) -> None:
    """Refuse weights of another network."""
    method = find_method(str(old.get("method")))
    if method.memory is not find_method(config.method).memory:
        raise _refused(config, f"is of method {method.name}, whose network method {config.method} does not have")
    if old.get("network", "mlp") != config.network:
        raise _refused(config, f"has network={old.get('network')!r}, this run {config.network!r}")
    if REWARD not in theirs:  # of before rewards were scaled: this run goes on without
        own = {name: value for name, value in own.items() if name != REWARD}
    if set(theirs) != set(own) and set(adapting(theirs)) == set(adapting(own)):
        raise _refused(config, f"must have normalise_observations={config.normalise_observations}, as this run")
    shapes, wanted = ({name: tuple(value.shape) for name, value in weights.items()} for weights in (theirs, own))
    if shapes != wanted:
        name = next(name for name in sorted({*shapes, *wanted}) if shapes.get(name) != wanted.get(name))
        raise _refused(
            config, f"has another network: the {role}'s {name} is {shapes.get(name)} there and {wanted.get(name)} here"
        )


def _refused(config: RunConfig, why: str) -> InvalidInputError:
    return InvalidInputError(f"warm_start={config.warm_start!r} {why}")
