"""Progress of a list of jobs, and the time left, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Show(Protocol):
    """Shows the next job's label, after ``finished`` others."""

    def __call__(self, label: str | None, finished: int = 1) -> None:
        """See the class."""
        ...


@contextmanager
def progress(what: str, total: int, quiet: bool, done: int = 0) -> Iterator[Show]:
    """Show job i of n and the time left. Call it with the next job's label at the start and after each job, with None at the end;
    where several jobs are done at once, with their number.

    Args:
        what: a word for a job.
        total: number of jobs.
        quiet: show nothing.
        done: number of jobs done before; they don't count in the time.
    """
    if quiet:
        yield lambda label, finished=1: None
        return
    console, counts, began = Console(file=sys.stderr), list[int](), time.perf_counter()

    def count(finished: int) -> int:
        """Jobs done; before the first call none is."""
        counts.append(finished if counts else done)
        return sum(counts)

    def line(label: str | None, finished: int = 1) -> None:
        number, spent = count(finished), time.perf_counter() - began
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
        yield lambda label, finished=1: shown.update(task, completed=count(finished), description=label or "")
