"""Small stand-ins for what a test wants to decide by itself."""

from __future__ import annotations


class FakeClock:
    """A clock that stands still: call it for microseconds, `advance` it by seconds."""

    def __init__(self, start_us: int = 0) -> None:
        self._now_us = start_us

    def __call__(self) -> int:
        """The time in microseconds."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Let time pass; a negative number of seconds is refused, as it is a monotonic clock."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}) would turn a monotonic clock back; give 0 or more.")
        self._now_us += round(seconds * 1_000_000)
