"""Waiting is a value: one object that synchronous code waits on and asynchronous code awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Wait(Generic[T]):
    """Something that will be over: room in the queue, a flush, a close.

    Synchronous code calls `wait(timeout)`, asynchronous code awaits the object itself, on any event
    loop; many may wait for the same one. It carries a result, or the error to raise.
    """

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: Future[T] = Future()

    @property
    def done(self) -> bool:
        """Whether the wait is over, with a result or an error."""
        return self._future.done()

    def set(self, result: T) -> None:
        """End the wait with a result; a second end is ignored."""
        if not self._future.done():
            self._future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error that each waiter gets raised."""
        if not self._future.done():
            self._future.set_exception(error)

    def renew(self) -> None:
        """In a forked child: begin anew, for whoever would have ended it, and may hold its lock, is not here."""
        self._future = Future()

    def wait(self, timeout: float | None = None) -> T:
        """Block this thread until it is over, at most `timeout` seconds (then `TimeoutError`)."""
        return self._future.result(timeout)

    def __await__(self) -> Generator[None, None, T]:
        # Shielded: one waiter that is cancelled must not cancel the thing all others wait for.
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()
