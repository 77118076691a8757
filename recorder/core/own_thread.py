"""Runs blocking work of an event loop on a thread of its own.

`asyncio.to_thread` uses the loop's default executor. There the work waits behind the work of the application, and it
fails with `RuntimeError` after the executor was shut down.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

from recorder.core.waitable import Wait


async def on_own_thread(work: Callable[[], None]) -> None:
    """Call `work` on a new thread and wait for its end. If no thread can be started, call it here."""
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
