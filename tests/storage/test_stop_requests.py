"""Requests to stop runs are stored once, and found by any process."""

from __future__ import annotations

import uuid

from recorder.core.clock import now
from recorder.storage.reader import DatabaseReader
from recorder.storage.rows import StopRequest
from recorder.storage.stop_requests import add_stop_request, runs_to_stop
from recorder.storage.store import SqlStore
from tests.oracle import sql
from tests.stores import using


def test_a_second_request_changes_nothing(database: str) -> None:
    """The first one says who and when."""
    run_id, moment = str(uuid.uuid4()), now()

    async def story(store: SqlStore) -> None:
        for user in ("anna", "boris"):
            await add_stop_request(store, StopRequest(run_id, moment, user))

    using(database, story)
    assert sql(database, "SELECT run_id, requested_by FROM stop_requests") == [(run_id, "anna")]


def test_the_runs_among_many_are_found(database: str) -> None:
    """More ids than one query takes."""
    run_ids = [str(uuid.UUID(int=number)) for number in range(1_200)]
    stopped = [run_ids[3], run_ids[700], run_ids[1_199]]

    async def story(store: SqlStore) -> list[str]:
        for run_id in (*stopped, str(uuid.uuid4())):
            await add_stop_request(store, StopRequest(run_id, now(), None))
        return await runs_to_stop(DatabaseReader(store), run_ids)

    assert sorted(using(database, story)) == stopped
    assert using(database, lambda store: runs_to_stop(DatabaseReader(store), [])) == []
