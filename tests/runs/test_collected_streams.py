"""Streams that the garbage collector closes report their end without waiting for a lock, on any thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recorder.callbacks import AsyncIteratorCallbackHandler, BaseCallbackHandler
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.collection import Collection
from recorder.models import ChatOpenAI, SimpleChatModel
from recorder.runs.collected_streams import collector
from recorder.storage.rows import CANCELLED
from recorder.testing import LoopbackProvider, MemoryStore
from tests.oracle import assert_whole, begin, finish, run_python, say, sql


class Counting(SimpleChatModel):
    """A model that streams numbers."""

    def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
        for number in range(1_000):
            yield f"{number} "


class EndThreads(BaseCallbackHandler):
    """A handler that stores the names of the threads on which runs failed, and takes a lock for that."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: list[str] = []
        self.errors: list[BaseException] = []
        self.told = asyncio.Event()

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        with self.lock:
            self.errors.append(error)
            self.told.set()
            self.threads.append(threading.current_thread().name)


class Session:
    """An object of an application that holds a stream and is part of a reference cycle."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.me = stream, self


@pytest.fixture(autouse=True)
def manual_collection() -> Iterator[None]:
    """The garbage collector runs only where a test calls it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def leave_in_a_cycle(model: Counting) -> None:
    """Leave a stream in a reference cycle after two tokens."""
    session = Session(model.stream("Count."))
    assert [next(session.stream).content for _ in range(2)] == ["0 ", "1 "]


def test_the_end_of_a_collected_stream_is_reported_on_another_thread() -> None:
    """The handler takes a lock that this thread holds during the collection, and there is no deadlock."""
    ends = EndThreads()
    leave_in_a_cycle(Counting(callbacks=[ends]))
    with ends.lock:
        gc.collect()
        assert ends.threads == []
    collector.drain(20)
    assert ends.threads == ["recorder-collector"]


def test_a_stream_that_is_closed_or_dropped_is_reported_at_once() -> None:
    """The handler is called on the same thread, before the next statement."""
    ends = EndThreads()
    model = Counting(callbacks=[ends])
    stream: Any = model.stream("Count.")
    next(stream)
    stream.close()
    for _ in model.stream("Count."):
        break
    assert ends.threads == [threading.current_thread().name] * 2


def test_the_collector_may_run_inside_the_queue(database: str) -> None:
    """The run is stored as cancelled with its tokens, although this thread was inside of the queue."""
    with ChatHistoryCallback(database) as history:
        leave_in_a_cycle(Counting(callbacks=[history]))
        history.recorder.queue.call(gc.collect)
        collector.drain(20)
        history.flush().wait(20)
        [(run_id,)] = sql(database, "SELECT id FROM runs")
        assert_whole(database, run_id, ["0 ", "1 "], CANCELLED)


class EndedByFinalizer:
    """An object whose finalizer ends its run."""

    def __init__(self, history: ChatHistoryCallback, run_id: uuid.UUID) -> None:
        self.history, self.run_id, self.me = history, run_id, self

    def __del__(self) -> None:
        say(self.history, self.run_id, ["last"])
        self.history.on_llm_error(GeneratorExit(), run_id=self.run_id)
        self.history.stats()
        self.history.flush()


def test_other_finalizers_may_call_the_handler_inside_the_queue(database: str) -> None:
    """A finalizer may send a token and the end, and call stats and flush, while its thread is in the queue."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, ["first"])
        EndedByFinalizer(history, run_id)
        history.recorder.queue.call(gc.collect)
        history.flush().wait(20)
        assert_whole(database, run_id, ["first", "last"], CANCELLED)


def test_a_finalizer_does_not_wait_for_another_thread_in_the_queue() -> None:
    """It ends its run while another thread stays in the queue, so that no deadlock is possible."""
    history = ChatHistoryCallback(store=MemoryStore())
    run_id = begin(history)
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        leave.wait(20)

    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(history.recorder.queue.call, stay)
        entered.wait(20)
        finish(history, run_id, "done")  # must return while `stay` runs
        closing = history.close()
        leave.set()
        staying.result(20)
    assert closing.wait(20).open_runs == 0


def test_an_iteration_ends_while_its_lock_is_held() -> None:
    """A thread that collects a stream sets `done`, even in the middle of a call of the handler."""

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
    """Return all tokens of one run."""
    return [token async for token in handler.aiter()]


def test_a_collection_on_one_thread_does_not_affect_other_threads() -> None:
    """`runs_here` is true only on the thread that collects."""
    here = Collection()
    seen: list[bool] = []
    here.on_gc("start", {})
    with ThreadPoolExecutor(1) as pool:
        seen.append(pool.submit(lambda: here.runs_here).result(20))
    seen.append(here.runs_here)
    here.on_gc("stop", {})
    seen.append(here.runs_here)
    gc.callbacks.remove(here.on_gc)
    assert seen == [False, True, False]


class FullOnce:
    """Makes the first `Thread.start` fail as in a process with too many threads; later ones work."""

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
    """The next collected stream starts the thread, which also ends the run of the first one."""
    collector.reset()
    full = FullOnce(monkeypatch)
    ends = EndThreads()
    leave_in_a_cycle(Counting(callbacks=[ends]))
    gc.collect()
    assert (full.refused, ends.threads) == (1, [])
    leave_in_a_cycle(Counting(callbacks=[ends]))
    collector.drain(20)
    assert ends.threads == ["recorder-collector"]
    gc.collect()
    collector.drain(20)
    assert ends.threads == ["recorder-collector"] * 2


def test_the_exit_ends_collected_runs_when_no_thread_could_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are called on the thread that exits."""
    collector.reset()
    FullOnce(monkeypatch)
    ends = EndThreads()
    leave_in_a_cycle(Counting(callbacks=[ends]))
    gc.collect()
    collector.drain(20)
    assert ends.threads == [threading.current_thread().name]


def test_a_system_exit_in_a_handler_does_not_end_the_collectors_thread() -> None:
    """The run of the next stream is reported, too."""

    class Leaving(EndThreads):
        def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
            super().on_llm_error(error)
            raise SystemExit

    ends = Leaving()
    for _ in range(2):
        leave_in_a_cycle(Counting(callbacks=[ends]))
        gc.collect()
        collector.drain(20)
    assert ends.threads == ["recorder-collector"] * 2


def test_streams_that_are_collected_before_exit_are_stored(database: str) -> None:
    """The script ends before their handlers were called."""
    code = """
import gc, sys
from recorder import ChatHistoryCallback
from tests.runs.test_collected_streams import Counting, leave_in_a_cycle

gc.disable()
history = ChatHistoryCallback(sys.argv[1])
for _ in range(20):
    leave_in_a_cycle(Counting(callbacks=[history]))
gc.collect()
"""
    done = run_python(code, database)
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(database, "SELECT status, count(*) FROM runs GROUP BY status") == [(CANCELLED, 20)]


def test_a_frequent_garbage_collector_causes_no_deadlock(database: str) -> None:
    """It runs after every few new objects, also inside of the queue, and all runs of three threads are stored."""
    code = """
import faulthandler, gc, sys, threading
from recorder import ChatHistoryCallback
from tests.runs.test_collected_streams import Counting, leave_in_a_cycle

faulthandler.dump_traceback_later(50, exit=True)
gc.set_threshold(7, 2, 2)
with ChatHistoryCallback(sys.argv[1], flush_interval=0.001) as history:
    model = Counting(callbacks=[history])
    def leave():
        for _ in range(60):
            leave_in_a_cycle(model)
    threads = [threading.Thread(target=leave) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    from recorder.runs.collected_streams import collector
    while history.stats().open_runs:  # another thread may be collecting, and then this one collects nothing
        gc.collect()
        collector.drain(20)
"""
    done = run_python(code, database, timeout=55)
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(database, "SELECT status, count(*) FROM runs GROUP BY status") == [(CANCELLED, 180)]


HELD = """
import faulthandler, gc, httpx
from recorder.models import ChatOpenAI, OpenAI
from recorder.runs.collected_streams import collector
from recorder.testing import LoopbackProvider
from tests.runs.test_collected_streams import EndThreads, Session

faulthandler.dump_traceback_later(50, exit=True)
gc.disable()
with LoopbackProvider("Hello " * 50) as provider:
    for kind in (ChatOpenAI, OpenAI):
        http, ends = httpx.Client(trust_env=False), EndThreads()
        model = kind(base_url=provider.base_url, api_key="any", http_client=http, callbacks=[ends])
        def leave():
            next(Session(model.stream("Hi")).stream)
        leave()
        pool = http._transport._pool
        before = len(pool.connections)
        with pool._optional_thread_lock:
            gc.collect()
        collector.drain(20)
        print(before, len(pool.connections), ends.threads)
"""


def test_a_response_is_closed_though_the_lock_of_its_pool_is_held() -> None:
    """By the thread that collects the stream. httpcore's lock is a plain one, and the response needs it."""
    done = run_python(HELD, timeout=59)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 0 ['recorder-collector']\n" * 2


class Streaming(SimpleChatModel):
    """Streams numbers on an event loop."""

    async def _astream(self, messages: Any, **options: Any) -> AsyncIterator[str]:
        for number in range(1_000):
            yield f"{number} "


async def aleft(stream: Any) -> None:
    """Leave an asynchronous stream in a reference cycle. The first event comes before the run begins."""
    session = Session(stream)
    for _ in range(3):
        await anext(session.stream)


WAYS = pytest.mark.parametrize("way", ["astream", "astream_events"])


@WAYS
@pytest.mark.parametrize("kind", [Counting, Streaming, ChatOpenAI])
def test_the_loop_ends_a_collected_stream_once(kind: Any, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """As cancelled, and nothing is logged, though the loop learns of one generator inside of another."""
    ends = EndThreads()

    async def story(model: Any) -> None:
        await aleft(getattr(model, way)("Count."))
        gc.collect()
        await ends.told.wait()

    with LoopbackProvider("Hello " * 50) as provider:
        options = {"base_url": provider.base_url, "api_key": "any"} if kind is ChatOpenAI else {}
        asyncio.run(story(kind(callbacks=[ends], **options)))
    assert ends.threads == [threading.current_thread().name]
    assert [type(error) for error in ends.errors] == [GeneratorExit]
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []


@WAYS
def test_a_stream_whose_loop_was_closed_ends_when_it_is_collected(way: str) -> None:
    """Nobody else can end it: its loop closes nothing any more."""
    ends = EndThreads()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(aleft(getattr(Streaming(callbacks=[ends]), way)("Count.")))
    loop.close()
    gc.collect()
    collector.drain(20)
    assert ends.threads == ["recorder-collector"]
