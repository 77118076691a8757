"""The writer's side of the queue: what is ready to be written, in order; waiting for it, and draining it."""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf

from recorder.core.clock import monotonic_us
from recorder.recording.buffer import FULL, DrainedBatch, DrainedRun, OpenRun
from recorder.recording.capacity import Overflow
from recorder.recording.deferred_steps import DeferredSteps
from recorder.recording.delayed_frames import DelayedFrames
from recorder.storage.batch import Addition


class ReadyQueue(DeferredSteps):
    """The runs that have something to write, and the conversations that messages were added to."""

    def __init__(
        self, max_bytes: int, overflow: Overflow, block_timeout: float, frames_interval: float
    ) -> None:
        super().__init__(max_bytes, overflow, block_timeout)
        self._ready: deque[OpenRun | Addition] = deque()
        # What was added to each conversation and is not drained yet, by `Addition.key`.
        self._additions: dict[tuple[str, str | None], Addition] = {}
        self._delayed = DelayedFrames(int(frames_interval * 1e6))
        # A flush or `close` needs the writer: set until the writer has looked for it.
        self._wake_requested = False
        # Everything must be drained, delayed frames too: set until the queue was empty.
        self._full_drain = False
        #: Tokens that were drained.
        self.drained = 0
        #: How many items were queued. The number of an item is its offset in the queue.
        self.last_offset = 0
        # The offset of the last item that belongs to the batch which is drained now.
        self._last_of_batch = 0
        #: Since when something has been waiting to be drained (monotonic microseconds); None if nothing is.
        self.oldest_us: int | None = None
        #: The same of what was drained last, until the writer has stored all of it or given it up.
        self.in_flight_us: int | None = None

    def close(self) -> None:
        """Accept nothing more. Takes no lock: signal handlers call it."""
        self.closed = True
        self._limit = -1
        self.wake_writer()

    def wake_writer(self) -> None:
        """Wake the writer now. Takes no lock: signal handlers call it."""
        self._wake_requested = True
        self._waker.wake()

    def is_empty_since(self, queue_offset: int) -> bool:
        """Whether nothing was queued after this offset, and no frames are delayed. Takes no lock."""
        # In this order: steps become items, and items are in flight before they leave the queue.
        is_empty = not (self._deferred or self._pending or self._ready or self._delayed)
        return is_empty and self.in_flight_us is None and self.last_offset <= queue_offset

    # -- called by the writer ---------------------------------------------------------------------------------

    def bind_loop(self, wake_bytes: int) -> None:
        """Wake the running event loop from now on: early if `wake_bytes` are queued. Called once."""
        self._waker.attach()
        self._wake_bytes = wake_bytes

    def unbind_loop(self) -> int:
        """Close the queue and let waiting producers continue. Called once; returns the last offset."""
        self.close()
        self.is_over = True
        self._waker.detach()
        if (wait := self.call(self._pop_capacity_wait)) is not None:
            wait.set(None)
        return self.last_offset

    async def wait_for_work(self) -> None:
        """Return when there is something to drain, or when the writer was woken."""
        while True:
            self._waker.prepare()
            if self._ready or self._deferred or self._pending or self.closed:
                return
            if self._wake_requested or self._full_drain:
                return
            await self._waker.wait(None)

    @property
    def has_work(self) -> bool:
        """Whether there is something to drain now, or the queue is closed."""
        return bool(self._ready or self._deferred or self._pending or self.closed)

    @property
    def is_urgent(self) -> bool:
        """Whether to write before `flush_interval` is over: for a flush or `close`, or because much is queued."""
        return self._wake_requested or self._full_drain or self.bytes >= self._wake_bytes

    async def wait_until_urgent(self, timeout: float) -> None:
        """Return after `timeout` seconds, or as soon as `is_urgent`."""
        self._waker.prepare(on_any_change=False)
        if not self.is_urgent:
            await self._waker.wait(timeout)

    def clear_wake(self) -> None:
        """Forget earlier wake requests, before looking for their reason; later requests wake the writer again."""
        self._wake_requested = False

    def request_full_drain(self) -> int:
        """Drain everything as soon as possible, delayed frames too. Returns the offset of the last item."""
        self.run_deferred(self.deferred_count)
        self.run_pending()
        return self.call(self._request_full_drain)

    def seconds_until_due(self) -> float:
        """Seconds until the oldest delayed frames are due; infinite if there are none."""
        return self.call(self._delayed.seconds_until_due)

    def drain(self, max_bytes: int, batch: DrainedBatch | None = None) -> DrainedBatch:
        """Freeze and return what runs and conversations have, in queue order, until it is `max_bytes` or more.

        The lock is held for a hundred of them at a time, so that producers do not wait for a long drain. If memory runs
        out in between, `batch` holds what was drained until then.
        """
        batch, moment_us = batch or DrainedBatch(), monotonic_us()
        self.run_pending()
        # What is queued from here on belongs to the next batch, so that no run is in a batch twice.
        steps = self.call(partial(self._begin_drain, moment_us))
        self.run_deferred(steps)
        self.in_flight_us = self.oldest_us
        drain_some = partial(self._drain_some, batch, max_bytes, moment_us)
        while batch.bytes < max_bytes and self.call(drain_some):
            pass
        return batch

    def end_bytes(self, run: OpenRun, moment_us: int, order: int, *, cut: bool) -> None:
        """The last bytes of a run came then (monotonic microseconds), at this place among all events. With `cut` some
        had no room: the tokens from here on are missing, and how many is not known."""
        run.ended_us, run.ended_order = moment_us, order
        if cut:
            self.call(partial(self._cut, run))

    # -- called with the lock held ----------------------------------------------------------------------------

    def _cut(self, run: OpenRun) -> None:
        run.drop(0, 1)
        run.gap_reason = FULL
        self._enqueue(run)

    def _count(self, item: OpenRun | Addition, size: int) -> None:
        """Add `size` bytes to an item, and queue it."""
        self._enqueue(item)  # first: bytes of an item that is not queued would never be released
        item.bytes += size
        self.bytes += size
        if self.bytes >= self._wake_bytes:
            self._waker.wake()

    def _enqueue(self, item: OpenRun | Addition, *, first: bool = False) -> None:
        """Queue the item unless it is queued already. `first`: a step has put it."""
        if item.queued:
            return
        if first or self._translates_here:
            self._enqueue_first(item)
        else:
            item.queued = True
            self.last_offset += 1
            item.queue_offset = self.last_offset
            self._ready.append(item)
        if self.oldest_us is None:
            self.oldest_us = monotonic_us()
        if self._waker.current.on_any_change or self.bytes >= self._wake_bytes:
            self._waker.wake()

    def _enqueue_first(self, item: OpenRun | Addition) -> None:
        """Queue what a step has put. It was accepted before everything that is queued now, and is drained first: a
        request never comes before the answer that it follows."""
        item.queued = True
        if self._ready:
            item.queue_offset = self._ready[0].queue_offset - 1
        else:  # a new offset, because a flush that waits for the last one may have ended
            self.last_offset += 1
            item.queue_offset = self._last_of_batch = self.last_offset
        self._ready.appendleft(item)

    def _on_full(self) -> None:
        self._request_full_drain()  # delayed frames may be all that fills the queue
        self._waker.wake()

    def _request_full_drain(self) -> int:
        self._full_drain = True
        self._enqueue_due(inf)
        return self.last_offset

    def _enqueue_due(self, before_us: float) -> None:
        """Queue the runs whose delayed frames are due."""
        for run in self._delayed.pop_due(before_us):
            self._enqueue(run)

    def _begin_drain(self, moment_us: int) -> int:
        """Note the last item that belongs to this batch. Returns how many steps do, at the same moment."""
        self._enqueue_due(moment_us)
        self._last_of_batch = self.last_offset
        return self.deferred_count

    def _drain_some(self, batch: DrainedBatch, max_bytes: int, moment_us: int) -> bool:
        """Drain up to a hundred items, none behind the last of the batch. Returns whether there are more."""
        for _ in range(min(100, len(self._ready))):
            if batch.bytes >= max_bytes:
                return False
            if self._ready[0].queue_offset > self._last_of_batch:
                self._full_drain, self.oldest_us = False, moment_us
                return False
            self._drain_one(self._ready[0], batch, moment_us)
            self._ready.popleft()
        if self._ready:
            return True
        self._full_drain, self.oldest_us = False, None
        return False

    def _drain_one(self, item: OpenRun | Addition, batch: DrainedBatch, moment_us: int) -> None:
        """Move what the item has to the batch. If memory runs out, nothing has changed."""
        if isinstance(item, Addition):
            batch.additions.append(item)
            del self._additions[item.key]
            batch.bytes += item.bytes
            batch.queue_offset = item.queue_offset
            return
        run = item
        delayed = 0 if self._full_drain else self._delayed.delay(run)
        run.freeze(frames=not delayed)
        frames = () if delayed else run.frozen_frames
        drained = DrainedRun(
            run, run.frozen_tokens, frames, run.gaps, run.end, run.bytes - delayed, run.reopened
        )
        tokens = sum(map(len, drained.tokens))
        batch.runs.append(drained)
        self.drained += tokens
        batch.bytes += run.bytes - delayed
        batch.queue_offset = run.queue_offset
        run.frozen_tokens, run.frozen_frames, run.gaps = (), (), ()
        run.end, run.bytes = None, delayed
        run.queued = run.reopened = False
        run.active_us = moment_us
