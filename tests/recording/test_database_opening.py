"""A recorder waits for its database when it is made outside of an event loop, and does not wait on one."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.waitable import Wait
from recorder.errors import RecorderError, SchemaError, StoreError
from recorder.testing import MemoryStore
from tests.oracle import assert_whole, begin, finish, hasty, new_url, record, say, sql


@pytest.fixture
def without_delays() -> Iterator[None]:
    """The writer waits at most 1 ms between two attempts."""
    with hasty():
        yield


class Silent(MemoryStore):
    """A store that does not open until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: Wait[None] = Wait()
        self.opening: Wait[None] = Wait()

    async def open(self) -> None:
        self.opening.set(None)
        await self.gate


class Absent(MemoryStore):
    """A store that cannot be reached."""

    async def open(self) -> None:
        raise ConnectionError("nobody there")


class Foreign(MemoryStore):
    """A store with the tables of another program."""

    async def open(self) -> None:
        raise SchemaError("not ours")

    def failure(self, error: BaseException) -> Any:
        return "fatal" if isinstance(error, SchemaError) else super().failure(error)


def test_the_constructor_does_not_wait_on_an_event_loop() -> None:
    """It returns before the database answers, and what is recorded meanwhile is stored."""
    store = Silent()

    async def story() -> None:
        history = ChatHistoryCallback(store=store, open_timeout=3600, strict=True)
        run_id = begin(history)
        say(history, run_id, ["a"])
        opened = asyncio.ensure_future(awaited(history.opened()))
        await store.opening
        assert not opened.done()
        store.gate.set(None)
        await opened
        finish(history, run_id, "a")
        async with history:
            pass
        assert history.stats().committed == 1

    asyncio.run(story())


async def awaited(wait: Wait[None]) -> None:
    """Await the wait inside of a coroutine, and return its result."""
    return await wait


def test_opened_is_done_at_once_outside_of_an_event_loop(database: str) -> None:
    """The constructor has waited for the database."""
    with ChatHistoryCallback(database) as history:
        assert history.opened().done
        assert history.opened().wait() is None
        run_id = record(history, reply="a")
    assert_whole(database, run_id, ["a"])


@pytest.mark.usefixtures("without_delays")
@pytest.mark.parametrize("store", [Absent, Foreign])
def test_a_failure_to_open_is_raised_by_opened_and_logged_on_an_event_loop(
    store: type[MemoryStore], caplog: pytest.LogCaptureFixture
) -> None:
    """`async with` and `opened()` raise what the constructor would have raised; `stats()` and the log have it too."""
    kind: type[Exception] = SchemaError if store is Foreign else ConnectionError

    async def story() -> None:
        history = ChatHistoryCallback(store=store(), strict=True)
        with pytest.raises(kind):
            await history.opened()
        with pytest.raises(kind):
            async with history:
                pytest.fail("the block begins")
        await history.close()
        say(history, begin(history), ["a"])
        stats = history.stats()
        assert (stats.healthy, stats.dropped) == (False, 1)
        assert "opening the database" in (stats.last_error or "")
        for call in (history.flush, lambda: history.add_messages("Hi", conversation_id="c")):
            with pytest.raises(StoreError, match="Nothing is recorded"):
                call()

    with caplog.at_level(logging.ERROR, "recorder"):
        asyncio.run(story())
    assert "nothing is recorded" in caplog.text


def test_an_unknown_schema_is_raised_without_strict(tmp_path: Path) -> None:
    """The file has an unknown revision, and both the constructor and `async with` raise a SchemaError."""
    url = new_url(tmp_path)
    sql_write(url, "UPDATE alembic_version SET version_num = '9999'")

    async def story() -> None:
        with pytest.raises(SchemaError):
            async with ChatHistoryCallback(url):
                pytest.fail("the block begins")

    asyncio.run(story())
    with pytest.raises(SchemaError):
        ChatHistoryCallback(url)


def sql_write(url: str, statement: str) -> None:
    """Change the file as another program does."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


def on_a_loop(history: Callable[[], ChatHistoryCallback]) -> ChatHistoryCallback:
    """Construct the history on an event loop, and wait until it is open."""

    async def story() -> ChatHistoryCallback:
        found = history()
        await found.opened()
        return found

    return asyncio.run(story())


@pytest.mark.parametrize("construct", [on_a_loop, lambda history: history()], ids=["on a loop", "off a loop"])
def test_a_database_that_does_not_answer_is_reported_after_open_timeout(
    construct: Callable[[Any], ChatHistoryCallback], caplog: pytest.LogCaptureFixture
) -> None:
    """With `strict` it raises; without, the recorder records in memory and stores all when the database answers."""
    with pytest.raises(RecorderError, match=r"did not answer within 0\.01 s"):
        construct(lambda: ChatHistoryCallback(store=Silent(), strict=True, open_timeout=0.01))
    store = Silent()
    history = construct(lambda: ChatHistoryCallback(store=store, open_timeout=0.01))
    while history.stats().healthy:  # the writer reports it at the same moment
        pass
    assert "did not answer within" in (history.stats().last_error or "")
    assert "does not answer" in caplog.text
    run_id = record(history, reply="a")
    store.gate.set(None)
    history.flush().wait(20)
    assert history.stats().healthy
    history.close().wait(20)
    assert store.seals[str(run_id)].token_count == 1


@pytest.mark.usefixtures("without_delays")
def test_opened_succeeds_when_the_database_is_away_for_a_while() -> None:
    """Without `strict` the recorder tries until the database opens, and stores the run."""

    class Late(MemoryStore):
        times = 0

        async def open(self) -> None:
            self.times += 1
            if self.times < 6:
                raise ConnectionError("not yet")

    store = Late()
    history = on_a_loop(lambda: ChatHistoryCallback(store=store))
    run_id = record(history)
    history.flush().wait(20)
    assert str(run_id) in store.seals
    history.close().wait(20)


def test_two_recorders_can_begin_on_one_event_loop(tmp_path: Path) -> None:
    """Both open the file on the loop, and both store a run."""
    url = new_url(tmp_path)

    async def story() -> None:
        async with ChatHistoryCallback(url) as one, ChatHistoryCallback(url) as two:
            for history in (one, two):
                record(history)
                await history.flush()

    asyncio.run(story())
    assert sql(url, "SELECT count(*) FROM runs") == [(2,)]
