"""Live runs look at the database together, and leave half of the event loop's time to others."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from recorder.server.batched_queries import QueryBatches, Rounds


def test_a_round_that_used_the_loop_delays_the_next_one() -> None:
    """For as long as it used the processor, but not for more than a quarter of a second."""
    rounds = Rounds()
    rounds.begin(10.0, used=1.0)
    assert rounds.pause(10.05, used=1.05) == pytest.approx(0.05)
    assert rounds.pause(10.05, used=9.0) == pytest.approx(0.2)
    assert rounds.pause(10.1, used=1.05) == 0
    assert rounds.pause(99.0, used=9.0) == 0


class Versions:
    """A reader whose database changes once."""

    def __init__(self) -> None:
        self.version = 1
        self.waits: list[Future[int]] = []
        self.has_waits = asyncio.Event()

    def after(self, version: int) -> Future[int]:
        """As `ReaderThread.after`."""
        self.waits.append(Future())
        self.has_waits.set()
        return self.waits[-1]

    def change(self) -> None:
        """A transaction was committed."""
        self.version = 2
        for wait in self.waits:
            wait.set_result(2)


def test_all_runs_share_the_wait_for_the_next_commit() -> None:
    """However many there are, the reader is asked once, and one that leaves does not end the wait of the others."""

    async def story() -> None:
        reader = Versions()
        batches = QueryBatches(reader)  # type: ignore[arg-type]
        waits = [asyncio.create_task(batches.after(1)) for _ in range(20)]
        await reader.has_waits.wait()
        waits[0].cancel()
        await asyncio.sleep(0)
        reader.change()
        assert await asyncio.gather(*waits[1:]) == [2] * 19
        assert len(reader.waits) == 1
        assert await batches.after(1) == 2  # a run that is behind does not wait for another commit
        assert len(reader.waits) == 1

    asyncio.run(story())
