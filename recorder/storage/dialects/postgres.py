"""Postgres, through asyncpg.

Rows go as arrays, `INSERT ... SELECT * FROM unnest(...)`: one statement for any number of rows and tables, and its
answer counts the new ones (an `executemany` of asyncpg does not). No statement is prepared by name and nothing is set
for the session, so that it works behind a pooler in transaction mode. Each call has an end: a backend that was stopped
answers neither with a result nor with an error, and a network may swallow what either side says.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal
from zlib import crc32

from sqlalchemy import URL, ColumnElement, Table, and_, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from recorder.core.clock import iso
from recorder.core.inherited import closed_in_children
from recorder.errors import ConfigError, MissingExtra
from recorder.storage.dialects.common import (
    OF_THE_ROWS,
    Failure,
    Insert,
    driver_connection,
    driver_error,
    of_silence,
)
from recorder.storage.dialects.sockets import notice_silence
from recorder.storage.dialects.sqlstates import is_lost, kind_of
from recorder.storage.dialects.url_words import advice, arguments, user_timeout
from recorder.storage.schema import metadata

log = logging.getLogger("recorder")

#: What batches are announced on, and the lock of those who listen: "watching" in ASCII, below 2**63.
CHANNEL = "recorder"
WATCH_KEY = int.from_bytes(b"watching")
_ANNOUNCE = f"(SELECT pg_notify('{CHANNEL}', '') WHERE NOT pg_try_advisory_xact_lock({WATCH_KEY}))"

#: The locks of those who add to a conversation, "adds" in ASCII; few, for a server has room for some thousand locks.
_HOLD_KEYS = 128
#: How long to wait for them, and from there on for any lock of the transaction (seconds).
HOLD_TIMEOUT = 2.0
#: After so much of the time for a statement without a word in a transaction the server ends it, with its locks: the
#: network may have swallowed the COMMIT. The attempt after the one that is given up finds no lock then.
_IDLE_SHARE = 2 / 3
#: Of the transaction and not of the session, which a pooler may hand to another program next.
_SET_IDLE_TIMEOUT = "set_config('idle_in_transaction_session_timeout', '{:.0f}', true)"
_HOLD = (
    f"SELECT pg_advisory_xact_lock({int.from_bytes(b'adds')}, k)"
    " FROM (SELECT set_config('lock_timeout', $1, true), {}) AS s, unnest(CAST($2 AS int[])) AS k"
)
#: How much more time a statement gets at most, where it did not get through in the usual time.
MAX_PATIENCE = 8
_LOCK_TIMEOUT = "55P03"

#: How a server, or a pooler, refuses a word of the URL as a setting.
_REFUSED = re.compile(r"parameter(?: in options)?:? \"?([\w.]+)")
_REMEDIES = {
    "28P01": "check the user and the password in the URL, or PGPASSWORD",
    "28000": "the server's pg_hba.conf does not let this user in; check the user, the host and sslmode",
    "3D000": "create it: createdb {database}",
    "42501": "grant this user CREATE and USAGE on the schema",
    "53300": "the server has no connection left; raise max_connections, or put a pooler before it",
}


class Postgres:
    """One Postgres database."""

    name = "postgresql"
    #: Many programs share it, perhaps of different versions: someone decides when.
    upgrades_itself = False
    asked = (
        "(SELECT value ->> 0 AS conversation_id, CAST(value ->> 1 AS uuid) AS id"
        " FROM json_array_elements(CAST(:asked AS json)))"
    )

    def __init__(
        self, url: URL, *, sync: Literal["full", "process"] = "full", read_only: bool = False,
        with_timeout: bool = True,
    ) -> None:  # fmt: skip
        self.url = url
        self._with_timeout = with_timeout
        self._read_only = read_only
        self._sync = sync
        #: How many times the usual time a statement gets.
        self._patience = 1
        self._idle_timeout = _SET_IDLE_TIMEOUT.format(_IDLE_SHARE * 1000 * arguments(url).command_timeout)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What opening raises: SQLAlchemy does not wrap what comes of connecting."""
        driver = _driver()
        return (
            DBAPIError, OSError, TimeoutError, driver.PostgresError, driver.InterfaceError, driver.InternalClientError
        )  # fmt: skip

    def check(self) -> None:
        """Raise for a missing driver, for words of the URL that cannot be, and for settings that only SQLite has.

        Connects to nothing.
        """
        _driver()
        arguments(self.url)
        if self._sync != "full":
            raise ConfigError(
                f"sync={self._sync!r} is for SQLite; Postgres keeps its synchronous_commit, so leave it out"
            )

    def engine(self) -> AsyncEngine:
        """An engine of single connections: each store keeps one."""
        return create_async_engine(
            self.url.set(drivername="postgresql+asyncpg", query={}),
            poolclass=NullPool,
            # Whatever the database's default: what is looked up behind a lock must be what its last holder stored.
            isolation_level="READ COMMITTED",
            json_deserializer=str,
            execution_options={"postgresql_readonly": True} if self._read_only else {},
            connect_args={
                "async_creator_fn": self._connect,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": str,  # "", the unnamed statement
            },
        )

    async def insert(
        self, connection: AsyncConnection, inserts: Sequence[Insert], *, announce: bool = False
    ) -> list[int]:
        """Insert all in one statement, and notify with it; how many rows of each changed something.

        A NOTIFY makes all commits of a database wait for each other, so there is one only while somebody listens: who
        does holds the lock shared, so that it cannot be had.
        """
        given = [each for each in inserts if each.rows]
        if not given and not announce:
            return [0] * len(inserts)
        arrays = tuple(list(values) for each in given for values in zip(*each.rows, strict=True))
        kinds = tuple(
            (each.table, tuple(each.columns), tuple(each.update), tuple(each.same)) for each in given
        )
        statement = _statement(kinds, announce, self._idle_timeout)
        try:
            counts = iter((await connection.exec_driver_sql(statement, arrays)).one())
        except TimeoutError:
            if _is_one_row(
                given
            ):  # the next connection waits twice as long, for less at once is not possible
                self._patience = min(2 * self._patience, MAX_PATIENCE)
            raise
        self._patience = max(1, self._patience // 2)
        return [int(next(counts)) if each.rows else 0 for each in inserts]

    async def hold(self, connection: AsyncConnection, conversations: Sequence[str]) -> None:
        """Lock what these conversations' names come to, in one order for all; without it where that takes too long.

        A process that was stopped in its transaction must not stop the recording of others.
        """
        keys = sorted({crc32(name.encode()) % _HOLD_KEYS for name in conversations})
        try:
            async with connection.begin_nested():
                await connection.exec_driver_sql(
                    _HOLD.format(self._idle_timeout), (f"{HOLD_TIMEOUT * 1000:.0f}", keys)
                )
        except DBAPIError as error:
            if getattr(driver_error(error), "sqlstate", None) != _LOCK_TIMEOUT:
                raise
            log.warning(
                "Another process has not finished adding to the same conversations for %g s; what is added now may "
                "stand beside what it adds, as a branch",
                HOLD_TIMEOUT,
            )

    def between(self, column: ColumnElement[str], low: str, high: str | None) -> ColumnElement[bool]:
        """The operators of `text_pattern_ops`, which compare bytes whatever the collation is."""
        begins = column.op("~>=~", is_comparison=True)(low)
        return begins if high is None else and_(begins, column.op("~<~", is_comparison=True)(high))

    def failure(self, error: BaseException) -> Failure:
        """What kind of failure an error is, by its SQLSTATE."""
        cause = driver_error(error)
        state = getattr(cause, "sqlstate", None)
        if state is None:
            # OSError, and what asyncpg says of a connection that is gone.
            lost = _driver().InterfaceError, _driver().InternalClientError
            return "poison" if isinstance(cause, OF_THE_ROWS) else of_silence(cause, lost)
        return kind_of(state)

    def remedy(self, error: BaseException) -> str:
        """What to do about an error on connecting, to follow what the driver said."""
        cause = driver_error(error)
        if remedy := _REMEDIES.get(getattr(cause, "sqlstate", None) or ""):
            return "; " + remedy.format(database=self.url.database)
        if refused := _REFUSED.search(str(cause)):
            return advice(refused[1], str(cause))
        if isinstance(cause, (OSError, TimeoutError)):
            return "; check that the server runs, and the host and the port"
        return ""

    def unsure(self, error: BaseException) -> bool:
        """Whether nothing more can be asked of a connection after this error: it said nothing, or is gone."""
        state = getattr(driver_error(error), "sqlstate", None)
        return state is None or is_lost(state)

    def in_transaction(self, connection: AsyncConnection) -> bool:
        """As the server told with its last answer."""
        return bool(driver_connection(connection).is_in_transaction())

    def ended(self) -> bool:
        """Never: SQLAlchemy sees it."""
        return False

    async def let_go(self, connection: AsyncConnection) -> None:
        """Close it. A server that was stopped does not answer to that: SQLAlchemy waits two seconds when it invalidates
        a connection, and without end when it closes one."""
        await connection.invalidate()
        await connection.close()

    def plain(self, value: Any) -> Any:
        """A value of a query of one's own, as both databases give it: ids and times as text, sums as integers."""
        if isinstance(value, uuid.UUID):
            return str(value)
        if isinstance(value, Decimal):
            return int(value) if value == value.to_integral_value() else float(value)
        return iso(value) if isinstance(value, datetime) else value

    async def moved(self, connection: AsyncConnection) -> bool:
        """Never: a server that is replaced closes the connection."""
        return False

    def damage(self) -> None:
        """Never: a server looks after its files by itself."""

    def look(self, error: BaseException | None = None) -> None:
        """Nothing to see."""

    async def watch(self) -> Listening:
        """Begin to listen."""
        listening = Listening(await self._connect())
        try:
            return await listening.begin()
        except BaseException:  # who cancels this has no other way to close the connection
            await listening.close()
            raise

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes of our tables with their indexes."""
        query = text(
            "SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(CAST(:names AS text[])) AS name"
        )
        found = await connection.execute(query, {"names": list(metadata.tables)})
        return int(found.scalar_one() or 0)

    async def _connect(self, **_of_sqlalchemy: object) -> Any:
        """asyncpg reads the URL itself: sockets, TLS, the environment and the password file are libpq's ways."""
        given = arguments(self.url)._asdict()
        given["command_timeout"] = given["command_timeout"] * self._patience if self._with_timeout else None
        try:
            connection = await _driver().connect(**given, statement_cache_size=0)
        except TimeoutError as error:  # not as a statement's, which less to store may help
            raise ConnectionError(f"the server did not answer within {given['timeout']:g} s") from error
        transport = connection._transport  # asyncpg has no public name for it
        closed_in_children(transport)
        notice_silence(transport.get_extra_info("socket"), user_timeout(self.url))
        return connection


class Listening:
    """LISTEN on a connection of its own. Behind a pooler nothing is heard, and `news` just takes its time."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._heard = asyncio.Event()

    async def begin(self) -> Listening:
        """What is committed from here on is told."""
        await self._connection.add_listener(CHANNEL, lambda *_told: self._heard.set())
        self._connection.add_termination_listener(lambda *_told: self._heard.set())
        await self._connection.execute(f"SELECT pg_advisory_lock_shared({WATCH_KEY})")
        return self

    async def news(self, timeout: float) -> bool:
        """Return when something was committed, or after `timeout` seconds. Raises when the connection is gone."""
        try:
            await asyncio.wait_for(self._heard.wait(), timeout)
        except TimeoutError:
            return False
        self._heard.clear()
        if self._connection.is_closed():
            raise ConnectionError("the connection that listened is gone")
        return True

    async def close(self) -> None:
        """Listen no more."""
        self._connection.terminate()


def _driver() -> Any:
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        raise MissingExtra("Postgres needs asyncpg; run: pip install 'chat-recorder[postgres]'") from error
    return asyncpg


def _is_one_row(inserts: Sequence[Insert]) -> bool:
    return all(len(each.rows) == 1 for each in inserts)


#: What a part of a statement depends on: the table, its columns, those to update, and those that must be the same.
Kind = tuple[Table, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@lru_cache(maxsize=256)
def _statement(kinds: tuple[Kind, ...], announce: bool, idle_timeout: str) -> str:
    """Inserts into tables as one statement, whose answer is a row of counts."""
    first, parts, counts = 1, [], []
    for number, (table, columns, update, same) in enumerate(kinds):
        parts.append(f"i{number} AS ({_insert(table, columns, update, same, first)} RETURNING 1)")
        counts.append(f"(SELECT count(*) FROM i{number})")
        first += len(columns)
    if announce:
        counts.append(_ANNOUNCE)
    counts.append(idle_timeout)
    return f"{'WITH ' if parts else ''}{', '.join(parts)} SELECT {', '.join(counts)}"


def _insert(
    table: Table, columns: tuple[str, ...], update: tuple[str, ...], same: tuple[str, ...], first: int
) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    kinds = (table.c[name].type.compile(dialect=_COMPILER) for name in columns)
    arrays = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(kinds, first))
    found = f'INSERT INTO "{table.name}" ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT '
    if not update:
        return found + "DO NOTHING"
    key = ", ".join(column.name for column in table.primary_key)
    sets = ", ".join(f'"{name}" = excluded."{name}"' for name in update)
    found += f"({key}) DO UPDATE SET {sets}"
    kept = " AND ".join(f'"{table.name}"."{name}" IS NOT DISTINCT FROM excluded."{name}"' for name in same)
    return f"{found} WHERE {kept}" if kept else found


_COMPILER = postgresql.dialect()  # type: ignore[no-untyped-call]
