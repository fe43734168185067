"""Reports agree with the table, on made-up rows; pictures are complete files and need no display."""

import numpy as np
import pytest
import rich.console
from matplotlib import image

from metaduel.benchmarks.core import metrics, report
from metaduel.benchmarks.core import table as tables
from metaduel.benchmarks.core.report import Comparison
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find

CURVES = {"maml": (0.0, 4.0), "joint": (1.0, 1.5), "informed": (6.0,), "spiral": (0.5,)}


def made(seeds=3, splits=("held_out",), opponents=("held_out",), roles=("protagonist", "adversary")):
    """Rows around ``CURVES``, two opponents, four tasks."""
    parts, rng = [], np.random.default_rng(0)
    for role in roles:
        for method, curve in CURVES.items():
            for seed in [tables.UNTRAINED] if method == "spiral" else range(seeds):
                for split in splits:
                    for met in opponents:
                        shape = (len(curve), 2, 4, 2)
                        returns = np.array(curve).reshape(-1, 1, 1, 1) + 0.2 * rng.standard_normal(shape)
                        parts.append(
                            tables.from_returns(
                                returns - (split == "held_out") - 0.5 * (met == "held_out"),
                                find("Pursuit"),
                                role=role,
                                method=method,
                                seed=seed,
                                task_split=split,
                                tasks=[f"{split}:{i}" for i in range(4)],
                                opponent_split=met,
                                opponents=["a", "b"],
                                actions="sampled",
                            )
                        )
    return tables.concatenate(parts)


def numbers(cell):
    """The value and the limits of ``1.2 [0.3, 2.1] *``."""
    return [
        float(part)
        for part in cell.replace("−", "-").replace("*", "").replace("[", "").replace("]", "").replace(",", "").split()
    ]


@pytest.mark.parametrize("statistic", metrics.STATISTICS)
def test_returns_are_the_tables(statistic):
    table = made()
    sheet = report.returns_sheet(table, "adversary", statistic)
    assert sheet.header[:3] == ("method", "shot 0", "shot 1")
    assert sheet.header[3:] == (("each seed, last shot",) if statistic == "iqm" else ())
    assert [row[0] for row in sheet.rows] == list(CURVES)
    expected = metrics.estimate(table.pivot("maml", "adversary", 1), report.RNG_SEED, statistic)
    assert numbers(sheet.rows[0][2]) == pytest.approx([expected.value, *expected.interval[:2]], abs=6e-4)
    assert [row[2] for row in sheet.rows[2:]] == ["", ""]
    assert "adversary" in sheet.title
    assert "held-out tasks, held-out opponents, sampled actions" in sheet.title


def test_notes_say_what_intervals_cover():
    assert report.returns_sheet(made(1), "protagonist").note.startswith("95% intervals: over tasks only")
    several = report.returns_sheet(made(3).filter(method="maml"), "protagonist").note
    assert several == "95% intervals: t intervals over 3 training seeds."
    many = report.returns_sheet(made(10, roles=("adversary",)).filter(method="maml"), "adversary").note
    assert many == "95% intervals: over 10 resampled training seeds."
    assert "over tasks only" in report.returns_sheet(made(3), "protagonist").note  # the scripted player


def test_differences_are_paired_and_marked():
    table = made()
    same = Comparison("maml", 1, "maml", 1)
    sheet = report.difference_sheet(
        table, "protagonist", [Comparison("maml", 1, "joint", 1), Comparison("maml", 1, "spiral", 0), same]
    )
    first, second, third = sheet.rows
    assert (first[0], second[0]) == ("maml − joint, shot 1", "maml, shot 1 − spiral, shot 0")
    expected = metrics.paired_difference(*table.pair("maml", "joint", "protagonist", 1), report.RNG_SEED)
    assert numbers(first[1]) == pytest.approx([expected.value, *expected.interval[:2]], abs=6e-4)
    assert third[1:] == ("0 [0, 0]", "0 [0, 0]", "0; 0; 0")
    assert "3 training seeds" in sheet.note
    assert "0.83 over five" in sheet.note
    assert [number.count(";") for number in (first[3], second[3])] == [2, 2]
    other = report.returns_sheet(table, "protagonist")
    marked, untouched, again = report.starred([sheet, other, sheet])
    assert untouched == other
    assert marked == again
    assert "Holm's correction over the 12 comparisons of this page" in marked.note
    assert [cell.endswith("*") for cell in marked.rows[0]] == [False, True, True, False]
    assert marked.rows[2] == third


def test_a_difference_that_is_marked_alone_may_not_be_among_many():
    sheet = report.Sheet("", ("", "difference"), (("a", "1"),), tests=((0, 1, 0.02),))
    (alone,) = report.starred([sheet])
    assert alone.rows == (("a", "1 *"),)
    assert [one.rows for one in report.starred([sheet] * 3)] == [sheet.rows] * 3  # 0.02 > 0.05 / 3


def test_crossed_table_keeps_panels_apart():
    table = made(splits=("train", "held_out"), opponents=("held_out", "train"))
    sheet = report.crossed_sheet(table, ["maml", "joint"], [0, 1])
    assert sheet.header[3:] == (
        "train tasks, train opponents", "train tasks, held-out opponents",
        "held-out tasks, train opponents", "held-out tasks, held-out opponents",
    )  # fmt: skip
    assert [row[:3] for row in sheet.rows[:3]] == [
        ("protagonist", "maml", "0"), ("protagonist", "maml", "1"), ("protagonist", "joint", "0"),
    ]  # fmt: skip
    assert len(sheet.rows) == 8
    # As made: 0 for the seen, -1 for held-out tasks, -0.5 for held-out opponents.
    assert [numbers(cell)[0] for cell in sheet.rows[1][3:]] == pytest.approx([4.0, 3.5, 3.0, 2.5], abs=0.15)


def test_a_mixture_is_refused():
    with pytest.raises(InvalidInputError, match="no common mean"):
        report.returns_sheet(made(splits=("train", "held_out")), "protagonist")
    table = made()
    other = tables.Table(
        {n: np.full(len(table), "Chicken", object) if n == "family" else table[n] for n in tables.COLUMNS}
    )
    with pytest.raises(InvalidInputError, match="filter one"):
        report.returns_sheet(table.append(other), "protagonist")


def test_both_renderings_show_every_cell():
    sheet = report.Sheet("a [b] title", ("name", "x|y"), (("[red]one", "1"), ("two", "2 [1, 3]")), "a note")
    lines = sheet.markdown().splitlines()
    assert lines == [
        "### a [b] title", "", r"| name | x\|y |", "| --- | ---: |", "| [red]one | 1 |", "| two | 2 [1, 3] |", "", "a note",
    ]  # fmt: skip
    console = rich.console.Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(sheet.rich())
    text = console.export_text()
    for part in ("a [b] title", "x|y", "[red]one", "2 [1, 3]", "a note"):
        assert part in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-11.684, "−11.68"), (0.12345, "0.123"), (1234.5, "1234"), (-0.0004, "−0.000"), (99.96, "99.96")],
)
def test_numbers(value, text):
    assert report.number(value) == text


def test_plot_is_a_picture_of_the_table(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    path = tmp_path / "plots" / "shots.png"
    report.plot_shots(made(1), path)
    picture = image.imread(path)
    height, width, _ = picture.shape
    assert width > 1.5 * height > 600  # two panels
    for colour in report.COLOURS[:4]:
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (np.abs(picture[..., :3] - wanted).max(2) < 0.02).sum() > 100, colour
    assert [p.name for p in path.parent.iterdir()] == ["shots.png"]
    before = path.read_bytes()
    report.plot_shots(made(1), path)
    assert path.read_bytes() == before
    report.plot_shots(made(2), path)
    assert path.read_bytes() != before


def test_plot_of_one_role_names_every_method(tmp_path):
    report.plot_shots(made(roles=("adversary",)), tmp_path / "shots.svg", "iqm")
    text = (tmp_path / "shots.svg").read_text()
    for word in ("adversary", "interquartile mean", "shots (updates)", *CURVES):
        assert f"<!-- {word}" in text or word in text
    assert "<!-- protagonist" not in text


def test_bad_plots_leave_no_file(tmp_path):
    table = made(1, roles=("adversary",))
    with pytest.raises(InvalidInputError, match=r"\.png, \.svg or \.pdf"):
        report.plot_shots(table, tmp_path / "shots.gif")
    crowd = tables.concatenate(
        tables.Table({n: np.full(len(table), f"m{i}", object) if n == "method" else table[n] for n in tables.COLUMNS})
        for i in range(15)
    )
    with pytest.raises(InvalidInputError, match="at most 14"):
        report.plot_shots(crowd, tmp_path / "shots.png")
    with pytest.raises(InvalidInputError, match="no common mean"):
        report.plot_shots(made(splits=("train", "held_out")), tmp_path / "shots.png")
    assert not list(tmp_path.iterdir())
