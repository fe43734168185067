"""Output on terminals of any encoding and width: plain characters where others are lacking, and no table that is cut."""

import ast
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from metaduel import cli
from metaduel.benchmarks.core import table as tables
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.core.summary import sheets
from metaduel.benchmarks.core.terminal import FittedTable, plain
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES

ROOT = Path(__file__).parents[1]
ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "gbk")


def output(monkeypatch, encoding, *args, columns=80):
    """What a command writes on streams of an encoding, and its exit code."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    code = 0
    try:
        cli.main(args)
    except SystemExit as stopped:
        code = stopped.code
    for stream in streams.values():
        stream.flush()
    return code, *(stream.buffer.getvalue().decode(encoding) for stream in streams.values())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_commands_write_what_the_encoding_has(encoding, monkeypatch):
    for args in (["--help"], ["evaluate", "--help"], ["list"], ["info", "Pursuit"], ["methods"], ["info", "Pörsüit→−"]):
        code, out, err = output(monkeypatch, encoding, *args)
        right = output(monkeypatch, "utf-8", *args)
        assert code == right[0]
        assert (out + err).count("?") == (right[1] + right[2]).count("?")  # none stands for another character
        assert out.split()[:3] == right[1].split()[:3] or not right[1].isascii()
        assert err.isascii() or encoding != "ascii"
    assert "unknown game 'Pörsüit" in right[2]
    assert plain("unknown game 'Pörsüit→−'", encoding) in err


def test_characters_have_plain_forms():
    text = "maml − joint ± 1 ≤ 2 × θ → π² … “a” é ½ │─╭ ▀ 中"
    assert plain(text, "ascii") == 'maml - joint +/- 1 <= 2 x theta -> pi^2 ... "a" e 1/2 |-+ # ?'
    assert plain(text, "utf-8") == text
    assert plain("é ±", "latin-1") == "é ±"
    assert plain("é ─ −", "cp437") == "é ─ -"
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="metaduel.plainly")
    stream.write(os.fsdecode(b"runs/\xe9"))  # a name that the file system holds and no encoding has
    stream.flush()
    assert stream.buffer.getvalue() == b"runs/\xe9"


@pytest.mark.parametrize(("encoding", "blocks"), [("ascii", 0), ("gbk", 0), ("cp437", 48 * 28), ("utf-8", 48 * 28)])
def test_a_picture_is_shown_where_the_encoding_has_what_it_is_made_of(encoding, blocks, monkeypatch):
    monkeypatch.setattr(cli.games, "Console", lambda: Console(force_terminal=True, width=100))
    _, out, _ = output(monkeypatch, encoding, "info", "Navigation")
    assert out.count(cli.games.HALF) == blocks


def test_a_process_in_the_c_locale_prints_and_writes(tmp_path):
    """The whole way: the streams that Python makes, the console, and the files."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONIOENCODING", "LANG", "PYTHONWARNINGS")}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "80"}
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from metaduel.benchmarks.core.terminal import write_plainly
write_plainly()
from pathlib import Path
from rich.console import Console
from test_terminals import evaluated
from metaduel.benchmarks.core.summary import sheets, write_report
assert sys.stdout.encoding.lower() not in ("utf-8", "utf8"), sys.stdout.encoding
for sheet in sheets(evaluated()):
    Console().print(sheet.rich())
write_report(evaluated(), {str(tmp_path)!r}, "a line", "a line \\u2212 one")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"maml - joint, shot 1" in done.stdout
    assert done.stdout.isascii()
    report = (tmp_path / "report.md").read_bytes().decode("utf-8")
    assert "| maml − joint, shot 1 |" in report
    assert "- a line − one\n" in report


def test_files_are_read_and_written_in_utf_8():
    """Not in the encoding of the terminal: every call says so."""
    found = []
    rooms = ("envs", "agents", "meta", "benchmarks", "metaduel", "examples")
    for file in (file for room in rooms for file in (ROOT / room).rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            binary = any(isinstance(arg, ast.Constant) and "b" in str(arg.value) for arg in call.args)
            of_text = name in ("read_text", "write_text") or (name == "open" and not binary)
            owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
            foreign = owner in ("Image", "archive", "os")
            if of_text and not foreign and "encoding" not in {keyword.arg for keyword in call.keywords}:
                found.append(f"{file.relative_to(ROOT)}:{call.lineno}")
    assert found == []


# Tables


SHOTS = {"maml": 4, "random start": 4, "joint": 4, "informed": 1, "scripted: gambler": 1}


def evaluated():
    """A table of many sheets: both roles, baselines, and crossed panels."""
    rng, parts = np.random.default_rng(0), []
    splits = ("held_out", "train")
    for role, split, met, (method, shots) in itertools.product(ROLES, splits, splits, SHOTS.items()):
        if (split, met) != ("held_out", "held_out") and method not in ("maml", "joint"):
            continue
        level = {"informed": 5.0, "maml": 1.0}.get(method, -1.0)
        made = tables.from_returns(
            level + rng.standard_normal((shots, 2, 3, 2)), find("Pursuit"), role=role, method=method,
            seed=-1 if method.startswith("scripted") else 0, task_split=split, tasks=[f"{split}:{i}" for i in range(3)],
            opponent_split=met, opponents=["a", "b"], actions="sampled",
        )  # fmt: skip
        parts.append(made)
    return tables.concatenate(parts)


def printed(sheet, width, encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width).print(sheet)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def words_of(text):
    for line in "┏┳┓┃┡╇╉┩│└┴┘━─":
        text = text.replace(line, " ")
    return text.split()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_sheets_show_every_header_and_number_at_any_width(width):
    found = sheets(evaluated())
    assert len(found) >= 6
    for sheet in found:
        text = printed(sheet.rich(), width)
        assert max(map(cell_len, text.splitlines())) <= width
        assert "…" not in text
        lines = " ".join(words_of(text))
        words = set(words_of(text)) | {word.rstrip(":,") for word in words_of(text)}
        of_blocks = () if "┃" in text else ("role", "method", "shot", "difference", "")  # their cells name the blocks
        for name in (name for name in sheet.header if name not in of_blocks):
            assert set(name.split()) <= words, name
        for row in sheet.rows:
            for cell in filter(None, row):
                assert cell in lines or set(cell.split()) <= words, (
                    cell
                )  # prose may be spread over the lines of a column
                if cell[-1] in "]*":
                    assert any(cell in line for line in text.splitlines()), (
                        cell
                    )  # a number and its interval stay together


def test_a_sheet_is_columns_where_they_fit_and_blocks_where_not():
    rows = (("maml", "−0.020 [−0.079, 0.039]", "0.003 [−0.082, 0.087]"), ("joint", "1", ""))
    sheet = Sheet("A title", ("method", "shot 0", "shot 1"), rows, "A note.")
    assert printed(sheet.rich(), 80).splitlines()[2].split() == ["┃", "method", "┃", "shot", "0", "┃", "shot", "1", "┃"]
    assert printed(sheet.rich(), 40).rstrip().splitlines() == [
        "A title", "maml", "  shot 0: −0.020 [−0.079, 0.039]", "  shot 1: 0.003 [−0.082, 0.087]", "joint", "  shot 0: 1",
        "A note.",
    ]  # fmt: skip
    assert "  shot 0: -0.020 [-0.079, 0.039]" in printed(sheet.rich(), 40, "ascii")


def test_blocks_are_called_by_what_tells_them_apart():
    rows = [("protagonist", "maml", "0", "a " * 20), ("protagonist", "maml", "1", ":x: [b]" + "c" * 70)]
    lines = printed(FittedTable(("role", "method", "shot", "what"), rows), 30).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "protagonist, maml, shot 0",
        "protagonist, maml, shot 1",
        "",
    ]
    assert ":x: [b]" in "\n".join(lines)
    assert sum(line.count("c") for line in lines) == 70


@pytest.mark.parametrize("columns", [60, 80])
def test_commands_cut_nothing(columns, monkeypatch):
    for args in (["list"], ["info", "Pursuit"], ["methods"]):
        _, out, _ = output(monkeypatch, "utf-8", *args, columns=columns)
        assert "…" not in out
        assert max(map(cell_len, out.splitlines())) <= columns
    _, out, _ = output(monkeypatch, "utf-8", "info", "Pursuit", columns=columns)
    words = {word.rstrip(",") for word in words_of(out)}
    assert {"extrapolation", "radius=0.75", "pursuer_acceleration", "non-adapting"} <= {w.rstrip(":") for w in words}
