"""Indexes messages that were stored without their words: by older versions, in bursts, and what was redacted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from recorder.core.json import dumps
from recorder.storage.dialects.sqlite_words import (
    CREATE,
    EXISTS,
    add_calls,
    has_fts5,
    stored_time,
)
from recorder.storage.schema import MESSAGE_WORDS
from recorder.storage.search.searched_text import words_of_row

#: Messages of one transaction if nobody waits for it.
_PAGE = 500

_NEXT = text(
    "SELECT m.rowid AS number, m.role, m.content, m.parts, m.created_at FROM messages AS m "
    "WHERE m.words IS NULL ORDER BY m.created_at DESC LIMIT :count"
)
_MARK = text("UPDATE messages SET words = '' WHERE rowid IN (SELECT value FROM json_each(:numbers))")
# Rows that another process indexes at this moment are left to it.
_NEXT_POSTGRES = text(
    "SELECT m.conversation_id, CAST(m.id AS text) AS id, m.role, m.content, CAST(m.parts AS text) AS parts "
    "FROM messages AS m WHERE m.words IS NULL ORDER BY m.created_at DESC LIMIT :count FOR UPDATE SKIP LOCKED"
)
_SET_POSTGRES = text(
    "UPDATE messages AS m SET words = CAST(a.value ->> 2 AS tsvector) "
    "FROM json_array_elements(CAST(:rows AS json)) AS a "
    "WHERE m.conversation_id = a.value ->> 0 AND m.id = CAST(a.value ->> 1 AS uuid)"
)


def fill_words(connection: Connection) -> int:
    """Index all messages that are not, each page in a transaction of its own; how many were indexed.

    A call that was stopped can be repeated. On SQLite it creates the table of the index if an upgrade without FTS5 did
    not, makes a damaged one again, and does nothing without FTS5. `connection` has no open transaction.
    """
    if connection.dialect.name == "sqlite":
        if not has_fts5():
            return 0
        with connection.begin():
            if connection.exec_driver_sql(EXISTS).first() is None:
                connection.exec_driver_sql(CREATE)
    try:
        return _fill(connection)
    except DBAPIError:
        if connection.dialect.name != "sqlite":
            raise
    with connection.begin():  # the index is damaged
        for statement in (f"DROP TABLE {MESSAGE_WORDS}", CREATE, "UPDATE messages SET words = NULL"):
            connection.exec_driver_sql(statement)
    return _fill(connection)


def _fill(connection: Connection) -> int:
    done = 0
    while True:
        with connection.begin():
            count = index_page(connection, _PAGE)
        done += count
        if not count:
            return done


def index_page(connection: Connection, count: int) -> int:
    """Index the newest messages that are not, in the open transaction; how many there were, at most `count`."""
    if connection.dialect.name == "sqlite":
        return _on_sqlite(connection, count)
    rows = connection.execute(_NEXT_POSTGRES, {"count": count}).all()
    if rows:
        words = [(row.conversation_id, row.id, _words(row)) for row in rows]
        connection.execute(_SET_POSTGRES, {"rows": dumps(words)})
    return len(rows)


def _on_sqlite(connection: Connection, count: int) -> int:
    rows = connection.execute(_NEXT, {"count": count}).all()
    # Another program may have written a time in another form; the search cannot find its row.
    timed = [(at, _words(row)) for row in rows if (at := stored_time(row.created_at)) is not None]
    for sql, parameters, _ in add_calls(timed):
        connection.exec_driver_sql(sql, tuple(parameters))
    if rows:
        connection.execute(_MARK, {"numbers": dumps([row.number for row in rows])})
    return len(rows)


def _words(row: Any) -> str:
    texts: Sequence[Any] = (row.role, row.content, row.parts)
    if not all(isinstance(each, str | None) for each in texts):
        return ""  # in a foreign file
    return words_of_row(row.role or "", row.content or "", row.parts)
