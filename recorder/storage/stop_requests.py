"""Requests to stop runs: any process stores one, and the process that records the run looks for it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from recorder.storage.dialects import Insert
from recorder.storage.reader import DatabaseReader
from recorder.storage.row_checks import readable
from recorder.storage.rows import StopRequest
from recorder.storage.schema import stop_requests
from recorder.storage.store import SqlStore

#: Ids of one query.
_PART = 500


async def add_stop_request(store: SqlStore, request: StopRequest) -> None:
    """Store a request. A second one for the same run changes nothing. Raises `StoreError`."""
    insert = Insert(stop_requests, StopRequest._fields, [request])
    with readable(store.errors):
        async with store.transaction() as connection:
            await store.dialect.insert(connection, store.dialect.statements([insert]))


async def runs_to_stop(reader: DatabaseReader, run_ids: Sequence[str]) -> list[str]:
    """Those of these runs that somebody wants to stop."""
    found: list[str] = []
    for start in range(0, len(run_ids), _PART):
        query = select(stop_requests.c.run_id).where(
            stop_requests.c.run_id.in_(run_ids[start : start + _PART])
        )
        found += [row.run_id for row in await reader.store.fetch(query)]
    return found
