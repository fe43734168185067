"""The training loop. It names no algorithm and no game: a learner, a source of problems, and a run folder.

Everything random is derived from (seed, iteration), so a resumed run equals an unbroken one bit for bit on the same machine
with the same number of threads.
"""

from __future__ import annotations

import csv
import io
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.work import Work, together
from metaduel.meta.learners.learner import Learner, Update
from metaduel.meta.problems.problem import Tasks
from metaduel.meta.runs.checkpoint import AGENT, load_checkpoint, read_config, save_checkpoint, write_config

LAST, BEST = "checkpoints/last.safetensors", "checkpoints/best.safetensors"
_SHOWN = ("return", "loss", "support_loss")


class TrainingStopped(RuntimeError):
    """Training produced a number that is not finite; the last good checkpoint is kept."""


class Validation(NamedTuple):
    """The result of a validation.

    Attributes:
        metrics: by name; ``<role>/score`` picks that role's best checkpoint (higher is better).
        rates: per role, the step sizes of the updates that its score is of, see ``Learner.rates``; empty: there were none.
    """

    metrics: dict[str, float]
    rates: Mapping[Role, Tensor]


class Source(Protocol):
    """The source of tasks. The trainer knows games and data only through this interface."""

    def problem(self, iteration: int) -> Tasks:
        """The tasks of an iteration; the same for the same iteration."""
        ...

    def record(self, update: Update) -> dict[str, float]:
        """Record an outer step and return its metrics. ``<role>/return_<shot>`` or ``<role>/loss_<shot>`` are displayed;
        ``environment_steps`` and ``<role>/player_steps`` are counted.
        """
        ...

    def fixed(self, role: Role) -> Weights:
        """A player's weights that never adapt, after all recorded steps; empty: they do not change."""
        ...

    def validate(self, learner: Learner) -> Work[Validation]:
        """Test the learner on the validation split, in pieces of work."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The recorded state, by name, as ``load`` needs it."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state``; it may hold more under other names."""
        ...


class Trainer:
    """Trains ``learner`` on ``source`` into a run folder.

    Args:
        learner: the learner.
        source: the source of its tasks.
        folder: the run's folder.
        config: the run's settings, as written to ``config.yaml``.
        iterations: outer steps in all.
        validate_every: iterations between validations and checkpoints.
        resume: continue the run in ``folder``.
        quiet: no live display.
        environment_steps: most environment steps, if that is before the last iteration; 0: no limit.
        player_steps: steps of its own that every learner is to play, if that is before; 0: no limit.

    Raises:
        InvalidInputError: ``folder`` already holds a run (without ``resume``), or a run with other settings.
    """

    def __init__(
        self,
        learner: Learner,
        source: Source,
        folder: Path,
        config: Mapping[str, Any],
        iterations: int,
        validate_every: int,
        resume: bool = False,
        quiet: bool = False,
        environment_steps: int = 0,
        player_steps: int = 0,
    ) -> None:
        self.learner, self.source, self.folder = learner, source, folder
        self.iterations, self.validate_every, self.quiet = iterations, validate_every, quiet
        self.environment_steps, self.player_steps = environment_steps, player_steps
        self.iteration, self.seconds, self.steps = 0, 0.0, 0
        # Steps of each learner's own; None: older runs did not count them.
        self.own_steps: dict[str, int] | None = dict.fromkeys(learner.start, 0)
        self.rounds = 0  # iterations that were begun since the run was loaded
        self._best: dict[str, float] = {}
        self._best_tensors: dict[str, Tensor] = {}
        self._rows: list[dict[str, float]] = []
        check_folder(folder, config, resume)
        if _holds_run(folder):
            self._load()
        else:
            write_config(folder, config)

    def run(self) -> None:
        """Train to the end, or until Ctrl-C, which saves first.

        Raises:
            TrainingStopped: a number that is not finite; the message names it and the iteration.
            KeyboardInterrupt: after saving.
        """
        (stopped,) = run_together([self], self.quiet)
        if stopped is not None:
            raise stopped

    def training(self, watch: Watch) -> Work[None]:
        """The training in pieces, see ``adaptation.work``.

        Args:
            watch: says whether to stop, and shows the progress.

        Raises:
            TrainingStopped: see ``run``.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import SummaryWriter

        start, before = time.perf_counter(), self.seconds
        events = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.iteration + 1)  # type: ignore[no-untyped-call]
        with events as writer:
            while self.done < 1 and not watch.stops(self):
                number = self.iteration + 1
                self.rounds += 1
                try:
                    metrics = yield from self._iterate()
                    validated = number % self.validate_every == 0 or self._done_after(number) >= 1
                    if validated:
                        validation = yield from self.source.validate(self.learner)
                        metrics |= validation.metrics
                except FloatingPointError as error:
                    raise self._stopped(str(error)) from None
                self._check_finite(metrics)
                if validated:
                    self._keep_best(validation, number)
                self.iteration, self.seconds = number, before + (time.perf_counter() - start) * watch.share
                metrics["seconds"] = self.seconds
                self._rows.append({"iteration": float(number), **metrics})
                values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
                writer.file_writer.add_summary(
                    Summary(value=values), number
                )  # one event: one for each value takes 2 ms
                watch.show(self, metrics, validated)
                if validated or watch.stops(self):
                    self._save()

    @property
    def done(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return self._done_after(self.iteration)

    def _done_after(self, iterations: int, of: float = 1.0) -> float:
        """The same for this number of iterations and the steps played, times ``of``, in the order of operations of old runs, so
        that they are repeated to the last digit.
        """
        own = min((self.own_steps or {}).values(), default=0)
        return max(
            of * iterations / self.iterations,
            of * self.steps / (self.environment_steps or math.inf),
            of * own / (self.player_steps or math.inf),
        )

    @property
    def expected(self) -> int:
        """Iterations of the whole training, estimated if steps are limited."""
        return max(self.iteration, round(self.iteration / self.done)) if self.iteration else self.iterations

    def _iterate(self) -> Work[dict[str, float]]:
        problem = self.source.problem(self.iteration)
        update = yield from self.learner.updating(problem, 1.0 - self._done_after(self.iteration, 0.9))
        metrics = update.metrics | self.source.record(update)
        self._normalise()
        if "environment_steps" in metrics:
            self.steps += int(metrics["environment_steps"])
            metrics["environment_steps"] = float(self.steps)
        for role in self.learner.start:
            own = metrics.pop(f"{role}/player_steps", None)
            if own is not None and self.own_steps is not None:
                self.own_steps[role] += int(own)
                metrics[f"{role}/player_steps"] = float(self.own_steps[role])
        return metrics

    def _normalise(self) -> None:
        for role in self.learner.start:
            if fixed := self.source.fixed(role):
                self.learner.starts.normalise(role, fixed)

    def _check_finite(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self._stopped(f"{name} is not finite")

    def _stopped(self, why: str) -> TrainingStopped:
        path = self.folder / LAST
        kept = f"the last good checkpoint is kept in {path}" if path.exists() else "there is no checkpoint yet"
        return TrainingStopped(f"iteration {self.iteration + 1}: {why}; {kept}")

    def _keep_best(self, validation: Validation, iteration: int) -> None:
        """Keep the best start of each role on its own, and the step sizes with which it was the best: the panel rates each role
        against fixed opponents.
        """
        for role in self.learner.start:
            score = validation.metrics[f"{role}/score"]
            if score > self._best.get(f"{role}/score", -math.inf):
                self._best |= {f"{role}/score": score, f"{role}/iteration": iteration}
                found = {f"{role}/start/{name}": value for name, value in self.learner.start[role].items()}
                found[f"{role}/rates"] = validation.rates[role]
                self._best_tensors |= {name: value.detach().clone() for name, value in found.items()}

    def _save(self) -> None:
        state: dict[str, Any] = {"iteration": self.iteration, "seconds": self.seconds, "best": self._best}
        state |= {"steps": self.steps, "player_steps": self.own_steps}
        if self._best_tensors:
            save_checkpoint(self.folder / BEST, self._best_tensors, state)
        tensors = self.learner.state() | {f"best/{name}": value for name, value in self._best_tensors.items()}
        tensors |= self.source.state()
        write_atomic(self.folder / "metrics.csv", _csv(self._rows).encode())
        save_checkpoint(self.folder / LAST, tensors, state)

    def _load(self) -> None:
        if not (self.folder / LAST).exists():
            if (self.folder / "metrics.csv").exists():
                raise InvalidInputError(
                    f"{self.folder / LAST}: no such checkpoint, but metrics.csv says that there was one: put it back, or name "
                    "another folder to start over"
                )
            return  # stopped before its first checkpoint
        tensors, state = load_checkpoint(self.folder / LAST)
        self.learner.load({name: value for name, value in tensors.items() if not name.startswith("best/")})
        self.source.load(tensors)
        self._normalise()  # older runs hold only the recorded statistics
        self._best_tensors = {n.removeprefix("best/"): v for n, v in tensors.items() if n.startswith("best/")}
        self.iteration, self.seconds, self.steps = state["iteration"], state["seconds"], state["steps"]
        self._best, self.own_steps = state["best"], state.get("player_steps")
        path = self.folder / "metrics.csv"
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            # Rows that the checkpoint does not cover will be computed again.
            self._rows = [row for row in rows if row["iteration"] <= self.iteration]

    def note(self, metrics: Mapping[str, float]) -> str:
        """Returns or losses at the shots of an iteration, for people."""
        parts = []
        for role in self.learner.start:
            found = ([metrics[n] for k in range(100) if (n := f"{role}/{kind}_{k}") in metrics] for kind in _SHOWN)
            shots = next((values for values in found if values), [])
            parts.append(f"{role}: " + " > ".join(f"{value:.2f}" for value in shots))
        return "  ".join(parts)


def check_folder(folder: Path, config: Mapping[str, Any], resume: bool) -> None:
    """Refuse a folder that a run with these settings cannot have.

    Raises:
        InvalidInputError: it holds a saved agent, a run (without ``resume``), or a run with other settings.
    """
    if (folder / AGENT).exists():
        raise InvalidInputError(f"{folder} holds a saved agent: name another folder")
    if not _holds_run(folder):
        return
    if not resume:
        raise InvalidInputError(f"{folder} holds a run already: resume it (--resume) or name another folder")
    old, new = _flat(read_config(folder)), _flat(config)
    for name in sorted(set(old) | set(new), key=lambda one: (one not in ("game", "method"), one)):
        if name not in old and (not new[name] or _BEFORE.get(name) == new[name]):
            continue  # a setting that is newer than the run, and off
        if old.get(name) != new.get(name):
            if name not in old:
                raise InvalidInputError(
                    f"{folder} was started before there was {name}={new[name]!r}, and cannot go on with it: name another folder"
                )
            raise InvalidInputError(
                f"{folder} was started with {name}={old[name]!r}, not {new.get(name)!r}: "
                "resume with the same settings or name another folder"
            )


# What runs of before there were these settings have, where that is not off.
_BEFORE = {"opponents_at_once": 2, "learner.exploration": 1.0, "learner.inner_decay": 1.0}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by name, those of the learner and of the loss with a prefix."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inside = value if name in ("learner", "loss") and isinstance(value, Mapping) else None
        found |= {name: value} if inside is None else {f"{name}.{key}": one for key, one in inside.items()}
    return found


def _holds_run(folder: Path) -> bool:
    return (folder / LAST).exists() or (folder / "config.yaml").exists()


def run_together(trainers: Sequence[Trainer], quiet: bool = False) -> list[TrainingStopped | None]:
    """Train to the end, or until Ctrl-C, which saves every run first. Runs advance in step, and what they have in common is done
    at once, see ``adaptation.work``.

    Args:
        trainers: of one or more runs.
        quiet: no live display.

    Returns:
        For every run that stopped early its error; the others go on.

    Raises:
        KeyboardInterrupt: after saving.
    """
    with _Watch(trainers, quiet) as watch:
        ends = together([one.training(watch) for one in trainers], lambda i: trainers[i].rounds)
    for end in ends:
        if end is not None and not isinstance(end, TrainingStopped):
            raise end
    if watch.interrupted:
        raise KeyboardInterrupt
    return ends


class Watch(Protocol):
    """What a training asks and tells while it runs."""

    @property
    def share(self) -> float:
        """A run's share of the time that passes."""
        ...

    def stops(self, trainer: Trainer) -> bool:
        """Whether a run, between two iterations, is to save and stop."""
        ...

    def show(self, trainer: Trainer, metrics: Mapping[str, float], validated: bool) -> None:
        """Show an iteration."""
        ...


class _Watch:
    """Shows the progress of runs that advance in step: that of the one which has most left."""

    def __init__(self, trainers: Sequence[Trainer], quiet: bool) -> None:
        self.trainers = trainers
        self._stack, self._interrupts = ExitStack(), Interrupts()
        console = Console(file=sys.stderr)
        self._progress: Progress | None = None
        self._lines = not quiet and not console.is_terminal
        first = trainers[0]
        if not quiet and console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            )  # fmt: skip
            self._progress = Progress(*columns, console=console)
            self._bar = self._progress.add_task(self._name, total=first.expected, completed=first.iteration, note="")

        self._last: int | None = None  # the round after which all stop

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._interrupts.noticed

    @property
    def share(self) -> float:
        """See ``Watch``."""
        return 1 / len(self.trainers)

    def stops(self, trainer: Trainer) -> bool:
        """See ``Watch``; all runs stop after the same round, so that they are in step again when they are resumed."""
        if not self.interrupted:
            return False
        if self._last is None:
            self._last = max(one.rounds for one in self.trainers)
        return trainer.rounds >= self._last

    @property
    def _name(self) -> str:
        more = len(self.trainers) - 1
        return self.trainers[0].folder.name + (f" and {more} more" if more else "")

    def __enter__(self) -> _Watch:
        self._stack.enter_context(self._interrupts)
        if self._progress is not None:
            self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def show(self, trainer: Trainer, metrics: Mapping[str, float], validated: bool) -> None:
        """See ``Watch``."""
        if trainer is not self._slowest:
            return
        if self._progress is not None:
            self._progress.update(
                self._bar, completed=trainer.iteration, total=trainer.expected, note=trainer.note(metrics)
            )
        elif self._lines and validated:
            passed = trainer.seconds / self.share
            seconds = f"{passed:.0f} s, {max(0.0, passed / trainer.done - passed):.0f} s left"
            name = f"{len(self.trainers)} runs: " if len(self.trainers) > 1 else ""
            text = f"{name}{trainer.iteration}/{trainer.expected}  {seconds}  {trainer.note(metrics)}"
            print(text, file=sys.stderr, flush=True)

    @property
    def _slowest(self) -> Trainer:
        """The last of the runs with most left: it is the last to finish an iteration."""
        return min(reversed(self.trainers), key=lambda one: one.done)


class Interrupts:
    """Turns the first Ctrl-C inside into ``noticed``, which is read between iterations; a second one is immediate."""

    noticed = False

    def __enter__(self) -> Interrupts:
        self._before = signal.getsignal(signal.SIGINT)
        # Otherwise the caller handles Ctrl-C: from Python in its main thread, or not in Python.
        self._ours = threading.current_thread() is threading.main_thread() and self._before is not None
        if self._ours:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.noticed:
            raise KeyboardInterrupt
        self.noticed = True


def _csv(rows: list[dict[str, float]]) -> str:
    names = sorted({name for row in rows for name in row} - {"iteration"})
    file = io.StringIO()
    writer = csv.DictWriter(file, ["iteration", *names], restval="", lineterminator=os.linesep)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
