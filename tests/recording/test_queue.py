"""The bounded queue: an accepted token has a number and is drained once; a dropped one is counted and leaves a gap."""

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
    """A run that has begun."""
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
    """The same, of the one run that there is."""
    return [pair for pairs in tokens_of(drained).values() for pair in pairs]


def release(queue: RecordingQueue, drained: Sequence[DrainedRun]) -> None:
    """All of this is settled."""
    queue.release(sum(part.bytes for part in drained))


def on_loop(call: Callable[[], Any]) -> Any:
    """Call it on a running event loop's thread."""

    async def story() -> Any:
        return call()

    return asyncio.run(story())


# -- room enough ---------------------------------------------------------------------------------------------


def test_tokens_are_numbered_as_they_come() -> None:
    """A token gets its number when it is accepted. Numbers continue after a drain."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    assert [queue.put(run, text, 1) for text in "abc"] == [None, None, None]
    assert only(queue.drain(ALL).runs) == [(0, "a"), (1, "b"), (2, "c")]
    queue.put(run, "d", 2)
    assert only(queue.drain(ALL).runs) == [(3, "d")]
    assert queue.drain(ALL).runs == []


def test_a_frame_brings_its_deltas() -> None:
    """Plain text is kept short, other kinds with their kind and index; a frame without deltas is kept too."""
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


def test_a_text_may_be_of_a_kind_of_str() -> None:
    """Libraries have their own; such a token is one token all the same."""

    class Text(str):
        pass

    queue = RecordingQueue(ALL)
    run = opened(queue)
    queue.put(run, Text("put"), 1)
    queue.put_frame(run, None, [Delta(Text("with frame"))], 2)
    [drained] = queue.drain(ALL).runs
    assert [item for piece in drained.tokens for item in piece.items()] == [(1, "put"), (2, "with frame")]


def test_runs_are_drained_in_queue_order() -> None:
    """Up to the size asked for, but at least one; the rest stays."""
    queue = RecordingQueue(ALL)
    runs = [opened(queue, number) for number in range(3)]
    for run in reversed(runs):
        queue.put(run, TEXT, 0)
    cost = RUN_COST + COST
    first = queue.drain(cost + 1).runs
    assert [part.run for part in first] == runs[:2]
    assert [part.run for part in queue.drain(1).runs] == runs[2:]


def test_queue_offsets_grow() -> None:
    """What is queued later has a larger offset, so that a flush knows what it waits for."""
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
    """Producers may put during a drain of many runs; what they put belongs to the next batch."""
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
    """A second end is ignored, a token after it counted."""
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


def test_bytes_come_back_to_zero() -> None:
    """Everything that is counted is released after a drain: runs, tokens, frames, replies, gaps."""
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


def test_messages_count_with_their_run() -> None:
    """A history of a million letters is a million bytes in the queue."""
    queue = RecordingQueue(ALL)
    started(queue, run_start(messages=[HumanMessage("x" * 10**6)]), 0)
    assert queue.bytes == RUN_COST + 10**6
    started(queue, run_start(1, messages=[HumanMessage([{"type": "image", "data": "x" * 10**6}])]), 0)
    assert queue.bytes >= 2 * (RUN_COST + 10**6)


def test_a_long_text_counts_what_it_takes_in_memory() -> None:
    """Four bytes for a letter beyond ASCII, so that the bound is one on memory."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    before = queue.bytes
    queue.put(run, "🎈" * 10_000, 0)
    assert queue.bytes - before >= 40_000


@pytest.mark.parametrize("shared", [False, True], ids=["a run each", "one run"])
def test_eight_threads_put_and_one_drains(shared: bool) -> None:
    """All is drained, each run's numbers are 0 to n - 1, and the tokens of a thread stay in order."""
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
    assert queue.counts() == (0, threads * each, 0, None)


# -- no room -------------------------------------------------------------------------------------------------


def full(tokens: int = 10, **options: Any) -> tuple[RecordingQueue, OpenRun]:
    """A queue with room for one run of so many tokens, and full of them."""
    queue = RecordingQueue(RUN_COST + tokens * COST, **options)
    run = opened(queue)
    for number in range(tokens):
        assert queue.put(run, TEXT, number) is None
    return queue, run


def test_off_a_loop_the_call_waits_for_room() -> None:
    """Nothing is lost: the call goes on as soon as something was settled."""
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


def test_a_large_token_waits_for_as_much_room() -> None:
    """Half of the queue is free, and the token takes nearly all of it: it waits, and is not lost."""
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
def test_a_token_larger_than_the_queue_has_room_in_an_empty_one(overflow: Any) -> None:
    """It would wait for ever otherwise; the application holds it in memory anyway."""
    queue, run = full(overflow=overflow)
    release(queue, queue.drain(ALL).runs)
    large = "x" * 10**6
    assert queue.put(run, large, 0) is None
    assert only(queue.drain(ALL).runs) == [(10, large)]
    assert queue.dropped == 0


def test_on_a_loop_the_call_returns_what_to_wait_for() -> None:
    """The token is accepted out of a reserve, and the wait is over when there is room again."""
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


def test_all_who_find_no_room_wait_for_the_same() -> None:
    """One release lets all of them go on."""
    queue, run = full(100)
    waits = on_loop(lambda: [queue.put(run, "x", 0), queue.put_frame(run, b"y", [Delta("z")], 0)])
    assert [wait.done for wait in waits] == [False, False]
    release(queue, queue.drain(ALL).runs)
    assert [wait.done for wait in waits] == [True, True]


def test_who_ignores_the_wait_gets_a_gap() -> None:
    """The reserve ends somewhere: then tokens are dropped, counted, and their numbers are missing."""
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


def test_the_newest_are_dropped_when_asked_for() -> None:
    """`drop_newest` never waits, on a loop or off it, and takes no more than the bound."""
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
    """After `block_timeout` the token becomes a gap, and those behind it do not wait again until there is room."""
    queue, run = full(10, block_timeout=0.01)
    assert [queue.put(run, TEXT, 0) for _ in range(1_000)] == [None] * 1_000
    assert queue.dropped == 1_000
    queue.end(run, run_end())
    [part] = queue.drain(ALL).runs
    assert list(part.gaps) == [(10, 1_000, "the queue was full")]


def test_a_gap_ends_with_the_run() -> None:
    """The end always finds room, and says what is missing before it."""
    queue, run = full(10, overflow="drop_newest")
    queue.put(run, TEXT, 0)
    queue.end(run, run_end())
    [part] = queue.drain(ALL).runs
    assert part.end is not None
    assert list(part.gaps) == [(10, 1, "the queue was full")]


def test_a_start_waits_for_room_as_a_token_does() -> None:
    """A run with a long history begins while the queue is full: it waits, and is recorded."""
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
def test_a_run_that_begins_in_a_full_queue_has_its_row_and_a_gap(where: str) -> None:
    """Its messages and its tokens found no room; what comes when there is room again is stored."""
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
    assert part.end.replies == ()  # it would stand below a question that is not stored
    release(queue, drained)
    assert (queue.dropped, queue.refused_runs, queue.lost_runs, queue.lost_messages) == (3, 1, 0, 2)
    assert queue.bytes == 0


def test_a_row_without_tokens_has_a_gap_too() -> None:
    """It says that the messages are missing, where no token is."""
    queue, _ = full(10, block_timeout=0)
    run = started(queue, run_start(1, messages=[HumanMessage("x" * 10**6)]), 0)
    queue.end(run, run_end())
    _, part = queue.drain(ALL).runs
    assert part.gaps == ((0, 0, FULL_AT_START),)


def test_the_reserve_for_rows_ends_somewhere() -> None:
    """So many runs that begin in a full queue have their row; those after them are only counted."""
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


def test_the_replies_of_an_end_find_room_or_are_left_out() -> None:
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
    """All frames that were drained."""
    return [frame for part in drained for piece in part.frames for frame in piece.data]


def test_delayed_frames_stay_when_tokens_are_drained() -> None:
    """Tokens are drained at once, frames together with the end or a flush."""
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


def test_frames_come_of_age() -> None:
    """The writer can ask when, and then finds them."""
    queue = RecordingQueue(ALL, frames_interval=1e-6)
    run = opened(queue)
    queue.put_frame(run, b"old", [], -1_000_000)
    assert frames_of(queue.drain(ALL).runs) == [b"old"]
    assert queue.seconds_until_due() == float("inf")


def test_delayed_frames_are_drained_when_the_queue_is_full() -> None:
    """They fill the queue: no producer waits until they are due."""
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


# -- the end of it -------------------------------------------------------------------------------------------


def test_after_close_nothing_is_taken() -> None:
    """Tokens are counted, new runs refused, and the application goes on."""
    queue = RecordingQueue(ALL)
    run = opened(queue)
    queue.put(run, "a", 0)
    queue.close()
    assert queue.put(run, "b", 0) is None
    assert queue.put_frame(run, b"", [Delta("c")], 0) is None
    assert queue.put(opened(queue, 1), "d", 0) is None
    assert (only(queue.drain(ALL).runs), queue.dropped) == ([(0, "a")], 3)


def test_tokens_of_no_run_are_counted() -> None:
    """The callback says how many."""
    queue = RecordingQueue(ALL)
    queue.count_dropped(3)
    assert queue.dropped == 3


def test_who_waits_for_room_goes_on_when_the_writer_ends() -> None:
    """Its token is counted as dropped."""
    queue, run = full(10, block_timeout=3600)
    wait = on_loop(lambda: queue.put(run, "in the reserve", 0))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.put, run, "x" * 10**4, 0)
        queue.unbind_loop()
        assert waiting.result(10) is None
    assert wait.done
    assert queue.dropped == 1


# -- the writer's sleep --------------------------------------------------------------------------------------


def writer(
    queue: RecordingQueue, story: Callable[[], Coroutine[Any, Any, None]], wake_bytes: int = ALL
) -> threading.Thread:
    """Run a story on a loop of another thread, bound to the queue; returns when it is bound."""
    bound: Wait[None] = Wait()

    async def expected() -> None:
        queue.bind_loop(wake_bytes)
        bound.set(None)
        await story()

    thread = threading.Thread(target=asyncio.run, args=(expected(),))
    thread.start()
    bound.wait(10)
    return thread


def test_work_returns_when_something_comes() -> None:
    """From another thread, a thousand times, and no wake-up is lost."""
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
    """A flush, `close`, a full queue and a large batch end a wait of an hour at once."""
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


def test_a_forked_child_begins_anew() -> None:
    """Empty, open, and with a lock that nobody holds."""
    queue, _ = full(10)
    queue._lock.acquire()
    queue.reset()
    assert (queue.bytes, queue.counts(), queue.closed) == (0, (0, 0, 0, None), False)
    assert queue.put(opened(queue), "a", 0) is None


# -- whatever order ------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from(["block", "drop_newest"]))
def test_every_number_is_stored_or_missing(seed: int, overflow: Any) -> None:
    """Puts, frames, takes, releases and ends in any order, on a loop so that nobody waits: EXACT."""
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
