"""Connections to SQLite files that are closed while the process forks.

SQLite remembers in the process which locks it holds on a file. A forked child has that memory and not the locks, which
belong to the parent: both would write as if they were alone, and the file is lost
(https://sqlite.org/howtocorrupt.html, "Carrying an open database connection across a fork"). So before a fork each
connection is closed, between two transactions, and whoever uses it next, in the parent or in the child, opens another.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from recorder.core.inherited import keep_for_ever

T = TypeVar("T")

#: How long a fork waits for transactions to end before it ends them (seconds): what they would have stored is stored
#: again by the writer. And how long for SQLite to return from a call, however slow the disk is.
TRANSACTION_TIMEOUT = 1.0
FORK_TIMEOUT = 5.0
#: SQLite waits so long for another program's lock in one call (seconds); a fork can happen between two such calls.
_SLICE = 0.1
_PAUSE = 0.001


class ClosedByFork(sqlite3.OperationalError):
    """The connection was closed because the process forked; another one does the same again."""


class UnsafeAfterFork(sqlite3.OperationalError):
    """The parent's connection was open when this process was forked; using the file here would damage it."""


class Handle(sqlite3.Connection):
    """A connection to the file at `path`, for any thread, one at a time.

    `timeout` is how long it waits for other programs' locks (seconds). Raises `UnsafeAfterFork`.
    """

    def __init__(self, database: str, *, path: Path, timeout: float = 5.0, **options: Any) -> None:
        self.path = path
        #: Whether it was closed; whether a fork closed it.
        self.closed = self.gone = False
        #: Held in each call of SQLite, by this thread.
        self.lock = threading.Lock()
        self.thread: int | None = None
        self._timeout = timeout
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()
        options["check_same_thread"] = False
        with _forks.opening:
            _forks.require_safe(path)
            super().__init__(database, timeout=min(timeout, _SLICE), **options)
            _forks.add(self)

    def call(self, work: Callable[..., T], *given: Any) -> T:
        """Do something with SQLite while no fork happens. Raises `ClosedByFork`."""
        until = 0.0
        while True:
            if not _forks.over.is_set() and not self._is_in_transaction():
                _forks.over.wait(FORK_TIMEOUT)  # a lock alone would let this thread have it again and again
            with self.lock:
                try:
                    return self._locked(work, given)
                except sqlite3.OperationalError as error:
                    until = until or monotonic() + self._timeout
                    if not _is_busy(error) or self.in_transaction or monotonic() >= until:
                        raise
            sleep(_PAUSE)  # a fork can happen here, however long another program holds the lock

    def _is_in_transaction(self) -> bool:
        try:
            return self.in_transaction
        except sqlite3.ProgrammingError:  # it is closed
            return False

    def _locked(self, work: Callable[..., T], given: Sequence[Any]) -> T:
        if self.gone:
            raise ClosedByFork("interrupted: the process forked, and its connections were closed for that")
        self.thread = threading.get_ident()
        try:
            return work(*given)
        finally:
            self.thread = None

    def cursor(self, factory: Any = None) -> Any:
        """A cursor whose calls no fork comes between."""
        return self.call(self._new_cursor, factory or _Cursor)

    def _new_cursor(self, factory: Any) -> Any:
        found = super().cursor(factory)
        self._cursors.add(found)
        return found

    # sqlite3's own go past the class of the cursor.

    def execute(self, *given: Any) -> Any:
        """With a cursor of its own."""
        return self.cursor().execute(*given)

    def executemany(self, *given: Any) -> Any:
        """With a cursor of its own."""
        return self.cursor().executemany(*given)

    def executescript(self, *given: Any) -> Any:
        """With a cursor of its own."""
        return self.cursor().executescript(*given)

    def commit(self) -> None:
        """Raises `ClosedByFork` where the transaction was ended before."""
        self.call(super().commit)

    def rollback(self) -> None:
        """Nothing is left to do where a fork closed the connection."""
        if not self.gone:
            self.call(super().rollback)

    def close(self) -> None:
        """Let go of the file."""
        with self.lock:
            super().close()
            # Not before: a fork in the middle would hand SQLite's locks on to the child, so it has to wait.
            self.closed = True

    def create_function(self, *given: Any, **options: Any) -> None:
        """As SQLAlchemy does with each new connection."""
        self.call(lambda: super(Handle, self).create_function(*given, **options))

    @property
    def cursors(self) -> list[sqlite3.Cursor]:
        """Those that are not collected yet."""
        return list(self._cursors)

    def close_for_fork(self) -> None:
        """The caller holds `lock`. A transaction that is open is rolled back."""
        for cursor in self.cursors:  # one with an open statement would keep SQLite's connection open
            sqlite3.Cursor.close(cursor)
        super().close()
        self.closed = self.gone = True


class _Cursor(sqlite3.Cursor):
    """Whose calls no fork comes between."""

    connection: Handle

    def execute(self, *given: Any) -> Any:
        return self.connection.call(super().execute, *given)

    def executemany(self, *given: Any) -> Any:
        return self.connection.call(super().executemany, *given)

    def executescript(self, *given: Any) -> Any:
        return self.connection.call(super().executescript, *given)

    def fetchone(self) -> Any:
        return self.connection.call(super().fetchone)

    def fetchmany(self, *given: Any) -> Any:
        return self.connection.call(super().fetchmany, *given)

    def fetchall(self) -> Any:
        return self.connection.call(super().fetchall)

    def __next__(self) -> Any:
        return self.connection.call(super().__next__)

    def close(self) -> None:
        if not self.connection.gone:
            self.connection.call(super().close)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Device and inode of the file that has this name; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Forks:
    """The open handles of this process, and what happens to them at a fork."""

    def __init__(self) -> None:
        #: Held while a handle is opened, and from before a fork until after it.
        self.opening = threading.Lock()
        #: Set while nobody forks.
        self.over = threading.Event()
        self.over.set()
        # By `id`: a set of weak references cannot be walked through while other threads change it.
        self._handles: dict[int, weakref.ref[Handle]] = {}
        # Files that this process must not open.
        self._unsafe: set[tuple[int, int]] = set()
        # The handles that each forking thread holds.
        self._forking: dict[int, list[Handle]] = {}

    def add(self, handle: Handle) -> None:
        """A handle that is open from now on."""
        key, handles = id(handle), self._handles
        handles[key] = weakref.ref(handle, lambda _: handles.pop(key, None))

    def require_safe(self, path: Path) -> None:
        """Raise `UnsafeAfterFork` for a file that this process must not open."""
        if self._unsafe and identity(path) in self._unsafe:
            raise UnsafeAfterFork(
                f"this process was forked while {path} was open and could not be closed, and would damage it; make "
                "the recorder after the fork, or start processes by spawn"
            )

    def before(self) -> None:
        """Close what is open, on the thread that forks; in time, or some of it stays open."""
        until = monotonic() + FORK_TIMEOUT
        if not self.opening.acquire(timeout=FORK_TIMEOUT):
            return
        held = self._forking[threading.get_ident()] = []
        self.over.clear()
        grace = monotonic() + TRANSACTION_TIMEOUT
        while not self._hold(held, grace, until):
            while held:
                held.pop().lock.release()
            sleep(_PAUSE)
        for handle in held:
            handle.close_for_fork()

    def _hold(self, held: list[Handle], grace: float, until: float) -> bool:
        """Whether all that can be held is, and is between two transactions, or has been in one for too long."""
        for handle in self._open():
            if handle.thread == threading.get_ident():
                continue  # a finalizer or a signal handler that forks in the middle of a call
            if not handle.lock.acquire(timeout=max(0.0, grace - monotonic())):
                with suppress(sqlite3.Error):
                    handle.interrupt()
                if not handle.lock.acquire(timeout=max(0.0, until - monotonic())):
                    continue
            held.append(handle)
        held[:] = [handle for handle in held if not _released(handle)]
        return monotonic() >= grace or not any(handle.in_transaction for handle in held)

    def in_parent(self) -> None:
        """Let those go on who wait; they find their handles gone."""
        held = self._forking.pop(threading.get_ident(), None)
        if held is None:
            return
        for handle in held:
            handle.lock.release()
        self.over.set()
        self.opening.release()

    def in_child(self) -> None:
        """What is open here is the parent's. Nobody waits, for there is no other thread."""
        self.opening, self.over = threading.Lock(), threading.Event()
        self.over.set()
        for handle in self._open():
            if (found := identity(handle.path)) is not None:
                self._unsafe.add(found)
            keep_for_ever(handle, *handle.cursors)
        self._handles.clear()
        self._forking.clear()

    def _open(self) -> list[Handle]:
        handles = (each() for each in list(self._handles.values()))
        return [handle for handle in handles if handle is not None and not handle.closed]


def _released(handle: Handle) -> bool:
    """Whether its owner closed it just now; then it is not held any more."""
    if handle.closed:
        handle.lock.release()
    return handle.closed


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.in_parent, after_in_child=_forks.in_child
    )
