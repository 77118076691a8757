"""What is stored of one conversation or one run, as plain dictionaries: for `recorder show`, and for the server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Float, Integer

from recorder.core.escaping import unescape
from recorder.errors import StoreError
from recorder.messages import check_stored, to_dict
from recorder.storage import message_evaluations
from recorder.storage.reader import DatabaseReader
from recorder.storage.row_checks import json_of
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING
from recorder.storage.schema import metadata
from recorder.storage.statuses import IS_MODEL_CALL_SQL
from recorder.storage.store import SqlStore
from recorder.storage.transcript import in_order, made_by, prompt_of, transcript_of

Row = Mapping[str, Any]

#: Columns that hold JSON as text.
_JSON = {"metadata", "output", "parts", "price", "redaction", "request", "tags", "usage"}
#: Column of our tables -> type of its values in a query's result; ids and times are text.
_COLUMNS = [column for table in metadata.sorted_tables for column in table.columns if column.name != "data"]
_KINDS: dict[str, tuple[type[Any], ...]] = {
    column.name: (int,)
    if isinstance(column.type, Integer)
    else (float, int)
    if isinstance(column.type, Float)
    else (str,)
    for column in _COLUMNS
}
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

_EVALUATIONS = """
SELECT id, message_id, name, label, score, data, created_at FROM annotations
WHERE run_id = :id ORDER BY created_at, id
"""


async def conversation(store: SqlStore, id: str) -> dict[str, Any]:
    """One conversation with its messages and runs."""
    about = await store.rows("SELECT * FROM conversations WHERE id = :id", {"id": id})
    runs = [original_row(row) for row in await store.rows(_RUNS, {"id": id})]
    messages = [original_row(row) for row in await store.rows(_MESSAGES, {"id": id})]
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for row in await store.rows(_TEXTS, {"id": id}):
        texts[str(row["run_id"])].append(_text(row["text"]) or "")
    transcript = transcript_of(messages, runs, texts)
    await _mark_dead(store, runs, transcript)
    await _add_evaluations(store, id, transcript)
    instructions = await _instructions(store, str(runs[-1]["id"])) if runs else []
    return {
        **original_row(about[0]), "instructions": instructions, "messages": in_order(transcript), "runs": runs,
    }  # fmt: skip


async def _add_evaluations(store: SqlStore, id: str, messages: Sequence[dict[str, Any]]) -> None:
    rows = await store.rows(message_evaluations.OF_CONVERSATION, {"id": id})
    message_evaluations.add_to(messages, [original_row(row) for row in rows])


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
    run = original_row(about)
    messages = [original_row(row) | {"run_id": run["id"], **made_by(run)} for row in found]
    await _mark_dead(store, [run], messages)
    await _add_evaluations(store, about["conversation_id"], messages)
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
    return [original_row(row) for row in await store.rows(query, {"id": UUID(run_id)})]


def original_row(row: Row) -> dict[str, Any]:
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
            f"The column {name} holds {value!r:.60}, which is not {_TYPE_NAMES[kind[0]]}; the row is damaged, "
            "or another program wrote it"
        )
    return _text(value)


def _text(value: Any) -> Any:
    return unescape(value) if isinstance(value, str) else value


async def evaluations(store: SqlStore, run_id: str) -> list[dict[str, Any]]:
    """The evaluations of a run, the oldest first."""
    rows = await store.rows(_EVALUATIONS, {"id": UUID(run_id)})
    return [{**original_row(row), "data": row["data"] and json_of(row["data"], "data")} for row in rows]
