"""The history of ratios: one line of a page for every commit that was measured beside another."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from metaduel.benchmarks.tools.speed.pairs import Measured
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic

FIRST = ("date", "commit", "against")


def header(tables: Sequence[str]) -> str:
    """The first line of the history's table."""
    return f"| {' | '.join((*FIRST, *tables))} |"


def line(commit: str, against: str, found: Mapping[str, Sequence[Measured]], tables: Sequence[str]) -> str:
    """A line of the history: per table the geometric mean of its workloads' ratios, empty where nothing was compared.

    Args:
        commit: that was measured.
        against: the other commit.
        found: measurements by table.
        tables: the columns.
    """
    cells = [datetime.date.today().isoformat(), commit, against]
    for table in tables:
        ratios = [statistics.median(one.ratios) for one in found.get(table, ()) if one.ratios]
        cells.append(f"{statistics.geometric_mean(ratios):.2f}" if ratios else "")
    return f"| {' | '.join(cells)} |"


def page_of(path: AnyPath, tables: Sequence[str]) -> Path:
    """A page, if it holds the history.

    Raises:
        InvalidInputError: there is no such file, or it holds no such table.
    """
    page = as_path(path, "history")
    if not page.is_file():
        raise InvalidInputError(f"history={str(path)!r}: there is no such file")
    if header(tables) not in page.read_text(encoding="utf-8").splitlines():
        raise InvalidInputError(f"history={str(path)!r} must hold a table that begins with {header(tables)}")
    return page


def append(page: Path, made: str, tables: Sequence[str]) -> None:
    """Add a line at the end of the page's history.

    Args:
        page: see ``page_of``.
        made: the line.
        tables: the columns.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    end = lines.index(header(tables))
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    write_atomic(page, "\n".join([*lines[:end], made, *lines[end:], ""]).encode())
