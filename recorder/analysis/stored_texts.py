"""Reads stored messages and tokens for analysis, a page at a time, each page by its key."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from recorder.core.clock import now
from recorder.storage.blocking import BlockingStore
from recorder.storage.id_lookup import Found
from recorder.storage.key_pages import after_key
from recorder.storage.reader import DatabaseReader
from recorder.storage.row_checks import readable, row_of
from recorder.storage.rows import STREAMING, MessageRow, SegmentRow
from recorder.storage.schema import annotations as annotation_table
from recorder.storage.schema import messages, runs
from recorder.storage.statuses import IS_MODEL_CALL, IS_OPEN, select_runs, status_of

#: Commits are waited for this long (seconds).
_LOOK_EVERY = 1.0
#: Messages of a page, rows of tokens of a page, and ids of one query.
_MESSAGES, _SEGMENTS, _IDS = 200, 200, 500
#: The columns that are read; the others of a `MessageRow` are None or 0.
_COLUMNS = [messages.c[name] for name in ("conversation_id", "id", "role", "content", "run_id", "created_at")]


class StoredMessageText(NamedTuple):
    """A message, and which reply of its run it is."""

    row: MessageRow
    choice: int = 0


class OpenEnd(NamedTuple):
    """A run without a message: its tokens are all that there is."""

    id: str
    conversation_id: str
    is_open: bool


class StoredTexts:
    """Reads one database from synchronous code. Raises `StoreError` for a database that cannot be read."""

    def __init__(self, url: str) -> None:
        self._database = BlockingStore(url, read_only=True)
        self._store = self._database.store

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def after_commits(self) -> Generator[None]:
        """Yield now, after each commit, and at least once a second."""
        watch = self._database.run(self._store.watch())
        try:
            while True:
                yield
                self._database.run(watch.wait_for_commit(_LOOK_EVERY))
        finally:
            self._database.run(watch.close())

    def find(self, id: str) -> Found:
        """The conversation or run with this id, or beginning of an id. Raises `NotFound`."""
        return self._database.run(DatabaseReader(self._store).find(id))

    def count(self, found: Found | None) -> int:
        """How many messages there are."""
        [(total,)] = self._fetch(select(func.count()).select_from(messages).where(*self._where(found)))
        return int(total)

    def messages(
        self, found: Found | None = None, since: datetime | None = None
    ) -> Iterator[list[StoredMessageText]]:
        """All messages of a conversation, those of a run with its prompt, or all; stored since then, if it is given."""
        where = list(self._where(found))
        if since is not None:
            where.append(messages.c.created_at >= since)
        query = select(*_COLUMNS).where(*where).order_by(*messages.primary_key.columns).limit(_MESSAGES)
        page = self._fetch(query)
        while page:
            yield self._with_choices([_message_row(row) for row in page])
            last = page[-1]
            page = self._fetch(query.where(after_key(messages, (last.conversation_id, last.id))))

    def annotation_ids(self, owners: Sequence[str]) -> set[str]:
        """The ids of the annotations of these runs, and of these messages without a run."""
        found: set[str] = set()
        wanted = sorted(set(owners))
        for start in range(0, len(wanted), _IDS):
            query = select(annotation_table.c.id).where(
                annotation_table.c.run_id.in_(wanted[start : start + _IDS])
            )
            found |= {row.id for row in self._fetch(query)}
        return found

    def runs_without_message(self, found: Found | None) -> list[OpenEnd]:
        """The runs that have no reply, in the order of their start."""
        return self._open_ends(found, runs.c.response_message_id.is_(None))

    def open_runs(self, found: Found | None) -> list[OpenEnd]:
        """The runs that stream now."""
        return [run for run in self._open_ends(found, IS_OPEN) if run.is_open]

    def _open_ends(self, found: Found | None, condition: ColumnElement[bool]) -> list[OpenEnd]:
        query = select_runs(runs.c.id, runs.c.conversation_id, runs.c.status).where(IS_MODEL_CALL, condition)
        if found is not None:
            column = runs.c.id if found.kind == "run" else runs.c.conversation_id
            query = query.where(column == found.id)
        return [
            OpenEnd(row.id, row.conversation_id, status_of(row, now()) == STREAMING)
            for row in self._fetch(query.order_by(runs.c.started_at, runs.c.id))
        ]

    def segments(self, run_id: str, seq: int = 0) -> Iterator[SegmentRow]:
        """The rows of tokens of a run from token `seq` on."""
        while rows := self._database.run(DatabaseReader(self._store).segments(run_id, seq, _SEGMENTS)):
            yield from (row for row in rows if row.seq >= seq)
            seq = rows[-1].seq + rows[-1].count

    def _where(self, found: Found | None) -> Iterator[ColumnElement[bool]]:
        if found is None:
            return
        if found.kind == "conversation":
            yield messages.c.conversation_id == found.id
            return
        query = select(runs.c.conversation_id, runs.c.prompt_message_id).where(runs.c.id == found.id)
        [(conversation_id, prompt_id)] = self._fetch(query)
        yield messages.c.conversation_id == conversation_id
        yield (messages.c.run_id == found.id) | (messages.c.id == prompt_id)

    def _with_choices(self, page: list[MessageRow]) -> list[StoredMessageText]:
        """The messages with their numbers among the replies of their runs."""
        wanted = {row.run_id for row in page if row.run_id is not None}
        query = select(messages.c.id, messages.c.run_id).where(
            messages.c.conversation_id.in_({row.conversation_id for row in page}),
            messages.c.run_id.in_(wanted),
        )
        choices: dict[str, int] = {}
        counts: dict[str, int] = {}
        for row in self._fetch(query.order_by(messages.c.created_at, messages.c.id)) if wanted else ():
            choices[row.id] = counts.get(row.run_id, 0)
            counts[row.run_id] = choices[row.id] + 1
        return [StoredMessageText(row, choices.get(row.id, 0)) for row in page]

    def _fetch(self, query: Select[Any]) -> Sequence[Any]:
        with readable(self._store.errors):
            return self._database.run(self._store.fetch(query))


def _message_row(row: Any) -> MessageRow:
    values = row.conversation_id, row.id, None, 0, row.role, row.content, None, row.run_id, row.created_at
    return row_of(MessageRow, (*values, None, None))
