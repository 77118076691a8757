"""`recorder export` and `recorder import`: recordings as files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from recorder.cli import console
from recorder.core.clock import iso
from recorder.core.printable import printable_json, printable_line
from recorder.export import Counts, export, import_
from recorder.export.files import File
from recorder.storage.dialects import masked

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130
#: Ids of runs that are named when they are left out.
_NAMED = 5
#: What is shown of where an export says that it is from (characters).
_LONGEST_SOURCE = 200

#: What is told of, one and many.
_NOUNS = ("conversation", "message", "run", "token", "frame", "gap", "annotation")

Tell = Callable[[int, int | None], None]


def out(url: str, ids: Sequence[str], output: str | None) -> int:
    """Write an export; the exit code."""
    target: File = _stdout() if output in (None, "-") else str(output)
    try:
        with _progress("Exporting", "tokens") as tell:
            done = export(url, target, ids or None, progress=tell)
            sys.stdout.flush()
    except KeyboardInterrupt:
        console.echo("Stopped; no file was written.", stderr=True)
        return INTERRUPTED
    where = "" if output in (None, "-") else f" to {output}"
    console.echo(f"Wrote {_counted(done.written)}{where}.", stderr=True)
    if left := done.left_out:
        names = ", ".join(left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
        what = "run that still streams" if len(left) == 1 else "runs that still stream"
        console.echo(f"Left out: {len(left):,} {what} ({names}); export again when over.", stderr=True)
    return 0


class _OnScreen:
    """A terminal as a file of text: the lines are JSON of the same values, and cannot move the cursor."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        """A line."""
        sys.stdout.write(printable_json(text))


def _stdout() -> IO[Any]:
    return cast(IO[Any], _OnScreen()) if sys.stdout.isatty() else sys.stdout.buffer


def back(url: str, file: str) -> int:
    """Read an export; the exit code."""
    source: File = sys.stdin.buffer if file == "-" else file
    try:
        with _progress("Importing", "bytes") as tell:
            done = import_(url, source, progress=tell)
    except KeyboardInterrupt:
        console.echo(
            "Stopped; the runs that came are stored, and the same import again goes on.", stderr=True
        )
        return INTERRUPTED
    header = done.header
    source = printable_line(header.source[:_LONGEST_SOURCE])
    of = f"exported {console.moment(iso(header.exported_at))} from {source or 'elsewhere'}"
    console.echo(f"Read {'stdin' if file == '-' else file}, {of},")
    console.echo(f"into {masked(url)}")
    console.echo(f"New: {_counted(done.new)}.")
    console.echo(f"Already there: {_counted(done.there)}.")
    return 0


def _counted(counts: Counts) -> str:
    """What there is, in words."""
    numbers = [(getattr(counts, noun + "s"), noun) for noun in _NOUNS]
    return ", ".join(console.plural(number, noun) for number, noun in numbers if number) or "nothing"


@contextmanager
def _progress(title: str, unit: str) -> Iterator[Tell | None]:
    """A bar on stderr where somebody looks at it; it goes when all is done."""
    shown = console.console(stderr=True)
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(None), amount, TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
