"""Tables and pictures of results, computed from the tidy table and nothing else.

A ``Sheet`` is a finished table of strings: ``rich()`` for the console, ``markdown()`` for documents. Every number comes with
a 95% interval, and every sheet says what its intervals cover.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metaduel.benchmarks.core.metrics import (
    MANY_SEEDS,
    STATISTICS,
    Array,
    Estimate,
    Statistic,
    estimate,
    holm,
    of_seeds,
    p_value,
    paired_difference,
)
from metaduel.benchmarks.core.table import Table
from metaduel.benchmarks.core.terminal import FittedTable
from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.spec import ROLES, SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RNG_SEED = 0  # of every resampling: the same table gives the same report
NAMES: dict[str, str] = {"mean": "mean", "iqm": "interquartile mean"}

# Okabe and Ito's colours without yellow, which is too light for lines and words on white. All common kinds of colour vision can
# distinguish them. The markers distinguish them without colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Comparison(NamedTuple):
    """Two methods at one shot each, to be compared by the interval of their paired difference."""

    method: str
    shot: int
    other: str
    other_shot: int

    @property
    def label(self) -> str:
        """For a row of a sheet."""
        if self.shot == self.other_shot:
            return f"{self.method} − {self.other}, shot {self.shot}"
        return f"{self.method}, shot {self.shot} − {self.other}, shot {self.other_shot}"


@dataclass(frozen=True)
class Sheet:
    """A finished table.

    Attributes:
        title: the title.
        header: one name per column.
        rows: one string per column each.
        note: a note for the reader, below the table.
        tests: row, column and p-value of each cell that is a difference: ``starred`` marks those that are not 0.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    tests: tuple[tuple[int, int, float], ...] = ()

    def rich(self) -> FittedTable:
        """For ``rich.print``: as wide as the console allows."""
        return FittedTable(self.header, self.rows, self.title, self.note, "right")

    def markdown(self) -> str:
        """A heading, a table and the note."""
        lines = [
            f"### {self.title}",
            "",
            _line(self.header),
            "|" + "|".join([" --- ", *[" ---: "] * (len(self.header) - 1)]) + "|",
        ]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])


def starred(sheets: Sequence[Sheet]) -> list[Sheet]:
    """The sheets of one page with a star at each difference that is not 0, by Holm's correction over all those of the page."""
    rejected = iter(holm([p for sheet in sheets for _, _, p in sheet.tests]))
    count, found = sum(len(sheet.tests) for sheet in sheets), []
    for sheet in sheets:
        if not sheet.tests:
            found.append(sheet)
            continue
        rows = [list(row) for row in sheet.rows]
        for row, column, _ in sheet.tests:
            rows[row][column] += " *" if next(rejected) else ""
        note = (
            f"{sheet.note} * marks a difference that is not 0: t tests of the intervals' pseudo-values at 0.05, by Holm's "
            f"correction over the {count} comparisons of this page."
        )
        found.append(replace(sheet, rows=tuple(map(tuple, rows)), note=note.strip(), tests=()))
    return found


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def number(value: float) -> str:
    """Four significant digits, but at most three decimals; a true minus sign."""
    if value == 0:
        return "0"
    decimals = min(3, max(0, 3 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}".replace("-", "−")


def cell(estimate: Estimate) -> str:
    """``value [low, high]``; a value alone has no interval."""
    low, high, _ = estimate.interval
    if not math.isfinite(low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(low)}, {number(high)}]"


def seed_values(values: Array, statistic: Statistic = "mean") -> str:
    """Each training seed's own value, in the order of the seeds; empty where there is one."""
    return "; ".join(map(number, of_seeds(values, statistic).tolist())) if len(values) > 1 else ""


def cover_note(arrays: Sequence[Array], statistic: Statistic = "mean") -> str:
    """The coverage of the 95% intervals of these (seeds, tasks) arrays, in a sentence or two."""
    counts = sorted({len(array) for array in arrays})
    if not counts:
        return ""
    parts = []
    if counts[0] == 1:
        parts.append("over tasks only for players of one training seed or none (another run may differ by more)")
    if few := [n for n in counts if 1 < n < MANY_SEEDS]:
        parts.append(f"t intervals over {_either(few)} training seeds")
    if many := [n for n in counts if n >= MANY_SEEDS]:
        parts.append(f"over {_either(many)} resampled training seeds")
    groups = (
        " Where seeds fall into two groups, interquartile means' intervals over so few of them cover less than 0.95: 0.69 over "
        "three, 0.83 over five, 0.90 over nine (simulated): see each seed's value."
    )
    return "95% intervals: " + "; ".join(parts) + "." + (groups if few and statistic == "iqm" else "")


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(str(n) for n in numbers)


def _where(table: Table) -> str:
    """The game and panel: 'Navigation-v0, held-out tasks, held-out opponents, sampled actions'."""
    parts = []
    for name, text in (("task_split", "{} tasks"), ("opponent_split", "{} opponents"), ("actions", "{} actions")):
        parts.append(" and ".join(text.format(_word(value)) for value in table.values(name)))
    return ", ".join([_game(table), *parts])


def _word(split: str) -> str:
    return split.replace("_", "-")


def _game(table: Table) -> str:
    families = table.values("family")
    if len(families) != 1:
        raise InvalidInputError(f"a report is of one family, not of {families}: filter one")
    return f"{families[0]}-v{table['version'][0]}"


def returns_sheet(table: Table, role: str, statistic: Statistic = "mean") -> Sheet:
    """Return of every method (rows) at every shot (columns), as ``role``."""
    where, own = _where(table), table.filter(role=role)
    shots = sorted(own.values("shot"))
    arrays, rows, each = list[Array](), list[tuple[str, ...]](), list[str]()
    for method in own.values("method"):
        cells = []
        for shot in shots:
            if shot in own.filter(method=method).values("shot"):
                arrays.append(own.pivot(method, role, shot))
                cells.append(cell(estimate(arrays[-1], RNG_SEED, statistic)))
            else:
                cells.append("")
        rows.append((method, *cells))
        each.append(seed_values(arrays[-1], statistic))
    header = ("method", *(f"shot {shot}" for shot in shots))
    if statistic == "iqm" and any(each):
        header, rows = (*header, "each seed, last shot"), [(*row, own) for row, own in zip(rows, each, strict=True)]
    title = f"Return as {role}, {NAMES[statistic]} ({where})"
    return Sheet(title, header, tuple(rows), cover_note(arrays, statistic))


def difference_sheet(table: Table, role: str, comparisons: Sequence[Comparison]) -> Sheet:
    """Paired differences of methods or shots (rows), in the mean and the interquartile mean (columns), and in each seed; see
    ``starred``.
    """
    arrays, rows, tests, each = list[Array](), list[tuple[str, ...]](), list[tuple[int, int, float]](), list[str]()
    for one in several(comparisons):
        a, b = table.pair(one.method, one.other, role, one.shot, one.other_shot)
        arrays.append(a)
        tests += [(len(rows), i, p_value(a - b, statistic)) for i, statistic in enumerate(STATISTICS, 1)]
        found = [cell(paired_difference(a, b, RNG_SEED, statistic)) for statistic in STATISTICS]
        rows.append((one.label, *found))
        each.append(seed_values(a - b, "iqm"))
    title = f"Paired differences of return as {role} ({_where(table)})"
    header = ("difference", *(NAMES[statistic] for statistic in STATISTICS))
    if any(each):
        header, rows = (*header, "each seed"), [(*row, own) for row, own in zip(rows, each, strict=True)]
    return Sheet(title, header, tuple(rows), cover_note(arrays, "iqm"), tuple(tests))


def crossed_sheet(table: Table, methods: Sequence[str], shots: Sequence[int], statistic: Statistic = "mean") -> Sheet:
    """Seen and held-out tasks x seen and held-out opponents (columns), for every role, method and shot (rows)."""
    methods, shots = several(methods), several(shots)
    splits = [split for split in SPLITS if split in table.values("task_split")]
    panels = [(split, met) for split in splits for met in SPLITS if met in table.values("opponent_split")]
    arrays, rows = [], []
    for role in (role for role in ROLES if role in table.values("role")):
        for method in methods:
            for shot in shots:
                cells = []
                for split, met in panels:
                    part = table.filter(task_split=split, opponent_split=met)
                    arrays.append(part.pivot(method, role, shot))
                    cells.append(cell(estimate(arrays[-1], RNG_SEED, statistic)))
                rows.append((role, method, str(shot), *cells))
    title = f"Return on tasks and opponents, {NAMES[statistic]} ({_game(table)}, {' and '.join(table.values('actions'))} actions)"
    header = ("role", "method", "shot", *(f"{_word(split)} tasks, {_word(met)} opponents" for split, met in panels))
    return Sheet(title, header, tuple(rows), cover_note(arrays, statistic))


def plot_shots(table: Table, path: AnyPath, statistic: Statistic = "mean") -> None:
    """Plot return over shots, a line for each method with its 95% intervals, a panel for each role.

    A method that was tested at only one shot, because it does not adapt, is a dashed line across.

    Args:
        table: rows of one family, one split of tasks, one of opponents and one kind of actions.
        path: PNG, SVG or PDF, by its ending. Written atomically.
        statistic: the statistic of the plot.

    Raises:
        InvalidInputError: rows that have no common mean, more methods than there are colours, or an unknown ending.
    """
    path = as_path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InvalidInputError(f"path={str(path)!r} must end in .png, .svg or .pdf")
    if len(table.values("method")) > 2 * len(COLOURS):
        raise InvalidInputError(
            f"{len(table.values('method'))} methods: a plot shows at most {2 * len(COLOURS)}: filter some"
        )
    from matplotlib import rc_context

    roles = [role for role in ROLES if role in table.values("role")]
    with rc_context({"font.size": 10, "svg.hashsalt": "metaduel", "axes.unicode_minus": True}):
        figure = canvas(0.6 + 4.9 * len(roles), 4.0, dpi=200)
        arrays: list[Array] = []
        for axes, role in zip(figure.subplots(1, len(roles), squeeze=False)[0], roles, strict=True):
            _panel(axes, table.filter(role=role), role, table.values("method"), statistic, arrays)
        # Characters that fit on an inch at these sizes.
        title = textwrap.fill(_where(table), int(9 * figure.get_figwidth()))
        note = textwrap.fill(cover_note(arrays, statistic), int(15 * figure.get_figwidth()))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color="#555555")
        write_atomic(path, rendered(figure, path.suffix[1:]))


def canvas(width: float, height: float, dpi: int = 130) -> Figure:
    """An empty figure of so many inches, which needs no display and leaves pyplot's global state alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as a file of that kind: png, svg or pdf."""
    buffer = io.BytesIO()
    # No dates: the same table gives the same file.
    figure.savefig(buffer, format=kind, metadata={"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind))
    return buffer.getvalue()


def _panel(
    axes: Axes, own: Table, role: str, methods: Sequence[str], statistic: Statistic, arrays: list[Array]
) -> None:
    """One role's panel; appends its arrays to ``arrays``."""
    last = max(own.values("shot"))
    present = [method for method in methods if method in own.values("method")]
    ends = []
    for i, method in enumerate(present):
        colour, marker = (kinds[methods.index(method) % len(kinds)] for kinds in (COLOURS, MARKERS))
        dashed = methods.index(method) >= len(COLOURS)
        shots = sorted(own.filter(method=method).values("shot"))
        found = [own.pivot(method, role, shot) for shot in shots]
        arrays += found
        estimates = [estimate(array, RNG_SEED, statistic) for array in found]
        y = np.array([e.value for e in estimates])
        limits = np.array([e.interval[:2] for e in estimates])
        if len(shots) == 1 and last > 0:
            axes.axhline(y[0], color=colour, linestyle=(0, (5, 3)), linewidth=1.4, zorder=1)
            if np.isfinite(limits).all():
                axes.axhspan(*limits[0], color=colour, alpha=0.10, linewidth=0, zorder=0)
        else:
            # Side by side, so that intervals stay visible where methods meet.
            x = np.array(shots) + 0.035 * (i - (len(present) - 1) / 2)
            reach = np.abs(np.where(np.isfinite(limits), limits, y[:, None]) - y[:, None]).T
            axes.errorbar(
                x, y, reach, color=colour, marker=marker, markersize=5, linewidth=1.8, linestyle="--" if dashed else "-",
                elinewidth=1.2, capsize=2.5, markeredgecolor="white", markeredgewidth=0.6, zorder=2 + i,
            )  # fmt: skip
        ends.append((float(y[-1]), method, colour))
    axes.set_title(role, loc="left", fontsize=11)
    axes.set_xlabel("shots (updates)")
    axes.set_ylabel(f"return ({NAMES[statistic]})")
    axes.set_xticks(range(last + 1))
    axes.set_xlim(-0.25, last + 0.25)
    axes.margins(y=0.08)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3)
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write each method's name beside the end of its line, pushed apart where two would overlap."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    order = sorted(ends)
    gap = 0.062
    places = [(y - low) / (high - low) for y, _, _ in order]
    # Up from the lowest, then down from the top edge, so that nothing leaves the panel.
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    for place, (y, method, colour) in zip(places, order, strict=True):
        axes.annotate(
            method, (1.0, (y - low) / (high - low)), (1.05, place), "axes fraction", "axes fraction", color=colour,
            fontsize=9.5, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip
