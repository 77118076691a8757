"""The rows of a batch, table by table, in the same order for all writers."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Any

from recorder.core.json import dumps
from recorder.storage import schema
from recorder.storage.batch import MOST_INDEXED, Addition, Batch, RunSeal
from recorder.storage.columns import names_of
from recorder.storage.dialects import Insert
from recorder.storage.rows import (
    STREAMING,
    AnnotationRow,
    ContextMessageRow,
    FrameRow,
    GapRow,
    MessageRow,
    Placement,
    Producer,
    RunEnd,
    RunRow,
    RunStart,
    SegmentRow,
)
from recorder.storage.schema import (
    context_messages,
    conversations,
    frames,
    gaps,
    messages,
    producers,
    runs,
    segments,
)
from recorder.storage.search.searched_text import words_of_row


def _columns_in(fields: Sequence[str]) -> tuple[str, ...]:
    """The columns of a run among these fields. Not `metadata`, which both the start and the seal may have."""
    return tuple(name for name in RunRow._fields if name in fields and name != "metadata")


_START, _PLACEMENT, _END, _SEAL = (
    _columns_in(names_of(type_)) for type_ in (RunStart, Placement, RunEnd, RunSeal)
)
_of_start = attrgetter("run_id", *_START, *(f"placement.{name}" for name in _PLACEMENT))
_of_end, _of_seal = attrgetter(*_END), attrgetter(*_SEAL)
_RUN_COLUMNS = ("id", *_START, *_PLACEMENT, "producer_id", "metadata")
#: The columns that the end of a run sets.
SEAL_COLUMNS = (*_END, *_SEAL)
#: And those of its start that were not known before its request was sent, if another framework began it.
_UPDATED = (*SEAL_COLUMNS, "wire", "input_hash")
_OPEN_COLUMNS, _SEALED_COLUMNS = (*_RUN_COLUMNS, "status"), (*_RUN_COLUMNS, *SEAL_COLUMNS)
_PRODUCER_COLUMNS = names_of(Producer)
_of_producer = attrgetter(*_PRODUCER_COLUMNS)
_CONVERSATION_COLUMNS = ("id", "user_id", "created_at")
#: The key in the metadata of a further attempt that names the first attempt.
FIRST = "first_run_id"
#: The columns that are equal only if a stored run with the same id is the same run.
OWN = ("producer_id", "started_at")


def inserts_of(batch: Batch, piece: Batch | None = None) -> list[Insert]:
    """The inserts of a batch; of its rows only those of `piece`, if it is given, and the others come later."""
    producer = Insert(
        producers, _PRODUCER_COLUMNS, [_producer(batch)], update=("heartbeat_at",), same=("process",)
    )
    return [producer, *_conversations(batch), *rows_of(piece or batch)]


def rows_of(batch: Batch) -> list[Insert]:
    """The inserts of the rows of runs and additions; the tokens come last."""
    opening = [rows for rows in batch.runs if rows.opens]
    running = [_open(rows.start, batch) for rows in opening if rows.seal is None]
    ending = [(rows, rows.seal) for rows in batch.runs if rows.seal is not None]
    sealed = [_sealed(rows.start, seal, batch) for rows, seal in ending if seal.metadata is None]
    masked = [_sealed(rows.start, seal, batch) for rows, seal in ending if seal.metadata is not None]
    return [
        message_insert(_messages(batch)),
        Insert(context_messages, ContextMessageRow._fields, _context(batch)),
        Insert(runs, _OPEN_COLUMNS, running),
        Insert(runs, _SEALED_COLUMNS, sealed, update=_UPDATED, same=OWN),
        Insert(runs, _SEALED_COLUMNS, masked, update=(*_UPDATED, "metadata"), same=OWN),
        Insert(frames, FrameRow._fields, [row for rows in batch.runs for row in rows.frames]),
        Insert(gaps, GapRow._fields, [row for rows in batch.runs for row in rows.gaps]),
        Insert(segments, SegmentRow._fields, [row for rows in batch.runs for row in rows.segments]),
        *_annotations(batch.additions),
    ]


def message_insert(rows: Sequence[MessageRow]) -> Insert:
    """An insert of messages, with the words by which they are found unless they are many."""
    if len(rows) > MOST_INDEXED:
        return Insert(messages, MessageRow._fields, rows)
    values = [(*row, words_of_row(row.role, row.content, row.parts)) for row in rows]
    return Insert(messages, (*MessageRow._fields, "words"), values)


def _producer(batch: Batch) -> tuple[Any, ...]:
    return _of_producer(batch.producer)


def _conversations(batch: Batch) -> list[Insert]:
    """An insert for each set of columns that change: on Postgres a statement can change a row only once."""
    named = batch.named_conversations
    # In a dict the last item of a key wins: the first user and the earliest time of each conversation.
    users = {id: user for _, id, user, _ in reversed(named) if user is not None}
    times = dict(sorted(((id, at) for _, id, _, at in named), reverse=True))
    details: dict[str, dict[str, str]] = {}
    for each in sorted(batch.additions, key=attrgetter("order")):
        details.setdefault(each.conversation_id, {}).update(each.details)
    rows: dict[tuple[str, ...], list[tuple[Any, ...]]] = {(): []}
    for id, at in sorted(times.items()):
        changed = dict(sorted(details.get(id, {}).items()))
        rows.setdefault(tuple(changed), []).append((id, users.get(id), at, *changed.values()))
    return [
        Insert(conversations, (*_CONVERSATION_COLUMNS, *names), found, update=names)
        for names, found in rows.items()
    ]


def _annotations(additions: Sequence[Addition]) -> list[Insert]:
    """None without annotations, so that a role without rights on their table can record."""
    rows = sorted((row for each in additions for row in each.annotations), key=itemgetter(0, 1))
    return [Insert(schema.annotations, AnnotationRow._fields, rows)] if rows else []


def _messages(batch: Batch) -> list[MessageRow]:
    # Sorted, so that two writers never lock rows in opposite order; by position, so that a plain SELECT of a small
    # database shows the messages of a conversation in their order.
    found = [row for part in batch.parts for row in part.messages]
    return sorted(found, key=attrgetter("conversation_id", "position", "id"))


def _context(batch: Batch) -> list[ContextMessageRow]:
    return sorted(
        {row[:2]: row for rows in batch.runs for row in rows.context}.values(), key=itemgetter(0, 1)
    )


def _open(start: RunStart, batch: Batch) -> tuple[Any, ...]:
    return (*_of_start(start), batch.producer.id, _metadata(start, None), STREAMING)


def _sealed(start: RunStart, seal: RunSeal, batch: Batch) -> tuple[Any, ...]:
    metadata = _metadata(start, seal.metadata)
    return (*_of_start(start), batch.producer.id, metadata, *_of_end(seal.end), *_of_seal(seal))


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
