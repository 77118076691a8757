"""The time at which a writer has to be over, and what it may wait for until then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from math import inf
from typing import Any

from recorder.core.clock import monotonic_us

#: Full jitter between these (seconds), doubling: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
MIN_RETRY = 0.05
MAX_RETRY = 5.0
#: The longest pause between attempts while closing.
_LAST_RETRY = 0.2


class Deadline:
    """There is none until `set`, which any thread may call."""

    def __init__(self) -> None:
        self._at = inf
        #: Whether the driver was left in the middle of a call when the time ran out.
        self.blocked = False

    def set(self, timeout: float) -> None:
        """In so many seconds; an earlier one stays."""
        self._at = min(self._at, seconds() + timeout)

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._at < inf

    @property
    def is_over(self) -> bool:
        """Whether the time has run out."""
        return seconds() > self._at

    async def in_time(self, work: Coroutine[Any, Any, object], *, at_least: float = 0.0) -> None:
        """Wait for it, but not beyond the deadline, however long the driver blocks; then `TimeoutError`."""
        task = asyncio.ensure_future(work)
        soonest = seconds() + at_least
        while not task.done():
            left = max(self._at, soonest) - seconds()
            if left <= 0:
                self.blocked = True
                task.cancel()
                raise TimeoutError("the database did not answer in time")
            await asyncio.wait({task}, timeout=min(left, _LAST_RETRY))
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or not isinstance(error, Exception | None):
            # Nobody ends the writer by it: a driver that was cut off once may raise this to whoever uses it next.
            raise ConnectionAbortedError(
                "a call of the database's driver was cut off inside of it"
            ) from error
        task.result()

    async def pause(self, attempt: int) -> bool:
        """Wait before the next attempt, with full jitter; False when the time has run out."""
        longest = min(MAX_RETRY, MIN_RETRY * 2 ** min(attempt, 10))
        over = seconds() + random.uniform(MIN_RETRY, max(longest, MIN_RETRY))
        while (left := over - seconds()) > 0:
            if self.is_set:  # the time that is left is for trying
                await asyncio.sleep(max(0.0, min(left, _LAST_RETRY, self._at - seconds())))
                return seconds() < self._at
            await asyncio.sleep(min(left, _LAST_RETRY))  # the deadline may be set meanwhile
        return True


def seconds() -> float:
    """Seconds of the monotonic clock."""
    return monotonic_us() / 1e6
