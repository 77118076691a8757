"""How much one transaction stores: less while the way to the database is slow."""

from __future__ import annotations

from math import inf

from recorder.core.deadline import seconds

#: Bytes; less at once is not quicker.
SMALLEST = 64 * 1024
#: A batch that took less than this part of the time in which others were given up: twice as much may go through. They
#: were given so much time at least (seconds): somebody may have cancelled one that was quick.
_QUICK = 1 / 4
_PATIENCE = 1.0


class BatchSize:
    """Halved when a batch took too long, and doubled after those that went through quickly."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: Bytes, as counted in the queue.
        self.now = most
        self._too_long = inf

    @property
    def is_reduced(self) -> bool:
        """Whether it was halved."""
        return self.now < self._most

    def halve(self, size: int, began: float) -> None:
        """A batch of so many bytes, begun at that second, was given up."""
        self._too_long = max(_PATIENCE, seconds() - began)
        self.now = min(self._most, max(SMALLEST, min(self.now, size) // 2))

    def grow(self, began: float) -> None:
        """A batch that was begun at that second is stored."""
        if self.is_reduced and seconds() - began < self._too_long * _QUICK:
            self.now = min(self._most, 2 * self.now)
