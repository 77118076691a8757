"""The writer: when it commits, and that every fault of the database leaves each token stored once, or told of."""

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
from recorder.storage.liveness import this_process
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING, Batch, Producer, RunRows
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
    """A store in memory that tells of each batch that holds runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: SimpleQueue[Batch] = SimpleQueue()

    async def append(self, batch: Batch) -> None:
        await super().append(batch)
        if batch.runs:
            self.seen.put(batch)

    def assert_quiet(self) -> None:
        """No batch comes, though a writer that was free to commit would have done so long ago."""
        with pytest.raises(Empty):
            self.seen.get(timeout=0.1)


def texts(batch: Batch) -> list[int]:
    """How many tokens of each run a batch holds."""
    return [rows.tokens for rows in batch.runs]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once, so that no story takes seconds."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)


# -- when it commits -----------------------------------------------------------------------------------------


def test_an_idle_writer_commits_at_once() -> None:
    """The user's message and the run are stored before the first token comes, however long the interval."""
    store = Watched()
    with ChatHistoryCallback(store=store, flush_interval=HOUR) as history:
        run_id = begin(history, HumanMessage("Sing."))
        [rows] = store.seen.get(timeout=10).runs
        assert (rows.start.run_id, rows.opens, rows.tokens) == (str(run_id), True, 0)
        assert [row.content for row in store.messages.values()] == ["Sing."]
        assert str(run_id) not in store.seals


def test_after_that_batches_keep_their_distance() -> None:
    """A hundred tokens of each of three runs are one batch: no commit a token."""
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
        assert texts(store.seen.get(timeout=10)) == [100, 100, 100]
        assert history.stats().commits == 2
    assert store.seen.get(timeout=10).runs[0].seal is not None
    assert store.seen.empty()


def test_a_short_interval_is_kept_without_being_asked() -> None:
    """With the usual interval tokens arrive in few batches by themselves."""
    store = Watched()
    with ChatHistoryCallback(store=store) as history:
        run_id = begin(history)
        for number in range(200):
            say(history, run_id, [str(number)])
        total = 0
        while total < 200:
            total += sum(texts(store.seen.get(timeout=10)))
        assert history.stats().commits < 100


def test_a_shared_database_is_spared() -> None:
    """`max_commits_per_second` is a distance too; a flush does not wait for it."""
    store = Watched()
    with ChatHistoryCallback(store=store, flush_interval=0, max_commits_per_second=1 / HOUR) as history:
        run_id = begin(history)
        store.seen.get(timeout=10)
        say(history, run_id, ["a", "b"])
        store.assert_quiet()
        assert history.stats().commits == 1
        history.flush().wait(10)
        assert texts(store.seen.get(timeout=10)) == [2]
        say(history, run_id, ["c"])
        assert history.stats().commits == 2
    assert texts(store.seen.get(timeout=10)) == [1]


def test_a_batch_has_a_size() -> None:
    """What waits is stored in transactions of `max_batch_bytes`, run by run."""
    store = Watched()
    with ChatHistoryCallback(store=store, flush_interval=HOUR, max_batch_bytes=10_000) as history:
        begin(history)
        store.seen.get(timeout=10)
        with history_held(history) as held:
            runs = [begin(history, HumanMessage("x" * 4_000)) for _ in range(6)]
            held()
        history.flush().wait(10)
        sizes = [len(store.seen.get(timeout=10).runs) for _ in range(3)]
        assert sizes == [2, 2, 2]
        assert set(map(str, runs)) < store.starts.keys()


@contextmanager
def history_held(history: ChatHistoryCallback) -> Iterator[Callable[[], None]]:
    """Nothing is taken inside, until what is given is called."""
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
@pytest.mark.usefixtures("impatient")
def test_it_tries_until_it_goes_well(tmp_path: Path, times: int) -> None:
    """The first so many appends fail: EXACT, and the errors are told."""
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


@pytest.mark.usefixtures("impatient")
def test_done_and_then_an_error_while_the_run_goes_on(tmp_path: Path) -> None:
    """The commit happened and its answer was lost; meanwhile the same run grew: nothing twice, nothing missing."""
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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("place", range(1, 6))
def test_each_append_may_fail_before_or_after(tmp_path: Path, place: int) -> None:
    """The Nth append fails, N = 1.., before it does anything and after it did all: EXACT, messages too."""
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
        assert len(store.tried) > place, "the fault happened"
        for turn, run_id in enumerate(runs):
            assert_whole(url, run_id, [f"answer {turn}"])
        found = sql(url, "SELECT content FROM transcripts ORDER BY position")
        assert [content for (content,) in found] == [message.text for message in conversation]


@pytest.mark.usefixtures("impatient")
def test_an_outage_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """Not a line for each attempt."""
    store = FaultyStore(MemoryStore(), before=[away] * 50)
    with caplog.at_level(logging.WARNING, "recorder"), ChatHistoryCallback(store=store) as history:
        record(history)
        history.flush().wait(20)
    assert [line.split(",")[0] for line in caplog.messages] == [
        "Recording continues in memory",
        "The database works again",
    ]


@pytest.mark.usefixtures("impatient")
def test_health_comes_back_without_anything_to_store() -> None:
    """An idle process whose heartbeat failed once is healthy again after the next."""
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
    """The fault of a database that refuses the tokens of these runs."""
    bad = set(map(str, run_ids))

    def refuse(batch: Batch) -> None:
        if any(rows.start.run_id in bad and rows.segments for rows in batch.runs):
            raise ValueError("these bytes can not be stored")

    return refuse


def test_poison_is_found_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of eight runs in one batch one cannot be stored: seven are, and a gap says why the eighth is not."""
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
    assert (left_out.token_count, left_out.sha256) == (0, None)  # what the end says is of what is stored
    assert left_out.gaps == [(0, 3, "quarantined: these bytes can not be stored")]
    assert any(str(runs[3]) in line and "3 tokens" in line for line in caplog.messages)
    assert not any("does not answer" in line for line in caplog.messages)


@pytest.mark.usefixtures("impatient")
def test_the_gap_of_poison_is_stored_when_the_database_is_back(tmp_path: Path) -> None:
    """The database goes away in the middle of quarantining."""
    url = new_url(tmp_path)
    run_id = uuid.uuid4()
    refuse = poison_of(run_id)
    store = FaultyStore(SqlStore(url), before=[refuse, away, refuse, refuse, away, away])
    with ChatHistoryCallback(url, store=store) as history, history_held(history) as held:
        begin(history, run_id=run_id)
        say(history, run_id, ["a"])
        finish(history, run_id, "a")
        held()
    assert stored(url, run_id).gaps == [(0, 1, "quarantined: these bytes can not be stored")]
    assert history.stats().quarantined == 1


def test_a_run_that_cannot_be_stored_at_all_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Not even without its tokens: counted, told, and the others go on."""
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


def test_messages_that_cannot_be_written_as_json_stop_nobody(tmp_path: Path) -> None:
    """An attachment nested six hundred deep: its run is told of, the others are recorded."""
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


def test_a_conflicting_row_is_loud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another program stored other tokens of the run: they stay, what comes is quarantined, and it is said."""
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


def test_what_was_said_is_in_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The driver's error names its statement and parameters; neither logs, stats nor gaps do."""
    url = new_url(tmp_path)
    recorder = Recorder(url)
    run = recorder.start(0, run_start(0))
    recorder.flush().wait(10)
    recorder.queue.put(run, "my secret", 1)
    recorder.end(0, run, run_end(response_id=["no text"]))
    stats = recorder.close().wait(10)
    assert (stats.committed, stats.quarantined) == (1, 0)  # of the run only what its end says is left out
    assert "type 'list' is not supported" in (stats.last_error or "")
    assert "type 'list' is not supported" in caplog.text
    found = f"{stats} {caplog.text} {sql(url, 'SELECT * FROM gaps')}"
    assert "secret" not in found
    assert "INSERT" not in found
    assert "\n" not in (stats.last_error or "")


def test_what_cannot_be_packed_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A producer handed over rubbish for an offset: counted, told, and later runs are recorded."""
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


# -- the end -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_close_with_the_database_away_says_how_many_were_lost(caplog: pytest.LogCaptureFixture) -> None:
    """It ends within its time; what was waiting is counted as dropped, and a flush does not claim otherwise."""
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


def test_close_does_not_wait_for_a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer was about to try again in an hour: closing it tries now, and the database is back."""
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


@pytest.mark.usefixtures("impatient")
def test_a_database_that_never_opened(caplog: pytest.LogCaptureFixture) -> None:
    """The application ran beside it; at the end all tokens are counted as lost and nothing claims to be stored."""

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


def test_what_comes_just_before_the_end_is_stored() -> None:
    """A token is accepted after the writer found nothing to take and before the queue was closed."""

    class Late(RecordingQueue):
        """At the moment between looking and leaving, one more token comes and then the end."""

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


def test_the_runs_of_the_dead_become_interrupted(tmp_path: Path) -> None:
    """A process of this machine that is gone, or one of another that was silent for too long; nobody else."""
    url = new_url(tmp_path)
    process = this_process()
    alive = Producer(str(uuid.UUID(int=1)), socket.gethostname(), os.getpid(), now(), now(), process)
    gone = Producer(str(uuid.UUID(int=2)), socket.gethostname(), 2**22 + 1, now(), now(), process)
    silent = Producer(str(uuid.UUID(int=3)), "elsewhere", 1, now(), now() - timedelta(seconds=61))
    distant = Producer(str(uuid.UUID(int=4)), "elsewhere", 1, now(), now() - timedelta(seconds=30))
    leave_open(url, [alive, gone, silent, distant])
    with ChatHistoryCallback(url) as history:
        for _ in range(2):  # the first is committed before the heartbeat, the second after it
            record(history)
            history.flush().wait(10)
    found = dict(sql(url, "SELECT producer_id, status FROM runs WHERE id < '0000001'"))
    assert found == {
        alive.id: STREAMING, gone.id: INTERRUPTED, silent.id: INTERRUPTED, distant.id: STREAMING
    }  # fmt: skip
    assert sql(url, "SELECT count(*) FROM runs WHERE status = ? AND ended_at IS NULL", INTERRUPTED) == [(0,)]


def leave_open(url: str, producers: list[Producer]) -> None:
    """A run of each of these processes is stored as streaming."""

    async def story() -> None:
        store = SqlStore(url)
        for number, producer in enumerate(producers):
            await store.append(Batch(producer, [RunRows(run_start(number), opens=True)]))
        await store.close()

    asyncio.run(story())


def test_a_seal_that_comes_all_the_same_wins(tmp_path: Path) -> None:
    """Somebody took the process for dead; its run ends well, and so it is stored."""
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


def test_who_was_taken_for_dead_wrongly_streams_again(database: str) -> None:
    """With the next batch, whichever run it is of; what had ended stays as it is."""
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
    """A store whose `append` never comes back, as a driver that waits for a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            self.entered.set()
            await asyncio.Event().wait()


def test_close_does_not_wait_for_a_driver_that_blocks() -> None:
    """It ends within its time, and says what was lost."""
    store = Stuck()
    history = ChatHistoryCallback(store=store)
    run_id = begin(history)
    say(history, run_id, ["a", "b"])
    assert store.entered.wait(10)
    stats = history.close(timeout=0.05).wait(10)
    assert (stats.accepted, stats.committed, stats.dropped, stats.queued) == (2, 0, 2, 0)


def test_what_cannot_be_packed_is_told_and_harms_no_other_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tokens become a gap, it has no proof of being whole, and its batch-mates are stored."""
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


def test_a_long_interval_does_not_silence_the_heartbeat() -> None:
    """The process says that it lives while a batch waits for its time."""
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
