"""Batches that the tests of stores append, and short calls to a store."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from typing import Any

from recorder.core.clock import now
from recorder.messages import AIMessage, HumanMessage
from recorder.recording.queue import RecordingQueue
from recorder.recording.serialize import serialize
from recorder.storage.batch import Batch, RunRows
from recorder.storage.message_lookups import Known
from recorder.storage.message_tree import settle, thread
from recorder.storage.rows import Producer
from recorder.storage.store import SqlStore
from recorder.wire.deltas import Delta
from tests import postgres
from tests.oracle import observed_statements, run_end, run_start, started

PRODUCER = Producer(str(uuid.UUID(int=99)), "here", 1, now(), now())
HISTORY = [HumanMessage("question")]


def using(url: str, story: Callable[[SqlStore], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """Run work with a new store, close the store, and return the result."""

    async def main() -> Any:
        store = SqlStore(url, **options)
        try:
            return await story(store)
        finally:
            await store.close()

    return asyncio.run(main())


def append(url: str, *batches: Sequence[RunRows]) -> None:
    """Store batches one after another."""

    async def story(store: SqlStore) -> None:
        for batch in batches:
            await store.append(Batch(PRODUCER, list(batch)))

    using(url, story)


def execute(url: str, statement: str) -> None:
    """Run a statement and commit it, on a connection of its own."""
    if not url.startswith("sqlite"):
        postgres.fetch(url, statement)
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


def whole_run(number: int, tokens: int = 3) -> list[RunRows]:
    """Return the rows of a run with everything that a batch may hold: messages, tokens, frames, a gap and the end."""
    rows = unthreaded_run(number, tokens)
    settle(rows, thread(rows, Known()))
    return rows


def unthreaded_run(number: int, tokens: int = 3) -> list[RunRows]:
    """Return the rows of the same run before a store has set the positions of its messages."""
    queue = RecordingQueue(2_000 + 310 * tokens, overflow="drop_newest")
    run = started(
        queue, run_start(number, conversation_id=f"c{number}", messages=list(HISTORY), user_id="me"), 0
    )
    for place in range(tokens + 5):
        queue.put_frame(run, b"frame", [Delta(f"{number}:{place}")], place)
    queue.end(run, run_end(replies=[AIMessage("answer")]))
    rows = serialize(queue.drain(2**40).runs)
    assert rows[0].gaps
    return rows


def statements_of(work: Callable[[], object]) -> list[str]:
    """Return the SQL statements that some work executes, without those that open a connection."""
    found: list[str] = []
    with observed_statements(found.append):
        work()
    return found
