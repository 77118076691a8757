"""What all databases share: the words for a failure, and what the store asks of a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from sqlalchemy import URL, ColumnElement, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

#: transient: the same again may go well. slow: so it may, and less at once is better. refused: it was answered, and
#: whether because of its rows is not known. poison: these rows never will. fatal: nothing will.
Failure = Literal["transient", "slow", "refused", "poison", "fatal"]
#: Those after which a database is tried again when it is opened.
TO_BE_TRIED_AGAIN = frozenset(("transient", "slow", "refused"))

#: Python's errors that come of what is to be stored, and would come again however often it is tried.
OF_THE_ROWS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def of_silence(error: BaseException, lost: tuple[type[BaseException], ...] = ()) -> Failure:
    """What kind of failure an error is that did not come of a database: `lost` is what a driver says of a connection
    that is gone. Anything else is a driver's bug or ours, and may come of the rows."""
    if isinstance(error, TimeoutError):
        return "slow"
    return "transient" if isinstance(error, (OSError, EOFError, *lost)) else "refused"


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error, below what SQLAlchemy and its asynchronous adapters make of it."""
    wrapped = error.orig if isinstance(error, DBAPIError) else None
    return (wrapped.__cause__ or wrapped) if wrapped is not None else error


def said(error: BaseException) -> str:
    """What the driver said, on one line: without the statement and its parameters, which are people's words."""
    found = driver_error(error)
    if isinstance(found, TimeoutError) and not str(found):
        return "it did not answer in time"
    return (str(found) or type(found).__name__).partition("\n")[0]


def driver_connection(connection: AsyncConnection) -> Any:
    """The driver's own connection of one that is open."""
    assert connection.sync_connection is not None
    return connection.sync_connection.connection.driver_connection


class Damage(Protocol):
    """A damaged file: it is put aside, and put back where SQLite finds it whole after all."""

    def set_aside(self) -> None:
        """Give it another name; its connection is to be closed then."""

    def put_back(self, is_whole: Callable[[Any], bool]) -> bool:
        """Whether it has its name again, for nothing is missing: `is_whole` is asked that with a connection."""

    def words(self) -> str:
        """Where it is, for messages."""


class Watch(Protocol):
    """Tells when something was committed, without asking the tables."""

    async def news(self, timeout: float) -> bool:
        """Return when something may have been committed, or after `timeout` seconds; which of the two."""

    async def close(self) -> None:
        """Watch no more."""


class Insert(NamedTuple):
    """Rows for a table. Of those whose key is there already the `update` columns are set, if the `same` columns are
    as they are there."""

    table: Table
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    update: Sequence[str] = ()
    same: Sequence[str] = ()


class Dialect(Protocol):
    """Everything that differs between the databases, and nothing else."""

    url: URL
    name: str
    #: A FROM item of the JSON list `:asked`, of `[conversation_id]` or `[conversation_id, id]`.
    asked: str

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What opening raises for a database that cannot be reached."""

    @property
    def upgrades_itself(self) -> bool:
        """Whether an older schema is brought to the newest on opening, or refused with the command that does it."""

    def check(self) -> None:
        """Raise `ConfigError` or `MissingExtra` for what cannot work; opens nothing."""

    def engine(self) -> AsyncEngine:
        """An engine whose connections are set up."""

    async def insert(
        self, connection: AsyncConnection, inserts: Sequence[Insert], *, announce: bool = False
    ) -> list[int]:
        """Insert rows, and say how many of each changed something, in as few calls of the driver as can be.

        Against an application that keeps the interpreter's lock each call costs 5 ms and more. `announce` tells who
        watches that this transaction will have stored something; with its last statement.
        """

    async def hold(self, connection: AsyncConnection, conversations: Sequence[str]) -> None:
        """Wait for whoever holds one of these conversations, and let others wait until this transaction ends."""

    def between(self, column: ColumnElement[str], low: str, high: str | None) -> ColumnElement[bool]:
        """Whether a text is `low` or more, and less than `high` if that is given, by code points and by an index."""

    def failure(self, error: BaseException) -> Failure:
        """What kind of failure a driver's error is."""

    def remedy(self, error: BaseException) -> str:
        """What to do about an error on opening, to follow what the driver said."""

    def unsure(self, error: BaseException) -> bool:
        """Whether nothing more can be asked of a connection after this error."""

    def in_transaction(self, connection: AsyncConnection) -> bool:
        """Whether the driver has a transaction open, whatever SQLAlchemy knows of it."""

    def ended(self) -> bool:
        """Whether the connection that was made last is closed already, and another is to be made."""

    async def let_go(self, connection: AsyncConnection) -> None:
        """Close a connection that nothing is open on, in a few seconds whatever the database does."""

    def plain(self, value: Any) -> Any:
        """A value of a query of one's own, as both databases give it: ids and times as text."""

    async def moved(self, connection: AsyncConnection) -> bool:
        """Whether the database of a connection is another one than has its name now; it can be closed then."""

    def damage(self) -> Damage | None:
        """What to do about a file that was cut or overwritten since it was opened; None of one that was not."""

    def look(self, error: BaseException | None = None) -> None:
        """Something was stored, or an error was raised: look for signs of damage."""

    async def watch(self) -> Watch:
        """Begin to watch; what is committed from now on is told."""

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes on disk."""
