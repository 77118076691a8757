"""Runs blocking work of an event loop on another thread, or at once where no thread can be started.

While the interpreter ends, executors accept no work, and Python 3.12 starts no thread.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from recorder.core.waitable import Wait

T = TypeVar("T")


async def on_own_thread(work: Callable[[], None]) -> None:
    """Call `work` on a new thread and wait for its end. If no thread can be started, call it here.

    `asyncio.to_thread` uses the loop's default executor. There the work waits behind the work of the application, and
    it fails with `RuntimeError` after the executor was shut down.
    """
    ended: Wait[None] = Wait()
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(_report, work, ended), name="recorder-work")
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        work()
    else:
        await ended


def _report(work: Callable[[], None], ended: Wait[None]) -> None:
    try:
        work()
    except BaseException as error:
        ended.fail(error)
    else:
        ended.set(None)


class AlwaysAccepting(ThreadPoolExecutor):
    """An executor that calls the work in `submit` where it cannot pass it to a thread."""

    def submit(self, work: Callable[..., T], /, *given: Any, **options: Any) -> Future[T]:
        """As `ThreadPoolExecutor.submit`, but raises nothing."""
        try:
            return super().submit(work, *given, **options)
        except (RuntimeError, MemoryError):
            future: Future[T] = Future()
            settle(future, lambda: work(*given, **options))
            return future


def settle(future: Any, work: Callable[[], Any]) -> None:
    """Call `work`, and give the future its result or its error."""
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
