"""`recorder export` and `recorder import`: recordings as files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer

from recorder.cli import screen
from recorder.clock import iso
from recorder.dialects import masked
from recorder.export import Counts, export, import_
from recorder.export.files import File

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130
#: Ids of runs that are named when they are left out.
_NAMED = 5

#: What is told of, one and many.
_NOUNS = ("conversation", "message", "run", "token", "frame", "gap", "annotation")

Tell = Callable[[int, int | None], None]


def out(url: str, ids: Sequence[str], output: str | None) -> int:
    """Write an export; the exit code."""
    target: File = sys.stdout.buffer if output in (None, "-") else str(output)
    try:
        with _progress("Exporting", "tokens") as tell:
            done = export(url, target, ids or None, progress=tell)
            sys.stdout.flush()
    except KeyboardInterrupt:
        typer.echo("Stopped; no file was written.", err=True)
        return INTERRUPTED
    where = "" if output in (None, "-") else f" to {output}"
    typer.echo(f"Wrote {_counted(done.written)}{where}.", err=True)
    if left := done.left_out:
        names = ", ".join(left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
        what = "run that still streams" if len(left) == 1 else "runs that still stream"
        typer.echo(f"Left out: {len(left):,} {what} ({names}); export again when over.", err=True)
    return 0


def back(url: str, file: str) -> int:
    """Read an export; the exit code."""
    source: File = sys.stdin.buffer if file == "-" else file
    try:
        with _progress("Importing", "bytes") as tell:
            done = import_(url, source, progress=tell)
    except KeyboardInterrupt:
        typer.echo("Stopped; the runs that came are stored, and the same import again goes on.", err=True)
        return INTERRUPTED
    header = done.header
    of = f"exported {screen.moment(iso(header.exported_at))} from {header.source or 'elsewhere'}"
    typer.echo(f"Read {'stdin' if file == '-' else file}, {screen.safe(of)},")
    typer.echo(f"into {masked(url)}")
    typer.echo(f"New: {_counted(done.new)}.")
    typer.echo(f"Already there: {_counted(done.there)}.")
    return 0


def _counted(counts: Counts) -> str:
    """What there is, in words."""
    numbers = [(getattr(counts, noun + "s"), noun) for noun in _NOUNS]
    return ", ".join(screen.plural(number, noun) for number, noun in numbers if number) or "nothing"


@contextmanager
def _progress(title: str, unit: str) -> Iterator[Tell | None]:
    """A bar on stderr where somebody looks at it; it goes when all is done."""
    shown = screen.console(stderr=True)
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
