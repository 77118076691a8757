"""SQLite: one file.

- WAL with `synchronous=FULL`: NORMAL lost 60 of 60 acknowledged rows in a power-loss simulation.
- BEGIN IMMEDIATE: a deferred transaction that reads and then writes fails at once, whatever the busy timeout is.
- Rows as multi-row VALUES: the driver releases the interpreter's lock for each row of an `executemany`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import URL, ColumnElement, and_, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from recorder.core.clock import iso_each
from recorder.errors import ConfigError, StoreError
from recorder.storage.dialects.common import DriverCall, Insert, Statements, driver_connection
from recorder.storage.dialects.damage import DamagedFile, LogIndex, Sizes, is_cut, tells_of_damage
from recorder.storage.dialects.driver_thread import unopened_connection
from recorder.storage.dialects.file_watch import FileWatch
from recorder.storage.dialects.read_only import read_only, this_file_only
from recorder.storage.dialects.sqlite_insert import insert_statement
from recorder.storage.dialects.sqlite_words import EXISTS, has_fts5, split_words
from recorder.storage.dialects.url import file_of, missing_file
from recorder.storage.failures import ROW_ERRORS, Failure, driver_error, failure_of_python_error
from recorder.storage.fork_safe import ClosedByFork, Handle, UnsafeAfterFork, identity, is_of_fork
from recorder.storage.schema import PAGE_SIZE

MAX_ROWS_A_STATEMENT = 500
#: Offset and value of the header bytes of a file in WAL mode. https://sqlite.org/fileformat2.html
_WAL_BYTE, _WAL = 18, b"\x02\x02"
#: How long a statement waits for another program that writes (seconds).
BUSY_TIMEOUT = 5.0
#: The largest file that opening upgrades to a newer schema (bytes). The upgrade takes less than a second.
MAX_UPGRADED = 128 * 2**20
_KINDS: dict[int, Failure] = {
    **dict.fromkeys(
        (
            sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_PROTOCOL,
        ),
        "transient",
    ),
    **dict.fromkeys(
        (
            sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
        ),
        "fatal",
    ),
    **dict.fromkeys(
        (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE), "poison"
    ),
}  # fmt: skip
#: Parts of the messages of errors without an error code.
_TRANSIENT = (
    "locked", "busy", "disk is full", "disk i/o", "interrupted", "schema has changed", "closed database"
)  # fmt: skip
_FATAL = ("not a database", "malformed", "readonly", "unable to open", "no such", "has no column")


def into_one_file(path: Path) -> None:
    """Checkpoint the log and leave WAL mode, so that the recording is one file. No other program may have it open."""
    if not path.exists():
        return
    with path.open("rb") as file:
        if file.read(20)[_WAL_BYTE:] != _WAL:
            return
    with closing(Handle(str(path), path=path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")


def private_file(path: Path) -> None:
    """Create the file with mode 600; an existing file keeps its mode. SQLite gives the log the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        pass  # it exists, or cannot be created: then SQLite raises the reason


def set_up_new_file(cursor: Any) -> None:
    """Set what SQLite accepts for an empty file only: the page size and incremental vacuum."""
    cursor.execute("PRAGMA page_count")
    if cursor.fetchone() == (0,):
        cursor.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")


class SQLite:
    """One SQLite file."""

    name = "sqlite"
    patience = 1  # without effect: a statement has no limit of time
    key_rows = (
        "(SELECT json_extract(value, '$[0]') AS conversation_id, json_extract(value, '$[1]') AS id,"
        " json_extract(value, '$[2]') AS number FROM json_each(:keys))"
    )
    #: The exceptions of opening and querying, wrapped by SQLAlchemy or not.
    errors: tuple[type[Exception], ...] = (DBAPIError, sqlite3.Error)

    def __init__(
        self, url: URL, *, sync: Literal["full", "process"] = "full", read_only: bool = False
    ) -> None:
        self.url = url
        self.path = file_of(url)
        self._sync = "FULL" if sync == "full" else "NORMAL"
        self._read_only = read_only
        self._handle: Handle | None = None
        #: Device and inode of the file that was opened last.
        self._opened: tuple[int, int] | None = None
        #: Whether a new connection opened another file than the connection before.
        self._is_another = False
        self._sizes = Sizes(self.path)
        self._log_index = LogIndex(self.path)
        #: Whether the file has an index of the search, and SQLite can write it.
        self.has_index = True
        #: Whether SQLite found damage.
        self._is_damaged = False
        #: Whether a read-only connection creates no file. SQLite creates the log and its index even for reading. Only
        #: for a short look, because changes of other programs are not noticed.
        self.leaves_no_trace = False

    @property
    def upgrades_itself(self) -> bool:
        """Whether opening upgrades an older schema: not for a large file, because the caller waits meanwhile."""
        return self.path.stat().st_size <= MAX_UPGRADED

    def check(self) -> None:
        """Raise `ConfigError` for a path that cannot work. Opens nothing."""
        if self.path.is_dir():
            raise ConfigError(
                f"{self.path} is a directory; name a file in it, e.g. {self.path / 'chat_history.db'}"
            )
        if self.path.exists() and not self.path.is_file():
            # Opening a pipe would block until another process writes into it.
            raise ConfigError(f"{self.path} is a pipe, a socket or a device and not a file; name a file")
        if self._read_only:
            if not self.path.exists():
                raise missing_file(self.path)
            return
        folder = self.path.parent
        if not folder.is_dir():
            raise ConfigError(
                f"The folder {folder} of {self.path.name} does not exist; create it, or name another"
            )
        if not os.access(self.path if self.path.exists() else folder, os.W_OK):
            raise ConfigError(
                f"{self.path} cannot be written by this user; change its permissions, or name another"
            )

    def engine(self) -> AsyncEngine:
        """An engine without a pool that makes connections with recorder's settings."""
        url = self.url.set(drivername="sqlite+aiosqlite")
        if self._read_only:
            url = url.set(database=f"file:{quote(str(self.path))}", query=self._reading())
        arguments = {
            "factory": self._new_handle,
            "timeout": BUSY_TIMEOUT,
            "async_creator_fn": unopened_connection,
            # The driver begins no transaction by itself; `_begin` does. Not set later: a fork may have closed it then.
            "isolation_level": None,
        }
        engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments)
        event.listen(engine.sync_engine, "do_connect", self._create)
        event.listen(engine.sync_engine, "connect", self._set_up)
        event.listen(engine.sync_engine, "begin", self._begin)
        return engine

    def _reading(self) -> dict[str, str]:
        """The parameters of a read-only URL."""
        query = {"mode": "ro", "uri": "true"}
        # While any program has the file open in WAL mode, the log exists; the journal may have to be rolled back.
        if self.leaves_no_trace and not any(
            os.path.exists(f"{self.path}{end}") for end in ("-wal", "-journal")
        ):
            query["immutable"] = "1"
        return query

    def _new_handle(self, database: str, **options: Any) -> Handle:
        self._handle = Handle(database, path=self.path, **options)
        return self._handle

    def in_transaction(self, connection: AsyncConnection) -> bool:
        """Whether the driver has an open transaction. Runs no statement."""
        try:
            return bool(driver_connection(connection).in_transaction)
        except sqlite3.ProgrammingError:
            return False  # a fork has closed it; its next use raises `ClosedByFork`

    def is_closed(self) -> bool:
        """Whether a fork closed the newest connection."""
        return self._handle is not None and self._handle.closed_by_fork

    def statements(self, inserts: Sequence[Insert], *, announce: bool = False) -> Statements:
        """A statement for each `MAX_ROWS_A_STATEMENT` rows of a table.

        Watchers notice the commit by the file's version, whatever `announce` is.
        """
        calls: list[DriverCall] = []
        for place, each in enumerate(inserts):
            stored, indexing = split_words(each, is_indexed=self.has_index)
            calls += (*_calls(stored, place), *(call._replace(place=len(inserts)) for call in indexing))
        return Statements(inserts, calls)

    async def insert(self, connection: AsyncConnection, statements: Statements) -> list[int]:
        """Insert the rows; for each insert, the number of rows that were inserted or updated."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        # The driver's own cursor: SQLAlchemy's makes three calls of the driver's thread for a statement.
        cursor = await driver.cursor()
        counts = [0] * (len(statements.inserts) + 1)  # the last is that of the index
        try:
            for sql, parameters, place in statements.calls:
                await cursor.execute(sql, parameters)
                counts[place] += cursor.rowcount
        finally:
            await cursor.close()
        return counts[:-1]

    async def look_for_index(self, connection: AsyncConnection) -> None:
        """Find out whether messages can be indexed. If not, they are stored without it."""
        self.has_index = has_fts5() and (await connection.exec_driver_sql(EXISTS)).first() is not None

    def may_be_of_index(self, error: BaseException) -> bool:
        """Whether a damaged index may be the cause. FTS5 writes at the commit, so the error does not tell."""
        return self.has_index and self.failure(error) not in ("transient", "slow")

    async def lock_conversations(self, connection: AsyncConnection, conversations: Sequence[str]) -> None:
        """Does nothing: each transaction begins with the file's only write lock."""

    def between(self, column: ColumnElement[str], low: str, high: str | None) -> ColumnElement[bool]:
        """The condition; SQLite compares text by its bytes."""
        return column >= low if high is None else and_(column >= low, column < high)

    def in_order(self, column: ColumnElement[str]) -> ColumnElement[Any]:
        """The column itself."""
        return column

    def failure(self, error: BaseException) -> Failure:
        """The kind of a driver's error."""
        cause = driver_error(error)
        if isinstance(cause, UnsafeAfterFork):
            return "fatal"
        # The code comes first: a user's trigger may raise any message.
        if kind := _KINDS.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF):
            return kind
        if isinstance(cause, sqlite3.Error):
            return _failure_by_message(cause)
        return "poison" if isinstance(cause, ROW_ERRORS) else failure_of_python_error(cause)

    def remedy(self, error: BaseException) -> str:
        """What the user can do about an error on opening; it is appended to the driver's message."""
        message = str(error)
        if "not a database" in message:
            return "; it is not a SQLite database, so name another file or move it away"
        if "locked" in message:
            return "; another program has been writing to it for long, so wait for it or end it"
        return "; check the path and its permissions"

    def breaks_connection(self, error: BaseException) -> bool:
        """Whether a fork has closed the connection. After any other error a file can still be used."""
        return isinstance(driver_error(error), ClosedByFork)

    def ended_by_fork(self, error: BaseException) -> bool:
        """Whether a fork closed the connection, or interrupted a call in order to close it."""
        return is_of_fork(driver_error(error))

    async def close_connection(self, connection: AsyncConnection) -> None:
        """Close the connection, which checkpoints the log."""
        await connection.close()

    def plain(self, value: Any) -> Any:
        """The value as it is: ids and times are text already."""
        return value

    async def moved(self, connection: AsyncConnection) -> bool:
        """Whether the file was moved, deleted or replaced. SQLite still writes into the file that it has open.

        If so, the log is checkpointed first; otherwise SQLite would leave it beside the new file of that name. Raises
        `StoreError` while another program prevents the checkpoint.
        """
        if self._is_another:  # a fork closed the connection, and the new connection opened another file
            self._is_another = False
            return True
        if self._opened is None or identity(self.path) == self._opened:
            return False
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        async with driver.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
            busy, *_ = await cursor.fetchone()
        if busy:
            raise StoreError(f"{self.path} was moved or replaced while other programs have it open; end them")
        self._opened = None
        return True

    def damage(self) -> DamagedFile | None:
        """The damaged file if it or its log was cut or overwritten, else None; None also for a file that was moved."""
        sizes = self._sizes
        sizes.look()
        if not (self._is_damaged or sizes.file_shrank or sizes.log_shrank):
            return None
        if identity(self.path) != self._opened:
            return None
        found = self._is_damaged or (sizes.file_shrank and is_cut(self.path))
        found = found or (sizes.log_shrank and self._log_index.log_is_cut())
        self._is_damaged = sizes.file_shrank = sizes.log_shrank = False
        if not found:
            return None
        self._opened = None
        return DamagedFile(self.path)

    def look(self, error: BaseException | None = None) -> None:
        """Compare the sizes of the file and its log with the earlier ones, and check the error for corruption."""
        self._sizes.look()
        if error is not None and tells_of_damage(driver_error(error)):
            self._is_damaged = True

    async def watch(self) -> FileWatch:
        """Start watching the file."""
        return FileWatch(self.path)

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes on disk, with the write-ahead log."""
        files = (Path(f"{self.path}{end}") for end in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def _create(self, *_sqlalchemy_arguments: object) -> None:
        if not self._read_only:
            private_file(self.path)

    def _set_up(self, dbapi_connection: Any, _record: object) -> None:
        cursor = dbapi_connection.cursor()
        if self._read_only:
            read_only(cursor)
        else:
            set_up_new_file(cursor)  # before WAL, which writes the first page
            # Deleted rows are overwritten with zeros, so that they cannot be found in the free pages of the file.
            cursor.execute("PRAGMA secure_delete = ON")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {self._sync}")
        cursor.close()
        if self._read_only and self._handle is not None:
            self._handle.call(self._handle.set_authorizer, this_file_only)
        found = identity(self.path)
        self._is_another = self._is_another or self._opened not in (None, found)
        self._opened = found
        self._sizes.begin()

    def _begin(self, connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if self._read_only else "BEGIN IMMEDIATE")


def _failure_by_message(error: sqlite3.Error) -> Failure:
    text = str(error).lower()
    if any(word in text for word in _FATAL):
        return "fatal"
    if any(word in text for word in _TRANSIENT):
        return "transient"
    return "refused" if isinstance(error, sqlite3.OperationalError) else "poison"


def _calls(insert: Insert, place: int) -> Iterator[DriverCall]:
    table, columns, rows, update, same = insert
    kind = table, tuple(columns), tuple(update), tuple(same)
    for start in range(0, len(rows), MAX_ROWS_A_STATEMENT):
        part = rows[start : start + MAX_ROWS_A_STATEMENT]
        sql, times = insert_statement(*kind, len(part))
        flat = [value for row in part for value in row]
        for time in times:
            flat[time :: len(columns)] = iso_each(flat[time :: len(columns)])
        yield DriverCall(sql, flat, place)
