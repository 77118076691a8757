"""The recorder's life: it owns the queue, the store and the writer's thread, and ends them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import weakref
from asyncio.events import _get_running_loop
from collections.abc import Sequence
from dataclasses import dataclass

from recorder.config import Config, default_url
from recorder.core.clock import monotonic_us, now
from recorder.core.exits import at_exit, in_worker
from recorder.core.greenlets import refuse_greenlets
from recorder.core.waitable import Limited, Wait, end_tasks
from recorder.errors import Closed, StoreError
from recorder.messages import BaseMessage
from recorder.recording.buffer import OpenRun
from recorder.recording.open_runs import OpenRuns
from recorder.recording.progress import missing
from recorder.recording.queue import RecordingQueue
from recorder.recording.writer import Writer
from recorder.storage.rows import INTERRUPTED, RunEnd, RunStart
from recorder.storage.store import SqlStore, Store

log = logging.getLogger("recorder")

#: The longest that an exit without `close` waits for the queue to drain (seconds).
EXIT_TIMEOUT = 5.0
#: How much longer than its time `close` waits for a writer that does not end (seconds).
CLOSE_GRACE = 1.0

_living: weakref.WeakSet[Recorder] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Stats:
    """Where the tokens are: `accepted = queued + committed + dropped + quarantined`."""

    #: Tokens that callbacks handed over.
    accepted: int
    #: Tokens in the queue or in the writer's hands, and the bytes they hold.
    queued: int
    queued_bytes: int
    #: Tokens that the database acknowledged.
    committed: int
    #: Tokens that found no room, came after their run's end or after `close`.
    dropped: int
    #: Tokens that the database will never take; each has a row in `gaps`.
    quarantined: int
    #: Transactions.
    commits: int
    #: Messages that were added without a run, and those of them that the database acknowledged.
    messages_added: int
    messages_stored: int
    #: Runs that have begun and not ended, and runs that were closed for being idle and can be opened again.
    open_runs: int
    idle_runs: int
    #: Runs that found no room when they began, or were more than `max_open_runs`: their row and a gap are stored,
    #: their messages are not. And those of them that found no room even for the row: nothing of them is stored.
    refused_runs: int
    lost_runs: int
    #: Messages of requests and replies that found no room.
    lost_messages: int
    #: Conversation ids from metadata that were too long and replaced by new ones.
    replaced_ids: int
    #: Seconds that the oldest queued thing has been waiting to be taken.
    lag: float
    #: The last error's text; None when there was none. It may be long over: see `healthy`.
    last_error: str | None
    #: Whether the database's last answer was a good one.
    healthy: bool


class Recorder:
    """Records runs into a database, from any thread, without waiting for it.

    Raises `ConfigError` and `SchemaError` at construction, and what the database says when `strict`; nothing
    afterwards. On a running event loop construction waits for nothing, and `opened` raises the same.
    """

    def __init__(
        self, url: str | None = None, config: Config | None = None, *, store: Store | None = None
    ) -> None:
        refuse_greenlets()
        self.config = config or Config()
        self.url = url or default_url()
        self._store = store or SqlStore(self.url, sync=self.config.sync)
        #: The queue that callbacks put into.
        self.queue = RecordingQueue(
            self.config.max_queue_bytes,
            overflow=self.config.overflow,
            block_timeout=self.config.block_timeout,
            frames_interval=self.config.frames_interval,
        )
        #: Conversation ids that were too long.
        self.replaced_ids = 0
        self._open_runs = OpenRuns(self.config.max_open_runs)
        #: The open runs by their id as an integer.
        self.runs = self._open_runs.open
        self._lock = threading.Lock()
        self._over: Wait[Stats] = Wait()
        self._closing: Wait[Stats] | None = None
        caller_waits = _get_running_loop() is None
        self._begin(caller_waits=caller_waits)
        if caller_waits:
            self._raise_if_refused()
        _living.add(self)

    def start(self, key: int, start: RunStart, started_us: int | None = None) -> OpenRun:
        """Begin a run. `started_us` is the monotonic zero of its offsets, now unless given."""
        if self._forked:
            self._begin_after_fork()
        if key in self.runs:  # of the two, nothing that comes can be told to be the first one's
            self.end(key, RunEnd(INTERRUPTED, now()))
        run = OpenRun(start, monotonic_us() if started_us is None else started_us)
        # Kept before it begins, so that it has an end even if Ctrl-C comes in between.
        if self._open_runs.add(key, run):
            self.queue.start(run)
        else:
            reason = f"more than {self.config.max_open_runs:,} runs were open (max_open_runs)"
            self.queue.reject(run, RunEnd(INTERRUPTED, run.moment()), reason)
        return run

    def reopen(self, key: int) -> OpenRun | None:
        """The run that a token belongs to which belongs to no open one: it was closed for being idle."""
        return self._open_runs.reopen(key)

    def end(self, key: int, end: RunEnd) -> None:
        """End a run; one that is not open is left alone. Takes no lock: finalizers call it."""
        run = self._open_runs.find(key)
        if run is not None:
            end.ended_at = run.moment()
            self.queue.end(run, end)
            self._open_runs.remove(key)

    def add(self, conversation_id: str, messages: Sequence[BaseMessage]) -> None:
        """Store messages without a run. Raises `Closed`, and `StoreError` where there is no room for them."""
        if self._forked:
            self._begin_after_fork()
        if not self.queue.add(conversation_id, messages, now()):
            self.require_open()
            raise StoreError(
                f"The queue is full ({self.queue.bytes:,} bytes) and {len(messages)} messages were not taken; "
                "add them again after flush(), or raise max_queue_bytes"
            )

    def opened(self) -> Wait[None]:
        """Over when the database is open or the recorder goes on without it; raises what it was refused for."""
        return self._writer.opening.wait()

    def flush(self) -> Wait[None]:
        """Over when everything accepted until now is committed."""
        return self._writer.flush()

    def close(self, timeout: float | None = None) -> Wait[Stats]:
        """Take nothing more and drain; over, with the last stats, when all is stored or the time has run out.

        Runs that are still open become `interrupted`. A second close returns the first one's wait. Takes no lock:
        signal handlers call it. What is returned is over in time even if the writer's thread is stuck.
        """
        seconds = self.config.close_timeout if timeout is None else timeout
        if self._closing is None:
            self._closing = Limited(self._over, seconds + CLOSE_GRACE, self.stats)
        # Each step is for every call: one before may have been interrupted.
        for key in list(self.runs):
            self.end(key, RunEnd(INTERRUPTED, now()))
        if not self._writer.closing:
            self._writer.close(seconds)
        if self._forked:  # nothing was recorded in this process, and no thread runs
            self._over.set(self.stats())
        return self._closing

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing is not None

    def stats(self) -> Stats:
        """Where the tokens are right now."""
        progress = self._writer.progress
        # Before the queue is looked at: what is settled was taken, so that no token is in two places.
        committed, quarantined, lost = progress.committed, progress.quarantined, progress.lost
        messages = progress.messages
        waiting, taken, dropped, oldest = self.queue.counts()
        return Stats(
            accepted=waiting + taken + dropped,
            queued=waiting + taken - committed - quarantined - lost,
            queued_bytes=self.queue.bytes,
            committed=committed,
            dropped=dropped + lost,
            quarantined=quarantined,
            commits=progress.commits,
            messages_added=self.queue.added,
            messages_stored=messages,
            open_runs=len(self.runs),
            idle_runs=self._open_runs.idle_count,
            refused_runs=self.queue.refused_runs,
            lost_runs=self.queue.lost_runs,
            lost_messages=self.queue.lost_messages,
            replaced_ids=self.replaced_ids,
            lag=(monotonic_us() - oldest) / 1e6 if oldest is not None else 0.0,
            last_error=progress.last_error,
            healthy=progress.healthy,
        )

    def require_open(self) -> None:
        """Raise `Closed` when it is, and `StoreError` when it never began; for calls that a person makes, never for
        callbacks."""
        if (refusal := self._writer.opening.refusal) is not None:
            raise StoreError(f"Nothing is recorded, for the database could not be opened: {refusal}")
        if self.closed or self.queue.closed:
            raise Closed("This recorder is closed; open a new one, or keep its with-block open for longer")

    def _begin(self, *, caller_waits: bool = False) -> None:
        self._writer = self._new_writer(caller_waits=caller_waits)
        self._forked = False
        # A daemon, or an exit without `close` would wait for it for ever; `_drain_at_exit` comes before.
        try:
            threading.Thread(target=self._record, name="recorder-writer", daemon=True).start()
        except RuntimeError as error:  # as many threads as there may be, or the interpreter shuts down
            self._never_ran(error)
        in_worker(_drain_at_exit)

    def _new_writer(self, *, caller_waits: bool = False) -> Writer:
        return Writer(self.queue, self._store, self.config, self._open_runs, caller_waits=caller_waits)

    def _begin_after_fork(self) -> None:
        with self._lock:
            if self._forked:
                self._begin()

    def _record(self) -> None:
        try:
            with asyncio.Runner() as runner:  # where no loop can be made, there is no coroutine yet
                runner.run(self._write())
        except BaseException as error:  # no event loop could be made, or somebody tore it down
            self._never_ran(error)
        finally:
            self._closed()

    def _never_ran(self, error: BaseException) -> None:
        """Nothing is stored by this writer, or nothing more: whoever waits for it is told."""
        self._writer.died(error)
        self._writer.end()
        self._closed()

    async def _write(self) -> None:
        try:
            await self._writer.run()
        finally:
            # Before the loop is torn down: a driver that blocks keeps it for as long as it likes.
            self._closed()
            await end_tasks(CLOSE_GRACE)

    def _closed(self) -> None:
        self.close()
        self._over.set(self.stats())

    def _raise_if_refused(self) -> None:
        try:
            self._writer.opening.wait().wait()
        except Exception:
            self.close(timeout=0)
            raise

    def hasten(self, timeout: float) -> Wait[Stats] | None:
        """Close, if that is not over yet, and end after `timeout` seconds, whatever an earlier close allowed."""
        if self._closing is not None and self._closing.done:
            return None
        closing = self.close(timeout)
        self._writer.close(timeout)
        return closing

    def reset_in_child(self) -> None:
        """In a child: the queue, its thread and the open runs are the parent's; begin anew at the next run."""
        self._open_runs.clear()
        self.queue.reset()
        self._lock = threading.Lock()
        self._writer.fail_flushes_in_child()
        self._writer = self._new_writer()
        self._forked = True
        self._over = Wait()
        if self._closing is not None:
            self.queue.close()
            self._closing.renew()
            self._closing.set(self.stats())


def _drain_at_exit() -> None:
    over = monotonic_us() / 1e6 + EXIT_TIMEOUT + 1
    closing = [(recorder, recorder.hasten(EXIT_TIMEOUT)) for recorder in list(_living)]
    for recorder, closed in closing:
        if closed is None:
            continue  # over before: who closed it was told
        try:
            stats = closed.wait(max(0.0, over - monotonic_us() / 1e6))
        except TimeoutError:
            stats = recorder.stats()
        tokens, messages = stats.queued + stats.dropped, stats.messages_added - stats.messages_stored
        if tokens or messages:
            why = f": {stats.last_error}" if stats.last_error else ""
            print(f"recorder: {missing(tokens, messages)} not stored{why}", file=sys.stderr)


def _in_child() -> None:
    for recorder in list(_living):
        recorder.reset_in_child()


at_exit(_drain_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
