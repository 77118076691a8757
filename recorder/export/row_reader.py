"""Reads the rows of an export from every table, a page at a time, each page by its key.

In memory are the keys of one page of conversations, and one page of rows of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy import ColumnElement, Executable, Table, collate, func, select, tuple_

from recorder.messages import BaseMessage
from recorder.storage import schema
from recorder.storage.blocking import BlockingStore
from recorder.storage.id_lookup import Found
from recorder.storage.key_pages import after_key
from recorder.storage.reader import DatabaseReader
from recorder.storage.row_checks import readable, row_of
from recorder.storage.rows import (
    ROWS_OF_A_RUN,
    AnnotationRow,
    ContextMessageRow,
    ConversationRow,
    MessageRow,
    Producer,
    RunRow,
)

T = TypeVar("T")

_IDS = 5_000
CONVERSATIONS = 100
MESSAGES = 100
RUNS = 50
#: If the runs of one page have more rows of a table than this together, the table is read run by run.
_FEW_ROWS = 300
#: For such a run: rows of the first page, and about the bytes of each later page.
_FIRST_ROWS = 16
_PAGE_BYTES = 2**20
_MOST_ROWS = 2_000


class RunKey(NamedTuple):
    """The key of a run, and what decides whether it is exported."""

    conversation_id: str
    id: str
    status: str
    producer_id: str | None


class RunPlace(NamedTuple):
    """A run among other runs."""

    id: str
    parent_run_id: str | None
    metadata: str | None


class MessageKey(NamedTuple):
    """The key of a message, its parent, and the run that produced it."""

    conversation_id: str
    id: str
    parent_id: str | None
    run_id: str | None


class ContextKey(NamedTuple):
    """The key of a context message."""

    conversation_id: str
    id: str


class RowReader:
    """Reads one database from synchronous code."""

    def __init__(self, url: str) -> None:
        self._database = BlockingStore(url, read_only=True)
        self._store = self._database.store

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def find(self, id: str) -> Found:
        """The conversation or run with this id, or beginning of an id. Raises `NotFound`."""
        return self._database.run(DatabaseReader(self._store).find(id))

    def conversation_of(self, run_id: str) -> str:
        """The conversation that a run belongs to."""
        [(found,)] = self._fetch(select(schema.runs.c.conversation_id).where(schema.runs.c.id == run_id))
        return str(found)

    def tokens(self, conversations: Sequence[str] | None) -> int:
        """About how many tokens these conversations have; all conversations if None."""
        total = select(func.coalesce(func.sum(schema.runs.c.token_count), 0))
        if conversations is None:
            return int(self._fetch(total)[0][0])
        inside = schema.runs.c.conversation_id
        batches = (conversations[start : start + 500] for start in range(0, len(conversations), 500))
        return sum(int(self._fetch(total.where(inside.in_(batch)))[0][0]) for batch in batches)

    def conversation_ids(self) -> Iterator[str]:
        """The ids of all conversations, in an order that is the same on both databases."""
        id: ColumnElement[str] = schema.conversations.c.id
        if self._store.dialect.name == "postgresql":  # its default order depends on a locale
            id = collate(id, "C")
        query = select(schema.conversations.c.id).order_by(id).limit(_IDS)
        rows = self._fetch(query)
        while rows:
            yield from (row[0] for row in rows)
            rows = self._fetch(query.where(id > rows[-1][0]))

    def conversations(self, ids: Sequence[str]) -> list[ConversationRow]:
        """The rows with these keys that exist, in the order of the keys."""
        return self._by_id(schema.conversations, ConversationRow, ids)

    def run_keys(self, conversations: Sequence[str]) -> dict[str, list[RunKey]]:
        """The runs of some conversations, by conversation, ordered by their start."""
        runs = schema.runs.c
        query = select(runs.conversation_id, runs.id, runs.status, runs.producer_id)
        query = query.where(runs.conversation_id.in_(conversations)).order_by(runs.started_at, runs.id)
        return _by_conversation(conversations, [row_of(RunKey, row) for row in self._fetch(query)])

    def all_run_keys(self) -> Iterator[RunKey]:
        """The runs of all conversations, ordered by their ids. Chains and tools may have no row in `conversations`."""
        runs = schema.runs.c
        query = select(*(runs[name] for name in RunKey._fields)).order_by(runs.id).limit(_IDS)
        rows = self._fetch(query)
        while rows:
            yield from (row_of(RunKey, row) for row in rows)
            rows = self._fetch(query.where(runs.id > rows[-1].id))

    def run_count(self) -> int:
        """How many runs are stored."""
        [(found,)] = self._fetch(select(func.count()).select_from(schema.runs))
        return int(found)

    def runs(self, ids: Sequence[str]) -> list[RunRow]:
        """The rows with these keys that exist, in the order of the keys."""
        return self._by_id(schema.runs, RunRow, ids)

    def run_places(self, ids: Sequence[str]) -> list[RunPlace]:
        """The parents and the metadata of the runs with these keys that exist."""
        columns = [schema.runs.c[name] for name in RunPlace._fields]
        return [
            row_of(RunPlace, row) for row in self._fetch(select(*columns).where(schema.runs.c.id.in_(ids)))
        ]

    def content(self, run_id: str) -> tuple[list[BaseMessage], list[BaseMessage]]:
        """The messages that a run was sent, and its replies."""
        return self._database.run(self._content(run_id))

    async def _content(self, run_id: str) -> tuple[list[BaseMessage], list[BaseMessage]]:
        reader = DatabaseReader(self._store)
        run = await reader.run(run_id)
        return await reader.request(run), await reader.replies(run.conversation_id, run_id)

    def annotations_of_messages(self, conversations: Sequence[str] | None) -> Iterator[AnnotationRow]:
        """The annotations of messages that belong to no run, in these conversations; in all of them if None."""
        here = schema.annotations.c
        query = select(schema.annotations).where(here.conversation_id.is_not(None))
        if conversations is not None:
            query = query.where(here.conversation_id.in_(conversations))
        query = query.order_by(here.run_id, here.id).limit(MESSAGES)
        rows = self._fetch(query)
        while rows:
            yield from (row_of(AnnotationRow, row) for row in rows)
            after = tuple_(here.run_id, here.id) > tuple_(*rows[-1][:2])
            rows = self._fetch(query.where(after))

    def message_keys(self, conversations: Sequence[str]) -> dict[str, list[MessageKey]]:
        """The messages of some conversations, by conversation, each after its parent."""
        here = schema.messages.c
        query = select(here.conversation_id, here.id, here.parent_id, here.run_id)
        query = query.where(here.conversation_id.in_(conversations)).order_by(here.position, here.id)
        return _by_conversation(conversations, [row_of(MessageKey, row) for row in self._fetch(query)])

    def messages(self, keys: Sequence[MessageKey]) -> list[MessageRow]:
        """The rows with these keys that exist, in the order of the keys."""
        key = tuple_(*schema.messages.primary_key.columns)
        rows = self._fetch(
            select(*schema.row_columns(MessageRow)).where(key.in_([each[:2] for each in keys]))
        )
        found = {row[:2]: row_of(MessageRow, row) for row in rows}
        return [found[each[:2]] for each in keys if each[:2] in found]

    def context_keys(self, conversations: Sequence[str]) -> dict[str, list[ContextKey]]:
        """The context messages of some conversations, by conversation, the oldest first."""
        here = schema.context_messages.c
        query = select(here.conversation_id, here.id).where(here.conversation_id.in_(conversations))
        rows = self._fetch(query.order_by(here.created_at, here.id))
        return _by_conversation(conversations, [row_of(ContextKey, row) for row in rows])

    def context(self, keys: Sequence[ContextKey]) -> list[ContextMessageRow]:
        """The rows with these keys that exist, in the order of the keys."""
        key = tuple_(*schema.context_messages.primary_key.columns)
        rows = self._fetch(select(schema.context_messages).where(key.in_(keys)))
        found = {row[:2]: row_of(ContextMessageRow, row) for row in rows}
        return [found[each] for each in keys if each in found]

    def annotations(self, conversation_id: str, messages: Sequence[str] | None) -> Iterator[AnnotationRow]:
        """The annotations of messages without a run: of all of a conversation, or of some of its messages."""
        here = schema.annotations.c
        query = select(schema.annotations).where(here.conversation_id == conversation_id)
        if messages is not None:
            query = query.where(here.run_id.in_(messages))
        query = query.order_by(here.run_id, here.id).limit(_MOST_ROWS)
        rows = self._fetch(query)
        while rows:
            yield from (row_of(AnnotationRow, row) for row in rows)
            last = rows[-1]
            rows = self._fetch(query.where(after_key(schema.annotations, (last.run_id, last.id))))

    def producer(self, id: str) -> Producer | None:
        """The producer with this id; None if there is none."""
        rows = self._fetch(select(schema.producers).where(schema.producers.c.id == id))
        return row_of(Producer, rows[0]) if rows else None

    def of_runs(self, ids: Sequence[str]) -> list[TableRows]:
        """For each table of a run, its rows of these runs."""
        return [TableRows(self, schema.TABLES[row_type], row_type, ids) for row_type in ROWS_OF_A_RUN]

    def annotations_of(self, ids: Sequence[str]) -> TableRows:
        """The annotations of these runs."""
        return TableRows(self, schema.annotations, AnnotationRow, ids)

    def fetch_few(self, table: Table, row_type: type[T], ids: Sequence[str]) -> dict[str, list[T]] | None:
        """The rows of some runs, by run; None if there are more than `_FEW_ROWS`."""
        query = select(table).where(table.c.run_id.in_(ids)).order_by(*table.primary_key.columns)
        rows = self._fetch(query.limit(_FEW_ROWS + 1))
        if len(rows) > _FEW_ROWS:
            return None
        found: dict[str, list[T]] = {id: [] for id in ids}
        for row in rows:
            found[row.run_id].append(row_of(row_type, row))
        return found

    def fetch_all(self, table: Table, row_type: type[T], run_id: str) -> Iterator[T]:
        """The rows of one run, a page at a time."""
        key = table.primary_key.columns[1]
        query = select(table).where(table.c.run_id == run_id).order_by(key)
        limit, rows = _FIRST_ROWS, self._fetch(query.limit(_FIRST_ROWS))
        while rows:
            yield from (row_of(row_type, row) for row in rows)
            limit = _next_limit(rows)
            rows = self._fetch(query.where(key > rows[-1]._mapping[key.name]).limit(limit))

    def _by_id(self, table: Table, row_type: type[T], ids: Sequence[str]) -> list[T]:
        rows = self._fetch(select(table).where(table.c.id.in_(ids)))
        found = {row.id: row_of(row_type, row) for row in rows}
        return [found[id] for id in ids if id in found]

    def _fetch(self, statement: Executable) -> Sequence[Any]:
        with readable(self._store.errors):
            return self._database.run(self._store.fetch(statement))


class TableRows:
    """The rows of one table for the runs of one page."""

    def __init__(self, reader: RowReader, table: Table, row_type: type[Any], ids: Sequence[str]) -> None:
        self._reader = reader
        self._table = table
        self._row_type = row_type
        self._few = reader.fetch_few(table, row_type, ids)

    def of_run(self, run_id: str) -> Iterator[Any]:
        """The rows of one run."""
        if self._few is not None:
            return iter(self._few[run_id])
        return self._reader.fetch_all(self._table, self._row_type, run_id)


def _by_conversation(ids: Sequence[str], keys: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {id: [] for id in ids}
    for key in keys:
        found[key.conversation_id].append(key)
    return found


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` items."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


class HasConversation(Protocol):
    """A row or key that belongs to a conversation."""

    @property
    def conversation_id(self) -> str:
        """Id of the conversation."""


Q = TypeVar("Q", bound=HasConversation)


class PagedQueue(Generic[Q]):
    """Rows in order, fetched a page at a time when the first one of the page is needed."""

    def __init__(self, keys: Iterable[Any], size: int, fetch: Callable[[list[Any]], Iterable[Q]]) -> None:
        self._rows = chain.from_iterable(map(fetch, batches(keys, size)))
        self._next: Q | None = next(self._rows, None)

    def take(self, conversation_id: str) -> Iterator[Q]:
        """Take the rows at the front that belong to one conversation."""
        while self._next is not None and self._next.conversation_id == conversation_id:
            found = self._next
            yield found
            self._next = next(self._rows, None)


def _next_limit(rows: Sequence[Any]) -> int:
    """How many rows make a page of `_PAGE_BYTES`, if they are as large as the last ones."""
    size = sum(len(value) for row in rows for value in row if isinstance(value, (str, bytes)))
    return max(1, min(_MOST_ROWS, _PAGE_BYTES * len(rows) // max(1, size)))
