"""Connections to SQLite files that are closed before the process forks.

SQLite remembers in the process which locks it holds on a file. A forked child inherits this memory but not the locks,
so parent and child would write at the same time and corrupt the file
(https://sqlite.org/howtocorrupt.html, "Carrying an open database connection across a fork"). Therefore each connection
is closed between two transactions before a fork. The next use, in the parent or in the child, opens a new one.
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

from recorder.core.after_fork import never_finalize

T = TypeVar("T")

#: How long a fork waits for open transactions before it rolls them back (seconds). The writer stores their rows again.
TRANSACTION_TIMEOUT = 1.0
#: How long a fork waits for SQLite to return from a call (seconds).
FORK_TIMEOUT = 5.0
#: How long one call of SQLite waits for another program's lock (seconds). A fork can happen between two calls.
_SLICE = 0.1
_PAUSE = 0.001


class ClosedByFork(sqlite3.OperationalError):
    """The connection was closed because the process forked. Retry with a new connection."""


class UnsafeAfterFork(sqlite3.OperationalError):
    """The parent's connection was open when this process was forked; using the file here would damage it."""


class Handle(sqlite3.Connection):
    """A connection to the file at `path`, for any thread, one at a time.

    `timeout` is how long it waits for other programs' locks (seconds). Raises `UnsafeAfterFork`.
    """

    def __init__(self, database: str, *, path: Path, timeout: float = 5.0, **options: Any) -> None:
        self.path = path
        self.closed = self.closed_by_fork = False
        #: Held during each call of SQLite, by `thread`.
        self.lock = threading.Lock()
        self.thread: int | None = None
        self._timeout = timeout
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()
        # Those that were garbage-collected during a call of SQLite.
        self._collected: list[sqlite3.Cursor] = []
        options["check_same_thread"] = False
        with _forks.opening:
            _forks.require_safe(path)
            super().__init__(database, timeout=min(timeout, _SLICE), **options)
            _forks.add(self)

    def call(self, work: Callable[..., T], *given: Any) -> T:
        """Call `work`, a function of SQLite, while no fork happens. Raises `ClosedByFork`."""
        until = 0.0
        while True:
            if not _forks.over.is_set() and not self._is_in_transaction():
                _forks.over.wait(
                    FORK_TIMEOUT
                )  # otherwise this thread could take the lock again before the fork does
            with self.lock:
                try:
                    return self._locked(work, given)
                except sqlite3.OperationalError as error:
                    until = until or monotonic() + self._timeout
                    if not _is_busy(error) or self.in_transaction or monotonic() >= until:
                        raise
            sleep(_PAUSE)  # a fork can happen here, while another program holds SQLite's lock

    def _is_in_transaction(self) -> bool:
        try:
            return self.in_transaction
        except sqlite3.ProgrammingError:  # the connection is closed
            return False

    def _locked(self, work: Callable[..., T], given: Sequence[Any]) -> T:
        if self.closed_by_fork:
            raise ClosedByFork("interrupted: the connection was closed because the process forked")
        self.thread = threading.get_ident()
        try:
            self._close_collected()
            return work(*given)
        finally:
            self.thread = None

    def cursor(self, factory: Any = None) -> Any:
        """A cursor. No fork happens during its calls."""
        return self.call(self._new_cursor, factory or _Cursor)

    def _new_cursor(self, factory: Any) -> Any:
        found = super().cursor(factory)
        self._cursors.add(found)
        return found

    # sqlite3's own shortcuts do not use the cursor class above.

    def execute(self, *given: Any) -> Any:
        """Execute with a new cursor."""
        return self.cursor().execute(*given)

    def executemany(self, *given: Any) -> Any:
        """Execute with a new cursor."""
        return self.cursor().executemany(*given)

    def executescript(self, *given: Any) -> Any:
        """Execute with a new cursor."""
        return self.cursor().executescript(*given)

    def commit(self) -> None:
        """Commit. Raises `ClosedByFork` if a fork has rolled the transaction back."""
        self.call(super().commit)

    def rollback(self) -> None:
        """Roll back, unless a fork has closed the connection and so rolled back already."""
        if not self.closed_by_fork:
            self.call(super().rollback)

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            super().close()
            # Set last: a fork has to wait for the end of `close`, or the child would inherit SQLite's locks.
            self.closed = True

    def create_function(self, *given: Any, **options: Any) -> None:
        """Register an SQL function; SQLAlchemy does so with each new connection."""
        self.call(lambda: super(Handle, self).create_function(*given, **options))

    @property
    def cursors(self) -> list[sqlite3.Cursor]:
        """The cursors that are not finalized yet."""
        return list({*self._cursors, *self._collected})

    def close_collected(self, cursor: sqlite3.Cursor) -> None:
        """Close a cursor that is garbage-collected, now or with the next call; this thread may be in a call."""
        self._collected.append(cursor)
        if self.lock.acquire(blocking=False):
            try:
                self._close_collected()
            finally:
                self.lock.release()

    def _close_collected(self) -> None:
        while self._collected:
            sqlite3.Cursor.close(self._collected.pop())

    def close_for_fork(self) -> None:
        """Close, and roll an open transaction back. The caller holds `lock`."""
        for cursor in self.cursors:  # an open statement would keep SQLite's connection open
            sqlite3.Cursor.close(cursor)
        super().close()
        self.closed = self.closed_by_fork = True


class _Cursor(sqlite3.Cursor):
    """A cursor. No fork happens during its calls."""

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
        if not self.connection.closed_by_fork:
            self.connection.call(super().close)

    def __del__(self) -> None:
        # Not left to sqlite3, which would call SQLite beside a fork: the child would wait for SQLite's lock for ever.
        if not self.connection.closed:
            self.connection.close_collected(self)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_of_fork(error: BaseException | None) -> bool:
    """Whether a fork closed the connection, or interrupted a call in order to close it. Nothing else interrupts."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, ClosedByFork) or code == sqlite3.SQLITE_INTERRUPT


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Device and inode of the file at `path`; None without a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Forks:
    """The open handles of this process. Closes them before a fork."""

    def __init__(self) -> None:
        #: Held while a handle is opened, and from before a fork until after it.
        self.opening = threading.Lock()
        #: Set while no fork is in progress.
        self.over = threading.Event()
        self.over.set()
        # By `id`: a set of weak references cannot be iterated while other threads change it.
        self._handles: dict[int, weakref.ref[Handle]] = {}
        # Device and inode of the files that this process must not open.
        self._unsafe: set[tuple[int, int]] = set()
        # The handles whose locks a forking thread holds, by the thread's id.
        self._forking: dict[int, list[Handle]] = {}

    def add(self, handle: Handle) -> None:
        """Register a handle that was opened."""
        key, handles = id(handle), self._handles
        handles[key] = weakref.ref(handle, lambda _: handles.pop(key, None))

    def require_safe(self, path: Path) -> None:
        """Raise `UnsafeAfterFork` for a file that this process must not open."""
        if self._unsafe and identity(path) in self._unsafe:
            raise UnsafeAfterFork(
                f"this process was forked while {path} was open and could not be closed, so writing here would damage "
                "it; create the recorder after the fork, or start processes by spawn"
            )

    def before(self) -> None:
        """Close the open handles, on the thread that forks. Those that are busy for `FORK_TIMEOUT` stay open."""
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
        """Lock the open handles, in `held`. Whether they can be closed: no transaction is open, or `grace` is over."""
        for handle in self._open():
            if handle.thread == threading.get_ident():
                continue  # a finalizer or a signal handler forks during a call of this thread
            if not handle.lock.acquire(timeout=max(0.0, grace - monotonic())):
                with suppress(sqlite3.Error):
                    handle.interrupt()
                if not handle.lock.acquire(timeout=max(0.0, until - monotonic())):
                    continue
            held.append(handle)
        held[:] = [handle for handle in held if not _released(handle)]
        return monotonic() >= grace or not any(handle.in_transaction for handle in held)

    def in_parent(self) -> None:
        """Release the locks. Threads that waited for them get `ClosedByFork`."""
        held = self._forking.pop(threading.get_ident(), None)
        if held is None:
            return
        for handle in held:
            handle.lock.release()
        self.over.set()
        self.opening.release()

    def in_child(self) -> None:
        """Forbid the files that are still open, which belong to the parent. No other thread exists in the child."""
        self.opening, self.over = threading.Lock(), threading.Event()
        self.over.set()
        for handle in self._open():
            if (found := identity(handle.path)) is not None:
                self._unsafe.add(found)
            never_finalize(handle, *handle.cursors)
        self._handles.clear()
        self._forking.clear()

    def _open(self) -> list[Handle]:
        handles = (each() for each in list(self._handles.values()))
        return [handle for handle in handles if handle is not None and not handle.closed]


def _released(handle: Handle) -> bool:
    """Release the lock of a handle that its owner has closed meanwhile; whether it was closed."""
    if handle.closed:
        handle.lock.release()
    return handle.closed


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.in_parent, after_in_child=_forks.in_child
    )
