"""Output that every terminal shows: no character that its encoding lacks, and no table wider than its lines."""

from __future__ import annotations

import codecs
import io
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

PLAINLY = "metaduel.plainly"  # name of the encoding error handler
_PLAIN = {
    "−": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "→": "->", "←": "<-", "↔": "<->", "⇒": "=>", "±": "+/-",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "×": "x", "÷": "/", "·": ".", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"',
    "«": '"', "»": '"', "°": " deg", "√": "sqrt", "∞": "inf", "∇": "grad ", "Σ": "sum", "∑": "sum", "²": "^2", "³": "^3",
}  # fmt: skip
_NUMBERS = re.compile(r"[-+−\d.,\[\] %*]+")
_PROSE = 16  # characters: a narrower column of prose is hard to read


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace the first character that an encoding lacks; a byte of a file's name stays that byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return _replacement(character), error.start + 1


def _replacement(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    name, code = unicodedata.name(character, ""), ord(character)
    if 0x2500 <= code <= 0x257F:  # drawn lines
        return "-" if "HORIZONTAL" in name and "VERTICAL" not in name else "|" if name.endswith("VERTICAL") else "+"
    if 0x2580 <= code <= 0x259F or 0x2800 <= code <= 0x28FF:  # blocks and spinners
        return "#"
    if name.startswith("GREEK"):
        return name.rpartition(" ")[2].lower()
    parts = unicodedata.normalize("NFKD", character).replace("\N{FRACTION SLASH}", "/")
    return parts.encode("ascii", "ignore").decode() or "?"


codecs.register_error(PLAINLY, _plainly)


def plain(text: str, encoding: str) -> str:
    """A text with plain characters in place of those that an encoding lacks: ``-`` for a true minus, ``->`` for an arrow."""
    return text.encode(encoding, PLAINLY).decode(encoding, "replace")


def write_plainly() -> None:
    """Let standard output and standard error write plain characters in place of those that their encodings lack."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAINLY)


class FittedTable:
    """A table for ``rich.print`` that cuts nothing: columns where they fit, otherwise a block of lines for each row.

    Lines break between words, never within a number or its interval.

    Args:
        header: one name per column.
        rows: one string per column each.
        title: a title above it.
        note: a note below it.
        justify: of all columns but the first.
    """

    def __init__(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        title: str = "",
        note: str = "",
        justify: Literal["left", "right"] = "left",
    ) -> None:
        self.header, self.rows, self.title, self.note, self.justify = header, rows, title, note, justify

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """See rich's console protocol."""
        title, note = plain(self.title, options.encoding), plain(self.note, options.encoding)
        header = [plain(name, options.encoding) for name in self.header]
        rows = [[plain(cell, options.encoding) for cell in row] for row in self.rows]
        widths = _widths([header, *rows], options.max_width - 3 * len(header) - 1)
        if widths is None:
            yield from _blocks(header, rows, title, note, options.max_width)
            return
        made = Table(
            title=Text(title, "table.title") if title else None, caption=Text(note, "table.caption") if note else None
        )
        for i, (name, width) in enumerate(zip(header, widths, strict=True)):
            made.add_column(Text(name), justify=self.justify if i else "left", width=width, overflow="fold")
        for row in rows:
            made.add_row(*map(Text, row))
        yield made


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """The columns' widths, at most ``room`` together; None: the columns don't fit."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = [_least(column) for column in columns]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _least(column: Sequence[str]) -> int:
    """The least width of a column, header first: that of its longest word, number or interval, and enough for prose."""
    name, *cells = column
    whole = [cell for cell in cells if _NUMBERS.fullmatch(cell)]
    prose = [cell for cell in cells if not _NUMBERS.fullmatch(cell)]
    words = [word for text in (name, *prose) for word in text.split()]
    return max(*map(cell_len, (*whole, *words, "")), min(_PROSE, max(map(cell_len, (*prose, "")))))


def _naming(rows: Sequence[Sequence[str]]) -> int:
    """The number of first columns that tell all rows apart."""
    counts = range(1, max((len(row) for row in rows), default=1))
    return next((n for n in counts if len({tuple(row[:n]) for row in rows}) == len(rows)), 1)


def _blocks(
    header: Sequence[str], rows: Sequence[Sequence[str]], title: str, note: str, width: int
) -> Iterator[Table | Text]:
    if title:
        yield Text(title, "table.title")
    named = _naming(rows)
    for row in rows:
        parts = (f"{name} {cell}" if _NUMBERS.fullmatch(cell) else cell for name, cell in zip(header, row[:named]))
        yield Text(", ".join(filter(None, parts)), "bold", overflow="fold")
        for name, cell in zip(header[named:], row[named:], strict=True):
            if cell:
                whole = cell.replace(" ", "\N{NO-BREAK SPACE}") if _NUMBERS.fullmatch(cell) else cell
                line = f"{name}: {whole}" if name else whole
                text = fill(line, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
                yield Text(text.replace("\N{NO-BREAK SPACE}", " "), overflow="fold")
    if note:
        yield Text(note, "table.caption")
    yield Text("")
