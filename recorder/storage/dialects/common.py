"""What the databases have in common: the interface that the store uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import URL, ColumnElement, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from recorder.storage.failures import Failure


def driver_connection(connection: AsyncConnection) -> Any:
    """The driver's connection of an open SQLAlchemy connection."""
    assert connection.sync_connection is not None
    return connection.sync_connection.connection.driver_connection


class Damage(Protocol):
    """A damaged database file. It is renamed, and renamed back if SQLite finds it complete after all."""

    def set_aside(self) -> None:
        """Rename the file. Close the connection to it afterwards."""

    def put_back(self, is_complete: Callable[[Any], bool]) -> bool:
        """Rename the file back if `is_complete`, called with a connection to it, says so; whether it was renamed."""

    def location(self) -> str:
        """A sentence that says where the damaged file is."""


class Watch(Protocol):
    """Notices commits without a query of the tables."""

    async def wait_for_commit(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; True as soon as something may have been committed, False after the timeout."""

    async def close(self) -> None:
        """Stop watching."""


class Insert(NamedTuple):
    """Rows for a table.

    Where a row with the same key is stored, its `update` columns are set, provided that its `same` columns are equal.
    """

    table: Table
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    update: Sequence[str] = ()
    same: Sequence[str] = ()


class DriverCall(NamedTuple):
    """One call of the driver."""

    sql: str
    parameters: Sequence[Any]
    #: On SQLite, the insert that it belongs to.
    place: int = 0


class Statements(NamedTuple):
    """What the driver gets for some inserts."""

    inserts: Sequence[Insert]
    calls: Sequence[DriverCall]


class Dialect(Protocol):
    """Everything that differs between SQLite and Postgres."""

    url: URL
    name: str
    #: The factor by which statements may take longer than usual, over connections that are made from now on.
    patience: int
    #: Whether messages can be indexed for the search.
    has_index: bool
    #: A FROM item: the rows of the JSON list `:keys`, whose items are `[conversation_id, id, number]`; the
    #: last two may be missing or null.
    key_rows: str

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The exceptions that the driver raises while a database is opened or queried."""

    @property
    def upgrades_itself(self) -> bool:
        """Whether opening upgrades an older schema. Otherwise opening fails and names the command that upgrades it."""

    def check(self) -> None:
        """Raise `ConfigError` or `MissingExtra` for a URL or setting that cannot work. Opens nothing."""

    def engine(self) -> AsyncEngine:
        """An engine that makes connections with recorder's settings."""

    def statements(self, inserts: Sequence[Insert], *, announce: bool = False) -> Statements:
        """The statements that insert these rows. Needs no connection, so that it can be called beside a statement.

        They are as few calls of the driver as possible: each costs 5 ms and more while the application holds the
        interpreter's lock. `announce` notifies watchers when this transaction commits; pass it with the last insert.
        """

    async def insert(self, connection: AsyncConnection, statements: Statements) -> list[int]:
        """Execute the statements; for each insert, the number of rows that were inserted or updated."""

    async def look_for_index(self, connection: AsyncConnection) -> None:
        """Find out whether the database can index messages for the search. Called when it is opened for writing."""

    def may_be_of_index(self, error: BaseException) -> bool:
        """Whether a damaged index of the search may be the cause of an error."""

    async def lock_conversations(self, connection: AsyncConnection, conversations: Sequence[str]) -> None:
        """Lock these conversations until the transaction ends. Waits for another process that has locked one."""

    def between(self, column: ColumnElement[str], low: str, high: str | None) -> ColumnElement[bool]:
        """The condition `low` <= text < `high`, or `low` <= text without `high`; by code points, and from an index."""

    def in_order(self, column: ColumnElement[str]) -> ColumnElement[Any]:
        """The ORDER BY term for rows of `between`, so that the same index gives the first of them."""

    def failure(self, error: BaseException) -> Failure:
        """The kind of a driver's error."""

    def remedy(self, error: BaseException) -> str:
        """What the user can do about an error on opening; it is appended to the driver's message."""

    def breaks_connection(self, error: BaseException) -> bool:
        """Whether the connection cannot be used after this error."""

    def ended_by_fork(self, error: BaseException) -> bool:
        """Whether the error says that a fork of this process ended the transaction, so that another try will do."""

    def in_transaction(self, connection: AsyncConnection) -> bool:
        """Whether the driver has an open transaction, also one that SQLAlchemy does not know."""

    def is_closed(self) -> bool:
        """Whether the newest connection was closed outside SQLAlchemy, so that a new one has to be made."""

    async def close_connection(self, connection: AsyncConnection) -> None:
        """Close a connection without an open transaction. Takes a few seconds at most, even with a stopped server."""

    def plain(self, value: Any) -> Any:
        """A value of a user's own query in the form that both databases share: ids and times as text."""

    async def moved(self, connection: AsyncConnection) -> bool:
        """Whether the file of the connection was moved, deleted or replaced. If so, close the connection."""

    def damage(self) -> Damage | None:
        """The damaged file if it was cut or overwritten since it was opened, else None."""

    def look(self, error: BaseException | None = None) -> None:
        """Look for signs of damage. Called after each commit and after each error."""

    async def watch(self) -> Watch:
        """Start watching for commits."""

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes on disk."""
