"""One call for a whole training: make the learner, the source of tasks and the trainer, and train into a run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaduel.agents.runtime import configured
from metaduel.envs.adapters.parallel import Factory, describe
from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import use
from metaduel.envs.core.spec import GameSpec, Role
from metaduel.envs.players.names import player_name
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.methods import find_method
from metaduel.meta.runs.compiling import compiled_steps, settled
from metaduel.meta.runs.config import ForeignConfig, RunConfig, TrainConfig
from metaduel.meta.runs.foreign import ForeignSource
from metaduel.meta.runs.load import LISTS, ForeignRun, Run, load
from metaduel.meta.runs.players import Network, initial_weights
from metaduel.meta.runs.recommended import starting
from metaduel.meta.runs.signal import warn_of_noise
from metaduel.meta.runs.source import DuelSource, PlayedSource
from metaduel.meta.runs.stack import check_chains_fit, stacks
from metaduel.meta.runs.trainer import Trainer, TrainingStopped, check_folder, run_together
from metaduel.meta.runs.warm import warm_started


@dataclass(frozen=True)
class TaskList:
    """Tasks of your own choice.

    Attributes:
        game: the family: its name, or a spec. Or a function that makes your own PettingZoo environment.
        tasks: training tasks. For a family: values of contexts; contexts that are not named take their defaults. For your own
            environment: arguments of its ``set_task`` (plain values are kept in ``config.yaml``); None: the environment's own.
        validation: all validation tasks of your environment; None: the environment's own. Families have a frozen list.
    """

    game: str | GameSpec | Factory
    tasks: Sequence[Any] | None
    validation: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "validation"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, several(given))


def train_meta_adversarial(
    task_set: str | GameSpec | TaskList | Factory,
    method: str = "maml",
    folder: AnyPath | None = None,
    resume: bool = False,
    quiet: bool = False,
    network: Network | str = "mlp",
    **settings: Any,
) -> Run | ForeignRun:
    """Meta-train a protagonist and an adversary that adapt to each task in a few episodes.

    Args:
        task_set: a family's name, a spec, a ``TaskList``, or a function that makes your own PettingZoo ``ParallelEnv`` of two
            agents (a slow path that plays any two-agent game, see ``metaduel.meta.runs.foreign``; tasks through its
            ``sample_tasks`` and ``set_task`` if it has them; it needs the setting ``horizon``). A spec need not be registered and
            is used as it is; the run's ``config.yaml`` records its name, by which ``load`` and ``evaluate`` find it for the rest
            of this process. In another one, ``metaduel.register(spec)`` first, or ``load(folder, game=spec)``.
        method: see ``metaduel.meta.learners.methods.METHODS``.
        folder: the run's folder; ``runs/<game>-<method>-<seed>-<time>`` by default.
        resume: continue the run in ``folder``.
        quiet: no live display.
        network: ``mlp``, ``gru``, ``lstm``, or a function ``(size of observations, number of actions) -> nn.Module`` whose
            modules map observations [M, d] to means or logits [M, A] and have no state but parameters. ``load`` then needs it.
        **settings: fields of ``TrainConfig`` (of ``ForeignConfig`` for environments of your own), and of its learner and loss.
            Those that are not given have the values that are recommended for the method on the family, or their defaults, see
            ``metaduel.meta.runs.recommended``.
            For environments of your own also ``opponents``: per role that learns, the scripted players that it meets, such as
            ``{"protagonist": [rusher, guard]}``, which sit in the adversary's seat. Such a player has
            ``act(observation) -> action``, on the environment's own observation (see ``parallel.EnvironmentPlayer``), or is a
            player of the core (``core.game.Player``), an ``Agent`` or a model with ``predict``, on the flat one.

    Returns:
        The trained run, as ``metaduel.load(folder)`` gives it: each role's best weights on the validation split.

    Raises:
        InvalidInputError: a setting or spec that cannot work, or a spec with another family's name; nothing was written.
        TrainingStopped: a number that is not finite.
    """
    given = task_set if isinstance(task_set, TaskList) else TaskList(task_set, None)
    game, tasks = given.game, given.tasks
    if not isinstance(game, (str, GameSpec)):
        if not callable(game):
            raise InvalidInputError(
                f"task_set={task_set!r} must be a game's name, a GameSpec, a TaskList or a function that makes one"
            )
        return train_foreign(given, method, folder, resume, quiet, network, **settings)
    if isinstance(settings.get("opponents"), Mapping):
        raise InvalidInputError(
            "opponents: a family has its own; name them in against_protagonist and against_adversary"
        )
    if given.validation is not None:
        raise InvalidInputError("validation: a family is validated on its own frozen tasks; leave it out")
    if given is task_set and tasks is None:
        raise InvalidInputError("tasks=None: a TaskList of a family must hold its tasks")
    name = use(game).name if isinstance(game, GameSpec) else game
    own, kind = (network, "own") if callable(network) else (None, network)
    config = starting(name, method, {**settings, "network": kind})
    config.refuse_idle({**settings, **({} if kind == "mlp" else {"network": kind})})
    target = as_path(folder, "folder") if folder is not None else default_folder(config, name)
    return train(config, target, tasks, resume, quiet, own)


def train(
    config: TrainConfig,
    folder: AnyPath,
    tasks: Sequence[Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
    network: Network | None = None,
) -> Run:
    """Train with the settings of ``config``; see ``train_meta_adversarial``."""
    target = as_path(folder, "folder")
    tasks = None if tasks is None else several(tasks)
    with configured(config.threads):
        source = DuelSource(config, tasks, network)
        config = settled([config], source, [target], resume)[0]
        learner = warm_started(make_learner(config, source), source, config, target)
        written = _written(config, tasks)
        check_folder(target, written, resume)
        if not quiet:
            warn_of_noise([config], source, [learner], [target])
        with compiled_steps([config], [source]):
            make_trainer(learner, source, target, written, config, resume, quiet).run()
        return load(target, network=network)


def train_all(
    configs: Sequence[TrainConfig],
    folders: Sequence[AnyPath],
    tasks: Sequence[Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
    network: Network | None = None,
) -> list[Run]:
    """Train several runs in one process: their tasks are the tasks of one batch, in stacks that fit ``stack.STACK_BYTES``. Each
    run keeps its own folder, and is what it is when it is trained alone, up to the rounding of larger products.

    Args:
        configs: settings of each run, of one game with the same networks and opponents (``TrainConfig.world``): seeds, methods,
            rates, discounts, numbers of tasks may differ.
        folders: a folder for each.
        tasks: see ``train``, for all.
        resume: continue the runs that have begun; begin the others.
        quiet: no live display.
        network: see ``train_meta_adversarial``, for all.

    Returns:
        The trained runs.

    Raises:
        InvalidInputError: runs that cannot be trained together, with the setting in which they differ, or any that cannot be
            trained; nothing was written.
        TrainingStopped: a number that is not finite, in any of them; the others were trained to their end.
    """
    targets = [as_path(folder, "folders") for folder in folders]
    _check_together(configs, targets)
    tasks = None if tasks is None else several(tasks)
    with configured(configs[0].threads):
        sources = [DuelSource(configs[0], tasks, network)]
        sources += [DuelSource(config, tasks, network, beside=sources[0]) for config in configs[1:]]
        runs = stacks(configs, sources[0], quiet)
        configs = _settled(configs, sources, targets, resume, runs)
        settings = [_written(config, tasks) for config in configs]
        for target, own in zip(targets, settings, strict=True):
            check_folder(target, own, resume)
        learners = [
            warm_started(make_learner(config, source), source, config, target)
            for config, source, target in zip(configs, sources, targets, strict=True)
        ]
        if not quiet:
            warn_of_noise(configs, sources[0], learners, targets)
        stopped: list[TrainingStopped] = []
        with compiled_steps(configs, sources):
            for stack in runs:
                trainers = [
                    make_trainer(learners[i], sources[i], targets[i], settings[i], configs[i], resume, quiet)
                    for i in stack
                ]
                stopped += [end for end in run_together(trainers, quiet) if end is not None]
    if stopped:
        raise (
            stopped[0]
            if len(configs) == 1
            else TrainingStopped(f"{len(stopped)} of {len(configs)} runs stopped: {'; '.join(map(str, stopped))}")
        )
    return [load(target, network=network) for target in targets]


def _settled(
    configs: Sequence[TrainConfig],
    sources: Sequence[DuelSource],
    folders: Sequence[Path],
    resume: bool,
    runs: Sequence[Sequence[int]],
) -> list[TrainConfig]:
    """The settings with ``compile`` settled, stack by stack."""
    chosen = list(configs)
    for own in runs:
        found = settled([configs[i] for i in own], sources[own[0]], [folders[i] for i in own], resume)
        for i, config in zip(own, found, strict=True):
            chosen[i] = config
    return chosen


def _check_together(configs: Sequence[TrainConfig], folders: Sequence[Path]) -> None:
    """Refuse runs that cannot be trained together."""
    if not configs or len(folders) != len(configs):
        raise InvalidInputError(
            f"folders: {len(folders)} for {len(configs)} runs: give at least one run, and a folder for each"
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InvalidInputError(f"folders: {', '.join(map(str, folders))} must be different ones")
    first = configs[0].world
    for config in configs[1:]:
        for name, value in config.world.items():
            if value != first[name]:
                raise InvalidInputError(
                    f"{name}={value!r} and {first[name]!r}: runs that are trained together have the same {name}; train them apart"
                )


def _written(config: TrainConfig, tasks: Sequence[Any] | None) -> dict[str, Any]:
    """The settings as ``config.yaml`` holds them."""
    settings = config.to_dict()
    if tasks is not None:
        settings[LISTS[0]] = [dict(task) for task in tasks]
    return settings


def train_foreign(
    task_set: TaskList,
    method: str = "maml",
    folder: AnyPath | None = None,
    resume: bool = False,
    quiet: bool = False,
    network: Network | str = "mlp",
    **settings: Any,
) -> ForeignRun:
    """Train on a user's own environments; see ``train_meta_adversarial`` and ``metaduel.meta.runs.foreign``."""
    factory: Any = task_set.game
    found = describe(factory())
    for name in (*found, "scripted"):
        if name in settings:
            raise InvalidInputError(
                f"{name}={settings[name]!r} follows from task_set and opponents and is not a setting"
            )
    opponents: dict[Role, list[Any]] = {}
    if isinstance(settings.get("opponents"), Mapping):
        given = settings.pop("opponents")
        opponents = {role: several(some) for role, some in given.items()}
    if task_set.validation is not None:
        if "validation_tasks" in settings:
            raise InvalidInputError(
                f"validation_tasks={settings['validation_tasks']!r}: all tasks of the list are validated on; leave it out"
            )
        settings["validation_tasks"] = len(task_set.validation)
    own, kind = (network, "own") if callable(network) else (None, network)
    names = {role: tuple(player_name(one) for one in some) for role, some in opponents.items()}
    config = ForeignConfig(method=method, **found).override(**settings, scripted=names, network=kind)
    config.refuse_idle({**settings, **({} if kind == "mlp" else {"network": kind})})
    with configured(config.threads):
        source = ForeignSource(factory, config, own, opponents, task_set.tasks, task_set.validation)
        target = as_path(folder, "folder") if folder is not None else default_folder(config, config.environment)
        written = config.to_dict()
        for name, tasks in zip(LISTS, (task_set.tasks, task_set.validation), strict=True):
            if tasks is not None:
                written[name] = _recorded(tasks)
        learner = warm_started(make_learner(config, source), source, config, target)
        make_trainer(learner, source, target, written, config, resume, quiet).run()
        return load(target, factory, own)


def _recorded(tasks: Sequence[Any]) -> Any:
    """Tasks as ``config.yaml`` holds them: the tasks themselves if they are plain values, otherwise their number."""
    try:
        return json.loads(json.dumps(list(tasks), allow_nan=False))
    except (TypeError, ValueError):
        return f"{len(tasks)} tasks that are not plain values"


def make_learner(config: RunConfig, source: PlayedSource) -> Learner:
    """The learner at its start.

    Raises:
        InvalidInputError: chains of episodes that memory does not allow.
    """
    check_chains_fit(config, source)
    heads = {role: policy.head_names for role, policy in source.policies.items()}
    learner = find_method(config.method).learner
    start = initial_weights(source.policies, config.seed, source.statistics)
    return learner(start, config.configured, heads)


def make_trainer(
    learner: Learner,
    source: PlayedSource,
    folder: Path,
    settings: dict[str, Any],
    config: RunConfig,
    resume: bool,
    quiet: bool,
) -> Trainer:
    """The trainer with a config's numbers."""
    return Trainer(
        learner,
        source,
        folder,
        settings,
        config.iterations,
        config.validate_every,
        resume,
        quiet,
        config.environment_steps,
        config.player_steps,
    )


def default_folder(config: RunConfig, name: str) -> Path:
    """``runs/<name>-<method>-<seed>-<time>``."""
    return Path("runs") / f"{name}-{config.method}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
