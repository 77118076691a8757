"""The reader's thread: replays share it, finalizers let go of it without waiting, and an error does not last."""

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

#: Whoever has not come this far by then never will (seconds).
DEADLINE = 20


def text_of(chunks: Any) -> str:
    """The text of a stream."""
    return "".join(chunk.text for chunk in chunks)


def in_time(work: Callable[[], object]) -> bool:
    """Whether it comes to its end, on a thread of its own, which is left behind where it does not."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return not thread.is_alive()


@pytest.fixture
def url(database: str) -> str:
    """A database with one run."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, "abc")
        finish(history, run_id, "abc")
    return database


# -- who holds it ---------------------------------------------------------------------------------------------------


def test_a_stream_holds_the_replay_that_nobody_else_holds(url: str) -> None:
    """It plays to its end, in one expression or half-way."""
    assert text_of(Replay(url).stream(speed=None)) == "abc"
    chunks = Replay(url).stream(speed=None)
    first = next(chunks)
    gc.collect()
    assert first.text + text_of(chunks) == "abc"


def test_a_replay_that_is_collected_lets_go_of_the_database(url: str) -> None:
    """By itself: nobody has to ask for anything afterwards."""
    replay = Replay(url)
    assert text_of(replay.stream(speed=None)) == "abc"
    thread, gone = replay.reader._thread, weakref.ref(replay)
    del replay
    gc.collect()
    assert gone() is None
    assert thread is not None
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert url not in reader_thread._readers


def test_one_that_asked_nothing_is_let_go_of_by_the_next(tmp_path: Path) -> None:
    """There is no thread yet that could do it."""
    url, other = new_url(tmp_path), new_url(tmp_path, "other.db")
    Replay(url)
    gc.collect()
    Replay(other).close()
    assert url not in reader_thread._readers


def test_others_go_on_with_what_a_collected_one_shared(url: str) -> None:
    """And the last one ends the thread."""
    with Replay(url) as other:
        assert text_of(Replay(url).stream(speed=None)) == "abc"
        gc.collect()
        assert text_of(other.stream(speed=None)) == "abc"
        thread = other.reader._thread
    assert thread is not None
    assert not thread.is_alive()


def test_a_closed_replay_says_so(url: str) -> None:
    """Whoever shares its reader; a stream that was going on ends with the same words where nobody does."""
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


def test_who_waits_for_more_hears_that_it_was_closed(url: str) -> None:
    """From another thread, in the middle of following."""
    heard: list[BaseException] = []
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
                heard.append(error)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        replay.close()
        waiting.join(DEADLINE)
        finish(history, run_id)
    assert [type(error) for error in heard] == [Closed]


# -- finalizers -----------------------------------------------------------------------------------------------------


def dropped(url: str) -> None:
    """A replay and a stream that follows, left in a ring that only the collector finds."""
    replay = Replay(url)
    chunks = replay.stream(speed=None, follow=True)
    next(chunks)
    ring: list[Any] = [replay, chunks]
    ring.append(ring)


def test_the_collector_may_run_where_the_locks_are_held(url: str) -> None:
    """On the thread that holds them, which would wait for itself."""
    with Replay(url) as kept:
        held = kept.reader

        def collect() -> None:
            dropped(url)
            with reader_thread._lock, held._starting:
                gc.collect()

        gc.disable()
        try:
            assert in_time(collect)
        finally:
            gc.enable()
        assert text_of(kept.stream(speed=None)) == "abc"


def test_the_collector_may_run_on_the_reader_s_own_thread(url: str) -> None:
    """In the middle of a question: it can wait for no answer of its own."""

    async def collect(_library: DatabaseReader) -> int:
        return gc.collect()

    gc.disable()
    try:
        with Replay(url) as kept:
            dropped(url)
            assert kept.reader.ask(collect).result(DEADLINE) > 0
            assert text_of(kept.stream(speed=None)) == "abc"
    finally:
        gc.enable()


def test_the_last_replay_may_be_collected_on_the_reader_s_own_thread(url: str) -> None:
    """Whoever closes it there does not wait for the thread either."""
    found = shared(url)
    thread = found._thread

    async def close(_library: DatabaseReader) -> None:
        found.close()

    found.ask(close).result(DEADLINE)
    thread = found._thread
    assert thread is not None
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_many_replays_are_dropped_and_made_at_once(tmp_path: Path) -> None:
    """From several threads, with the collector at work: every one plays, and none is left."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        record(history, reply="abc")
    wrong: list[str] = []

    def story() -> None:
        for number in range(20):
            ring: list[Any] = [Replay(url)]
            ring.append(ring)
            wrong.extend(text for text in [text_of(ring[0].stream(speed=None))] if text not in ("", "abc"))
            if number % 5 == 0:
                gc.collect(
                    1
                )  # the ring is young; all that the process holds would take most of the story's time

    threads = [threading.Thread(target=story, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)
    gc.collect()
    Replay(url).close()
    assert (wrong, url in reader_thread._readers) == ([], False)


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
def test_a_fork_has_a_reader_of_its_own(tmp_path: Path) -> None:
    """Its parent's thread is not there; both go on."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        history.add_messages(["one", AIMessage("two")])
    assert run_python(FORKED, url).stdout.split() == ["2", "2", "2"]


# -- errors ---------------------------------------------------------------------------------------------------------


def test_following_is_tried_again_after_it_failed(tmp_path: Path) -> None:
    """The first one came before there were tables; nobody has to end the process."""
    path = tmp_path / "late.db"
    path.touch()
    url = f"sqlite:///{path}"
    with Replay(url) as replay:
        for _ in range(2):
            with pytest.raises(StoreError, match="holds no recording yet"):
                list(replay.stream(speed=None, follow=True))
        replay.reader._submit(asyncio.sleep(0)).result(DEADLINE)  # what finalizers ask for comes before
        assert replay.reader._followers == set()
        with ChatHistoryCallback(url) as history:
            run_id = begin(history)
            say(history, run_id, "abc")
            finish(history, run_id, "abc")
        assert text_of(replay.stream(speed=None, follow=True)) == "abc"


def test_an_answer_that_failed_is_asked_for_again(url: str) -> None:
    """Those who follow share answers, not errors."""
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
