"""Progress of a list of jobs, and the time left, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress(what: str, total: int, quiet: bool, done: int = 0) -> Iterator[Callable[[str | None], None]]:
    """Show job i of n and the time left. Call it with the next job's label at the start and after each job, with None at the end.

    Args:
        what: a word for a job.
        total: number of jobs.
        quiet: show nothing.
        done: number of jobs done before; they don't count in the time.
    """
    if quiet:
        yield lambda label: None
        return
    console, counts, began = Console(file=sys.stderr), iter(range(done, total + 1)), time.perf_counter()

    def line(label: str | None) -> None:
        number, spent = next(counts), time.perf_counter() - began
        left = f", about {spent / (number - done) * (total - number):.0f} s left" if number > done else ""
        print(f"{number}/{total} done, {spent:.0f} s{left}  {label or ''}".rstrip(), file=sys.stderr, flush=True)

    if not console.is_terminal:
        yield line
        return
    columns = (
        TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as shown:
        task = shown.add_task("", total=total, completed=done)
        yield lambda label: shown.update(task, completed=next(counts), description=label or "")
