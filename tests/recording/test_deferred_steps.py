"""Steps that producers leave to the writer are done in order, and their bytes are counted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial

import pytest

from recorder.core.waitable import Wait
from recorder.recording.buffer import OpenRun
from recorder.recording.flushes import Flushes
from recorder.recording.queue import RecordingQueue
from recorder.storage.rows import COMPLETE, RunEnd
from tests.oracle import run_start, started


@pytest.fixture
def queue() -> RecordingQueue:
    """Return a queue with room for 20,000 bytes."""
    return RecordingQueue(20_000, block_timeout=0.01)


class Later:
    """Calls a function in place of translating bytes."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def translate(self, data: bytes, moment_us: int) -> None:
        """Call the function."""
        self._function()


def nothing() -> None:
    """Do nothing."""


def put_text(queue: RecordingQueue, run: OpenRun, text: str) -> None:
    """Translate bytes: they become one token."""
    queue.put(run, text, 1)


def test_steps_are_done_before_the_queue_is_drained(queue: RecordingQueue) -> None:
    """In the order in which they were offered; their bytes are released."""
    run = started(queue, run_start(), 0)
    for text in ("a", "b", "c"):
        assert queue.offer(Later(partial(put_text, queue, run, text)), b"x", 300) is True
    assert queue.has_deferred
    assert queue.untranslated_bytes == 900
    [drained] = queue.drain(10**9).runs
    assert [item[1] for tokens in drained.tokens for item in tokens.items()] == ["a", "b", "c"]
    assert (queue.untranslated_bytes, queue.has_deferred) == (0, False)
    queue.release(drained.bytes)
    assert queue.bytes == 0


def test_a_flush_covers_what_was_offered_before(queue: RecordingQueue) -> None:
    """A full drain has it, and nothing is left afterwards."""
    run = started(queue, run_start(), 0)
    queue.drain(10**9)
    settled = queue.last_offset
    queue.offer(Later(partial(put_text, queue, run, "a")), b"x", 300)
    assert not queue.is_empty_since(settled)
    offset = queue.request_full_drain()
    drained = queue.drain(10**9)
    assert sum(map(len, drained.runs[0].tokens)) == 1
    assert drained.queue_offset >= offset
    assert not queue.is_empty_since(offset)  # it is in flight
    Flushes(queue).settle(offset)
    assert queue.is_empty_since(offset)


def test_a_flush_does_not_end_before_all_that_steps_have_put_is_stored(queue: RecordingQueue) -> None:
    """Also if a batch has no room for all of it."""
    flushes = Flushes(queue)
    runs = [started(queue, run_start(number), 0) for number in (1, 2, 3)]
    flushes.settle(queue.drain(10**9).queue_offset)
    for run in runs:
        queue.offer(Later(partial(put_text, queue, run, "x" * 1_000)), b"x", 1_300)
    flush = flushes.add()
    flushes.accept_new()
    for _ in runs:
        assert not flush.done
        drained = queue.drain(500)
        assert len(drained.runs) == 1
        flushes.settle(drained.queue_offset)
    assert flush.done


def test_what_a_step_puts_is_drained_with_it(queue: RecordingQueue) -> None:
    """Also if nothing was queued before, and something is queued after it."""
    first, second = (started(queue, run_start(number), 0) for number in (1, 2))
    queue.drain(10**9)

    def step() -> None:
        put_text(queue, first, "a")
        thread = threading.Thread(target=put_text, args=(queue, second, "b"))
        thread.start()
        thread.join(10)

    queue.defer(step)
    assert [part.run for part in queue.drain(10**9).runs] == [first]
    assert [part.run for part in queue.drain(10**9).runs] == [second]


def test_a_request_never_comes_before_the_answer_that_it_follows(queue: RecordingQueue) -> None:
    """An end that is deferred before a start is drained with it or earlier, and has the lower order."""
    first = started(queue, run_start(1), 0)
    queue.drain(10**9)
    end = RunEnd(COMPLETE, None)
    order = queue.next_order()

    def finish() -> None:
        queue.end_bytes(first, 1, order, cut=False)
        queue.end(first, end)

    queue.defer(finish)
    second = started(queue, run_start(2), 0)
    drained = queue.drain(10**9)
    assert [part.run for part in drained.runs] == [first, second]
    assert end.order < second.start.order
    assert drained.queue_offset == queue.last_offset


def test_an_end_that_a_step_reports_belongs_to_the_step(queue: RecordingQueue) -> None:
    """Also if another thread, which starts a run, is the first that uses the queue after it."""
    first = started(queue, run_start(1), 0)
    queue.drain(10**9)

    def finish() -> None:
        queue.end(first, RunEnd(COMPLETE, None))
        thread = threading.Thread(target=started, args=(queue, run_start(2), 0))
        thread.start()
        thread.join(10)

    queue.defer(finish)
    assert [part.run for part in queue.drain(10**9).runs] == [first]
    assert len(queue.drain(10**9).runs) == 1


def test_what_is_deferred_while_a_batch_is_drained_belongs_to_the_next(queue: RecordingQueue) -> None:
    """A start that follows it does, too."""
    first = started(queue, run_start(1), 0)

    def application() -> None:
        queue.defer(partial(queue.end, first, RunEnd(COMPLETE, None)))
        started(queue, run_start(2), 0)

    def step() -> None:
        thread = threading.Thread(target=application)
        thread.start()
        thread.join(10)

    queue.defer(step)
    assert [part.run for part in queue.drain(10**9).runs] == [first]
    assert len(queue.drain(10**9).runs) == 2


def test_a_full_queue_gives_a_wait_for_room(queue: RecordingQueue) -> None:
    """It ends when the bytes are translated and released."""
    done: list[str] = []
    assert queue.offer(Later(partial(done.append, "a")), b"x", 19_000) is True
    wait = queue.offer(Later(partial(done.append, "b")), b"x", 19_000)
    assert isinstance(wait, Wait)
    assert not wait.done
    queue.run_deferred(1)
    assert (done, wait.done) == (["a"], True)
    assert queue.offer(Later(partial(done.append, "b")), b"x", 19_000) is True


def test_an_empty_queue_accepts_any_size(queue: RecordingQueue) -> None:
    """Otherwise a chunk that is larger than the bound could never be accepted."""
    assert queue.offer(Later(nothing), b"x", 10**6) is True


def test_with_drop_newest_a_full_queue_refuses(queue: RecordingQueue) -> None:
    """There is nothing to wait for."""
    queue = RecordingQueue(20_000, overflow="drop_newest")
    queue.offer(Later(nothing), b"x", 19_000)
    assert queue.offer(Later(nothing), b"x", 19_000) is False


def test_a_closed_queue_refuses_bytes_and_does_the_steps_that_it_has(queue: RecordingQueue) -> None:
    """The tokens of bytes that were accepted before `close` are accepted after it, and an end comes after them."""
    run = started(queue, run_start(), 0)
    queue.offer(Later(partial(put_text, queue, run, "a")), b"x", 300)
    queue.close()
    queue.defer(partial(queue.end, run, RunEnd(COMPLETE, None)))
    assert queue.offer(Later(nothing), b"x", 1) is False
    [drained] = queue.drain(10**9).runs
    assert [len(tokens) for tokens in drained.tokens] == [1]
    assert drained.end is not None
    assert queue.dropped == 0


def test_translated_tokens_may_take_more_than_the_bytes(queue: RecordingQueue) -> None:
    """The bytes were accepted, so their tokens never make a gap."""
    run = started(queue, run_start(), 0)
    queue.offer(Later(partial(put_text, queue, run, "x" * 9_500)), b"x", 9_000)
    [drained] = queue.drain(10**9).runs
    assert (sum(map(len, drained.tokens)), drained.gaps) == (1, ())


def test_a_step_that_fails_is_reported_and_the_others_are_done(
    queue: RecordingQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Its bytes are released, too."""
    done: list[str] = []
    queue.offer(Later(lambda: 1 / 0), b"x", 100)
    queue.offer(Later(partial(done.append, "b")), b"x", 100)
    with caplog.at_level(logging.ERROR):
        queue.run_deferred(2)
    assert (done, queue.bytes, queue.untranslated_bytes) == (["b"], 0, 0)
    assert "ZeroDivisionError" in caplog.text


def test_a_finalizer_may_defer_an_end_at_any_place(queue: RecordingQueue) -> None:
    """Also on a thread that holds the queue's lock: it takes no lock."""
    done: list[str] = []
    queue.call(lambda: queue.defer(partial(done.append, "end")))
    thread = threading.Thread(target=queue.defer, args=(partial(done.append, "other"),))
    with queue._lock:
        thread.start()
        thread.join(10)
    assert not thread.is_alive()
    queue.run_deferred(2)
    assert done == ["end", "other"]


def test_steps_wake_the_writer(queue: RecordingQueue) -> None:
    """A writer that waits for work gets it."""

    async def story() -> bool:
        queue.bind_loop(10_000)
        waiting = asyncio.ensure_future(queue.wait_for_work())
        await asyncio.sleep(0)
        threading.Thread(target=queue.offer, args=(Later(nothing), b"x", 10)).start()
        await asyncio.wait_for(waiting, 10)
        return queue.has_deferred

    assert asyncio.run(story())


def test_nothing_is_kept_after_the_writer_has_ended(queue: RecordingQueue) -> None:
    """Streams that an application reads on report their ends later."""
    done: list[str] = []
    queue.defer(partial(done.append, "before"))
    queue.unbind_loop()
    queue.defer(partial(done.append, "after"))
    queue.drain(10**9)
    assert (done, queue.has_deferred) == (["before"], False)


def test_a_forked_child_has_no_steps(queue: RecordingQueue) -> None:
    """They are the parent's."""
    queue.offer(Later(nothing), b"x", 100)
    queue.reset()
    assert (queue.has_deferred, queue.bytes, queue.untranslated_bytes) == (False, 0, 0)
