"""Redacts a database that is recorded already: `recorder redact`.

Each run and each conversation is one transaction. A stop in between leaves all rows consistent, and the next call does
the rest: it looks at everything again and changes what still has a match. Runs that stream, and their conversations,
are left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Executable, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.config import INTERRUPTED_AFTER, Redactor
from recorder.core.clock import now
from recorder.errors import ConfigError
from recorder.redaction.redaction import MatchCounts, Redaction, redaction_from
from recorder.storage import schema
from recorder.storage.blocking import BlockingStore
from recorder.storage.dialects import file_of, is_new_file, missing_file, parse_url
from recorder.storage.liveness import is_dead
from recorder.storage.rows import STREAMING
from recorder.storage.schema import conversations, messages, runs
from recorder.storage.store import SqlStore
from recorder.upkeep.redacted_conversation import RedactedConversation
from recorder.upkeep.redacted_index import index_again
from recorder.upkeep.redacted_run import changed_run, redacted_columns

#: Called with how many runs, annotations and conversations were looked at, and how many there are.
Progress = Callable[[int, int | None], None]

#: Keys that one query reads.
_PAGE = 500
#: Seconds that the last step waits for other users of a SQLite file.
_CHECKPOINT_WAIT = 10.0


@dataclass(slots=True)
class Redacted:
    """What was done, or with `dry_run` what would be."""

    #: What was replaced, by the name of the pattern.
    counts: dict[str, int] = field(default_factory=dict)
    #: Runs, messages, annotations and conversations that were changed. A run that only lost its frames is one, too.
    runs: int = 0
    messages: int = 0
    annotations: int = 0
    conversations: int = 0
    #: Frames that were removed.
    frames: int = 0
    #: Runs and conversations that were left out, because a run streams.
    left_out: int = 0
    #: Whether the removed texts are gone from the file and its log. False while another process uses its log.
    is_overwritten: bool = True


def redact(
    url: str, redactors: Sequence[Redactor], *, dry_run: bool = False, progress: Progress | None = None
) -> Redacted:
    """Redact what is stored. Raises `ConfigError` for wrong patterns and a missing file, else `StoreError`."""
    redaction = redaction_from(list(redactors))
    if redaction is None:
        raise ConfigError("No pattern is given; pass at least one")
    if is_new_file(url):
        raise missing_file(file_of(parse_url(url)))
    with BlockingStore(url, read_only=dry_run) as database:
        work = _Redacting(database.store, redaction, dry_run=dry_run, progress=progress)
        database.run(work.run())
    parsed = parse_url(url)
    if not dry_run and parsed.get_backend_name() == "sqlite":
        work.done.is_overwritten = overwrite_log(str(file_of(parsed)))
    return work.done


def overwrite_log(file: str) -> bool:
    """Write SQLite's log into the file, and make it empty. False if another process has it in use."""
    with closing(sqlite3.connect(file, timeout=_CHECKPOINT_WAIT)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


class _Redacting:
    def __init__(
        self, store: SqlStore, redaction: Redaction, *, dry_run: bool, progress: Progress | None
    ) -> None:
        self._store, self._redaction = store, redaction
        self._dry_run, self._progress = dry_run, progress
        self.done = Redacted()
        self._counts = MatchCounts(redaction)
        self._seen, self._total = 0, 0
        #: The conversations whose messages have new ids.
        self._changed: list[RedactedConversation] = []

    async def run(self) -> None:
        """Look at everything."""
        if not self._dry_run:
            moment = now()
            await self._store.sweep(partial(is_dead, moment=moment, silence=INTERRUPTED_AFTER), moment)
        for table in (runs, schema.annotations, conversations):
            [row] = await self._store.fetch(select(func.count()).select_from(table))
            self._total += row[0]
        async for run_id in self._keys(runs.c.id):
            await self._one(partial(self._redact_run, run_id))
        async for key in self._keys(schema.annotations.c.run_id, schema.annotations.c.id):
            await self._one(partial(self._redact_annotation, key))
        async for id in self._keys(conversations.c.id):
            await self._one(partial(self._redact_conversation, id))
        for conversation in self._changed:  # a recorder may have stored a message below an old one meanwhile
            await self._link_again(conversation)
        if not self._dry_run:
            await index_again(self._store)
        self.done.counts = dict(sorted(self._counts.items()))

    async def _keys(self, *columns: Any) -> AsyncIterator[Any]:
        """All keys of a table in order, a page at a time."""
        last: Any = None
        key: Any = columns[0] if len(columns) == 1 else tuple_(*columns)
        while True:
            query = select(*columns).order_by(*columns).limit(_PAGE)
            page = await self._store.fetch(query if last is None else query.where(key > last))
            for row in page:
                yield row[0] if len(columns) == 1 else row
            if len(page) < _PAGE:
                return
            last = page[-1][0] if len(columns) == 1 else tuple_(*page[-1])

    async def _one(self, work: Callable[[AsyncConnection], Any]) -> None:
        """Do this in a transaction of its own."""
        async with self._store.transaction() as connection:
            await work(connection)
        self._seen += 1
        if self._progress is not None:
            self._progress(self._seen, self._total)

    async def _execute(self, connection: AsyncConnection, statements: Sequence[Executable]) -> None:
        for statement in statements if not self._dry_run else ():
            await connection.execute(statement)

    async def _redact_run(self, run_id: str, connection: AsyncConnection) -> None:
        run = (await connection.execute(select(runs).where(runs.c.id == run_id))).first()
        if run is None:
            return
        if run.status == STREAMING:
            self.done.left_out += 1
            return
        counts = MatchCounts(self._redaction)
        change = await changed_run(connection, run, self._redaction, counts)
        await self._execute(connection, change.statements)
        self._counts.add(counts.items())
        self.done.runs += bool(counts or change.frames)
        self.done.frames += change.frames

    async def _redact_annotation(self, key: Any, connection: AsyncConnection) -> None:
        mine = schema.annotations.c.run_id == key.run_id, schema.annotations.c.id == key.id
        row = (await connection.execute(select(schema.annotations).where(*mine))).first()
        if row is None:
            return
        values = redacted_columns(row, self._redaction, self._counts, ("data",), ("name", "label"))
        if values:
            await self._execute(connection, [update(schema.annotations).where(*mine).values(values)])
            self.done.annotations += 1

    async def _redact_conversation(self, id: str, connection: AsyncConnection) -> None:
        await self._store.dialect.lock_conversations(connection, [] if self._dry_run else [id])
        streams = select(func.count()).where(runs.c.conversation_id == id, runs.c.status == STREAMING)
        if (await connection.execute(streams)).scalar_one():
            self.done.left_out += 1
            return
        conversation = RedactedConversation(id, self._redaction)
        await conversation.prepare(connection)
        await self._execute(connection, conversation.statements)
        self._counts.add(conversation.counts.items())
        self.done.messages += conversation.changed
        self.done.conversations += bool(conversation.statements)
        if conversation.ids:
            self._changed.append(conversation)

    async def _link_again(self, conversation: RedactedConversation) -> None:
        async with self._store.transaction() as connection:
            orphans = select(func.count()).where(
                messages.c.conversation_id == conversation.id,
                messages.c.parent_id.in_(list(conversation.ids)),
            )
            if (await connection.execute(orphans)).scalar_one() and not self._dry_run:
                conversation.statements = []
                await conversation.link(connection)
                await self._execute(connection, conversation.statements)
