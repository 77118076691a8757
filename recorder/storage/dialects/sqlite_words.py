"""The index of the search in a SQLite file: the virtual table `message_words` of FTS5.

The table holds words and no texts (`content=''`), so a word is removed by naming it. Its rowids are times: the words of
all messages of one microsecond are one row. To store the same words twice changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from recorder.core.clock import iso, parse_iso
from recorder.storage.dialects.common import DriverCall, Insert
from recorder.storage.schema import CREATE_MESSAGE_WORDS, MESSAGE_WORDS, messages

EXISTS = f"SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{MESSAGE_WORDS}'"
CREATE = CREATE_MESSAGE_WORDS
REMOVE = f"INSERT INTO {MESSAGE_WORDS} ({MESSAGE_WORDS}, rowid, words) VALUES ('delete', :number, :words)"
#: Merges the parts of the index. Words that were removed are in its bytes until then.
MERGE = f"INSERT INTO {MESSAGE_WORDS} ({MESSAGE_WORDS}) VALUES ('optimize')"
_ADD = f"INSERT INTO {MESSAGE_WORDS} (rowid, words) VALUES "
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Rows of one statement: two parameters each.
_MOST_ROWS = 250


@cache
def has_fts5() -> bool:
    """Whether SQLite has its module for full-text search. Python's usually has it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE probe USING fts5(words)")
        except sqlite3.OperationalError:
            return False
    return True


def rowid_of(at: datetime) -> int:
    """The rowid of messages of a time."""
    return (at - _EPOCH) // _MICROSECOND


def time_of(rowid: int) -> datetime:
    """The time of a rowid. Raises `OverflowError` for a number that is none."""
    return _EPOCH + rowid * _MICROSECOND


def stored_time(value: object) -> datetime | None:
    """The time of a column if recorder wrote it; None for another form, by which a row is not found again."""
    try:
        found = parse_iso(value) if isinstance(value, str) else None
        return found if found is not None and iso(found) == value else None
    except (ValueError, OverflowError):
        return None


def add_calls(rows: Iterable[tuple[datetime, str]]) -> Iterator[DriverCall]:
    """What adds words to the index. Each row has the time of a message and its words."""
    # In the order of rowids: FTS5 writes a further part of its index for a rowid that is smaller than the last one.
    found = sorted((rowid_of(at), words) for at, words in rows if words)
    for start in range(0, len(found), _MOST_ROWS):
        part = found[start : start + _MOST_ROWS]
        yield DriverCall(_ADD + ",".join(["(?,?)"] * len(part)), [value for row in part for value in row])


def split_words(insert: Insert, *, is_indexed: bool) -> tuple[Insert, list[DriverCall]]:
    """An insert of messages without the words, and the calls that add them to the index.

    Instead of the words the row has "" if they are indexed, else None.
    """
    if insert.table is not messages or "words" not in insert.columns:
        return insert, []
    place, time = insert.columns.index("words"), insert.columns.index("created_at")
    is_indexed = is_indexed and all(row[place] is not None for row in insert.rows)
    mark = "" if is_indexed else None
    rows: Sequence[tuple[Any, ...]] = [(*row[:place], mark, *row[place + 1 :]) for row in insert.rows]
    calls = add_calls((row[time], row[place]) for row in insert.rows) if is_indexed else ()
    return insert._replace(rows=rows), list(calls)
