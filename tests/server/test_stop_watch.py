"""Requests to stop runs are looked for while there are runs, also after the database was away."""

from __future__ import annotations

import asyncio
import logging
import uuid
from functools import partial
from pathlib import Path

import pytest

from recorder.core.clock import now
from recorder.server import stop_watch
from recorder.server.database import ServedDatabase
from recorder.server.stop_watch import StopWatch
from recorder.storage.rows import StopRequest
from recorder.storage.stop_requests import add_stop_request
from tests.oracle import new_url, observed_statements
from tests.stores import using


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often."""
    monkeypatch.setattr(stop_watch, "_INTERVAL", 0.01)


class Warned(logging.Handler):
    """Sets an event at the first warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Called on the loop's thread."""
        self.event.set()


def request(url: str, run_id: str) -> None:
    """Store a request, as another process does."""
    using(url, partial(add_stop_request, request=StopRequest(run_id, now(), None)))


def test_a_request_is_found_after_the_database_was_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once that the requests cannot be read."""
    run_id = str(uuid.uuid4())
    database = ServedDatabase(f"sqlite:///{tmp_path / 'history.db'}")

    async def story() -> None:
        watch, stopped, warned = StopWatch(database), asyncio.Event(), Warned()
        logging.getLogger("recorder").addHandler(warned)
        try:
            watch.add(run_id, stopped.set)
            await asyncio.wait_for(warned.event.wait(), 20)
            await asyncio.to_thread(request, new_url(tmp_path), run_id)
            await asyncio.wait_for(stopped.wait(), 20)
        finally:
            logging.getLogger("recorder").removeHandler(warned)

    asyncio.run(story())
    database.close()
    assert caplog.text.count("Requests to stop runs cannot be read now") == 1


def test_nothing_is_looked_for_without_runs(tmp_path: Path) -> None:
    """The watch ends with the last run, and begins again with the next."""
    url, run_ids = new_url(tmp_path), [str(uuid.uuid4()) for _ in range(2)]
    for run_id in run_ids:
        request(url, run_id)
    database, looks = ServedDatabase(url), list[str]()

    async def story() -> None:
        watch = StopWatch(database)
        for run_id in run_ids:
            stopped = asyncio.Event()
            watch.add(run_id, stopped.set)
            await asyncio.wait_for(stopped.wait(), 20)
            watch.remove(run_id)
            assert watch._watching is not None
            await asyncio.wait_for(watch._watching, 20)

    with observed_statements(looks.append):
        asyncio.run(story())
    database.close()
    assert sum("FROM stop_requests" in statement for statement in looks) == 2
