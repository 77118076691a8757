"""Whole rows into a database, in one transaction: what is new is stored, what is there is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from sqlalchemy import Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.errors import StoreError
from recorder.export.counts import Counts
from recorder.export.format import Row
from recorder.storage import schema
from recorder.storage.compression import decompress
from recorder.storage.dialects import Dialect, Insert
from recorder.storage.frame_block import split
from recorder.storage.rows import (
    INTERRUPTED,
    STREAMING,
    AnnotationRow,
    ConversationRow,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunRow,
    SegmentRow,
)
from recorder.storage.schema import Id, dashed
from recorder.storage.store import Conflict

#: In the order in which the writer stores them, so that the two never wait for each other.
_TABLES: Mapping[type[Any], Table] = {
    Producer: schema.producers,
    ConversationRow: schema.conversations,
    MessageRow: schema.messages,
    RunRow: schema.runs,
    SegmentRow: schema.segments,
    FrameRow: schema.frames,
    GapRow: schema.gaps,
    AnnotationRow: schema.annotations,
}
#: Rows of one question.
_COMPARED = 500
#: What is shown of a value (characters).
_SHOWN = 60
#: What an end says of a run; until there is one it is what somebody has guessed.
_END = frozenset((
    "status", "first_token_at", "ended_at", "finish_reason", "error_type", "error_message", "response_model",
    "response_id", "input_tokens", "output_tokens", "total_tokens", "usage", "usage_source", "token_count",
    "sha256", "frames_sha256", "response_message_id", "metadata",
))  # fmt: skip


class Adding:
    """Rows on their way into a database; `new` and `there` count them."""

    def __init__(self, connection: AsyncConnection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        self.new = Counts()
        self.there = Counts()

    async def add(self, rows: Sequence[Row]) -> None:
        """Store those whose key is new. Raises `Conflict` for one that is there with another content."""
        for made, table in _TABLES.items():
            if found := [row for row in rows if type(row) is made]:
                await self._add(table, found)

    async def announce(self) -> None:
        """Tell who watches; the last thing."""
        await self._dialect.insert(self._connection, [], announce=True)

    async def _add(self, table: Table, rows: list[Any]) -> None:
        own = _by_key(table, rows)
        missing, better = [], []
        stored = await self._stored(table, list(own))
        for key, row in own.items():
            before = stored.get(key)
            if before is None:
                missing.append(row)
            elif _is_better(table, before, row):
                better.append(row)
            else:
                self.there.add(row)
        await self._insert(table, missing)
        await self._insert(table, better, update=_BETTER.get(type(rows[0]), ()))

    async def _insert(self, table: Table, rows: list[Any], update: Sequence[str] = ()) -> None:
        if not rows:
            return
        values = [_values(row) for row in rows]
        insert = Insert(table, table.columns.keys(), values, update)
        [stored] = await self._dialect.insert(self._connection, [insert])
        if stored != len(rows):
            raise StoreError(f"Another program stores the same {table.name} at this moment; import again")
        for row in rows:
            self.new.add(row)

    async def _stored(self, table: Table, keys: Sequence[Any]) -> dict[Any, Any]:
        """The rows that are there already, by key."""
        columns = list(table.primary_key.columns)
        key: Any = columns[0] if len(columns) == 1 else tuple_(*columns)
        found = {}
        for start in range(0, len(keys), _COMPARED):
            query = select(table).where(key.in_(keys[start : start + _COMPARED]))
            for row in await self._connection.execute(query):
                found[_key(table, row)] = tuple(row)
        return found


def _by_key(table: Table, rows: Sequence[Any]) -> dict[Any, Any]:
    """The rows, in the order of their keys. Raises `Conflict` for two of one key."""
    found: dict[Any, Any] = {}
    for row in map(_with_plain_ids, rows):
        key = _key(table, _values(row))
        if (other := found.setdefault(key, row)) is not row and other != row:
            raise _conflict(table, _values(other), _values(row), "the export has it twice")
    return dict(sorted(found.items()))


def _key(table: Table, values: Any) -> Any:
    places = _KEYS[table.name]
    return values[places[0]] if len(places) == 1 else tuple(values[place] for place in places)


def _values(row: Any) -> tuple[Any, ...]:
    return astuple(row) if isinstance(row, Producer) else row


def _with_plain_ids(row: Any) -> Any:
    """The row with its ids dashed and in lower case. Raises `StoreError` for one that is no id."""
    values = _values(row)
    for place in _IDS[type(row)]:
        if (id := values[place]) is None:
            continue
        try:
            if dashed(id) == id:
                continue
        except ValueError as error:
            raise StoreError(f"{_shown(id)} is no id of a {type(row).__name__}: it must be a UUID") from error
        values = (*values[:place], dashed(id), *values[place + 1 :])
    return row if values is _values(row) or values == _values(row) else type(row)(*values)


def _is_better(table: Table, stored: tuple[Any, ...], row: Any) -> bool:
    """Whether the row knows more of the same than the stored one. Raises `Conflict` for one of another content."""
    own, names = _values(row), table.columns.keys()
    if own == stored:
        return False
    different = {name for name, mine, other in zip(names, own, stored, strict=True) if mine != other}
    if isinstance(row, RunRow) and None in (row.said_at, RunRow._make(stored).said_at):
        different.discard("said_at")  # an older version's export does not say it
        if not different:
            return False
    if isinstance(row, Producer) and different <= {"heartbeat_at", "process"}:
        return row.heartbeat_at > Producer(*stored).heartbeat_at  # an older version's export says no process
    if isinstance(row, RunRow) and different <= _END:
        before = RunRow._make(stored)
        if _is_guessed(before) or _is_guessed(row):
            return not _is_guessed(row)
    if isinstance(row, FrameRow) and different <= {"data", "dictionary"} and _same_frames(stored, row):
        return False  # packed by another version of the library
    raise _conflict(table, stored, own, "stored already")


def _is_guessed(run: RunRow) -> bool:
    """Whether the end of a run was made up for a process that is dead, or is still to come."""
    return run.status in (STREAMING, INTERRUPTED) and run.sha256 is None


def _same_frames(stored: tuple[Any, ...], row: FrameRow) -> bool:
    before = FrameRow._make(stored)
    try:
        return split(decompress(before.data, before.dictionary)) == split(
            decompress(row.data, row.dictionary)
        )
    except StoreError:
        return False


def _conflict(table: Table, stored: tuple[Any, ...], own: tuple[Any, ...], how: str) -> Conflict:
    name = next(
        name for name, mine, other in zip(table.columns.keys(), own, stored, strict=True) if mine != other
    )
    place = table.columns.keys().index(name)
    key = ", ".join(str(own[at]) for at in _KEYS[table.name])
    return Conflict(
        f"{table.name} {key}: {how} with another {name}, {_shown(stored[place])} and not {_shown(own[place])}; "
        "import into another database, or delete one of the two"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


#: Columns that a row that knows more sets.
_BETTER: Mapping[type[Any], Sequence[str]] = {Producer: ("heartbeat_at",), RunRow: sorted(_END)}
_KEYS = {
    table.name: tuple(table.columns.keys().index(key.name) for key in table.primary_key)
    for table in _TABLES.values()
}
_IDS = {
    made: tuple(place for place, column in enumerate(table.columns) if isinstance(column.type, Id))
    for made, table in _TABLES.items()
}
