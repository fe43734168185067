"""Workloads measured on this package, and beside it on another commit's, in turn: A B A B ..."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.kinds import Played
from metaduel.benchmarks.tools.speed.packages import Worker, WorkloadFailed
from metaduel.benchmarks.tools.speed.workloads import Workload


@dataclass
class Measured:
    """A workload's measurements.

    Attributes:
        workload: the workload.
        ours: of this package.
        floor: its matrix products alone; None: there are none.
        theirs: of the other package, each right after ours of the same place.
        missing: why the other package has no such workload; empty: it has it, or there is no other.
    """

    workload: Workload
    ours: list[Played] = field(default_factory=list)
    floor: Played | None = None
    theirs: list[Played] = field(default_factory=list)
    missing: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times better than the other package, per pair: faster, or smaller."""
        return [price(their) / price(our) for our, their in zip(self.ours, self.theirs)]


def price(played: Played) -> float:
    """Cost of one unit of work."""
    return played.cost / played.work


def measure(workload: Workload, ours: Worker, theirs: Worker | None, pairs: int, seconds: float) -> Measured:
    """Measure a workload.

    Args:
        workload: the workload.
        ours: this package's process.
        theirs: the other package's; None: there is none.
        pairs: number of measurements.
        seconds: no further one is begun after that time.

    Raises:
        WorkloadFailed: it does not run on this package.
    """
    request = {"kind": workload.kind, "threads": workload.threads, "arguments": workload.arguments}
    measured, end = Measured(workload), time.monotonic() + seconds
    _begin(ours, request)
    if theirs is not None:
        try:
            _begin(theirs, request)
        except WorkloadFailed as error:
            measured.missing, theirs = str(error), None
    while not measured.ours or (len(measured.ours) < pairs and time.monotonic() < end):
        measured.ours.append(_played(ours))
        if theirs is not None:
            try:
                measured.theirs.append(_played(theirs))
            except WorkloadFailed as error:
                measured.missing, measured.theirs, theirs = str(error), [], None
    measured.floor = ours.ask("floor")
    return measured


def _begin(worker: Worker, request: dict[str, object]) -> None:
    worker.ask("make", **request)
    worker.ask("warm")


def _played(worker: Worker) -> Played:
    played = worker.ask("play")
    assert played is not None
    return played


def sheet(title: str, measured: Sequence[Measured], ref: str) -> Sheet:
    """The table of workloads.

    Args:
        title: its title.
        measured: the measurements.
        ref: the other package's commit; empty: there is none.
    """
    rows = [_row(one, ref) for one in measured]
    header = (
        "workload",
        "this",
        "products alone",
        "x products",
        *((ref, "ratio", "lowest", "highest", "pairs") if ref else ()),
    )
    notes = ["Medians. Products alone: what the matrix products take, if nothing else is done."]
    if ref:
        notes.append(
            f"Ratio: how many times better than {ref}, in turn with it; the median of the pairs' ratios, and their range."
        )
    notes += [f"{one.workload.name}: not in {ref}: {one.missing}." for one in measured if one.missing]
    return Sheet(title, header, tuple(rows), " ".join(notes))


def _row(one: Measured, ref: str) -> tuple[str, ...]:
    ours = statistics.median(map(price, one.ours))
    cells = [one.workload.name, shown(ours, one.workload.unit)]
    if one.floor is None:
        cells += ["", ""]
    else:
        cells += [shown(price(one.floor), one.workload.unit), f"{ours / price(one.floor):.1f}"]
    if ref and one.missing:
        cells += [f"not in {ref}", "", "", "", ""]
    elif ref:
        ratios = one.ratios
        cells.append(shown(statistics.median(map(price, one.theirs)), one.workload.unit))
        cells += [f"{value:.2f}" for value in (statistics.median(ratios), min(ratios), max(ratios))]
        cells.append(str(len(ratios)))
    return tuple(cells)


def shown(cost: float, unit: str) -> str:
    """The cost of a unit of work, or the rate, with three digits: 31.4 k steps/s, 0.156 s."""
    value = 1 / cost if unit.endswith("/s") else cost
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size and unit.endswith("/s"):
            return f"{_three(value / size)}{letter} {unit}"
    return f"{_three(value)} {unit}"


def _three(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"
