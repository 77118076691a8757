"""A live run is played once for all of its readers, and readers that are late get the rest from the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.replay.reader_thread import shared
from recorder.server import live_run, piece
from tests import postgres
from tests.oracle import begin, finish, say, token
from tests.server.serving import CLIENT, Events, Served, parse, recorded, serving

TEXTS = [token(8, seq) or "." for seq in range(600)]


async def followers(session: aiohttp.ClientSession, server: Served) -> int:
    """Ask the server how many readers it has."""
    async with session.get(f"{server.url}/healthz") as response:
        return int((await response.json())["followers"])


def followed(server: Served, run_id: UUID, readers: int, record: Callable[[], None]) -> list[Events]:
    """Let so many readers follow a run while it is recorded; what each has read."""

    async def follow(session: aiohttp.ClientSession) -> Events:
        found = Events()
        async with session.get(f"{server.url}/streams/{run_id}") as response:
            for block in (await response.read()).split(b"\n\n"):
                if (each := parse(block.decode())) is not None:
                    found.add(*each)
        return found

    async def story() -> list[Events]:
        limit = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=limit, timeout=aiohttp.ClientTimeout(50)) as session:
            reading = [asyncio.create_task(follow(session)) for _ in range(readers)]
            while await followers(session, server) < readers:
                pass
            await asyncio.to_thread(record)
            return await asyncio.gather(*reading)

    return asyncio.run(story())


def test_many_readers_cost_the_queries_of_one(database: str) -> None:
    """The number of queries depends on the commits."""
    queries: list[str] = []

    def seen(*given: Any) -> None:
        if "deltas" in given[2]:
            queries.append(given[2])

    with ChatHistoryCallback(database, flush_interval=0.01) as history, serving(database) as server:
        run_id = begin(history)
        history.flush().wait(10)

        def record() -> None:
            for start in range(0, 600, 30):
                recorded(history, run_id, TEXTS[start : start + 30])
            finish(history, run_id, "done")

        reader = shared(database)
        before = reader.version
        event.listen(Engine, "before_cursor_execute", seen)
        try:
            found = followed(server, run_id, 100, record)
        finally:
            event.remove(Engine, "before_cursor_execute", seen)
        looks = reader.version - before
        reader.close()
    assert {tuple(each.texts) for each in found} == {tuple(TEXTS)}
    # A look ends with a query that finds nothing; the others find what one of the 20 commits has brought.
    assert len(queries) <= 2 * (looks + 20), f"{looks} looks"


def test_late_readers_join_at_an_exact_token(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window holds one small piece, so that each reader changes between it and the database many times."""
    monkeypatch.setattr(live_run, "WINDOW_BYTES", 1)
    monkeypatch.setattr(live_run, "_STORED_TOKENS", 10)
    monkeypatch.setattr(piece, "PIECE_BYTES", 1_000)
    with ChatHistoryCallback(database, flush_interval=0.002) as history, serving(database) as server:
        run_id = begin(history)
        recorded(history, run_id, TEXTS[:100])

        def record() -> None:
            for start in range(100, 600, 20):
                recorded(history, run_id, TEXTS[start : start + 20])
            finish(history, run_id, "done")

        found = followed(server, run_id, 20, record)
    assert {tuple(each.seqs) for each in found} == {tuple(range(600))}
    assert {tuple(each.texts) for each in found} == {tuple(TEXTS)}


def test_a_reader_that_leaves_ends_at_once(database: str) -> None:
    """It is gone before the next token, and the run goes on."""
    with ChatHistoryCallback(database, flush_interval=0.01) as history, serving(database) as server:
        run_id = begin(history)
        history.flush().wait(10)
        with CLIENT.stream("GET", f"{server.url}/streams/{run_id}") as response:
            chunks = response.iter_raw()
            assert next(chunks) == b"retry: 1000\n\n"
            counts = {CLIENT.get(f"{server.url}/healthz").json()["followers"]}
        while counts != {0, 1}:  # the test's time is the limit
            counts.add(CLIENT.get(f"{server.url}/healthz").json()["followers"])
        say(history, run_id, TEXTS)
        finish(history, run_id, "done")


def test_gaps_have_a_place_of_their_own(database: str) -> None:
    """Missing tokens are an event, and a reader continues before and behind it."""
    with ChatHistoryCallback(database, max_queue_bytes=3_000, overflow="drop_newest") as history:
        run_id = begin(history)
        recorded(history, run_id, ["first"])
        say(history, run_id, ["x" * 500] * 20)
        history.flush().wait(10)
        recorded(history, run_id, ["last"])
        finish(history, run_id, "done")
    with serving(database) as server:
        whole = CLIENT.get(f"{server.url}/streams/{run_id}").text
        parts = [part + "\n\n" for part in whole.split("\n\n")[1:-1]]
        assert sum("event: gap" in part for part in parts) == 1
        for place, part in enumerate(parts[:-1], 1):
            [id] = [line[4:] for line in part.splitlines() if line.startswith("id: ")]
            rest = CLIENT.get(f"{server.url}/streams/{run_id}", headers={"last-event-id": id}).text
            assert rest == "retry: 1000\n\n" + "".join(parts[place:])


def test_a_lost_connection_to_the_database_cuts_no_stream_wrongly(postgres_url: str) -> None:
    """Readers get everything, or an end of their response without the end of the run, and continue."""
    known = Events()
    with ChatHistoryCallback(postgres_url, flush_interval=0.01) as history, serving(postgres_url) as server:
        run_id = begin(history)
        recorded(history, run_id, TEXTS[:100])

        def record() -> None:
            for start in range(100, 600, 50):
                recorded(history, run_id, TEXTS[start : start + 50])
                postgres.fetch(
                    postgres_url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid()",
                )
            finish(history, run_id, "done")

        recording = threading.Thread(target=record)
        recording.start()
        while known.end is None:
            headers = {"last-event-id": known.id or ""}
            response = CLIENT.get(f"{server.url}/streams/{run_id}", headers=headers)
            assert response.status_code in (200, 503)
            if response.status_code == 200:
                for block in response.text.split("\n\n"):
                    if (each := parse(block)) is not None:
                        known.add(*each)
        recording.join()
    assert (known.texts, known.seqs) == (TEXTS, list(range(600)))
