"""The runner of the reproductions. A suite is a data file of cells, which are played once each; it resumes after an interruption.

A file of ``benchmarks/suites`` named ``reproduce-NAME.yaml`` names its protocol and the protocol's settings. The protocol makes
cells from them, and a report from the cells' rows. A finished cell leaves two files: its rows of the tidy table, and a record of
its settings, its family's version and its seconds, which is written last and marks it as finished. Cells whose settings have
changed are new cells; cells of another version of their family are refused.

Finished cells' tables can be kept in a second, small folder that belongs to the repository, so that a fresh clone goes on from
them: one table per cell and a record of its family, its seconds and the table's digest. The cell's settings are in its name, by
their digest: tables of other settings are never read. What a cell leaves in its own folder, such as trained players, is not kept.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import multiprocessing
import re
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from metaduel.agents.runtime import configure
from metaduel.benchmarks.core import table as tables
from metaduel.benchmarks.core.progress import progress
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.core.table import Table
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.spec import GameSpec

FILES = importlib.resources.files("metaduel.benchmarks") / "suites"
PREFIX = "reproduce-"


class Together(NamedTuple):
    """The trainings of a cell, which are done at once with those of other cells.

    Attributes:
        name: cells with the same name are trained together.
        plans: the cell's trainings; the argument is its own folder.
        train: does the trainings of several cells, those that are not done yet.
    """

    name: str
    plans: Callable[[Path], Sequence[Any]]
    train: Callable[[Sequence[Any]], None]


@dataclass(frozen=True)
class Cell:
    """One piece of work, finished or not.

    Attributes:
        name: a readable name, unique in its suite.
        spec: its family.
        settings: plain values: all that its rows depend on beside the code.
        play: returns its rows. Its argument is the cell's own folder, for files that must outlast an interruption.
        needs: the stems of earlier cells whose folders it reads.
        together: its trainings, if it has some that can be done with those of other cells before any of them is played.
    """

    name: str
    spec: GameSpec
    settings: Mapping[str, Any]
    play: Callable[[Path], Table]
    needs: tuple[str, ...] = ()
    together: Together | None = None

    @property
    def stem(self) -> str:
        """The name of its files: the cell's name, and a digest of its settings."""
        text = json.dumps({"name": self.name, **self.settings}, sort_keys=True)
        readable = re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")
        return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Report(NamedTuple):
    """The results of a suite."""

    sheets: Sequence[Sheet]
    pictures: Mapping[str, str]  # file names in the report's folder, and their captions


@dataclass(frozen=True, kw_only=True)
class Suite(ABC):
    """A protocol with the settings of its file.

    Attributes:
        title: title of the report.
        about: the measurement, for the report.
        differs: the differences from the paper, for the report.
    """

    title: str
    about: str
    differs: str

    @abstractmethod
    def cells(self) -> list[Cell]:
        """All cells, in order.

        Raises:
            InvalidInputError: an unknown method or family, or settings that cannot work.
        """

    def following(self, table: Table) -> list[Cell]:
        """More cells, which depend on the rows of ``cells``; they are played after them."""
        return []

    @abstractmethod
    def report(self, table: Table, out: Path) -> Report:
        """Sheets, and pictures written into ``out``, computed only from the rows of all cells."""


def names() -> list[str]:
    """The names of all reproductions."""
    files = (file.name for file in FILES.iterdir() if file.name.startswith(PREFIX))
    return sorted(name.removeprefix(PREFIX).removesuffix(".yaml") for name in files)


def settings(name: str) -> dict[str, Any]:
    """The content of a reproduction's file.

    Raises:
        InvalidInputError: there is no reproduction of that name.
    """
    if name not in names():
        raise unknown("reproduction", name, names())
    content: dict[str, Any] = yaml.safe_load((FILES / f"{PREFIX}{name}.yaml").read_text(encoding="utf-8"))
    return content


def run(
    name: str, suite: Suite, folder: AnyPath, quiet: bool = False, workers: int = 1, keep: AnyPath | None = None
) -> Report:
    """Play the unfinished cells, and write ``results.csv.gz``, ``report.md`` and the suite's pictures into ``folder``.

    Args:
        name: name of the suite.
        suite: the suite.
        folder: folder for cells, report and pictures.
        quiet: no progress.
        workers: number of cells that run at once, each in a process with one thread.
        keep: folder of kept tables: those of finished cells are read from it and written to it; None: no such folder.

    Raises:
        InvalidInputError: settings that cannot work, finished cells of another version of a family, or a kept table that has
            changed; nothing was played.
        KeyboardInterrupt: interrupted; finished cells stay.
    """
    cells, folder = suite.cells(), as_path(folder, "folder")
    played = play(cells, folder, quiet, workers, keep)
    if more := suite.following(played.table):
        after = play(more, folder, quiet, workers, keep)
        cells, played = [*cells, *more], Played(played.table.append(after.table), played.seconds + after.seconds)
    played.table.write(folder / "results.csv.gz")
    found = suite.report(played.table, folder)
    write_atomic(folder / "report.md", _markdown(name, suite, found, len(cells), played.seconds).encode())
    return found


class Played(NamedTuple):
    """The rows of all cells, and their seconds; for an interrupted cell, those since it was last resumed."""

    table: Table
    seconds: float


def play(
    cells: Sequence[Cell], folder: AnyPath, quiet: bool = False, workers: int = 1, keep: AnyPath | None = None
) -> Played:
    """Play the unfinished cells; see ``run``."""
    check_whole("workers", workers)
    places = _Places(as_path(folder, "folder"), None if keep is None else as_path(keep, "keep"))
    folder = places.folder
    places.restore(cells)
    finished = {cell.stem for cell in cells if _record(cell, folder) is not None}
    waiting = [cell for cell in cells if cell.stem not in finished]
    with progress("cell", len(cells), quiet, len(finished)) as show:
        if workers > 1:
            _play_at_once(waiting, finished, places, workers, show)
        else:
            left = list(waiting)
            while left:
                unit = _unit(left[0], left, {cell.stem for cell in left})
                left = [cell for cell in left if cell not in unit]
                for cell in _played(unit, places):
                    show(cell.name)
        show(None)
    records = [_record(cell, folder) for cell in cells]
    table = tables.concatenate([rows_of(folder, cell.stem) for cell in cells])
    return Played(table, sum(record["seconds"] for record in records if record is not None))


def rows_of(folder: Path, stem: str) -> Table:
    """The rows of a finished cell of the suite in ``folder``."""
    return tables.read(folder / "cells" / f"{stem}.csv.gz")


class _Places(NamedTuple):
    """Where finished cells are."""

    folder: Path
    kept: Path | None

    def restore(self, cells: Sequence[Cell]) -> None:
        """Bring kept cells into the folder, and those that were finished without being kept the other way."""
        if self.kept is None:
            return
        for cell in cells:
            path = self.kept / f"{cell.stem}.json"
            if _record(cell, self.folder) is not None:
                if not path.exists():
                    self.keep(cell)
            elif path.exists():
                record, content = _kept(path)
                _refuse_other_version(cell, _table_beside(path), record["family"])
                write_atomic(_path(cell, self.folder, "csv.gz"), content)
                whole = {**record, "settings": cell.settings}
                write_atomic(_path(cell, self.folder, "json"), json.dumps(whole, indent=1).encode())

    def keep(self, cell: Cell) -> None:
        """Keep a finished cell."""
        record = _record(cell, self.folder)
        if self.kept is None or record is None:
            return
        content = _path(cell, self.folder, "csv.gz").read_bytes()
        small = {name: record[name] for name in ("name", "family", "seconds")}
        small["sha256"] = hashlib.sha256(content).hexdigest()
        write_atomic(self.kept / f"{cell.stem}.csv.gz", content)
        write_atomic(self.kept / f"{cell.stem}.json", (json.dumps(small) + "\n").encode())


def _table_beside(record: Path) -> Path:
    return record.with_name(f"{record.name.removesuffix('.json')}.csv.gz")


def _kept(path: Path) -> tuple[dict[str, Any], bytes]:
    """A kept record and the bytes of its table."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content = _table_beside(path).read_bytes()
        right = hashlib.sha256(content).hexdigest() == record.pop("sha256")
        _ = record["family"], record["seconds"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path}: not a kept cell ({error}); remove it to play the cell again") from None
    if not right:
        raise InvalidInputError(
            f"{_table_beside(path)}: not the table that was kept, by its digest; remove it and its .json to play the "
            "cell again"
        )
    return record, content


def _unit(first: Cell, waiting: Sequence[Cell], unfinished: Set[str]) -> list[Cell]:
    """The cells that are trained together with ``first``, of those that wait and need none that is unfinished."""
    if first.together is None:
        return [first]
    name = first.together.name
    ready = [cell for cell in waiting if cell.together is not None and cell.together.name == name]
    return [cell for cell in ready if unfinished.isdisjoint(cell.needs)] or [first]


def _played(cells: Sequence[Cell], places: _Places) -> Iterator[Cell]:
    """Train for cells that are trained together, then play one after the other and write its files. Yields them as they begin."""
    began, folder = time.perf_counter(), places.folder
    yield cells[0]
    failed = _trained(cells, folder)
    shared = (time.perf_counter() - began) / len(cells)
    for number, cell in enumerate(cells):
        if number:
            yield cell
        if cell.stem in failed:
            continue
        began = time.perf_counter()
        rows = cell.play(folder / "work" / cell.stem)
        rows.write(_path(cell, folder, "csv.gz"))
        record = {
            "name": cell.name, "family": cell.spec.id, "settings": cell.settings,
            "seconds": round(shared + time.perf_counter() - began, 1),
        }  # fmt: skip
        write_atomic(_path(cell, folder, "json"), json.dumps(record, indent=1).encode())
        places.keep(cell)
    for error in failed.values():
        raise error


def _trained(cells: Sequence[Cell], folder: Path) -> dict[str, Exception]:
    """Train for cells that are trained together. Returns the errors of cells whose own trainings failed, by their stems."""
    own = {cell.stem: cell.together.plans(folder / "work" / cell.stem) for cell in cells if cell.together}
    first, failed = cells[0].together, dict[str, Exception]()
    if first is None:
        return failed
    try:
        first.train([plan for plans in own.values() for plan in plans])
    except Exception:  # which of them? What is finished is not trained again
        for stem, plans in own.items():
            try:
                first.train(plans)
            except Exception as error:
                failed[stem] = error
    return failed


def _play_at_once(
    waiting: Sequence[Cell], finished: set[str], places: _Places, workers: int, show: Callable[[str | None], None]
) -> None:
    """Play each cell, with those that are trained together with it, as soon as a process is free and the cells that it needs are
    finished, otherwise in order.
    """
    left, running, fresh = list(waiting), dict[Future[None], list[Cell]](), 1
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _prepare) as pool:
        while left or running:
            while len(running) < workers:
                ready = next((cell for cell in left if finished.issuperset(cell.needs)), None)
                if ready is None:
                    break
                cells = _unit(ready, left, {need for cell in left for need in cell.needs} - finished)
                left = [cell for cell in left if cell not in cells]
                running[pool.submit(_play_interruptibly, cells, places)] = cells
            if not running:
                raise InvalidInputError(f"cell {left[0].name!r} needs {left[0].needs}, which no cell before it makes")
            for _ in range(fresh):
                show("; ".join(_spoken(cells) for cells in running.values()))
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            fresh = 0
            for future in done:
                cells = running.pop(future)
                fresh += len(cells)
                finished.update(cell.stem for cell in cells)
                try:
                    future.result()  # raises the cell's exception; the other processes finish their cells first
                except BrokenProcessPool:
                    raise InvalidInputError(
                        f"workers={workers}: a process was killed, perhaps because memory ran out; try fewer workers. "
                        "Finished cells are kept"
                    ) from None
        for _ in range(fresh - 1):
            show(None)


def _spoken(cells: Sequence[Cell]) -> str:
    return cells[0].name + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")


def _prepare() -> None:
    """Prepare a process that plays cells. Ctrl-C reaches it, too: an idle process must survive it, or the pool breaks."""
    configure(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _play_interruptibly(cells: Sequence[Cell], places: _Places) -> None:
    """Play cells that save and stop at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in _played(cells, places):
            pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _path(cell: Cell, folder: Path, kind: str) -> Path:
    return folder / "cells" / f"{cell.stem}.{kind}"


def _record(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The record of a finished cell; None if it isn't finished."""
    path = _path(cell, folder, "json")
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        family = found["family"]
    except (ValueError, KeyError, TypeError):
        raise InvalidInputError(
            f"{path}: not the record of a finished cell; remove it to play the cell again"
        ) from None
    _refuse_other_version(cell, _path(cell, folder, "csv.gz"), family)
    return found


def _refuse_other_version(cell: Cell, path: Path, family: str) -> None:
    if family != cell.spec.id:
        raise InvalidInputError(
            f"{path} holds results of {family}, and this is {cell.spec.id}: results of two versions of a family do not mix; name "
            "another folder, or remove that cell's files"
        )


def _markdown(name: str, suite: Suite, found: Report, cells: int, seconds: float) -> str:
    lines = [
        f"# {suite.title}",
        "",
        f"    make reproduce-{name}",
        "",
        suite.about.strip(),
        "",
        f"{cells} cells, with one thread each; their times add up to {_duration(seconds)}.",
        "",
        *(sheet.markdown() for sheet in found.sheets),
        *(f"![{text}]({file})\n" for file, text in found.pictures.items()),
        "## What differs from the paper",
        "",
        suite.differs.strip(),
        "",
    ]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
