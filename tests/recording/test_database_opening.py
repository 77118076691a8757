"""A recorder begins: off an event loop it waits for its database, on one it does not, and nobody misses a failure."""

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
def impatient() -> Iterator[None]:
    """Retries come at once."""
    with hasty():
        yield


class Silent(MemoryStore):
    """A store that opens when `gate` is over."""

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


def test_on_a_loop_the_constructor_waits_for_nothing() -> None:
    """It returns before the database has answered, the loop goes on, and what was recorded meanwhile is stored."""
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
    """What awaiting it gives."""
    return await wait


def test_off_a_loop_opened_is_over_already(database: str) -> None:
    """The constructor has waited for it."""
    with ChatHistoryCallback(database) as history:
        assert history.opened().done
        assert history.opened().wait() is None
        run_id = record(history, reply="a")
    assert_whole(database, run_id, ["a"])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("store", [Absent, Foreign])
def test_on_a_loop_a_failure_is_raised_by_who_waits_and_is_in_the_log(
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


def test_a_schema_that_is_not_ours_is_raised_on_a_loop_too(tmp_path: Path) -> None:
    """Of a real file, without `strict`."""
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
    """Change the file as another program would."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


def on_a_loop(history: Callable[[], ChatHistoryCallback]) -> ChatHistoryCallback:
    """Construct it there, and wait until it is open."""

    async def story() -> ChatHistoryCallback:
        found = history()
        await found.opened()
        return found

    return asyncio.run(story())


@pytest.mark.parametrize("construct", [on_a_loop, lambda history: history()], ids=["on a loop", "off a loop"])
def test_a_silent_database_is_told_after_a_while(
    construct: Callable[[Any], ChatHistoryCallback], caplog: pytest.LogCaptureFixture
) -> None:
    """With `strict` it is refused; without, the recorder goes on in memory, and stores it all in the end."""
    with pytest.raises(RecorderError, match=r"did not answer within 0\.01 s"):
        construct(lambda: ChatHistoryCallback(store=Silent(), strict=True, open_timeout=0.01))
    store = Silent()
    history = construct(lambda: ChatHistoryCallback(store=store, open_timeout=0.01))
    while history.stats().healthy:  # the writer tells it at the same time
        pass
    assert "did not answer within" in (history.stats().last_error or "")
    assert "does not answer" in caplog.text
    run_id = record(history, reply="a")
    store.gate.set(None)
    history.flush().wait(20)
    assert history.stats().healthy
    history.close().wait(20)
    assert store.seals[str(run_id)].token_count == 1


@pytest.mark.usefixtures("impatient")
def test_a_database_that_is_away_for_now_refuses_nobody() -> None:
    """On a loop as off it: without `strict` `opened()` is over, and the recorder tries on."""

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


def test_two_recorders_may_begin_on_one_loop(tmp_path: Path) -> None:
    """A file that another recorder made is opened on a loop, and both record."""
    url = new_url(tmp_path)

    async def story() -> None:
        async with ChatHistoryCallback(url) as one, ChatHistoryCallback(url) as two:
            for history in (one, two):
                record(history)
                await history.flush()

    asyncio.run(story())
    assert sql(url, "SELECT count(*) FROM runs") == [(2,)]
