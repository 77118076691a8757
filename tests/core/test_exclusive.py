"""One thread is inside at a time; who is inside already is asked to wait for itself never."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import pytest

from recorder.core.exclusive import Exclusive
from tests.interrupts import SIGNALS, ctrl_c, interrupted


def test_actions_of_many_threads_run_one_at_a_time() -> None:
    """Eight threads count to a thousand each with a step that would lose counts otherwise."""
    exclusive, total = Exclusive(), [0]

    def step() -> None:
        before = total[0]
        threading.Event().wait(0)
        total[0] = before + 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: exclusive.call(step), range(1_000)))
    assert total == [1_000]


def test_an_action_asked_for_inside_runs_when_the_thread_leaves() -> None:
    """Queued actions run in the order of their calls, and `call` returns the result of `nested`."""
    exclusive, seen = Exclusive(), list[str]()

    def outer() -> str:
        inner = exclusive.call(lambda: "never", nested=lambda: "nested")
        exclusive.call_soon(partial(seen.append, "one"))
        exclusive.call_soon(partial(seen.append, "two"))
        seen.append(inner)
        exclusive.run_pending()  # does nothing here
        return "outer"

    assert exclusive.call(outer) == "outer"
    assert seen == ["nested", "one", "two"]


def test_what_is_asked_for_outside_runs_with_the_next_thread_inside() -> None:
    """Nobody waits for the lock to ask for it: here another thread holds it."""
    exclusive, seen = Exclusive(), list[str]()
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(exclusive.call, stay)
        entered.wait(10)
        exclusive.call_soon(partial(seen.append, "asked for"))
        assert seen == []
        leave.set()
        staying.result(10)
    assert seen == ["asked for"]


def test_an_action_that_fails_later_is_tried_twice() -> None:
    """Its errors are kept and raised at nobody; the actions after it wait for that, and run."""
    exclusive, seen = Exclusive(), list[str]()

    def fail() -> None:
        seen.append("fails")
        raise LookupError

    exclusive.call_soon(fail)
    exclusive.call_soon(partial(seen.append, "next"))
    assert exclusive.call(lambda: 7) == 7
    assert seen == ["fails"]
    exclusive.run_pending()
    assert seen == ["fails", "fails", "next"]
    assert [type(error) for error in exclusive.errors] == [LookupError, LookupError]


def test_ctrl_c_at_any_place_leaves_it_open() -> None:
    """The lock is free, nobody counts as inside, and what was asked for is done at least once."""
    for place in count():
        exclusive, seen = Exclusive(), list[str]()

        def story(exclusive: Exclusive = exclusive, seen: list[str] = seen) -> None:
            exclusive.call_soon(partial(seen.append, "soon"))
            exclusive.call(partial(seen.append, "now"))

        try:
            reached = interrupted(story, place, ctrl_c, SIGNALS)
        except KeyboardInterrupt:
            reached = True
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(exclusive.call, lambda: "free").result(10) == "free"
        assert seen.count("soon") <= 2
        if not reached:
            break
        assert "soon" in seen or place < 3
    assert place > 5
    assert sorted(seen) == ["now", "soon"]


def test_an_error_inside_is_raised_to_whoever_asked() -> None:
    """And the next one finds it open."""
    exclusive = Exclusive()
    with pytest.raises(ZeroDivisionError):
        exclusive.call(lambda: 1 / 0)
    assert exclusive.call(lambda: 1) == 1
