"""The recorder owns the queue, the store and the writer's thread, and ends them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from asyncio.events import _get_running_loop
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

from recorder.config import Config, default_url
from recorder.core.at_exit import at_exit, in_worker
from recorder.core.clock import monotonic_us, now
from recorder.core.greenlets import refuse_greenlets
from recorder.core.living import Living
from recorder.core.own_thread import AlwaysAccepting
from recorder.core.waitable import Limited, Wait
from recorder.errors import Closed, StoreError
from recorder.messages import BaseMessage
from recorder.recording.buffer import OpenRun
from recorder.recording.closing import WriterEnd, close_loop
from recorder.recording.deferred_store import DeferredStore, store_of
from recorder.recording.listeners import listeners_of
from recorder.recording.open_runs import OpenRuns
from recorder.recording.progress import describe_loss
from recorder.recording.queue import RecordingQueue
from recorder.recording.stats import LATE_AFTER, Stats
from recorder.recording.store_work import Work
from recorder.recording.writer import Writer
from recorder.storage.rows import INTERRUPTED, AnnotationRow, RunEnd, RunStart
from recorder.storage.store_interface import Store

log = logging.getLogger("recorder")

#: The longest that an exit without `close` waits for the queue to drain (seconds).
EXIT_TIMEOUT = 5.0
#: The longest that `opened` waits for the import of the database's libraries, beside `open_timeout` (seconds).
LOADING_TIMEOUT = 30.0
#: How much longer than its timeout `close` waits for a writer that does not end (seconds).
CLOSE_GRACE = 1.0

_recorders: Living[Recorder] = Living()


class Recorder:
    """Records runs into a database, from any thread, without waiting for the database.

    The constructor raises `ConfigError` and `SchemaError`, and with `strict` the errors of the database. Recording
    raises nothing. On a running event loop the constructor does not wait, and `opened` raises these errors. It
    then imports no library of the database either, if the URL is plain (`deferred_store.is_plain`).
    """

    _queue_type = RecordingQueue

    def __init__(
        self, url: str | None = None, config: Config | None = None, *, store: Store | None = None
    ) -> None:
        refuse_greenlets()
        self.config = config or Config()
        self.url = url or default_url()
        caller_waits = _get_running_loop() is None
        self._store = store or store_of(self.url, self.config, caller_waits=caller_waits)
        _reset_in_children()
        self.queue = self._queue_type(
            self.config.max_queue_bytes, overflow=self.config.overflow, block_timeout=self.config.block_timeout,
            frames_interval=self.config.frames_interval,
        )  # fmt: skip
        #: As in `Stats`.
        self.replaced_ids = 0
        #: Get what is recorded.
        self.listeners = listeners_of(self.url, self.config, store)
        #: Called by `close`, perhaps several times; they take no lock and do not wait.
        self.closing: list[Callable[[], None]] = []
        self._open_runs = OpenRuns(self.config.max_open_runs)
        #: The open runs, by id as an integer.
        self.runs = self._open_runs.open
        self._ended: Wait[Stats] = Wait()
        self._closing: Wait[Stats] | None = None
        self._exit_timeout: float | None = None  # as given to `close_at_exit`
        self._writer = self._new_writer(caller_waits=caller_waits)
        # The writer's thread, once it runs.
        self._thread: threading.Thread | None = None
        #: Whether this is a forked child whose writer has no thread yet.
        self._forked = False
        self._start_thread()
        if caller_waits:
            self._raise_if_refused()
        _recorders.add(self)

    def start(self, key: int, start: RunStart, started_us: int | None = None) -> OpenRun:
        """Start a run. Its offsets count from `started_us` (monotonic microseconds), by default from now."""
        if self._forked:
            self._start_thread()
        if (earlier := self.runs.get(key)) is not None:  # what comes later belongs to the new one
            self.end(key, earlier, RunEnd(INTERRUPTED, None))
        if self.listeners:
            self.listeners.begun(start)
        run = OpenRun(start, monotonic_us() if started_us is None else started_us)
        # Registered before it starts, so that it gets an end even if Ctrl-C comes in between.
        if self._open_runs.add(key, run, self.queue):
            self.queue.start(run)
        else:
            reason = f"more than {self.config.max_open_runs:,} runs were open (max_open_runs)"
            self.queue.reject(run, RunEnd(INTERRUPTED, run.moment()), reason)
        return run

    def add_request(
        self, start: RunStart, wire: str | None, input_hash: str | None, mask: Any, host: str | None
    ) -> None:
        """A run that has begun sends a request with this wire format to this host."""
        start.wire, start.input_hash, start.host, start.mask = wire, input_hash, host, mask or start.mask

    def reopen(self, key: int) -> OpenRun | None:
        """The run of a token, which is open again if it was ended for being idle; None if there is no such run."""
        return self._open_runs.reopen(key)

    def find(self, key: int) -> OpenRun | None:
        """The run with this id if it is open, or was ended for being idle; else None."""
        return self._open_runs.find(key)

    def end(self, key: int, run: OpenRun, end: RunEnd) -> None:
        """End a run, now. A second end is ignored. Takes no lock, because finalizers call it."""
        end.ended_at = run.moment()
        self.queue.end(run, end)
        self._open_runs.remove(key)

    def add(
        self, conversation_id: str, user_id: str | None, messages: Sequence[BaseMessage] = (), *,
        details: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Store messages without a run, and new details of a conversation. Raises `Closed`, and `StoreError` if the
        queue is full."""
        if self._forked:
            self._start_thread()
        if not self.queue.add((conversation_id, user_id), now(), messages, details=details):
            self._refuse_additions(len(messages) + len(details or ()))

    def annotate(self, row: AnnotationRow) -> None:
        """Store an annotation. Raises as `add` does."""
        if self._forked:
            self._start_thread()
        if not self.queue.add(("", None), row.created_at, annotations=[row]):
            self._refuse_additions(1)

    def opened(self) -> Wait[None]:
        """Ends when the database is open or recording begins without it. Raises the error of a refused recorder."""
        if self._forked and not self.closed:
            self._start_thread()
        return self._writer.opening.wait()

    @property
    def is_writer_here(self) -> bool:
        """Whether the caller runs on the writer's thread."""
        return self._thread is threading.current_thread()

    @property
    def producer_id(self) -> str:
        """The id under which this process records: `runs.producer_id`."""
        return self._writer.producer_id

    def flush(self) -> Wait[None]:
        """Ends when everything accepted until now is committed."""
        return self._writer.flush()

    def with_store(self, work: Work) -> Wait[Any]:
        """Run work on the writer's store between two batches; a wait for its result."""
        self.opened()  # in a forked child this starts the writer
        return self._writer.store_work.add(work)

    def close(self, timeout: float | None = None) -> Wait[Stats]:
        """Accept nothing more. The wait ends with the last stats when all is stored, or after `timeout` seconds.

        Runs that are still open become `interrupted`. A second close returns the first one's wait. Takes no lock,
        because signal handlers call it. The wait ends in time even if the writer's thread is blocked. On that thread,
        where a finalizer may run, it ends at once.
        """
        seconds = self.config.close_timeout if timeout is None else timeout
        if self._closing is None:
            self._closing = WriterEnd(
                self._ended, seconds + CLOSE_GRACE, self.stats, lambda: self.is_writer_here
            )
        # Every call does each step, because an earlier call may have been interrupted.
        for key, run in self._open_runs.unended().items():
            end = partial(self.end, key, run, RunEnd(INTERRUPTED, None))
            if self.queue.has_deferred:  # bytes of the run may come before its end
                self.queue.defer(end)
            else:
                end()
        if not self._writer.closing:
            self.queue.accepts_annotations = bool(self.listeners)
            self._writer.close(seconds)
        for closed in self.closing:
            closed()
        if self._forked:  # nothing was recorded in this process, and its writer has no thread
            self._writer.opening.succeed()
            self._ended.set(self.stats())
        return self._closing

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing is not None

    def stats(self) -> Stats:
        """Where the tokens are now."""
        progress, messages = self._writer.progress, self._writer.progress.messages
        # Read before the queue's counts: what is settled was drained before, so no token is counted twice.
        committed, quarantined, lost = progress.committed, progress.quarantined, progress.lost
        queued, drained, dropped, oldest = self.queue.counts()
        lag = (monotonic_us() - oldest) / 1e6 if oldest is not None else 0.0
        return Stats(
            accepted=queued + drained + dropped,
            queued=queued + drained - committed - quarantined - lost,
            queued_bytes=self.queue.bytes,
            untranslated_bytes=self.queue.untranslated_bytes,
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
            estimated_runs=progress.estimated + self._writer.estimates.estimated,
            unestimated_runs=self._writer.estimates.not_estimated,
            listener_errors=self.listeners.errors,
            lag=lag,
            last_error=progress.last_error,
            healthy=progress.healthy and lag <= self.config.batch_interval + LATE_AFTER,
        )

    def require_open(self) -> None:
        """Raise `Closed` after `close`, and `StoreError` if the recorder was refused. Never called for callbacks."""
        if (refusal := self._writer.opening.refusal) is not None:
            raise StoreError(f"Nothing is recorded, because the database could not be opened: {refusal}")
        if self.closed or self.queue.closed:
            raise Closed("This recorder is closed; open a new one, or keep its with-block open for longer")

    def _refuse_additions(self, count: int) -> None:
        self.require_open()
        raise StoreError(
            f"The queue is full ({self.queue.bytes:,} bytes) and {count} messages or annotations were not accepted; "
            "add them again after flush(), or raise max_queue_bytes"
        )

    def _new_writer(self, *, caller_waits: bool = False) -> Writer:
        return Writer(
            self.queue, self._store, self.config, self._open_runs, listeners=self.listeners, caller_waits=caller_waits,
        )  # fmt: skip

    def _start_thread(self) -> None:
        """Start the writer's thread. Takes no lock, because signal handlers call it in a forked child.

        Calls at the same time may start several threads. The first one works, and the others end at once.
        """
        self._writer.opening.restart_time(0.0 if self._is_loaded() else LOADING_TIMEOUT)
        # A daemon thread, because an exit without `close` must not wait for it; `_drain_at_exit` runs before the exit.
        try:
            threading.Thread(target=self._run_thread, name="recorder-writer", daemon=True).start()
        except RuntimeError as error:  # the limit of threads is reached, or the interpreter shuts down
            if self._writer.take():
                self._writer_failed(error)
        # Last: an exception of a signal handler may come before, and the next call starts again.
        self._forked = False
        in_worker(_drain_at_exit)

    def _run_thread(self) -> None:
        runner, is_first = None, True
        try:
            if not (is_first := self._writer.take()):
                return
            self._thread = threading.current_thread()
            self._load_store()
            runner = asyncio.Runner()
            runner.get_loop()  # may fail, and then no coroutine has been created
            runner.run(self._run_writer())
        except BaseException as error:  # no event loop could be created, or it was stopped from outside
            try:
                self._writer_failed(error)
            except Exception:  # memory had run out for the report, too
                self._writer_failed(error)
        finally:
            if is_first:
                self._finish()
            if runner is not None:
                close_loop(runner)

    def _is_loaded(self) -> bool:
        """Whether the libraries of the database are imported."""
        return not isinstance(self._store, DeferredStore) or self._store.is_loaded

    def _load_store(self) -> None:
        """Import them on this thread. `open_timeout` counts from then on, because the database was not asked before."""
        if not isinstance(self._store, DeferredStore) or self._store.is_loaded:
            return
        with suppress(Exception):  # opening the store tries again, and refuses the recorder with this error
            self._store.load()
        self._writer.opening.restart_time()
        if self._exit_timeout is not None:
            self._writer.close(self._exit_timeout)

    def _writer_failed(self, error: BaseException) -> None:
        """The writer stores nothing, or nothing more: end every wait with an error."""
        self._writer.died(error)
        self._writer.end()
        self._finish()

    async def _run_writer(self) -> None:
        # The driver of Postgres looks host names up there, also while the interpreter ends.
        asyncio.get_running_loop().set_default_executor(AlwaysAccepting(thread_name_prefix="recorder-work"))
        try:
            await self._writer.run()
        finally:
            # Before the loop is closed, because a driver that blocks can delay that without limit.
            self._finish()
            await self._writer.end_tasks()

    def _finish(self) -> None:
        self.close()
        self.listeners.end()
        self._ended.set(self.stats())

    def _raise_if_refused(self) -> None:
        try:
            self._writer.opening.wait().wait()
        except Exception:
            self.close(timeout=0)
            raise

    def close_at_exit(self, timeout: float) -> Wait[Stats] | None:
        """Close within `timeout` seconds, even if an earlier close allowed more; None if the recorder is closed.

        The import of the database's libraries is not counted: it may take long in a program that ends at once.
        """
        if self._closing is not None and self._closing.done:
            return None
        self._exit_timeout = timeout
        if not self._is_loaded():
            timeout += LOADING_TIMEOUT
        self.close(timeout)
        self._writer.close(timeout)
        return Limited(self._ended, timeout + CLOSE_GRACE, self.stats)

    def reset_in_child(self) -> None:
        """In a forked child: drop the queue, the thread and the open runs, which are the parent's. `start`, `add` and
        `opened` start the thread of a new writer."""
        self._open_runs.clear()
        self.listeners.reset_in_child()
        self.queue.reset()
        self._writer.fail_flushes_in_child()
        opening = self._writer.opening
        self._writer = self._new_writer()
        self._forked = True
        self._ended = Wait()
        if self._closing is not None:
            self.queue.close()
            self._writer.opening.end_as(opening)
            self._closing.renew()
            self._closing.set(self.stats())


def _drain_at_exit() -> None:
    closing = [(recorder, recorder.close_at_exit(EXIT_TIMEOUT)) for recorder in _recorders.now()]
    for recorder, closed in closing:
        if closed is None:
            continue  # closed before, and that caller has the stats
        stats = closed.wait()
        if (
            closed.done and recorder._thread is not None
        ):  # in its last steps, it may crash beside the interpreter's end
            recorder._thread.join(CLOSE_GRACE)
        tokens, messages = stats.queued + stats.dropped, stats.messages_added - stats.messages_stored
        if tokens or messages:
            reason = f": {stats.last_error}" if stats.last_error else ""
            print(f"recorder: {describe_loss(tokens, messages)} not stored{reason}", file=sys.stderr)


def _in_child() -> None:
    for recorder in _recorders.now():
        recorder.reset_in_child()


@cache
def _reset_in_children() -> None:
    """Let forked children reset their recorders. The store's own functions for this are called first, because they were
    registered first: a signal handler that runs in between finds a store that it can use."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)


at_exit(_drain_at_exit)
