"""Tools: measurements of the project itself, and the pages that are generated from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from metaduel.cli.common import wide_console


def clouds(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/clouds"),
    tasks: int = 40,
    shots: int = 3,
    episodes: int = 5,
) -> None:
    """Show the samples of Forgery's generators after every shot: their distance to real samples, and a picture.

    Args:
        runs: run folders of Forgery; several of one method count as its seeds.
        out: folder for clouds.md and clouds.png, the picture of the first run.
        tasks: number of held-out distributions.
        shots: updates.
        episodes: fresh episodes for each update.
    """
    from metaduel.benchmarks.tools.clouds import compare

    Console().print(compare(runs, out, tasks, shots, episodes).rich())
    print(f"wrote {out / 'clouds.md'} and {out / 'clouds.png'}")


def speed(
    only: tuple[str, ...] = (),
    compare: Annotated[str | None, tyro.conf.arg(metavar="REF")] = None,
    pairs: int = 3,
    limit: float = 60.0,
    games: tuple[str, ...] = (),
    iterations: int = 15,
    chains: int = 3,
    seconds: float = 0.3,
    dry_run: bool = False,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    history: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> None:
    """Measure speed: environment steps, training, meta-iterations, evaluation; beside another commit, or beside peers.

    On a shared machine compare ratios within one run, never seconds of different runs.

    Args:
        only: the tables to make. Those that can be compared with another commit's: steps, training, compiled, stacked,
            navigation, chains, remembering, evaluation, memory; all of them but compiled by default. Others, with more detail:
            families, iterations, methods, trpo, personas, classification. Beside other environments: peers. On an accelerator:
            gpu.
        compare: a commit, branch or tag of the repository, which is measured in turn with this package.
        pairs: measurements of each workload.
        limit: seconds after which no further measurement of a workload is begun.
        games: games of the table of families; by default one of every family (compiling a game takes up to a minute).
        iterations: meta-iterations to take the median of, in the tables with more detail.
        chains: outer steps of Meta-MAPG to take the median of, in the table of personas.
        seconds: minimum time of one measurement of families and peers.
        dry_run: as small as can be: the figures mean nothing, but every line runs; gpu then needs no accelerator.
        out: also write the tables here, as Markdown.
        history: with --compare, add a line of ratios to this page, such as docs/results/speed.md.
    """
    from metaduel.benchmarks.tools.speed.page import Options, benchmark

    options = Options(games, iterations, chains, seconds, dry_run)
    benchmark(only, compare, pairs, limit, options, out, history, wide_console())


def proofs(out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/learners.md")) -> None:
    """Prove every learner's gradient, measure the bias of its sampled estimator, and write the learners' page.

    Args:
        out: the page.
    """
    from metaduel.benchmarks.tools.proofs.page import prove

    wide_console().print(prove(out).rich())
    print(f"wrote {out}")


def pages(
    docs: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("docs/games"),
    runs: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs"),
    panels: bool = False,
) -> None:
    """Write the games' pages, from their docstrings and their measurements.

    Args:
        docs: the folder of the pages.
        runs: folder with the certificates of `metaduel headroom`.
        panels: rate all scripted players again.
    """
    from metaduel.benchmarks.tools.pages import write_pages

    write_pages(docs, runs, panels)
    print(f"wrote {docs}")


def digests(
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    check: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> None:
    """Compute digests of play, training and evaluation; write them, or compare them with those of a file.

    Bits differ between processors and releases of torch: compare on the machine that made the file.

    Args:
        out: a JSON file to write.
        check: a JSON file to compare with; the exit code is 1 where something differs.
    """
    from metaduel.benchmarks.tools.digests import differences, measure, read, write

    known = None if check is None else read(check)
    found = measure()
    if out is not None:
        write(found, out)
    if known is not None:
        other = differences(known, found)
        for line in other:
            print(f"differs: {line}")
        total = sum(len(group) for group in known.values())
        print(f"{total - len(other)} of {total} digests are as they were")
        sys.exit(1 if other else 0)
