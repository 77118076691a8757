"""What the command line reads: short questions in SQL, each answered with plain dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError, ResourceClosedError

from recorder.dialects import masked, said
from recorder.errors import StoreError
from recorder.jsons import loads
from recorder.library import Library
from recorder.migrate import upgrade
from recorder.store import SqlStore
from recorder.stored import unescape, unescape_json
from recorder.tables import HEAD

T = TypeVar("T")
Row = Mapping[str, Any]

#: Columns that hold JSON as text.
_JSON = {"metadata", "parts", "request", "tags", "usage"}
_VIEWS = "transcripts, tokens, chathistory and run_stats"

#: Dated by what came last, a run that began or a message: some runs have none, some messages no run.
_CONVERSATIONS = """
WITH recent AS (
    SELECT c.id, (SELECT max(s.at) FROM (
        SELECT max(r.started_at) AS at FROM runs AS r WHERE r.conversation_id = c.id
        UNION ALL SELECT max(m.created_at) FROM messages AS m WHERE m.conversation_id = c.id) AS s) AS last_at
    FROM conversations AS c ORDER BY last_at DESC NULLS LAST, c.id DESC LIMIT :limit
)
SELECT recent.id, recent.last_at,
    (SELECT count(*) FROM runs WHERE conversation_id = recent.id) AS runs,
    (SELECT count(*) FROM messages WHERE conversation_id = recent.id) AS messages,
    (SELECT status FROM runs WHERE conversation_id = recent.id
        ORDER BY started_at DESC, id DESC LIMIT 1) AS status,
    (SELECT title FROM conversations WHERE id = recent.id) AS title,
    (SELECT substr(content, 1, 200) FROM messages WHERE conversation_id = recent.id AND role = 'user'
        ORDER BY position, created_at LIMIT 1) AS opening
FROM recent ORDER BY recent.last_at DESC NULLS LAST, recent.id DESC
"""

#: A view with the conversation named, so that only its rows are looked at.
_MESSAGES = """
SELECT t.message_id, t.parent_id, t.branch, t.position, t.role, t.content, t.status, t.model, t.run_id,
    t.created_at, t.error,
    (SELECT parts FROM messages WHERE conversation_id = t.conversation_id AND id = t.message_id) AS parts
FROM transcripts AS t WHERE t.conversation_id = :id"""
_READING_ORDER = " ORDER BY t.position, t.branch"

_STATUSES = "SELECT status, count(*) AS runs FROM runs GROUP BY status ORDER BY status"

_TOTALS = """
SELECT
    (SELECT count(*) FROM conversations) AS conversations,
    (SELECT count(*) FROM messages) AS messages,
    (SELECT count(*) FROM runs) AS runs,
    (SELECT coalesce(sum(count), 0) FROM segments) AS tokens,
    (SELECT coalesce(sum(count), 0) FROM frames) AS frames,
    (SELECT coalesce(sum(count), 0) FROM gaps) AS missing_tokens,
    (SELECT min(started_at) FROM runs) AS oldest,
    (SELECT max(started_at) FROM runs) AS newest
"""


def read(url: str, question: Callable[[SqlStore], Awaitable[T]]) -> T:
    """The answer to a question; the database is opened for reading and let go of again.

    Raises `ConfigError` for a URL that cannot be, `StoreError` for a database that cannot be read.
    """

    async def ask() -> T:
        store = SqlStore(url, read_only=True)
        try:
            await store.open()
            return await question(store)
        finally:
            await store.close()

    try:
        return asyncio.run(ask())
    except DBAPIError as error:
        raise StoreError(f"The database says: {said(error)}") from error


def upgraded(url: str) -> str:
    """Bring a database to the newest schema; what was done. Raises `RecorderError` where that cannot be."""
    SqlStore(url)  # refuses a URL or path that cannot be
    try:
        applied = upgrade(url)
    except DBAPIError as error:
        raise StoreError(f"{masked(url)} cannot be migrated: {said(error)}") from error
    done = f"applied {', '.join(applied)}" if applied else "nothing to do"
    return f"{masked(url)} is at schema {HEAD}, the newest: {done}."


async def conversations(store: SqlStore, limit: int) -> Sequence[Row]:
    """The conversations that were spoken in last, newest first."""
    return [_original(row) for row in await store.rows(_CONVERSATIONS, {"limit": limit})]


async def conversation(store: SqlStore, id: str) -> dict[str, Any]:
    """One conversation with its messages and runs."""
    about = await store.rows("SELECT * FROM conversations WHERE id = :id", {"id": id})
    messages = await store.rows(_MESSAGES + _READING_ORDER, {"id": id})
    runs = await store.rows(
        "SELECT * FROM runs WHERE conversation_id = :id ORDER BY started_at, id", {"id": id}
    )
    return {
        **_original(about[0]),
        "messages": _in_order([_original(row) for row in messages]),
        "runs": [_original(row) for row in runs],
    }


async def run(store: SqlStore, id: str) -> dict[str, Any]:
    """One run with its replies, its measures and what is missing of it."""
    key = {"id": UUID(id)}
    [about] = await store.rows("SELECT * FROM runs WHERE id = :id", key)
    replies = _MESSAGES + " AND t.run_id = :run_id" + _READING_ORDER
    found = await store.rows(replies, {"id": about["conversation_id"], "run_id": key["id"]})
    stats = await store.rows("SELECT * FROM run_stats WHERE run_id = :id", key)
    gaps = await store.rows("SELECT seq, count, reason FROM gaps WHERE run_id = :id ORDER BY seq", key)
    messages = [_original(row) for row in found]
    return {**_original(about), "messages": messages, "stats": stats[0], "gaps": gaps}


async def tokens(store: SqlStore, run_id: str) -> Sequence[Row]:
    """Every token of a run."""
    query = "SELECT seq, at_us, kind, idx, text FROM tokens WHERE run_id = :id ORDER BY seq"
    return [_original(row) for row in await store.rows(query, {"id": UUID(run_id)})]


async def one(store: SqlStore, id: str, with_tokens: bool) -> tuple[str, dict[str, Any]]:
    """The conversation or run that an id stands for, and which of the two it is."""
    found = await Library(store).find(id)
    if found.kind == "conversation":
        return found.kind, await conversation(store, found.id)
    about = await run(store, found.id)
    if with_tokens:
        about["tokens"] = await tokens(store, found.id)
    return found.kind, about


async def conversation_of(store: SqlStore, id: str) -> dict[str, Any]:
    """The conversation that an id stands for, or that its run belongs to."""
    found = await Library(store).find(id)
    if found.kind == "conversation":
        return await conversation(store, found.id)
    about = await store.rows("SELECT conversation_id FROM runs WHERE id = :id", {"id": UUID(found.id)})
    return await conversation(store, about[0]["conversation_id"])


async def totals(store: SqlStore, url: str) -> dict[str, Any]:
    """How much is stored, of what, since when, and the bytes of its files."""
    counted = (await store.rows(_TOTALS))[0]
    statuses = {row["status"]: row["runs"] for row in await store.rows(_STATUSES)}
    return {"url": masked(url), **counted, "runs_by_status": statuses, "bytes": await store.size()}


async def query(store: SqlStore, sql: str) -> Sequence[Row]:
    """What a user's own SELECT finds. Raises `StoreError` with what the database says of it."""
    try:
        # Colons are the user's own (times, casts, JSON paths), not parameters.
        return await store.rows(sql.replace(":", r"\:"))
    except ResourceClosedError as error:
        raise StoreError(
            "That statement returns no rows; `recorder sql` reads, so give it a SELECT"
        ) from error
    except DBAPIError as error:
        raise StoreError(_refusal(said(error))) from error


def _refusal(said: str) -> str:
    if "readonly" in said or "read-only" in said:
        return "`recorder sql` only reads, and this statement writes; use the database's own shell for that"
    return f"The database says: {said}. The views to ask are {_VIEWS}"


def _original(row: Row) -> dict[str, Any]:
    """A row as it was given to the recorder: JSON decoded, text without the stored form's escapes."""
    return {
        name: unescape_json(loads(value)) if name in _JSON and value is not None else _text(value)
        for name, value in row.items()
    }


def _text(value: Any) -> Any:
    return unescape(value) if isinstance(value, str) else value


def _in_order(messages: Sequence[Row]) -> list[Row]:
    """Messages as they are read: each below its parent, one branch after the other."""
    children: dict[Any, list[Row]] = {}
    known = {row["message_id"] for row in messages if row["message_id"]}
    for row in messages:
        children.setdefault(row["parent_id"] if row["parent_id"] in known else None, []).append(row)
    ordered: list[Row] = []
    waiting = children.get(None, [])[::-1]
    while waiting:
        row = waiting.pop()
        ordered.append(row)
        if row["message_id"]:
            waiting += children.get(row["message_id"], [])[::-1]
    return ordered
