"""The rows of a batch, table by table, in the same order for all writers."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from recorder.core.json import dumps
from recorder.storage.dialects import Insert
from recorder.storage.rows import (
    STREAMING,
    Addition,
    Batch,
    FrameRow,
    GapRow,
    MessageRow,
    RunRows,
    RunSeal,
    RunStart,
    SegmentRow,
)
from recorder.storage.schema import conversations, frames, gaps, messages, producers, runs, segments

_RUN_COLUMNS = (
    "id", "conversation_id", "parent_run_id", "attempt", "operation", "provider_name", "request_model", "wire",
    "status", "started_at", "request", "input_hash", "tags", "metadata", "prompt_message_id", "producer_id",
    "said_at",
)  # fmt: skip
_SEAL_COLUMNS = (
    "status", "first_token_at", "ended_at", "finish_reason", "error_type", "error_message", "response_model",
    "response_id", "input_tokens", "output_tokens", "total_tokens", "usage", "usage_source", "token_count",
    "sha256", "frames_sha256", "response_message_id",
)  # fmt: skip
_SEALED_COLUMNS = (*(name for name in _RUN_COLUMNS if name != "status"), *_SEAL_COLUMNS)
_CONVERSATION_COLUMNS = ("id", "user_id", "created_at")
_PRODUCER_COLUMNS = ("id", "host", "pid", "started_at", "heartbeat_at", "process")
#: The key in the metadata of a further attempt that names the first attempt.
FIRST = "first_run_id"
#: The columns that are equal only if a stored run with the same id is the same run.
OWN = ("producer_id", "started_at")


def inserts_of(batch: Batch) -> list[Insert]:
    """The inserts of a batch; the tokens come last."""
    opening = [rows for rows in batch.runs if rows.opens]
    running = [_run(rows, batch) for rows in opening if rows.seal is None]
    ending = [(rows, rows.seal) for rows in batch.runs if rows.seal is not None]
    sealed = [_sealed(rows, seal, batch) for rows, seal in ending if seal.metadata is None]
    noted = [_sealed(rows, seal, batch) for rows, seal in ending if seal.metadata is not None]
    return [
        Insert(producers, _PRODUCER_COLUMNS, [_producer(batch)], update=("heartbeat_at",), same=("process",)),
        Insert(conversations, _CONVERSATION_COLUMNS, _conversations(opening, batch.additions)),
        Insert(messages, MessageRow._fields, _messages(batch)),
        Insert(runs, _RUN_COLUMNS, running),
        Insert(runs, _SEALED_COLUMNS, sealed, update=_SEAL_COLUMNS, same=OWN),
        Insert(runs, _SEALED_COLUMNS, noted, update=(*_SEAL_COLUMNS, "metadata"), same=OWN),
        Insert(frames, FrameRow._fields, [row for rows in batch.runs for row in rows.frames]),
        Insert(gaps, GapRow._fields, [row for rows in batch.runs for row in rows.gaps]),
        Insert(segments, SegmentRow._fields, [row for rows in batch.runs for row in rows.segments]),
    ]


def _producer(batch: Batch) -> tuple[Any, ...]:
    return tuple(getattr(batch.producer, name) for name in _PRODUCER_COLUMNS)


def _conversations(opening: Sequence[RunRows], additions: Sequence[Addition]) -> list[tuple[Any, ...]]:
    users = {rows.start.conversation_id: rows.start.user_id for rows in reversed(opening)}
    begun = [(rows.start.conversation_id, rows.start.started_at) for rows in opening]
    begun += [(each.conversation_id, each.added[0].at) for each in additions]
    # In a dict the last item of a key wins: the earliest time of each conversation.
    found = dict(sorted(begun, reverse=True))
    return [(key, users.get(key), at) for key, at in sorted(found.items())]


def _messages(batch: Batch) -> list[MessageRow]:
    # Sorted, so that two writers never lock rows in opposite order; by position, so that a plain SELECT of a small
    # database shows the messages of a conversation in their order.
    found = [row for part in batch.parts for row in part.messages]
    return sorted(found, key=attrgetter("conversation_id", "position", "id"))


def _run(
    rows: RunRows, batch: Batch, status: tuple[str, ...] = (STREAMING,), metadata: str | None = None
) -> tuple[Any, ...]:
    start = rows.start
    return (
        start.run_id, start.conversation_id, start.parent_run_id, start.attempt, start.operation,
        start.provider_name, start.request_model, start.wire, *status, start.started_at, start.request,
        start.input_hash, start.tags, _metadata(start, metadata), start.placement.prompt_message_id, batch.producer.id,
        start.placement.said_at,
    )  # fmt: skip


def _sealed(rows: RunRows, seal: RunSeal, batch: Batch) -> tuple[Any, ...]:
    end = seal.end
    return (
        *_run(rows, batch, status=(), metadata=seal.metadata),
        end.status, end.first_token_at, end.ended_at, end.finish_reason, end.error_type, end.error_message,
        end.response_model, end.response_id, end.input_tokens, end.output_tokens, end.total_tokens, end.usage,
        end.usage_source, seal.token_count, seal.sha256, seal.frames_sha256, seal.response_message_id,
    )  # fmt: skip


def _metadata(start: RunStart, metadata: str | None) -> str | None:
    """The metadata as JSON text. A further attempt gets the id of the first one, added as text: decoding and encoding
    would change some numbers."""
    found = metadata or start.metadata
    if start.first_run_id is None:
        return found
    entry = f"{dumps(FIRST)}:{dumps(start.first_run_id)}"
    if found is None or found == "{}":
        return "{" + entry + "}"
    return found[:-1] + "," + entry + "}"
