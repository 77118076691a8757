"""The store: append what was recorded, read it back. The databases' own ways are in `recorder.storage.dialects`.

`Store` is the seam that the writer stands on; `recorder.testing.MemoryStore` is the same in memory.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Executable, Row, bindparam, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.core.clock import iso
from recorder.core.greenlets import refuse_greenlets
from recorder.errors import ConfigError, RecorderError, SchemaError, StoreError
from recorder.storage.dialects import Damage, Failure, Watch, dialect_of, masked, parse_url, unopened
from recorder.storage.inserts import inserts_of
from recorder.storage.known_messages import known_messages
from recorder.storage.message_tree import paths_to_look_up, settle, thread
from recorder.storage.migrate import old_message, state, upgrade_connection
from recorder.storage.probe import rows_to_try
from recorder.storage.rows import INTERRUPTED, STREAMING, Batch, Producer, SegmentRow
from recorder.storage.schema import Id, producers, runs, segments
from recorder.storage.statuses import IS_OPEN
from recorder.storage.transactions import Transactions

log = logging.getLogger("recorder")

T = TypeVar("T")


class Conflict(StoreError):
    """A row is stored already with another content; nothing of the batch was stored."""


class Taken(Conflict):
    """Runs begin with ids that other runs have already; nothing of the batch was stored."""

    def __init__(self, run_ids: Sequence[str]) -> None:
        super().__init__(
            f"Runs {', '.join(run_ids)} are stored already, by another process or as an earlier attempt"
        )
        self.run_ids = frozenset(run_ids)


class Moved(StoreError):
    """Another database has the name now, and is open: nothing that was stored before is in it, nor of the batch."""


class Empty(StoreError):
    """The database is there, and has none of our tables yet."""


class Store(Protocol):
    """What the writer needs of a database."""

    async def open(self) -> None:
        """Connect, and bring the tables to the newest schema or refuse. Raises `StoreError`."""

    async def append(self, batch: Batch) -> None:
        """Store a batch in one transaction, all of it or nothing. The same batch again changes nothing.

        Writes the rows of its messages into its parts (`message_tree`), unless an attempt before did. Raises `Taken`,
        and `Moved` once where the database is another one than before.
        """

    async def sweep(self, dead: Callable[[Producer], bool], now: datetime) -> int:
        """Mark the open runs of dead producers `interrupted`, provisionally; how many."""

    async def close(self) -> None:
        """Let go of the database; a later `open` connects again."""

    def failure(self, error: BaseException) -> Failure:
        """Whether an error of the verbs above is transient, poison or fatal."""


class SqlStore:
    """The tables in SQLite or Postgres, over one connection."""

    def __init__(
        self, url: str, *, sync: Literal["full", "process"] = "full", read_only: bool = False
    ) -> None:
        refuse_greenlets()
        self.url = url
        self._read_only = read_only
        self.dialect = dialect_of(parse_url(url), sync=sync, read_only=read_only)
        self.dialect.check()
        self._transactions = Transactions(self.dialect)
        #: What became of the file, where it is another one than before and nobody was told yet.
        self._moved: str | None = None
        #: Who stored something last, and when.
        self._last: Producer | None = None
        _stores.add(self)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the verbs below raise of the driver's."""
        return self.dialect.errors

    async def open(self) -> None:
        """Connect, and bring the tables to the newest schema. Raises `StoreError`, `SchemaError`.

        An empty database gets its tables. An older SQLite file is upgraded unless it is large. A large one and an older
        Postgres schema are refused: an upgrade takes long, or others share it, and someone decides when.
        """
        try:
            async with self.transaction() as connection:
                found = await connection.run_sync(state)
            if found == "current":
                return
            if self._read_only or (found == "old" and not self.dialect.upgrades_itself):
                raise (SchemaError if found == "old" else Empty)(self._unreadable(found))
            await (await self._transactions.connected()).run_sync(upgrade_connection)
        except RecorderError:
            await self.close()
            raise
        except self.dialect.errors as error:
            await self.close()
            raise unopened(self.dialect, error) from error

    async def append(self, batch: Batch) -> None:
        """Store a batch in one transaction, or try one. Raises `Conflict` for a row that is stored with another
        content, `Taken` for a run whose id is another run's, and `Moved`."""
        if batch.trial:
            await self._try(batch.producer)
            return
        added = [each.conversation_id for each in batch.additions if not each.threaded]
        if not added:
            await self._thread_and_insert(batch)
        else:
            await self._reopen_if_moved()
            # Two processes that add below the same message would make a branch that nobody asked for.
            async with self._transactions.alone(added):
                await self._thread_and_insert(batch)
        self._last = batch.producer
        self.dialect.look()

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One transaction on the one connection; after an error that leaves it unsure, the next has a new one."""
        return self._transactions.transaction()

    async def sweep(self, dead: Callable[[Producer], bool], now: datetime) -> int:
        """Mark the open runs of dead producers `interrupted`; a seal that comes all the same wins."""
        async with self.transaction() as connection:
            open_runs = select(runs.c.producer_id).where(IS_OPEN)
            found = await connection.execute(select(producers).where(producers.c.id.in_(open_runs)))
            gone = [row.id for row in found if dead(Producer(**row._mapping))]
            if not gone:
                return 0
            # One that lives after all finds that it was taken for dead. In the order in which a batch locks.
            await connection.execute(update(producers).where(producers.c.id.in_(gone)).values(process=None))
            orphaned = IS_OPEN, runs.c.producer_id.in_(gone)
            ended = update(runs).where(*orphaned).values(status=INTERRUPTED, ended_at=now)
            return (await connection.execute(ended)).rowcount

    async def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """What a query of yours finds, as dictionaries. A `UUID` among the parameters is compared with ids."""
        given = parameters or {}
        ids = (bindparam(name, type_=Id()) for name, value in given.items() if isinstance(value, UUID))
        async with self.transaction() as connection:
            found = await connection.execute(text(sql).bindparams(*ids), dict(given))
            plain = self.dialect.plain
            return [{name: plain(value) for name, value in row.items()} for row in found.mappings()]

    async def fetch(self, statement: Executable) -> Sequence[Row[Any]]:
        """What a statement of SQLAlchemy finds."""
        async with self.transaction() as connection:
            return (await connection.execute(statement)).all()

    async def watch(self) -> Watch:
        """Tells when something is committed from now on."""
        return await self.dialect.watch()

    async def size(self) -> int:
        """Bytes that the database takes on disk."""
        async with self.transaction() as connection:
            return await self.dialect.size(connection)

    async def close(self) -> None:
        """Let go of the database; a later verb connects again."""
        await self._transactions.close()

    def failure(self, error: BaseException) -> Failure:
        """Whether an error is transient, poison or fatal."""
        if isinstance(error, Conflict):
            return "poison"
        if isinstance(error, (SchemaError, ConfigError)):
            return "fatal"
        # What the driver said: our own words name the path, which may read like anything.
        if not isinstance(error, StoreError):
            return self.dialect.failure(error)
        return "transient" if error.__cause__ is None else self.dialect.failure(error.__cause__)

    def leave_to_parent(self) -> None:
        """In a forked child: what is open is the parent's, and nothing here uses or finalizes it; connect anew."""
        self._transactions.leave_to_parent()

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of the writer, in the file that has the name now. Raises `Moved`."""
        if not self._transactions.is_shared:
            await self._reopen_if_moved()
        try:
            async with self.transaction() as connection:
                yield connection
        except Exception as error:
            self.dialect.look(error)
            raise

    async def _thread_and_insert(self, batch: Batch) -> None:
        if parts := [part for part in batch.parts if not part.threaded]:
            paths, known = paths_to_look_up(parts), {}
            if paths:
                async with self._writing() as connection:
                    known = await known_messages(connection, self.dialect, paths)
            settle(parts, thread(parts, known))  # outside of a transaction where it can be, for it takes time
        async with self._writing() as connection:
            await self._insert(connection, batch)

    async def _insert(self, connection: AsyncConnection, batch: Batch) -> None:
        inserts = inserts_of(batch)
        counts = await self.dialect.insert(connection, inserts, announce=bool(batch.parts))
        pairs = zip(inserts, counts, strict=True)
        there = {insert.table for insert, written in pairs if written < len(insert.rows)}
        if producers in there:
            await self._revive(connection, batch)
        if runs in there:
            await self._refuse_taken(connection, batch)
        if segments in there:
            await self._compare(connection, [row for rows in batch.runs for row in rows.segments])

    async def _try(self, producer: Producer) -> None:
        """Store a row in each table, and take them back."""
        async with self.transaction() as connection:
            savepoint = await connection.begin_nested()
            await self.dialect.insert(connection, inserts_of(rows_to_try(producer)))
            await savepoint.rollback()

    async def _reopen_if_moved(self) -> None:
        if self._moved is None:
            self._moved = await self._become_of()
            if self._moved is None:
                return
            log.error("%s", self._moved)
        await self.close()
        await self.open()
        words, self._moved = self._moved, None
        raise Moved(words)

    async def _become_of(self) -> str | None:
        """What became of the file; None where it is the one that was recorded into, and whole."""
        connection = await self._transactions.connected()
        if (damage := self.dialect.damage()) is not None:
            return await self._set_aside(damage)
        if not await self.dialect.moved(connection):
            return None
        return (
            f"{masked(self.url)} was moved, deleted or replaced while it was recorded into; what comes now goes into a "
            "file of that name, without what was stored before"
        )

    async def _set_aside(self, damage: Damage) -> str | None:
        happened = f"{masked(self.url)} or its log was cut or overwritten while it was recorded into"
        damage.set_aside()
        await self.close()
        if not damage.put_back(self._has_last):
            return f"{happened}. {damage.words()}, without what was stored before"
        log.error(
            "%s; nothing is missing, for what was cut was in its log, and recording goes on in it", happened
        )
        return None

    def _has_last(self, connection: Any) -> bool:
        """Whether what was stored last is there, in a file of SQLite's; so is everything before it then."""
        if self._last is None:
            return True
        query = "SELECT heartbeat_at FROM producers WHERE id = ?"
        found = connection.execute(query, (self._last.id,)).fetchall()
        return bool(found == [(iso(self._last.heartbeat_at),)])

    async def _revive(self, connection: AsyncConnection, batch: Batch) -> None:
        """This process was taken for dead, and lives: so do its runs."""
        producer = batch.producer
        log.warning("Another process took this one for dead; its open runs stream again")
        mine = update(producers).where(producers.c.id == producer.id)
        await connection.execute(mine.values(process=producer.process, heartbeat_at=producer.heartbeat_at))
        ended = {rows.start.run_id for rows in batch.runs if rows.seal is not None}
        for part in _parts([run_id for run_id in batch.open_runs if run_id not in ended]):
            wrongly = runs.c.id.in_(part), runs.c.status == INTERRUPTED, runs.c.producer_id == producer.id
            await connection.execute(update(runs).where(*wrongly).values(status=STREAMING, ended_at=None))

    async def _refuse_taken(self, connection: AsyncConnection, batch: Batch) -> None:
        """Some runs were there already: fine after a commit whose answer was lost, if they are the same ones."""
        starts = {rows.start.run_id: rows.start.started_at for rows in batch.runs if rows.opens}
        taken: list[str] = []
        for part in _parts(list(starts)):
            query = select(runs.c.id, runs.c.producer_id, runs.c.started_at).where(runs.c.id.in_(part))
            found = await connection.execute(query)
            taken += [id for id, *own in found if own != [batch.producer.id, starts[id]]]
        if taken:
            raise Taken(taken)

    async def _compare(self, connection: AsyncConnection, written: Sequence[SegmentRow]) -> None:
        """Some rows were there already: fine after a commit whose answer was lost, if they are the same."""
        key = tuple_(segments.c.run_id, segments.c.seq)
        for rows in _parts(written):
            part = {(row.run_id, row.seq): row for row in rows}
            query = select(segments).where(key.in_(list(part)))
            for run_id, seq, count, deltas in await connection.execute(query):
                row = part[(run_id, seq)]
                if (count, deltas) != (row.count, row.deltas):
                    raise Conflict(
                        f"Run {run_id} has {count} other tokens stored from {seq} on than the {row.count} to be "
                        "stored; two recorders share a run id"
                    )

    def _unreadable(self, state: str) -> str:
        if state == "empty":
            return f"{masked(self.url)} holds no recording yet; record something, or name another with --url"
        return old_message(self.url)


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many as one question may ask for."""
    for start in range(0, len(rows), 500):
        yield rows[start : start + 500]


_stores: weakref.WeakSet[SqlStore] = weakref.WeakSet()


def _in_child() -> None:
    for store in list(_stores):
        store.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
