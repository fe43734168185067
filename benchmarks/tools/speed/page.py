"""All measurements of speed, one after another, and their page."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console

from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed import history, workloads
from metaduel.benchmarks.tools.speed.chains import chains_sheet
from metaduel.benchmarks.tools.speed.classification import classification_sheet
from metaduel.benchmarks.tools.speed.gpu import gpu_sheets
from metaduel.benchmarks.tools.speed.iterations import meta_sheet, methods_sheet, trpo_sheet
from metaduel.benchmarks.tools.speed.packages import Worker, commit_of, package_of, present
from metaduel.benchmarks.tools.speed.pairs import Measured, measure, sheet
from metaduel.benchmarks.tools.speed.peers import peers_sheet
from metaduel.benchmarks.tools.speed.steps import accelerator_sheet, default_games, steps_sheet
from metaduel.benchmarks.tools.speed.workloads import Workload
from metaduel.envs.core import registry
from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.core.files import write_atomic

# Tables of workloads, which can be compared with another commit's: by name, the title and the workloads.
COMPARED: dict[str, tuple[str, Callable[[], list[Workload]]]] = {
    "steps": ("Environment steps", workloads.steps),
    "training": ("Training, by tasks per iteration", workloads.training),
    "compiled": ("Training, compiled", workloads.compiled),
    "stacked": ("Five seeds x two rates in one process", workloads.stacked),
    "navigation": ("W1: one meta-iteration of MAML, second order, on Navigation", workloads.navigation),
    "chains": ("W2, W3: one chain of Meta-MAPG against a learning persona, LSTM", workloads.chains),
    "remembering": ("A learner that remembers", workloads.remembering),
    "evaluation": ("Few-shot evaluation", workloads.evaluation),
    "memory": ("Peak memory of ten stacked runs", workloads.memory),
}


@dataclass(frozen=True)
class Options:
    """What ``metaduel speed`` is told.

    Attributes:
        games: games of the table of families; none: one of every family.
        iterations: meta-iterations to take the median of, in the detailed tables.
        chains: outer steps of Meta-MAPG to take the median of, in its detailed table.
        seconds: minimum time of one measurement of families and peers.
        dry: everything as small as can be.
    """

    games: Sequence[str]
    iterations: int = 15
    chains: int = 3
    seconds: float = 0.3
    dry: bool = False


# Tables that are made at once, by name.
DETAILED: dict[str, Callable[[Options], Iterator[Sheet]]] = {
    "families": lambda options: _families(options),
    "iterations": lambda options: iter([meta_sheet(options.iterations)]),
    "methods": lambda options: iter([methods_sheet(options.iterations)]),
    "trpo": lambda options: iter([trpo_sheet(options.iterations)]),
    "personas": lambda options: iter([chains_sheet(options.chains)]),
    "classification": lambda options: iter([classification_sheet(options.iterations)]),
    "peers": lambda options: iter([peers_sheet(options.seconds, options.dry)]),
    "gpu": lambda options: gpu_sheets(options.dry),
}
TABLES = (*COMPARED, *DETAILED)
COMPILING = "compiled"  # takes minutes of a compiler's time: only where it is asked for by name


@configured(1)
def benchmark(
    only: str | Sequence[str],
    compare: str | None,
    pairs: int,
    limit: float,
    options: Options,
    out: AnyPath | None,
    record: AnyPath | None,
    console: Console,
) -> None:
    """Measure; each table is shown as soon as it is done.

    Args:
        only: names of the tables; none: those that can be compared, but ``compiled``.
        compare: another commit to measure in turn with this package.
        pairs: measurements of a workload.
        limit: seconds after which a workload is not measured again.
        options: for the tables that are made at once, and how small all is.
        out: also write the tables here, as Markdown.
        record: a page to whose history of ratios a line is added.
        console: the console for the tables.

    Raises:
        InvalidInputError: an unknown table, game or commit, nothing to take a median of, or a history without a comparison.
    """
    names = _tables(only, compare)
    for name, value in (("iterations", options.iterations), ("chains", options.chains), ("pairs", pairs)):
        check_whole(name, value)
    for game in options.games:
        registry.find(game)
    if record is not None and compare is None:
        raise InvalidInputError(f"history={str(record)!r} has no effect without compare: leave it out")
    page = None if record is None else history.page_of(record, tuple(COMPARED))
    path = None if out is None else as_path(out, "out")
    against = "" if compare is None else commit_of(compare)
    where = machine()
    console.print(where)
    made: list[Sheet] = []
    found: dict[str, list[Measured]] = {}

    def show(one: Sheet) -> None:
        made.append(one)
        console.print(one.rich())
        if path is not None:  # now, so that what is stopped has left what it had
            text = "\n".join(["## Speed", "", where, "", *(each.markdown() for each in made)])
            write_atomic(path, text.encode())

    with contextlib.ExitStack() as stack:
        theirs = stack.enter_context(Worker(stack.enter_context(package_of(against)))) if against else None
        ours = stack.enter_context(Worker()) if set(names) & set(COMPARED) else None
        for name in names:
            if name in COMPARED:
                assert ours is not None
                title, listed = COMPARED[name]
                chosen = workloads.smallest(listed()) if options.dry else listed()
                found[name] = [measure(one, ours, theirs, pairs, limit) for one in chosen]
                show(sheet(title, found[name], against))
            else:
                for one in DETAILED[name](options):
                    show(one)
    if page is not None:
        history.append(page, history.line(present(), against, found, tuple(COMPARED)), tuple(COMPARED))


def _tables(only: str | Sequence[str], compare: str | None) -> list[str]:
    """The tables to make."""
    names = several(only) or [name for name in COMPARED if name != COMPILING]
    for name in names:
        if name not in TABLES:
            raise unknown("table", name, TABLES)
        if compare is not None and name not in COMPARED:
            raise InvalidInputError(
                f"compare={compare!r} has no effect on table {name!r}: leave one of them out, or name {', '.join(COMPARED)}"
            )
    return names


def _families(options: Options) -> Iterator[Sheet]:
    names = [registry.find(name).name for name in options.games] or default_games()
    yield steps_sheet(names, options.seconds)
    if torch.accelerator.is_available():
        yield accelerator_sheet(names, options.seconds)


def machine() -> str:
    """The machine, in a line."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    passive = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    waiting = "" if passive else "; OMP_WAIT_POLICY is not PASSIVE: idle threads take time from busy ones"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {torch.__version__}{load}{waiting}"
    )
