"""Training runs on tasks that are data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights, stack
from metaduel.agents.runtime import configured
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown, without_effect
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import DataPurpose
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.supervised import adapt
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.learner import Learner, Update
from metaduel.meta.learners.maml import MAMLConfig
from metaduel.meta.learners.methods import METHODS, find_method
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, DataProblem, Tasks
from metaduel.meta.runs.checkpoint import load_checkpoint, read_config
from metaduel.meta.runs.trainer import BEST, Trainer, Validation


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A run on tasks that are data.

    Attributes:
        method: a method that needs only losses: ``maml``, ``fomaml``, ``reptile``, ``anil``, ``meta_sgd`` or ``joint``.
        seed: seed of all random numbers.
        iterations: outer steps.
        tasks: tasks per iteration.
        learner: the meta-learner's settings.
        validate_every: iterations between validations, which also write checkpoints.
        validation_tasks: number of validation tasks.
        validation_steps: updates in a validation; 0: as many as in training.
        threads: torch's threads; part of the run, since sums over large tensors differ between thread counts.
    """

    method: str = "maml"
    seed: int = 0
    iterations: int = 1000
    tasks: int = 16
    learner: MAMLConfig = field(default_factory=MAMLConfig)
    validate_every: int = 100
    validation_tasks: int = 100
    validation_steps: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if not find_method(self.method).on_data:
            fitting = ", ".join(name for name, method in METHODS.items() if method.on_data)
            raise InvalidInputError(
                f"method={self.method!r} needs data that its players sample in a game; on losses alone there are: {fitting}"
            )
        for name in ("iterations", "tasks", "validate_every", "validation_tasks", "threads"):
            check_whole(name, getattr(self, name))
        check_whole("validation_steps", self.validation_steps, 0)
        _ = self.configured

    @property
    def configured(self) -> MAMLConfig:
        """The learner's settings, adjusted to the method."""
        return find_method(self.method).configure(self.learner)

    def override(self, **changes: Any) -> DataConfig:
        """A copy with some settings changed; a name of the learner's settings is found there."""
        own, inner = ({f.name for f in fields(kind)} for kind in (DataConfig, MAMLConfig))
        for name in changes:
            if name not in own | inner:
                raise unknown("setting", name, own | inner)
        learner = replace(self.learner, **{n: v for n, v in changes.items() if n not in own})
        return replace(self, **{"learner": learner, **{n: v for n, v in changes.items() if n in own}})


class DataSource:
    """Batches of tasks that are data, for the trainer; see ``trainer.Source``."""

    def __init__(self, tasks: Tasks, config: DataConfig) -> None:
        self.tasks, self.config = tasks, config
        self._validation = tasks.draw(config.validation_tasks, "validation", derive_seed(0, DataPurpose.VALIDATION))

    def problem(self, iteration: int) -> DataProblem:
        """The batch of an iteration."""
        seed = derive_seed(self.config.seed, DataPurpose.TRAIN, iteration)
        return DataProblem(self.tasks, self.tasks.draw(self.config.tasks, "train", seed))

    def record(self, update: Update) -> dict[str, float]:
        """Mean losses at every shot that the learner computed them for."""
        metrics: dict[str, float] = {}
        for shot, losses in enumerate(update.losses):
            for name, kind in (("loss", losses.query), ("support_loss", losses.support)):
                metrics |= {f"{role}/{name}_{shot}": float(value.detach().mean()) for role, value in kind.items()}
        return metrics

    def fixed(self, role: Role) -> Weights:
        """Nothing."""
        return {}

    def validate(self, learner: Learner) -> Work[Validation]:
        """Scores on the validation split after every update; their mean over the updates that the outer loss counts picks the
        best start.
        """
        yield from ()
        metrics: dict[str, float] = {}
        trained = self.config.configured.steps
        rates = {role: learner.rates(role).detach() for role in learner.start}
        players = {role: stack(w, self.config.validation_tasks) for role, w in learner.start.items()}
        steps = (self.config.validation_steps or trained) if trained else 0
        for shot, now in enumerate(adapt(self.tasks, self._validation, players, rates, steps)):
            for role in now:
                with torch.no_grad():
                    score = float(self.tasks.score(role, now, self._validation, shot).mean())
                metrics[f"{role}/validation_score_{shot}"] = score
        for role in players:
            scores = [value for name, value in metrics.items() if name.startswith(f"{role}/validation_score_")]
            counted = learner.counted(scores)
            metrics[f"{role}/score"] = sum(counted) / len(counted)
        return Validation(metrics, rates)

    def state(self) -> dict[str, Tensor]:
        """Nothing: all that is random follows from seed and iteration."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``state``."""


@dataclass(frozen=True)
class DataRun:
    """The result of meta-training.

    Attributes:
        tasks: the tasks.
        start: per player, its weights.
        rates: per player [K, ...], see ``adapt``.
    """

    tasks: Tasks
    start: Players
    rates: dict[Role, Tensor]

    def adapt(self, data: Data, steps: int) -> Iterator[Players]:
        """The stacked weights after 0, 1, ..., ``steps`` updates on each task of ``data``."""
        players = {role: stack(weights, len(data[0])) for role, weights in self.start.items()}
        return adapt(self.tasks, data, players, self.rates, steps)


def meta_train(
    task_set: Tasks,
    folder: AnyPath,
    resume: bool = False,
    quiet: bool = False,
    config: DataConfig | None = None,
    **settings: Any,
) -> DataRun:
    """Meta-train on tasks of your own into a run folder.

    Args:
        task_set: the tasks.
        folder: the run's folder.
        resume: continue the run in ``folder``.
        quiet: no live display.
        config: settings to begin with.
        **settings: fields of ``DataConfig`` and ``MAMLConfig``.

    Returns:
        The starts that were best on the validation split.

    Raises:
        InvalidInputError: settings or tasks that cannot work.
        TrainingStopped: a number that is not finite.
    """
    config = (config or DataConfig()).override(**settings)
    # On data, a method without an inner step is validated as it is.
    for name in (*find_method(config.method).idle(config.learner), *(() if config.configured.steps else ("adapts",))):
        if name in settings:
            raise without_effect(name, settings[name], f"method {config.method} has no use for it")
    target = as_path(folder, "folder")
    heads = {role: network.head_names for role, network in task_set.networks.items()}
    with configured(config.threads):
        learner = find_method(config.method).learner(task_set.init(config.seed), config.configured, heads)
        source = DataSource(task_set, config)
        Trainer(learner, source, target, asdict(config), config.iterations, config.validate_every, resume, quiet).run()
        return load_data_run(task_set, target)


def load_data_run(tasks: Tasks, folder: AnyPath) -> DataRun:
    """A finished run on ``tasks``.

    Raises:
        InvalidInputError: no such run, or one on other networks.
    """
    folder = as_path(folder, "folder")
    read_config(folder)
    tensors, _ = load_checkpoint(folder / BEST)
    start: Players = {}
    for role, weights in tasks.init(0).items():
        found = {name: tensors.get(f"{role}/start/{name}") for name in weights}
        if any(value is None or value.shape != weights[name].shape for name, value in found.items()):
            raise InvalidInputError(f"{folder}: its {role}'s weights are not those of these tasks' network")
        start[role] = {name: value for name, value in found.items() if value is not None}
    return DataRun(tasks, start, {role: tensors[f"{role}/rates"] for role in start})
