"""A blocking loop runs coroutines for synchronous code, also beside a running event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from recorder.core.blocking_loop import BlockingLoop, is_loop_running


async def running() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """Return the loop and the thread that run this coroutine."""
    return asyncio.get_running_loop(), threading.current_thread()


async def fail() -> None:
    """Raise a KeyError."""
    raise KeyError("gone")


def test_coroutines_share_one_loop_on_the_callers_thread() -> None:
    """A connection that one coroutine opens can be used by the next one."""
    with BlockingLoop() as loop:
        first, second = loop.run(running()), loop.run(running())
    assert first == second
    assert first[1] is threading.current_thread()
    assert first[0].is_closed()


def test_coroutines_run_on_another_thread_beside_a_running_loop() -> None:
    """asyncio allows one running loop on each thread; a notebook has one already."""

    async def story() -> None:
        with BlockingLoop() as loop:
            first, second = loop.run(running()), loop.run(running())
        assert first == second
        assert first[1] is not threading.current_thread()
        assert not first[1].is_alive()
        assert first[0].is_closed()

    asyncio.run(story())


def test_an_error_of_a_coroutine_is_raised() -> None:
    """The loop runs the next coroutine as before."""
    with BlockingLoop() as loop:
        with pytest.raises(KeyError, match="gone"):
            loop.run(fail())
        assert loop.run(running())


def test_the_current_loop_of_the_thread_is_not_replaced() -> None:
    """The application set it before."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    try:
        with BlockingLoop() as loop:
            loop.run(running())
        assert asyncio.get_event_loop_policy().get_event_loop() is own
    finally:
        asyncio.set_event_loop(None)
        own.close()


def test_is_loop_running_looks_at_this_thread() -> None:
    """It is true inside of a coroutine and false outside."""

    async def here() -> bool:
        return is_loop_running()

    assert not is_loop_running()
    assert asyncio.run(here())
