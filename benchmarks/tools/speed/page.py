"""All measurements of speed, one after another, and their page."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence

import torch
from rich.console import Console

from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.chains import chains_sheet
from metaduel.benchmarks.tools.speed.classification import classification_sheet
from metaduel.benchmarks.tools.speed.iterations import meta_sheet, methods_sheet, trpo_sheet
from metaduel.benchmarks.tools.speed.steps import accelerator_sheet, default_games, steps_sheet
from metaduel.envs.core import registry
from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic


@configured(1)
def benchmark(
    games: str | Sequence[str], iterations: int, chains: int, seconds: float, out: AnyPath | None, console: Console
) -> None:
    """Measure the speed of the games, of meta-iterations and of a chain of Meta-MAPG; each table is shown as soon as it is done.

    Args:
        games: games to measure; none: one of every family (compiling a game takes up to a minute).
        iterations: meta-iterations to take the median of.
        chains: outer steps of Meta-MAPG to take the median of.
        seconds: minimum time of one measurement of environment steps.
        out: also write the tables here, as Markdown.
        console: the console for the tables.

    Raises:
        InvalidInputError: an unknown game, or nothing to take a median of.
    """
    if iterations < 1:
        raise InvalidInputError(f"iterations={iterations} must be at least 1")
    if chains < 1:
        raise InvalidInputError(f"chains={chains} must be at least 1")
    names = [registry.find(name).name for name in several(games)] or default_games()
    path = None if out is None else as_path(out, "out")
    where = machine()
    console.print(where)
    sheets: list[Sheet] = []
    measures: list[Callable[[], Sheet]] = [
        lambda: meta_sheet(iterations),
        lambda: methods_sheet(iterations),
        lambda: trpo_sheet(iterations),
        lambda: chains_sheet(chains),
        lambda: classification_sheet(iterations),
        lambda: steps_sheet(names, seconds),
    ]
    if torch.accelerator.is_available():
        measures.append(lambda: accelerator_sheet(names, seconds))
    for measure in measures:
        sheets.append(measure())
        console.print(sheets[-1].rich())
    if path is not None:
        text = "\n".join(["## Speed", "", where, "", *(sheet.markdown() for sheet in sheets)])
        write_atomic(path, text.encode())


def machine() -> str:
    """The machine, in a line."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    passive = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    waiting = "" if passive else "; OMP_WAIT_POLICY is not PASSIVE: idle threads take time from busy ones"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {torch.__version__}{load}{waiting}"
    )
