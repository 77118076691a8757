"""The coroutine that takes, packs, commits, retries and settles; the only one that knows a database.

An idle writer commits at once, so that the user's message is stored before the first token comes; after that no
batch starts sooner than `flush_interval` after the last was done, so that a batch holds many tokens of a run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from recorder.attempts import Attempts
from recorder.clock import monotonic_us, now
from recorder.config import Config
from recorder.dialects import TO_BE_TRIED_AGAIN
from recorder.errors import StoreError
from recorder.fields import bare_end
from recorder.identity import new_id
from recorder.intake import Intake
from recorder.lineage import asked, thread
from recorder.liveness import is_dead, this_process
from recorder.openrun import OpenRun, Took
from recorder.pack import pack
from recorder.progress import Progress, missing
from recorder.records import Addition, Batch, GapRow, Part, Producer, RunRows
from recorder.store import Store, Taken
from recorder.stored import escape
from recorder.waiting import Wait

log = logging.getLogger("recorder")

#: Full jitter between these (seconds), doubling: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
MIN_RETRY = 0.05
MAX_RETRY = 5.0
#: So often a new recorder tries to open its database before it says that it cannot.
_QUIET_ATTEMPTS = 3
#: The longest pause between attempts while closing.
_LAST_RETRY = 0.2


class Writer:
    """Moves what the intake holds into the store until it is closed."""

    def __init__(self, intake: Intake, store: Store, config: Config) -> None:
        self._intake = intake
        self._store = store
        self._config = config
        # Flushes that the writer has not seen yet, and those it has, with the ticket that each waits for.
        self._new_flushes: deque[Wait[None]] = deque()
        self._flushes: list[tuple[int, Wait[None]]] = []
        self._settled = 0
        self._ended = False
        self._last_end = -inf
        self._beat_at = 0.0
        self._deadline: float | None = None
        #: Whether the driver was left in the middle of a call when the time to close ran out.
        self._blocked = False
        #: What a flush raises once tokens were lost, which happens only at the end.
        self._loss: StoreError | None = None
        self._producer = Producer(new_id(), socket.gethostname(), os.getpid(), now(), now(), this_process())
        self._attempts = Attempts()
        #: The runs that are stored and have no end yet, by their ids.
        self._streaming: dict[str, OpenRun] = {}
        self.progress = Progress()
        #: Over when the database was opened, or could not be.
        self.opened: Wait[None] = Wait()

    def flush(self) -> Wait[None]:
        """Over when everything accepted until now is committed. Callable from any thread, and takes no lock."""
        wait: Wait[None] = Wait()
        if self._intake.is_settled(self._settled) and self._loss is None:
            wait.set(None)
            return wait
        self._new_flushes.append(wait)
        self._intake.want()
        if self._ended:  # perhaps before it saw this one
            self._settle_until(self._settled)
        return wait

    def close(self, timeout: float) -> None:
        """Take nothing more, drain for at most `timeout` seconds, then end. Callable from any thread, and again."""
        deadline = _seconds() + timeout
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        self._intake.close()

    @property
    def closing(self) -> bool:
        """Whether it was told when to end."""
        return self._deadline is not None

    def leave_to_parent(self) -> None:
        """In a forked child: nothing flushes here what the parent's queue holds."""
        for wait in [*self._new_flushes, *(wait for _, wait in self._flushes)]:
            wait.renew()
            wait.fail(StoreError("The process forked during this flush, which is the parent's; flush again"))

    async def run(self) -> None:
        """Until `close`. Never raises for what the database does."""
        self._intake.bind(self._config.max_batch_bytes)
        try:
            if not await self._open():
                return
            while True:
                await self._rest()
                closed = self._intake.closed  # looked at first: what comes before the end is taken below
                self._look_at_flushes()
                took = self._intake.take(self._config.max_batch_bytes)
                if took.ticket:
                    await self._write(took)
                elif closed:
                    return
                else:
                    self._settle_until(self._settled)
                await self._heartbeat()
        finally:
            last = self._intake.unbind()
            self._forsake()
            self._ended = True
            self._settle_until(last)
            await self._closed_store()

    async def _open(self) -> bool:
        """Open the store; a failure goes to whoever constructed the recorder, who raises it or lets us try on."""
        attempt = 0
        while True:
            try:
                await self._in_time(self._store.open())
            except Exception as error:
                if self._blocked or not self._goes_on(error, attempt):
                    return False
                if not await self._pause(attempt):
                    return False
                attempt += 1
            else:
                self.progress.healthy = True
                # While whoever constructs the recorder waits: later, beside a busy application, it takes 50 times as
                # long, and the first message would wait for it.
                await self._heartbeat()
                self.opened.set(None)
                return True

    def _goes_on(self, error: Exception, attempt: int) -> bool:
        """Whether to try to open the store again, and telling of it."""
        transient = self._store.failure(error) in TO_BE_TRIED_AGAIN
        # Two processes that make the same new file at once: one of them finds it locked for a moment.
        if transient and attempt < _QUIET_ATTEMPTS:
            return True
        # Who constructs the recorder either raises this, or goes on and sees it in `stats()`.
        goes_on = self.opened.done or (transient and not self._config.strict)
        if goes_on:
            self.progress.failed(error, "opening the database")
        else:
            self.progress.note(error, "opening the database")
            self.progress.healthy = False
        if not self.opened.done:
            self.opened.fail(error)
        return goes_on

    async def _rest(self) -> None:
        """Until there is work and its time has come, or the heartbeat is due."""
        patience = min(self._beat_at - _seconds(), self._intake.due())
        if patience > 0:
            try:
                await asyncio.wait_for(self._intake.work(), patience)
            except TimeoutError:
                pass  # frames have come of age, or the heartbeat is due
        if self._deadline is not None:
            return
        spacing = self._config.flush_interval
        if self._config.max_commits_per_second:
            spacing = max(spacing, 1 / self._config.max_commits_per_second)
        while (left := self._last_end + spacing - _seconds()) > 0 and not self._intake.wanted:
            await self._intake.urgency(min(left, max(0.0, self._beat_at - _seconds())))
            await self._heartbeat()

    async def _write(self, took: Took) -> None:
        packed = self._attempts.separate(pack(took.runs))
        self.progress.quarantined += sum(rows.unpacked for rows in packed)
        await self._commit([*packed, *took.additions])
        for each in took.runs:
            run = each.run
            if each.end is None:
                self._streaming[run.start.run_id] = run
            else:
                self._streaming.pop(run.start.run_id, None)
        self._last_end = _seconds()
        self._settle_until(took.ticket)

    async def _commit(self, batch: list[Part]) -> None:
        """Store these rows, whatever it takes; rows that never can be stored are left out and told of."""
        attempt = 0
        while True:
            if self._deadline is not None and _seconds() > self._deadline:
                return self._lose(batch)
            try:
                await self._in_time(self._append(batch))
            except Taken as error:
                self._attempts.rename(batch, error.run_ids)
            except Exception as error:
                if self._blocked:
                    return self._lose(batch)
                if self._store.failure(error) == "poison":
                    return await self._divide(batch, error)
                self.progress.failed(error, "storing")
                if not await self._pause(attempt):
                    return self._lose(batch)
                attempt += 1
            else:
                return self._settle(batch)

    async def _in_time(self, work: Coroutine[Any, Any, object]) -> None:
        """Wait for it, but not beyond the time to close, however long the driver blocks; then `TimeoutError`."""
        task = asyncio.ensure_future(work)
        while not task.done():
            left = inf if self._deadline is None else self._deadline - _seconds()
            if left <= 0:
                self._blocked = True
                task.cancel()
                raise TimeoutError
            await asyncio.wait({task}, timeout=min(left, _LAST_RETRY))
        task.result()

    async def _append(self, batch: list[Part]) -> None:
        loose = [part for part in batch if not part.threaded]
        if additions := _sorted_out(loose)[1]:
            # Two that add below the same message would make a branch, which no request asked for.
            async with self._store.alone([addition.conversation_id for addition in additions]):
                return await self._store_threaded(loose, batch)
        return await self._store_threaded(loose, batch)

    async def _store_threaded(self, loose: Sequence[Part], batch: Sequence[Part]) -> None:
        if loose:
            thread(loose, await self._store.known(asked(loose)))
        self._producer = replace(self._producer, heartbeat_at=now())
        await self._store.append(Batch(self._producer, *_sorted_out(batch), self._streaming))

    async def _divide(self, batch: list[Part], error: Exception) -> None:
        """Halve a batch that holds something poisonous until the one part is found, and store the rest."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            return await self._commit(batch[middle:])
        words = self.progress.note(error, "storing")
        if isinstance(part := batch[0], Addition):
            return self._leave_out(part, words)
        return await self._reduce(part, words)

    def _leave_out(self, addition: Addition, words: str) -> None:
        where = addition.conversation_id
        log.error(
            "%d messages added to conversation %r cannot be stored: %s", len(addition.said), where, words
        )
        self._release([addition])

    async def _reduce(self, rows: RunRows, words: str) -> None:
        """Store a run without what never can be: first its messages, then what its end says beside the status, and
        last its tokens, of which a gap has the numbers."""
        run_id = rows.start.run_id
        if rows.messages or not rows.threaded:
            log.error("Run %s: its messages cannot be stored and are left out: %s", run_id, words)
            return await self._commit([replace(rows, messages=[], threaded=True)])
        if rows.seal is not None and rows.seal.end != (bare := bare_end(rows.seal.end)):
            log.error("Run %s: what its end says cannot be stored and is left out: %s", run_id, words)
            return await self._commit([replace(rows, seal=replace(rows.seal, end=bare))])
        if not rows.segments and not rows.frames:
            log.error("Run %s cannot be stored at all: %s", run_id, words)
            return self._release([rows])
        log.error("Run %s: %d tokens cannot be stored and are left out: %s", run_id, rows.tokens, words)
        self.progress.quarantined += rows.tokens
        reason = escape(f"quarantined: {words}"[:500])
        gaps = [*rows.gaps, *(GapRow(row.run_id, row.seq, row.count, reason) for row in rows.segments)]
        return await self._commit([replace(rows, segments=[], frames=(), gaps=gaps, tokens=0)])

    def _settle(self, batch: list[Part]) -> None:
        progress = self.progress
        progress.commits += 1
        progress.committed += sum(part.tokens for part in batch)
        progress.messages += sum(len(part.said) for part in batch if isinstance(part, Addition))
        self.progress.went_well()
        self._release(batch)

    def _lose(self, batch: list[Part]) -> None:
        runs, additions = _sorted_out(batch)
        self._count_lost(sum(rows.tokens for rows in runs), sum(len(part.said) for part in additions))
        self._release(batch)

    def _forsake(self) -> None:
        """What is in the queue when the writer ends; something only where it never opened the database."""
        took = self._intake.take(sys.maxsize)
        if took.ticket:
            tokens = sum(len(tokens) for part in took.runs for tokens in part.tokens)
            self._count_lost(tokens, sum(len(addition.said) for addition in took.additions))
            self._intake.release(took.bytes)

    def _count_lost(self, tokens: int, messages: int) -> None:
        self.progress.lost += tokens
        self.progress.lost_messages += messages
        self._loss = StoreError(
            f"Closed with the database away: {missing(self.progress.lost, self.progress.lost_messages)} not stored "
            f"({self.progress.last_error})"
        )
        log.error("%s", self._loss)

    def _release(self, batch: list[Part]) -> None:
        for rows in _sorted_out(batch)[0]:
            # Stored once; an open run keeps only what its end needs.
            rows.start.messages = rows.start.path = ()
            rows.start.request = rows.start.metadata = None
        self._intake.release(sum(part.bytes for part in batch))

    def _look_at_flushes(self) -> None:
        """Those that are new wait for everything that is queued now."""
        self._intake.look()
        new: list[Wait[None]] = []
        while self._new_flushes:
            new.append(self._new_flushes.popleft())
        if new:  # only then: what is queued after this look is not theirs
            ticket = self._intake.hurry()
            self._flushes += [(ticket, wait) for wait in new]

    def _settle_until(self, ticket: int) -> None:
        self._settled = ticket
        done = [wait for wanted, wait in self._flushes if wanted <= ticket]
        self._flushes = [entry for entry in self._flushes if entry[0] > ticket]
        while self._ended and self._new_flushes:
            done.append(self._new_flushes.popleft())
        for wait in done:
            if self._loss is None:
                wait.set(None)
            else:
                wait.fail(self._loss)

    async def _heartbeat(self) -> None:
        """Now and then say that this process lives, and sweep the runs of processes that do not."""
        if _seconds() < self._beat_at:
            return
        self._beat_at = _seconds() + self._config.heartbeat_interval
        self._producer = replace(self._producer, heartbeat_at=now())
        try:
            await self._in_time(self._store.append(Batch(self._producer, [], (), self._streaming)))
            await self._in_time(self._store.sweep(self._is_dead, now()))
            self.progress.went_well()
        except Exception as error:
            self.progress.failed(error, "the heartbeat")

    def _is_dead(self, producer: Producer) -> bool:
        """Another's, silent for too long or gone."""
        return producer.id != self._producer.id and is_dead(producer, now(), self._config.interrupted_after)

    async def _pause(self, attempt: int) -> bool:
        """Wait before the next attempt, with full jitter; False when the time to close has run out."""
        longest = min(MAX_RETRY, MIN_RETRY * 2 ** min(attempt, 10))
        over = _seconds() + random.uniform(MIN_RETRY, max(longest, MIN_RETRY))
        while (left := over - _seconds()) > 0:
            if self._deadline is not None:  # the time that is left is for trying
                await asyncio.sleep(max(0.0, min(left, _LAST_RETRY, self._deadline - _seconds())))
                return _seconds() < self._deadline
            await asyncio.sleep(min(left, _LAST_RETRY))  # `close` may come meanwhile
        return True

    async def _closed_store(self) -> None:
        if self._blocked:
            return  # its thread is in the database still, and ends with the process
        try:
            await self._store.close()
        except Exception as error:
            self.progress.failed(error, "closing the database")


def _sorted_out(batch: Sequence[Part]) -> tuple[list[RunRows], list[Addition]]:
    return [part for part in batch if isinstance(part, RunRows)], [
        part for part in batch if isinstance(part, Addition)
    ]


def _seconds() -> float:
    return monotonic_us() / 1e6
