"""`Wait`: one object that synchronous code waits on and asynchronous code awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Generic, TypeVar

from recorder.core.clock import monotonic_us

T = TypeVar("T")


class Wait(Generic[T]):
    """The end of an operation: room in the queue, a flush, a close.

    Synchronous code calls `wait(timeout)`; asynchronous code awaits the object, on any event loop. Several waiters may
    share one `Wait`. It ends with a result, or with an error that every waiter raises.
    """

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: Future[T] = Future()

    @property
    def done(self) -> bool:
        """Whether the wait is over, with a result or an error."""
        return self._future.done()

    def set(self, result: T) -> None:
        """End the wait with a result, from any thread. Ignored if it has ended already."""
        try:
            self._future.set_result(result)
        except InvalidStateError:
            pass  # another thread ended it first

    def fail(self, error: BaseException) -> None:
        """End the wait with an error, which every waiter raises. Ignored if it has ended already."""
        try:
            self._future.set_exception(error)
        except InvalidStateError:
            pass  # another thread ended it first

    def renew(self) -> None:
        """Start again in a forked child. The thread that would end the wait, and may hold its lock, is not there."""
        self._future = Future()

    def wait(self, timeout: float | None = None) -> T:
        """Block this thread until the end and return the result. Raises `TimeoutError` after `timeout` seconds."""
        return self._future.result(timeout)

    def __await__(self) -> Generator[None, None, T]:
        return _on_this_loop(self._future).__await__()


class Limited(Wait[T]):
    """A wait that ends at most `seconds` from now; at the limit it returns or raises what `late()` does.

    The waiter itself measures the limit, so it holds even if the thread that should end the wait hangs.
    """

    __slots__ = ("_late", "_limit_us")

    def __init__(self, wait: Wait[T], seconds: float, late: Callable[[], T]) -> None:
        self._future = wait._future
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
        found = _on_this_loop(self._future)
        try:
            await asyncio.wait({found}, timeout=self._left())
            return found.result() if found.done() else self._late()
        finally:
            found.cancel()

    def _left(self) -> float:
        return max(0.0, (self._limit_us - monotonic_us()) / 1e6)


def _on_this_loop(source: Future[T]) -> asyncio.Future[T]:
    """A future of the running loop that ends with the result or error of the source.

    Cancelling it does not cancel the source, which other waiters share. (`asyncio.shield` does the same, but then an
    error after the cancellation is logged as "exception was never retrieved".)
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def end() -> None:
        if found.done():
            return
        if (error := source.exception()) is not None:
            found.set_exception(error)
        else:
            found.set_result(source.result())

    def end_soon(_source: Future[T]) -> None:
        with suppress(RuntimeError):  # the waiter's loop is closed
            loop.call_soon_threadsafe(end)

    if source.done():
        end()
    else:
        source.add_done_callback(end_soon)
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
