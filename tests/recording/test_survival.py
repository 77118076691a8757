"""One exception in the writer, wherever it is raised, does not end the recording, and no wait lasts for ever."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import Closed, StoreError
from recorder.messages import HumanMessage
from recorder.recording import serialize
from recorder.recording.progress import Progress
from recorder.recording.stats import Stats
from recorder.storage import compression, message_tree
from recorder.storage.rows import COMPLETE
from recorder.storage.store import SqlStore
from recorder.testing import MemoryStore
from recorder.wire.deltas import Delta
from tests.interrupts import failing
from tests.oracle import assert_whole, begin, finish, hasty, record, say, sql, stored, token

#: The test fails every 13th call of the writer, and chooses the first one by chance.
STRIDE = 13


def counts_add_up(stats: Stats) -> bool:
    """Whether each accepted token is counted in exactly one of queued, committed, dropped and quarantined."""
    return stats.accepted == stats.queued + stats.committed + stats.dropped + stats.quarantined


def flushed(history: ChatHistoryCallback) -> bool:
    """Flush, and return whether all was stored."""
    try:
        history.flush().wait(20)
    except StoreError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:.*never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_writer_goes_on_after_an_error_at_any_call(caplog: pytest.LogCaptureFixture) -> None:
    """Tokens are stored or counted, flushes end, and a later run is stored."""
    first = random.randrange(STRIDE)
    print(f"the first call is {first}")
    for number in range(first, 100_000, STRIDE):
        store = MemoryStore()
        with failing(number, MemoryError("none left")) as fault:
            history = ChatHistoryCallback(store=store, flush_interval=0, conversation_id="c")
            fault.armed = True
            for turn in range(2):
                run_id = begin(history, HumanMessage(f"question {turn}"))
                for seq in range(5):
                    history.on_stream_frame(b"frame", seq, [Delta(token(turn, seq))], run_id=run_id)
                flushed(history)
                history.add_messages("between")
                finish(history, run_id, "answer")
                flushed(history)
            fault.armed = False
        last = record(history, reply="last")
        assert flushed(history), fault.where
        stats = history.stats()
        assert counts_add_up(stats), fault.where
        assert (stats.queued, stats.queued_bytes, stats.healthy) == (0, 0, True), fault.where
        assert stats.accepted == 11
        assert store.seals[str(last)].token_count == 1
        assert sum(row.count for row in store.segments.values()) >= stats.committed, fault.where
        assert stats.last_error is None or "none left" in stats.last_error
        assert history.close().wait(20).queued == 0
        if fault.where is None:
            break
    assert number > 100
    gc.collect()  # warnings of coroutines that were never awaited come here, where they are ignored


@pytest.mark.parametrize("on_loop", [False, True], ids=["plain", "on a loop"])
@pytest.mark.parametrize("fails", ["asyncio.Runner", "threading.Thread.start"])
def test_a_writer_that_cannot_start_is_reported(
    monkeypatch: pytest.MonkeyPatch, fails: str, on_loop: bool
) -> None:
    """Too many files are open for an event loop, or too many threads run; constructor, flush or `opened` raise."""

    may_fail = threading.Event()

    def refuses(*_arguments: Any) -> Any:
        if "Thread" in fails:
            raise RuntimeError("can't start new thread")
        assert may_fail.wait(20)
        raise OSError(24, "Too many open files")

    async def flushing(history: ChatHistoryCallback) -> None:
        flush = history.flush()
        may_fail.set()
        await asyncio.wait_for(_awaited(flush), 20)

    async def story() -> Stats:
        with monkeypatch.context() as patch:
            patch.setattr(fails, refuses)
            history = ChatHistoryCallback(store=MemoryStore())
            record(history, reply="lost")
            with pytest.raises(StoreError, match=r"writer ended|Nothing is recorded"):
                await flushing(history)
        with pytest.raises((OSError, RuntimeError)):
            await history.opened()
        return await history.close(5)

    if on_loop:
        stats = asyncio.run(story())
        assert (stats.healthy, stats.queued, stats.committed, counts_add_up(stats)) == (False, 0, 0, True)
        return
    may_fail.set()
    monkeypatch.setattr(fails, refuses)
    with pytest.raises((OSError, RuntimeError), match=r"Too many open files|new thread"):
        ChatHistoryCallback(store=MemoryStore())


def test_the_constructor_raises_the_first_error_when_its_report_fails_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report of the first error raises another error."""
    writer_died = Progress.writer_died
    failures = [MemoryError("none left")]

    def died(progress: Progress, error: BaseException) -> None:
        if failures:
            raise failures.pop()
        writer_died(progress, error)

    monkeypatch.setattr(Progress, "writer_died", died)
    monkeypatch.setattr("asyncio.Runner", no_loop)
    with pytest.raises(OSError, match="Too many open files"):
        ChatHistoryCallback(store=MemoryStore())
    assert not failures


def no_loop() -> Any:
    """Fail as where no event loop can be created."""
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError, BaseException])
def test_a_batch_is_stored_once_when_the_driver_raises_what_ends_coroutines(
    database: str, error: type[BaseException]
) -> None:
    """The driver raises three times; the batch is tried again and stored once."""

    class CutOff(SqlStore):
        left = 3

        async def append(self, batch: Any) -> None:
            if batch.runs and self.left:
                self.left -= 1
                raise error
            await super().append(batch)

    with hasty(), ChatHistoryCallback(store=CutOff(database), flush_interval=0) as history:
        run_id = begin(history, HumanMessage("question"))
        say(history, run_id, ["kept"])
        finish(history, run_id, "kept")
        history.flush().wait(20)
        stats = history.stats()
    assert (stats.healthy, stats.committed, stats.dropped, stats.quarantined) == (True, 1, 0, 0)
    assert_whole(database, run_id, ["kept"])
    assert sql(database, "SELECT content FROM transcripts ORDER BY position") == [("question",), ("kept",)]


async def _awaited(wait: Any) -> Any:
    return await wait


def no_memory(*_arguments: Any) -> Any:
    """Raise a MemoryError."""
    raise MemoryError("none left")


def test_frames_that_cannot_be_compressed_are_left_out_of_their_run_only(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's tokens are stored and it has no hash of frames; the other run has frames and hash."""

    def compress(data: list[bytes], wires: list[str | None]) -> Any:
        if any(b"large" in blob for blob in data):
            raise MemoryError("none left")
        return compression.compress(data, wires)

    monkeypatch.setattr(serialize, "compress", compress)
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        bad, good = begin(history), begin(history)
        history.flush().wait(20)
        for run_id, frame in ((bad, b"large"), (good, b"small")):
            history.on_stream_frame(frame, 0, [Delta("a")], run_id=run_id)
        history.flush().wait(20)
        finish(history, bad, "b")
        finish(history, good, "b")
    assert history.stats().healthy
    for run_id in (bad, good):
        assert_whole(database, run_id, ["a"])
    found = sql(database, "SELECT r.id, r.frames_sha256 IS NULL FROM runs AS r ORDER BY r.id")
    assert dict(found) == {str(bad): 1, str(good): 0} or dict(found) == {str(bad): True, str(good): False}
    assert [run_id for (run_id,) in sql(database, "SELECT run_id FROM frames")] == [str(good)]


def test_a_batch_that_cannot_be_serialized_becomes_gaps(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its runs and messages are stored, the next batch is stored whole, and `stats()` has the error."""
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        record(history)
        history.flush().wait(20)
        with monkeypatch.context() as patch:
            patch.setattr("recorder.recording.writer.serialize", no_memory)
            run_id = begin(history, HumanMessage("Is it there?"))
            say(history, run_id, ["a", "b"])
            flush = history.flush()
            flush.wait(20)
        assert stored(database, run_id).gaps == [(0, 2, "could not be packed")]
        say(history, run_id, ["c"])
        finish(history, run_id, "abc")
    stats = history.stats()
    assert (stats.quarantined, stats.committed, stats.healthy) == (2, 2, True)
    assert "none left" in (stats.last_error or "")
    found = stored(database, run_id)
    assert (found.status, found.texts, found.sha256) == (COMPLETE, {2: "c"}, None)
    assert "Is it there?" in [content for (content,) in sql(database, "SELECT content FROM messages")]
    assert "recording goes on" in caplog.text


def test_the_writer_goes_on_when_reporting_an_error_fails(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no memory is left, logging often fails, too."""
    reported: list[BaseException] = []

    def batch_failed(_progress: Progress, error: BaseException) -> None:
        reported.append(error)
        raise MemoryError("none for the log")

    with ChatHistoryCallback(database, flush_interval=3600) as history:
        record(history)
        history.flush().wait(20)
        with monkeypatch.context() as patch:
            patch.setattr("recorder.recording.writer.serialize", no_memory)
            patch.setattr(Progress, "batch_failed", batch_failed)
            run_id = begin(history)
            while not reported:
                flushed(history)
        say(history, run_id, ["a"])
        finish(history, run_id, "a")
    found = stored(database, run_id)
    assert (found.status, found.texts, found.gaps) == (COMPLETE, {0: "a"}, [])


class Unwell(MemoryStore):
    """A store that cannot store runs, and raises when it is asked what kind of failure it has."""

    unwell = True

    async def append(self, batch: Any) -> None:
        if self.unwell and batch.runs:
            raise MemoryError("none left")
        await super().append(batch)

    def failure(self, error: BaseException) -> Any:
        raise MemoryError("none at all")


def test_a_flush_raises_when_a_batch_is_given_up() -> None:
    """`healthy` is False until the next batch, which is stored whole."""
    store = Unwell()
    with ChatHistoryCallback(store=store, flush_interval=0) as history:
        run_id = begin(history)
        say(history, run_id, ["a", "b"])
        with pytest.raises(StoreError, match=r"[12] tokens were not stored"):
            history.flush().wait(20)
        assert not history.stats().healthy
        store.unwell = False
        say(history, run_id, ["c"])
        history.flush().wait(20)
        stats = history.stats()
        assert stats.healthy
        assert counts_add_up(stats)
        assert stats.accepted == stats.committed + stats.quarantined == 3
        assert (stats.queued, stats.queued_bytes) == (0, 0)


def tear_down(history: ChatHistoryCallback, tear: Callable[[asyncio.AbstractEventLoop], object]) -> None:
    """Take the loop of the writer, and end it from another thread."""
    loop = history.recorder.queue._waker._loop
    assert loop is not None
    loop.call_soon_threadsafe(tear, loop)


ENDS: dict[str, Callable[[asyncio.AbstractEventLoop], object]] = {
    "cancelled": lambda loop: [task.cancel() for task in asyncio.all_tasks(loop)],
    "stopped": lambda loop: loop.stop(),
}


@pytest.mark.parametrize("end", ENDS)
def test_waits_fail_when_the_loop_of_the_writer_is_ended(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """`healthy` is False, and the callbacks go on without the writer."""
    store = Gated()
    history = ChatHistoryCallback(store=store, flush_interval=0)
    run_id = begin(history)
    say(history, run_id, ["a"])
    flush = history.flush()
    assert store.entered.wait(20)
    tear_down(history, ENDS[end])
    with pytest.raises(StoreError, match=r"writer ended|not stored"):
        flush.wait(20)
    stats = history.close().wait(20)
    assert (stats.healthy, stats.queued, stats.queued_bytes) == (False, 0, 0)
    assert counts_add_up(stats)
    assert "the writer ended" in (stats.last_error or "")
    say(history, run_id, ["late"])
    finish(history, run_id, "late")
    with pytest.raises(Closed):
        history.flush()


def test_the_constructor_raises_a_store_error_when_the_writer_is_cancelled_while_it_opens() -> None:
    """A CancelledError would look like the end of the caller's own task."""

    class Torn(MemoryStore):
        async def open(self) -> None:
            ENDS["cancelled"](asyncio.get_running_loop())
            await asyncio.Event().wait()

    with pytest.raises(StoreError, match="writer ended"):
        ChatHistoryCallback(store=Torn(), open_timeout=3600)


class Gated(MemoryStore):
    """A store whose appends of runs never return."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()

    async def append(self, batch: Any) -> None:
        if batch.runs:
            self.entered.set()
            await asyncio.Event().wait()


def test_the_constructor_raises_at_once_when_no_event_loop_can_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does not wait for `open_timeout`."""

    def none(*_arguments: Any, **_options: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("asyncio.events.new_event_loop", none)
        with pytest.raises(OSError, match="Too many open files"):
            ChatHistoryCallback(store=MemoryStore(), open_timeout=3600, strict=True)


def test_all_runs_are_stored_after_an_error_in_threading_messages(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch with the error is stored part by part, and later runs are stored whole."""
    failed: list[int] = []

    def once(*arguments: Any) -> Any:
        if not failed:
            failed.append(1)
            raise MemoryError("none left")
        return message_tree.thread(*arguments)

    monkeypatch.setattr("recorder.storage.pieces.thread", once)
    with ChatHistoryCallback(database) as history:
        runs = [record(history, reply="a") for _ in range(3)]
        history.flush().wait(20)
    assert failed
    for run_id in runs:
        assert_whole(database, run_id, ["a"])
