"""Waiting is a value: threads and event loops wait for the same one."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from recorder.core.waitable import Limited, Wait, end_tasks


async def awaited(wait: Wait[int]) -> int:
    """What awaiting it gives."""
    return await wait


def test_synchronous_code_waits_for_the_result() -> None:
    """`wait` gives what `set` was given, from whichever thread."""
    wait: Wait[int] = Wait()
    threading.Thread(target=wait.set, args=(7,)).start()
    assert wait.wait(10) == 7
    assert wait.done


def test_asynchronous_code_awaits_the_same_object() -> None:
    """A loop is woken by a `set` from another thread."""

    async def story() -> int:
        wait: Wait[int] = Wait()
        waiting = asyncio.ensure_future(awaited(wait))
        await asyncio.sleep(0)
        threading.Thread(target=wait.set, args=(7,)).start()
        return await waiting

    assert asyncio.run(story()) == 7


def test_many_wait_for_one() -> None:
    """Threads and several loops all get the result, those who come late too."""
    wait: Wait[int] = Wait()
    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(wait.wait, 10) for _ in range(3)]
        loops = [pool.submit(asyncio.run, awaited(wait)) for _ in range(3)]
        wait.set(7)
        assert [future.result() for future in threads + loops] == [7] * 6
    assert (wait.wait(), asyncio.run(awaited(wait)), asyncio.run(awaited(wait))) == (7, 7, 7)


def test_an_error_is_raised_to_each_waiter() -> None:
    """Synchronous and asynchronous, each time it is asked."""
    wait: Wait[int] = Wait()
    wait.fail(LookupError("gone"))
    assert wait.done
    for _ in range(2):
        with pytest.raises(LookupError, match="gone"):
            wait.wait()
        with pytest.raises(LookupError, match="gone"):
            asyncio.run(awaited(wait))


def test_only_the_first_end_counts() -> None:
    """A later result or error changes nothing."""
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


def test_a_time_limit_is_for_the_waiter_alone() -> None:
    """Who runs out of patience gets TimeoutError, and the wait goes on."""
    wait: Wait[int] = Wait()
    with pytest.raises(TimeoutError):
        wait.wait(0)
    assert not wait.done
    wait.set(7)
    assert wait.wait(0) == 7


def test_a_cancelled_waiter_takes_nobody_with_it() -> None:
    """One of two tasks is cancelled, the other gets the result."""

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


def test_the_end_may_come_after_the_waiters_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody gave up and the loop is closed: nothing is raised into, or logged at, who ends the wait."""
    wait: Wait[int] = Wait()

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait, 0)

    asyncio.run(impatient())
    with caplog.at_level(logging.DEBUG):
        wait.set(7)
        gc.collect()
    assert caplog.messages == []
    assert wait.wait() == 7


@pytest.mark.parametrize("limited", [False, True])
def test_an_error_after_the_waiter_left_is_not_logged(
    limited: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """On a loop that goes on: nobody waits for the error there any more."""

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


def test_two_threads_may_end_one_wait() -> None:
    """Whoever comes second changes nothing and raises nothing, a result or an error, ten thousand times."""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10_000):
            wait: Wait[int] = Wait()
            both = [pool.submit(wait.set, 1), pool.submit(wait.fail, LookupError("other"))]
            assert [future.result(10) for future in both] == [None, None]
            assert wait.done


def test_the_second_end_is_ignored_even_between_look_and_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other thread ends the wait right after this one saw that it was not over."""
    wait: Wait[int] = Wait()
    monkeypatch.setattr(wait._future, "done", lambda: False)
    wait.set(1)
    wait.set(2)
    wait.fail(LookupError("late"))
    assert wait.wait(0) == 1


def late() -> int:
    """What a waiter gets whose limit has passed."""
    return -1


def too_late() -> int:
    """The same, as an error."""
    raise LookupError("too late")


@pytest.mark.parametrize("how", [lambda wait: wait.wait(), lambda wait: asyncio.run(awaited(wait))])
def test_a_limit_ends_the_waiting_of_one(how: Callable[[Wait[int]], int]) -> None:
    """It gets what `late` says, a result or an error; the wait itself goes on for the others."""
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
def test_an_error_in_time_is_raised_as_it_is(how: Callable[[Wait[int]], int]) -> None:
    """A `TimeoutError` too, which is not that of the limit."""
    wait: Wait[int] = Wait()
    wait.fail(TimeoutError("of the database"))
    with pytest.raises(TimeoutError, match="of the database"):
        how(Limited(wait, 3600, late))


def test_less_patience_than_the_limit_is_the_waiters_own() -> None:
    """`wait(timeout)` raises `TimeoutError` as always; the limit comes later."""
    with pytest.raises(TimeoutError):
        Limited(Wait[int](), 3600, late).wait(0)


def test_a_limit_that_passed_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """The wait fails after the waiter and its loop are gone: nothing is logged."""
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


def test_tasks_that_a_cancel_begins_run_before_the_loop_is_closed() -> None:
    """As asyncpg begins one that tells the server; Python would warn that it was never awaited."""
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


def test_a_task_that_does_not_end_is_left_after_a_while() -> None:
    """The time to end is limited, whatever a driver does with a cancel."""

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
