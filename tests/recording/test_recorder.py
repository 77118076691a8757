"""The life of a recorder: flush, close, threads, event loops, forks, exits and kills."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.errors import Closed, RecorderError
from recorder.recording import recorder as recorder_module
from recorder.recording.stats import Stats
from recorder.storage.batch import Batch
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING
from recorder.storage.store import SqlStore
from recorder.testing import MemoryStore
from tests.oracle import (
    FaultyStore,
    assert_exact,
    assert_whole,
    away,
    begin,
    copy_of,
    finish,
    new_url,
    record,
    run_python,
    say,
    sql,
    start_python,
    stored,
    token,
)


class Gated(MemoryStore):
    """A store in memory whose appends of runs wait until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: Wait[None] = Wait()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            await self.gate
        await super().append(batch)


def counts_add_up(stats: Stats) -> bool:
    """Whether each accepted token is counted in exactly one of queued, committed, dropped and quarantined."""
    return stats.accepted == stats.queued + stats.committed + stats.dropped + stats.quarantined


# -- flush and close -----------------------------------------------------------------------------------------


def test_flush_waits_until_all_is_stored(database: str) -> None:
    """It waits in synchronous and in asynchronous code, and is done at once when there is nothing to store."""
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        assert history.flush().wait(10) is None
        run_id = begin(history)
        say(history, run_id, ["a", "b"])
        history.flush().wait(10)
        assert stored(database, run_id).texts == {0: "a", 1: "b"}

        async def story() -> None:
            say(history, run_id, ["c"])
            await history.flush()

        asyncio.run(story())
        assert stored(database, run_id).texts == {0: "a", 1: "b", 2: "c"}
        assert history.flush().done


def test_flush_stores_delayed_frames(database: str) -> None:
    """`frames_interval` is an hour, and a flush does not wait for it."""
    with ChatHistoryCallback(database, flush_interval=0, frames_interval=3600) as history:
        run_id = begin(history)
        history.on_stream_frame(b"data: 1\n\n", 0, [], run_id=run_id)
        history.flush().wait(10)
        assert sql(database, "SELECT run_id, count FROM frames") == [(str(run_id), 1)]


def test_flush_does_not_wait_for_later_tokens() -> None:
    """A token that comes after the call is stored later."""
    store = Gated()
    history = ChatHistoryCallback(store=store, flush_interval=3600)
    run_id = begin(history)
    first = history.flush()
    assert not first.done
    store.gate.set(None)
    first.wait(10)
    say(history, run_id, ["later"])
    assert history.stats().committed == 0
    history.close().wait(10)


def test_eight_threads_can_flush_at_once(database: str) -> None:
    """Each thread finds its own run stored after its flush."""
    with ChatHistoryCallback(database) as history, ThreadPoolExecutor(8) as pool:

        def story(number: int) -> dict[int, str]:
            run_id = record(history, reply=str(number))
            history.flush().wait(20)
            return stored(database, run_id).texts

        assert list(pool.map(story, range(40))) == [{0: str(number)} for number in range(40)]


def test_close_returns_the_last_stats() -> None:
    """Synchronous code waits for them, asynchronous code awaits them, and a second `close` returns the first wait."""
    history = ChatHistoryCallback(store=MemoryStore())
    record(history)
    first = history.close()
    stats = first.wait(10)
    assert history.close() is first
    assert history.close(timeout=0) is first
    assert (stats.accepted, stats.committed, stats.queued, stats.dropped, stats.queued_bytes) == (
        1,
        1,
        0,
        0,
        0,
    )
    assert stats == history.stats()
    assert asyncio.run(awaited(history)) == stats


async def awaited(history: ChatHistoryCallback) -> Stats:
    """Await `close` inside of a coroutine, and return its result."""
    return await history.close()


def test_the_end_of_a_block_closes_the_history() -> None:
    """This holds for `with` and `async with`, also when the block raises."""

    async def story(history: ChatHistoryCallback) -> None:
        async with history:
            record(history)

    plain, asynchronous = MemoryStore(), MemoryStore()
    with pytest.raises(LookupError):
        record_in_a_block_that_raises(history := ChatHistoryCallback(store=plain))
    other = ChatHistoryCallback(store=asynchronous)
    asyncio.run(story(other))
    assert (len(plain.seals), len(asynchronous.seals)) == (1, 1)
    assert history.recorder.closed
    assert other.recorder.closed


def record_in_a_block_that_raises(history: ChatHistoryCallback) -> None:
    """Record a run in a block that ends with an error."""
    with history:
        record(history)
        raise LookupError


def test_open_runs_are_interrupted_by_close(database: str) -> None:
    """Their tokens are stored, with count and hash."""
    history = ChatHistoryCallback(database)
    run_id = begin(history)
    say(history, run_id, ["a", "b"])
    history.close().wait(10)
    assert_whole(database, run_id, ["a", "b"], status=INTERRUPTED)
    finish(history, run_id, "ab")
    assert stored(database, run_id).status == INTERRUPTED


def test_callbacks_do_nothing_after_close() -> None:
    """Tokens are counted as dropped, new runs are ignored, and only `flush` raises."""
    history = ChatHistoryCallback(store=MemoryStore())
    run_id = begin(history)
    history.close().wait(10)
    say(history, run_id, ["late", "later"])
    finish(history, run_id, "late")
    say(history, begin(history), ["new"])
    stats = history.stats()
    assert (stats.accepted, stats.dropped, stats.open_runs) == (3, 3, 0)
    assert counts_add_up(stats)
    with pytest.raises(Closed, match="open a new one"):
        history.flush()


def test_tokens_of_unknown_and_ended_runs_are_counted_as_dropped() -> None:
    """No callback raises."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history:
        run_id = record(history, reply="a")
        say(history, run_id, ["late"])
        say(history, uuid.uuid4(), ["unknown", "unknown"])
        history.on_stream_frame(b"frame", 0, [], run_id=uuid.uuid4())
        finish(history, uuid.uuid4(), "unknown")
        finish(history, run_id, "twice")
        stats = history.stats()
        assert (stats.accepted, stats.dropped, stats.open_runs) == (4, 3, 0)
        assert counts_add_up(stats)
    assert [row.count for row in store.segments.values()] == [1]


def test_the_constructor_raises_only_when_strict(tmp_path: Path) -> None:
    """A database that is away or does not answer is an error with `strict`; without, the recorder records in memory."""

    class Absent(MemoryStore):
        async def open(self) -> None:
            raise ConnectionError("nobody there")

    class Silent(Gated):
        async def open(self) -> None:
            await self.gate

    ChatHistoryCallback(store=Absent()).close(timeout=0).wait(10)
    with pytest.raises(ConnectionError, match="nobody there"):
        ChatHistoryCallback(store=Absent(), strict=True)
    silent = Silent()
    with pytest.raises(RecorderError, match=r"did not answer within 0\.01 s"):
        ChatHistoryCallback(store=silent, strict=True, open_timeout=0.01)
    silent.gate.set(None)
    patient = Silent()
    with ChatHistoryCallback(store=patient, open_timeout=0.01) as history:
        record(history)
        patient.gate.set(None)
    assert len(patient.seals) == 1


# -- threads and loops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["a run each", "one run"])
def test_tokens_from_eight_threads_are_stored_once(database: str, shared: bool) -> None:
    """The numbers are 0 to n - 1, and `stats()` counts each token in exactly one place at any moment."""
    threads, each = 8, 2_000
    history = ChatHistoryCallback(database, flush_interval=0)
    runs = [begin(history) for _ in range(1 if shared else threads)]
    sampled = [history.stats()]

    def produce(number: int) -> None:
        for place in range(each):
            history.on_llm_new_token(f"{number}:{place}", run_id=runs[0 if shared else number])

    with ThreadPoolExecutor(threads) as pool:
        producers = [pool.submit(produce, number) for number in range(threads)]
        while not all(producer.done() for producer in producers):
            sampled.append(history.stats())
    for run_id in runs:
        finish(history, run_id, "done")
    sampled += [history.stats(), history.close().wait(20)]
    assert [stats for stats in sampled if not counts_add_up(stats)] == []
    assert [stats for stats in sampled if stats.queued < 0] == []
    accepted = [stats.accepted for stats in sampled]
    assert accepted == sorted(accepted)
    assert (sampled[-1].committed, sampled[-1].queued_bytes) == (threads * each, 0)
    for number, run_id in enumerate(runs):
        found = stored(database, run_id)
        texts = [found.texts[place] for place in sorted(found.texts)]
        assert_whole(database, run_id, texts)
        for thread in range(threads) if shared else [number]:
            own = [text for text in texts if text.startswith(f"{thread}:")]
            assert own == [f"{thread}:{place}" for place in range(each)]


def test_stats_are_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that are accepted and committed while `stats()` counts do not break its sum."""
    with ChatHistoryCallback(store=MemoryStore(), flush_interval=0) as history:
        run_id = begin(history)
        say(history, run_id, ["a", "b"])
        counts = history.recorder.queue.counts

        def meanwhile() -> tuple[int, int, int, int | None]:
            found = counts()
            say(history, run_id, ["c"] * 5)
            history.flush().wait(10)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(history.recorder.queue, "counts", meanwhile)
            stats = history.stats()
        assert counts_add_up(stats)
        assert (stats.accepted, stats.queued + stats.committed) == (2, 2)
        assert stats.queued >= 0


def test_a_recorder_works_with_several_event_loops_in_turn(database: str) -> None:
    """It goes on after `asyncio.run` ended, and with the next loop."""
    history = ChatHistoryCallback(database)
    run_id = begin(history)

    async def story(text: str) -> None:
        say(history, run_id, [text])
        await asyncio.gather(history.flush(), history.flush())

    for text in "abc":
        asyncio.run(story(text))
        assert list(stored(database, run_id).texts.values())[-1] == text

    async def end() -> Stats:
        finish(history, run_id, "abc")
        return await history.close()

    assert asyncio.run(end()).committed == 3
    assert_whole(database, run_id, "abc")


def test_four_event_loops_can_record_at_once(database: str) -> None:
    """Each loop runs in a thread of its own and records runs of its own."""
    with ChatHistoryCallback(database) as history:

        async def one(number: int) -> uuid.UUID:
            run_id = begin(history)
            for place in range(100):
                history.on_llm_new_token(token(number, place), run_id=run_id)
                await asyncio.sleep(0)
            finish(history, run_id, "done")
            await history.flush()
            return run_id

        async def story(first: int) -> list[uuid.UUID]:
            return await asyncio.gather(*(one(first + number) for number in range(5)))

        with ThreadPoolExecutor(4) as pool:
            loops = [pool.submit(asyncio.run, story(10 * number)) for number in range(4)]
            runs = [loop.result() for loop in loops]
    for number, loop in enumerate(runs):
        for place, run_id in enumerate(loop):
            assert_whole(database, run_id, [token(10 * number + place, seq) for seq in range(100)])


def test_two_thousand_runs_of_one_token_are_stored_in_few_commits(database: str) -> None:
    """All runs are complete, and fewer than 100 transactions store them."""
    with ChatHistoryCallback(database) as history:
        for number in range(2_000):
            record(history, reply=str(number))
    assert sql(database, "SELECT status, count(*), sum(token_count) FROM runs GROUP BY status") == [
        (COMPLETE, 2_000, 2_000)
    ]
    assert sql(database, "SELECT count(DISTINCT id), count(*) FROM conversations") == [(2_000, 2_000)]
    assert history.stats().commits < 100
    assert (history.stats().open_runs, history.stats().queued_bytes) == (0, 0)


# -- a full queue --------------------------------------------------------------------------------------------


def test_a_full_queue_makes_threads_wait_and_loses_nothing(tmp_path: Path) -> None:
    """The queue has room for about a hundred tokens, and four threads put a thousand tokens each."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, max_queue_bytes=30_000, block_timeout=30) as history:
        runs = [begin(history) for _ in range(4)]
        texts = [token(4, number) for number in range(1_000)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda run_id: say(history, run_id, texts), runs))
        for run_id in runs:
            finish(history, run_id, "done")
    assert history.stats().dropped == 0
    for run_id in runs:
        assert_whole(url, run_id, texts)


def test_no_token_is_lost_when_each_wait_is_awaited(tmp_path: Path) -> None:
    """On an event loop the token callback returns a wait while the queue is full."""
    url = new_url(tmp_path)
    waits = 0

    async def story() -> uuid.UUID:
        nonlocal waits
        run_id = begin(history)
        for number in range(1_000):
            wait = history.on_llm_new_token(token(5, number), run_id=run_id)
            if wait is not None:
                waits += 1
                await wait
        finish(history, run_id, "done")
        return run_id

    with ChatHistoryCallback(url, max_queue_bytes=30_000) as history:
        run_id = asyncio.run(story())
    assert waits > 1
    assert history.stats().dropped == 0
    assert_whole(url, run_id, [token(5, number) for number in range(1_000)])


@pytest.mark.parametrize("overflow", ["block", "drop_newest"])
def test_gaps_stand_for_dropped_tokens_when_no_wait_is_awaited(tmp_path: Path, overflow: str) -> None:
    """The gaps have as many tokens as `dropped` counts."""
    url = new_url(tmp_path)
    gate: Wait[None] = Wait()

    class Slow(FaultyStore):
        async def append(self, batch: Batch) -> None:
            if batch.parts:
                await gate
            await super().append(batch)

    async def story() -> uuid.UUID:
        run_id = begin(history)
        for number in range(1_000):
            history.on_llm_new_token(token(6, number), run_id=run_id)
        gate.set(None)
        await history.flush()
        for number in range(1_000, 1_010):
            history.on_llm_new_token(token(6, number), run_id=run_id)
        finish(history, run_id, "done")
        return run_id

    store = Slow(SqlStore(url))
    with ChatHistoryCallback(url, store=store, max_queue_bytes=30_000, overflow=overflow) as history:
        run_id = asyncio.run(story())
    found = assert_exact(url, run_id, [token(6, number) for number in range(1_010)])
    assert len(found.missing) == history.stats().dropped > 500
    assert {reason for _, _, reason in found.gaps} == {"the queue was full"}
    assert history.stats().accepted == 1_010


def test_the_application_goes_on_after_block_timeout(tmp_path: Path) -> None:
    """The database stalls, the tokens that found no room are dropped, and a gap stands for them."""
    url = new_url(tmp_path)
    gate: Wait[None] = Wait()

    class Stalled(FaultyStore):
        async def append(self, batch: Batch) -> None:
            if batch.parts:
                await gate
            await super().append(batch)

    history = ChatHistoryCallback(
        url, store=Stalled(SqlStore(url)), max_queue_bytes=30_000, block_timeout=0.01
    )
    run_id = begin(history)
    say(history, run_id, (token(7, number) for number in range(1_000)))
    assert history.recorder.queue.bytes <= 30_000
    gate.set(None)
    finish(history, run_id, "done")
    history.close().wait(10)
    found = assert_exact(url, run_id, [token(7, number) for number in range(1_000)])
    assert len(found.missing) == history.stats().dropped > 500


def test_flush_waits_while_the_database_is_locked(tmp_path: Path) -> None:
    """It ends when the lock is released and all is stored."""
    url = new_url(tmp_path)
    path = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ChatHistoryCallback(url) as history:
        begin(history)
        history.flush().wait(10)
        other.execute("BEGIN IMMEDIATE")
        run_id = record(history, reply="a")
        flush = history.flush()
        assert not flush.done
        assert sql(url, "SELECT count(*) FROM segments") == [(0,)]
        other.execute("ROLLBACK")
        flush.wait(20)
        assert_whole(url, run_id, ["a"])


# -- processes that end without close ------------------------------------------------------------------------

SCRIPT = """
import sys, uuid
from recorder import ChatHistoryCallback
from tests.oracle import begin, finish, say, token

history = ChatHistoryCallback(sys.argv[1], flush_interval=3600)
runs = [begin(history, run_id=uuid.UUID(int=number)) for number in range(3)]
history.flush().wait(10)
for number, run_id in enumerate(runs):
    say(history, run_id, (token(number, seq) for seq in range(1000)))
finish(history, runs[0], "done")
"""
ENDS = {
    "the end of the script": "",
    "sys.exit": "sys.exit(3)",
    "an uncaught error": "raise LookupError('mine')",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_exit_of_the_process_stores_everything(database: str, end: str) -> None:
    """The exit code is the script's own, and recorder writes nothing to stderr."""
    done = run_python(SCRIPT + ENDS[end], database)
    assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(ENDS[end], 1)
    assert "recorder" not in done.stderr.replace("LookupError: mine", "").replace("tests.oracle", "")
    for number in range(3):
        texts = [token(number, seq) for seq in range(1000)]
        assert_whole(database, uuid.UUID(int=number), texts, INTERRUPTED if number else COMPLETE)


def test_the_exit_stores_what_was_recorded_inside_asyncio_run(tmp_path: Path) -> None:
    """The script has two recorders, and the queue of each is stored."""
    code = """
import asyncio, sys, uuid
import recorder.recording.recorder
from recorder import ChatHistoryCallback
from tests.oracle import record

recorder.recording.recorder.EXIT_TIMEOUT = 20  # a busy machine may take long to open the files

async def main():
    for url in sys.argv[1:]:
        record(ChatHistoryCallback(url), run_id=uuid.UUID(int=1), reply="a")

asyncio.run(main())
"""
    urls = [new_url(tmp_path, name) for name in ("one.db", "two.db")]
    done = run_python(code, *urls)
    assert (done.returncode, done.stderr) == (0, "")
    for url in urls:
        assert_whole(url, uuid.UUID(int=1), ["a"])


ENDLESS = """
import sys, uuid
from recorder import ChatHistoryCallback
from tests.oracle import begin, say, token

history = ChatHistoryCallback(sys.argv[1], flush_interval=0.005)
run_id = begin(history, run_id=uuid.UUID(int=1))
seq = 0
while True:
    say(history, run_id, [token(8, seq)])
    seq += 1
    if seq % 200 == 0:
        history.flush().wait(10)
        print(seq, flush=True)
"""


def test_flushed_tokens_are_stored_when_the_process_is_killed(database: str) -> None:
    """The stored tokens have no missing number, and the next recorder marks the run as `interrupted`."""
    victim = start_python(ENDLESS, database)
    assert victim.stdout is not None
    acknowledged = [int(victim.stdout.readline()) for _ in range(20)][-1]
    victim.kill()
    acknowledged = max([acknowledged, *map(int, victim.communicate(timeout=10)[0].split())])
    run_id = uuid.UUID(int=1)
    found = stored(database, run_id)
    assert len(found.texts) >= acknowledged
    assert list(found.texts.items()) == [(seq, token(8, seq)) for seq in range(len(found.texts))]
    assert (found.status, found.gaps, found.sha256) == (STREAMING, [], None)
    with ChatHistoryCallback(database) as history:
        for _ in range(2):  # the sweep comes between the two commits
            record(history)
            history.flush().wait(10)
        assert stored(database, run_id).status == INTERRUPTED
    assert stored(database, run_id).texts == found.texts


def test_a_copy_of_the_file_has_all_flushed_tokens(tmp_path: Path) -> None:
    """The file and its log are copied while a run streams into them."""
    url = new_url(tmp_path)
    (tmp_path / "copy").mkdir()
    with ChatHistoryCallback(url, flush_interval=0) as history:
        run_id = begin(history)
        for number in range(5):
            say(history, run_id, (token(9, 100 * number + seq) for seq in range(100)))
            history.flush().wait(10)
            found = stored(copy_of(url, tmp_path / "copy"), run_id)
            assert list(found.texts.items()) == [(seq, token(9, seq)) for seq in range(100 * (number + 1))]


FORKING = """
import os, sys, uuid
import recorder.recording.recorder
from recorder import ChatHistoryCallback
from tests.oracle import begin, finish, say, token

recorder.recording.recorder.EXIT_TIMEOUT = 20  # a busy machine may take long to open the file

def record(number):
    run_id = begin(history, run_id=uuid.UUID(int=number))
    say(history, run_id, (token(number, seq) for seq in range(500)))
    finish(history, run_id, "done")

history = ChatHistoryCallback(sys.argv[1], flush_interval=0.01)
parents = begin(history, run_id=uuid.UUID(int=1))
say(history, parents, (token(1, seq) for seq in range(125)))
history.flush().wait(10)
say(history, parents, (token(1, seq) for seq in range(125, 250)))
children = []
for number in (2, 3, 4):
    if not (child := os.fork()):
        if number == 2:  # records, and ends without `close`
            record(2)
            assert history.stats().accepted == 500
            sys.exit()
        if number == 3:  # records, and closes
            history.flush().wait(10)
            record(3)
            stats = history.close().wait(10)
            os._exit(0 if (stats.accepted, stats.committed) == (500, 500) else 1)
        stats = history.close().wait(10)  # records nothing
        os._exit(0 if (stats.accepted, stats.committed) == (0, 0) else 1)
    children.append(child)
say(history, parents, (token(1, seq) for seq in range(250, 500)))
finish(history, parents, "done")
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert history.close().wait(10).committed == 500
"""


def test_forked_children_record_with_writers_of_their_own(database: str) -> None:
    """Parent and children record runs of their own, and only the parent stores what was in its queue."""
    done = run_python(FORKING, database)
    assert (done.returncode, done.stderr) == (0, "")
    for number in (1, 2, 3):
        assert_whole(database, uuid.UUID(int=number), [token(number, seq) for seq in range(500)])
    assert sql(database, "SELECT count(DISTINCT producer_id), count(*) FROM runs") == [(3, 3)]


def test_a_forked_child_that_records_nothing_exits_at_once(tmp_path: Path) -> None:
    """It has no writer to wait for."""
    code = """
import os, sys
import recorder.recording.recorder
from recorder import ChatHistoryCallback

recorder.recording.recorder.EXIT_TIMEOUT = 3600
history = ChatHistoryCallback(sys.argv[1])
if not (child := os.fork()):
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
"""
    done = run_python(code, new_url(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_two_processes_can_record_into_one_database(database: str) -> None:
    """Both write small batches at the same time, and every token is stored once."""
    code = """
import sys, uuid
from recorder import ChatHistoryCallback
from tests.oracle import begin, finish, say, token

first = int(sys.argv[2])
with ChatHistoryCallback(sys.argv[1], flush_interval=0.001, conversation_id="shared") as history:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(first, first + 20):
        run_id = begin(history, run_id=uuid.UUID(int=number))
        for seq in range(0, 200, 50):
            say(history, run_id, (token(number, seq + place) for place in range(50)))
            history.flush().wait(20)
        finish(history, run_id, str(number))
"""
    both = [start_python(code, database, first) for first in (100, 200)]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in both:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in both:
        assert each.communicate(timeout=30)[1] == ""
        assert each.returncode == 0
    for number in [*range(100, 120), *range(200, 220)]:
        assert_whole(database, uuid.UUID(int=number), [token(number, seq) for seq in range(200)])
    assert sql(database, "SELECT count(*) FROM messages WHERE role = 'assistant'") == [(40,)]
    if database.startswith("sqlite"):
        assert sql(database, "PRAGMA integrity_check") == [("ok",)]


def test_two_threads_of_a_forked_child_start_one_writer(tmp_path: Path) -> None:
    """Both record at the same moment, and both runs are stored."""
    code = """
import os, sys, threading, uuid
from concurrent.futures import ThreadPoolExecutor
from recorder import ChatHistoryCallback
from recorder.recording.writer import Writer
from tests.oracle import record

run, writers, together = Writer.run, [], threading.Barrier(2)

async def counted(writer):
    writers.append(writer)
    await run(writer)

history = ChatHistoryCallback(sys.argv[1])
if not (child := os.fork()):
    Writer.run = counted
    history.recorder._writer.opening.restart_time = lambda *_: together.wait(20)  # each starts a thread
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: record(history, run_id=uuid.UUID(int=number), reply="a"), range(2)))
    history.close().wait(20)
    assert len(writers) == 1, writers
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
"""
    url = new_url(tmp_path)
    done = run_python(code, url)
    assert (done.returncode, done.stderr) == (0, "")
    for number in range(2):
        assert_whole(url, uuid.UUID(int=number), ["a"])


def test_stats_add_up_when_the_database_never_came_back() -> None:
    """The tokens that `close` could not store are counted as dropped."""
    history = ChatHistoryCallback(store=FaultyStore(MemoryStore(), before=[away] * 10**6))
    say(history, begin(history), ["a", "b"])
    stats = history.close(timeout=0.05).wait(10)
    assert counts_add_up(stats)
    assert (stats.accepted, stats.dropped) == (2, 2)


class Held(MemoryStore):
    """A store whose `append` waits until the test lets it go on, like a driver that waits for a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.free = threading.Event(), threading.Event()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            self.entered.set()
            await asyncio.to_thread(self.free.wait, 20)
        await super().append(batch)


def later(history: ChatHistoryCallback, seconds: float) -> Stats:
    """Return the stats as they are so many seconds later if nothing happens until then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder_module, "monotonic_us", lambda: monotonic_us() + int(seconds * 1e6))
        return history.stats()


def test_lag_counts_until_the_commit() -> None:
    """A token waits in the batch in flight, too; with the commit the lag is over."""
    store = Held()
    with ChatHistoryCallback(store=store) as history:
        assert history.stats().lag == 0.0
        begin(history)
        assert store.entered.wait(10)
        assert later(history, 8).lag >= 8
        store.free.set()
        history.flush().wait(10)
        assert later(history, 8).lag == 0.0


def test_lag_is_that_of_the_older_batch() -> None:
    """What is accepted while a batch is in flight is younger than the batch."""
    store = Held()
    with ChatHistoryCallback(store=store) as history:
        run_id = begin(history)
        assert store.entered.wait(10)
        in_flight = history.recorder.queue.in_flight_us
        say(history, run_id, ["a"])
        assert in_flight is not None
        assert history.recorder.queue.counts()[-1] == in_flight
        store.free.set()


@pytest.mark.parametrize(
    ("options", "longest"), [({}, 5.1), ({"flush_interval": 2}, 7), ({"max_commits_per_second": 0.1}, 15)]
)
def test_a_commit_that_is_late_is_unhealthy(options: dict[str, Any], longest: float) -> None:
    """The database has raised no error yet. The recorder is well again with the commit."""
    store = Held()
    with ChatHistoryCallback(store=store, **options) as history:
        begin(history)
        assert store.entered.wait(10)
        assert later(history, longest - 3).healthy
        late = later(history, longest)
        assert (late.healthy, late.last_error) == (False, None)
        store.free.set()
        history.flush().wait(10)
        assert later(history, longest).healthy


def test_lag_is_over_when_a_batch_is_given_up() -> None:
    """What is lost at the close does not wait any more."""
    store = Held()
    history = ChatHistoryCallback(store=store)
    begin(history)
    history.close(timeout=0.05).wait(10)
    store.free.set()
    assert later(history, 8).lag == 0.0
