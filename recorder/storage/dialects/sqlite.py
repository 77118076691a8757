"""SQLite, one file.

WAL with `synchronous=FULL` (NORMAL lost 60 of 60 acknowledged rows in a power-loss simulation), BEGIN
IMMEDIATE (a deferred one that reads and then writes fails at once, whatever the busy timeout), rows as multi-row
VALUES (the driver gives the interpreter's lock away on each row of an `executemany`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import aiosqlite
from sqlalchemy import URL, ColumnElement, and_, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from recorder.core.clock import iso
from recorder.errors import ConfigError, StoreError
from recorder.storage.dialects.common import (
    OF_THE_ROWS,
    Failure,
    Insert,
    driver_connection,
    driver_error,
    of_silence,
)
from recorder.storage.dialects.damage import Damage, LogIndex, Sizes, is_cut, tells_of_damage
from recorder.storage.dialects.file_watch import FileWatch
from recorder.storage.dialects.handle import ClosedByFork, Handle, UnsafeAfterFork, identity
from recorder.storage.dialects.reading import read_only, this_file_only
from recorder.storage.dialects.url import file_of
from recorder.storage.schema import PAGE_SIZE, Time

MAX_ROWS_A_STATEMENT = 500
#: Where a file says that it has a log beside it. https://sqlite.org/fileformat2.html
_WAL_BYTE, _WAL = 18, b"\x02\x02"
#: How long a statement waits for another program that is writing (seconds).
BUSY_TIMEOUT = 5.0
#: The largest file that is brought to a newer schema when it is opened (bytes): that takes less than a second.
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
#: Of errors that have no code of their own, by what they say.
_TRANSIENT = (
    "locked", "busy", "disk is full", "disk i/o", "interrupted", "schema has changed", "closed database"
)  # fmt: skip
_FATAL = ("not a database", "malformed", "readonly", "unable to open", "no such", "has no column")


def into_one_file(path: Path) -> None:
    """Make a recording that nobody writes any more one file, to be copied or committed; it is read without a log."""
    if not path.exists():
        return
    with path.open("rb") as file:
        if file.read(20)[_WAL_BYTE:] != _WAL:
            return
    with closing(Handle(str(path), path=path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")


def private_file(path: Path) -> None:
    """Create the file for its owner only, unless it is there: then its mode stays. Its log gets the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        pass  # it is there, or cannot be created: SQLite says why


def set_up_new_file(cursor: Any) -> None:
    """What only an empty file takes: the page size, and that room which is deleted can be given back in steps."""
    cursor.execute("PRAGMA page_count")
    if cursor.fetchone() == (0,):
        cursor.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")


class SQLite:
    """One SQLite file."""

    name = "sqlite"
    asked = (
        "(SELECT json_extract(value, '$[0]') AS conversation_id, json_extract(value, '$[1]') AS id"
        " FROM json_each(:asked))"
    )
    #: What is raised of the driver's, with SQLAlchemy around it or not.
    errors: tuple[type[Exception], ...] = (DBAPIError, sqlite3.Error)

    def __init__(
        self, url: URL, *, sync: Literal["full", "process"] = "full", read_only: bool = False
    ) -> None:
        self.url = url
        self.path = file_of(url)
        self._sync = "FULL" if sync == "full" else "NORMAL"
        self._read_only = read_only
        self._handle: Handle | None = None
        #: Device and inode of the file that was opened last; whether it was another one than before.
        self._opened: tuple[int, int] | None = None
        self._is_another = False
        self._sizes = Sizes(self.path)
        self._log_index = LogIndex(self.path)
        #: Whether SQLite found damage.
        self._is_damaged = False

    @property
    def upgrades_itself(self) -> bool:
        """Whether an older schema is brought to the newest on opening: the file has one program, but a large one
        would keep its constructor waiting."""
        return self.path.stat().st_size <= MAX_UPGRADED

    def check(self) -> None:
        """Raise `ConfigError` for a path that cannot work; opens nothing."""
        if self.path.is_dir():
            raise ConfigError(
                f"{self.path} is a directory; name a file in it, e.g. {self.path / 'chat_history.db'}"
            )
        if self.path.exists() and not self.path.is_file():
            # Who opens a pipe waits until somebody writes into it.
            raise ConfigError(f"{self.path} is no file but a pipe, a socket or a device; name a file")
        if self._read_only:
            if not self.path.exists():
                raise ConfigError(
                    f"There is no file {self.path}; record something, or name another with --url"
                )
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
        """An engine whose connections are set up; one of them writes."""
        url = self.url.set(drivername="sqlite+aiosqlite")
        if self._read_only:
            url = url.set(database=f"file:{quote(str(self.path))}", query={"mode": "ro", "uri": "true"})
        arguments = {
            "factory": self._new_handle,
            "timeout": BUSY_TIMEOUT,
            "async_creator_fn": _unopened_connection,
        }
        engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments)
        event.listen(engine.sync_engine, "do_connect", self._create)
        event.listen(engine.sync_engine, "connect", self._set_up)
        event.listen(engine.sync_engine, "begin", self._begin)
        return engine

    def _new_handle(self, database: str, **options: Any) -> Handle:
        self._handle = Handle(database, path=self.path, **options)
        return self._handle

    def in_transaction(self, connection: AsyncConnection) -> bool:
        """Looked up in the driver; asks SQLite nothing."""
        try:
            return bool(driver_connection(connection).in_transaction)
        except sqlite3.ProgrammingError:
            return False  # a fork closed it just now; whoever uses it next is told

    def ended(self) -> bool:
        """Whether a fork closed the connection that was made last."""
        return self._handle is not None and self._handle.gone

    async def insert(
        self, connection: AsyncConnection, inserts: Sequence[Insert], *, announce: bool = False
    ) -> list[int]:
        """Insert rows; how many of each changed something. Who watches sees the file's version change."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        # The driver's own cursor: SQLAlchemy's needs three turns of the driver's thread for a statement.
        cursor = await driver.cursor()
        try:
            return [await self._insert(cursor, each) for each in inserts]
        finally:
            await cursor.close()

    async def _insert(self, cursor: Any, insert: Insert) -> int:
        table, columns, rows, update, same = insert
        changed = 0
        times = [place for place, name in enumerate(columns) if isinstance(table.c[name].type, Time)]
        for part in _parts(rows):
            sql = _statement(
                table.name,
                tuple(columns),
                tuple(key.name for key in table.primary_key),
                len(part),
                tuple(update),
                tuple(same),
            )
            flat = [value for row in part for value in row]
            for start in range(0, len(flat), len(columns)) if times else ():
                for place in times:
                    if flat[start + place] is not None:
                        flat[start + place] = iso(flat[start + place])
            await cursor.execute(sql, flat)
            changed += cursor.rowcount
        return changed

    async def hold(self, connection: AsyncConnection, conversations: Sequence[str]) -> None:
        """Nothing to do: a transaction begins with the file's one lock for writing."""

    def between(self, column: ColumnElement[str], low: str, high: str | None) -> ColumnElement[bool]:
        """A column's own order is that of its bytes."""
        return column >= low if high is None else and_(column >= low, column < high)

    def failure(self, error: BaseException) -> Failure:
        """What kind of failure a driver's error is."""
        cause = driver_error(error)
        if isinstance(cause, UnsafeAfterFork):
            return "fatal"
        # The code first: what a trigger of the user's says may read like anything.
        if kind := _KINDS.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF):
            return kind
        if isinstance(cause, sqlite3.Error):
            return _kind_of_words(cause)
        return "poison" if isinstance(cause, OF_THE_ROWS) else of_silence(cause)

    def remedy(self, error: BaseException) -> str:
        """What to do about an error on opening, to follow what the driver said."""
        said = str(error)
        if "not a database" in said:
            return "; it is no SQLite database, so name another file or move it away"
        if "locked" in said:
            return "; another program is writing to it for long, so wait for that or end it"
        return "; check the path and its permissions"

    def unsure(self, error: BaseException) -> bool:
        """Whether nothing more can be asked of a connection after this error; a file always answers."""
        return isinstance(driver_error(error), ClosedByFork)

    async def let_go(self, connection: AsyncConnection) -> None:
        """Close it, which puts the log into the file."""
        await connection.close()

    def plain(self, value: Any) -> Any:
        """A value of a query of one's own, as both databases give it."""
        return value

    async def moved(self, connection: AsyncConnection) -> bool:
        """Whether the file was moved away, deleted or replaced: SQLite goes on writing into the one that it holds.

        The log is put into that one first, for SQLite would leave it to whatever has the name now. Raises `StoreError`
        while another program keeps it from that.
        """
        if self._is_another:  # the connection was closed by a fork, and this one leads to another file
            self._is_another = False
            return True
        if self._opened is None or identity(self.path) == self._opened:
            return False
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        async with driver.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
            busy, *_ = await cursor.fetchone()
        if busy:
            raise StoreError(f"{self.path} was moved or replaced, and other programs have it open; end them")
        self._opened = None
        return True

    def damage(self) -> Damage | None:
        """What to do about a file that was cut or overwritten, or whose log was; one that was moved is as it was."""
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
        return Damage(self.path)

    def look(self, error: BaseException | None = None) -> None:
        """Compare the sizes of the files with those before, and hear what SQLite says."""
        self._sizes.look()
        if error is not None and tells_of_damage(driver_error(error)):
            self._is_damaged = True

    async def watch(self) -> FileWatch:
        """Begin to watch the file."""
        return FileWatch(self.path)

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes on disk, the write-ahead log included."""
        files = (Path(f"{self.path}{end}") for end in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def _create(self, *_of_sqlalchemy: object) -> None:
        if not self._read_only:
            private_file(self.path)

    def _set_up(self, dbapi_connection: Any, _record: object) -> None:
        # None: the driver begins no transaction by itself, `_begin` does.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        if self._read_only:
            read_only(cursor)
        else:
            set_up_new_file(cursor)  # before WAL, which makes it one that is not empty
            # What is deleted later is overwritten: nobody finds it in the free pages of the file.
            cursor.execute("PRAGMA secure_delete = ON")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {self._sync}")
        cursor.close()
        if self._read_only and self._handle is not None:
            self._handle.set_authorizer(this_file_only)
        found = identity(self.path)
        self._is_another = self._is_another or self._opened not in (None, found)
        self._opened = found
        self._sizes.begin()

    def _begin(self, connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if self._read_only else "BEGIN IMMEDIATE")


def _unopened_connection(database: str, **options: Any) -> aiosqlite.Connection:
    """The driver's connection, which is opened by whoever awaits it; its thread may outlive the event loop."""
    found = aiosqlite.connect(database, **options)
    thread: Any = getattr(found, "_thread", found)  # before 0.22 the connection is a thread itself
    thread.daemon = True  # as SQLAlchemy has it: no exit waits for a call of SQLite
    thread.run = partial(_run_quietly, thread.run)
    return found


def _run_quietly(run: Callable[[], None]) -> None:
    """Run the driver's thread, which would print a traceback if its last answer came after the event loop has ended.

    A connection that could not be opened is not waited for, so that a loop which ends at once is often faster.
    """
    try:
        run()
    except RuntimeError as error:
        if "loop is closed" not in str(error):
            raise


def _kind_of_words(error: sqlite3.Error) -> Failure:
    text = str(error).lower()
    if any(word in text for word in _FATAL):
        return "fatal"
    if any(word in text for word in _TRANSIENT):
        return "transient"
    return "refused" if isinstance(error, sqlite3.OperationalError) else "poison"


def _parts(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    for start in range(0, len(rows), MAX_ROWS_A_STATEMENT):
        yield rows[start : start + MAX_ROWS_A_STATEMENT]


@lru_cache(maxsize=256)
def _statement(
    table: str, columns: tuple[str, ...], key: tuple[str, ...], count: int, update: tuple[str, ...],
    same: tuple[str, ...],
) -> str:  # fmt: skip
    row = "(" + ",".join("?" * len(columns)) + ")"
    names = ",".join(f'"{name}"' for name in columns)
    found = f'INSERT INTO "{table}" ({names}) VALUES {",".join([row] * count)} ON CONFLICT '
    if not update:
        return found + "DO NOTHING"
    sets = ",".join(f'"{name}"=excluded."{name}"' for name in update)
    found += f"({','.join(key)}) DO UPDATE SET {sets}"
    kept = " AND ".join(f'"{table}"."{name}" IS excluded."{name}"' for name in same)
    return f"{found} WHERE {kept}" if kept else found
