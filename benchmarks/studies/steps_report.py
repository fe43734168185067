"""Tables and curves of methods over the number of updates, for studies on tasks that are data."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from metaduel.benchmarks.core.metrics import Array, Estimate, estimate, paired_difference
from metaduel.benchmarks.core.report import COLOURS, MARKERS, RNG_SEED, Sheet, canvas, cell, cover_note, rendered
from metaduel.envs.core.files import write_atomic

Found = Mapping[str, Array]  # method -> [seeds, steps + 1, tasks], the same tasks for all


def steps_sheet(title: str, found: Found, steps: Sequence[int], scale: float = 1.0, note: str = "") -> Sheet:
    """A row per method, a column per number of updates: means with 95% intervals, times ``scale``."""
    rows = []
    for method, values in found.items():
        if values.shape[1] == 1:  # no updates, or none in between
            rows.append((method, *[""] * (len(steps) - 1), cell(_scaled(estimate(values[:, 0], RNG_SEED), scale))))
            continue
        rows.append((method, *(cell(_scaled(estimate(values[:, step], RNG_SEED), scale)) for step in steps)))
    header = ("method", *(f"{step} step{'' if step == 1 else 's'}" for step in steps))
    return Sheet(title, header, tuple(rows), f"{note} {_cover(found)}".strip())


def against_sheet(title: str, found: Found, pairs: Sequence[tuple[str, int, str, int]], scale: float = 1.0) -> Sheet:
    """Paired differences of two methods, each after a number of updates, with 95% intervals, times ``scale``."""
    rows = []
    for one, step, other, other_step in pairs:
        difference = paired_difference(found[one][:, step], found[other][:, other_step], RNG_SEED)
        rows.append((f"{one} ({step}) − {other} ({other_step})", cell(_scaled(difference, scale))))
    return Sheet(title, ("methods (after so many steps)", "paired difference"), tuple(rows), _cover(found))


def publish(
    folder: Path, found: Found, sheets: Sequence[Sheet], label: str, scale: float = 1.0, picture: str = "", quiet: bool = False
) -> None:  # fmt: skip
    """Write tables, means and curves into a folder, and show the tables.

    Args:
        folder: folder for results.md, results.csv and steps.png.
        found: the results.
        sheets: the tables.
        label: label of the curves' axis.
        scale: factor of the curves' values.
        picture: name of a picture beside them.
        quiet: show nothing.
    """
    write_results(folder / "results.csv", found)
    write_atomic(folder / "results.md", "\n".join(sheet.markdown() for sheet in sheets).encode())
    plot_steps(folder / "steps.png", found, label, scale)
    if not quiet:
        for sheet in sheets:
            Console().print(sheet.rich())
        print(f"wrote results.md, results.csv, steps.png and {picture} in {folder}")


def write_results(path: Path, found: Found) -> None:
    """The means over tasks as a small table: method, seed, step, mean."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("method", "seed", "step", "mean", "tasks"))
    for method, values in found.items():
        for seed, rows in enumerate(values):
            writer.writerows((method, seed, step, f"{row.mean():.5f}", len(row)) for step, row in enumerate(rows))
    write_atomic(path, file.getvalue().encode())


def plot_steps(path: Path, found: Found, label: str, scale: float = 1.0) -> None:
    """A curve per method over the number of updates, with 95% intervals; a method without updates is a dashed line."""
    figure = canvas(6.4, 4.0, dpi=150)
    axes = figure.subplots()
    for i, (method, values) in enumerate(found.items()):
        colour, estimates = (
            COLOURS[i % len(COLOURS)],
            [estimate(values[:, k], RNG_SEED) for k in range(values.shape[1])],
        )
        mean = np.array([e.value for e in estimates]) * scale
        if len(mean) == 1:
            axes.axhline(mean[0], color=colour, linestyle="--", label=method)
            continue
        low, high = (np.array([getattr(e.interval, end) for e in estimates]) * scale for end in ("low", "high"))
        axes.plot(mean, color=colour, marker=MARKERS[i % len(MARKERS)], markersize=4, label=method)
        axes.fill_between(range(len(mean)), low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="updates", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    write_atomic(path, rendered(figure, path.suffix[1:]))


def _scaled(found: Estimate, scale: float) -> Estimate:
    low, high, covers = found.interval
    return Estimate(found.value * scale, type(found.interval)(low * scale, high * scale, covers))


def _cover(found: Found) -> str:
    return cover_note([values[:, 0] for values in found.values()])
