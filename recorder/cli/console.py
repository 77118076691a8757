"""What the command line prints: tables that fit, JSON for programs, text that cannot move the cursor."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from recorder.core.clock import iso
from recorder.core.json import dumps
from recorder.core.printable import printable, printable_json

Row = Mapping[str, Any]

#: A pipe or a file has no width: nothing that somebody searches for is cut or folded there.
_NO_WIDTH = 100_000
#: A column of text that is narrower than its text, and than this, is a strip (characters).
_STRIP = 24
#: The deepest JSON that is shown; Python's own writer, and ours, go little deeper.
_DEEPEST = 200


class Screen(Console):
    """A console on which no text moves the cursor, whoever wrote it and whoever forgot that."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is shown; only what this program itself wants of the terminal stays a control."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, `COLUMNS` if set, or without end into a pipe."""
    return Screen(width=_width(), stderr=stderr, highlight=False, markup=False, emoji=False)


def notice(*lines: Text) -> None:
    """Something on stderr that is not said by a model, below what stdout shows so far."""
    sys.stdout.flush()
    shown = console(stderr=True)
    for line in lines:
        # A printed text forgets how it wanted to be cut.
        if line.overflow == "ellipsis":
            shown.print(line, no_wrap=True, overflow="ellipsis")
        else:
            shown.print(line, soft_wrap=True)


def _width() -> int:
    if os.environ.get("COLUMNS", "").isdecimal() or sys.stdout.isatty():
        return max(shutil.get_terminal_size().columns, 20)
    return _NO_WIDTH


def styled(
    text: str, style: str = "", *, overflow: OverflowMethod | None = None, no_wrap: bool | None = None
) -> Text:
    """A text for a console, its controls written out before it is measured."""
    return Text(printable(text), style=style, overflow=overflow, no_wrap=no_wrap)


def echo(*lines: str, stderr: bool = False) -> None:
    """Lines as they are, never wrapped, that cannot move the cursor."""
    print(*map(printable, lines), sep="\n", file=sys.stderr if stderr else sys.stdout)


def cell(value: Any) -> str:
    """A value on one line: nothing for NULL, bytes by their number, newlines as an arrow."""
    if value is None:
        return ""
    if isinstance(value, bytes | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, datetime):
        return iso(value)
    return printable(str(value).replace("\r\n", "\n").replace("\n", "↵").replace("\t", " "))


def table(names: Sequence[str], rows: Iterable[Row], *, fold: Sequence[str] | None = None) -> Table:
    """Rows under their names; `fold` names the columns that may break, all of them when None."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
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
    """Rows side by side where there is room for every column, else one below the other."""
    screen = console()
    names = list(rows[0])
    if _narrowest(names, rows) <= screen.width:
        screen.print(table(names, rows))
        return
    for row in rows:
        screen.print(facts([(name, "" if row[name] is None else row[name]) for name in names]))
        screen.print()


def _narrowest(names: Sequence[str], rows: Sequence[Row]) -> int:
    """The width below which columns of text are folded into unreadable strips."""
    widths = [min(max(len(cell(row[name])) for row in rows), _STRIP) for name in names]
    return sum(max(width, len(name)) + 3 for width, name in zip(widths, names, strict=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def facts(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values in two columns; what is None is left out."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            shown.add_row(styled(cell(name), "dim"), styled(cell(value)))
    return shown


def write_bytes(data: bytes) -> None:
    """Bytes to stdout as they are, or on a terminal as text that cannot move the cursor."""
    if sys.stdout.isatty():
        sys.stdout.write(printable(data.decode("utf-8", "backslashreplace")))
    else:
        sys.stdout.buffer.write(data)


def print_json(value: Any) -> None:
    """One value as JSON."""
    print(json_text(value))


def print_json_rows(rows: Iterable[Row]) -> None:
    """A JSON array with one row a line, printed as the rows come."""
    opening = "["
    for row in rows:
        print(opening + json_text(row), end="")
        opening = ",\n "
    print("]" if opening != "[" else "[]")


def json_text(value: Any) -> str:
    """JSON on one line, that a terminal shows as it is."""
    return printable_json(dumps(_plain(value)))


def _plain(value: Any, depth: int = 0) -> Any:
    """What JSON has no form for: bytes as base64, moments as ISO 8601, ids as text; what is too deep as a word."""
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
    """A number of bytes for people."""
    amount, units = float(count), ["bytes", "KB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def moment(value: datetime | str | None) -> str | None:
    """A moment for people, in UTC, to the second."""
    if value is None:
        return None
    text = iso(value) if isinstance(value, datetime) else value
    return f"{text[:10]} {text[11:19]}Z"


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,000 runs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
