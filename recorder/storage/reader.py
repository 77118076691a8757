"""Reads recordings: ids, runs, messages, and pages of tokens and frames by key.

It does not use the views and keeps no cursor open. A long replay makes many short queries, so that a SQLite file's log
can be checkpointed and a pooler can serve other clients meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select

from recorder.core.clock import now
from recorder.core.escaping import escape, unescape
from recorder.core.ids import check_conversation_id, id_of_user
from recorder.errors import NotFound, StoreError
from recorder.messages import BaseMessage
from recorder.storage import id_lookup
from recorder.storage.columns import columns_of
from recorder.storage.dialects import Watch
from recorder.storage.failures import AWAY
from recorder.storage.id_lookup import Found
from recorder.storage.message_columns import message_of
from recorder.storage.newest_branch import (
    BranchEnd,
    BranchMessage,
    BranchMessages,
    end_of,
    in_order,
    message_count,
    newest_message,
    path_to,
    unanswered_runs,
)
from recorder.storage.request_input import checked_ids, decoded_input, instructions_of
from recorder.storage.row_checks import json_of, row_of
from recorder.storage.rows import STREAMING, FrameRow, GapRow, RunColumns, RunRow, SegmentRow
from recorder.storage.schema import context_messages, conversations, frames, gaps, messages, runs, segments
from recorder.storage.statuses import IS_MODEL_CALL, IS_OPEN, StatusesAt, select_runs, status_of
from recorder.storage.store import SqlStore

#: How many ids one query contains; SQLite accepts some ten thousand parameters.
_IDS_A_QUERY = 500


class RecordedRun(RunColumns[dict[str, Any], list[str]]):
    """One stored run. JSON columns are decoded, and text is as it was recorded."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(self.id)  # `request` is a dict, which cannot be hashed

    @property
    def model(self) -> str | None:
        """The model of the response, or else that of the request."""
        return self.response_model or self.request_model

    @property
    def is_open(self) -> bool:
        """Whether the run was streaming when it was read, and its process was not known to be dead."""
        return self.status == STREAMING


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of a conversation, from its first message to its last."""

    conversation_id: str
    #: Ids of its messages.
    message_ids: Sequence[str]
    #: The runs that produced these messages, in their order; then a run without a message after the last one, if any.
    runs: Sequence[RecordedRun]
    #: Whether the conversation has messages or runs on other branches.
    has_others: bool


_RUNS = select_runs(*runs.c)
_CONTENT = messages.c.role, messages.c.content, messages.c.parts
#: The columns of a run that are decoded, unescaped or checked.
_JSON, _ESCAPED, _IDS = (
    [column.name for column in columns_of(RunRow) if column.format == format]
    for format in ("json", "escaped", "uuid")
)


class DatabaseReader:
    """Reads one database. Raises `StoreError`, `SchemaError` and `NotFound`. Writes nothing."""

    def __init__(self, database: str | SqlStore) -> None:
        self._store = database if isinstance(database, SqlStore) else SqlStore(database, read_only=True)
        self.url = self._store.url

    @property
    def store(self) -> SqlStore:
        """The store that it reads with."""
        return self._store

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The driver's exceptions that the methods below raise."""
        return self._store.errors

    def is_away(self, error: StoreError) -> bool:
        """Whether the database did not answer, or another program has locked it."""
        return error.__cause__ is not None and self._store.failure(error) in AWAY

    async def open(self) -> None:
        """Connect, and check the schema. Raises `SchemaError`, and `StoreError` for a database without tables."""
        await self._store.open()

    async def close(self) -> None:
        """Close the connection. The next query connects again."""
        await self._store.close()

    async def watch(self) -> Watch:
        """Start watching for commits."""
        return await self._store.watch()

    # -- ids ------------------------------------------------------------------------------------------------------

    async def find(self, given: str) -> Found:
        """The conversation or run with this id, or the only one whose id begins with this text.

        Raises `NotFound`: for an unknown id with the nearest ids, for an ambiguous one with the candidates.
        """
        return await id_lookup.find(self._store, given)

    async def newest(self) -> Found:
        """The run that started last. Raises `NotFound`."""
        return await id_lookup.newest_run(self._store)

    # -- runs -----------------------------------------------------------------------------------------------------

    async def run(self, id: str) -> RecordedRun:
        """One run by its full id. Raises `NotFound`, also for text that is not a UUID."""
        wanted = id_lookup.uuid_of(id)
        found = await self._runs(_RUNS.where(runs.c.id == wanted)) if wanted else []
        if not found:
            raise NotFound(f"No run {id} is stored; `recorder ls` lists the stored conversations.")
        return found[0]

    async def open_runs(self) -> list[str]:
        """Ids of the streaming runs whose producers are not known to be dead, in order of their start."""
        query = select_runs(runs.c.id, runs.c.status).where(IS_OPEN, IS_MODEL_CALL)
        query = query.order_by(runs.c.started_at, runs.c.id)
        current = StatusesAt(now())
        return [row.id for row in await self._store.fetch(query) if current.status_of(row) == STREAMING]

    async def dead(self, run_ids: Sequence[str]) -> set[str]:
        """Those of these runs that are stored as streaming and whose producer is dead."""
        query, current = select_runs(runs.c.id, runs.c.status).where(IS_OPEN), StatusesAt(now())
        found: set[str] = set()
        for part in _in_parts(run_ids):
            rows = await self._store.fetch(query.where(runs.c.id.in_(part)))
            found |= {row.id for row in rows if current.status_of(row) != STREAMING}
        return found

    async def begun(self, since: datetime) -> list[str]:
        """Ids of the runs that started at that time or later, in order of their start."""
        query = select(runs.c.id).where(runs.c.started_at >= since, IS_MODEL_CALL)
        return [row.id for row in await self._store.fetch(query.order_by(runs.c.started_at, runs.c.id))]

    async def runs_of_request(self, input_hash: str) -> list[RecordedRun]:
        """The runs of one request in order of their start."""
        return await self._runs(
            _RUNS.where(runs.c.input_hash == input_hash).order_by(runs.c.started_at, runs.c.id)
        )

    async def latest(self, limit: int, before: RecordedRun | None = None) -> list[RecordedRun]:
        """At most `limit` runs, the newest first; only those that started before the run `before`, if it is given."""
        query = _RUNS.where(IS_MODEL_CALL)
        if before is not None:
            at_once = and_(runs.c.started_at == before.started_at, runs.c.id < before.id)
            query = query.where(or_(runs.c.started_at < before.started_at, at_once))
        return await self._runs(query.order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit))

    async def _runs(self, query: Select[Any]) -> list[RecordedRun]:
        moment = now()
        return [_run(row, moment) for row in await self._store.fetch(query)]

    # -- conversations --------------------------------------------------------------------------------------------

    async def newest_branch(self, conversation_id: str) -> Branch:
        """The newest branch of a conversation; an empty branch for an unknown conversation."""
        end, unanswered = await self._newest_end(conversation_id)
        if end is None:
            return Branch(conversation_id, (), (), False)
        keys = await self._path(conversation_id, end.message_id, messages.c.run_id)
        [(stored,)] = await self._store.fetch(message_count(conversation_id))
        wanted = [
            *dict.fromkeys(row.run_id for row in keys if row.run_id),
            *([end.run_id] if end.run_id else []),
        ]
        found = {run.id: run for run in await self.by_ids(wanted)}
        has_others = stored > len(keys) or unanswered > (end.run_id is not None)
        path = tuple(row.id for row in keys)
        return Branch(conversation_id, path, tuple(found[id] for id in wanted if id in found), has_others)

    async def path(self, conversation_id: str, message_id: str | None) -> list[BaseMessage]:
        """The messages from a root to this one. For a run's `prompt_message_id` this is the prompt of the run."""
        rows = await self._path(conversation_id, message_id, *_CONTENT)
        return [message_of(row.role, row.content, row.parts) for row in rows]

    async def messages(self, conversation_id: str) -> list[BaseMessage]:
        """The instructions of the newest branch's last run, then the messages of the branch; none for an unknown
        conversation."""
        known = escape(check_conversation_id(conversation_id))
        end, _ = await self._newest_end(known)
        if end is None:
            return []
        rows = await self._path(known, end.message_id, *_CONTENT, messages.c.run_id)
        run_ids = [row.run_id for row in rows if row.run_id is not None]
        last = end.run_id or (run_ids[-1] if run_ids else None)
        branch = [message_of(row.role, row.content, row.parts) for row in rows]
        found = await self.by_ids([last]) if last is not None else []
        instructions = await self.instructions(found[0]) if found else []
        # Older versions stored instructions as messages; those of the last run take their place.
        return [*instructions, *(branch[len(instructions_of(branch)) :] if instructions else branch)]

    async def branch_messages(
        self, conversation_id: str, user_id: str | None = None, last: int | None = None
    ) -> BranchMessages:
        """The messages of the newest branch with their runs; with `last` only so many of the last ones.

        If the conversation belongs to another user than `user_id`, they are those of this user's own conversation.
        """
        known = escape(check_conversation_id(conversation_id))
        if user_id is not None:
            known = await self._id_for(known, escape(user_id))
        end, _ = await self._newest_end(known)
        message_id, columns = end and end.message_id, (*_CONTENT, messages.c.run_id)
        first = await self._position(known, message_id) - last + 1 if last is not None and message_id else 0
        rows = await self._path(known, message_id, *columns, first=max(0, first))
        found = [
            BranchMessage(row.id, row.run_id, message_of(row.role, row.content, row.parts)) for row in rows
        ]
        return BranchMessages(known, found, end and end.run_id)

    async def _position(self, conversation_id: str, message_id: str) -> int:
        query = select(messages.c.position).where(messages.c.id == message_id)
        rows = await self._store.fetch(query.where(messages.c.conversation_id == conversation_id))
        return rows[0].position if rows else 0

    async def _id_for(self, conversation_id: str, user_id: str) -> str:
        """The id under which this user is recorded."""
        while True:
            owners = await self.owners(conversation_id)
            if not owners or owners[0] in (None, user_id):
                return conversation_id
            conversation_id = id_of_user(conversation_id, user_id)

    async def owners(self, conversation_id: str) -> list[str | None]:
        """The user of a conversation, or None if it has none; nothing for an unknown one. Both ids are as stored."""
        query = select(conversations.c.user_id).where(conversations.c.id == conversation_id)
        return [row.user_id for row in await self._store.fetch(query)]

    async def request(self, run: RecordedRun) -> list[BaseMessage]:
        """The messages that a run was sent, its instructions first."""
        given = decoded_input(run.input)
        path = await self._path_from(given.first, run) if given.first is not None else []
        ids = checked_ids(run.instructions)
        by_id = await self._messages_by_id(run.conversation_id, [*ids, *given.ids])
        rows: list[Any] = []
        for item in (*ids, *given.items):
            if isinstance(item, str):
                rows += [by_id[item]] if item in by_id else []
            elif path:
                before = path[0].position
                rows += path[max(0, item[0] - before) : max(0, item[1] + 1 - before)]
        return [message_of(row.role, row.content, row.parts) for row in rows]

    async def _path_from(self, first: int, run: RecordedRun) -> list[Any]:
        columns = *_CONTENT, messages.c.position
        return await self._path(run.conversation_id, run.prompt_message_id, *columns, first=first)

    async def replies(self, conversation_id: str, run_id: str) -> list[BaseMessage]:
        """The messages that a run produced, one for each choice."""
        here = messages.c.conversation_id == conversation_id, messages.c.run_id == run_id
        query = select(*_CONTENT).where(*here)
        rows = await self._store.fetch(query.order_by(messages.c.created_at))
        return [message_of(row.role, row.content, row.parts) for row in rows]

    async def _newest_end(self, conversation_id: str) -> tuple[BranchEnd | None, int]:
        """Where the newest branch ends, and how many runs of the conversation have no message."""
        newest = await self._store.fetch(newest_message(conversation_id))
        unanswered = await self._store.fetch(unanswered_runs(conversation_id))
        return end_of(newest[0] if newest else None, unanswered, now()), len(unanswered)

    async def instructions(self, run: RecordedRun) -> list[BaseMessage]:
        """The instructions that a run was sent, in their order."""
        ids = checked_ids(run.instructions)
        by_id = await self._messages_by_id(run.conversation_id, ids)
        rows = [by_id[id] for id in ids if id in by_id]
        return [message_of(row.role, row.content, row.parts) for row in rows]

    async def _messages_by_id(self, conversation_id: str, ids: Sequence[str]) -> dict[str, Any]:
        """The rows of these messages, said or not, by id."""
        found: dict[str, Any] = {}
        for part in _in_parts(ids):
            for table in (messages, context_messages):
                columns = [table.c[name] for name in ("id", "role", "content", "parts")]
                here = table.c.conversation_id == conversation_id, table.c.id.in_(part)
                found |= {row.id: row for row in await self._store.fetch(select(*columns).where(*here))}
        return found

    async def _path(
        self, conversation_id: str, message_id: str | None, *columns: ColumnElement[Any], first: int = 0
    ) -> list[Any]:
        if message_id is None:
            return []
        query = path_to(conversation_id, message_id, *columns, first=first)
        return in_order(await self._store.fetch(query), message_id)

    async def by_ids(self, wanted: Sequence[str]) -> list[RecordedRun]:
        """Those of these runs that are stored."""
        found: list[RecordedRun] = []
        for part in _in_parts(wanted):
            found += await self._runs(_RUNS.where(runs.c.id.in_(part)))
        return found

    # -- streams --------------------------------------------------------------------------------------------------

    async def segments(self, run_id: str, seq: int, limit: int) -> list[SegmentRow]:
        """At most `limit` rows of tokens, from the row that contains token `seq`."""
        rows = await self._store.fetch(_rows_from(segments, SegmentRow._fields, run_id, seq, limit))
        return [row_of(SegmentRow, row) for row in rows]

    async def frames(self, run_id: str, seq: int, limit: int) -> list[FrameRow]:
        """At most `limit` rows of frames, from the row that contains frame `seq`."""
        rows = await self._store.fetch(_rows_from(frames, FrameRow._fields, run_id, seq, limit))
        return [row_of(FrameRow, row) for row in rows]

    async def last_frames(self, run_id: str) -> list[FrameRow]:
        """The last row of frames; empty without frames."""
        query = select(*(frames.c[name] for name in FrameRow._fields)).where(frames.c.run_id == run_id)
        rows = await self._store.fetch(query.order_by(frames.c.seq.desc()).limit(1))
        return [row_of(FrameRow, row) for row in rows]

    async def frame_at(self, run_id: str, delta: int) -> int:
        """The `seq` of the row of frames at which a reader must start in order to find token `delta`."""
        query = select(func.max(frames.c.seq)).where(frames.c.run_id == run_id, frames.c.first_delta <= delta)
        [(seq,)] = await self._store.fetch(query)
        return seq or 0

    async def gaps(self, run_id: str) -> list[GapRow]:
        """The missing tokens of a run."""
        columns = [gaps.c[name] for name in GapRow._fields]
        query = select(*columns).where(gaps.c.run_id == run_id).order_by(gaps.c.seq)
        return [row_of(GapRow, row) for row in await self._store.fetch(query)]

    async def tokens_end(self, run_id: str) -> int:
        """The number of the last stored token plus one; 0 without stored tokens."""
        query = select(segments.c.seq, segments.c.count).where(segments.c.run_id == run_id)
        rows = await self._store.fetch(query.order_by(segments.c.seq.desc()).limit(1))
        return rows[0].seq + rows[0].count if rows else 0


def _rows_from(table: Table, names: Sequence[str], run_id: str, seq: int, limit: int) -> Select[Any]:
    """A query of the row that contains `seq`, and of the rows after it. Seeks the row by key."""
    here = table.c.run_id == run_id
    # A row with count 0, which recorder never writes, would be read again and again.
    query = select(*(table.c[name] for name in names)).where(here, table.c.count != 0)
    if seq:
        before = select(func.max(table.c.seq)).where(here, table.c.seq <= seq).scalar_subquery()
        query = query.where(table.c.seq >= func.coalesce(before, seq), table.c.seq + table.c.count > seq)
    return query.order_by(table.c.seq).limit(limit)


def _in_parts(wanted: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(wanted), _IDS_A_QUERY):
        yield wanted[start : start + _IDS_A_QUERY]


def _run(row: Any, moment: datetime) -> RecordedRun:
    fields = {name: getattr(row, name) for name in RunRow._fields}
    fields["status"] = status_of(row, moment)
    for name in _JSON:
        fields[name] = None if fields[name] is None else json_of(fields[name], f"run {row.id}: {name}")
    for name in _ESCAPED:
        fields[name] = None if fields[name] is None else unescape(fields[name])
    for name in _IDS:
        if fields[name] is not None and id_lookup.uuid_of(str(fields[name])) is None:
            raise StoreError(
                f"run {row.id}: {name} is {fields[name]!r:.60} and not a UUID; the row is damaged"
            )
    return row_of(RecordedRun, list(fields.values()))
