"""The queries of the command line; each returns plain dictionaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Double, Integer
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from recorder.cli import evaluations, steps
from recorder.cli.transcript import in_order, made_by, prompt_of, transcript_of
from recorder.core.escaping import unescape
from recorder.errors import StoreError
from recorder.messages import check_stored, to_dict
from recorder.storage.blocking import BlockingStore
from recorder.storage.dialects import masked
from recorder.storage.failures import error_text
from recorder.storage.migrate import upgrade
from recorder.storage.reader import DatabaseReader
from recorder.storage.row_checks import json_of, readable
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING
from recorder.storage.schema import HEAD, metadata
from recorder.storage.statuses import IS_MODEL_CALL_SQL
from recorder.storage.store import SqlStore

T = TypeVar("T")
Row = Mapping[str, Any]


def _kind(type_: Any) -> type[Any]:
    return int if isinstance(type_, Integer) else float if isinstance(type_, Double) else str


#: Columns that hold JSON as text.
_JSON = {"metadata", "output", "parts", "request", "tags", "usage"}
#: Column of our tables -> type of its values in a query's result; ids and times are text.
_COLUMNS = [column for table in metadata.sorted_tables for column in table.columns if column.name != "data"]
_KINDS = {column.name: _kind(column.type) for column in _COLUMNS}
_TYPE_NAMES = {int: "an integer", float: "a number", str: "text"}
#: Columns that are NULL in no table.
_NOT_NULL = {
    "role",
    "status",
    "created_at",
    "started_at",
    "conversation_id",
    "position",
    "attempt",
    "token_count",
}
_VIEWS = "transcripts, tokens, chathistory and run_stats"

#: The query names both the run and its conversation, so that the view reads only their rows. An answer that an earlier
#: run gave to the same prompt is stored once, under that run; so it is found by its id.
_REPLIES = """
SELECT t.message_id, t.parent_id, t.branch, t.position, t.role, t.content, t.status, t.model, t.run_id,
    t.created_at, t.error,
    (SELECT parts FROM messages WHERE conversation_id = t.conversation_id AND id = t.message_id) AS parts
FROM transcripts AS t WHERE t.conversation_id = :id AND (t.run_id = :run_id OR t.message_id = :reply_id)
ORDER BY t.position, t.branch"""

# The rows that the view `transcripts` has for a conversation. The view counts the earlier rows for each row, which is
# slow for a long conversation; this query reads each row once.
_MESSAGES = """
SELECT id AS message_id, parent_id, position, role, content, run_id, created_at, parts,
    row_number() OVER (PARTITION BY parent_id ORDER BY created_at, id) AS branch
FROM messages WHERE conversation_id = :id ORDER BY position, branch"""
_RUNS = (
    f"SELECT * FROM runs AS r WHERE r.conversation_id = :id AND {IS_MODEL_CALL_SQL} ORDER BY started_at, id"
)
#: The text of the runs that have no message yet.
_TEXTS = """
SELECT t.run_id, t.text
FROM runs AS r CROSS JOIN tokens AS t
WHERE r.conversation_id = :id AND r.response_message_id IS NULL AND t.run_id = r.id
    AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%')
ORDER BY t.run_id, t.seq"""

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


async def conversation(store: SqlStore, id: str) -> dict[str, Any]:
    """One conversation with its messages and runs."""
    about = await store.rows("SELECT * FROM conversations WHERE id = :id", {"id": id})
    runs = [_original(row) for row in await store.rows(_RUNS, {"id": id})]
    messages = [_original(row) for row in await store.rows(_MESSAGES, {"id": id})]
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for row in await store.rows(_TEXTS, {"id": id}):
        texts[str(row["run_id"])].append(_text(row["text"]) or "")
    transcript = transcript_of(messages, runs, texts)
    await _mark_dead(store, runs, transcript)
    evaluations.add_to(transcript, await _evaluations(store, id))
    instructions = await _instructions(store, str(runs[-1]["id"])) if runs else []
    return {
        **_original(about[0]), "instructions": instructions, "messages": in_order(transcript), "runs": runs,
    }  # fmt: skip


async def _evaluations(store: SqlStore, id: str) -> list[dict[str, Any]]:
    return [_original(row) for row in await store.rows(evaluations.OF_CONVERSATION, {"id": id})]


async def _instructions(store: SqlStore, run_id: str) -> list[dict[str, Any]]:
    """What a run was sent before the messages of its conversation, as rows like those of messages."""
    reader = DatabaseReader(store)
    about = {
        "status": COMPLETE,
        "model": None,
        "error": None,
        "run_id": None,
        "branch": 1,
        "message_id": None,
    }
    return [
        {"role": each.role, "content": each.text, "parts": to_dict(each), **about}
        for each in await reader.instructions(await reader.run(run_id))
    ]


async def _mark_dead(store: SqlStore, runs: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]]) -> None:
    """Set the status of runs whose process is dead to interrupted, in the runs and in the rows that name a run."""
    dead = await DatabaseReader(store).dead([str(run["id"]) for run in runs if run["status"] == STREAMING])
    for row, key in [*((run, "id") for run in runs), *((row, "run_id") for row in rows)]:
        if str(row[key]) in dead:
            row["status"] = INTERRUPTED


async def run(store: SqlStore, id: str) -> dict[str, Any]:
    """One run with its prompt, its replies, its statistics and its gaps."""
    key = {"id": UUID(id)}
    [about] = await store.rows("SELECT * FROM runs WHERE id = :id", key)
    reply_id = UUID(about["response_message_id"] or id)
    replies = {"id": about["conversation_id"], "run_id": key["id"], "reply_id": reply_id}
    found = await store.rows(_REPLIES, replies)
    stats = await store.rows("SELECT * FROM run_stats WHERE run_id = :id", key)
    gaps = await store.rows("SELECT seq, count, reason FROM gaps WHERE run_id = :id ORDER BY seq", key)
    run = _original(about)
    messages = [_original(row) | {"run_id": run["id"], **made_by(run)} for row in found]
    await _mark_dead(store, [run], messages)
    evaluations.add_to(messages, await _evaluations(store, about["conversation_id"]))
    prompt = await _prompt(store, about["conversation_id"], about["prompt_message_id"])
    return {**run, "asked": prompt, "messages": messages, "stats": stats[0], "gaps": gaps}


async def _prompt(store: SqlStore, conversation_id: str, message_id: Any) -> list[dict[str, Any]]:
    """The prompt of a run without its history."""
    path = await DatabaseReader(store).path(conversation_id, message_id and str(message_id))
    prompt = prompt_of(path)
    return [{"role": each.role, "content": each.text, "parts": to_dict(each)} for each in prompt]


async def tokens(store: SqlStore, run_id: str) -> Sequence[Row]:
    """Every token of a run."""
    query = "SELECT seq, at_us, kind, idx, text FROM tokens WHERE run_id = :id ORDER BY seq"
    return [_original(row) for row in await store.rows(query, {"id": UUID(run_id)})]


async def one(store: SqlStore, id: str | None, with_tokens: bool) -> tuple[str, dict[str, Any]]:
    """What has this id or beginning of an id, or the newest run; and which it is: a conversation, a run or a step."""
    reader = DatabaseReader(store)
    found = await reader.newest() if id is None else await reader.find(id)
    if found.kind == "conversation":
        return found.kind, await conversation(store, found.id)
    [row] = await store.rows("SELECT * FROM runs WHERE id = :id", {"id": UUID(found.id)})
    if steps.is_step(row):
        key = {"id": UUID(found.id), "conversation": row["conversation_id"]}
        runs = [_original(each) for each in await store.rows(steps.RUNS_BELOW, key)]
        return "step", {**_original(row), "runs": [{**each, "name": steps.name_of(each)} for each in runs]}
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


def _original(row: Row) -> dict[str, Any]:
    """A row with its JSON decoded, and its text without the escapes of the stored form.

    Raises `StoreError` for a value that its column cannot hold.
    """
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    kind = _KINDS.get(name)
    if value is None and name not in _NOT_NULL:
        return None
    if name in _JSON:
        found = json_of(value, name)
        return check_stored(found) if name == "parts" else found
    if kind is not None and not isinstance(value, kind):
        raise StoreError(
            f"The column {name} holds {value!r:.60}, which is not {_TYPE_NAMES[kind]}; the row is damaged, "
            "or another program wrote it"
        )
    return _text(value)


def _text(value: Any) -> Any:
    return unescape(value) if isinstance(value, str) else value
