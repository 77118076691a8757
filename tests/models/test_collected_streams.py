"""Streams in a reference cycle are closed by the garbage collector, on any thread. Nothing waits for a lock there."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recorder.callbacks import AsyncIteratorCallbackHandler, BaseCallbackHandler
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.models import SimpleChatModel
from recorder.models.collected_streams import Collector, collector
from recorder.storage.rows import CANCELLED
from recorder.testing import MemoryStore
from tests.oracle import assert_whole, begin, finish, run_python, say, sql


class Counting(SimpleChatModel):
    """Streams numbers."""

    def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
        for number in range(1_000):
            yield f"{number} "


class Ends(BaseCallbackHandler):
    """Remembers on which thread a run failed; takes a lock for that."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: list[str] = []

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        with self.lock:
            self.threads.append(threading.current_thread().name)


class Session:
    """An object of the application that holds a stream and is part of a reference cycle."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.me = stream, self


@pytest.fixture(autouse=True)
def only_here() -> Iterator[None]:
    """The garbage collector runs only where a test calls it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left(model: Counting) -> None:
    """Leave a stream in a reference cycle after two tokens."""
    session = Session(model.stream("Count."))
    assert [next(session.stream).content for _ in range(2)] == ["0 ", "1 "]


def test_the_end_of_a_collected_stream_is_reported_on_another_thread() -> None:
    """Its handler takes a lock that this thread holds while the collector runs. Nothing waits for ever."""
    ends = Ends()
    left(Counting(callbacks=[ends]))
    with ends.lock:
        gc.collect()
        assert ends.threads == []
    collector.drain(20)
    assert ends.threads == ["recorder-collector"]


def test_a_stream_that_is_closed_or_dropped_is_reported_at_once() -> None:
    """On the same thread, before the next line."""
    ends = Ends()
    model = Counting(callbacks=[ends])
    stream: Any = model.stream("Count.")
    next(stream)
    stream.close()
    for _ in model.stream("Count."):
        break
    assert ends.threads == [threading.current_thread().name] * 2


def test_the_collector_may_run_inside_the_queue(database: str) -> None:
    """On the thread that is inside the queue. The run is stored as cancelled, with its tokens so far."""
    with ChatHistoryCallback(database) as history:
        left(Counting(callbacks=[history]))
        history.recorder.queue.call(gc.collect)
        collector.drain(20)
        history.flush().wait(20)
        [(run_id,)] = sql(database, "SELECT id FROM runs")
        assert_whole(database, run_id, ["0 ", "1 "], CANCELLED)


class Held:
    """An object of another framework that ends its run when it is collected."""

    def __init__(self, history: ChatHistoryCallback, run_id: uuid.UUID) -> None:
        self.history, self.run_id, self.me = history, run_id, self

    def __del__(self) -> None:
        say(self.history, self.run_id, ["last"])
        self.history.on_llm_error(GeneratorExit(), run_id=self.run_id)
        self.history.stats()
        self.history.flush()


def test_other_finalizers_may_call_the_handler_inside_the_queue(database: str) -> None:
    """Token, end, stats and flush, in this order, while the thread is in the queue."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, ["first"])
        Held(history, run_id)
        history.recorder.queue.call(gc.collect)
        history.flush().wait(20)
        assert_whole(database, run_id, ["first", "last"], CANCELLED)


def test_a_finalizer_does_not_wait_for_another_thread_in_the_queue() -> None:
    """It ends its run while that thread stays inside, and so may hold a lock that the other waits for."""
    history = ChatHistoryCallback(store=MemoryStore())
    run_id = begin(history)
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        leave.wait(20)

    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(history.recorder.queue.call, stay)
        entered.wait(20)
        finish(history, run_id, "done")  # would never return
        closing = history.close()
        leave.set()
        staying.result(20)
    assert closing.wait(20).open_runs == 0


def test_an_iteration_ends_though_its_lock_is_held() -> None:
    """The thread that collects a stream sets `done`, also in the middle of a call of the handler."""

    async def story() -> list[str]:
        handler = AsyncIteratorCallbackHandler()
        handler.on_llm_new_token("a")
        reading = asyncio.ensure_future(read(handler))
        await asyncio.sleep(0)
        with ThreadPoolExecutor(1) as pool:
            handler._lock.acquire()
            pool.submit(handler.on_llm_error, GeneratorExit()).result(20)
            handler._lock.release()
        return await reading

    assert asyncio.run(story()) == ["a"]


async def read(handler: AsyncIteratorCallbackHandler) -> list[str]:
    """All tokens of one run."""
    return [token async for token in handler.aiter()]


def test_a_collection_on_another_thread_does_not_count_here() -> None:
    """A stream that is closed here while the collector runs there is reported here."""
    here = Collector()
    seen: list[bool] = []
    here._on_gc("start", {})
    with ThreadPoolExecutor(1) as pool:
        seen.append(pool.submit(lambda: here.runs_here).result(20))
    seen.append(here.runs_here)
    here._on_gc("stop", {})
    seen.append(here.runs_here)
    gc.callbacks.remove(here._on_gc)
    assert seen == [False, True, False]


class FullOnce:
    """`Thread.start` of a process that has as many threads as it may have; later it has one less."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        start = threading.Thread.start

        def refuse_once(thread: threading.Thread) -> None:
            if not self.refused:
                self.refused += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse_once)


def test_a_thread_that_cannot_start_breaks_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call starts it, and it also ends the run of the stream that was collected before."""
    collector.reset()
    full = FullOnce(monkeypatch)
    ends = Ends()
    left(Counting(callbacks=[ends]))
    gc.collect()
    assert (full.refused, ends.threads) == (1, [])
    left(Counting(callbacks=[ends]))
    collector.drain(20)
    assert ends.threads == ["recorder-collector"]
    gc.collect()
    collector.drain(20)
    assert ends.threads == ["recorder-collector"] * 2


def test_without_a_thread_the_exit_ends_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its own thread, because the collector's never started."""
    collector.reset()
    FullOnce(monkeypatch)
    ends = Ends()
    left(Counting(callbacks=[ends]))
    gc.collect()
    collector.drain(20)
    assert ends.threads == [threading.current_thread().name]


def test_a_handler_that_ends_its_thread_does_not_end_the_collectors() -> None:
    """The run of the next stream is reported as well."""

    class Leaving(Ends):
        def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
            super().on_llm_error(error)
            raise SystemExit

    ends = Leaving()
    for _ in range(2):
        left(Counting(callbacks=[ends]))
        gc.collect()
        collector.drain(20)
    assert ends.threads == ["recorder-collector"] * 2


def test_streams_that_were_collected_last_are_stored_at_exit(database: str) -> None:
    """The script ends before their callbacks were called."""
    code = """
import gc, sys
from recorder import ChatHistoryCallback
from tests.models.test_collected_streams import Counting, left

gc.disable()
history = ChatHistoryCallback(sys.argv[1])
for _ in range(20):
    left(Counting(callbacks=[history]))
gc.collect()
"""
    done = run_python(code, database)
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(database, "SELECT status, count(*) FROM runs GROUP BY status") == [(CANCELLED, 20)]


def test_many_threads_with_a_collector_that_runs_often(database: str) -> None:
    """It runs after every few new objects, also inside the queue. All threads go on, and all runs are stored."""
    code = """
import faulthandler, gc, sys, threading
from recorder import ChatHistoryCallback
from tests.models.test_collected_streams import Counting, left

faulthandler.dump_traceback_later(50, exit=True)
gc.set_threshold(7, 2, 2)
with ChatHistoryCallback(sys.argv[1], flush_interval=0.001) as history:
    model = Counting(callbacks=[history])
    def leave():
        for _ in range(60):
            left(model)
    threads = [threading.Thread(target=leave) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    from recorder.models.collected_streams import collector
    while history.stats().open_runs:  # another thread may be collecting, and then this one collects nothing
        gc.collect()
        collector.drain(20)
"""
    done = run_python(code, database, timeout=55)
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(database, "SELECT status, count(*) FROM runs GROUP BY status") == [(CANCELLED, 180)]
