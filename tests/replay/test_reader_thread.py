"""The reader's thread is shared by replays, ends with the last one, and recovers from errors."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import Closed, StoreError
from recorder.messages import AIMessage
from recorder.replay import Replay, reader_thread
from recorder.replay.playback import QueryStep
from recorder.replay.reader_thread import ReaderThread, shared
from recorder.storage.reader import DatabaseReader
from tests.oracle import begin, finish, new_url, record, run_python, say

#: Seconds after which work counts as blocked for ever.
DEADLINE = 20


def text_of(chunks: Any) -> str:
    """Return the text of a stream."""
    return "".join(chunk.text for chunk in chunks)


def in_time(work: Callable[[], object]) -> bool:
    """Run work on a thread of its own and return whether it ended; if not, the thread is abandoned."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return not thread.is_alive()


@pytest.fixture
def url(database: str) -> str:
    """Return the URL of a database with one run."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, "abc")
        finish(history, run_id, "abc")
    return database


# -- references -----------------------------------------------------------------------------------------------------


def test_a_stream_keeps_its_replay_alive(url: str) -> None:
    """The stream can be read to its end although there is no other reference to the replay."""
    assert text_of(Replay(url).stream(speed=None)) == "abc"
    chunks = Replay(url).stream(speed=None)
    first = next(chunks)
    gc.collect()
    assert first.text + text_of(chunks) == "abc"


def test_a_collected_replay_closes_its_database(url: str) -> None:
    """The reader's thread ends without any further call."""
    replay = Replay(url)
    assert text_of(replay.stream(speed=None)) == "abc"
    thread, gone = replay.reader._thread, weakref.ref(replay)
    del replay
    gc.collect()
    assert gone() is None
    assert thread is not None
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert (url, "replay") not in reader_thread._readers


def test_a_collected_replay_without_a_thread_is_removed_by_the_next(tmp_path: Path) -> None:
    """It sent no query, so that it has no thread which could remove it."""
    url, other = new_url(tmp_path), new_url(tmp_path, "other.db")
    Replay(url)
    gc.collect()
    Replay(other).close()
    assert (url, "replay") not in reader_thread._readers


def test_a_collected_replay_does_not_close_a_shared_reader(url: str) -> None:
    """The reader's thread ends with the last replay."""
    with Replay(url) as other:
        assert text_of(Replay(url).stream(speed=None)) == "abc"
        gc.collect()
        assert text_of(other.stream(speed=None)) == "abc"
        thread = other.reader._thread
    assert thread is not None
    assert not thread.is_alive()


def test_a_closed_replay_refuses_queries(url: str) -> None:
    """Other replays of the same reader continue, and an open stream of the closed replay raises Closed."""
    with Replay(url) as other:
        replay = Replay(url)
        replay.close()
        replay.close()
        with pytest.raises(Closed, match="make another one"):
            list(replay.stream())
        assert text_of(other.stream(speed=None)) == "abc"
    replay = Replay(url)
    chunks = replay.stream(speed=None)
    next(chunks)
    replay.close()
    with pytest.raises(Closed, match="make another one"):
        list(chunks)


def test_closing_a_replay_ends_a_follower_that_waits(url: str) -> None:
    """The follower waits on another thread and gets Closed."""
    received: list[BaseException] = []
    with ChatHistoryCallback(url, flush_interval=0) as history:
        run_id = begin(history)
        say(history, run_id, "a")
        history.flush().wait(10)
        replay = Replay(url)
        chunks = replay.stream(str(run_id), speed=None, follow=True)
        next(chunks)

        def wait() -> None:
            try:
                next(chunks)
            except Closed as error:
                received.append(error)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        replay.close()
        waiting.join(DEADLINE)
        finish(history, run_id)
    assert [type(error) for error in received] == [Closed]


# -- finalizers -----------------------------------------------------------------------------------------------------


def leave_in_a_cycle(url: str) -> None:
    """Leave a replay and a stream that follows in a reference cycle."""
    replay = Replay(url)
    chunks = replay.stream(speed=None, follow=True)
    next(chunks)
    cycle: list[Any] = [replay, chunks]
    cycle.append(cycle)


def test_the_collector_may_run_while_the_locks_are_held(url: str) -> None:
    """It runs on the thread that holds them, and there is no deadlock."""
    with Replay(url) as other:
        reader = other.reader

        def collect() -> None:
            leave_in_a_cycle(url)
            with reader_thread._lock, reader._starting:
                gc.collect()

        gc.disable()
        try:
            assert in_time(collect)
        finally:
            gc.enable()
        assert text_of(other.stream(speed=None)) == "abc"


def test_the_collector_may_run_on_the_readers_thread(url: str) -> None:
    """It runs inside of a query, whose thread cannot wait for another query."""

    async def collect(_library: DatabaseReader) -> int:
        return gc.collect()

    gc.disable()
    try:
        with Replay(url) as other:
            leave_in_a_cycle(url)
            assert other.reader.ask(collect).result(DEADLINE) > 0
            assert text_of(other.stream(speed=None)) == "abc"
    finally:
        gc.enable()


def test_the_reader_may_be_closed_on_its_own_thread(url: str) -> None:
    """The close does not wait for the thread, which then ends."""
    found = shared(url)
    thread = found._thread

    async def close(_library: DatabaseReader) -> None:
        found.close()

    found.ask(close).result(DEADLINE)
    thread = found._thread
    assert thread is not None
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_replays_may_be_made_and_dropped_on_several_threads(tmp_path: Path) -> None:
    """All of them play, and no reader is left."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        record(history, reply="abc")
    wrong: list[str] = []

    def story() -> None:
        for number in range(20):
            cycle: list[Any] = [Replay(url)]
            cycle.append(cycle)
            wrong.extend(text for text in [text_of(cycle[0].stream(speed=None))] if text not in ("", "abc"))
            if number % 5 == 0:
                gc.collect(1)  # the cycle is young, and a full collection would take most of the test's time

    threads = [threading.Thread(target=story, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)
    gc.collect()
    Replay(url).close()
    assert (wrong, (url, "replay") in reader_thread._readers) == ([], False)


FORKED = """
import os, sys, threading
from recorder.replay import Replay, reader_thread
replay = Replay(sys.argv[1])
print(len(replay.messages("c")), flush=True)
reader_thread._lock.acquire()  # as another thread may hold it
child = os.fork()
if not child:
    print(len(replay.messages("c")), flush=True)
    replay.close()
    os._exit(0)
reader_thread._lock.release()
os.waitpid(child, 0)
print(len(replay.messages("c")), flush=True)
replay.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_reader_of_its_own(tmp_path: Path) -> None:
    """The parent's thread does not exist in the child; both can read."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        history.add_messages(["one", AIMessage("two")])
    assert run_python(FORKED, url).stdout.split() == ["2", "2", "2"]


# -- errors ---------------------------------------------------------------------------------------------------------


def test_following_works_after_it_failed(tmp_path: Path) -> None:
    """The first attempts failed because the database had no tables yet."""
    path = tmp_path / "late.db"
    path.touch()
    url = f"sqlite:///{path}"
    with Replay(url) as replay:
        for _ in range(2):
            with pytest.raises(StoreError, match="holds no recording yet"):
                list(replay.stream(speed=None, follow=True))
        replay.reader._submit(asyncio.sleep(0)).result(
            DEADLINE
        )  # runs after the work that finalizers submitted
        assert replay.reader._followers == set()
        with ChatHistoryCallback(url) as history:
            run_id = begin(history)
            say(history, run_id, "abc")
            finish(history, run_id, "abc")
        assert text_of(replay.stream(speed=None, follow=True)) == "abc"


def test_a_failed_query_of_followers_is_repeated(url: str) -> None:
    """Followers share results, but not errors."""
    with Replay(url) as replay:
        errors = [ValueError("once")]

        async def fails_once(_library: DatabaseReader) -> str:
            if errors:
                raise errors.pop()
            return "well"

        def ask() -> Any:
            return found.answer_to(QueryStep(fails_once), follow=True).result(DEADLINE)

        found: ReaderThread = replay.reader
        with pytest.raises(StoreError, match="once"):
            ask()
        assert ask() == "well"
