"""What is stored, read back: ids looked up, runs, and their tokens and frames in pages by key.

Nothing here reads through the views, and nothing holds a cursor: a long replay is many short questions, so that a
SQLite file's log does not grow under it and a pooler can serve others meanwhile.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

from sqlalchemy import Select, Table, Text, and_, func, literal_column, or_, select
from sqlalchemy import cast as sql_cast

from recorder.clock import now
from recorder.config import INTERRUPTED_AFTER
from recorder.dialects import Watch, masked
from recorder.errors import NotFound
from recorder.identity import check_conversation_id
from recorder.jsons import loads
from recorder.liveness import is_dead
from recorder.messages import BaseMessage, from_dict
from recorder.records import STREAMING, FrameRow, GapRow, Producer, SegmentRow
from recorder.store import SqlStore
from recorder.stored import escape, unescape, unescape_json
from recorder.tables import conversations, dashed, frames, gaps, messages, producers, runs, segments

#: How many candidates an ambiguous id shows.
_SHOWN = 6


class Found(NamedTuple):
    """What an id stands for."""

    #: conversation or run.
    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run as it is stored; JSON decoded, text as it was recorded."""

    id: str
    conversation_id: str
    parent_run_id: str | None
    attempt: int
    operation: str
    provider_name: str | None
    request_model: str | None
    response_model: str | None
    response_id: str | None
    wire: str | None
    status: str
    started_at: datetime
    first_token_at: datetime | None
    ended_at: datetime | None
    finish_reason: str | None
    error_type: str | None
    error_message: str | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    usage: dict[str, Any] | None
    token_count: int
    sha256: str | None
    frames_sha256: str | None
    request: dict[str, Any] | None
    input_hash: str | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    prompt_message_id: str | None
    response_message_id: str | None
    producer_id: str | None

    @property
    def model(self) -> str | None:
        """The model that answered, else the one that was asked for."""
        return self.response_model or self.request_model

    @property
    def is_open(self) -> bool:
        """Whether it still streams, as far as the database knows."""
        return self.status == STREAMING


_RUN_COLUMNS = [runs.c[name] for name in RecordedRun.__dataclass_fields__]
_MESSAGE_COLUMNS = [
    messages.c[name] for name in ("id", "parent_id", "position", "role", "content", "parts", "created_at")
]
_JSON_FIELDS = ("usage", "request", "tags", "metadata")
_TEXT_FIELDS = (
    "finish_reason",
    "error_type",
    "error_message",
    "request_model",
    "response_model",
    "response_id",
)


class Library:
    """Reads one database. Raises `StoreError`, `SchemaError` and `NotFound`; changes nothing."""

    def __init__(self, database: str | SqlStore) -> None:
        self._store = database if isinstance(database, SqlStore) else SqlStore(database, read_only=True)
        self.url = self._store.url

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the methods below raise of the driver's."""
        return self._store.errors

    async def open(self) -> None:
        """Connect, and see that the tables are there."""
        await self._store.open()

    async def close(self) -> None:
        """Let go of the database; the next question connects again."""
        await self._store.close()

    async def watch(self) -> Watch:
        """Tells when something is committed from now on."""
        return await self._store.watch()

    # -- ids ------------------------------------------------------------------------------------------------------

    async def find(self, given: str) -> Found:
        """The one conversation or run whose id is this or begins like this.

        Raises `NotFound`: with the nearest ids for one that is unknown, with the candidates for an ambiguous one.
        """
        found = await self._exactly(given) or await self._beginning(given)
        if len(found) == 1:
            return found[0]
        if found:
            shown = "\n".join(f"  {one}" for one in found[:_SHOWN]) + (
                "\n  ..." if len(found) > _SHOWN else ""
            )
            raise NotFound(f"{given!r} begins more than one id; write more of one of these:\n{shown}")
        raise NotFound(f"Nothing is stored under {given!r}{await self._nearest(given)}")

    async def newest(self) -> Found:
        """The run that began last. Raises `NotFound`."""
        rows = await self._store.fetch(
            select(runs.c.id).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(1)
        )
        if not rows:
            raise NotFound(
                f"{masked(self.url)} holds no run yet; record something, or name another with --url"
            )
        return Found("run", rows[0].id)

    async def _exactly(self, given: str) -> list[Found]:
        """By key, whatever the size of the database."""
        rows = await self._store.fetch(select(conversations.c.id).where(conversations.c.id == given))
        found = [Found("conversation", row.id) for row in rows]
        if (run_id := _uuid_of(given)) and await self._store.fetch(
            select(runs.c.id).where(runs.c.id == run_id)
        ):
            found.append(Found("run", run_id))
        return found

    async def _beginning(self, given: str) -> list[Found]:
        begins = func.substr(conversations.c.id, 1, len(given)) == given
        query = select(conversations.c.id).where(begins).order_by(conversations.c.id).limit(_SHOWN + 1)
        found = [Found("conversation", row.id) for row in await self._store.fetch(query)]
        if (bounds := _bounds_of(given)) is not None:
            low, high = bounds
            query = (
                select(runs.c.id)
                .where(runs.c.id >= low, runs.c.id <= high)
                .order_by(runs.c.id)
                .limit(_SHOWN + 1)
            )
            found += [Found("run", row.id) for row in await self._store.fetch(query)]
        return found

    async def _nearest(self, wanted: str) -> str:
        """The stored ids that look most like it, as the end of a sentence."""
        newest = select(sql_cast(runs.c.id, Text).label("id"), runs.c.conversation_id)
        kinds: dict[str, str] = {}
        for row in await self._store.fetch(newest.order_by(runs.c.started_at.desc()).limit(500)):
            kinds |= {row.id: "run", row.conversation_id: "conversation"}
        near = get_close_matches(wanted, kinds, n=3, cutoff=0.5)
        if not near:
            return "; `recorder ls` shows what there is."
        return "; the nearest are:\n" + "\n".join(f"  {kinds[id]} {id}" for id in near)

    # -- runs -----------------------------------------------------------------------------------------------------

    async def run(self, id: str) -> RecordedRun:
        """One run by its whole id. Raises `NotFound`."""
        rows = await self._store.fetch(select(*_RUN_COLUMNS).where(runs.c.id == id))
        if not rows:
            raise NotFound(f"Nothing is stored of run {id}; `recorder ls` shows what there is.")
        return _run(rows[0])

    async def open_runs(self) -> list[str]:
        """Ids of the runs that stream, as far as the database knows, in the order in which they began."""
        # A literal: SQLite uses the partial index only for that.
        query = select(runs.c.id).where(runs.c.status == literal_column(f"'{STREAMING}'"))
        return [row.id for row in await self._store.fetch(query.order_by(runs.c.started_at, runs.c.id))]

    async def begun(self, since: datetime) -> list[str]:
        """Ids of the runs that began at that time or later, in the order in which they began."""
        query = select(runs.c.id).where(runs.c.started_at >= since)
        return [row.id for row in await self._store.fetch(query.order_by(runs.c.started_at, runs.c.id))]

    async def is_orphaned(self, run: RecordedRun) -> bool:
        """Whether the process that recorded an open run is dead, so that nothing more will come of it."""
        query = select(producers).where(producers.c.id == run.producer_id)
        return any(
            is_dead(Producer(**row._mapping), now(), INTERRUPTED_AFTER)
            for row in await self._store.fetch(query)
        )

    async def runs_of(self, conversation_id: str) -> list[RecordedRun]:
        """All runs of a conversation in the order in which they began."""
        query = select(*_RUN_COLUMNS).where(runs.c.conversation_id == conversation_id)
        return [_run(row) for row in await self._store.fetch(query.order_by(runs.c.started_at, runs.c.id))]

    async def newest_path(self, conversation_id: str) -> tuple[int, list[RecordedRun]]:
        """How many ends a conversation has, and the runs on the way to the newest one, oldest first."""
        every = await self.runs_of(conversation_id)
        columns = messages.c.id, messages.c.parent_id, messages.c.run_id
        query = select(*columns).where(messages.c.conversation_id == conversation_id)
        rows = {row.id: row for row in await self._store.fetch(query)}
        inner = {row.parent_id for row in rows.values()} | {run.prompt_message_id for run in every}
        unanswered = [run for run in every if run.response_message_id is None]
        ends = len(rows.keys() - inner) + len(unanswered)
        newest, at = set(), every[-1].prompt_message_id if every else None
        while at is not None and at in rows:
            newest.add(rows[at].run_id)
            at = rows[at].parent_id
        return ends, [run for run in every if run.id in newest or run is every[-1]]

    async def asked(self, input_hash: str) -> list[RecordedRun]:
        """The runs of one request in the order in which they began."""
        query = select(*_RUN_COLUMNS).where(runs.c.input_hash == input_hash)
        return [_run(row) for row in await self._store.fetch(query.order_by(runs.c.started_at, runs.c.id))]

    async def latest(self, limit: int, before: RecordedRun | None = None) -> list[RecordedRun]:
        """Runs, the one that began last first; those that began before this one."""
        query = select(*_RUN_COLUMNS)
        if before is not None:
            at_once = and_(runs.c.started_at == before.started_at, runs.c.id < before.id)
            query = query.where(or_(runs.c.started_at < before.started_at, at_once))
        ordered = query.order_by(runs.c.started_at.desc(), runs.c.id.desc())
        return [_run(row) for row in await self._store.fetch(ordered.limit(limit))]

    async def path(self, conversation_id: str, message_id: str | None) -> list[BaseMessage]:
        """The messages from a root to this one: what a run was asked, exactly."""
        return _path(await self._messages(conversation_id), message_id)

    async def messages(self, conversation_id: str) -> list[BaseMessage]:
        """The messages from a root to the one that came last; none of a conversation that is not there."""
        rows = await self._messages(escape(check_conversation_id(conversation_id)))
        newest = max(rows.values(), key=lambda row: (row.created_at, row.position), default=None)
        return _path(rows, newest and newest.id)

    async def _messages(self, conversation_id: str) -> dict[str, Any]:
        query = select(*_MESSAGE_COLUMNS).where(messages.c.conversation_id == conversation_id)
        return {row.id: row for row in await self._store.fetch(query)}

    async def replies(self, run: RecordedRun) -> list[BaseMessage]:
        """The messages that a run produced, one a choice."""
        here = messages.c.conversation_id == run.conversation_id, messages.c.run_id == run.id
        query = select(messages.c.role, messages.c.content, messages.c.parts).where(*here)
        rows = await self._store.fetch(query.order_by(messages.c.created_at))
        return [message_of(row.role, row.content, row.parts) for row in rows]

    # -- streams --------------------------------------------------------------------------------------------------

    async def segments(self, run_id: str, seq: int, limit: int) -> list[SegmentRow]:
        """Rows of tokens from token `seq` on, the row that holds it included; at most `limit`."""
        rows = await self._store.fetch(_rows_from(segments, SegmentRow._fields, run_id, seq, limit))
        return [SegmentRow._make(row) for row in rows]

    async def frames(self, run_id: str, seq: int, limit: int) -> list[FrameRow]:
        """Rows of frames from frame `seq` on, the row that holds it included; at most `limit`."""
        rows = await self._store.fetch(_rows_from(frames, FrameRow._fields, run_id, seq, limit))
        return [FrameRow._make(row) for row in rows]

    async def frame_at(self, run_id: str, delta: int) -> int:
        """The number of a frame at which reading must begin to meet token `delta`; a row's first."""
        query = select(func.max(frames.c.seq)).where(frames.c.run_id == run_id, frames.c.first_delta <= delta)
        [(seq,)] = await self._store.fetch(query)
        return seq or 0

    async def gaps(self, run_id: str) -> list[GapRow]:
        """What is missing of a run."""
        columns = [gaps.c[name] for name in GapRow._fields]
        query = select(*columns).where(gaps.c.run_id == run_id).order_by(gaps.c.seq)
        return [GapRow._make(row) for row in await self._store.fetch(query)]

    async def tokens_end(self, run_id: str) -> int:
        """One more than the number of the last stored token; 0 without any."""
        query = select(segments.c.seq, segments.c.count).where(segments.c.run_id == run_id)
        rows = await self._store.fetch(query.order_by(segments.c.seq.desc()).limit(1))
        return rows[0].seq + rows[0].count if rows else 0


def _rows_from(table: Table, names: Sequence[str], run_id: str, seq: int, limit: int) -> Select[Any]:
    """The row that holds number `seq`, found by key from the one that begins at or before it, and those after."""
    here = table.c.run_id == run_id
    query = select(*(table.c[name] for name in names)).where(here)
    if seq:
        before = select(func.max(table.c.seq)).where(here, table.c.seq <= seq).scalar_subquery()
        query = query.where(table.c.seq >= func.coalesce(before, seq), table.c.seq + table.c.count > seq)
    return query.order_by(table.c.seq).limit(limit)


def _path(rows: Mapping[str, Any], message_id: str | None) -> list[BaseMessage]:
    found = []
    while message_id is not None and (row := rows.get(message_id)) is not None:
        found.append(message_of(row.role, row.content, row.parts))
        message_id = row.parent_id
    return found[::-1]


def message_of(role: str, content: str, parts: str | None) -> BaseMessage:
    """A message as it was recorded."""
    if parts is not None:
        return from_dict(unescape_json(loads(parts)))
    return from_dict({"role": unescape(role), "content": unescape(content)})


def _run(row: Any) -> RecordedRun:
    fields = dict(row._mapping)
    for name in _JSON_FIELDS:
        fields[name] = None if fields[name] is None else unescape_json(loads(fields[name]))
    for name in _TEXT_FIELDS:
        fields[name] = None if fields[name] is None else unescape(fields[name])
    return RecordedRun(**fields)


def _uuid_of(given: str) -> str | None:
    try:
        return dashed(given)
    except ValueError:
        return None


def _bounds_of(prefix: str) -> tuple[str, str] | None:
    """The lowest and the highest id that begins so; None for what no id begins with."""
    digits = prefix.lower().replace("-", "")
    if not digits or len(digits) > 32 or any(digit not in "0123456789abcdef" for digit in digits):
        return None
    low, high = (str(uuid.UUID(digits.ljust(32, fill))) for fill in "0f")
    return (low, high) if low.startswith(prefix.lower()) else None
