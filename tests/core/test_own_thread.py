"""Blocking work of an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recorder.core.own_thread import AlwaysAccepting, on_own_thread


def test_the_work_does_not_wait_for_the_default_executor() -> None:
    """The executor's only thread is busy until the work is done."""
    done = threading.Event()

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = asyncio.create_task(asyncio.to_thread(done.wait, 20))
        await asyncio.sleep(0)
        await on_own_thread(done.set)
        assert await busy

    asyncio.run(story())


def test_the_work_is_done_after_the_executor_was_shut_down() -> None:
    """`asyncio.to_thread` would raise `RuntimeError`."""
    seen: list[str] = []

    async def story() -> None:
        await asyncio.get_running_loop().shutdown_default_executor()
        await on_own_thread(lambda: seen.append(threading.current_thread().name))

    asyncio.run(story())
    assert seen == ["recorder-work"]


def test_the_work_is_done_here_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is out of threads."""
    seen: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    asyncio.run(on_own_thread(lambda: seen.append(threading.current_thread())))
    assert seen == [threading.main_thread()]


def test_the_error_of_the_work_is_raised() -> None:
    """The caller gets it as if it had called the work itself."""

    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        asyncio.run(on_own_thread(fail))


def divide(number: int, *, by: int) -> float:
    """Return the quotient."""
    return number / by


def test_an_executor_that_was_shut_down_does_the_work_at_once() -> None:
    """The future has the result or the error."""
    executor = AlwaysAccepting(1)
    assert executor.submit(divide, 6, by=3).result(20) == 2
    executor.shutdown()
    assert executor.submit(divide, 6, by=3).result(0) == 2
    assert isinstance(executor.submit(divide, 6, by=0).exception(0), ZeroDivisionError)
