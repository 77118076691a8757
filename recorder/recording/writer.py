"""The writer: a coroutine that drains the queue, serializes and commits. Only it uses the database.

An idle writer commits at once, so that the user's message is stored before the first token comes. After that no batch
starts sooner than `flush_interval` after the previous one was committed, so that a batch holds many tokens of a run.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from itertools import count
from math import inf
from typing import Any

from recorder.config import Config
from recorder.core.clock import now
from recorder.core.deadline import MIN_RETRY, Deadline, seconds
from recorder.core.waitable import Wait, end_tasks
from recorder.costs.live_estimates import LiveEstimates
from recorder.costs.run_pricing import RunPricing
from recorder.costs.sealed_estimates import SealedEstimates
from recorder.errors import StoreError
from recorder.recording.batch_in_flight import InFlightBatch
from recorder.recording.buffer import DrainedBatch
from recorder.recording.committer import Committer
from recorder.recording.database_opening import Opening
from recorder.recording.flushes import Flushes
from recorder.recording.late_indexing import LateIndexing
from recorder.recording.listeners import LastAnnotations, Listeners
from recorder.recording.open_runs import OpenRuns
from recorder.recording.progress import Progress
from recorder.recording.queue import RecordingQueue
from recorder.recording.replacement_rows import ReplacementRows
from recorder.recording.serialize import serialize
from recorder.recording.store_work import StoreWork
from recorder.storage.batch import RunRows
from recorder.storage.liveness import is_dead
from recorder.storage.rows import Producer
from recorder.storage.store_interface import Moved, Store

log = logging.getLogger("recorder")

#: How long closing the database may take after the time to close has run out (seconds).
CLOSE_GRACE = 0.5
#: How long tasks that are left on the event loop may take to end after they were cancelled (seconds).
_END_GRACE = 1.0


class Writer:
    """Moves what the queue holds into the store until it is closed."""

    def __init__(
        self, queue: RecordingQueue, store: Store, config: Config, open_runs: OpenRuns, *,
        listeners: Listeners | None = None, caller_waits: bool = True,
    ) -> None:  # fmt: skip
        self._queue = queue
        self._store = store
        self._config = config
        self._open_runs = open_runs
        self._flushes = Flushes(queue)
        self._in_flight: InFlightBatch | None = None
        # Failures in a row for a reason other than the database.
        self._failures = 0
        # Times on the monotonic clock (seconds): the last commit, the next heartbeat, the next search for idle runs.
        self._committed_at = -inf
        self._heartbeat_at = 0.0
        self._idle_at = inf if config.run_idle_timeout is None else 0.0
        self._deadline = Deadline()
        self.progress = Progress()
        self._listeners = Listeners() if listeners is None else listeners
        self._committer = Committer(
            store, self.progress, self._deadline, config.max_batch_bytes, self._listeners
        )
        self._pricing = RunPricing(config.priced_as)
        self.sealed_estimates = SealedEstimates(is_on=config.estimate_usage)
        self.estimates = LiveEstimates(
            store,
            self._pricing.host_of,
            is_on=config.estimate_usage,
            is_busy=lambda: queue.has_work,
            wake=queue.wake_writer,
            stored=self._listeners.estimated,
        )
        self.late_indexing = LateIndexing(store)
        self._last_annotations = LastAnnotations(self._listeners, queue, self._deadline)
        self._replacement_rows = ReplacementRows(self.progress)
        self.store_work = StoreWork(queue.wake_writer)
        self.opening = Opening(store, config, self.progress, caller_waits=caller_waits)
        self._takers = count()

    def take(self) -> bool:
        """Whether the caller is the first one, who may call `run`. May be called on any thread, and takes no lock."""
        return next(self._takers) == 0

    def flush(self) -> Wait[None]:
        """Ends when everything accepted until now is committed. May be called on any thread, and takes no lock."""
        return self._flushes.add()

    def close(self, timeout: float) -> None:
        """Close the queue, and end when it is drained or after `timeout` seconds. May be called on any thread, and more
        than once."""
        self._deadline.set(timeout)
        self._queue.close()

    @property
    def producer_id(self) -> str:
        """The id under which this process records."""
        return self._committer.producer.id

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._deadline.is_set

    def fail_flushes_in_child(self) -> None:
        """In a forked child: fail every flush, because the parent's queue is not stored here."""
        self._flushes.fail_in_child()

    async def run(self) -> None:
        """Work until `close`. Raises neither for errors of the database nor for errors in storing a batch."""
        self._queue.bind_loop(self._config.max_batch_bytes)
        try:
            goes_on, failure = await self._begin()
            while goes_on:
                try:
                    goes_on = await (
                        self._store_next_batch() if failure is None else self._recover_from(failure)
                    )
                    failure = None
                except Exception as error:  # a bug in recorder, or no memory
                    if (
                        failure is not None
                    ):  # reporting the first error failed: the second one is not reported
                        await asyncio.sleep(MIN_RETRY)
                    failure = error if failure is None else None
        except BaseException as error:  # the event loop was stopped from outside
            self.died(error)
            raise
        finally:
            self.end()
            await self._close_store()

    async def _begin(self) -> tuple[bool, Exception | None]:
        """Open the database. Returns whether recording goes on, and what failed after recording had begun."""
        try:
            return await self._open(), None
        except Exception as error:
            if not self.opening.has_begun:
                raise
            return True, error

    def end(self) -> None:
        """Nothing is stored any more: count what is left as lost, and end every flush."""
        try:
            self._count_rest_as_lost()
        except Exception as error:
            self.died(error)
        self._flushes.end_all()
        self.store_work.end()

    def died(self, error: BaseException) -> None:
        """The writer has ended though the recorder was not closed: flushes and the opening raise an error."""
        self.progress.writer_died(error)
        self._flushes.loss = StoreError(
            f"The recorder's writer ended ({self.progress.last_error}); open a new one"
        )
        # A cancellation, or the end of a coroutine, must not be raised in the code that waits.
        self.opening.writer_ended(error if isinstance(error, Exception) else self._flushes.loss)

    async def _store_next_batch(self) -> bool:
        """Wait until there is something to store, and store it. Returns whether to go on."""
        if self._in_flight is not None:
            await self._store_parts_separately(self._in_flight)
        await self._wait_for_work()
        if self._replacement_rows and not self._deadline.is_over:
            await self._replacement_rows.store(self._committer.file, self._store_replacement)
        closed = self._queue.closed  # read first: what was accepted before it closed is drained below
        self._flushes.accept_new()
        if self.store_work:
            await self._in_time(partial(self.store_work.run, self._store))
        self._in_flight = self._new_in_flight()
        drained = self._queue.drain(self._committer.batch_size.now, self._in_flight.drained)
        if not drained.is_empty:
            committer = self._committer
            rows = committer.attempts.separate(serialize(drained.runs, committer.file))
            self.sealed_estimates.set_usage(rows)
            self._pricing.set_costs(rows)
            parts = self._in_flight.set_rows(rows)
            await committer.commit(self._in_flight, parts)
            committer.update_streaming(drained)
            self.estimates.add(rows)
            self.late_indexing.add(parts)
            self._committed_at = seconds()
        self._flushes.settle(drained.queue_offset)
        self._in_flight = None
        self._failures = 0
        if closed and drained.is_empty:
            await self._in_time(partial(self.estimates.finish, self._has_no_time))
            self.estimates.give_up()
            return await self._last_annotations.may_come()
        await self._heartbeat()
        self._close_idle_runs()
        return True

    async def _recover_from(self, error: Exception) -> bool:
        """Report the error and pause. Returns whether to go on."""
        self._failures += 1
        self._queue.wake_writer()  # a wake request for a flush may have been cleared before the error
        self.progress.batch_failed(error)
        return await self._deadline.pause(self._failures)

    async def _store_parts_separately(self, in_flight: InFlightBatch) -> None:
        """Storing a batch failed for a reason other than the database: store each part by itself, give up the rest."""
        in_flight.failures += 1
        if in_flight.failures == 1:
            file = self._committer.file
            for part in in_flight.unsettled() if in_flight.parts else in_flight.set_rows_without_tokens(file):
                try:
                    await self._committer.commit(in_flight, [part])
                except Exception as error:
                    self.progress.batch_failed(error)
            self._committer.update_streaming(in_flight.drained)
        try:
            file = self._committer.file
            self._replacement_rows.add(file, in_flight.replacement_rows(file))
        except Exception as error:  # it failed before, too; the tokens are counted below
            self.progress.batch_failed(error)
        in_flight.give_up()
        self._in_flight = None

    async def _store_replacement(self, rows: RunRows) -> None:
        in_flight = self._new_in_flight()
        await self._committer.commit(in_flight, in_flight.add_rows([rows]))

    def _new_in_flight(self, drained: DrainedBatch | None = None) -> InFlightBatch:
        return InFlightBatch(drained or DrainedBatch(), self._queue, self._flushes, self.progress)

    async def _open(self) -> bool:
        """Open the store, however long it takes. Returns whether recording begins."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._config.open_timeout, self._on_open_timeout)
        try:
            return await self._open_with_retries()
        finally:
            timer.cancel()

    async def _open_with_retries(self) -> bool:
        attempt = 0
        while True:
            try:
                await self._deadline.in_time(self._store.open())
            except Exception as error:
                if self._deadline.blocked or not self.opening.should_retry(error, attempt):
                    return False
                if not await self._deadline.pause(attempt):
                    return False
                attempt += 1
            else:
                self.progress.healthy = True
                # Now, while the recorder's constructor waits: later, beside a busy application, a heartbeat takes 50
                # times as long, and would delay the first message.
                await self._heartbeat()
                self.opening.succeed()
                return True

    async def _in_time(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Work until the time to close is over. Everything is stored, so it is no error."""
        work = step()
        try:
            with suppress(TimeoutError, ConnectionAbortedError):
                await self._deadline.in_time(work)
        finally:
            if getcoroutinestate(work) == CORO_CREATED:  # an error came before it began
                work.close()

    def _has_no_time(self) -> bool:
        return self._deadline.is_over or self._deadline.blocked

    def _on_open_timeout(self) -> None:
        if not self.opening.time_out():
            self.close(0)

    async def _wait_for_work(self) -> None:
        """Wait until there is work and `flush_interval` is over, or until the heartbeat is due."""
        while self.estimates.delay <= 0 and not (self._queue.has_work or self._has_no_time()):
            await self._in_time(self.estimates.advance)
        if self.late_indexing.delay <= 0 and not (self._queue.has_work or self._has_no_time()):
            await self._in_time(self.late_indexing.advance)
        timers = self._heartbeat_at - seconds(), self._idle_at - seconds()
        next_timer = min(*timers, self.estimates.delay, self.late_indexing.delay)
        timeout = min(next_timer, self._queue.seconds_until_due())
        if timeout > 0:
            try:
                await asyncio.wait_for(self._queue.wait_for_work(), timeout)
            except TimeoutError:
                pass  # delayed frames or the heartbeat are due
        if self._deadline.is_set:
            return
        interval = self._config.batch_interval
        while (left := self._committed_at + interval - seconds()) > 0 and not self._queue.is_urgent:
            await self._queue.wait_until_urgent(min(left, max(0.0, self._heartbeat_at - seconds())))
            await self._heartbeat()

    def _count_rest_as_lost(self) -> None:
        """Something is left only if the database was never opened, or if the writer died."""
        last_offset = self._queue.unbind_loop()
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            in_flight.give_up()
        rest = self._new_in_flight(self._queue.drain(sys.maxsize))
        if not rest.drained.is_empty:
            rest.mark_all_lost()
        self._flushes.settle(max(last_offset, rest.drained.queue_offset))

    async def _heartbeat(self) -> None:
        """Once per `heartbeat_interval`: store that this process is alive, and mark the runs of dead processes."""
        if seconds() < self._heartbeat_at:
            return
        self._heartbeat_at = seconds() + self._config.heartbeat_interval
        try:
            await self._deadline.in_time(self._committer.heartbeat())
            await self._deadline.in_time(self._store.sweep(self._is_dead, now()))
            self.progress.database_answered()
        except Moved as error:
            self.progress.note(error, "the heartbeat")
            await self._continue_in_new_file()
        except Exception as error:
            self.progress.database_failed(error, "the heartbeat")

    async def _continue_in_new_file(self) -> None:
        """The database file was replaced while no batch was in flight."""
        self._in_flight = self._new_in_flight()
        await self._committer.continue_in_new_file(self._in_flight, [])
        self._in_flight = None

    def _close_idle_runs(self) -> None:
        timeout = self._config.run_idle_timeout
        if timeout is not None and seconds() >= self._idle_at:
            self._open_runs.close_idle(self._queue, timeout)
            self._idle_at = seconds() + timeout / 4

    def _is_dead(self, producer: Producer) -> bool:
        """Whether it is another process that is gone or has been silent for too long."""
        return producer.id != self._committer.producer.id and is_dead(
            producer, now(), self._config.interrupted_after
        )

    async def end_tasks(self) -> None:
        """End what is left on the event loop after `run`, within some seconds.

        A call that was cancelled at the deadline may have left the connection open. It is closed here, when nobody
        waits for the writer any more; otherwise the garbage collector would find it, and SQLAlchemy would warn.
        """
        await end_tasks(_END_GRACE)
        if self._deadline.blocked:
            with suppress(Exception):  # the database does not answer, which was reported
                await self._deadline.in_time(self._store.close(), at_least=CLOSE_GRACE)
            await end_tasks(_END_GRACE)

    async def _close_store(self) -> None:
        if self._deadline.blocked:
            return  # a call of the driver has not ended: `end_tasks` closes
        try:
            await self._deadline.in_time(self._store.close(), at_least=CLOSE_GRACE)
        except Exception as error:
            log.warning(
                "The database was not closed in time: %s", self.progress.note(error, "closing the database")
            )
