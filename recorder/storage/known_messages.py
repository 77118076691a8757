"""What is stored of the messages that a batch refers to: two queries for any number of conversations and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.core.json import dumps
from recorder.storage.dialects import Dialect
from recorder.storage.newest_branch import newest_first
from recorder.storage.rows import Known, Newest
from recorder.storage.schema import Time

#: CROSS JOIN: SQLite then looks up each id by the key, and does not choose another plan.
_STORED = """
SELECT m.conversation_id, m.id, m.created_at
FROM {keys} AS a CROSS JOIN messages AS m WHERE m.conversation_id = a.conversation_id AND m.id = a.id
"""
_NEWEST = f"""
SELECT m.conversation_id, m.id, m.position, m.created_at
FROM {{keys}} AS a CROSS JOIN messages AS m WHERE m.conversation_id = a.conversation_id AND m.id = (
    SELECT n.id FROM messages AS n WHERE n.conversation_id = a.conversation_id
    ORDER BY {newest_first("n")} LIMIT 1)
"""

#: By conversation the paths of message ids to look up, each from a root to the last message of a request.
Paths = Mapping[str, Sequence[Sequence[str]]]


async def known_messages(connection: AsyncConnection, dialect: Dialect, paths: Paths) -> dict[str, Known]:
    """For each conversation which messages of these paths are stored, and its newest message."""
    pairs = {(conversation_id, id) for conversation_id, each in paths.items() for path in each for id in path}
    times: dict[str, dict[str, datetime]] = {conversation_id: {} for conversation_id in paths}
    for row in await _found(connection, dialect, _STORED, sorted(pairs)) if pairs else ():
        times[row.conversation_id][str(row.id)] = row.created_at
    found = await _found(connection, dialect, _NEWEST, [[conversation_id] for conversation_id in paths])
    newest = {row[0]: Newest(str(row.id), row.position, row.created_at) for row in found}
    return {
        conversation_id: Known(each, newest.get(conversation_id)) for conversation_id, each in times.items()
    }


async def _found(
    connection: AsyncConnection, dialect: Dialect, sql: str, keys: Sequence[Sequence[str]]
) -> Sequence[Any]:
    """The rows of a query for a list of keys of any length, which is one parameter of it."""
    query = text(sql.format(keys=dialect.key_rows)).columns(created_at=Time())
    return (await connection.execute(query, {"keys": dumps(keys)})).all()
