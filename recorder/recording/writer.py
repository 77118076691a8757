"""The coroutine that takes, packs, commits, retries and settles; the only one that knows a database.

An idle writer commits at once, so that the user's message is stored before the first token comes; after that no
batch starts sooner than `flush_interval` after the last was done, so that a batch holds many tokens of a run.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from math import inf

from recorder.config import Config
from recorder.core.clock import now
from recorder.core.deadline import MIN_RETRY, Deadline, seconds
from recorder.core.waitable import Wait
from recorder.errors import StoreError
from recorder.recording.buffer import Took
from recorder.recording.flushes import Flushes
from recorder.recording.in_flight import Hand
from recorder.recording.open_runs import OpenRuns
from recorder.recording.opening import Opening
from recorder.recording.progress import Progress
from recorder.recording.queue import RecordingQueue
from recorder.recording.replacement_rows import Owed
from recorder.recording.retry import Storing
from recorder.recording.serialize import serialize
from recorder.storage.liveness import is_dead
from recorder.storage.rows import Producer, RunRows
from recorder.storage.store import Moved, Store

log = logging.getLogger("recorder")

#: How long the database has to let go when the time to close is over (seconds).
CLOSE_GRACE = 0.5


class Writer:
    """Moves what the queue holds into the store until it is closed."""

    def __init__(
        self,
        queue: RecordingQueue,
        store: Store,
        config: Config,
        open_runs: OpenRuns,
        *,
        caller_waits: bool = True,
    ) -> None:
        self._queue = queue
        self._store = store
        self._config = config
        self._open_runs = open_runs
        self._flushes = Flushes(queue)
        # The batch that is being stored.
        self._hand: Hand | None = None
        self._failures = 0
        self._last_end = -inf
        self._beat_at = 0.0
        # When to look for runs that are idle.
        self._idle_at = inf if config.run_idle_timeout is None else 0.0
        self._deadline = Deadline()
        self.progress = Progress()
        self._storing = Storing(store, self.progress, self._deadline, config.max_batch_bytes)
        self._owed = Owed(self.progress)
        self.opening = Opening(store, config, self.progress, caller_waits=caller_waits)

    def flush(self) -> Wait[None]:
        """Over when everything accepted until now is committed. Callable from any thread, and takes no lock."""
        return self._flushes.add()

    def close(self, timeout: float) -> None:
        """Take nothing more, drain for at most `timeout` seconds, then end. Callable from any thread, and again."""
        self._deadline.set(timeout)
        self._queue.close()

    @property
    def closing(self) -> bool:
        """Whether it was told when to end."""
        return self._deadline.is_set

    def fail_flushes_in_child(self) -> None:
        """In a forked child: nothing flushes here what the parent's queue holds."""
        self._flushes.fail_in_child()

    async def run(self) -> None:
        """Until `close`. Never raises for what the database does, nor for what goes wrong in storing a batch."""
        self._queue.bind_loop(self._config.max_batch_bytes)
        try:
            goes_on, failed = await self._begun()
            while goes_on:
                try:
                    goes_on = await (self._round() if failed is None else self._survived(failed))
                    failed = None
                except Exception as error:  # a bug of ours, or no memory
                    if failed is not None:  # of these the second one is not told of, which may be what fails
                        await asyncio.sleep(MIN_RETRY)
                    failed = error if failed is None else None
        except BaseException as error:  # somebody tears down the loop
            self.died(error)
            raise
        finally:
            self.end()
            await self._closed_store()

    async def _begun(self) -> tuple[bool, Exception | None]:
        """Whether recording goes on, and what failed after the application was told that it does."""
        try:
            return await self._open(), None
        except Exception as error:
            if not self.opening.has_begun:
                raise
            return True, error

    def end(self) -> None:
        """Nothing is stored any more, or never was: what is left counts as lost, and whoever waits is told."""
        try:
            self._forsake()
        except Exception as error:
            self.died(error)
        self._flushes.end_all()

    def died(self, error: BaseException) -> None:
        """Nothing will be stored any more, though nobody closed it: whoever waits is told."""
        self.progress.died(error)
        self._flushes.loss = StoreError(
            f"The recorder's writer ended ({self.progress.last_error}); open a new one"
        )
        # A cancellation, or the end of a coroutine, is not to be raised where somebody waits.
        self.opening.writer_ended(error if isinstance(error, Exception) else self._flushes.loss)

    async def _round(self) -> bool:
        """Rest until there is something to store, and store it; whether there is another round."""
        if self._hand is not None:
            await self._store_apart(self._hand)
        await self._rest()
        if self._owed and not self._deadline.is_over:
            await self._owed.store(self._storing.file, self._store_owed)
        closed = self._queue.closed  # looked at first: what comes before the end is taken below
        self._flushes.accept_new()
        self._hand = Hand(Took(), self._queue, self._flushes, self.progress)
        took = self._queue.drain(self._storing.size.now, self._hand.took)
        if took.ticket:
            storing = self._storing
            packed = storing.attempts.separate(serialize(took.runs, storing.file))
            await storing.commit(self._hand, self._hand.hold(packed))
            storing.remember(took)
            self._last_end = seconds()
        self._flushes.settle(took.ticket)
        self._hand = None
        self._failures = 0
        if closed and not took.ticket:
            return False
        await self._heartbeat()
        self._close_idle()
        return True

    async def _survived(self, error: Exception) -> bool:
        """Tell of the error, and wait a little; whether there is another round."""
        self._failures += 1
        self._queue.wake_writer()  # a flush may have been looked at in vain
        self.progress.broke(error)
        return await self._deadline.pause(self._failures)

    async def _store_apart(self, hand: Hand) -> None:
        """Storing a batch failed, and not because of the database: store each part by itself, and give up the rest."""
        hand.failures += 1
        if hand.failures == 1:
            for part in hand.left() if hand.parts else hand.hold_without_tokens(self._storing.file):
                try:
                    await self._storing.commit(hand, [part])
                except Exception as error:
                    self.progress.broke(error)
            self._storing.remember(hand.took)
        try:
            file = self._storing.file
            self._owed.add(file, hand.owed(file))
        except Exception as error:  # as it failed before: they are counted, and that is all
            self.progress.broke(error)
        hand.give_up()
        self._hand = None

    async def _store_owed(self, rows: RunRows) -> None:
        hand = Hand(Took(), self._queue, self._flushes, self.progress)
        await self._storing.commit(hand, hand.add([rows]))

    async def _open(self) -> bool:
        """Open the store, however long it takes; whether the recorder begins."""
        late = asyncio.get_running_loop().call_later(self._config.open_timeout, self._opens_late)
        try:
            return await self._opened()
        finally:
            late.cancel()

    async def _opened(self) -> bool:
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
                # While whoever constructs the recorder waits: later, beside a busy application, it takes 50 times as
                # long, and the first message would wait for it.
                await self._heartbeat()
                self.opening.succeed()
                return True

    def _opens_late(self) -> None:
        if not self.opening.time_out():
            self.close(0)

    async def _rest(self) -> None:
        """Until there is work and its time has come, or the heartbeat is due."""
        patience = min(self._beat_at - seconds(), self._idle_at - seconds(), self._queue.seconds_until_due())
        if patience > 0:
            try:
                await asyncio.wait_for(self._queue.wait_for_work(), patience)
            except TimeoutError:
                pass  # frames have come of age, or the heartbeat is due
        if self._deadline.is_set:
            return
        spacing = self._config.flush_interval
        if self._config.max_commits_per_second:
            spacing = max(spacing, 1 / self._config.max_commits_per_second)
        while (left := self._last_end + spacing - seconds()) > 0 and not self._queue.is_urgent:
            await self._queue.wait_until_urgent(min(left, max(0.0, self._beat_at - seconds())))
            await self._heartbeat()

    def _forsake(self) -> None:
        """What the writer leaves when it ends: something only where it never opened the database, or died."""
        last = self._queue.unbind_loop()
        held, self._hand = self._hand, None
        if held is not None:
            held.give_up()
        hand = Hand(self._queue.drain(sys.maxsize), self._queue, self._flushes, self.progress)
        if hand.took.ticket:
            hand.lose_all()
        self._flushes.settle(max(last, hand.took.ticket))

    async def _heartbeat(self) -> None:
        """Now and then say that this process lives, and sweep the runs of processes that do not."""
        if seconds() < self._beat_at:
            return
        self._beat_at = seconds() + self._config.heartbeat_interval
        try:
            await self._deadline.in_time(self._storing.beat())
            await self._deadline.in_time(self._store.sweep(self._is_dead, now()))
            self.progress.went_well()
        except Moved as error:
            self.progress.note(error, "the heartbeat")
            await self._begin_anew()
        except Exception as error:
            self.progress.failed(error, "the heartbeat")

    async def _begin_anew(self) -> None:
        """The file was moved, and there is no batch that could be stored in the new one."""
        self._hand = Hand(Took(), self._queue, self._flushes, self.progress)
        await self._storing.begin_anew(self._hand, [])
        self._hand = None

    def _close_idle(self) -> None:
        timeout = self._config.run_idle_timeout
        if timeout is not None and seconds() >= self._idle_at:
            self._open_runs.close_idle(self._queue, timeout)
            self._idle_at = seconds() + timeout / 4

    def _is_dead(self, producer: Producer) -> bool:
        """Another's, silent for too long or gone."""
        return producer.id != self._storing.producer.id and is_dead(
            producer, now(), self._config.interrupted_after
        )

    async def _closed_store(self) -> None:
        if self._deadline.blocked:
            return  # its thread is in the database still, and ends with the process
        try:
            await self._deadline.in_time(self._store.close(), at_least=CLOSE_GRACE)
        except Exception as error:
            log.warning(
                "The database was not closed in time: %s", self.progress.note(error, "closing the database")
            )
