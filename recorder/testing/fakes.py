"""Replacements for parts of the environment that a test controls itself."""

from __future__ import annotations


class FakeClock:
    """A clock that only `advance` moves. Calling it gives the time in microseconds."""

    def __init__(self, start_us: int = 0) -> None:
        self._now_us = start_us

    def __call__(self) -> int:
        """The time in microseconds."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`. Raises `ValueError` for a negative number: the clock is monotonic."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}) would set a monotonic clock back; give 0 or more seconds.")
        self._now_us += round(seconds * 1_000_000)
