"""One thread runs an action at a time, and a thread that is inside already never waits for itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import pytest

from recorder.core.exclusive import Exclusive
from tests.interrupts import SIGNALS, ctrl_c, interrupted


def test_actions_of_many_threads_run_one_at_a_time() -> None:
    """Eight threads make a thousand calls, each of which reads a counter and writes it a moment later."""
    exclusive, total = Exclusive(), [0]

    def step() -> None:
        before = total[0]
        threading.Event().wait(0)
        total[0] = before + 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: exclusive.call(step), range(1_000)))
    assert total == [1_000]


def test_an_action_that_is_queued_inside_runs_when_the_thread_leaves() -> None:
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


def test_call_soon_does_not_wait_for_a_thread_that_is_inside() -> None:
    """The other thread runs the action when it leaves."""
    exclusive, seen = Exclusive(), list[str]()
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(exclusive.call, stay)
        entered.wait(10)
        exclusive.call_soon(partial(seen.append, "queued"))
        assert seen == []
        leave.set()
        staying.result(10)
    assert seen == ["queued"]


def test_a_queued_action_that_fails_is_tried_twice() -> None:
    """Its errors are collected and not raised; the actions after it run when it has failed twice."""
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


def test_ctrl_c_at_any_place_leaves_the_lock_free() -> None:
    """No thread counts as inside, and a queued action runs once or twice."""
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


def test_call_raises_the_error_of_its_action() -> None:
    """The lock is free afterwards."""
    exclusive = Exclusive()
    with pytest.raises(ZeroDivisionError):
        exclusive.call(lambda: 1 / 0)
    assert exclusive.call(lambda: 1) == 1
