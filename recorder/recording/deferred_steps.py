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
from time import perf_counter_ns
from typing import Any, Protocol

from recorder.core.clock import monotonic_us
from recorder.core.thread_yield import ThreadYield
from recorder.core.waitable import Wait
from recorder.core.wakeup import LoopWaker
from recorder.recording.capacity import Capacity, Overflow

log = logging.getLogger("recorder")

Step = Callable[[], None]


class BytesTranslator(Protocol):
    """What can translate bytes later."""

    def translate(self, data: bytes, moment_us: int) -> None:
        """Translate bytes that came at this time (monotonic microseconds). Called on the writer's thread."""


#: How many items of the queue a step is.
_ITEMS = 4


class DeferredSteps(Capacity):
    """Accepts steps on any thread. The writer's thread does them."""

    def __init__(self, max_bytes: int, overflow: Overflow, block_timeout: float) -> None:
        super().__init__(max_bytes, overflow, block_timeout)
        #: Four items for each step: the step or the translator, its bytes or None, monotonic microseconds, and its size
        #: in the queue. With a tuple for each step the garbage collector has more objects to visit.
        self._deferred: deque[Any] = deque()
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

    def offer(
        self, translator: BytesTranslator, data: bytes, size: int, moment_us: int | None = None
    ) -> bool | Wait[None]:
        """Accept bytes, counted as `size`, that came at this time (monotonic microseconds; by default now).

        False if the queue is closed or full; a wait for capacity if one may wait.

        Called for each chunk of a response. There is no call while the lock is held, as in `put`.
        """
        # As `monotonic_us`, one call less.
        step = (translator, data, perf_counter_ns() // 1000 if moment_us is None else moment_us, size)
        with self._lock:
            used = self.bytes + size
            fits = used <= self._limit and not self._inside
            if fits:
                self.bytes = used
                self.untranslated_bytes += size
                self._deferred += step
        if not fits:
            return self.call(partial(self._offer, step), nested=lambda: False)
        if self._waker.current.on_any_change or used >= self._wake_bytes:
            self._waker.wake()
        return True

    def defer(self, step: Step) -> None:
        """Accept a step without bytes, also in a closed queue. Takes no lock, because finalizers call it."""
        if self.is_over:
            return
        self._deferred += (step, None, monotonic_us(), 0)
        self._waker.wake()

    @property
    def deferred_count(self) -> int:
        """How many steps are left to do."""
        return len(self._deferred) // _ITEMS

    def run_deferred(self, count: int) -> None:
        """Do the first `count` steps. Called by the writer."""
        yield_thread = ThreadYield()
        for _ in range(count):
            first = self._deferred
            step, data, moment_us, size = first[0], first[1], first[2], first[3]
            self._translator = threading.get_ident()
            try:
                if data is None:
                    step()
                else:
                    step.translate(data, moment_us)
                self.run_pending()  # an end that a step reported belongs to the step
            except Exception:  # a bug in recorder; the other steps are done
                log.exception("A step of the recording failed; please report this")
            finally:
                self._translator = None
                self.call(partial(self._remove_first, size))
            self.release(size)
            yield_thread()

    # -- called with the lock held ----------------------------------------------------------------------------

    def _offer(self, step: tuple[BytesTranslator, bytes, int, int]) -> bool | Wait[None]:
        if self.closed:
            return False
        size = step[3]
        if not self._fits(size, self._max_bytes):
            return self._shared_wait() or False
        self._deferred += step
        self.bytes += size
        self.untranslated_bytes += size
        self._waker.wake()
        return True

    def _remove_first(self, size: int) -> None:
        for _ in range(_ITEMS):
            self._deferred.popleft()
        self.untranslated_bytes -= size

    def _oldest_deferred_us(self) -> list[int]:
        """When the first step was left, in a list that is empty without steps."""
        return [self._deferred[2]] if self._deferred else []

    @property
    def _translates_here(self) -> bool:
        """Whether the caller is a step."""
        return self._translator == threading.get_ident()
