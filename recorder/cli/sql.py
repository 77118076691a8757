"""`recorder sql`: reads a statement, runs it, and prints its rows for people, as JSON or as CSV."""

from __future__ import annotations

import base64
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from recorder.cli import console, queries
from recorder.core.clock import iso
from recorder.core.json import dumps
from recorder.core.printable import printable
from recorder.errors import ConfigError

#: The name of a file that means stdin.
STDIN = "-"


def run(url: str, query: str | None, file: str | None, *, as_json: bool, as_csv: bool) -> None:
    """Run the statement, and print its rows. Raises `RecorderError`."""
    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other; leave one of them out")
    statement = _statement(query, file)
    names, rows = queries.read(url, lambda store: queries.table(store, statement))
    if as_csv:
        _print_csv(names, rows)
    elif as_json:
        console.print_json_rows(rows)
    elif rows:
        console.print_rows(rows)
    else:
        console.echo("No rows.", stderr=True)


def _statement(query: str | None, file: str | None) -> str:
    """The argument, or the text of the file or of stdin. Raises `ConfigError`."""
    if query is not None and file is not None:
        raise ConfigError("A statement and --file exclude each other; leave one of them out")
    if file is None and query is None and sys.stdin.isatty():
        raise ConfigError(
            'No statement is given; write `recorder sql "SELECT ..."`, --file FILE, or - for stdin'
        )
    is_argument = query is not None and query != STDIN
    statement = str(query) if is_argument else _read(file or STDIN)
    if not statement.strip():
        raise ConfigError("The statement is empty; give a SELECT")
    return statement


def _read(file: str) -> str:
    name = "stdin" if file == STDIN else file
    try:
        data = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{name} cannot be read: {error.strerror}; --file takes the file of a statement"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text; give a file with a statement") from error


def _print_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A line of names, then the rows. To a terminal, controls are escaped."""
    shown = printable if sys.stdout.isatty() else str
    for cells in [list(names), *([_csv_cell(row[name]) for name in names] for row in rows)]:
        sys.stdout.write(shown(_csv_line(cells)))


def _csv_line(cells: Sequence[str]) -> str:
    # With this end of line, older Pythons do not quote a carriage return, and readers take it for the end of a line.
    line = io.StringIO()
    if any("\r" in cell for cell in cells):
        csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    else:
        csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _csv_cell(value: Any) -> str:
    """A value as text: NULL as "", bytes as base64, lists and objects as JSON."""
    if value is None:
        return ""
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, datetime):
        return iso(value)
    return dumps(value) if isinstance(value, bool | list | dict) else str(value)
