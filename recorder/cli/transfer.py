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

#: The exit code of a program that Ctrl-C ended, as shells report it.
INTERRUPTED = 130
#: How many runs that were left out are listed.
_NAMED = 5
#: How much of an export's `source` is shown (characters).
_LONGEST_SOURCE = 200

#: The rows that are counted, in the order in which they are shown.
_NOUNS = ("conversation", "message", "run", "token", "frame", "gap", "annotation")

#: Called with the amount that is done, and the total if it is known.
OnProgress = Callable[[int, int | None], None]


def write_export(url: str, ids: Sequence[str], output: str | None) -> int:
    """Write an export; the exit code."""
    target: File = _stdout() if output in (None, "-") else str(output)
    try:
        with progress_bar("Exporting", "tokens", hidden=_is_on_screen(output)) as on_progress:
            done = export(url, target, ids or None, progress=on_progress)
            sys.stdout.flush()
    except KeyboardInterrupt:
        console.echo("Stopped; no file was written.", stderr=True)
        return INTERRUPTED
    where = "" if output in (None, "-") else f" to {output}"
    console.echo(f"Wrote {_counted(done.written)}{where}.", stderr=True)
    if left := done.left_out:
        names = ", ".join(left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
        what = "run that still streams" if len(left) == 1 else "runs that still stream"
        later = "when it has ended" if len(left) == 1 else "when they have ended"
        console.echo(f"Left out: {len(left):,} {what} ({names}); export again {later}.", stderr=True)
    return 0


class _OnScreen:
    """A terminal as a text file. In the lines of JSON controls become JSON escapes of the same values."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        """Write one line."""
        sys.stdout.write(printable_json(text))


def _is_on_screen(output: str | None) -> bool:
    """Whether the lines of an export are shown in a terminal, where a progress bar would be between them."""
    return output in (None, "-") and sys.stdout.isatty()


def _stdout() -> IO[Any]:
    return cast(IO[Any], _OnScreen()) if sys.stdout.isatty() else sys.stdout.buffer


def read_export(url: str, file: str) -> int:
    """Import a file into a database; the exit code."""
    source: File = sys.stdin.buffer if file == "-" else file
    try:
        with progress_bar("Importing", "bytes") as on_progress:
            done = import_(url, source, progress=on_progress)
    except KeyboardInterrupt:
        console.echo(
            "Stopped. The runs that were read are stored; import the file again to read the rest.",
            stderr=True,
        )
        return INTERRUPTED
    header = done.header
    source = printable_line(header.source[:_LONGEST_SOURCE])
    origin = f"exported {console.moment(iso(header.exported_at))} from {source or 'an unknown database'}"
    console.echo(f"Read {'stdin' if file == '-' else file}, {origin},")
    console.echo(f"into {masked(url)}")
    console.echo(f"New: {_counted(done.new)}.")
    console.echo(f"Already stored: {_counted(done.there)}.")
    return 0


def _counted(counts: Counts) -> str:
    """The counts in words, such as "1 run, 12 tokens"; "nothing" if all are 0."""
    numbers = [(getattr(counts, noun + "s"), noun) for noun in _NOUNS]
    return ", ".join(console.plural(number, noun) for number, noun in numbers if number) or "nothing"


@contextmanager
def progress_bar(title: str, unit: str, *, hidden: bool = False) -> Iterator[OnProgress | None]:
    """A progress bar on stderr, removed at the end; None if it is hidden, or stderr is not a terminal."""
    shown = console.console(stderr=True)
    if hidden or not sys.stderr.isatty():
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
    # An export writes to stdout meanwhile; rich would print that on the bar's console.
    with Progress(*columns, console=shown, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
