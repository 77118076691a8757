"""A progress bar for commands that take long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from recorder.cli import console

#: Called with the amount that is done, and the total if it is known.
OnProgress = Callable[[int, int | None], None]


@contextmanager
def progress(title: str, unit: str, *, hidden: bool = False) -> Iterator[OnProgress | None]:
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
