"""The thread of a connection to a SQLite file: aiosqlite makes each call of SQLite on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import aiosqlite

from recorder.core.own_thread import settle


def unopened_connection(database: str, **options: Any) -> aiosqlite.Connection:
    """The driver's connection, not opened yet: `await` opens it. Its thread may outlive the event loop.

    If no thread can be started, as when the interpreter ends, each call is made on the event loop's thread.
    """
    found = aiosqlite.connect(database, **options)
    thread: Any = getattr(found, "_thread", found)  # before aiosqlite 0.22 the connection is the thread
    thread.daemon = True  # as SQLAlchemy sets it: the exit of the process does not wait for a call of SQLite
    thread.run = partial(_run_quietly, thread.run)
    thread.start = partial(_start, found, thread.start)
    return found


def _run_quietly(run: Callable[[], None]) -> None:
    """Run the driver's thread without the traceback that it prints if the event loop closes before its last result.

    This happens often after a connection failed to open: nothing waits for the thread then.
    """
    try:
        run()
    except RuntimeError as error:
        if "loop is closed" not in str(error):
            raise


def _start(connection: Any, start: Callable[[], None]) -> None:
    try:
        start()
    except (RuntimeError, MemoryError):
        connection._tx = _CallsAtOnce()


class _CallsAtOnce:
    """In place of the queue between the event loop and the driver's thread."""

    def put_nowait(self, item: tuple[Any, Callable[[], Any]]) -> None:
        """Make the call, and give its result to the future; there is none when a connection is garbage-collected."""
        future, call = item
        if future is None:
            call()
        else:
            settle(future, call)
