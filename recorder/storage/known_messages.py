"""Answers the questions of `message_lookups` from a database: a query for any number of conversations and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.core.json import dumps
from recorder.storage.dialects import Dialect
from recorder.storage.newest_branch import newest_first
from recorder.storage.previous_responses import WIRE
from recorder.storage.rows import PreviousResponse
from recorder.storage.schema import Time
from recorder.storage.stored_messages import Lookup, StoredMessage, stored_message

#: The content is needed only for rows of older versions, which have no hash of it.
_COLUMNS = """
    m.conversation_id, m.id, m.parent_id, m.position, m.role, m.created_at, m.content_hash, m.thread_key,
    CASE WHEN m.content_hash IS NULL THEN m.content END AS content,
    CASE WHEN m.content_hash IS NULL THEN m.parts END AS parts
"""
#: CROSS JOIN: SQLite then looks up each key by an index, and does not choose another plan.
_QUERIES: Mapping[str, str] = {
    "ids": f"""
SELECT {_COLUMNS}
FROM {{keys}} AS a CROSS JOIN messages AS m WHERE m.conversation_id = a.conversation_id AND m.id = a.id
""",
    "newest": f"""
SELECT {_COLUMNS}
FROM {{keys}} AS a CROSS JOIN messages AS m WHERE m.conversation_id = a.conversation_id AND m.id = (
    SELECT n.id FROM messages AS n WHERE n.conversation_id = a.conversation_id
    ORDER BY {newest_first("n")} LIMIT 1)
""",
    "content": f"""
SELECT {_COLUMNS}
FROM {{keys}} AS a CROSS JOIN messages AS m
WHERE m.conversation_id = a.conversation_id AND m.id IN (
    SELECT s.id FROM messages AS s
    WHERE s.conversation_id = a.conversation_id AND s.content_hash = a.number
    ORDER BY s.created_at DESC LIMIT :limit)
""",
    "replies": f"""
SELECT {_COLUMNS}
FROM {{keys}} AS a CROSS JOIN messages AS m
WHERE (m.conversation_id, m.id) IN (
    SELECT s.conversation_id, s.id FROM messages AS s
    WHERE s.thread_key = a.number AND s.created_at >= :since
    ORDER BY s.created_at DESC LIMIT :limit)
""",
    "responses": f"""
SELECT {_COLUMNS}, a.conversation_id AS response_id, a.number AS is_prompt
FROM {{keys}} AS a CROSS JOIN runs AS r CROSS JOIN messages AS m
WHERE r.id = (
    SELECT s.id FROM runs AS s WHERE s.response_id = a.conversation_id AND s.wire = '{WIRE}'
    ORDER BY CASE s.status WHEN 'complete' THEN 0 ELSE 1 END, s.started_at DESC LIMIT 1)
AND m.conversation_id = r.conversation_id AND m.id = CASE a.number
    WHEN 1 THEN r.prompt_message_id ELSE COALESCE(r.response_message_id, r.prompt_message_id) END
""",
    "above": f"""
WITH RECURSIVE path AS (
    SELECT {_COLUMNS}, a.number AS rest
    FROM {{keys}} AS a CROSS JOIN messages AS m
    WHERE m.conversation_id = a.conversation_id AND m.id = a.id
    UNION ALL
    SELECT {_COLUMNS}, path.rest - 1
    FROM path CROSS JOIN messages AS m
    WHERE m.conversation_id = path.conversation_id AND m.id = path.parent_id AND path.rest > 1)
SELECT * FROM path
""",
}
# Postgres would search the result of an IN for each message of the conversation, and SQLite has no LATERAL.
_CONTENT_POSTGRES = f"""
SELECT {_COLUMNS}
FROM {{keys}} AS a CROSS JOIN LATERAL (
    SELECT * FROM messages AS s
    WHERE s.conversation_id = a.conversation_id AND s.content_hash = a.number
    ORDER BY s.created_at DESC LIMIT :limit) AS m
"""
_REPLIES_POSTGRES = f"""
SELECT {_COLUMNS}
FROM {{keys}} AS a CROSS JOIN LATERAL (
    SELECT * FROM messages AS s
    WHERE s.thread_key = a.number AND s.created_at >= :since
    ORDER BY s.created_at DESC LIMIT :limit) AS m
"""
_RESPONSES_POSTGRES = f"""
SELECT {_COLUMNS}, a.conversation_id AS response_id, a.number AS is_prompt
FROM {{keys}} AS a CROSS JOIN LATERAL (
    SELECT * FROM runs AS s WHERE s.response_id = a.conversation_id AND s.wire = '{WIRE}'
    ORDER BY CASE s.status WHEN 'complete' THEN 0 ELSE 1 END, s.started_at DESC LIMIT 1) AS r
CROSS JOIN LATERAL (
    SELECT * FROM messages AS s
    WHERE s.conversation_id = r.conversation_id AND s.id = CASE a.number
    WHEN 1 THEN r.prompt_message_id ELSE COALESCE(r.response_message_id, r.prompt_message_id) END
    LIMIT 1) AS m
"""
_POSTGRES = {
    **_QUERIES, "content": _CONTENT_POSTGRES, "replies": _REPLIES_POSTGRES, "responses": _RESPONSES_POSTGRES,
}  # fmt: skip
_OF_DIALECT = {"sqlite": _QUERIES, "postgresql": _POSTGRES}


async def known_messages(
    connection: AsyncConnection, dialect: Dialect, lookup: Lookup
) -> Sequence[StoredMessage]:
    """The stored messages that a lookup asks for."""
    sql = _OF_DIALECT[dialect.name][lookup.kind].format(keys=dialect.key_rows)
    query = text(sql).columns(created_at=Time())
    # The list of keys is one parameter, so it may have any length.
    parameters: dict[str, Any] = {"keys": dumps(lookup.keys)}
    if lookup.limit:
        parameters["limit"] = lookup.limit
    if lookup.since is not None:
        query = query.bindparams(bindparam("since", type_=Time()))
        parameters["since"] = lookup.since
    rows = await connection.execute(query, parameters)
    if lookup.kind == "responses":
        return [_of_response(row) for row in rows]
    return [stored_message(row) for row in rows]


def _of_response(row: Any) -> StoredMessage:
    return stored_message(row)._replace(response=PreviousResponse(row.response_id, row.is_prompt == 1))
