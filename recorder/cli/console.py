"""Printing: tables that fit the terminal, JSON, and text in which terminal controls are escaped."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from recorder.core.clock import iso
from recorder.core.json import dumps
from recorder.core.printable import printable, printable_json

Row = Mapping[str, Any]

#: The width of a pipe or a file (characters): so large that no text is cut or folded, and `grep` finds all of it.
_NO_WIDTH = 100_000
#: The width of a terminal that does not tell it, and the least width that is used.
_USUAL_WIDTH, _LEAST_WIDTH = 80, 20
#: A column needs the width of its text, or at least this (characters), to be readable.
_STRIP = 24
#: The spaces between two columns of a table: in general, and where the table would be too wide.
_GAPS = (3, 2)
#: The deepest JSON that is printed; Python's JSON encoder fails a little deeper.
_DEEPEST = 200


class Screen(Console):
    """A console that escapes the terminal controls in every text, also where a caller forgot to."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to print; only rich's own control segments may move the cursor."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def console(*, stderr: bool = False) -> Console:
    """A console of its terminal's width, or of `COLUMNS` if that is set; a pipe is unlimited."""
    width = _width(sys.stderr if stderr else sys.stdout)
    return Screen(width=width, stderr=stderr, highlight=False, markup=False, emoji=False)


def notice(*lines: Text) -> None:
    """Print lines to stderr, after everything that was written to stdout."""
    sys.stdout.flush()
    shown = console(stderr=True)
    for line in lines:
        # `Console.print` ignores the overflow of a text, so it is passed again.
        if line.overflow == "ellipsis":
            shown.print(line, no_wrap=True, overflow="ellipsis")
        else:
            shown.print(line, soft_wrap=True)


def _width(stream: TextIO) -> int:
    """The width of what is written to this stream: stdout may be a file while stderr is a terminal."""
    given = os.environ.get("COLUMNS", "")
    columns = int(given) if given.isdecimal() else 0
    if not columns and not stream.isatty():
        return _NO_WIDTH
    return max(columns or os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH, _LEAST_WIDTH)


def styled(
    text: str, style: str = "", *, overflow: OverflowMethod | None = None, no_wrap: bool | None = None
) -> Text:
    """A text for a console. Controls are escaped here, before rich measures the width."""
    return Text(printable(text), style=style, overflow=overflow, no_wrap=no_wrap)


def echo(*lines: str, stderr: bool = False) -> None:
    """Print lines without wrapping, with controls escaped."""
    print(*map(printable, lines), sep="\n", file=sys.stderr if stderr else sys.stdout)


def cell(value: Any) -> str:
    """A value on one line: NULL as "", bytes as their count, newlines as an arrow."""
    if value is None:
        return ""
    if isinstance(value, bytes | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, datetime):
        return iso(value)
    return printable(str(value).replace("\r\n", "\n").replace("\n", "↵").replace("\t", " "))


def shortened(text: str, width: int) -> str:
    """The beginning of a text that fits the width (columns), up to the end of a word, with "…" where it was cut."""
    if cell_len(text) <= width:
        return text
    fitting = set_cell_size(text, width - 1)
    words, _, _ = fitting.rpartition(" ")
    if text[len(fitting) : len(fitting) + 1] != " " and words.strip():
        fitting = words
    return f"{fitting.rstrip()}…"


def table(
    names: Sequence[str], rows: Iterable[Row], *, fold: Sequence[str] | None = None, gap: int = _GAPS[0]
) -> Table:
    """A table with these columns. `fold` lists the columns that may be folded; None is all of them."""
    shown = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), collapse_padding=gap < _GAPS[0]
    )
    listed = list(rows)
    for name in names:
        numeric = any(_is_number(row[name]) for row in listed)
        breaks = fold is None or name in fold
        shown.add_column(
            styled(name), justify="right" if numeric else "left", overflow="fold", no_wrap=not breaks
        )
    for row in listed:
        shown.add_row(*(styled(cell(row[name])) for name in names))
    return shown


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows as a table if all columns fit the width, else as one block of names and values for each row.

    In a pipe a row is a line of cells between tabs, without padding, below a line of names.
    """
    screen = console()
    names = list(rows[0])
    if is_pipe(screen):
        print_tabs(names, rows)
        return
    for gap in _GAPS:
        if _narrowest(names, rows, gap) <= screen.width:
            screen.print(table(names, rows, gap=gap))
            return
    for row in rows:
        screen.print(facts([(name, "" if row[name] is None else row[name]) for name in names]))
        screen.print()


def is_pipe(screen: Console) -> bool:
    """Whether the output has no width: it goes to a pipe or a file."""
    return screen.width == _NO_WIDTH


def print_tabs(names: Sequence[str], rows: Iterable[Row]) -> None:
    """Print a line of names, and a line for each row, with tabs between the cells."""
    echo("\t".join(map(cell, names)), *("\t".join(cell(row[name]) for name in names) for row in rows))


def print_unpadded(shown: Table, *, soft_wrap: bool = False) -> None:
    """Print a table; in a pipe without spaces at the ends of its lines."""
    screen = console()
    if not is_pipe(screen):
        screen.print(shown, soft_wrap=soft_wrap)
        return
    with screen.capture() as captured:
        screen.print(shown)
    echo(*(line.rstrip() for line in captured.get().removesuffix("\n").split("\n")))


def _narrowest(names: Sequence[str], rows: Sequence[Row], gap: int) -> int:
    """The smallest width at which the table is readable."""
    widths = [min(max(len(cell(row[name])) for row in rows), _STRIP) for name in names]
    columns = sum(max(width, len(name)) for width, name in zip(widths, names, strict=True))
    return columns + gap * (len(names) - 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def facts(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values in two columns; values that are None are left out."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            shown.add_row(styled(cell(name), "dim"), styled(cell(value)))
    return shown


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout unchanged; to a terminal, as text with controls escaped."""
    if sys.stdout.isatty():
        sys.stdout.write(printable(data.decode("utf-8", "backslashreplace")))
    else:
        sys.stdout.buffer.write(data)


def print_json(value: Any) -> None:
    """Print one value as JSON."""
    print(json_text(value))


def print_json_rows(rows: Iterable[Row]) -> None:
    """Print a JSON array with one row per line; each row is printed as soon as it is read."""
    opening = "["
    for row in rows:
        print(opening + json_text(row), end="")
        opening = ",\n "
    print("]" if opening != "[" else "[]")


def json_text(value: Any) -> str:
    """JSON on one line, with controls as JSON escapes."""
    return printable_json(dumps(_plain(value)))


def _plain(value: Any, depth: int = 0) -> Any:
    """A value of JSON's types: bytes become base64, times ISO 8601, ids text. Too deep nesting becomes a note."""
    if value is None or isinstance(value, str | int | float):
        return value
    if depth > _DEEPEST:
        return "(nested too deeply to be shown)"
    if isinstance(value, Mapping):
        return {str(name): _plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, bytes | memoryview):
        return {"$base64": True, "encoded": base64.b64encode(bytes(value)).decode()}
    return iso(value) if isinstance(value, datetime) else str(value)


def size(count: int) -> str:
    """A number of bytes for people, such as `1.5 MB`."""
    amount, units = float(count), ["bytes", "KB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def moment(value: datetime | str | None) -> str | None:
    """A time for people, in UTC, to the second."""
    if value is None:
        return None
    text = iso(value) if isinstance(value, datetime) else value
    return f"{text[:10]} {text[11:19]}Z"


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,000 runs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
