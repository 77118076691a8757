"""The bound of the queue in bytes, and the producers that wait for free capacity."""

from __future__ import annotations

from asyncio.events import _get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Literal

from recorder.core.clock import monotonic_us
from recorder.core.exclusive import Exclusive
from recorder.core.waitable import Limited, Wait
from recorder.recording.buffer import DrainedBatch, OpenRun

#: Counted for a run beside its messages (bytes, measured).
RUN_COST = 2_000
#: On a running event loop a call cannot block. Calls there may exceed the bound by this part of it. Starts and ends of
#: runs may exceed it by the same again, at least by the rows of so many runs.
RESERVE = 1 / 8
RESERVED_RUNS = 256
#: Waiting producers continue when no more than this part of the bound is used.
_RESUME_BELOW = 0.9

Overflow = Literal["block", "drop_newest"]


def return_none() -> None:
    """The result of a wait for capacity whose time has run out; the producer then looks at the queue again."""


class Capacity(Exclusive):
    """Counts the bytes in the queue. When it is full, a run's producer waits at most `block_timeout` seconds in all,
    until there has been free capacity again."""

    def __init__(self, max_bytes: int, overflow: Overflow, block_timeout: float) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._limit_on_loops = int(max_bytes * (1 + RESERVE))
        self._limit_for_ends = self._limit_on_loops + max(int(max_bytes * RESERVE), RESERVED_RUNS * RUN_COST)
        self._overflow = overflow
        self._block_timeout = block_timeout
        # The limit of the fast path; `close` sets it below every size.
        self._limit = max_bytes
        self._capacity_wait: Wait[None] | None = None
        #: Bytes that are accepted and not yet released; those of the batch in flight are included.
        self.bytes = 0
        self.closed = False
        #: Whether annotations are accepted although the queue is closed: listeners add their last ones.
        self.accepts_annotations = False

    def release(self, size: int, batch: DrainedBatch | None = None) -> None:
        """Free the bytes of what is stored or lost, and let waiting producers continue. The batch counts them, too."""
        if (wait := self.call(partial(self._release, size, batch or DrainedBatch()))) is not None:
            wait.set(None)

    # -- called with the lock held unless a docstring says otherwise -----------------------------------------------

    def _on_full(self) -> None:
        """A producer found the queue full. Called before it waits."""

    def _admit(self, size: int, accept: Callable[[], None], *, late: bool = False) -> bool:
        """Call `accept` as soon as there is capacity for `size` bytes; False if there was none in time. The reserve for
        event loops may be used. `late`: it is an annotation. The lock must not be held."""
        admit = partial(self._admit_now, size, accept, late=late)
        result = self.call(admit, partial(self._admit_soon, size, accept))
        if result is True:  # nearly always
            return True
        deadline_us = 0.0
        while not isinstance(result, bool):
            deadline_us = deadline_us or monotonic_us() + self._block_timeout * 1e6
            left = (deadline_us - monotonic_us()) / 1e6
            if left <= 0 or _get_running_loop() is not None:
                return False
            Limited(result, left, return_none).wait()
            result = self.call(admit)
        return result

    def _admit_now(self, size: int, accept: Callable[[], None], *, late: bool) -> bool | Wait[None]:
        if self.closed and not (late and self.accepts_annotations):
            return False
        if self._fits(size, self._limit_on_loops):
            accept()
            return True
        return self._shared_wait() or False

    def _admit_soon(self, size: int, accept: Callable[[], None]) -> bool:
        if self.closed or not self._fits(size, self._limit_on_loops):
            return False
        self.call_soon(accept)
        return True

    def _fits(self, size: int, limit: int) -> bool:
        # An empty queue accepts any size; otherwise an item larger than the bound could never be accepted.
        return not self.bytes or self.bytes + size <= limit

    def _shared_wait(self) -> Wait[None] | None:
        """The one wait for capacity of all producers; None with `overflow="drop_newest"`."""
        if self._overflow != "block":
            return None
        if self._capacity_wait is None:
            self._capacity_wait = Wait()
        self._on_full()
        return self._capacity_wait

    def _wait_of_run(self, run: OpenRun) -> Wait[None] | None:
        """The wait for the next token of this run; None if the run must not wait or has waited for `block_timeout`."""
        wait, moment_us = self._shared_wait(), monotonic_us()
        run.capacity_wait = wait
        run.full_since_us = run.full_since_us or moment_us
        left = self._block_timeout - (moment_us - run.full_since_us) / 1e6
        return Limited(wait, left, return_none) if wait is not None and left > 0 else None

    def _release(self, size: int, batch: DrainedBatch) -> Wait[None] | None:
        resume = self.bytes - size <= self._max_bytes * _RESUME_BELOW
        wait = self._pop_capacity_wait() if resume else None
        self.bytes -= size
        batch.released += size
        return wait

    def _pop_capacity_wait(self) -> Wait[None] | None:
        wait, self._capacity_wait = self._capacity_wait, None
        return wait
