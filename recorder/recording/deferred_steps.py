"""Steps that a producer leaves to the writer's thread, which does them before it drains: it translates bytes.

A producer that has the bytes of a response queues them as they are, with what will translate them. This takes a third
of the time of translating them on the producer's thread. The bytes are counted in the queue, and their steps are done
in order, before anything that is drained, flushed or closed later.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import sleep

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.core.wakeup import LoopWaker
from recorder.recording.capacity import Capacity, Overflow

log = logging.getLogger("recorder")

Step = Callable[[], None]

#: After so many steps, other threads may run.
_YIELD_EVERY = 32


class DeferredSteps(Capacity):
    """Accepts steps on any thread. The writer's thread does them."""

    def __init__(self, max_bytes: int, overflow: Overflow, block_timeout: float) -> None:
        super().__init__(max_bytes, overflow, block_timeout)
        #: (step, bytes in the queue, monotonic microseconds).
        self._deferred: deque[tuple[Step, int, int]] = deque()
        #: Bytes of responses that are accepted and not translated yet.
        self.untranslated_bytes = 0
        #: The thread that does steps now. What they put is counted already, and is accepted after `close`, too.
        self._translator: int | None = None
        #: Whether the writer has ended, so that no step will be done.
        self.is_over = False
        #: Another object in a forked child, where the queue is empty: the runs of before are the parent's.
        self.epoch = object()
        self._waker = LoopWaker()
        self._wake_bytes = max_bytes

    @property
    def has_deferred(self) -> bool:
        """Whether steps are left to do."""
        return bool(self._deferred)

    def offer(self, step: Step, size: int) -> bool | Wait[None]:
        """Accept a step with `size` bytes. False if the queue is closed or full; a wait for capacity if one may wait.

        Called for each chunk of a response. There is no call while the lock is held, as in `put`.
        """
        item = ((step, size, monotonic_us()),)
        with self._lock:
            used = self.bytes + size
            fits = used <= self._limit and not self._inside
            if fits:
                self.bytes = used
                self.untranslated_bytes += size
                self._deferred += item
        if not fits:
            return self.call(partial(self._offer, item, size), nested=lambda: False)
        if self._waker.current.on_any_change or used >= self._wake_bytes:
            self._waker.wake()
        return True

    def defer(self, step: Step) -> None:
        """Accept a step without bytes, also in a closed queue. Takes no lock, because finalizers call it."""
        if self.is_over:
            return
        self._deferred += ((step, 0, monotonic_us()),)
        self._waker.wake()

    def run_deferred(self, count: int) -> None:
        """Do the first `count` steps. Called by the writer."""
        for done in range(1, count + 1):
            step, size, _ = self._deferred[0]
            self._translator = threading.get_ident()
            try:
                step()
                self.run_pending()  # an end that a step reported belongs to the step
            except Exception:  # a bug in recorder; the other steps are done
                log.exception("A step of the recording failed; please report this")
            finally:
                self._translator = None
                self._deferred.popleft()
                self.call(partial(self._count_translated, size))
            self.release(size)
            if done % _YIELD_EVERY == 0:
                sleep(0)

    # -- called with the lock held ----------------------------------------------------------------------------

    def _offer(self, item: tuple[tuple[Step, int, int]], size: int) -> bool | Wait[None]:
        if self.closed:
            return False
        if not self._fits(size, self._max_bytes):
            return self._shared_wait() or False
        self._deferred += item
        self.bytes += size
        self.untranslated_bytes += size
        self._waker.wake()
        return True

    def _count_translated(self, size: int) -> None:
        self.untranslated_bytes -= size

    @property
    def _translates_here(self) -> bool:
        """Whether the caller is a step."""
        return self._translator == threading.get_ident()
