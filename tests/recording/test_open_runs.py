"""The number of open runs has a limit; idle runs are closed, and their next token opens them again."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.config import Config
from recorder.core.clock import monotonic_us
from recorder.errors import ConfigError
from recorder.messages import HumanMessage
from recorder.recording.buffer import OpenRun
from recorder.recording.open_runs import OpenRuns
from recorder.recording.queue import RecordingQueue
from recorder.redaction.masking import Mask
from recorder.storage.rows import COMPLETE, ERROR, INTERRUPTED, STREAMING, RunEnd
from recorder.testing import MemoryStore
from tests.oracle import assert_whole, begin, finish, record, run_end, run_start, say, sql, started, stored

#: Not 0: the monotonic clock may begin when the machine starts, and that may be less than an hour ago.
LONG_AGO = -(10**12)


def run_at(active_us: float, number: int = 0) -> OpenRun:
    """A run whose last token came at that time; `LONG_AGO` is before the limit of every test."""
    run = OpenRun(run_start(number), 0)
    run.active_us = int(active_us)
    return run


def until(condition: Callable[[], bool], history: ChatHistoryCallback) -> None:
    """Flush until the condition is true."""
    while not condition():
        history.flush().wait(20)


def runs_in_memory() -> int:
    """How many `OpenRun` objects this process holds."""
    gc.collect()
    return sum(type(each) is OpenRun for each in gc.get_objects())


# -- OpenRuns without a recorder ----------------------------------------------------------------------------------


def test_a_run_is_refused_when_the_limit_is_reached() -> None:
    """When a run is removed, there is room for another one."""
    queue, open_runs = RecordingQueue(10**6), OpenRuns(2)
    assert [open_runs.add(key, run_at(LONG_AGO), queue) for key in range(3)] == [True, True, False]
    assert open_runs.find(2) is None
    open_runs.remove(0)
    assert open_runs.add(2, run_at(LONG_AGO), queue)
    assert list(open_runs.open) == [1, 2]


def test_idle_runs_are_closed_and_opened_again() -> None:
    """A run without tokens for an hour is closed, can still be found, and `reopen` opens it once."""
    queue, open_runs = RecordingQueue(10**6), OpenRuns(10)
    quiet, busy = run_at(LONG_AGO), run_at(monotonic_us() + 10**9, 1)
    for key, run in enumerate((quiet, busy)):
        open_runs.add(key, run, queue)
    open_runs.close_idle(queue, 3600)
    assert (list(open_runs.open), open_runs.idle_count) == ([1], 1)
    assert open_runs.find(0) is quiet
    assert (quiet.idle, busy.idle) == (True, False)
    assert open_runs.reopen(0) is quiet
    assert open_runs.reopen(2) is None
    assert (list(open_runs.open), open_runs.idle_count) == ([1, 0], 0)


def test_idle_runs_make_room_for_new_ones() -> None:
    """The run that has been idle for longest is forgotten."""
    queue, open_runs = RecordingQueue(10**6), OpenRuns(2)
    for key in range(2):
        open_runs.add(key, run_at(LONG_AGO, key), queue)
    open_runs.close_idle(queue, 3600)
    assert open_runs.add(2, run_at(LONG_AGO, 2), queue)
    assert (open_runs.find(0), open_runs.idle_count) == (None, 1)
    open_runs.clear()
    assert (open_runs.find(1), open_runs.find(2)) == (None, None)


class Interleaved(RecordingQueue):
    """A queue that gets a token of a run just after it ended the run as idle."""

    def end_idle(self, run: OpenRun, end: RunEnd, before_us: float) -> bool:
        is_ended = super().end_idle(run, end, before_us)
        self.put(run, "late", 0)
        return is_ended


def test_a_token_reopens_its_run_when_it_comes_while_the_run_is_closed() -> None:
    """The run stays among the open ones, and a new run is refused."""
    queue, open_runs, run = Interleaved(10**6), OpenRuns(1), run_at(LONG_AGO)
    open_runs.add(0, run, queue)
    open_runs.close_idle(queue, 3600)
    assert (run.idle, list(open_runs.open), open_runs.idle_count) == (False, [0], 0)
    assert not open_runs.add(1, run_at(LONG_AGO, 1), queue)
    assert open_runs.find(0) is run


def closed_as_idle(queue: RecordingQueue, open_runs: OpenRuns) -> OpenRun:
    """A run with the key 0 that was closed as idle."""
    run = run_at(LONG_AGO)
    open_runs.add(0, run, queue)
    open_runs.close_idle(queue, 3600)
    return run


def test_a_token_reopens_its_run_when_its_thread_had_found_the_run_before() -> None:
    """The run is among the open ones again, and a new run is refused."""
    queue, open_runs = RecordingQueue(10**6), OpenRuns(1)
    run = closed_as_idle(queue, open_runs)
    queue.put(run, "late", 0)
    assert not open_runs.add(1, run_at(LONG_AGO, 1), queue)
    assert (list(open_runs.open.values()), open_runs.idle_count) == ([run], 0)


def test_a_token_is_dropped_when_a_new_run_has_taken_the_place_of_its_run() -> None:
    """It is counted as dropped, like every token after an end."""
    queue, open_runs = RecordingQueue(10**6), OpenRuns(1)
    run = closed_as_idle(queue, open_runs)
    assert open_runs.add(1, run_at(LONG_AGO, 1), queue)
    queue.put(run, "late", 0)
    assert (queue.dropped, run.queued_tokens, run.ended) == (1, 0, True)


def test_an_end_removes_the_idle_run_with_the_same_id() -> None:
    """A later token finds neither of the two runs."""
    queue, open_runs = RecordingQueue(10**6), OpenRuns(10)
    open_runs.add(0, run_at(LONG_AGO), queue)
    open_runs.close_idle(queue, 3600)
    open_runs.add(0, run_at(monotonic_us()), queue)
    open_runs.remove(0)
    assert open_runs.find(0) is None
    assert open_runs.reopen(0) is None


def test_a_run_that_ends_while_a_token_reopens_it_is_not_open() -> None:
    """Another thread ends the run after the token has found it."""
    queue, open_runs = RecordingQueue(10**6), OpenRuns(10)
    run = run_at(LONG_AGO)
    open_runs.add(0, run, queue)
    open_runs.close_idle(queue, 3600)
    idle_runs = open_runs._idle

    class EndsMeanwhile(OrderedDict[int, OpenRun]):
        def get(self, key: int, default: Any = None) -> Any:
            found = super().get(key, default)
            run.ended = True
            open_runs.remove(key)
            return found

    open_runs._idle = EndsMeanwhile(idle_runs)
    open_runs.reopen(0)
    assert (list(open_runs.open), open_runs.idle_count) == ([], 0)


# -- runs that never end -----------------------------------------------------------------------------------------


def test_a_run_has_a_row_and_a_gap_when_too_many_are_open(database: str) -> None:
    """Its tokens are counted as dropped, and there is room again when another run ends."""
    with ChatHistoryCallback(database, max_open_runs=3) as history:
        runs = [begin(history) for _ in range(3)]
        more = begin(history, HumanMessage("One more"))
        say(history, more, ["a", "b"])
        finish(history, more, "ab")
        assert history.stats().open_runs == 3
        for run_id in runs:
            say(history, run_id, ["c"])
        finish(history, runs[0], "c")
        last = record(history, reply="d")
        finish(history, runs[1], "c")
        finish(history, runs[2], "c")
    for run_id in runs:
        assert_whole(database, run_id, ["c"])
    assert_whole(database, last, ["d"])
    found = stored(database, more)
    assert (found.status, found.texts) == (INTERRUPTED, {})
    assert found.gaps == [(0, 0, "more than 3 runs were open (max_open_runs)")]
    stats = history.stats()
    assert (stats.refused_runs, stats.lost_runs, stats.lost_messages, stats.dropped) == (1, 0, 1, 2)
    assert sql(database, "SELECT count(*) FROM messages WHERE content = 'One more'") == [(0,)]


def test_runs_above_the_limit_hold_no_memory() -> None:
    """The default limit is 10,000 runs; a refused run is released once it is stored."""
    assert Config().max_open_runs == 10_000
    before = runs_in_memory()
    with ChatHistoryCallback(store=MemoryStore(), max_open_runs=500) as history:
        for number in range(1_000):
            begin(history, run_id=uuid.UUID(int=number + 1))
        history.flush().wait(20)
        stats = history.stats()
        assert (stats.open_runs, stats.refused_runs, stats.lost_runs) == (500, 500, 0)
        assert (len(history.recorder.runs), stats.queued_bytes) == (500, 0)
        assert runs_in_memory() - before <= 500


def test_an_idle_run_is_closed_and_goes_on_with_its_next_token(database: str) -> None:
    """Its status follows, its numbers go on, and its end has the count and hash of all tokens."""
    with ChatHistoryCallback(database, flush_interval=0, run_idle_timeout=0.05) as history:
        run_id = begin(history)
        say(history, run_id, ["a", "b"])
        history.flush().wait(20)
        until(lambda: stored(database, run_id).status == INTERRUPTED, history)
        found = stored(database, run_id)
        assert (found.texts, found.token_count, found.sha256) == ({0: "a", 1: "b"}, 2, found.found_sha256)
        assert (history.stats().open_runs, history.stats().idle_runs) == (0, 1)
        say(history, run_id, ["c"])
        assert (history.stats().open_runs, history.stats().idle_runs) == (1, 0)
        history.flush().wait(20)
        statuses = {INTERRUPTED, STREAMING}  # the run may be closed as idle again
        assert stored(database, run_id).status in statuses
        say(history, run_id, ["d"])
        finish(history, run_id, "abcd")
    assert_whole(database, run_id, ["a", "b", "c", "d"])
    assert history.stats().dropped == 0


def close_idle(history: ChatHistoryCallback, run_id: uuid.UUID) -> None:
    """Close the run as if it had been idle."""
    history.flush().wait(20)
    history.recorder._open_runs.close_idle(history.recorder.queue, -3600)
    assert history.recorder.runs.get(run_id.int) is None


def test_a_closed_run_is_streaming_again_after_its_next_token(database: str) -> None:
    """It has no end time and a count of 0 until it ends again."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        for number, text in enumerate("abc"):
            say(history, run_id, [text])
            history.flush().wait(20)
            assert stored(database, run_id).status == STREAMING
            [(ended, count)] = sql(database, "SELECT ended_at, token_count FROM runs")
            assert (ended, count) == (None, 0)
            close_idle(history, run_id)
            history.flush().wait(20)
            assert stored(database, run_id).token_count == number + 1
        finish(history, run_id, "abc")
    assert_whole(database, run_id, "abc")
    assert sql(database, "SELECT content FROM messages WHERE role = 'assistant'") == [("abc",)]


def test_an_idle_end_is_cancelled_when_a_token_comes_before_it_is_drained(database: str) -> None:
    """Nothing of the end is stored."""
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        run_id = begin(history)
        close_idle(history, run_id)
        say(history, run_id, ["a"])
        history.flush().wait(20)
        found = stored(database, run_id)
        assert (found.status, found.texts) == (STREAMING, {0: "a"})


def test_an_idle_run_may_end(database: str) -> None:
    """Its own end is stored; a run that is idle at `close` stays `interrupted`."""
    with ChatHistoryCallback(database) as history:
        ended, left = begin(history), begin(history)
        for run_id in (ended, left):
            say(history, run_id, ["a"])
            close_idle(history, run_id)
        finish(history, ended, "a")
    assert_whole(database, ended, ["a"], COMPLETE)
    assert_whole(database, left, ["a"], INTERRUPTED)
    assert history.stats().idle_runs == 1


def test_a_token_is_stored_when_it_comes_while_its_run_is_closed_as_idle(database: str) -> None:
    """The token's thread found the run before it was closed; `close` stores the token and an end."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        run = history.recorder.runs[run_id.int]
        close_idle(history, run_id)
        history.flush().wait(20)
        history.recorder.queue.put(run, "a", 0)
    assert_whole(database, run_id, ["a"], INTERRUPTED)


KEY = "sk-" + "canary7" * 5


@pytest.mark.parametrize("idle", [False, True])
def test_the_key_is_masked_in_the_error_of_an_idle_run(database: str, idle: bool) -> None:
    """A provider may repeat the key in its error at any time."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, mask=Mask([KEY]))
        if idle:
            close_idle(history, run_id)
        history.on_llm_error(RuntimeError(f"no such key: {KEY}"), run_id=run_id)
    assert stored(database, run_id).status == ERROR
    assert sql(database, "SELECT error_message FROM runs") == [("no such key: ***",)]


def test_a_run_whose_tokens_find_no_room_is_not_idle() -> None:
    """Its tokens come, although the queue drops them."""
    queue = RecordingQueue(3_000, overflow="drop_newest")
    run = started(queue, run_start(), 0)
    queue.put(run, "x" * 5_000, 0)
    run.active_us = 0
    queue.put(run, "y" * 5_000, 0)
    assert run.gap_count == 2
    queue.drain(10**6)
    before_us = monotonic_us() - 10**7
    assert not queue.end_idle(run, run_end(INTERRUPTED), before_us)


def test_all_frames_of_a_run_are_stored_when_it_was_idle(database: str) -> None:
    """Delayed frames are stored with the end, and the hash is that of all frames."""
    with ChatHistoryCallback(database, frames_interval=3600) as history:
        run_id = begin(history)
        for number in range(3):
            history.on_stream_frame(b"frame %d" % number, number, [], run_id=run_id)
            close_idle(history, run_id)
        finish(history, run_id, "")
    found = sql(database, "SELECT sum(count) FROM frames")
    assert found == [(3,)]
    [(proof,)] = sql(database, "SELECT frames_sha256 FROM runs")
    assert proof == hashlib.sha256(b"frame 0frame 1frame 2").hexdigest()


def test_no_token_is_lost_when_runs_are_closed_as_idle_all_the_time(database: str) -> None:
    """Four tasks stream with pauses while the writer closes idle runs after 0.1 ms."""
    texts = [str(number) for number in range(60)]

    async def one(history: ChatHistoryCallback) -> uuid.UUID:
        run_id = begin(history)
        for number, text in enumerate(texts):
            if (wait := history.on_llm_new_token(text, run_id=run_id)) is not None:
                await wait
            await asyncio.sleep(0.001 if number % 7 == 0 else 0)
        finish(history, run_id, "done")
        return run_id

    async def story() -> list[uuid.UUID]:
        async with ChatHistoryCallback(database, flush_interval=0, run_idle_timeout=0.000_1) as history:
            return list(await asyncio.gather(*(one(history) for _ in range(4))))

    for run_id in asyncio.run(story()):
        assert_whole(database, run_id, texts)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1"])
def test_the_limits_are_checked(timeout: Any) -> None:
    """Values that can never work raise a ConfigError."""
    with pytest.raises(ConfigError, match="run_idle_timeout"):
        Config(run_idle_timeout=timeout)
    with pytest.raises(ConfigError, match="max_open_runs"):
        Config(max_open_runs=0)
