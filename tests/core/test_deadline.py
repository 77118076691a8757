"""What the writer awaits begins and ends at its deadline."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from recorder.core import deadline
from recorder.core.deadline import Deadline


class Work:
    """Work that never ends by itself."""

    def __init__(self) -> None:
        self.begun = self.cancelled = False

    async def run(self) -> None:
        """Wait for ever."""
        self.begun = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def too_late(limit: Deadline, at_least: float = 0.0) -> Work:
    """Await work until the deadline, and return it."""
    work = Work()
    with pytest.raises(TimeoutError, match="did not answer in time"):
        asyncio.run(limit.in_time(work.run(), at_least=at_least))
    return work


def test_work_is_not_begun_after_the_deadline() -> None:
    """No call of the driver is left running."""
    limit = Deadline()
    limit.set(0)
    assert not too_late(limit).begun
    assert not limit.blocked


def test_work_that_does_not_end_is_cancelled_at_the_deadline() -> None:
    """A call of the driver was still running."""
    limit = Deadline()
    limit.set(0.01)
    assert too_late(limit).cancelled
    assert limit.blocked


def test_work_with_time_of_its_own_begins_when_the_process_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look at the clock is an hour later: closing the database begins, and its end releases the connection."""
    monkeypatch.setattr(deadline, "seconds", count(0.0, 3600.0).__next__)
    limit = Deadline()
    limit.set(0)
    work = too_late(limit, at_least=0.5)
    assert work.begun
    assert work.cancelled
