"""The queue has a limit in bytes: an accepted token has a number and is drained once; a dropped one leaves a gap."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.messages import AIMessage, HumanMessage
from recorder.recording.buffer import DrainedRun, OpenRun
from recorder.recording.capacity import RESERVED_RUNS, RUN_COST
from recorder.recording.queue import FULL_AT_START, TOKEN_COST, RecordingQueue
from recorder.wire.deltas import REASONING, Delta
from tests.oracle import run_end, run_start, started

#: The cost of a token of ten letters.
COST = TOKEN_COST + 10
TEXT = "0123456789"
ALL = 2**40


def opened(queue: RecordingQueue, number: int = 0) -> OpenRun:
    """A run whose start is in the queue."""
    return started(queue, run_start(number), monotonic_us())


def tokens_of(drained: Sequence[DrainedRun]) -> dict[str, list[tuple[int, str]]]:
    """The number and the text of each drained token, by run."""
    found: dict[str, list[tuple[int, str]]] = {}
    for part in drained:
        here = found.setdefault(part.run.start.run_id, [])
        for piece in part.tokens:
            here += [(piece.seq + place, item[1]) for place, item in enumerate(piece.items())]
    return found


def only(drained: Sequence[DrainedRun]) -> list[tuple[int, str]]:
    """The number and the text of each drained token of the only run."""
    return [pair for pairs in tokens_of(drained).values() for pair in pairs]


def release(queue: RecordingQueue, drained: Sequence[DrainedRun]) -> None:
    """Release the bytes of these runs."""
    queue.release(sum(part.bytes for part in drained))


def on_loop(call: Callable[[], Any]) -> Any:
    """Make the call on the thread of a running event loop."""

    async def story() -> Any:
        return call()

    return asyncio.run(story())


# -- with room -----------------------------------------------------------------------------------------------


def test_tokens_are_numbered_in_the_order_of_their_calls() -> None:
    """A token gets its number when it is accepted. Numbers continue after a drain."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    assert [queue.put(run, text, 1) for text in "abc"] == [None, None, None]
    assert only(queue.drain(ALL).runs) == [(0, "a"), (1, "b"), (2, "c")]
    queue.put(run, "d", 2)
    assert only(queue.drain(ALL).runs) == [(3, "d")]
    assert queue.drain(ALL).runs == []


def test_a_frame_is_drained_with_its_deltas() -> None:
    """Plain text has no kind and no index in its item, and a frame without deltas is drained too."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    queue.put_frame(run, b"one", [Delta("a"), Delta("b", REASONING, "0.1")], 1)
    queue.put_frame(run, b"two", [], 2)
    queue.put_frame(run, None, [Delta("c", "text", "1")], 3)
    [drained] = queue.drain(ALL).runs
    assert [piece.items() for piece in drained.tokens] == [
        [(1, "a"), (1, "b", REASONING, "0.1"), (3, "c", "text", "1")]
    ]
    assert [(piece.seq, piece.data, piece.at_us) for piece in drained.frames] == [
        (0, [b"one", b"two"], [1, 2])
    ]


def test_the_text_of_a_token_may_be_a_subclass_of_str() -> None:
    """Such a token is one token."""

    class Text(str):
        pass

    queue = RecordingQueue(ALL)
    run = opened(queue)
    queue.put(run, Text("put"), 1)
    queue.put_frame(run, None, [Delta(Text("with frame"))], 2)
    [drained] = queue.drain(ALL).runs
    assert [item for piece in drained.tokens for item in piece.items()] == [(1, "put"), (2, "with frame")]


def test_runs_are_drained_in_queue_order() -> None:
    """A drain stops at its size in bytes, takes at least one run, and leaves the rest in the queue."""
    queue = RecordingQueue(ALL)
    runs = [opened(queue, number) for number in range(3)]
    for run in reversed(runs):
        queue.put(run, TEXT, 0)
    cost = RUN_COST + COST
    first = queue.drain(cost + 1).runs
    assert [part.run for part in first] == runs[:2]
    assert [part.run for part in queue.drain(1).runs] == runs[2:]


def test_queue_offsets_grow() -> None:
    """A run that is queued later has a larger offset, by which a flush knows what it waits for."""
    queue = RecordingQueue(ALL)
    run, other = opened(queue, 1), opened(queue, 2)
    wanted = queue.request_full_drain()
    assert [queue.drain(1).queue_offset, queue.drain(1).queue_offset] == [wanted - 1, wanted]
    queue.put(other, "x", 0)
    queue.put(run, "x", 0)
    queue.put(other, "x", 0)
    assert [queue.drain(1).queue_offset, queue.drain(1).queue_offset] == [wanted + 1, wanted + 2]
    assert not queue.drain(ALL).queue_offset


def test_no_run_is_in_a_batch_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer puts a token during a drain of many runs; the next batch has it."""
    queue = RecordingQueue(ALL)
    runs = [opened(queue, number) for number in range(300)]
    freeze = queue._drain_one

    def frozen(queued: Any, batch: Any, moment_us: int) -> None:
        freeze(queued, batch, moment_us)
        queue.call_soon(lambda: queue._enqueue(runs[0]))

    monkeypatch.setattr(queue, "_drain_one", frozen)
    queue.request_full_drain()
    assert [part.run for part in queue.drain(ALL).runs] == runs
    assert not queue.is_urgent  # the full drain is done
    assert [part.run for part in queue.drain(ALL).runs] == runs[:1]


def test_the_end_is_drained_once() -> None:
    """A second end is ignored, and a token after the end is counted as dropped."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    first, second = run_end("complete"), run_end("error")
    queue.end(run, first)
    queue.end(run, second)
    assert queue.put(run, "late", 0) is None
    assert queue.put_frame(run, b"late", [Delta("a"), Delta("b")], 0) is None
    [drained] = queue.drain(ALL).runs
    assert (drained.end, drained.tokens, queue.dropped) == (first, (), 3)
    queue.end(run, second)
    assert queue.drain(ALL).runs == []


def test_the_queue_has_no_bytes_after_everything_was_released() -> None:
    """Runs, tokens, frames, replies and gaps are all counted and all released."""
    queue = RecordingQueue(20 * COST + RUN_COST, overflow="drop_newest")
    run = opened(queue)
    for number in range(30):
        queue.put(run, TEXT, number)
        queue.put_frame(run, b"frame", [Delta("é" * number)], number)
    queue.end(run, run_end(replies=[AIMessage("Hello"), AIMessage([{"type": "text", "text": "Hi"}])]))
    assert queue.bytes > 20 * COST
    while drained := queue.drain(1).runs:
        release(queue, drained)
    assert (queue.bytes, run.bytes) == (0, 0)


def test_messages_count_in_the_bytes_of_the_queue() -> None:
    """A request of a million characters counts a million bytes."""
    queue = RecordingQueue(ALL)
    started(queue, run_start(messages=[HumanMessage("x" * 10**6)]), 0)
    assert queue.bytes == RUN_COST + 10**6
    started(queue, run_start(1, messages=[HumanMessage([{"type": "image", "data": "x" * 10**6}])]), 0)
    assert queue.bytes >= 2 * (RUN_COST + 10**6)


def test_a_text_counts_the_bytes_that_it_takes_in_memory() -> None:
    """A character beyond ASCII may take four bytes in memory, and the limit is one on memory."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    before = queue.bytes
    queue.put(run, "🎈" * 10_000, 0)
    assert queue.bytes - before >= 40_000


@pytest.mark.parametrize("shared", [False, True], ids=["a run each", "one run"])
def test_no_token_is_lost_when_eight_threads_put(shared: bool) -> None:
    """Each run has the numbers from 0 to n - 1, and the tokens of a thread stay in order."""
    queue, each, threads = RecordingQueue(ALL), 2_000, 8
    runs = [opened(queue, 0 if shared else number) for number in range(1 if shared else threads)]
    drained: list[DrainedRun] = []

    def produce(number: int) -> None:
        run = runs[0 if shared else number]
        for place in range(each):
            queue.put(run, f"{number}:{place}", place)

    with ThreadPoolExecutor(threads) as pool:
        producers = [pool.submit(produce, number) for number in range(threads)]
        while not all(producer.done() for producer in producers):
            drained += queue.drain(ALL).runs
        for producer in producers:
            producer.result()
    drained += queue.drain(ALL).runs
    for pairs in tokens_of(drained).values():
        assert [number for number, _ in pairs] == list(range(len(pairs)))
        for thread in range(threads):
            own = [text for _, text in pairs if text.startswith(f"{thread}:")]
            assert own in ([], [f"{thread}:{place}" for place in range(each)])
    assert queue.counts()[:3] == (0, threads * each, 0)


# -- without room --------------------------------------------------------------------------------------------


def full(tokens: int = 10, **options: Any) -> tuple[RecordingQueue, OpenRun]:
    """A queue with room for one run of so many tokens, which is full, and its run."""
    queue = RecordingQueue(RUN_COST + tokens * COST, **options)
    run = opened(queue)
    for number in range(tokens):
        assert queue.put(run, TEXT, number) is None
    return queue, run


def test_put_waits_for_room_outside_of_an_event_loop() -> None:
    """The call returns as soon as bytes are released, and no token is dropped."""
    queue, run = full()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.put, run, "more", 10)
        drained: list[DrainedRun] = []
        while not waiting.done():
            part = queue.drain(ALL).runs
            release(queue, part)
            drained += part
        assert waiting.result() is None
    drained += queue.drain(ALL).runs
    assert only(drained) == [*((number, TEXT) for number in range(10)), (10, "more")]
    assert queue.dropped == 0


def test_a_large_token_waits_until_it_fits() -> None:
    """Half of the queue is free, and the token needs 80 % of it."""
    queue, run = full(100)
    release(queue, queue.drain(ALL).runs)
    for number in range(50):
        queue.put(run, TEXT, number)
    large = "x" * (80 * COST)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.put, run, large, 50)
        drained: list[DrainedRun] = []
        while not waiting.done():
            part = queue.drain(ALL).runs
            release(queue, part)
            drained += part
        waiting.result()
    drained += queue.drain(ALL).runs
    assert (only(drained)[-1], queue.dropped) == ((150, large), 0)


@pytest.mark.parametrize("overflow", ["block", "drop_newest"])
def test_a_token_larger_than_the_limit_is_accepted_when_the_queue_is_empty(overflow: Any) -> None:
    """It would wait for ever otherwise; the application holds it in memory anyway."""
    queue, run = full(overflow=overflow)
    release(queue, queue.drain(ALL).runs)
    large = "x" * 10**6
    assert queue.put(run, large, 0) is None
    assert only(queue.drain(ALL).runs) == [(10, large)]
    assert queue.dropped == 0


def test_put_returns_a_wait_on_an_event_loop() -> None:
    """The token is accepted from the reserve, and the wait ends when there is room again."""
    queue, run = full(100)

    async def story() -> None:
        wait = queue.put(run, "more", 0)
        assert wait is not None
        assert not wait.done
        drained = queue.drain(ALL).runs
        assert only(drained)[-1] == (100, "more")
        assert not wait.done
        release(queue, drained)
        await wait
        assert queue.put(run, "and more", 0) is None

    asyncio.run(story())
    assert (only(queue.drain(ALL).runs), queue.dropped) == ([(101, "and more")], 0)


def test_one_release_ends_all_waits_for_room() -> None:
    """A token and a frame wait, and one release of bytes ends both waits."""
    queue, run = full(100)
    waits = on_loop(lambda: [queue.put(run, "x", 0), queue.put_frame(run, b"y", [Delta("z")], 0)])
    assert [wait.done for wait in waits] == [False, False]
    release(queue, queue.drain(ALL).runs)
    assert [wait.done for wait in waits] == [True, True]


def test_tokens_are_dropped_when_the_wait_is_ignored() -> None:
    """When the reserve is used up, tokens are dropped and counted, and a gap has their numbers."""
    queue, run = full(100)
    on_loop(lambda: [queue.put(run, TEXT, 0) for _ in range(100)])
    drained = queue.drain(ALL).runs
    accepted = len(only(drained))
    assert 100 < accepted < 200
    assert queue.dropped == 200 - accepted
    release(queue, drained)
    queue.put(run, "after", 0)
    [part] = queue.drain(ALL).runs
    assert only([part]) == [(200, "after")]
    assert list(part.gaps) == [(accepted, 200 - accepted, "the queue was full")]


def test_drop_newest_never_waits() -> None:
    """The call drops the token on a loop and outside of one, and the queue does not exceed its limit."""
    queue, run = full(10, overflow="drop_newest", block_timeout=3600)
    assert queue.put(run, TEXT, 0) is None
    assert on_loop(lambda: queue.put(run, TEXT, 0)) is None
    drained = queue.drain(ALL).runs
    assert len(only(drained)) == 10
    release(queue, drained)
    queue.put_frame(run, None, [Delta("a"), Delta("b")], 0)
    [part] = queue.drain(ALL).runs
    assert (only([part]), list(part.gaps)) == ([(12, "a"), (13, "b")], [(10, 2, "the queue was full")])
    assert queue.dropped == 2


def test_waiting_ends_after_block_timeout() -> None:
    """The first token waits 0.01 s and is dropped; later ones do not wait again until there is room."""
    queue, run = full(10, block_timeout=0.01)
    assert [queue.put(run, TEXT, 0) for _ in range(1_000)] == [None] * 1_000
    assert queue.dropped == 1_000
    queue.end(run, run_end())
    [part] = queue.drain(ALL).runs
    assert list(part.gaps) == [(10, 1_000, "the queue was full")]


def test_the_end_of_a_run_closes_its_gap() -> None:
    """The end always has room, and comes with the gap before it."""
    queue, run = full(10, overflow="drop_newest")
    queue.put(run, TEXT, 0)
    queue.end(run, run_end())
    [part] = queue.drain(ALL).runs
    assert part.end is not None
    assert list(part.gaps) == [(10, 1, "the queue was full")]


def test_the_start_of_a_run_waits_for_room() -> None:
    """The queue is full, the request has a long message, and the run is stored."""
    queue, _ = full(100)
    history = [HumanMessage("x" * 50 * COST)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(started, queue, run_start(1, messages=history), 0)
        while not waiting.done():
            release(queue, queue.drain(ALL).runs)
        run = waiting.result()
    queue.put(run, "a", 0)
    assert (only(queue.drain(ALL).runs), queue.dropped) == ([(0, "a")], 0)


@pytest.mark.parametrize("where", ["on a loop", "off a loop", "drop_newest"])
def test_a_run_has_a_row_and_a_gap_when_it_begins_in_a_full_queue(where: str) -> None:
    """Its messages and first tokens are not stored, and a token that comes later is."""
    overflow: Any = "drop_newest" if where == "drop_newest" else "block"
    queue, _ = full(10, overflow=overflow, block_timeout=0)
    history = [HumanMessage("x" * 10**6)]

    def story() -> OpenRun:
        run = started(queue, run_start(1, messages=history, request="x" * 10**6), 0)
        for _ in range(3):
            assert queue.put(run, "a" * COST, 0) is None
        return run

    run = on_loop(story) if where == "on a loop" else story()
    first, second = drained = queue.drain(ALL).runs
    assert (second.run, second.tokens, second.gaps) == (run, (), ())
    assert (run.start.messages, run.start.request) == ((), None)
    release(queue, [first, second])
    queue.put(run, "b", 0)
    queue.end(run, run_end(replies=[AIMessage("aaab")]))
    [part] = drained = queue.drain(ALL).runs
    assert (only(drained), part.gaps) == ([(3, "b")], ((0, 3, FULL_AT_START),))
    assert part.end is not None
    assert part.end.replies == ()  # the message that it replies to is not stored
    release(queue, drained)
    assert (queue.dropped, queue.refused_runs, queue.lost_runs, queue.lost_messages) == (3, 1, 0, 2)
    assert queue.bytes == 0


def test_a_run_without_tokens_has_a_gap_when_its_messages_found_no_room() -> None:
    """The gap has a count of 0 and says that the messages are missing."""
    queue, _ = full(10, block_timeout=0)
    run = started(queue, run_start(1, messages=[HumanMessage("x" * 10**6)]), 0)
    queue.end(run, run_end())
    _, part = queue.drain(ALL).runs
    assert part.gaps == ((0, 0, FULL_AT_START),)


def test_runs_are_only_counted_when_the_reserve_for_rows_is_used_up() -> None:
    """The runs before them, which begin in the full queue too, have their rows."""
    queue, _ = full(10, overflow="drop_newest")
    runs = [started(queue, run_start(number), 0) for number in range(1, RESERVED_RUNS + 20)]
    assert 0 < queue.lost_runs < 20
    assert queue.refused_runs == queue.lost_runs + len(
        [run for run in runs if run.without_messages and not run.lost]
    )
    queue.put(runs[-1], "a", 0)
    queue.end(runs[-1], run_end())
    assert queue.dropped == 1
    stored = {part.run for part in queue.drain(ALL).runs}
    assert stored & set(runs) == {run for run in runs if not run.lost}


def test_replies_that_find_no_room_are_left_out_of_the_end() -> None:
    """The end itself is always accepted."""
    queue, run = full(10, overflow="drop_newest")
    queue.end(run, run_end(replies=[AIMessage("x" * 10**7)]))
    [part] = queue.drain(ALL).runs
    assert part.end is not None
    assert (part.end.replies, queue.lost_messages) == ((), 1)


# -- delayed frames ------------------------------------------------------------------------------------------


def delaying(tokens: int = 100) -> RecordingQueue:
    """A queue that delays frames by an hour."""
    return RecordingQueue(RUN_COST + tokens * COST, frames_interval=3600, block_timeout=3600)


def frames_of(drained: Sequence[DrainedRun]) -> list[bytes]:
    """All frames of these drained runs."""
    return [frame for part in drained for piece in part.frames for frame in piece.data]


def test_delayed_frames_stay_when_tokens_are_drained() -> None:
    """Tokens are drained at once; frames are drained with the end of the run or with a flush."""
    queue = delaying()
    run = opened(queue)
    for name in (b"one", b"two"):
        queue.put_frame(run, name, [Delta("x")], 0)
        drained = queue.drain(ALL).runs
        assert (len(only(drained)), frames_of(drained)) == (1, [])
        release(queue, drained)
    queue.request_full_drain()
    drained = queue.drain(ALL).runs
    assert (only(drained), frames_of(drained)) == ([], [b"one", b"two"])
    release(queue, drained)
    queue.put_frame(run, b"three", [Delta("x")], 0)
    release(queue, queue.drain(ALL).runs)
    queue.end(run, run_end())
    drained = queue.drain(ALL).runs
    assert frames_of(drained) == [b"three"]
    release(queue, drained)
    assert queue.bytes == 0


def test_delayed_frames_are_drained_when_they_are_due() -> None:
    """After that, no frames will be due."""
    queue = RecordingQueue(ALL, frames_interval=1e-6)
    run = opened(queue)
    queue.put_frame(run, b"old", [], -1_000_000)
    assert frames_of(queue.drain(ALL).runs) == [b"old"]
    assert queue.seconds_until_due() == float("inf")


def test_delayed_frames_are_drained_when_the_queue_is_full() -> None:
    """Delayed frames fill the queue, and a producer does not wait until they are due."""
    queue = delaying(100)
    bodies = [b"%d" % number * 100 for number in range(9)]
    for number, body in enumerate(bodies):
        run = opened(queue, number)
        queue.put_frame(run, body * 10, [], 0)
        release(queue, queue.drain(ALL).runs)
    wait = on_loop(lambda: queue.put(run, "x" * (80 * COST), 0))
    assert wait is not None
    drained = queue.drain(ALL).runs
    assert sorted(frames_of(drained)) == [body * 10 for body in bodies]
    release(queue, drained)
    assert wait.done


# -- close ---------------------------------------------------------------------------------------------------


def test_nothing_is_accepted_after_close() -> None:
    """Tokens are counted as dropped, new runs are refused, and no call raises."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    queue.put(run, "a", 0)
    queue.close()
    assert queue.put(run, "b", 0) is None
    assert queue.put_frame(run, b"", [Delta("c")], 0) is None
    assert queue.put(opened(queue, 1), "d", 0) is None
    assert (only(queue.drain(ALL).runs), queue.dropped) == ([(0, "a")], 3)


def test_tokens_of_an_unknown_run_are_counted_as_dropped() -> None:
    """The callback calls `count_dropped`."""
    queue = RecordingQueue(ALL)
    queue.count_dropped(3)
    assert queue.dropped == 3


def test_a_wait_for_room_ends_when_the_writer_ends() -> None:
    """The token is counted as dropped."""
    queue, run = full(10, block_timeout=3600)
    wait = on_loop(lambda: queue.put(run, "in the reserve", 0))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.put, run, "x" * 10**4, 0)
        queue.unbind_loop()
        assert waiting.result(10) is None
    assert wait.done
    assert queue.dropped == 1


# -- when the writer waits -----------------------------------------------------------------------------------


def writer(
    queue: RecordingQueue, story: Callable[[], Coroutine[Any, Any, None]], wake_bytes: int = ALL
) -> threading.Thread:
    """Run a coroutine on the loop of another thread, bound to the queue; return when it is bound."""
    bound: Wait[None] = Wait()

    async def expected() -> None:
        queue.bind_loop(wake_bytes)
        bound.set(None)
        await story()

    thread = threading.Thread(target=asyncio.run, args=(expected(),))
    thread.start()
    bound.wait(10)
    return thread


def test_the_writer_wakes_up_when_tokens_come() -> None:
    """Another thread puts a thousand tokens, and no wake-up is lost."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    drained: list[DrainedRun] = []

    async def story() -> None:
        while len(only(drained)) < 1_000:
            await queue.wait_for_work()
            drained.extend(queue.drain(ALL).runs)

    thread = writer(queue, story)
    for number in range(1_000):
        queue.put(run, str(number), 0)
    thread.join(10)
    assert [text for _, text in only(drained)] == [str(number) for number in range(1_000)]


@pytest.mark.parametrize("reason", ["flush", "close", "full", "much"])
def test_the_writer_can_be_woken_before_its_time(reason: str) -> None:
    """A flush, `close`, a full queue and a large batch each end a wait of an hour."""
    queue, run = full(100)
    drained = queue.drain(ALL).runs

    async def story() -> None:
        await queue.wait_until_urgent(3600)

    thread = writer(queue, story, wake_bytes=queue.bytes + 1)
    calls: dict[str, Callable[[], object]] = {
        "flush": queue.wake_writer,
        "close": queue.close,
        "full": lambda: on_loop(lambda: queue.put(run, "", 0)),
        "much": lambda: opened(queue, 1),
    }
    calls[reason]()
    thread.join(10)
    assert not thread.is_alive()
    release(queue, drained)


def test_reset_empties_the_queue_in_a_forked_child() -> None:
    """The queue is empty and open, and its lock is free although the parent held it."""
    queue, _ = full(10)
    queue._lock.acquire()
    queue.reset()
    assert (queue.bytes, queue.counts(), queue.closed) == (0, (0, 0, 0, None), False)
    assert queue.put(opened(queue), "a", 0) is None


# -- any order -----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from(["block", "drop_newest"]))
def test_every_number_is_drained_or_in_a_gap(seed: int, overflow: Any) -> None:
    """Random calls in any order, on a loop so that none waits, lose no number."""
    chance = random.Random(seed)
    queue = RecordingQueue(RUN_COST * 2 + COST * 20, overflow=overflow)
    offered: dict[str, int] = {}
    drained: list[DrainedRun] = []
    unsettled: list[DrainedRun] = []
    runs: list[OpenRun] = []

    def step() -> None:
        what = chance.choice(("start", "put", "put", "put", "put", "frame", "drain", "settle", "end"))
        if what == "start" and len(runs) < 4:
            runs.append(opened(queue, len(runs)))
        elif what in ("put", "frame") and runs:
            run = chance.choice(runs)
            texts = [TEXT] if what == "put" else [TEXT] * chance.randrange(4)
            if not (run.ended or run.lost):
                offered[run.start.run_id] = offered.get(run.start.run_id, 0) + len(texts)
            if what == "put":
                queue.put(run, TEXT, 0)
            else:
                queue.put_frame(run, b"frame", [Delta(text) for text in texts], 0)
        elif what == "drain":
            batch = queue.drain(chance.choice((1, 3_000, ALL)))
            drained.extend(batch.runs)
            unsettled.extend(batch.runs)
        elif what == "settle":
            release(queue, unsettled)
            unsettled.clear()
        elif what == "end" and runs:
            queue.end(chance.choice(runs), run_end())

    def steps() -> None:
        for _ in range(150):
            step()

    on_loop(steps)
    for run in runs:
        queue.end(run, run_end())
    unsettled += (rest := queue.drain(ALL).runs)
    drained += rest
    release(queue, unsettled)
    stored = tokens_of(drained)
    gaps: dict[str, list[int]] = {}
    for part in drained:
        for first, count, _ in part.gaps:
            gaps.setdefault(part.run.start.run_id, []).extend(range(first, first + count))
    for run_id, count in offered.items():
        numbers = [number for number, _ in stored.get(run_id, [])]
        assert sorted(numbers + gaps.get(run_id, [])) == list(range(count)), f"seed {seed}"
        assert numbers == sorted(numbers)
    assert queue.drained == sum(map(len, stored.values()))
    assert queue.bytes == 0, f"seed {seed}"
