"""The bell wakes one loop, from any thread, once for however many rings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from recorder.core.wakeup import Bell


def after(bell: Bell, *steps: Callable[[], object], timeout: float | None = 10) -> float:
    """Hang the bell on a new loop, take these steps there, and say how long it was until it rang (seconds)."""

    async def story() -> float:
        bell.hang()
        for step in steps:
            step()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await bell.rung(timeout)
        return loop.time() - began

    return asyncio.run(story())


def test_a_ring_from_another_thread_wakes_the_loop() -> None:
    """It waits for as long as it takes."""
    bell = Bell()
    after(bell, bell.listen, threading.Thread(target=bell.ring).start, timeout=None)


def test_without_a_ring_the_time_runs_out() -> None:
    """Waiting ends all the same."""
    bell = Bell()
    assert after(bell, bell.listen, timeout=0.01) >= 0.01


def test_what_rang_before_counts_no_more() -> None:
    """Each time it listens anew."""
    bell = Bell()

    async def story() -> float:
        bell.hang()
        bell.listen()
        bell.ring()
        await bell.rung(10)
        bell.listen()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await bell.rung(0.01)
        return loop.time() - began

    assert asyncio.run(story()) >= 0.01


def test_a_thousand_rings_wake_it_once() -> None:
    """Only the first one goes through the loop, which would have to work through them all."""
    bell, woken = Bell(), []

    def count() -> None:
        loop: Any = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: woken.append(wake(*args))

    def ring() -> None:
        for _ in range(1_000):
            bell.ring()

    after(bell, bell.listen, count, ring)
    assert len(woken) == 1


def test_it_says_what_the_loop_wants_to_be_woken_for() -> None:
    """For anything, until it rang; or only for what does not bear waiting."""
    bell, seen = Bell(), []
    for step in (Bell.ring, Bell.listen, Bell.ring, partial(Bell.listen, for_all=False)):
        step(bell)
        seen.append(bell.sleep.for_all)
    assert seen == [False, True, False, False]


def test_a_bell_that_was_taken_down_is_silent() -> None:
    """Its loop may be closed by now."""
    bell = Bell()
    after(bell, bell.listen, bell.ring)
    bell.take_down()
    bell.listen()
    bell.ring()
