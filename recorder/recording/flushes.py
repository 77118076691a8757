"""The flushes that wait until what was queued before them is stored."""

from __future__ import annotations

from collections import deque

from recorder.core.waitable import Wait
from recorder.errors import StoreError
from recorder.recording.queue import RecordingQueue


class Flushes:
    """`add` may be called on any thread and takes no lock. The rest is called on the writer's thread."""

    def __init__(self, queue: RecordingQueue) -> None:
        self._queue = queue
        # Flushes that the writer has not seen yet, and those it has, each with the queue offset that it waits for.
        self._new: deque[Wait[None]] = deque()
        self._seen: deque[tuple[int, Wait[None]]] = deque()
        self._ended = False
        #: Everything up to this queue offset is stored or lost.
        self.settled = 0
        #: What every flush raises from now on: set when the writer died, or lost something while closing.
        self.loss: StoreError | None = None
        # The last loss while no flush waited, if there was one; the next flush raises it. A deque, because taking it
        # out is one step: two flushes on two threads do not both raise it, and none removes a newer one.
        self._unreported: deque[StoreError] = deque(maxlen=1)

    def add(self) -> Wait[None]:
        """A wait that ends when everything that is queued now is stored or lost."""
        wait: Wait[None] = Wait()
        self._new.append(wait)  # before looking at the queue, so that it raises what is lost from here on
        if self._queue.is_empty_since(self.settled):
            if self._forget_new(wait):  # else the writer has seen it already, and ends it
                self._end(wait)
            return wait
        self._queue.wake_writer()
        if self._ended:  # the writer may have ended before it saw this flush
            self.end_all()
        return wait

    def accept_new(self) -> None:
        """Let the new flushes wait for everything that is queued now."""
        self._queue.clear_wake()
        if waits := list(self._new):  # a flush that comes later waits for what is queued later
            queue_offset = self._queue.request_full_drain()
            for wait in waits:
                if self._forget_new(wait):
                    self._seen.append((queue_offset, wait))

    def settle(self, queue_offset: int) -> None:
        """Nothing is in flight now. End the flushes that wait for this queue offset or less: all of it is stored or
        lost."""
        self._queue.in_flight_us = None
        self.settled = max(self.settled, queue_offset)
        while self._seen and self._seen[0][0] <= self.settled:
            self._end(self._seen[0][1])
            self._seen.popleft()

    def fail(self, queue_offset: int, loss: StoreError) -> None:
        """Report that something up to this offset is lost: all flushes that wait raise the error now, or else the next
        flush does. A flush that waits for a later offset raises it too, because it covers everything before."""
        # First, so that a flush on another thread that finds the queue empty from here on raises it.
        self._unreported.append(loss)
        self._queue.in_flight_us = None
        self.settled = max(self.settled, queue_offset)
        waits = [*(wait for _, wait in self._seen), *self._new.copy()]
        for wait in waits:
            wait.fail(self.loss or loss)
            self._forget_new(wait)
        self._seen.clear()
        if waits:
            self._unreported.clear()

    def end_all(self) -> None:
        """End every flush: nothing will be stored any more."""
        self._ended = True
        for waits in (self._new, [wait for _, wait in self._seen]):
            for wait in list(waits):
                self._end(wait)

    def fail_in_child(self) -> None:
        """In a forked child: fail every flush, because the parent's queue is not stored here."""
        for wait in [*self._new, *(wait for _, wait in self._seen)]:
            wait.renew()
            wait.fail(StoreError("The process forked during this flush, which is the parent's; flush again"))

    def _forget_new(self, wait: Wait[None]) -> bool:
        """Whether the wait was among the new ones, and is removed from them. One step: `add` and the writer do this."""
        try:
            self._new.remove(wait)
        except ValueError:
            return False
        return True

    def _end(self, wait: Wait[None]) -> None:
        try:
            loss = self.loss or self._unreported.pop()
        except IndexError:
            wait.set(None)
        else:
            wait.fail(loss)
