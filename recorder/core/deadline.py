"""The time by which the writer must have ended, and the waits that end at that time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from math import inf
from typing import Any

from recorder.core.clock import monotonic_us

#: Pauses between retries (seconds), doubled each time, with full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
MIN_RETRY = 0.05
MAX_RETRY = 5.0
#: The longest pause between attempts while closing.
_LAST_RETRY = 0.2
_LATE = "the database did not answer in time"


class Deadline:
    """A deadline on the monotonic clock. There is none until `set`, which any thread may call."""

    def __init__(self) -> None:
        self._at = inf
        #: Whether a call of the database driver was still running at the deadline.
        self.blocked = False

    def set(self, timeout: float) -> None:
        """Set the deadline to `timeout` seconds from now, unless an earlier one is set."""
        self._at = min(self._at, seconds() + timeout)

    @property
    def is_set(self) -> bool:
        """Whether a deadline was set."""
        return self._at < inf

    @property
    def left(self) -> float:
        """Seconds until the deadline; infinite if there is none."""
        return self._at - seconds()

    @property
    def is_over(self) -> bool:
        """Whether the deadline is past."""
        return seconds() > self._at

    async def in_time(self, work: Coroutine[Any, Any, object], *, at_least: float = 0.0) -> None:
        """Await `work` until the deadline, and for `at_least` seconds; then cancel it and raise `TimeoutError`.

        After the deadline `work` is not begun at all, unless `at_least` gives it time.
        """
        soonest = seconds() + at_least
        left = max(self._at - seconds(), at_least)
        if left <= 0:
            work.close()
            raise TimeoutError(_LATE)
        task = asyncio.ensure_future(work)
        # The task begins in this wait, however long the process stands still: its end can release what it uses.
        while not (await asyncio.wait({task}, timeout=min(left, _LAST_RETRY)))[0]:
            left = max(self._at, soonest) - seconds()
            if left <= 0:
                self.blocked = True
                task.cancel()
                raise TimeoutError(_LATE)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or not isinstance(error, Exception | None):
            # A driver whose call was cancelled may raise CancelledError in later calls. It must not end the writer.
            raise ConnectionAbortedError("the database driver cancelled one of its own calls") from error
        task.result()

    async def pause(self, attempt: int) -> bool:
        """Sleep before the next attempt, with full jitter. False when the deadline is past."""
        longest = min(MAX_RETRY, MIN_RETRY * 2 ** min(attempt, 10))
        over = seconds() + random.uniform(MIN_RETRY, max(longest, MIN_RETRY))
        while (left := over - seconds()) > 0:
            if self.is_set:  # the remaining time is used for attempts, not for pauses
                await asyncio.sleep(max(0.0, min(left, _LAST_RETRY, self._at - seconds())))
                return seconds() < self._at
            await asyncio.sleep(min(left, _LAST_RETRY))  # the deadline may be set during the pause
        return True


def seconds() -> float:
    """The monotonic clock in seconds."""
    return monotonic_us() / 1e6
