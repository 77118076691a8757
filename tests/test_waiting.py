"""Waiting is a value: threads and event loops wait for the same one."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recorder.waiting import Wait


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
