"""Tasks that are data and a loss: classification, regression, generation. Bring your own, see ``Tasks``.

They are a ``Problem`` like any other, so that every learner that needs losses alone takes them as it is (``Method.on_data``), in
the trainer that games are trained in. An update descends the loss on a task's support; the learner is judged by the loss on its
query. Random numbers come from seeds that ``draw`` is given, so that a resumed run equals an unbroken one.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from metaduel.agents.networks import Network
from metaduel.agents.policies import Weights, stack
from metaduel.agents.runtime import configure
from metaduel.envs.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.noise import derive_seed
from metaduel.envs.spec import Role, Split
from metaduel.meta.checkpoint import load_checkpoint, read_config
from metaduel.meta.inner import adapt_step, rate_at
from metaduel.meta.maml import MAML, MAMLConfig
from metaduel.meta.methods import METHODS, find_method
from metaduel.meta.problem import Drawn, Losses, Players
from metaduel.meta.trainer import BEST, Trainer

Data = tuple[Tensor, ...]  # [N, ...] each: all that a batch of N tasks is made of
Part = Literal["support", "query"]
TRAIN, INIT, VALIDATION = range(3)  # what a seed is for


class Tasks(ABC):
    """A distribution of tasks: how to draw a batch of them, and what the loss is.

    One player's network is the ``protagonist``'s. Of two, each descends its own loss, with the other's weights as constants: a
    generator is the protagonist, its discriminator the adversary.

    Attributes:
        networks: per player, on stacked weights.
    """

    networks: Mapping[Role, Network]

    @abstractmethod
    def draw(self, n: int, split: Split, seed: int) -> Data:
        """All that ``n`` tasks of a split are made of: tensors [n, ...] each, the same for the same seed."""

    @abstractmethod
    def loss(self, role: Role, players: Players, data: Data, part: Part, shot: int) -> Tensor:
        """A player's loss on each task.

        Args:
            role: whose.
            players: stacked weights.
            data: from ``draw``.
            part: on what the update descends, or on what its outcome is judged by.
            shot: how many updates there were.

        Returns:
            [n], differentiable.
        """

    def score(self, role: Role, players: Players, data: Data, shot: int) -> Tensor:
        """How good a player is on each task after ``shot`` updates: [n], higher is better. Minus the loss on the query."""
        return -self.loss(role, players, data, "query", shot)

    def init(self, seed: int) -> dict[Role, Weights]:
        """Fresh weights of every player."""
        return {
            role: network.init(derive_seed(seed, INIT, i)) for i, (role, network) in enumerate(self.networks.items())
        }


class _Later(dict[Role, Tensor]):
    """Losses that are computed when they are asked for: who descends the support alone does not pay for the query."""

    def __init__(self, roles: Collection[Role], compute: Callable[[Role], Tensor]) -> None:
        super().__init__()
        self._roles, self._compute = roles, compute

    def __missing__(self, role: Role) -> Tensor:
        self[role] = self._compute(role)
        return self[role]

    def __iter__(self) -> Iterator[Role]:
        return iter(self._roles)

    def __contains__(self, role: object) -> bool:
        return role in self._roles


class DataProblem:
    """A batch of tasks that are data, as a ``Problem``.

    Args:
        tasks: what the loss is.
        data: of N tasks, from ``tasks.draw``.

    Raises:
        InvalidInputError: nothing in ``data``, or tensors of different N.

    Attributes:
        history: per shot, what was asked for so far.
    """

    def __init__(self, tasks: Tasks, data: Data) -> None:
        sizes = [len(tensor) if tensor.dim() else 0 for tensor in data]
        if not sizes or len(set(sizes)) > 1 or not sizes[0]:
            raise InvalidInputError(f"draw gave tensors of {sizes} tasks: must be one and the same number, at least 1")
        self._tasks, self._data = tasks, tuple(data)
        self.history: dict[int, Losses] = {}

    @property
    def tasks(self) -> dict[Role, int]:
        """See ``Problem``."""
        return dict.fromkeys(self._tasks.networks, len(self._data[0]))

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """See ``Problem.losses``; there is one set of data, and what a shot's are is for the tasks' loss to say."""
        tasks, data = self._tasks, self._data  # and not self, which keeps what is made here: a cycle outlives its use

        def later(part: Part) -> _Later:
            return _Later(list(players), lambda role: _loss(tasks, data, role, players, part, shot, joint))

        self.history[shot] = Losses(later("support"), later("query"))
        return self.history[shot]

    def drop(self, role: Role, tasks: list[int]) -> None:
        """See ``Problem.drop``."""
        keep = [n for n in range(len(self._data[0])) if n not in tasks]
        if not keep:
            raise FloatingPointError(f"every task of the {role}'s blew up")
        self._data = tuple(tensor[keep] for tensor in self._data)
        self.history = {}

    def draw(self, players: Players, shot: int) -> Drawn:
        """See ``Problem.draw``; the data are there already."""
        reference = weakref.ref(
            self
        )  # the graph of an update that is recomputed holds this, and ``history`` holds the graph

        def losses(own: Players, joint: bool) -> Losses:
            problem = reference()
            assert problem is not None
            return problem.losses(own, shot, joint)

        return losses


def _loss(tasks: Tasks, data: Data, role: Role, players: Players, part: Part, shot: int, joint: bool) -> Tensor:
    """A player's loss on each task, checked."""
    given = {r: w if joint or r == role else _constant(w) for r, w in players.items()}
    loss, n = tasks.loss(role, given, data, part, shot), len(data[0])
    if not isinstance(loss, Tensor) or tuple(loss.shape) != (n,):
        got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise InvalidInputError(f"the {role}'s {part} loss is {got}, must be one number for each of {n} tasks: [{n}]")
    if not loss.requires_grad and any(w.requires_grad for w in players[role].values()):
        raise InvalidInputError(
            f"the {role}'s {part} loss is not differentiable: no graph leads from it to the weights"
        )
    return loss


def _constant(weights: Weights) -> Weights:
    return {name: value.detach() for name, value in weights.items()}


def adapt(tasks: Tasks, data: Data, players: Players, rates: Mapping[Role, Tensor], steps: int) -> Iterator[Players]:
    """Adapt to every task at once.

    Args:
        tasks: what the loss is.
        data: of N tasks.
        players: weights to start from, [N, ...] each.
        rates: per player [K, ...], see ``inner.step_sizes``; beyond K the last are kept.
        steps: how many updates.

    Yields:
        The stacked weights after 0, 1, ..., ``steps`` updates.
    """
    problem = DataProblem(tasks, data)
    for shot in range(steps + 1):
        players = {role: {n: v.detach().requires_grad_() for n, v in w.items()} for role, w in players.items()}
        yield players
        if shot < steps:
            sizes = {role: rate_at(rates[role], shot) for role in players}
            players = adapt_step(players, problem.losses(players, shot).support, sizes, create_graph=False)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A run on tasks that are data.

    Attributes:
        method: one that needs losses alone: ``maml``, ``fomaml``, ``reptile``, ``anil``, ``meta_sgd`` or ``joint``.
        seed: of everything random.
        iterations: outer steps.
        tasks: per iteration.
        learner: the meta-learner's settings.
        validate_every: iterations between validations, which also write checkpoints.
        validation_tasks: how many tasks are validated on.
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
        """The learner's settings as the method wants them."""
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
        self._validation = tasks.draw(config.validation_tasks, "validation", derive_seed(0, VALIDATION))

    def problem(self, iteration: int) -> DataProblem:
        """The batch of an iteration."""
        seed = derive_seed(self.config.seed, TRAIN, iteration)
        return DataProblem(self.tasks, self.tasks.draw(self.config.tasks, "train", seed))

    def told(self, problem: DataProblem) -> dict[str, float]:
        """Mean losses at every shot, as far as the learner asked for them."""
        metrics: dict[str, float] = {}
        for shot, losses in problem.history.items():
            for name, kind in (("loss", losses.query), ("support_loss", losses.support)):
                metrics |= {f"{role}/{name}_{shot}": float(value.detach().mean()) for role, value in kind.items()}
        return metrics

    def validate(self, learner: MAML) -> dict[str, float]:
        """Scores on the validation split after every update; their mean over the updates that the outer loss counts picks the
        best start.
        """
        metrics: dict[str, float] = {}
        steps = self.config.validation_steps or learner.config.steps
        rates = {role: learner.rates(role).detach() for role in learner.start}
        players = {role: stack(w, self.config.validation_tasks) for role, w in learner.start.items()}
        for shot, now in enumerate(
            adapt(self.tasks, self._validation, players, rates, steps if learner.config.steps else 0)
        ):
            for role in now:
                with torch.no_grad():
                    score = float(self.tasks.score(role, now, self._validation, shot).mean())
                metrics[f"{role}/validation_score_{shot}"] = score
        for role in players:
            scores = [value for name, value in metrics.items() if name.startswith(f"{role}/validation_score_")]
            counted = learner.counted(scores)
            metrics[f"{role}/score"] = sum(counted) / len(counted)
        return metrics

    def state(self) -> dict[str, Tensor]:
        """Nothing: all that is random follows from seed and iteration."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``state``."""

    def kept(self, role: Role) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class DataRun:
    """What was meta-learned.

    Attributes:
        tasks: on what.
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
    folder: str | Path,
    resume: bool = False,
    quiet: bool = False,
    config: DataConfig | None = None,
    **settings: Any,
) -> DataRun:
    """Meta-train on tasks of your own into a run folder.

    Args:
        task_set: what to learn on.
        folder: of the run.
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
    configure(config.threads)
    heads = {role: network.head_names for role, network in task_set.networks.items()}
    learner = find_method(config.method).learner(task_set.init(config.seed), config.configured, heads)
    source = DataSource(task_set, config)
    Trainer(
        learner, source, Path(folder), asdict(config), config.iterations, config.validate_every, resume, quiet
    ).run()
    return load_data_run(task_set, folder)


def load_data_run(tasks: Tasks, folder: str | Path) -> DataRun:
    """A finished run on ``tasks``.

    Raises:
        InvalidInputError: no such run, or one on other networks.
    """
    folder = Path(folder)
    read_config(folder)
    tensors, _ = load_checkpoint(folder / BEST)
    start: Players = {}
    for role, weights in tasks.init(0).items():
        found = {name: tensors.get(f"{role}/start/{name}") for name in weights}
        if any(value is None or value.shape != weights[name].shape for name, value in found.items()):
            raise InvalidInputError(f"{folder}: its {role}'s weights are not those of these tasks' network")
        start[role] = {name: value for name, value in found.items() if value is not None}
    return DataRun(tasks, start, {role: tensors[f"{role}/rates"] for role in start})
