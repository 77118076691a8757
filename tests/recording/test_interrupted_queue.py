"""The queue stays consistent when finalizers and signal handlers run inside of its calls, on the same thread."""

from __future__ import annotations

import dis
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from recorder.core.clock import now
from recorder.messages import AIMessage, HumanMessage
from recorder.recording.buffer import DrainedRun, OpenRun
from recorder.recording.queue import RecordingQueue
from recorder.wire.deltas import Delta
from tests.interrupts import SIGNALS, ctrl_c, interrupted
from tests.oracle import run_end, run_start, started
from tests.recording.test_queue import ALL, COST, TEXT, on_loop, tokens_of

#: The tests interrupt at every 11th place of the code, and choose the first one by chance.
STRIDE = 11


class Story:
    """One thread is the producer and the writer by turns; the queue has room for few tokens and holds another run."""

    def __init__(self, writer: ThreadPoolExecutor | None = None) -> None:
        self.writer = writer
        self.queue = RecordingQueue(30 * COST, block_timeout=0)
        self.other = started(self.queue, run_start(0), 0)
        self.queue.put(self.other, "other 0", 0)
        self.runs = [self.other]
        self.drained: list[DrainedRun] = []
        #: How many tokens of each run were handed over, by its number; the last one may have been interrupted.
        self.offered = {0: 1, 1: 0, 2: 0}

    def play(self) -> None:
        """Call each method of the queue, with room and without."""
        queue = self.queue
        for number in (1, 2):
            run = OpenRun(run_start(number, messages=[HumanMessage("Hi")]), 0)
            self.runs.append(run)
            queue.start(run)
            self._put(run, number, 3)
            self.drain()
            self._put(run, number, 12)
            on_loop(partial(self._put, run, number, 8))
            queue.add(("c", None), now(), [HumanMessage("added")])
            queue.counts()
            queue.wake_writer()
            queue.request_full_drain()
            self.drain()
            self._put(run, number, 2)
            queue.end(run, run_end(replies=[AIMessage("Hello")]))
            self.drain()

    def drain(self) -> None:
        """Drain as the writer does, on the writer's thread if there is one; no signal handler runs there."""
        if self.writer is not None:
            self.writer.submit(self._drain).result(20)
        else:
            self._drain()

    def _drain(self) -> None:
        batch = self.queue.drain(ALL)
        self.drained += batch.runs
        self.queue.release(batch.bytes)

    def finish(self) -> None:
        """End all runs and drain all, on another thread, which needs the lock to be free."""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._finish).result(20)

    def _finish(self) -> None:
        for run in self.runs:
            self.queue.end(run, run_end())
        self._drain()

    def _put(self, run: OpenRun, number: int, tokens: int) -> None:
        for _ in range(tokens):
            self.offered[number] += 1
            if self.offered[number] % 2:
                self.queue.put(run, TEXT, 0)
            else:
                self.queue.put_frame(run, b"frame", [Delta(TEXT)], 0)


def assert_consistent(story: Story, place: int, *, may_lack: int) -> None:
    """Each number is drained once or in a gap, each run begins and ends once, and all bytes are released."""
    stored = tokens_of(story.drained)
    gaps: dict[str, list[int]] = {}
    for part in story.drained:
        for first, size, _ in part.gaps:
            gaps.setdefault(part.run.start.run_id, []).extend(range(first, first + size))
    for number, offered in story.offered.items():
        run_id = run_start(number).run_id
        numbers = [seq for seq, _ in stored.get(run_id, [])]
        assert numbers == sorted(set(numbers)), f"place {place}"
        found = sorted(numbers + gaps.get(run_id, []))
        assert found == list(range(len(found))), f"place {place}"
        assert offered - may_lack <= len(found) <= offered, f"place {place}"
    ends = [part.run.start.run_id for part in story.drained if part.end is not None]
    assert sorted(ends) == sorted(run.start.run_id for run in story.runs), f"place {place}"
    assert story.queue.bytes == 0, f"place {place}"


def places() -> range:
    """The places to interrupt at, beginning with a random one."""
    first = random.randrange(STRIDE)
    print(f"the first place is {first}")
    return range(first, 100_000, STRIDE)


def test_a_finalizer_may_end_a_run_at_any_place() -> None:
    """It also puts a token of another run, reads the counts and wakes the writer; no call blocks or loses a token."""
    for place in places():
        story = Story()

        def finalizer(story: Story = story) -> None:
            story.offered[0] += 1
            story.queue.put(story.other, "other 1", 0)
            story.queue.counts()
            story.queue.wake_writer()
            story.queue.end(story.other, run_end())

        reached = interrupted(story.play, place, finalizer)
        story.finish()
        assert_consistent(story, place, may_lack=0)
        if not reached:
            break
    assert place > 100


def test_a_signal_handler_may_begin_a_run_and_close_at_any_place() -> None:
    """The run that the handler began has its row, and the closed queue accepts nothing more."""
    for place in places():
        story = Story()

        def handler(story: Story = story) -> None:
            story.runs.append(started(story.queue, run_start(3), 0))
            story.queue.end(story.runs[-1], run_end())
            story.queue.close()

        reached = interrupted(story.play, place, handler)
        story.finish()
        begun = {part.run for part in story.drained}
        assert {run for run in story.runs if not run.lost} <= begun, f"place {place}"
        assert story.queue.bytes == 0
        if not reached:
            break
    assert place > 100


# Ctrl-C may come while Python calls the recorder's callback of the collector; Python then reports it and goes on.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*on_gc:pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_place_leaves_the_queue_consistent() -> None:
    """Only the token that was being put may be missing, and the lock is free."""
    writer = ThreadPoolExecutor(1)
    for place in places():
        story = Story(writer)
        try:
            reached = interrupted(story.play, place, ctrl_c, SIGNALS)
        except KeyboardInterrupt:
            reached = True
        story.finish()
        assert_consistent(story, place, may_lack=1)
        if not reached:
            break
    writer.shutdown()
    assert place > 100


@pytest.mark.parametrize("method", [RecordingQueue.put, RecordingQueue.put_frame])
def test_the_fast_path_cannot_be_interrupted_before_it_marks_the_lock(method: Callable[..., object]) -> None:
    """Between getting the lock and setting `_inside`, no bytecode lets Python run a signal handler or the collector."""
    instructions = list(dis.get_instructions(method))
    entered = next(place for place, each in enumerate(instructions) if each.opname == "BEFORE_WITH")
    marked = next(
        place for place, each in enumerate(instructions)
        if each.opname == "STORE_ATTR" and each.argval == "_inside" and place > entered
    )  # fmt: skip
    inside = [each.opname for each in instructions[entered:marked]]
    # An early return calls the lock's `__exit__`, after which the lock is free.
    calls = [name for name in inside if name.startswith(("CALL", "JUMP_BACKWARD", "BUILD_", "FOR_ITER"))]
    assert len(calls) == inside.count("RETURN_VALUE") + inside.count("RETURN_CONST")
