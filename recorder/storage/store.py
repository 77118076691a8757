"""The store: it appends batches to a database and runs queries. `recorder.storage.dialects` has the differences."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar
from uuid import UUID

from sqlalchemy import Executable, Row, Table, bindparam, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.core.clock import iso
from recorder.core.greenlets import refuse_greenlets
from recorder.core.overlap import overlapped
from recorder.core.trampoline import Trampoline
from recorder.errors import ConfigError, RecorderError, SchemaError, StoreError
from recorder.storage.batch import Batch, Part
from recorder.storage.conversation_owners import ConversationOwners, Key
from recorder.storage.damaged_index import stored_without_damaged_index
from recorder.storage.dialects import Damage, Statements, Watch, dialect_of, masked, open_error, parse_url
from recorder.storage.failures import Failure
from recorder.storage.inserts import inserts_of
from recorder.storage.known_messages import known_messages
from recorder.storage.message_lookups import Known, look_up
from recorder.storage.migrate import State, old_message, upgrade_connection
from recorder.storage.pieces import statements_of
from recorder.storage.rights import MissingRights, opened_state
from recorder.storage.rows import INTERRUPTED, STREAMING, Producer, SegmentRow
from recorder.storage.schema import Id, Time, producers, runs, segments
from recorder.storage.search.fill import index_page
from recorder.storage.statuses import IS_OPEN
from recorder.storage.store_interface import Conflict, Empty, Moved, RunIdTaken
from recorder.storage.transactions import Transactions
from recorder.storage.trial_rows import rows_to_try

log = logging.getLogger("recorder")

T = TypeVar("T")


class SqlStore:
    """The tables in SQLite or Postgres, with one connection."""

    def __init__(
        self, url: str, *, sync: Literal["full", "process"] = "full", read_only: bool = False
    ) -> None:
        refuse_greenlets()
        self.url = url
        self._read_only = read_only
        self.dialect = dialect_of(parse_url(url), sync=sync, read_only=read_only)
        self.dialect.check()
        self._transactions = Transactions(self.dialect)
        #: The message of the next `Moved`; None if the file is the same as before.
        self._moved: str | None = None
        #: The producer, with its heartbeat, of the last stored batch.
        self._last: Producer | None = None
        self._owners = ConversationOwners()
        _stores.add(self)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The driver's exceptions that the methods below raise."""
        return self.dialect.errors

    async def open(self) -> None:
        """Connect, and create or upgrade the tables. Raises `StoreError`, `SchemaError` and `MissingRights`.

        An older SQLite file is upgraded unless it is large. A large file and an older Postgres schema raise
        `SchemaError`: the upgrade takes long, or other programs use the database, so its operator decides when.
        """
        try:
            found = await self._read(self._state)
            if found == "current":
                return
            if self._read_only or (found == "old" and not self.dialect.upgrades_itself):
                raise (SchemaError if found == "old" else Empty)(self._unreadable(found))
            await self._again_after_fork(self._upgrade)
        except RecorderError:
            await self.close()
            raise
        except self.dialect.errors as error:
            await self.close()
            raise open_error(self.dialect, error) from error

    async def append(self, batch: Batch) -> None:
        """As `Store.append`. A trial inserts invented rows and rolls them back."""
        self.dialect.patience = batch.patience
        if batch.trial:
            await self._try(rows_to_try(batch.producer, batch.trial_bytes))
            return
        added = [each.conversation_id for each in batch.additions if each.added and not each.threaded]
        checked = await stored_without_damaged_index(self.dialect, partial(self._append, batch, added))
        self._owners.remember(checked)  # only now: the transaction is committed
        self._last = batch.producer
        self.dialect.look()

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One transaction. If an error breaks the connection, the next transaction has a new one."""
        return self._transactions.transaction()

    async def sweep(self, dead: Callable[[Producer], bool], now: datetime) -> int:
        """Mark the open runs of dead producers `interrupted`; how many. A later end of the run overwrites the mark."""
        async with self.transaction() as connection:
            open_runs = select(runs.c.producer_id).where(IS_OPEN)
            found = await connection.execute(select(producers).where(producers.c.id.in_(open_runs)))
            gone = [row.id for row in found if dead(Producer(**row._mapping))]
            if not gone:
                return 0
            # A producer that is alive after all notices this change (`_reopen_runs`). Producers are locked before runs,
            # as in a batch.
            await connection.execute(update(producers).where(producers.c.id.in_(gone)).values(process=None))
            orphaned = IS_OPEN, runs.c.producer_id.in_(gone)
            ended = update(runs).where(*orphaned).values(status=INTERRUPTED, ended_at=now)
            return (await connection.execute(ended)).rowcount

    async def index_messages(self, count: int) -> int:
        """Index at most `count` messages that are not indexed for the search yet; how many there were."""
        if not self.dialect.has_index:
            return 0
        async with self.transaction() as connection:
            return await connection.run_sync(index_page, count)

    async def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a user's query as dictionaries.

        A `UUID` parameter is compared with ids, a `datetime` with times.
        """
        _, found = await self.table(sql, parameters)
        return found

    async def table(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """The names of the columns of a user's query, also where it has no rows, and what `rows` returns."""
        given = parameters or {}
        typed = ((name, _type_of(value)) for name, value in given.items())
        kinds = (bindparam(name, type_=kind) for name, kind in typed if kind is not None)
        statement, plain = text(sql).bindparams(*kinds), self.dialect.plain

        async def read(connection: AsyncConnection) -> tuple[list[str], list[dict[str, Any]]]:
            found = await connection.execute(statement, dict(given))
            names = list(dict.fromkeys(found.keys()))
            return names, [{name: plain(value) for name, value in row.items()} for row in found.mappings()]

        return await self._read(read)

    async def fetch(self, statement: Executable) -> Sequence[Row[Any]]:
        """The rows of a statement of SQLAlchemy."""

        async def read(connection: AsyncConnection) -> Sequence[Row[Any]]:
            return (await connection.execute(statement)).all()

        return await self._read(read)

    async def watch(self) -> Watch:
        """Start watching for commits."""
        return await self.dialect.watch()

    async def size(self) -> int:
        """Bytes that the database takes on disk."""
        return await self._read(self.dialect.size)

    async def close(self) -> None:
        """Close the connection; a later call connects again."""
        await self._transactions.close()

    def failure(self, error: BaseException) -> Failure:
        """The kind of an error."""
        if isinstance(error, Conflict):
            return "poison"
        if isinstance(error, (SchemaError, ConfigError, MissingRights)):
            return "fatal"
        # The driver's error decides: our own message contains the path, which may contain any word.
        if not isinstance(error, StoreError):
            return self.dialect.failure(error)
        return "transient" if error.__cause__ is None else self.dialect.failure(error.__cause__)

    def leave_to_parent(self) -> None:
        """In a forked child: never use or finalize the parent's connection. The next call connects again."""
        self._transactions.leave_to_parent()

    async def _read(self, read: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `read` returns in a transaction of its own."""

        async def once() -> T:
            async with self.transaction() as connection:
                return await read(connection)

        return await self._again_after_fork(once)

    async def _again_after_fork(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, which is one transaction; a fork that ends it makes a second one necessary."""
        try:
            return await work()
        except self.errors as error:
            if not self.dialect.ended_by_fork(error):
                raise
        return await work()

    async def _state(self, connection: AsyncConnection) -> State:
        given, writes = self.dialect.url.query, not self._read_only
        found = await connection.run_sync(opened_state, self.url, parameters=given, writes=writes)
        if writes and found == "current":
            await self.dialect.look_for_index(connection)
        return found

    async def _upgrade(self) -> None:
        connection = await self._transactions.connected()
        await connection.run_sync(upgrade_connection)
        await self._read(self.dialect.look_for_index)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of the writer. Raises `Moved` if the file was moved, replaced or damaged."""
        if not self._transactions.is_shared:
            await self._reopen_if_moved()
        try:
            async with self.transaction() as connection:
                yield connection
        except Exception as error:
            self.dialect.look(error)
            raise

    async def _append(self, batch: Batch, added: Sequence[str]) -> list[Key]:
        """Returns what `_insert` returns. `added` are the conversations to which messages are added."""
        if not added:
            return await self._thread_and_insert(batch)
        await self._reopen_if_moved()
        # Without a lock two processes could add below the same message and so make a branch by accident.
        async with self._transactions.locking(added):
            return await self._thread_and_insert(batch)

    async def _thread_and_insert(self, batch: Batch) -> list[Key]:
        """Thread the messages and insert all rows. Returns what `_insert` returns."""
        unthreaded = [part for part in batch.parts if not part.threaded]
        known = await self._look_up(unthreaded) if unthreaded else Known()
        statements = statements_of(batch, known, self.dialect)
        first = next(statements)  # outside a transaction if possible, because it takes time
        assert first is not None
        async with self._writing() as connection:
            return await self._insert(connection, batch, first, statements)

    async def _look_up(self, parts: Sequence[Part]) -> Known:
        steps = Trampoline(look_up(parts))
        lookup = steps.step(None)
        if lookup is None:
            return steps.result
        async with self._writing() as connection:
            while lookup is not None:
                lookup = steps.step(await known_messages(connection, self.dialect, lookup))
        return steps.result

    async def _insert(
        self,
        connection: AsyncConnection,
        batch: Batch,
        first: Statements,
        others: Iterator[Statements | None],
    ) -> list[Key]:
        """Insert the rows. Returns the conversations and users that were found to belong together."""
        insert = partial(self._existing, connection)
        existing = set().union(*await overlapped(first, others, insert))
        checked = await self._owners.check(connection, batch)
        if producers in existing:
            await self._reopen_runs(connection, batch)
        if runs in existing:
            await self._check_run_ids(connection, batch)
        if segments in existing:
            await self._check_segments(connection, [row for rows in batch.runs for row in rows.segments])
        return checked

    async def _existing(self, connection: AsyncConnection, statements: Statements) -> set[Table]:
        """Execute the statements. Returns the tables in which rows with the same keys were stored already."""
        pairs = zip(statements.inserts, await self.dialect.insert(connection, statements), strict=True)
        return {insert.table for insert, written in pairs if written < len(insert.rows)}

    async def _try(self, invented: Batch) -> None:
        """Insert these rows, and roll them back."""
        async with self.transaction() as connection:
            savepoint = await connection.begin_nested()
            await self.dialect.insert(connection, self.dialect.statements(inserts_of(invented)))
            await savepoint.rollback()

    async def _reopen_if_moved(self) -> None:
        if self._moved is None:
            self._moved = await self._change_of_file()
            if self._moved is None:
                return
            log.error("%s", self._moved)
        await self.close()
        await self.open()
        self._owners = ConversationOwners()
        message, self._moved = self._moved, None
        raise Moved(message)

    async def _change_of_file(self) -> str | None:
        """What happened to the file; None if it is the same file as before and complete."""
        connection = await self._transactions.connected()
        if (damage := self.dialect.damage()) is not None:
            return await self._set_aside(damage)
        if not await self.dialect.moved(connection):
            return None
        return (
            f"{masked(self.url)} was moved, deleted or replaced while it was recorded into; from now on a file of that "
            "name is written, which does not hold what was stored before"
        )

    async def _set_aside(self, damage: Damage) -> str | None:
        happened = f"{masked(self.url)} or its log was cut or overwritten while it was recorded into"
        damage.set_aside()
        await self.close()
        if not damage.put_back(self._has_last_batch):
            return f"{happened}. {damage.location()}, which does not hold what was stored before"
        log.error(
            "%s; nothing is missing, because the log had what was cut, and recording goes on in this file",
            happened,
        )
        return None

    def _has_last_batch(self, connection: Any) -> bool:
        """Whether a SQLite file holds the last stored batch; then it holds all batches before it, too."""
        if self._last is None:
            return True
        query = "SELECT heartbeat_at FROM producers WHERE id = ?"
        found = connection.execute(query, (self._last.id,)).fetchall()
        return bool(found == [(iso(self._last.heartbeat_at),)])

    async def _reopen_runs(self, connection: AsyncConnection, batch: Batch) -> None:
        """Mark this producer alive and its open runs streaming, after the sweep of another process."""
        producer = batch.producer
        log.warning("Another process marked this one dead by mistake; its open runs are streaming again")
        mine = update(producers).where(producers.c.id == producer.id)
        await connection.execute(mine.values(process=producer.process, heartbeat_at=producer.heartbeat_at))
        ended = {rows.start.run_id for rows in batch.runs if rows.seal is not None}
        for part in _parts([run_id for run_id in batch.open_runs if run_id not in ended]):
            wrongly = runs.c.id.in_(part), runs.c.status == INTERRUPTED, runs.c.producer_id == producer.id
            await connection.execute(update(runs).where(*wrongly).values(status=STREAMING, ended_at=None))

    async def _check_run_ids(self, connection: AsyncConnection, batch: Batch) -> None:
        """Raise `RunIdTaken` for stored runs that are others; the same runs are stored after a lost commit response."""
        starts = {rows.start.run_id: rows.start.started_at for rows in batch.runs if rows.opens}
        conflicts: list[str] = []
        for part in _parts(list(starts)):
            query = select(runs.c.id, runs.c.producer_id, runs.c.started_at).where(runs.c.id.in_(part))
            found = await connection.execute(query)
            conflicts += [id for id, *own in found if own != [batch.producer.id, starts[id]]]
        if conflicts:
            raise RunIdTaken(conflicts)

    async def _check_segments(self, connection: AsyncConnection, written: Sequence[SegmentRow]) -> None:
        """Raise `Conflict` for stored rows that differ; equal rows are stored after a lost commit response."""
        key = tuple_(segments.c.run_id, segments.c.seq)
        for rows in _parts(written):
            part = {(row.run_id, row.seq): row for row in rows}
            query = select(segments).where(key.in_(list(part)))
            for run_id, seq, count, deltas in await connection.execute(query):
                row = part[(run_id, seq)]
                if (count, deltas) != (row.count, row.deltas):
                    raise Conflict(
                        f"Run {run_id} has {count} stored tokens from {seq} on that differ from the {row.count} of the "
                        "batch; two recorders use the same run id"
                    )

    def _unreadable(self, state: str) -> str:
        if state == "empty":
            return f"{masked(self.url)} holds no recording yet; record something, or name another database with --url"
        return old_message(self.url)


def _type_of(parameter: object) -> Id | Time | None:
    if isinstance(parameter, UUID):
        return Id()
    return Time() if isinstance(parameter, datetime) else None


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows in parts for queries with a limited number of parameters."""
    for start in range(0, len(rows), 500):
        yield rows[start : start + 500]


_stores: weakref.WeakSet[SqlStore] = weakref.WeakSet()


def _in_child() -> None:
    for store in list(_stores):
        store.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
