"""Reads of many runs at once give what single reads give."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import NotFound, StoreError
from recorder.storage.many_runs import RunRead, read_many
from recorder.storage.reader import DatabaseReader
from recorder.storage.schema import gaps
from tests.cli.test_listing import fill
from tests.oracle import begin, finish, say, sql


def results(url: str, reads: list[RunRead]) -> tuple[list[Any], list[Any]]:
    """Return the results of these reads, together and one by one."""

    async def single(reader: DatabaseReader, read: RunRead) -> Any:
        try:
            return await read.method(reader, *read.arguments)
        except (NotFound, StoreError) as error:
            return error

    async def story() -> tuple[list[Any], list[Any]]:
        reader = DatabaseReader(url)
        await reader.open()
        try:
            return await read_many(reader, reads), [await single(reader, read) for read in reads]
        finally:
            await reader.close()

    return asyncio.run(story())


def recorded_runs(url: str, count: int) -> list[str]:
    """Record runs with several rows of tokens each; return their ids."""
    with ChatHistoryCallback(url) as history:
        ids = [begin(history) for _ in range(count)]
        for part in range(5):
            for number, run_id in enumerate(ids):
                say(history, run_id, [f"{number}.{part}.{place}" for place in range(part + 1)])
            history.flush().wait(10)
        finish(history, ids[0], "done")
        return [str(id) for id in ids]


def test_many_reads_are_single_reads(database: str) -> None:
    """Runs, gaps and segments, from a token in the middle of a row and with a limit, and a run that is not stored."""
    ids = recorded_runs(database, 6)
    fill(database, {gaps.name: [{"run_id": ids[1], "seq": 15, "count": 3, "reason": "lost"}]})
    absent = str(uuid.uuid4())
    starts = [0, 1, 2, 5, 14, 99, 0]
    read_segments: Callable[..., Any] = DatabaseReader.segments
    reads = [
        *(RunRead(DatabaseReader.run, (id,)) for id in [*ids, absent]),
        *(RunRead(DatabaseReader.gaps, (id,)) for id in [*ids, absent]),
        *(RunRead(DatabaseReader.tokens_end, (id,)) for id in [*ids, absent]),
        *(
            RunRead(read_segments, (id, start, limit))
            for id, start, limit in zip([*ids, absent], starts, [4, 2, 1, 3, 4, 4, 4], strict=True)
        ),
    ]
    together, one_by_one = results(database, reads)
    assert [*map(repr, together)] == [*map(repr, one_by_one)]
    assert len(together[21]) == 4
    assert together[8][0].count == 3


def test_a_known_run_is_read_again_when_it_streams_no_more(database: str) -> None:
    """Until then the given one is returned, which costs a row of three columns."""
    ids = recorded_runs(database, 3)  # all of them have ended

    async def story() -> list[Any]:
        reader = DatabaseReader(database)
        known = {id: (await reader.run(id))._replace(status="streaming") for id in ids}
        reads = [RunRead(DatabaseReader.run, (id,)) for id in ids]
        with ChatHistoryCallback(database) as history:
            open_run = str(begin(history))
            await history.flush()
            streaming = known[open_run] = await reader.run(open_run)
            found = await read_many(reader, [*reads, RunRead(DatabaseReader.run, (open_run,))], known)
        await reader.close()
        assert found[3] is streaming
        return [run.status for run in found]

    assert asyncio.run(story()) == ["complete", "interrupted", "interrupted", "streaming"]


def test_a_damaged_row_concerns_its_own_run(tmp_path: Any) -> None:
    """The other runs are read."""
    from tests.oracle import new_url

    url = new_url(tmp_path)
    ids = recorded_runs(url, 3)
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE segments SET deltas = 5 WHERE run_id = ? AND seq = 0", (ids[1],))
    assert sql(url, "SELECT count(*) FROM segments")[0][0] == 15
    together, one_by_one = results(url, [RunRead(DatabaseReader.segments, (id, 0, 4)) for id in ids])
    assert [*map(repr, together)] == [*map(repr, one_by_one)]
