"""When the writer commits, and that each token is stored once or counted as lost after every fault of the database."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.config import Config
from recorder.core.clock import now
from recorder.core.waitable import Wait
from recorder.errors import StoreError
from recorder.messages import AIMessage, HumanMessage
from recorder.recording import serialize
from recorder.recording.buffer import DrainedBatch
from recorder.recording.open_runs import OpenRuns
from recorder.recording.queue import RecordingQueue
from recorder.recording.recorder import Recorder
from recorder.recording.writer import Writer
from recorder.storage.batch import Batch, RunRows
from recorder.storage.liveness import this_process
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING, Producer
from recorder.storage.store import SqlStore
from recorder.testing import MemoryStore
from tests.oracle import (
    FaultyStore,
    assert_exact,
    assert_whole,
    away,
    begin,
    finish,
    new_url,
    record,
    run_end,
    run_start,
    say,
    sql,
    started,
    stored,
    token,
)

HOUR = 3600.0


class Watched(MemoryStore):
    """A store in memory that puts each batch with runs into `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: SimpleQueue[Batch] = SimpleQueue()

    async def append(self, batch: Batch) -> None:
        await super().append(batch)
        if batch.runs:
            self.seen.put(batch)

    def assert_quiet(self) -> None:
        """Assert that no batch comes within 0.1 s; a writer that may commit does so much earlier."""
        with pytest.raises(Empty):
            self.seen.get(timeout=0.1)


def token_counts(batch: Batch) -> list[int]:
    """How many tokens of each run a batch holds."""
    return [rows.tokens for rows in batch.runs]


@pytest.fixture
def without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer waits at most 1 ms between two attempts."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)


# -- when the writer commits ---------------------------------------------------------------------------------


def test_an_idle_writer_commits_at_once() -> None:
    """The user's message and the run are stored before the first token, however long `flush_interval` is."""
    store = Watched()
    with ChatHistoryCallback(store=store, flush_interval=HOUR) as history:
        run_id = begin(history, HumanMessage("Sing."))
        [rows] = store.seen.get(timeout=10).runs
        assert (rows.start.run_id, rows.opens, rows.tokens) == (str(run_id), True, 0)
        assert [row.content for row in store.messages.values()] == ["Sing."]
        assert str(run_id) not in store.seals


def test_batches_after_the_first_wait_for_flush_interval() -> None:
    """A hundred tokens of each of three runs are one batch."""
    store = Watched()
    with ChatHistoryCallback(store=store, flush_interval=HOUR) as history:
        runs = [begin(history)]
        store.seen.get(timeout=10)
        runs += [begin(history), begin(history)]
        for number in range(100):
            for run_id in runs:
                say(history, run_id, [token(1, number)])
        store.assert_quiet()
        assert (history.stats().commits, history.stats().committed) == (1, 0)
        history.flush().wait(10)
        assert token_counts(store.seen.get(timeout=10)) == [100, 100, 100]
        assert history.stats().commits == 2
    assert store.seen.get(timeout=10).runs[0].seal is not None
    assert store.seen.empty()


def test_two_hundred_tokens_are_stored_in_fewer_than_100_commits() -> None:
    """The history has the default `flush_interval` and is not flushed."""
    store = Watched()
    with ChatHistoryCallback(store=store) as history:
        run_id = begin(history)
        for number in range(200):
            say(history, run_id, [str(number)])
        total = 0
        while total < 200:
            total += sum(token_counts(store.seen.get(timeout=10)))
        assert history.stats().commits < 100


def test_max_commits_per_second_keeps_commits_apart() -> None:
    """A flush does not wait for it."""
    store = Watched()
    with ChatHistoryCallback(store=store, flush_interval=0, max_commits_per_second=1 / HOUR) as history:
        run_id = begin(history)
        store.seen.get(timeout=10)
        say(history, run_id, ["a", "b"])
        store.assert_quiet()
        assert history.stats().commits == 1
        history.flush().wait(10)
        assert token_counts(store.seen.get(timeout=10)) == [2]
        say(history, run_id, ["c"])
        assert history.stats().commits == 2
    assert token_counts(store.seen.get(timeout=10)) == [1]


def test_a_batch_ends_at_max_batch_bytes() -> None:
    """Six runs in the queue are stored in three transactions."""
    store = Watched()
    with ChatHistoryCallback(store=store, flush_interval=HOUR, max_batch_bytes=10_000) as history:
        begin(history)
        store.seen.get(timeout=10)
        with paused_drain(history) as resume:
            runs = [begin(history, HumanMessage("x" * 4_000)) for _ in range(6)]
            resume()
        history.flush().wait(10)
        sizes = [len(store.seen.get(timeout=10).runs) for _ in range(3)]
        assert sizes == [2, 2, 2]
        assert set(map(str, runs)) < store.starts.keys()


@contextmanager
def paused_drain(history: ChatHistoryCallback) -> Iterator[Callable[[], None]]:
    """Inside, the writer drains nothing until the yielded function is called."""
    queue = history.recorder.queue
    drain, gate = queue.drain, threading.Event()

    def held(max_bytes: int, batch: DrainedBatch | None = None) -> DrainedBatch:
        gate.wait(10)
        return drain(max_bytes, batch)

    queue.drain = held  # type: ignore[method-assign]
    try:
        yield gate.set
    finally:
        gate.set()
        queue.drain = drain  # type: ignore[method-assign]


# -- the database fails for a while --------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 5, 20])
@pytest.mark.usefixtures("without_delays")
def test_the_writer_tries_until_the_database_answers(tmp_path: Path, times: int) -> None:
    """The first appends fail, all tokens are stored once, and `stats()` has the error."""
    url = new_url(tmp_path)
    store = FaultyStore(SqlStore(url), before=[away] * times)
    texts = [token(times, number) for number in range(200)]
    with ChatHistoryCallback(url, store=store, flush_interval=0) as history:
        run_id = begin(history)
        say(history, run_id, texts)
        finish(history, run_id, "".join(texts))
        history.flush().wait(20)
        stats = history.stats()
    assert len(store.tried) >= times + 1
    assert (stats.healthy, stats.committed, stats.queued_bytes) == (True, 200, 0)
    assert "the database is away" in (stats.last_error or "")
    assert_whole(url, run_id, texts)


@pytest.mark.usefixtures("without_delays")
def test_tokens_are_stored_once_when_the_answers_to_commits_are_lost(tmp_path: Path) -> None:
    """While each batch is tried again, the same run gets more tokens."""
    url = new_url(tmp_path)
    texts = [token(2, number) for number in range(300)]
    coming = iter(texts)

    def grow_and_fail(_batch: Batch) -> None:
        for _ in range(10):
            say(history, run_id, [next(coming)])
        raise ConnectionError("the answer was lost")

    store = FaultyStore(SqlStore(url), after=[grow_and_fail] * 20)
    with ChatHistoryCallback(url, store=store, flush_interval=0) as history:
        run_id = uuid.uuid4()
        begin(history, run_id=run_id)
        history.flush().wait(20)
        for text in coming:
            say(history, run_id, [text])
        finish(history, run_id, "".join(texts))
    assert history.stats().committed == 300
    assert_whole(url, run_id, texts)
    assert sql(url, "SELECT count(*) FROM messages") == [(2,)]


@pytest.mark.usefixtures("without_delays")
@pytest.mark.parametrize("place", range(1, 6))
def test_runs_and_messages_are_stored_once_when_any_append_fails(tmp_path: Path, place: int) -> None:
    """The Nth append fails before it stored anything, or after it stored the batch."""
    for when in ("before", "after"):
        url = new_url(tmp_path, f"{when}.db")
        faults = [None] * (place - 1) + [away]
        store = FaultyStore(SqlStore(url), **{when: faults})
        with ChatHistoryCallback(url, store=store, conversation_id="c", flush_interval=0) as history:
            conversation: list[Any] = []
            runs = []
            for turn in range(3):
                conversation.append(HumanMessage(f"question {turn}"))
                run_id = begin(history, *conversation)
                history.flush().wait(20)
                say(history, run_id, [f"answer {turn}"])
                finish(history, run_id, f"answer {turn}")
                history.flush().wait(20)
                conversation.append(AIMessage(f"answer {turn}"))
                runs.append(run_id)
        assert len(store.tried) > place, "the fault did not happen"
        for turn, run_id in enumerate(runs):
            assert_whole(url, run_id, [f"answer {turn}"])
        found = sql(url, "SELECT content FROM transcripts ORDER BY position")
        assert [content for (content,) in found] == [message.text for message in conversation]


@pytest.mark.usefixtures("without_delays")
def test_an_outage_logs_one_line_at_its_begin_and_one_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """The 50 failed attempts between them log nothing."""
    store = FaultyStore(MemoryStore(), before=[away] * 50)
    with caplog.at_level(logging.WARNING, "recorder"), ChatHistoryCallback(store=store) as history:
        record(history)
        history.flush().wait(20)
    assert [line.split(",")[0] for line in caplog.messages] == [
        "Recording continues in memory",
        "The database works again",
    ]


@pytest.mark.usefixtures("without_delays")
def test_a_heartbeat_makes_an_idle_recorder_healthy_again() -> None:
    """A heartbeat failed before, and there is nothing to store."""
    beats: SimpleQueue[None] = SimpleQueue()
    back = threading.Event()

    class Beating(MemoryStore):
        async def append(self, batch: Batch) -> None:
            beats.put(None)
            if not back.is_set():
                raise ConnectionError("away")

    with ChatHistoryCallback(store=Beating(), heartbeat_interval=0.001) as history:
        while history.stats().healthy:
            beats.get(timeout=10)
        back.set()
        while not history.stats().healthy:
            beats.get(timeout=10)


# -- rows that can never be stored ---------------------------------------------------------------------------


def poison_of(*run_ids: uuid.UUID) -> Callable[[Batch], None]:
    """A fault that refuses each batch with tokens of these runs."""
    bad = set(map(str, run_ids))

    def refuse(batch: Batch) -> None:
        if any(rows.start.run_id in bad and rows.segments for rows in batch.runs):
            raise ValueError("these bytes can not be stored")

    return refuse


def test_a_run_that_cannot_be_stored_is_left_out_of_its_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Seven of the eight runs are stored, and a gap says why the tokens of the eighth are not."""
    url = new_url(tmp_path)
    runs = [uuid.UUID(int=number) for number in range(8)]
    store = FaultyStore(SqlStore(url), before=[poison_of(runs[3])] * 100)
    with ChatHistoryCallback(url, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(10)
        for run_id in runs:
            begin(history, run_id=run_id)
            say(history, run_id, ["a", "b", "c"])
            finish(history, run_id, "abc")
        history.flush().wait(10)
        stats = history.stats()
    assert (stats.committed, stats.quarantined, stats.dropped) == (21, 3, 0)
    assert stats.accepted == 24
    assert (stats.queued_bytes, stats.healthy) == (0, True)
    for run_id in runs[:3] + runs[4:]:
        assert_whole(url, run_id, "abc")
    left_out = stored(url, runs[3])
    assert (left_out.status, left_out.texts) == (COMPLETE, {})
    assert (left_out.token_count, left_out.sha256) == (0, None)  # the seal counts stored tokens only
    assert left_out.gaps == [(0, 3, "quarantined: these bytes can not be stored")]
    assert any(str(runs[3]) in line and "3 tokens" in line for line in caplog.messages)
    assert not any("does not answer" in line for line in caplog.messages)


@pytest.mark.usefixtures("without_delays")
def test_a_quarantine_goes_on_when_the_database_is_back(tmp_path: Path) -> None:
    """The database goes away while the writer looks for the bad rows."""
    url = new_url(tmp_path)
    run_id = uuid.uuid4()
    refuse = poison_of(run_id)
    store = FaultyStore(SqlStore(url), before=[refuse, away, refuse, refuse, away, away])
    with ChatHistoryCallback(url, store=store) as history, paused_drain(history) as resume:
        begin(history, run_id=run_id)
        say(history, run_id, ["a"])
        finish(history, run_id, "a")
        resume()
    assert stored(url, run_id).gaps == [(0, 1, "quarantined: these bytes can not be stored")]
    assert history.stats().quarantined == 1


def test_a_run_that_cannot_be_stored_even_without_tokens_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other run is stored."""
    bad = uuid.uuid4()

    def refuse(batch: Batch) -> None:
        if any(rows.start.run_id == str(bad) for rows in batch.runs):
            raise ValueError("no")

    inner = MemoryStore()
    with ChatHistoryCallback(store=FaultyStore(inner, before=[refuse] * 100)) as history:
        record(history, run_id=bad)
        good = record(history)
    assert str(good) in inner.seals
    assert str(bad) not in inner.starts
    stats = history.stats()
    assert (stats.accepted, stats.committed, stats.quarantined, stats.queued_bytes) == (2, 1, 1, 0)
    assert any("cannot be stored at all" in line for line in caplog.messages)


def test_a_deeply_nested_message_disturbs_no_other_run(tmp_path: Path) -> None:
    """A message is nested 600 deep; its run and the run after it are stored."""
    url = new_url(tmp_path)
    deep: Any = "x"
    for _ in range(600):
        deep = {"d": deep}
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("before"))
        bad = record(history, HumanMessage([{"type": "file", "data": deep}]))
        good = record(history, HumanMessage("after"), reply="fine")
        history.flush().wait(20)
        stats = history.stats()
    assert_whole(url, good, ["fine"])
    assert stored(url, bad).status == COMPLETE
    assert stats.accepted == stats.committed + stats.quarantined == 3


def test_tokens_are_quarantined_when_other_tokens_have_their_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program stored a segment of the run; it stays as it is, and the log names the cause."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        history.flush().wait(10)
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("INSERT INTO segments VALUES (?, 0, 1, ?)", (str(run_id), '[[0,"first"]]'))
        say(history, run_id, ["second"])
    assert history.stats().quarantined == 1
    assert stored(url, run_id).texts == {0: "first"}
    assert "two recorders use the same run id" in caplog.text
    [(_, _, reason)] = stored(url, run_id).gaps
    assert reason.startswith(f"quarantined: Run {run_id} has")


def test_no_error_has_the_text_of_a_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The driver's error names its statement and parameters; logs, stats and gaps do not have them."""
    url = new_url(tmp_path)
    recorder = Recorder(url)
    run = recorder.start(0, run_start(0))
    recorder.flush().wait(10)
    recorder.queue.put(run, "my secret", 1)
    recorder.end(0, run, run_end(response_id=["no text"]))
    stats = recorder.close().wait(10)
    assert (stats.committed, stats.quarantined) == (1, 0)  # only the seal of the run is left out
    assert "type 'list' is not supported" in (stats.last_error or "")
    assert "type 'list' is not supported" in caplog.text
    found = f"{stats} {caplog.text} {sql(url, 'SELECT * FROM gaps')}"
    assert "secret" not in found
    assert "INSERT" not in found
    assert "\n" not in (stats.last_error or "")


def test_a_token_of_a_wrong_type_is_quarantined(caplog: pytest.LogCaptureFixture) -> None:
    """The offset of the token is no number; the token is counted and logged, and later runs are stored."""
    store = MemoryStore()
    recorder = Recorder(store=store)
    run = recorder.start(0, run_start(0))
    recorder.flush().wait(10)
    recorder.queue.put(run, "x", b"rubbish")  # type: ignore[arg-type]
    recorder.flush().wait(10)
    other = recorder.start(1, run_start(1))
    recorder.queue.put(other, "y", 1)
    recorder.end(1, other, run_end())
    recorder.flush().wait(10)
    stats = recorder.close().wait(10)
    assert [run_id for run_id, _ in store.segments] == [other.start.run_id]
    assert (stats.committed, stats.quarantined, stats.queued_bytes) == (1, 1, 0)
    assert "please report" in caplog.text


# -- close ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_delays")
def test_close_counts_what_it_could_not_store_as_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """The database is away; `close` ends after its timeout, and a flush raises the loss."""
    store = FaultyStore(MemoryStore(), before=[None] + [away] * 10**6)
    history = ChatHistoryCallback(store=store)
    run_id = begin(history)
    history.flush().wait(10)
    say(history, run_id, ["a", "b", "c"])
    flush = history.flush()
    stats = history.close(timeout=0.1).wait(10)
    assert (stats.accepted, stats.queued, stats.committed, stats.dropped) == (3, 0, 0, 3)
    assert (stats.queued_bytes, stats.healthy) == (0, False)
    with pytest.raises(StoreError, match="3 tokens were not stored"):
        flush.wait(10)
    assert "3 tokens were not stored" in caplog.text


def test_close_ends_the_pause_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt would be in an hour; `close` makes it now, and the database answers."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", HOUR)
    tried: Wait[None] = Wait()

    def fail_once(_batch: Batch) -> None:
        tried.set(None)
        raise ConnectionError("away")

    store = FaultyStore(MemoryStore(), before=[fail_once])
    history = ChatHistoryCallback(store=store)
    run_id = begin(history)
    say(history, run_id, ["a"])
    tried.wait(10)
    stats = history.close(timeout=20).wait(10)
    assert (stats.committed, stats.dropped) == (1, 0)


@pytest.mark.usefixtures("without_delays")
def test_all_tokens_are_dropped_when_the_database_never_opens(caplog: pytest.LogCaptureFixture) -> None:
    """`close` counts them, and the flush raises the loss."""

    class Absent(MemoryStore):
        async def open(self) -> None:
            raise ConnectionError("nobody there")

    history = ChatHistoryCallback(store=Absent())
    run_id = begin(history)
    say(history, run_id, ["a", "b"])
    flush = history.flush()
    stats = history.close(timeout=0.1).wait(10)
    assert (stats.accepted, stats.queued, stats.dropped, stats.queued_bytes) == (2, 0, 2, 0)
    with pytest.raises(StoreError, match=r"2 tokens were not stored.*nobody there"):
        flush.wait(10)


def test_a_token_that_comes_just_before_the_writer_ends_is_stored() -> None:
    """It is accepted after the writer found the queue empty and before the queue is closed."""

    class Late(RecordingQueue):
        """A queue that gets one more token, and then `close`, when the writer finds it empty."""

        run = None

        def drain(self, max_bytes: int, batch: DrainedBatch | None = None) -> DrainedBatch:
            batch = super().drain(max_bytes, batch)
            if not batch.queue_offset and self.run is None:
                self.run = started(self, run_start(), 0)
                super().put(self.run, "late", 0)
                writer.close(10)
            return batch

    store, queue = MemoryStore(), Late(10**6)
    writer = Writer(queue, store, Config(heartbeat_interval=0.01), OpenRuns(10))
    asyncio.run(writer.run())
    assert [row.count for row in store.segments.values()] == [1]
    assert writer.progress.committed == 1


# -- the heartbeat -------------------------------------------------------------------------------------------


def test_the_sweep_interrupts_the_runs_of_dead_processes(tmp_path: Path) -> None:
    """A process is dead when it is gone from this machine, or sent no heartbeat from another one for 60 s."""
    url = new_url(tmp_path)
    process = this_process()
    alive = Producer(str(uuid.UUID(int=1)), socket.gethostname(), os.getpid(), now(), now(), process)
    gone = Producer(str(uuid.UUID(int=2)), socket.gethostname(), 2**22 + 1, now(), now(), process)
    silent = Producer(str(uuid.UUID(int=3)), "elsewhere", 1, now(), now() - timedelta(seconds=61))
    distant = Producer(str(uuid.UUID(int=4)), "elsewhere", 1, now(), now() - timedelta(seconds=30))
    leave_open(url, [alive, gone, silent, distant])
    with ChatHistoryCallback(url) as history:
        for _ in range(2):  # the heartbeat comes between the two commits
            record(history)
            history.flush().wait(10)
    found = dict(sql(url, "SELECT producer_id, status FROM runs WHERE id < '0000001'"))
    assert found == {
        alive.id: STREAMING, gone.id: INTERRUPTED, silent.id: INTERRUPTED, distant.id: STREAMING
    }  # fmt: skip
    assert sql(url, "SELECT count(*) FROM runs WHERE status = ? AND ended_at IS NULL", INTERRUPTED) == [(0,)]


def leave_open(url: str, producers: list[Producer]) -> None:
    """Store a streaming run of each of these processes."""

    async def story() -> None:
        store = SqlStore(url)
        for number, producer in enumerate(producers):
            await store.append(Batch(producer, [RunRows(run_start(number), opens=True)]))
        await store.close()

    asyncio.run(story())


def test_a_seal_replaces_the_status_interrupted(tmp_path: Path) -> None:
    """The sweep of another recorder marked the run, whose process lives and ends it."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        history.flush().wait(10)
        with ChatHistoryCallback(url, heartbeat_interval=0.001, interrupted_after=0) as other:
            while stored(url, run_id).status == STREAMING:
                other.flush().wait(10)
        assert stored(url, run_id).status == INTERRUPTED
        say(history, run_id, ["a"])
        finish(history, run_id, "a")
    assert_exact(url, run_id, ["a"])


def test_runs_of_a_living_process_stream_again_after_its_next_batch(database: str) -> None:
    """A sweep marked its open runs as `interrupted`; runs that had ended stay as they are."""
    with ChatHistoryCallback(database, flush_interval=0, heartbeat_interval=30) as history:
        ended = record(history, reply="ended")
        silent, talking = begin(history), begin(history)
        history.flush().wait(10)

        async def sweep() -> int:
            store = SqlStore(database)
            try:
                return await store.sweep(lambda producer: producer.host == socket.gethostname(), now())
            finally:
                await store.close()

        assert asyncio.run(sweep()) == 2
        assert [stored(database, run_id).status for run_id in (silent, talking)] == [INTERRUPTED] * 2
        say(history, talking, ["a"])
        history.flush().wait(10)
        assert [stored(database, run_id).status for run_id in (silent, talking)] == [STREAMING] * 2
        assert sql(database, "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL") == [(1,)]
        assert asyncio.run(sweep()) == 2
    assert_whole(database, ended, ["ended"])
    assert_whole(database, talking, ["a"], INTERRUPTED)
    assert_whole(database, silent, [], INTERRUPTED)


class Stuck(MemoryStore):
    """A store whose `append` never returns, like a driver that waits for a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.closed = threading.Event()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            self.entered.set()
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed.set()


def test_the_database_is_closed_after_a_call_that_did_not_end() -> None:
    """Nobody waits for this; without it the garbage collector would find the connection open."""
    store = Stuck()
    history = ChatHistoryCallback(store=store)
    begin(history)
    assert store.entered.wait(10)
    history.close(timeout=0).wait(10)
    assert store.closed.wait(10)


class ClosedWhenOpen(MemoryStore):
    """A store whose recorder is closed, without time for anything, as soon as the store is open."""

    def __init__(self) -> None:
        super().__init__()
        self.recorder: SimpleQueue[ChatHistoryCallback] = SimpleQueue()
        self.closed = False

    async def open(self) -> None:
        self.recorder.get(timeout=10).close(timeout=0)

    async def close(self) -> None:
        self.closed = True


def test_the_database_is_closed_when_no_call_is_left_to_wait_for() -> None:
    """The time to close runs out between two calls of the driver."""
    store = ClosedWhenOpen()

    async def story() -> None:
        history = ChatHistoryCallback(store=store)  # on a loop it does not wait for the database
        store.recorder.put(history)
        await history.opened()
        await history.close()

    asyncio.run(story())
    assert store.closed


def test_close_does_not_wait_for_a_driver_that_blocks() -> None:
    """It ends after its timeout and counts the tokens as dropped."""
    store = Stuck()
    history = ChatHistoryCallback(store=store)
    run_id = begin(history)
    say(history, run_id, ["a", "b"])
    assert store.entered.wait(10)
    stats = history.close(timeout=0.05).wait(10)
    assert (stats.accepted, stats.committed, stats.dropped, stats.queued) == (2, 0, 2, 0)


def test_tokens_that_cannot_be_serialized_are_a_gap(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their run has no hash, and the other run of the batch is stored whole."""
    store, encode = Watched(), serialize.encode_deltas

    def breaking(items: Any) -> bytes:
        if any("broken" in item[1] for item in items):
            raise RuntimeError("a bug")
        return encode(items)

    monkeypatch.setattr(serialize, "encode_deltas", breaking)
    with ChatHistoryCallback(store=store) as history:
        bad, good = begin(history), begin(history)
        say(history, bad, ["fine"])
        history.flush().wait(10)
        say(history, bad, ["broken", "broken"])
        say(history, good, ["whole"])
        history.flush().wait(10)
        say(history, bad, ["fine again"])
        finish(history, bad, "x")
        finish(history, good, "whole")
    stats = history.stats()
    assert (stats.accepted, stats.committed, stats.quarantined, stats.queued) == (5, 3, 2, 0)
    assert [(gap.run_id, gap.seq, gap.count) for gap in store.gaps.values()] == [(str(bad), 1, 2)]
    assert (store.seals[str(bad)].sha256, store.seals[str(bad)].token_count) == (None, 2)
    assert store.seals[str(good)].sha256 is not None
    assert "please report this" in caplog.text


def test_heartbeats_come_while_a_batch_waits() -> None:
    """`flush_interval` is an hour, and the process sends its heartbeats."""
    store, config = Watched(), Config(flush_interval=HOUR, heartbeat_interval=0.02, frames_interval=0)
    recorder = Recorder(None, config, store=store)
    run = recorder.start(1, run_start(), 0)
    store.seen.get(timeout=10)
    recorder.queue.put(run, "waits", 0)
    beats = [batch for batch in store.batches if not batch.runs]
    while len(beats) < 3:
        beats = [batch for batch in list(store.batches) if not batch.runs]
    assert not store.segments
    recorder.close().wait(10)
    assert len(store.segments) == 1
