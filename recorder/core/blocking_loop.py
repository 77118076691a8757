"""Runs coroutines from synchronous code, also on a thread where an event loop runs already, as in a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class BlockingLoop:
    """One event loop that runs only while `run` blocks; what a coroutine opens, the next one can use.

    asyncio refuses a second loop on a thread where one runs. There the coroutines run on a thread of this object.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "recorder-blocking") if is_loop_running() else None
        # Without a factory the runner would replace the current event loop of the application's thread.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Block until the coroutine ends; return its result or raise its error."""
        return self._call(lambda: self._runner.run(coroutine))

    def close(self) -> None:
        """Cancel what is left on the loop, and close it."""
        with self._thread or nullcontext():
            self._call(self._runner.close)

    def _call(self, function: Callable[[], T]) -> T:
        return function() if self._thread is None else self._thread.submit(function).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_loop_running() -> bool:
    """Whether an event loop runs on this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
