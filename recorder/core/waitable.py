"""`Wait`: one object that synchronous code waits on and asynchronous code awaits."""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from math import inf
from typing import Any, Generic, TypeVar

from recorder.core.clock import monotonic_us

T = TypeVar("T")

#: The longest time that a thread blocks until it looks again whether the wait is over (seconds).
_SLICE = 1.0


class _End(Generic[T]):
    """The end of a wait: its outcome, and who waits for it.

    Each step is one call of a container, so no lock is shared: an exception of a signal handler (Ctrl-C) at any place
    leaves nothing locked. A `concurrent.futures.Future` has a `Condition`, which such an exception can leave locked.
    """

    __slots__ = ("_outcome", "_waiting")

    def __init__(self) -> None:
        #: Empty, or "outcome" -> (result, error).
        self._outcome: dict[str, tuple[Any, BaseException | None]] = {}
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def has_come(self) -> bool:
        """Whether there is an outcome."""
        return bool(self._outcome)

    @property
    def error(self) -> BaseException | None:
        """The error of the outcome."""
        return self._outcome["outcome"][1]

    def result(self) -> T:
        """The result of the outcome; raises its error."""
        result, error = self._outcome["outcome"]
        if error is not None:
            raise error
        found: T = result
        return found

    def set(self, result: Any, error: BaseException | None) -> None:
        """Set the outcome, if there is none yet, and call those who wait."""
        self._outcome.setdefault("outcome", (result, error))
        self._call_waiting()

    def when_come(self, callback: Callable[[], object]) -> None:
        """Call this once there is an outcome, on the thread that sets it or here."""
        self._waiting.append(callback)
        if self.has_come:
            self._call_waiting()

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call this any more."""
        with suppress(ValueError, IndexError):  # it was called, or others were called just now
            self._waiting.remove(callback)

    def _call_waiting(self) -> None:
        with suppress(IndexError):
            while True:
                self._waiting.popleft()()


class Wait(Generic[T]):
    """The end of an operation: room in the queue, a flush, a close.

    Synchronous code calls `wait(timeout)`; asynchronous code awaits the object, on any event loop. Several waiters may
    share one `Wait`. It ends with a result, or with an error that every waiter raises.
    """

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end: _End[T] = _End()

    @property
    def done(self) -> bool:
        """Whether the wait is over, with a result or an error."""
        return self._end.has_come

    def set(self, result: T) -> None:
        """End the wait with a result, from any thread. Ignored if it has ended already."""
        self._end.set(result, None)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error, which every waiter raises. Ignored if it has ended already."""
        self._end.set(None, error)

    def renew(self) -> None:
        """Start again in a forked child. The thread that would end the wait is not there."""
        self._end = _End()

    def wait(self, timeout: float | None = None) -> T:
        """Block this thread until the end and return the result. Raises `TimeoutError` after `timeout` seconds."""
        end = self._end
        if not end.has_come:
            _block(end, timeout)
        return end.result()

    def __await__(self) -> Generator[None, None, T]:
        return _on_this_loop(self._end).__await__()


def _block(end: _End[Any], timeout: float | None) -> None:
    """Block this thread until the end. Raises `TimeoutError` after `timeout` seconds."""
    lock = allocate_lock()  # this thread's own, released by the end
    lock.acquire()
    end.when_come(lock.release)
    over_us = inf if timeout is None else monotonic_us() + timeout * 1e6
    while not end.has_come:
        left = (over_us - monotonic_us()) / 1e6
        if left <= 0:
            end.forget(lock.release)
            raise TimeoutError
        # In slices, because a signal handler may have interrupted the thread that sets the outcome.
        lock.acquire(timeout=min(left, _SLICE))


class Limited(Wait[T]):
    """A wait that ends at most `seconds` from now; at the limit it returns or raises what `late()` does.

    The waiter itself measures the limit, so it holds even if the thread that should end the wait hangs.
    """

    __slots__ = ("_late", "_limit_us")

    def __init__(self, wait: Wait[T], seconds: float, late: Callable[[], T]) -> None:
        self._end = wait._end
        self._late = late
        self._limit_us = monotonic_us() + seconds * 1e6

    def wait(self, timeout: float | None = None) -> T:
        """As `Wait.wait`, but not beyond the limit."""
        left = self._left()
        if timeout is not None and timeout < left:
            return super().wait(timeout)
        try:
            return super().wait(left)
        except TimeoutError:
            return super().wait(0) if self.done else self._late()

    def __await__(self) -> Generator[None, None, T]:
        return self._awaited().__await__()

    async def _awaited(self) -> T:
        found = _on_this_loop(self._end)
        try:
            await asyncio.wait({found}, timeout=self._left())
            return found.result() if found.done() else self._late()
        finally:
            found.cancel()

    def _left(self) -> float:
        return max(0.0, (self._limit_us - monotonic_us()) / 1e6)


def _on_this_loop(source: _End[T]) -> asyncio.Future[T]:
    """A future of the running loop that ends with the result or error of the source.

    Cancelling it does not cancel the source, which other waiters share. (`asyncio.shield` does the same, but then an
    error after the cancellation is logged as "exception was never retrieved".)
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def end() -> None:
        if found.done():
            return
        if (error := source.error) is not None:
            found.set_exception(error)
        else:
            found.set_result(source.result())

    def end_soon() -> None:
        with suppress(RuntimeError):  # the waiter's loop is closed
            loop.call_soon_threadsafe(end)

    if source.has_come:
        end()
    else:
        source.when_come(end_soon)
    return found


async def end_tasks(seconds: float) -> None:
    """Cancel the other tasks of the running loop and wait for them, at most `seconds`. For use before closing the loop.

    This may take several rounds: a driver whose call is cancelled starts a task that sends the cancellation to the
    server. If the loop were closed before that task has run, Python would warn that its coroutine was never awaited.
    """
    over_us = monotonic_us() + seconds * 1e6
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        left = (over_us - monotonic_us()) / 1e6
        if left <= 0:
            return
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=left)
