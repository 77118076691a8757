"""The queries of the command line; each returns plain dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError, ResourceClosedError

from recorder.cli import steps
from recorder.errors import StoreError
from recorder.storage.blocking import BlockingStore
from recorder.storage.conversation_details import conversation, original_row, run, tokens
from recorder.storage.dialects import masked
from recorder.storage.failures import error_text
from recorder.storage.migrate import upgrade
from recorder.storage.reader import DatabaseReader
from recorder.storage.row_checks import readable
from recorder.storage.schema import HEAD
from recorder.storage.statuses import IS_MODEL_CALL_SQL
from recorder.storage.store import SqlStore

T = TypeVar("T")
Row = Mapping[str, Any]

_VIEWS = "transcripts, tokens, chathistory and run_stats"

_STATUSES = f"SELECT status, count(*) AS runs FROM runs AS r WHERE {IS_MODEL_CALL_SQL} GROUP BY status ORDER BY status"

_TOTALS = f"""
SELECT
    (SELECT count(*) FROM conversations) AS conversations,
    (SELECT count(*) FROM messages) AS messages,
    (SELECT count(*) FROM runs AS r WHERE {IS_MODEL_CALL_SQL}) AS runs,
    (SELECT coalesce(sum(count), 0) FROM segments) AS tokens,
    (SELECT coalesce(sum(count), 0) FROM frames) AS frames,
    (SELECT coalesce(sum(count), 0) FROM gaps) AS missing_tokens,
    (SELECT min(started_at) FROM runs) AS oldest,
    (SELECT max(started_at) FROM runs) AS newest
"""


def read(url: str, query: Callable[[SqlStore], Coroutine[Any, Any, T]]) -> T:
    """Open a database for reading, run one query on it and close it; the result of the query.

    Raises `ConfigError` for an invalid URL, `StoreError` for a database that cannot be read.
    """
    with readable((DBAPIError,)), BlockingStore(url, read_only=True) as database:
        return database.run(query(database.store))


def upgrade_schema(url: str) -> str:
    """Bring a database to the newest schema; a sentence for the user. Raises `RecorderError`."""
    SqlStore(url)  # raises for an invalid URL or path
    try:
        applied = upgrade(url)
    except DBAPIError as error:
        raise StoreError(f"{masked(url)} cannot be migrated: {error_text(error)}") from error
    done = f"applied {', '.join(applied)}" if applied else "nothing to do"
    return f"{masked(url)} has schema {HEAD}, the newest: {done}."


async def one(store: SqlStore, id: str | None, with_tokens: bool) -> tuple[str, dict[str, Any]]:
    """What has this id or beginning of an id, or the newest run; and which it is: a conversation, a run or a step."""
    reader = DatabaseReader(store)
    found = await reader.newest() if id is None else await reader.find(id)
    if found.kind == "conversation":
        return found.kind, await conversation(store, found.id)
    [row] = await store.rows("SELECT * FROM runs WHERE id = :id", {"id": UUID(found.id)})
    if steps.is_step(row):
        key = {"id": UUID(found.id), "conversation": row["conversation_id"]}
        runs = [original_row(each) for each in await store.rows(steps.RUNS_BELOW, key)]
        return "step", {**original_row(row), "runs": [{**each, "name": steps.name_of(each)} for each in runs]}
    about = await run(store, found.id)
    if with_tokens:
        about["tokens"] = await tokens(store, found.id)
    return found.kind, about


async def conversation_of(store: SqlStore, id: str) -> dict[str, Any]:
    """The conversation with this id, or of the run with this id; a beginning of the id is enough."""
    found = await DatabaseReader(store).find(id)
    if found.kind == "conversation":
        return await conversation(store, found.id)
    about = await store.rows("SELECT conversation_id FROM runs WHERE id = :id", {"id": UUID(found.id)})
    return await conversation(store, about[0]["conversation_id"])


async def totals(store: SqlStore, url: str) -> dict[str, Any]:
    """How many rows are stored, since when, and the size of the database in bytes."""
    counted = (await store.rows(_TOTALS))[0]
    statuses = {row["status"]: row["runs"] for row in await store.rows(_STATUSES)}
    return {"url": masked(url), **counted, "runs_by_status": statuses, "bytes": await store.size()}


async def query(store: SqlStore, sql: str) -> Sequence[Row]:
    """The rows of a user's own SELECT. Raises `StoreError` with the message of the database."""
    _, rows = await table(store, sql)
    return rows


async def table(store: SqlStore, sql: str) -> tuple[list[str], Sequence[Row]]:
    """The names of the columns of a user's own SELECT, and its rows. Raises like `query`."""
    try:
        # Colons in the user's SQL (times, casts, JSON paths) are not parameters.
        return await store.table(sql.replace(":", r"\:"))
    except ResourceClosedError as error:
        raise StoreError(
            "The statement returns no rows, and `recorder sql` only reads; give a SELECT"
        ) from error
    except DBAPIError as error:
        raise StoreError(_refusal(error_text(error))) from error


def _refusal(error_text: str) -> str:
    if "readonly" in error_text or "read-only" in error_text:
        return "The statement writes, and `recorder sql` only reads; use the database's own shell for that"
    return f"The database refuses the statement: {error_text}. The views are {_VIEWS}"
