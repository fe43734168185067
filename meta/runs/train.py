"""One call for the whole: make the learner, the source of tasks and the trainer, and train into a run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaduel.agents.runtime import configure
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import use
from metaduel.envs.core.spec import GameSpec, Task
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.methods import find_method
from metaduel.meta.problems.foreign import Factory, describe
from metaduel.meta.runs.config import ForeignConfig, RunConfig, TrainConfig
from metaduel.meta.runs.foreign import ForeignSource
from metaduel.meta.runs.load import ForeignRun, Run, load
from metaduel.meta.runs.players import Network, initial_weights
from metaduel.meta.runs.source import DuelSource, PlayedSource
from metaduel.meta.runs.trainer import Trainer


@dataclass(frozen=True)
class TaskList:
    """Training tasks of your own choice.

    Attributes:
        game: the family: its name, or a spec.
        tasks: its contexts' values; those not named take their defaults.
    """

    game: str | GameSpec
    tasks: Sequence[Task]


def train_meta_adversarial(
    task_set: str | GameSpec | TaskList | Factory,
    method: str = "maml",
    folder: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    network: Network | str = "mlp",
    **settings: Any,
) -> Run | ForeignRun:
    """Meta-train a protagonist and an adversary that adapt to each task in a few episodes.

    Args:
        task_set: a family's name, a spec, a ``TaskList``, or a function that makes somebody's PettingZoo ``ParallelEnv`` of two
            agents (a slow path that plays any two-agent game, see ``metaduel.meta.problems.foreign``; tasks through its
            ``sample_tasks`` and ``set_task`` if it has them). A spec need not be registered and is used as it is; the run's
            ``config.yaml`` records its name, by which ``load`` and ``evaluate`` find it for the rest of this process. In
            another one, ``metaduel.register(spec)`` first, or ``load(folder, game=spec)``.
        method: see ``metaduel.meta.learners.methods.METHODS``.
        folder: of the run; ``runs/<game>-<method>-<seed>-<time>`` by default.
        resume: continue the run in ``folder``.
        quiet: no live display.
        network: ``mlp``, ``gru``, ``lstm``, or a function ``(size of observations, number of actions) -> nn.Module`` whose
            modules map observations [M, d] to means or logits [M, A] and have no state but parameters. ``load`` then needs it.
        **settings: fields of ``TrainConfig`` (of ``RunConfig`` for environments of your own), and of its learner and loss.

    Returns:
        The trained run, as ``metaduel.load(folder)`` gives it: each role's best weights on the validation split.

    Raises:
        InvalidInputError: a setting or spec that cannot work, or a spec with another family's name; nothing was written.
        TrainingStopped: a number that is not finite.
    """
    if isinstance(task_set, (str, GameSpec)):
        game, tasks = task_set, None
    elif isinstance(task_set, TaskList):
        game, tasks = task_set.game, task_set.tasks
    elif callable(task_set):
        return train_foreign(task_set, method, folder, resume, quiet, network, **settings)
    else:
        raise InvalidInputError(
            f"task_set={task_set!r} must be a game's name, a GameSpec, a TaskList or a function that makes one"
        )
    name = use(game).name if isinstance(game, GameSpec) else game
    own, kind = (network, "own") if callable(network) else (None, network)
    config = TrainConfig(game=name, method=method).override(**settings, network=kind)
    target = Path(folder) if folder is not None else default_folder(config, name)
    return train(config, target, tasks, resume, quiet, own)


def train(
    config: TrainConfig,
    folder: Path,
    tasks: Sequence[Task] | None = None,
    resume: bool = False,
    quiet: bool = False,
    network: Network | None = None,
) -> Run:
    """Train what ``config`` says; see ``train_meta_adversarial``."""
    configure(config.threads)
    source = DuelSource(config, tasks, network)
    settings = config.to_dict()
    if tasks is not None:
        settings["task_list"] = [dict(task) for task in tasks]
    run_trainer(make_learner(config, source), source, folder, settings, config, resume, quiet)
    return load(folder, network=network)


def train_foreign(
    task_set: Factory,
    method: str = "maml",
    folder: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    network: Network | str = "mlp",
    **settings: Any,
) -> ForeignRun:
    """Train on somebody's own environments; see ``train_meta_adversarial`` and ``metaduel.meta.problems.foreign``."""
    found = describe(task_set())
    for name in found:
        if name in settings:
            raise InvalidInputError(f"{name}={settings[name]!r} is what task_set says it is, not a setting")
    own, kind = (network, "own") if callable(network) else (None, network)
    config = ForeignConfig(method=method, **found).override(**settings, network=kind)
    configure(config.threads)
    source = ForeignSource(task_set, config, own)
    target = Path(folder) if folder is not None else default_folder(config, config.environment)
    run_trainer(make_learner(config, source), source, target, config.to_dict(), config, resume, quiet)
    return load(target, task_set, own)


def make_learner(config: RunConfig, source: PlayedSource) -> Learner:
    """The learner at its start."""
    heads = {role: policy.head_names for role, policy in source.policies.items()}
    learner = find_method(config.method).learner
    start = initial_weights(source.policies, config.seed, config.normalise_observations)
    return learner(start, config.configured, heads)


def run_trainer(
    learner: Learner,
    source: PlayedSource,
    folder: Path,
    settings: dict[str, Any],
    config: RunConfig,
    resume: bool,
    quiet: bool,
) -> None:
    """Run the trainer with a config's numbers."""
    Trainer(
        learner,
        source,
        folder,
        settings,
        config.iterations,
        config.validate_every,
        resume,
        quiet,
        config.environment_steps,
    ).run()


def default_folder(config: RunConfig, name: str) -> Path:
    """``runs/<name>-<method>-<seed>-<time>``."""
    return Path("runs") / f"{name}-{config.method}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
