"""The kinds of workloads that two commits are compared on. They use public interfaces alone, which older packages have, too.

A kind is made of plain values, ``warm``s up once, and ``play``s as often as it is asked: each time the same work. Where one
thread works, a second is one of the process's own processor time, which other processes on the machine cannot stretch.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gymnasium
import torch

import metaduel
from metaduel.benchmarks.tools.speed.measure import ProductLog, peak_memory, product_seconds
from metaduel.envs import ROLES, Duel, make_game
from metaduel.meta.runs import train as training
from metaduel.meta.runs.config import TrainConfig

Settings = Mapping[str, Any]
ACTIONS_AHEAD = 8  # sets of random actions, taken in turn
FEW = {"tasks": 2}  # of an iteration that only warms up


class Played(NamedTuple):
    """A measurement.

    Attributes:
        work: how much was done: environment steps, iterations, chains, cells.
        cost: what it took: seconds, or MiB.
    """

    work: float
    cost: float


class Kind(Protocol):
    """A workload."""

    def warm(self) -> None:
        """Do what the first time alone takes."""
        ...

    def play(self) -> Played:
        """Do the work once."""
        ...

    def floor(self) -> Played | None:
        """The matrix products of the work alone; None: it has none, or they are not counted."""
        ...


def clock(threads: int) -> Callable[[], float]:
    """The clock that fits this number of threads."""
    return time.process_time if threads == 1 else time.perf_counter


@contextlib.contextmanager
def own_clock(threads: int) -> Iterator[None]:
    """Have ``seconds`` of a run's metrics counted by that clock; a trainer looks at ``time.perf_counter``."""
    before = time.perf_counter
    time.perf_counter = clock(threads)
    try:
        yield
    finally:
        time.perf_counter = before


class CoreSteps:
    """Steps of a game's batched core, both seats' observations included.

    Args:
        threads: torch's threads.
        game: the family.
        batch: rows.
        least: steps of all rows in a measurement, rounded up to whole episodes.
    """

    def __init__(self, threads: int, game: str, batch: int, least: int) -> None:
        self.clock, self.batch = clock(threads), batch
        spec = metaduel.find(game)
        self.duel = Duel(make_game(spec))
        tasks = metaduel.sample_tasks(game, min(batch, 256))
        params = self.duel.game.params([tasks[row % len(tasks)] for row in range(batch)])
        row = torch.arange(batch, dtype=torch.int64, device="cpu")
        self.start = self.duel.reset(params, row, torch.zeros_like(row))
        self.actions = [
            tuple(drawn(self.duel.action_space(role), batch, i) for role in ROLES) for i in range(ACTIONS_AHEAD)
        ]
        self.episodes = max(1, -(-least // (batch * self.duel.horizon)))

    def warm(self) -> None:
        """One episode in every row."""
        self._episode()

    def play(self) -> Played:
        """See ``Kind``."""
        start = self.clock()
        for _ in range(self.episodes):
            self._episode()
        return Played(self.batch * self.duel.horizon * self.episodes, self.clock() - start)

    @torch.no_grad()
    def _episode(self) -> None:
        episode = self.start
        for t in range(self.duel.horizon):
            episode, _ = self.duel.step(episode, self.actions[t % ACTIONS_AHEAD])
            self.duel.observe(episode)

    def floor(self) -> None:
        """None: a game multiplies no matrices."""


def drawn(space: gymnasium.Space[Any], batch: int, seed: int) -> Any:
    """Uniform actions [batch, ...] of a space."""
    made = gymnasium.vector.utils.batch_space(space, batch)
    made.seed(seed)
    return torch.from_numpy(made.sample())


class VectorSteps:
    """Steps of a Gymnasium vector environment that resets its rows itself.

    Args:
        threads: torch's threads.
        env: the environment's id; one of ours, or another that is registered.
        batch: environments.
        least: steps of all environments in a measurement.
        mode: ``vectorization_mode`` of ``gymnasium.make_vec``.
    """

    def __init__(self, threads: int, env: str, batch: int, least: int, mode: str = "vector_entry_point") -> None:
        self.clock, self.batch, self.steps = clock(threads), batch, max(1, least // batch)
        self.envs = gymnasium.make_vec(env, num_envs=batch, vectorization_mode=mode)
        self.envs.action_space.seed(0)
        self.actions = [self.envs.action_space.sample() for _ in range(ACTIONS_AHEAD)]

    def warm(self) -> None:
        """Reset, and some steps, so that rows are apart in their episodes where episodes end at different times."""
        self.envs.reset(seed=0)
        self._step(min(self.steps, 100))

    def play(self) -> Played:
        """See ``Kind``."""
        start = self.clock()
        self._step(self.steps)
        return Played(self.batch * self.steps, self.clock() - start)

    def _step(self, steps: int) -> None:
        for t in range(steps):
            self.envs.step(self.actions[t % ACTIONS_AHEAD])

    def floor(self) -> None:
        """None: a game multiplies no matrices."""


def config_of(threads: int, settings: Settings, **more: Any) -> TrainConfig:
    """A run's settings. ``compile``, which is newer than some packages, is left out where there is no such setting."""
    own = {**settings, **more, "threads": threads}
    if "compile" not in TrainConfig.__dataclass_fields__:
        own.pop("compile", None)
    named = {name: own.pop(name) for name in ("game", "method")}
    return TrainConfig(game=named["game"]).override(method=named["method"]).override(**own)


class Training:
    """Iterations of a training run, without its set-up, its first iterations and its validation.

    Args:
        threads: torch's threads.
        settings: those of the run, ``game`` and ``method`` among them.
        timed: number of iterations to time.
        skipped: iterations before them.
        each: work of an iteration; None: its environment steps.
    """

    def __init__(
        self, threads: int, settings: Settings, timed: int, skipped: int = 1, each: float | None = None
    ) -> None:
        self.threads, self.clock, self.settings = threads, clock(threads), settings
        self.timed, self.skipped, self.each = timed, skipped, each

    def _train(self, iterations: int, **more: Any) -> list[dict[str, float]]:
        """The run's metrics."""
        more |= {"iterations": iterations, "validate_every": iterations}
        config = config_of(self.threads, self.settings, **more)
        gc.collect()
        with tempfile.TemporaryDirectory() as folder, own_clock(self.threads):
            training.train(config, Path(folder) / "run", quiet=True)
            return metrics(Path(folder) / "run")

    def warm(self) -> None:
        """One iteration; a small one where a run's first counts, too, since it is long."""
        self._train(1, **({} if self.skipped else FEW))

    def play(self) -> Played:
        """See ``Kind``; the last iteration, which validates, is not counted."""
        rows = [{"seconds": 0.0, "environment_steps": 0.0}, *self._train(self.skipped + self.timed + 1)]
        first, last = rows[self.skipped], rows[self.skipped + self.timed]
        steps, seconds = (last[name] - first[name] for name in ("environment_steps", "seconds"))
        return Played(steps if self.each is None else self.each * self.timed, seconds)

    def floor(self) -> Played:
        """The matrix products of an iteration: a second one, less what a run of one has; or a long one with its validation."""
        log, steps = self._logged(1)
        if self.skipped:
            one, (log, both) = log, self._logged(2)
            log.calls, steps = log.calls - one.calls, both - steps  # shapes that are the first's alone fall out
        return Played(steps if self.each is None else self.each, product_seconds(log, clock=self.clock))

    def _logged(self, iterations: int) -> tuple[ProductLog, float]:
        with ProductLog() as log:
            rows = self._train(iterations)
        return log, rows[-1]["environment_steps"]


def metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def train_each(configs: Sequence[TrainConfig], folders: Sequence[Path]) -> None:
    """Train runs, all in one process: as stacked runs where the package has them, one after the other elsewhere."""
    together = getattr(training, "train_all", None)
    if together is not None:
        together(configs, folders, quiet=True)
        return
    for config, folder in zip(configs, folders, strict=True):
        training.train(config, folder, quiet=True)


class Stacked:
    """Training runs that differ in seeds and rates, in one process. Their set-up and validation are not counted: what takes the
    time are ``many`` iterations less what ``few`` take.

    Args:
        threads: torch's threads.
        settings: those of every run.
        seeds: number of seeds.
        rates: outer step sizes.
        few: iterations.
        many: iterations.
    """

    def __init__(
        self, threads: int, settings: Settings, seeds: int, rates: Sequence[float], few: int, many: int
    ) -> None:
        self.threads, self.few, self.many, self.clock = threads, few, many, clock(threads)
        self.runs = [
            {**settings, "seed": seed, "outer_lr": rate} for seed, rate in itertools.product(range(seeds), rates)
        ]

    def train(self, iterations: int, **more: Any) -> Played:
        """Environment steps of all runs, and the seconds of the whole call."""
        more |= {"iterations": iterations, "validate_every": iterations}
        configs = [config_of(self.threads, one, **more) for one in self.runs]
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            folders = [Path(folder) / str(number) for number in range(len(configs))]
            start = self.clock()
            train_each(configs, folders)
            seconds = self.clock() - start
            return Played(sum(metrics(one)[-1]["environment_steps"] for one in folders), seconds)

    def warm(self) -> None:
        """One iteration on few tasks."""
        self.train(1, **FEW)

    def play(self) -> Played:
        """See ``Kind``."""
        few, many = self.train(self.few), self.train(self.many)
        return Played(many.work - few.work, many.cost - few.cost)

    def floor(self) -> None:
        """None: it is that of a single run, see ``Training``."""


class StackedMemory:
    """The largest memory, MiB, of a process that does nothing but train such runs.

    Args:
        threads: torch's threads.
        settings: those of every run.
        seeds: number of runs.
        iterations: of each.
    """

    def __init__(self, threads: int, settings: Settings, seeds: int, iterations: int) -> None:
        self.arguments = threads, dict(settings), seeds, iterations

    def warm(self) -> None:
        """Nothing: a process of its own is made for every measurement."""

    def play(self) -> Played:
        """See ``Kind``."""
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return Played(1, pool.apply(stacked_memory, self.arguments))

    def floor(self) -> None:
        """None: memory has no products."""


def stacked_memory(threads: int, settings: Settings, seeds: int, iterations: int) -> float:
    """Train, and tell the process's largest memory."""
    Stacked(threads, settings, seeds, (0.01,), iterations, iterations).train(iterations)
    return peak_memory()


class Evaluation:
    """The few-shot evaluation of runs; a cell is one entry on one task against one opponent after one shot.

    Args:
        threads: torch's threads.
        settings: those of the runs, which are trained for one iteration.
        seeds: number of runs.
        protocol: what ``metaduel.evaluate`` is asked.
    """

    def __init__(self, threads: int, settings: Settings, seeds: int, protocol: Settings) -> None:
        self.clock, self.protocol = clock(threads), protocol
        self.folder = tempfile.TemporaryDirectory()
        self.runs = [Path(self.folder.name) / f"run{seed}" for seed in range(seeds)]
        for seed, run in enumerate(self.runs):
            training.train(config_of(threads, settings, seed=seed, iterations=1), run, quiet=True)

    def warm(self) -> None:
        """All of it."""
        self.play()

    def play(self) -> Played:
        """See ``Kind``."""
        gc.collect()
        start = self.clock()
        table = metaduel.evaluate(self.runs, baselines=False, **self.protocol)
        seconds = self.clock() - start
        return Played(len(table) / self.protocol["test_episodes"], seconds)

    def floor(self) -> Played:
        """The matrix products of the evaluation."""
        with ProductLog() as log:
            cells = self.play().work
        return Played(cells, product_seconds(log, clock=self.clock))


# By the name under which another process is asked for them.
KINDS: dict[str, Callable[..., Kind]] = {
    "core": CoreSteps,
    "vector": VectorSteps,
    "training": Training,
    "stacked": Stacked,
    "memory": StackedMemory,
    "evaluation": Evaluation,
}
