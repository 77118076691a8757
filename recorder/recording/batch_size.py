"""How much one transaction stores, and how long it may take: less and longer while the connection is slow."""

from __future__ import annotations

from math import inf

from recorder.core.deadline import seconds

#: A smaller batch is not faster (bytes).
SMALLEST = 64 * 1024
#: The size grows when a batch took less than this part of the time after which another was given up.
_QUICK = 1 / 4
#: That time counts as at least so many seconds, because a quick batch may have been cancelled by somebody.
_SHORTEST_TIMEOUT = 1.0
#: The largest factor by which the time for a statement grows.
MAX_PATIENCE = 8


class BatchSize:
    """The size is halved when a batch took too long, and doubled after batches that were quick."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: The size of a batch now, in bytes as the queue counts them.
        self.now = most
        #: The factor by which the time for a statement is longer than usual.
        self.patience = 1
        self._too_long = inf

    @property
    def is_reduced(self) -> bool:
        """Whether it is smaller than at first."""
        return self.now < self._most

    def halve(self, size: int, began: float) -> None:
        """A batch of `size` bytes was given up; it began at this second of the monotonic clock."""
        self._too_long = max(_SHORTEST_TIMEOUT, seconds() - began)
        self.now = min(self._most, max(SMALLEST, min(self.now, size) // 2))

    @property
    def is_patient(self) -> bool:
        """Whether a statement has the longest time already."""
        return self.patience >= MAX_PATIENCE

    def wait_longer(self) -> None:
        """A batch of one row took too long: give the next statements twice the time."""
        self.patience = min(2 * self.patience, MAX_PATIENCE)

    def grow(self, began: float) -> None:
        """A batch is stored; it began at this second of the monotonic clock."""
        self.patience = max(1, self.patience // 2)
        if self.is_reduced and seconds() - began < self._too_long * _QUICK:
            self.now = min(self._most, 2 * self.now)
