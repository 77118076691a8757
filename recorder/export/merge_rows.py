"""Stores rows in one transaction: new rows are inserted, stored ones are compared."""

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
from recorder.storage.columns import names_of
from recorder.storage.compression import decompress
from recorder.storage.dialects import Dialect, Insert
from recorder.storage.frame_block import split
from recorder.storage.inserts import SEAL_COLUMNS
from recorder.storage.rows import (
    INTERRUPTED,
    STREAMING,
    AnnotationRow,
    FrameRow,
    Producer,
    RunRow,
)
from recorder.storage.schema import Id, dashed
from recorder.storage.store_interface import Conflict

#: Rows that one query looks up.
_COMPARED = 500
#: How many characters of a value are shown.
_SHOWN = 60
#: Columns that the end of a run sets. Until the real end is known they may be provisional.
_END = frozenset((*SEAL_COLUMNS, "metadata"))


class RowMerger:
    """Merges rows into a database; `new` and `existing` count them."""

    def __init__(self, connection: AsyncConnection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        self.new = Counts()
        self.existing = Counts()

    async def add(self, rows: Sequence[Row]) -> None:
        """Insert the rows with new keys. Raises `Conflict` for a row that is stored with other values."""
        # In the order in which the writer stores them, so that an import and a writer cannot deadlock.
        for row_type, table in schema.TABLES.items():
            if found := [row for row in rows if type(row) is row_type]:
                await self._add(table, found)

    async def announce(self) -> None:
        """Notify the followers of this commit; called last in the transaction."""
        await self._dialect.insert(self._connection, self._dialect.statements([], announce=True))

    async def _add(self, table: Table, rows: list[Any]) -> None:
        new_rows = _by_key(table, rows)
        missing, newer = [], []
        stored = await self._stored(table, list(new_rows))
        for key, row in new_rows.items():
            before = stored.get(key)
            if before is None:
                missing.append(row)
            elif _is_newer(table, before, row):
                newer.append(row)
            else:
                self.existing.add(row)
        await self._insert(table, missing)
        await self._insert(table, newer, update=_UPDATED.get(type(rows[0]), ()))

    async def _insert(self, table: Table, rows: list[Any], update: Sequence[str] = ()) -> None:
        if not rows:
            return
        values = [_values(row) for row in rows]
        insert = Insert(table, _NAMES[table.name], values, update)
        [stored] = await self._dialect.insert(self._connection, self._dialect.statements([insert]))
        if stored != len(rows):
            raise StoreError(f"Another program stores the same {table.name} at this moment; import again")
        for row in rows:
            self.new.add(row)

    async def _stored(self, table: Table, keys: Sequence[Any]) -> dict[Any, Any]:
        """The stored rows with these keys, by key."""
        columns = list(table.primary_key.columns)
        key: Any = columns[0] if len(columns) == 1 else tuple_(*columns)
        found = {}
        for start in range(0, len(keys), _COMPARED):
            query = select(*(table.c[name] for name in _NAMES[table.name])).where(
                key.in_(keys[start : start + _COMPARED])
            )
            for row in await self._connection.execute(query):
                found[_key(table, row)] = tuple(row)
        return found


def _by_key(table: Table, rows: Sequence[Any]) -> dict[Any, Any]:
    """The rows by key, sorted by key. Raises `Conflict` for two different rows with one key."""
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
    """The row with its ids in lower case and with dashes. Raises `StoreError` for an invalid id."""
    values = _values(row)
    for place in _IDS[type(row)]:
        if (id := values[place]) is None:
            continue
        try:
            if dashed(id) == id:
                continue
        except ValueError as error:
            raise StoreError(
                f"{_shown(id)} is not the id of a {type(row).__name__}: it must be a UUID"
            ) from error
        values = (*values[:place], dashed(id), *values[place + 1 :])
    return row if values is _values(row) or values == _values(row) else type(row)(*values)


def _is_newer(table: Table, stored: tuple[Any, ...], row: Any) -> bool:
    """Whether the row must replace the stored one. Raises `Conflict` if the two contradict each other."""
    new_rows, names = _values(row), _NAMES[table.name]
    if new_rows == stored:
        return False
    different = {name for name, mine, other in zip(names, new_rows, stored, strict=True) if mine != other}
    pairs = zip(names, new_rows, stored, strict=True)
    different -= {name for name, mine, other in pairs if name in _LATER and None in (mine, other)}
    if not different:
        return False
    if isinstance(row, Producer) and different <= {"heartbeat_at", "process"}:
        return row.heartbeat_at > Producer(*stored).heartbeat_at  # exports of older versions have no process
    if isinstance(row, RunRow) and different <= _END:
        before = RunRow._make(stored)
        if _is_provisional(before) or _is_provisional(row):
            return not _is_provisional(row)
    if isinstance(row, AnnotationRow) and different <= _WHEN_ANNOTATED:
        return False  # the same analyzer evaluated the same text in two copies of the conversation
    if isinstance(row, FrameRow) and different <= {"data", "dictionary"} and _same_frames(stored, row):
        return False  # compressed by another version of the library
    raise _conflict(table, stored, new_rows, "stored already")


def _is_provisional(run: RunRow) -> bool:
    """Whether the end of a run is provisional, set for a dead process, or is still to come."""
    return run.status in (STREAMING, INTERRUPTED) and run.sha256 is None


def _same_frames(stored: tuple[Any, ...], row: FrameRow) -> bool:
    before = FrameRow._make(stored)
    try:
        return split(decompress(before.data, before.dictionary)) == split(
            decompress(row.data, row.dictionary)
        )
    except StoreError:
        return False


def _conflict(table: Table, stored: tuple[Any, ...], new_rows: tuple[Any, ...], how: str) -> Conflict:
    name = next(
        name for name, mine, other in zip(_NAMES[table.name], new_rows, stored, strict=True) if mine != other
    )
    place = _NAMES[table.name].index(name)
    key = ", ".join(str(new_rows[at]) for at in _KEYS[table.name])
    return Conflict(
        f"{table.name} {key}: {how} with another {name}, {_shown(stored[place])} and not {_shown(new_rows[place])}; "
        "import into another database, or delete one of the two"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


#: Columns in which two evaluations of one text by one version of an analyzer differ.
_WHEN_ANNOTATED = frozenset(("created_at",))
#: Columns that exports of older versions do not have.
_LATER = frozenset(("said_at", "instructions", "input", "content_hash"))
#: Columns that a newer row updates.
_UPDATED: Mapping[type[Any], Sequence[str]] = {Producer: ("heartbeat_at",), RunRow: sorted(_END)}
#: The columns of each table that a row type has.
_NAMES = {table.name: names_of(row_type) for row_type, table in schema.TABLES.items()}
_KEYS = {
    table.name: tuple(_NAMES[table.name].index(key.name) for key in table.primary_key)
    for table in schema.TABLES.values()
}
_IDS = {
    row_type: tuple(
        place for place, column in enumerate(schema.row_columns(row_type)) if isinstance(column.type, Id)
    )
    for row_type in schema.TABLES
}
