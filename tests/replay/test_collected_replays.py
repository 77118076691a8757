"""A `with` block of a generator that is collected ends inside the garbage collector. Nothing waits for a lock there."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.replay import Replay, reader_thread
from recorder.storage.reader import DatabaseReader
from recorder.testing import MemoryStore
from tests.oracle import begin, finish, new_url, say

#: Whoever has not come this far by then never will (seconds).
DEADLINE = 20


@pytest.fixture(autouse=True)
def only_here() -> Iterator[None]:
    """The garbage collector runs only where a test calls it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with one run."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, "abc")
        finish(history, run_id, "abc")
    return url


def leave(items: Iterator[Any]) -> None:
    """Leave a generator in a reference cycle after its first item."""
    next(items)
    ring: list[Any] = [items]
    ring.append(ring)


def in_time(work: Callable[[], object]) -> bool:
    """Whether it comes to its end, on a thread of its own, which is left behind where it does not."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return not thread.is_alive()


def test_a_replay_of_a_collected_block_is_closed_though_the_locks_are_held(url: str) -> None:
    """The thread that collects it holds the locks of the readers. The next replay of the database works."""

    def lines() -> Iterator[Any]:
        with Replay(url) as replay:
            yield from replay.stream(speed=None)

    with Replay(url) as kept:
        held = kept.reader

        def collect() -> None:
            leave(lines())
            with reader_thread._lock, held._starting:
                gc.collect()

        assert in_time(collect)
        assert "".join(chunk.text for chunk in kept.stream(speed=None)) == "abc"
        assert held.ask(DatabaseReader.latest, 1).result(DEADLINE)
        assert held.users == 1
    assert (url, "replay") not in reader_thread._readers


def recorded_by(history: ChatHistoryCallback) -> Iterator[str]:
    """A generator of the application that records."""
    with history:
        yield "first"


def test_a_callback_of_a_collected_block_is_closed_on_its_writers_thread() -> None:
    """Where it would wait for itself. What was recorded before is stored."""
    store = MemoryStore()
    history = ChatHistoryCallback(store=store)
    opened = history.opened()
    opened.wait(DEADLINE)
    leave(recorded_by(history))
    run_id = begin(history)
    say(history, run_id, "abc")
    finish(history, run_id, "abc")
    loop = history.recorder.queue._waker._loop
    assert loop is not None
    loop.call_soon_threadsafe(gc.collect)
    closed = threading.Event()

    def wait() -> None:
        while not history.recorder.closed:
            pass
        history.close().wait(DEADLINE)
        closed.set()

    assert in_time(wait)
    assert closed.is_set()
    assert history.stats().committed == 3


def test_who_closes_on_the_writers_thread_does_not_wait_for_it() -> None:
    """The wait ends at once, and the recorder is closed."""
    history = ChatHistoryCallback(store=MemoryStore())
    loop = history.recorder.queue._waker._loop
    assert loop is not None
    done = threading.Event()

    def close() -> None:
        history.close().wait()
        done.set()

    loop.call_soon_threadsafe(close)
    assert done.wait(DEADLINE)
    assert history.close().wait(DEADLINE).open_runs == 0


def test_the_end_of_an_asynchronous_block_does_not_block_the_loop(url: str) -> None:
    """Another task goes on while the block waits for its database; here it is the one that makes it answer."""

    async def story() -> list[str]:
        seen: list[str] = []
        loop, asked, answer = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def stall() -> None:
            loop.call_soon_threadsafe(asked.set)
            assert answer.wait(DEADLINE)

        async def make_it_answer() -> None:
            await asked.wait()
            seen.append("asked")
            answer.set()

        async with Replay(url) as replay:
            replay.closing.append(stall)
            answering = asyncio.create_task(make_it_answer())
        seen.append("closed")
        await answering
        return seen

    assert asyncio.run(story()) == ["asked", "closed"]


def test_a_replay_is_closed_after_the_executor_was_shut_down(url: str) -> None:
    """The end of its block needs no thread of the loop's executor."""

    async def story() -> Replay:
        async with Replay(url) as replay:
            assert await anext(replay.astream(speed=None))
            await asyncio.get_running_loop().shutdown_default_executor()
        return replay

    assert asyncio.run(story()).closed


def test_a_replay_in_a_context_variable_is_collected(url: str) -> None:
    """Frameworks put what they call into context variables. The reader's thread does not keep this context."""

    def use() -> weakref.ref[Replay]:
        variable.set(replay := Replay(url))
        assert "".join(chunk.text for chunk in replay.stream(speed=None)) == "abc"
        return weakref.ref(replay)

    variable: ContextVar[Replay] = ContextVar("replay")
    found = copy_context().run(use)
    gc.collect()
    assert found() is None
