"""The demonstration: train on Pursuit, evaluate on held-out gates and opponents, film both players adapting.

``suites/demo.yaml`` holds its runs and their lengths: lanes of runs, each lane a sequence of processes of one thread.
"""

from __future__ import annotations

import importlib.resources
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from metaduel.benchmarks.core.evaluate import evaluate_runs
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.benchmarks.core.summary import sheets
from metaduel.benchmarks.tools.film import film_adaptation
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import find_task
from metaduel.meta.runs.checkpoint import load_checkpoint, read_config, write_config
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.trainer import LAST, TrainingStopped

SETTINGS = importlib.resources.files("metaduel.benchmarks") / "suites"


def read_suite(name: str) -> dict[str, Any]:
    """A file of ``benchmarks/suites``."""
    content: dict[str, Any] = yaml.safe_load((SETTINGS / name).read_text(encoding="utf-8"))
    return content


def run_demo(folder: AnyPath, suite: Mapping[str, Any] | None = None) -> None:
    """Train, evaluate and film, and print the results and their places.

    Args:
        folder: folder for the run folders, ``evaluation``, and a video for each role. Finished runs in it are kept.
        suite: the runs; ``suites/demo.yaml`` by default.

    Raises:
        InvalidInputError: ``folder`` holds runs with other settings.
        TrainingStopped: a training process ended with an error; the message holds its name and its last line.
        KeyboardInterrupt: interrupted; the runs are saved.
    """
    folder = as_path(folder, "folder")
    suite = suite or read_suite("demo.yaml")
    base = {**read_suite(suite["config"]), **suite.get("settings", {})}
    console, began = Console(), time.perf_counter()
    configs = {name: TrainConfig.from_dict(base).override(**changes) for name, changes in suite["runs"].items()}
    for name, config in configs.items():
        write_config(folder / "settings" / name, config.to_dict())
    _train(folder, configs, suite["lanes"])

    out, protocol = folder / "evaluation", Protocol(**suite["evaluate"])
    table = evaluate_runs(
        [folder / name for name in configs], protocol, out, crossed=False, tuning_tasks=suite["tuning_tasks"]
    )
    for sheet in sheets(table):
        console.print(sheet.rich())
    print("One training seed: intervals cover tasks, not other training runs.")
    videos = []
    for role in ROLES:
        run, film = load(folder / suite["film"]["run"]), suite["film"][role]
        task = find_task(run.duel.spec, film["task"])
        videos.append(folder / f"{role}.mp4")
        film_adaptation(run, role, film["opponent"], task, videos[-1], protocol.shots, protocol.episodes)
    print(f"{time.perf_counter() - began:.0f} s. What there is to look at:")
    for path in (out / "report.md", out / "shots.png", out / "results.csv.gz", *videos):
        print(f"  {path}")


def _train(folder: Path, configs: Mapping[str, TrainConfig], lanes: Sequence[Sequence[str]]) -> None:
    """Train every run, one after another in each lane, the lanes at the same time."""
    waiting = [[name for name in lane if not _finished(folder / name, configs[name])] for lane in lanes]
    running: dict[str, subprocess.Popen[bytes]] = {}
    with _terminations(), _display(configs) as show:
        try:
            while any(waiting) or running:
                for lane in waiting:
                    if lane and not any(name in running for name in lane):
                        running[lane[0]] = _start(folder, lane[0])
                for name, process in list(running.items()):
                    show(name, _last_line(_log(folder, name)))
                    if process.poll() is not None:
                        del running[name]
                        for lane in waiting:
                            if lane and lane[0] == name:
                                lane.pop(0)
                        if process.returncode:
                            _failed(folder, name, process.returncode)
                        show(name, f"{configs[name].iterations}/{configs[name].iterations}  done")
                time.sleep(0.2)
        finally:
            _end(running.values())


def _finished(run: Path, config: TrainConfig) -> bool:
    """Whether a run is complete. A run with other settings is not: its training then reports the difference."""
    if not (run / LAST).exists():
        return False
    written = read_config(run)
    settled = {"compile": written.get("compile")} if config.compile == "auto" else {}
    if written != config.to_dict() | settled:
        return False
    return bool(load_checkpoint(run / LAST)[1]["iteration"] >= config.iterations)


def _log(folder: Path, name: str) -> Path:
    return folder / "logs" / f"{name}.txt"


def _start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Train one run in a process of its own; its own session, so that Ctrl-C reaches it through us, once."""
    settings = folder / "settings" / name / "config.yaml"
    command = [sys.executable, "-m", "metaduel.cli", "train", "--config", str(settings), "--folder", str(folder / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    _log(folder, name).parent.mkdir(parents=True, exist_ok=True)
    with _log(folder, name).open("wb") as log:
        return _popen([*command, "--resume"], log, environment)


def _popen(command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def _end(processes: Iterable[subprocess.Popen[bytes]], patience: float = 15.0) -> None:
    """End running processes: interrupt them as Ctrl-C does, so that they save; kill them after ``patience`` seconds."""
    left = [process for process in processes if process.poll() is None]
    for process in left:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + patience
    for process in left:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failed(folder: Path, name: str, code: int) -> None:
    line = _last_line(_log(folder, name)).removeprefix("metaduel: ")
    if code == 2:
        raise InvalidInputError(line)
    raise TrainingStopped(f"training {name} ended with exit code {code}: {line} (all of it: {_log(folder, name)})")


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else ""


@contextmanager
def _terminations() -> Iterator[None]:
    """Treat a request to end, or a closed terminal, like Ctrl-C: the children must not outlive us."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    old = {number: signal.getsignal(number) for number in numbers}
    if threading.current_thread() is not threading.main_thread() or None in old.values():
        yield  # only the main thread may handle signals, and what was not set from Python cannot be put back
        return
    try:
        for number in numbers:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _display(configs: Mapping[str, TrainConfig]) -> Iterator[Any]:
    """A bar for each run, or lines where there is no terminal; called with a run's name and its newest line."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        shown: dict[str, str] = {}

        def line(name: str, text: str) -> None:
            if text and shown.get(name) != text:
                shown[name] = text
                print(f"{name}: {text}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bars = {
            name: progress.add_task(name, total=config.iterations, start=False, note="waiting")
            for name, config in configs.items()
        }

        def bar(name: str, text: str) -> None:
            done, _, note = text.partition("  ")
            progress.start_task(bars[name])
            if done.partition("/")[0].isdigit():
                progress.update(bars[name], completed=int(done.partition("/")[0]), note=note)

        yield bar
