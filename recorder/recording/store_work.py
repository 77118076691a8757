"""Other work on the store: it runs on the writer's connection between two batches.

A process has one connection that writes, since two can corrupt a SQLite file of some versions (sqlite.org/wal.html). So
what is written beside the recording waits for the writer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from recorder.core.waitable import Wait
from recorder.errors import Closed

#: Gets the store, which is a `SqlStore` unless the application has passed another one.
Work = Callable[[Any], Awaitable[Any]]


class _WaitingWork(NamedTuple):
    """Work, and the wait for its result."""

    work: Work
    wait: Wait[Any]


class StoreWork:
    """The work that waits. `add` may be called on any thread, the other methods on the writer's."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` wakes the writer."""
        self._wake = wake
        self._waiting: deque[_WaitingWork] = deque()
        self._has_ended = False

    def add(self, work: Work) -> Wait[Any]:
        """A wait for the result of this work, or for its error. The caller limits it: the database may be away."""
        wait: Wait[Any] = Wait()
        self._waiting.append(_WaitingWork(work, wait))
        self._wake()
        if self._has_ended:  # the writer may have ended before it saw this
            self.end()
        return wait

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def run(self, store: Any) -> None:
        """Do what waits. What it raises is raised by the waits only."""
        store = getattr(store, "loaded", store)  # of a `DeferredStore` the one that has the database
        for _ in range(len(self._waiting)):
            work, wait = self._waiting.popleft()
            try:
                wait.set(await work(store))
            except Exception as error:
                wait.fail(error)
            finally:
                wait.fail(_closed())  # for work that was cancelled; ignored after an outcome

    def end(self) -> None:
        """Nothing is done any more: every wait raises `Closed`."""
        self._has_ended = True
        with suppress(IndexError):
            while True:
                self._waiting.popleft().wait.fail(_closed())


def _closed() -> Closed:
    return Closed("The recorder was closed before this was written; open a new one")
