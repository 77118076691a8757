"""Other work on the store runs on the writer's connection, and never waits for ever."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import Closed
from recorder.recording.store_work import StoreWork
from tests.oracle import record, sql


async def count_runs(store: Any) -> int:
    """Return how many runs are stored."""
    [row] = await store.rows("SELECT count(*) AS runs FROM runs")
    return int(row["runs"])


def test_work_sees_what_was_committed(database: str) -> None:
    """It runs between two batches, on the writer's thread."""
    threads: list[str] = []

    async def note(store: Any) -> int:
        threads.append(threading.current_thread().name)
        return await count_runs(store)

    with ChatHistoryCallback(database) as history:
        assert history.recorder.with_store(note).wait(10) == 0
        record(history)
        history.flush().wait(10)
        assert history.recorder.with_store(note).wait(10) == 1
    assert {*threads} == {"recorder-writer"}


def test_an_error_is_raised_by_its_wait_only(database: str) -> None:
    """Recording goes on, and so does other work."""

    async def fail(store: Any) -> None:
        raise ValueError("no such thing")

    with ChatHistoryCallback(database) as history:
        failed, counted = history.recorder.with_store(fail), history.recorder.with_store(count_runs)
        with pytest.raises(ValueError, match="no such thing"):
            failed.wait(10)
        assert counted.wait(10) == 0
        record(history)
    assert sql(database, "SELECT count(*) FROM runs") == [(1,)]


def test_many_threads_and_loops_get_their_results(database: str) -> None:
    """None is lost between the writer's last look and its sleep."""

    async def ask(history: ChatHistoryCallback) -> list[int]:
        return [await history.recorder.with_store(count_runs) for _ in range(20)]

    found: list[list[int]] = []
    with ChatHistoryCallback(database) as history:
        threads = [threading.Thread(target=lambda: found.append(asyncio.run(ask(history)))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert found == [[0] * 20] * 4


def test_work_after_the_end_is_refused(database: str) -> None:
    """Its wait raises `Closed`."""
    history = ChatHistoryCallback(database)
    history.close().wait(10)
    with pytest.raises(Closed):
        history.recorder.with_store(count_runs).wait(10)


def test_cancelled_work_ends_its_wait() -> None:
    """The recorder's loop is stopped while it runs."""

    async def hang(store: Any) -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        work = StoreWork(lambda: None)
        wait = work.add(hang)
        running = asyncio.create_task(work.run(object()))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        with pytest.raises(Closed):
            wait.wait(0)

    asyncio.run(story())
