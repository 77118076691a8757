"""Threads and event loops can wait for the same `Wait`."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from recorder.core.waitable import Limited, Wait, end_tasks
from tests.interrupts import SIGNALS, ctrl_c, interrupted


async def awaited(wait: Wait[int]) -> int:
    """Await the wait inside of a coroutine, and return its result."""
    return await wait


def test_synchronous_code_waits_for_the_result() -> None:
    """`wait` returns the value that another thread passes to `set`."""
    wait: Wait[int] = Wait()
    threading.Thread(target=wait.set, args=(7,)).start()
    assert wait.wait(10) == 7
    assert wait.done


def test_asynchronous_code_awaits_the_same_object() -> None:
    """A `set` on another thread wakes the event loop."""

    async def story() -> int:
        wait: Wait[int] = Wait()
        waiting = asyncio.ensure_future(awaited(wait))
        await asyncio.sleep(0)
        threading.Thread(target=wait.set, args=(7,)).start()
        return await waiting

    assert asyncio.run(story()) == 7


def test_threads_and_event_loops_all_get_the_result() -> None:
    """A call that comes after `set` gets it, too."""
    wait: Wait[int] = Wait()
    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(wait.wait, 10) for _ in range(3)]
        loops = [pool.submit(asyncio.run, awaited(wait)) for _ in range(3)]
        wait.set(7)
        assert [future.result() for future in threads + loops] == [7] * 6
    assert (wait.wait(), asyncio.run(awaited(wait)), asyncio.run(awaited(wait))) == (7, 7, 7)


def test_each_call_of_wait_raises_the_error() -> None:
    """Synchronous and asynchronous calls raise it, each time."""
    wait: Wait[int] = Wait()
    wait.fail(LookupError("gone"))
    assert wait.done
    for _ in range(2):
        with pytest.raises(LookupError, match="gone"):
            wait.wait()
        with pytest.raises(LookupError, match="gone"):
            asyncio.run(awaited(wait))


def test_only_the_first_result_or_error_counts() -> None:
    """A later `set` or `fail` changes nothing."""
    wait: Wait[int] = Wait()
    wait.set(1)
    wait.set(2)
    wait.fail(ValueError("late"))
    assert wait.wait() == 1
    failed: Wait[int] = Wait()
    failed.fail(ValueError("first"))
    failed.set(3)
    with pytest.raises(ValueError, match="first"):
        failed.wait()


def test_a_timeout_of_wait_does_not_end_the_wait() -> None:
    """The call raises TimeoutError, and a later call gets the result."""
    wait: Wait[int] = Wait()
    with pytest.raises(TimeoutError):
        wait.wait(0)
    assert not wait.done
    wait.set(7)
    assert wait.wait(0) == 7


def test_cancelling_one_waiting_task_does_not_cancel_another() -> None:
    """One of two tasks is cancelled, and the other gets the result."""

    async def story() -> int:
        wait: Wait[int] = Wait()
        cancelled, other = (asyncio.ensure_future(awaited(wait)) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not wait.done
        wait.set(7)
        return await other

    assert asyncio.run(story()) == 7


def test_set_raises_and_logs_nothing_when_the_loop_of_a_waiting_task_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The task gave up before."""
    wait: Wait[int] = Wait()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait, 0)

    asyncio.run(give_up())
    with caplog.at_level(logging.DEBUG):
        wait.set(7)
        gc.collect()
    assert caplog.messages == []
    assert wait.wait() == 7


@pytest.mark.parametrize("limited", [False, True])
def test_an_error_that_no_task_waits_for_any_more_is_not_logged(
    limited: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The waiting task was cancelled, and its loop goes on."""

    async def story() -> None:
        wait: Wait[int] = Wait()
        leaving = asyncio.ensure_future(awaited(Limited(wait, 60, late) if limited else wait))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        wait.fail(LookupError("late"))
        await asyncio.sleep(0)
        gc.collect()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(story())
        gc.collect()
    assert [line for line in caplog.messages if "never retrieved" in line] == []


def test_two_threads_can_end_one_wait_at_once() -> None:
    """The second of the two changes nothing and raises nothing, in ten thousand attempts."""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10_000):
            wait: Wait[int] = Wait()
            both = [pool.submit(wait.set, 1), pool.submit(wait.fail, LookupError("other"))]
            assert [future.result(10) for future in both] == [None, None]
            assert wait.done


def wait_shortly(wait: Wait[int]) -> None:
    """Wait for a moment."""
    with suppress(TimeoutError):
        wait.wait(0.001)


def test_ctrl_c_in_a_wait_leaves_nothing_locked() -> None:
    """Whatever place it interrupts, another thread can end the wait, and nothing else is raised."""
    for place in range(1, 400):
        wait: Wait[int] = Wait()
        try:
            reached = interrupted(partial(wait_shortly, wait), place, ctrl_c, SIGNALS)
        except KeyboardInterrupt:
            reached = True
        with ThreadPoolExecutor(1) as pool:
            pool.submit(wait.set, 1).result(10)
        assert wait.wait(0) == 1
        if not reached:
            break
    assert 10 < place < 399


def wait_until_a_signal(wait: Wait[int], seconds: float) -> None:
    """Wait again and again, until the handler of a timer's signal raises `KeyboardInterrupt`."""
    before = signal.signal(signal.SIGVTALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        while True:
            with suppress(TimeoutError):
                wait.wait(0)
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_a_signal_at_any_moment_of_a_wait_leaves_nothing_locked() -> None:
    """Also inside of Python's own code: a `Condition` that is interrupted can stay locked for ever."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(200):
        wait: Wait[int] = Wait()
        wait_until_a_signal(wait, chance.uniform(1e-5, 2e-4))
        ending = threading.Thread(target=wait.set, args=(1,), daemon=True)
        ending.start()
        ending.join(10)
        assert not ending.is_alive()
        assert wait.wait(0) == 1


def late() -> int:
    """The result after a limit has passed."""
    return -1


def too_late() -> int:
    """The error after a limit has passed."""
    raise LookupError("too late")


@pytest.mark.parametrize("how", [lambda wait: wait.wait(), lambda wait: asyncio.run(awaited(wait))])
def test_a_limit_ends_one_waiting_and_not_the_wait(how: Callable[[Wait[int]], int]) -> None:
    """The caller gets the result or the error of `late`, and the others wait on."""
    wait: Wait[int] = Wait()
    assert how(Limited(wait, 0.01, late)) == -1
    with pytest.raises(LookupError, match="too late"):
        how(Limited(wait, 0, too_late))
    assert not wait.done
    limited = Limited(wait, 3600, late)
    wait.set(7)
    assert limited.done
    assert (how(limited), how(Limited(wait, 0, too_late))) == (7, 7)


@pytest.mark.parametrize("how", [lambda wait: wait.wait(), lambda wait: asyncio.run(awaited(wait))])
def test_an_error_before_the_limit_is_raised(how: Callable[[Wait[int]], int]) -> None:
    """It may be a `TimeoutError`, which is not that of the limit."""
    wait: Wait[int] = Wait()
    wait.fail(TimeoutError("of the database"))
    with pytest.raises(TimeoutError, match="of the database"):
        how(Limited(wait, 3600, late))


def test_a_timeout_shorter_than_the_limit_raises_timeout_error() -> None:
    """The limit passes later."""
    with pytest.raises(TimeoutError):
        Limited(Wait[int](), 3600, late).wait(0)


def test_nothing_is_logged_when_a_wait_fails_after_its_limit(caplog: pytest.LogCaptureFixture) -> None:
    """The waiting task and its loop are gone when the wait fails."""
    wait: Wait[int] = Wait()

    async def story() -> None:
        assert await Limited(wait, 0.001, late) == -1
        waiting = asyncio.ensure_future(awaited(Limited(wait, 3600, late)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        wait.fail(LookupError("much later"))
        await asyncio.sleep(0)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(story())
        gc.collect()
    assert [line for line in caplog.messages if "selector" not in line] == []


def test_tasks_that_begin_during_a_cancellation_end_before_the_loop_is_closed() -> None:
    """asyncpg begins one to tell the server; Python would warn that it was never awaited."""
    ran: list[str] = []

    async def tell() -> None:
        try:
            ran.append("began")
        finally:
            ran.append("over")

    async def ask() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("cancelled")
            later.append(asyncio.ensure_future(tell()))

    async def story() -> None:
        asking = asyncio.ensure_future(ask())
        await asyncio.sleep(0)
        await end_tasks(10)
        assert asking.cancelled()
        assert [task.done() for task in later] == [True]

    later: list[asyncio.Task[None]] = []
    asyncio.run(story())
    assert ran[0] == "cancelled"


def test_end_tasks_leaves_a_task_that_does_not_end() -> None:
    """It waits for a limited time, whatever a driver does when it is cancelled."""

    async def stubborn() -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    async def story() -> None:
        task = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)
        await end_tasks(0.01)
        assert not task.done()
        over.set()
        await task

    over = asyncio.Event()
    asyncio.run(story())
