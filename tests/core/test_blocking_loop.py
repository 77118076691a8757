"""A blocking loop runs coroutines for synchronous code, beside a running loop too."""

from __future__ import annotations

import asyncio
import threading

import pytest

from recorder.core.blocking_loop import BlockingLoop, is_loop_running


async def running() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """The loop and the thread that run this."""
    return asyncio.get_running_loop(), threading.current_thread()


async def fail() -> None:
    """Raises an error of its own."""
    raise KeyError("gone")


def test_coroutines_share_one_loop_on_the_callers_thread() -> None:
    """What one opens, such as a connection, the next one uses."""
    with BlockingLoop() as loop:
        first, second = loop.run(running()), loop.run(running())
    assert first == second
    assert first[1] is threading.current_thread()
    assert first[0].is_closed()


def test_beside_a_running_loop_they_run_on_another_thread() -> None:
    """As in a notebook: asyncio refuses a second loop on one thread."""

    async def story() -> None:
        with BlockingLoop() as loop:
            first, second = loop.run(running()), loop.run(running())
        assert first == second
        assert first[1] is not threading.current_thread()
        assert not first[1].is_alive()
        assert first[0].is_closed()

    asyncio.run(story())


def test_an_error_of_a_coroutine_is_raised() -> None:
    """The loop still serves the next one."""
    with BlockingLoop() as loop:
        with pytest.raises(KeyError, match="gone"):
            loop.run(fail())
        assert loop.run(running())


def test_the_current_loop_of_the_thread_stays() -> None:
    """An application that has set one keeps it."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    try:
        with BlockingLoop() as loop:
            loop.run(running())
        assert asyncio.get_event_loop_policy().get_event_loop() is own
    finally:
        asyncio.set_event_loop(None)
        own.close()


def test_it_knows_whether_a_loop_runs() -> None:
    """On this thread."""

    async def here() -> bool:
        return is_loop_running()

    assert not is_loop_running()
    assert asyncio.run(here())
