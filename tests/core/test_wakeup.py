"""`LoopWaker` wakes one event loop from any thread, once for several calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from recorder.core.wakeup import LoopWaker


def after(waker: LoopWaker, *steps: Callable[[], object], timeout: float | None = 10) -> float:
    """Attach the waker to a new loop, run these steps there, and return how long the wait took (seconds)."""

    async def story() -> float:
        waker.attach()
        for step in steps:
            step()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await waker.wait(timeout)
        return loop.time() - began

    return asyncio.run(story())


def test_a_call_from_another_thread_wakes_the_loop() -> None:
    """Without a timeout, the wait lasts until the call."""
    waker = LoopWaker()
    after(waker, waker.prepare, threading.Thread(target=waker.wake).start, timeout=None)


def test_the_wait_times_out_without_a_call() -> None:
    """It ends after `timeout` seconds."""
    waker = LoopWaker()
    assert after(waker, waker.prepare, timeout=0.01) >= 0.01


def test_an_earlier_call_does_not_end_the_next_wait() -> None:
    """`prepare` begins a new wait."""
    waker = LoopWaker()

    async def story() -> float:
        waker.attach()
        waker.prepare()
        waker.wake()
        await waker.wait(10)
        waker.prepare()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await waker.wait(0.01)
        return loop.time() - began

    assert asyncio.run(story()) >= 0.01


def test_a_thousand_calls_wake_the_loop_once() -> None:
    """Only the first call schedules something on the loop."""
    waker, woken = LoopWaker(), []

    def count() -> None:
        loop: Any = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: woken.append(wake(*args))

    def wake_often() -> None:
        for _ in range(1_000):
            waker.wake()

    after(waker, waker.prepare, count, wake_often)
    assert len(woken) == 1


def test_current_says_which_changes_wake_the_loop() -> None:
    """Any change wakes it until the first call, or only an urgent one."""
    waker, seen = LoopWaker(), []
    for step in (
        LoopWaker.wake,
        LoopWaker.prepare,
        LoopWaker.wake,
        partial(LoopWaker.prepare, on_any_change=False),
    ):
        step(waker)
        seen.append(waker.current.on_any_change)
    assert seen == [False, True, False, False]


def test_a_detached_waker_wakes_nothing() -> None:
    """The call raises nothing, although its loop may be closed."""
    waker = LoopWaker()
    after(waker, waker.prepare, waker.wake)
    waker.detach()
    waker.prepare()
    waker.wake()
