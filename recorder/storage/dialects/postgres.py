"""Postgres, through asyncpg.

Rows are sent as lists (`postgres_insert.py`): one statement for any number of rows and tables, and its result counts
the new rows (asyncpg's `executemany` does not). No statement is prepared by name and nothing is set for the session, so
that a pooler in transaction mode works. Each call has a timeout: a stopped backend returns neither a result nor an
error, and a network may lose packets of either side. So each transaction that may write has a timeout in the server,
too.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any, Literal
from zlib import crc32

from sqlalchemy import URL, ColumnElement, and_, literal_column, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from recorder.core.after_fork import detach_in_children
from recorder.core.clock import iso
from recorder.core.installation import INSTALL_POSTGRES_DRIVER
from recorder.errors import ConfigError, MissingExtra
from recorder.storage.dialects.common import DriverCall, Insert, Statements, driver_connection
from recorder.storage.dialects.postgres_insert import insert_statement, prepared
from recorder.storage.dialects.sqlstates import failure_of, is_lost
from recorder.storage.dialects.tcp_options import notice_silence
from recorder.storage.dialects.url_parameters import advice, connect_arguments, user_timeout
from recorder.storage.failures import ROW_ERRORS, Failure, driver_error, failure_of_python_error
from recorder.storage.schema import metadata

log = logging.getLogger("recorder")

#: The channel of NOTIFY, and the key of the lock that listeners hold: "watching" in ASCII, below 2**63.
CHANNEL = "recorder"
WATCH_KEY = int.from_bytes(b"watching")
_ANNOUNCE = f"(SELECT pg_notify('{CHANNEL}', '') WHERE NOT pg_try_advisory_xact_lock({WATCH_KEY}))"

#: How many advisory locks the conversations share; a server has room for some thousand locks. Their first key is "adds"
#: in ASCII.
_LOCK_KEYS = 128
#: How long to wait for these locks, and then for any other lock of the transaction (seconds).
LOCK_WAIT = 2.0
#: The server ends a transaction that is idle for this share of the statement timeout, and so releases its locks. The
#: network may have lost the COMMIT; a retry after the statement timeout then finds the locks free.
_IDLE_SHARE = 2 / 3
#: Set for the transaction and not for the session, which a pooler may give to another program next (milliseconds).
_SET_IDLE_TIMEOUT = " SET LOCAL idle_in_transaction_session_timeout = {:.0f};"
_LOCK_CONVERSATIONS = (
    f"SELECT pg_advisory_xact_lock({int.from_bytes(b'adds')}, k)"
    " FROM (SELECT set_config('lock_timeout', $1, true)) AS s, unnest(CAST($2 AS int[])) AS k"
)
_LOCK_TIMEOUT = "55P03"

#: How a server or a pooler refuses a parameter of the URL that was sent as a setting.
_REFUSED = re.compile(r"parameter(?: in options)?:? \"?([\w.]+)")
_REMEDIES = {
    "28P01": "check the user and the password in the URL, or PGPASSWORD",
    "28000": "the server's pg_hba.conf does not let this user in; check the user, the host and sslmode",
    "3D000": "create it: createdb {database}",
    "42501": "grant this user CREATE and USAGE on the schema",
    "53300": "the server has no free connection; raise max_connections, or connect through a pooler",
}


class Postgres:
    """One Postgres database."""

    name = "postgresql"
    #: Several programs, perhaps of different versions, may share it, so its operator decides when to upgrade.
    upgrades_itself = False
    has_index = True
    key_rows = (
        "(SELECT value ->> 0 AS conversation_id, CAST(value ->> 1 AS uuid) AS id,"
        " CAST(value ->> 2 AS bigint) AS number FROM json_array_elements(CAST(:keys AS json)))"
    )

    def __init__(
        self, url: URL, *, sync: Literal["full", "process"] = "full", read_only: bool = False,
        with_timeout: bool = True,
    ) -> None:  # fmt: skip
        self.url = url
        self._with_timeout = with_timeout
        self._read_only = read_only
        self._sync = sync
        #: The factor of the statement timeout, over connections that are made from now on.
        self.patience = 1
        self._timeout = connect_arguments(url).command_timeout

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The exceptions of opening and querying; SQLAlchemy does not wrap those of connecting."""
        driver = _driver()
        return (
            DBAPIError, OSError, TimeoutError, driver.PostgresError, driver.InterfaceError, driver.InternalClientError
        )  # fmt: skip

    def check(self) -> None:
        """Raise `MissingExtra` without the driver, `ConfigError` for wrong parameters and SQLite's settings.

        Connects to nothing.
        """
        _driver()
        connect_arguments(self.url)
        if self._sync != "full":
            raise ConfigError(
                f"sync={self._sync!r} is a setting for SQLite; Postgres uses its synchronous_commit, so leave it out"
            )

    def engine(self) -> AsyncEngine:
        """An engine without a pool: each store keeps one connection."""
        return create_async_engine(
            self.url.set(drivername="postgresql+asyncpg", query={}),
            poolclass=NullPool,
            # Whatever the database's default is: a query after a lock must see what the lock's last holder stored.
            isolation_level="READ COMMITTED",
            json_deserializer=str,
            execution_options={"postgresql_readonly": True} if self._read_only else {},
            connect_args={
                "async_creator_fn": self._connect,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": str,  # "", the unnamed statement
            },
        )

    def statements(self, inserts: Sequence[Insert], *, announce: bool = False) -> Statements:
        """One statement for all rows.

        `announce` adds a NOTIFY, but only while a listener holds its lock: a NOTIFY makes all commits of a database
        wait for each other.
        """
        given = [each for each in inserts if each.rows]
        if not given and not announce:
            return Statements(inserts, ())
        kinds, parameters = zip(*map(prepared, given), strict=True) if given else ((), ())
        sql = insert_statement(kinds, _ANNOUNCE if announce else None)
        return Statements(inserts, [DriverCall(sql, tuple(chain.from_iterable(parameters)))])

    async def insert(self, connection: AsyncConnection, statements: Statements) -> list[int]:
        """Insert all rows in one statement; for each insert, the number of rows that were inserted or updated."""
        counts: Iterator[int] = iter(())
        for sql, parameters, _ in statements.calls:
            counts = iter((await connection.exec_driver_sql(sql, tuple(parameters))).one())
        return [int(next(counts)) if each.rows else 0 for each in statements.inserts]

    async def look_for_index(self, connection: AsyncConnection) -> None:
        """Does nothing: each server can."""

    def may_be_of_index(self, error: BaseException) -> bool:
        """Always False: the server says which index is damaged, and other indexes are as necessary."""
        return False

    async def lock_conversations(self, connection: AsyncConnection, conversations: Sequence[str]) -> None:
        """Lock hashes of the conversations' ids, in sorted order. Goes on without the locks after `LOCK_WAIT` seconds.

        A process that was stopped inside its transaction must not block the recording of others.
        """
        keys = sorted({crc32(name.encode()) % _LOCK_KEYS for name in conversations})
        try:
            async with connection.begin_nested():
                await connection.exec_driver_sql(_LOCK_CONVERSATIONS, (f"{LOCK_WAIT * 1000:.0f}", keys))
        except DBAPIError as error:
            if getattr(driver_error(error), "sqlstate", None) != _LOCK_TIMEOUT:
                raise
            log.warning(
                "Another process has held the lock of the same conversations for %g s; messages are stored without the "
                "lock now, and may become a branch beside the messages of that process",
                LOCK_WAIT,
            )

    def between(self, column: ColumnElement[str], low: str, high: str | None) -> ColumnElement[bool]:
        """The condition, with the operators of `text_pattern_ops`: they compare bytes, whatever the collation is."""
        begins = column.op("~>=~", is_comparison=True)(low)
        return begins if high is None else and_(begins, column.op("~<~", is_comparison=True)(high))

    def in_order(self, column: ColumnElement[str]) -> ColumnElement[Any]:
        """The column in the order of these operators. For a LIMIT without it, the server may read the whole table."""
        return column.op("USING")(literal_column("~<~"))

    def failure(self, error: BaseException) -> Failure:
        """The kind of an error, by its SQLSTATE."""
        cause = driver_error(error)
        state = getattr(cause, "sqlstate", None)
        if state is None:
            # OSError, or an error of asyncpg for a lost connection.
            lost = _driver().InterfaceError, _driver().InternalClientError
            return "poison" if isinstance(cause, ROW_ERRORS) else failure_of_python_error(cause, lost)
        return failure_of(state)

    def remedy(self, error: BaseException) -> str:
        """What the user can do about an error on connecting; it is appended to the driver's message."""
        cause = driver_error(error)
        if remedy := _REMEDIES.get(getattr(cause, "sqlstate", None) or ""):
            return "; " + remedy.format(database=self.url.database)
        if refused := _REFUSED.search(str(cause)):
            return advice(refused[1], str(cause))
        if isinstance(cause, (OSError, TimeoutError)):
            return "; check that the server runs, and the host and the port"
        return ""

    def breaks_connection(self, error: BaseException) -> bool:
        """Whether the connection cannot be used after this error: the server did not answer, or has closed it."""
        state = getattr(driver_error(error), "sqlstate", None)
        return state is None or is_lost(state)

    def ended_by_fork(self, error: BaseException) -> bool:
        """Always False: a connection to a server stays open when the process forks."""
        return False

    def in_transaction(self, connection: AsyncConnection) -> bool:
        """Whether the server's last response reported an open transaction."""
        return bool(driver_connection(connection).is_in_transaction())

    def is_closed(self) -> bool:
        """Always False: SQLAlchemy notices a closed connection."""
        return False

    async def close_connection(self, connection: AsyncConnection) -> None:
        """Invalidate the connection. A stopped server answers nothing; SQLAlchemy then waits two seconds when it
        invalidates a connection, and without limit when it closes one."""
        await connection.invalidate()
        await connection.close()

    def plain(self, value: Any) -> Any:
        """A value in the form that both databases share: ids and times as text, sums as integers."""
        if isinstance(value, uuid.UUID):
            return str(value)
        if isinstance(value, Decimal):
            return int(value) if value == value.to_integral_value() else float(value)
        return iso(value) if isinstance(value, datetime) else value

    async def moved(self, connection: AsyncConnection) -> bool:
        """Always False: a server that is replaced closes the connection."""
        return False

    def damage(self) -> None:
        """Always None: the server checks its files itself."""

    def look(self, error: BaseException | None = None) -> None:
        """Does nothing: the server checks its files itself."""

    async def watch(self) -> NotifyWatch:
        """Start listening."""
        watch = NotifyWatch(await self._connect())
        try:
            return await watch.begin()
        except BaseException:  # the caller has no object yet that could close the connection
            await watch.close()
            raise

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes of recorder's tables with their indexes."""
        query = text(
            "SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(CAST(:names AS text[])) AS name"
        )
        found = await connection.execute(query, {"names": list(metadata.tables)})
        return int(found.scalar_one() or 0)

    @property
    def _at_begin(self) -> str:
        """SQL that each transaction of a new connection begins with."""
        if self._read_only or not self._with_timeout:
            return ""
        return _SET_IDLE_TIMEOUT.format(_IDLE_SHARE * 1000 * self._timeout * self.patience)

    async def _connect(self, **_sqlalchemy_arguments: object) -> Any:
        """Connect. asyncpg reads the URL itself, and handles sockets, TLS, environment and password file as libpq."""
        given = connect_arguments(self.url)._asdict()
        given["command_timeout"] = given["command_timeout"] * self.patience if self._with_timeout else None
        try:
            kind = _connection_class(self._at_begin)
            connection = await _driver().connect(**given, statement_cache_size=0, connection_class=kind)
        except (
            TimeoutError
        ) as error:  # another class than a statement's timeout, which means "try fewer rows"
            raise ConnectionError(f"the server did not answer within {given['timeout']:g} s") from error
        transport = connection._transport  # asyncpg has no public name for it
        detach_in_children(transport)
        notice_silence(transport.get_extra_info("socket"), user_timeout(self.url))
        return connection


class NotifyWatch:
    """LISTEN on a separate connection. Behind a pooler no notification arrives, and each wait lasts its timeout."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._notified = asyncio.Event()

    async def begin(self) -> NotifyWatch:
        """Start listening; writers notify from now on, because the lock is held."""
        await self._connection.add_listener(CHANNEL, lambda *_notification: self._notified.set())
        self._connection.add_termination_listener(lambda *_connection: self._notified.set())
        await self._connection.execute(f"SELECT pg_advisory_lock_shared({WATCH_KEY})")
        return self

    async def wait_for_commit(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; True as soon as something was committed, False after the timeout.

        Raises `ConnectionError` when the connection is lost.
        """
        try:
            await asyncio.wait_for(self._notified.wait(), timeout)
        except TimeoutError:
            return False
        self._notified.clear()
        if self._connection.is_closed():
            raise ConnectionError("the connection that listens for commits was lost")
        return True

    async def close(self) -> None:
        """Stop listening."""
        self._connection.terminate()


def _driver() -> Any:
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        raise MissingExtra(f"Postgres needs asyncpg; run: {INSTALL_POSTGRES_DRIVER}") from error
    return asyncpg


@lru_cache(maxsize=16)
def _connection_class(at_begin: str) -> Any:
    """The driver's class of connections, whose transactions begin with these statements of SQL as well.

    They are sent along with BEGIN, because a statement of its own would cost a round trip. The driver and SQLAlchemy
    have no setting for it; a test shows that the driver still begins its transactions by `execute`.
    """

    class BeginningConnection(_driver().Connection):  # type: ignore[misc]
        async def execute(self, query: str, *given: Any, **options: Any) -> Any:
            return await super().execute(
                query + at_begin if query.startswith("BEGIN") else query, *given, **options
            )

    return BeginningConnection
