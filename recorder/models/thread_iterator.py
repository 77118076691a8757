"""Iterates a blocking generator from an event loop: each step runs on a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

log = logging.getLogger("recorder")

PieceT = TypeVar("PieceT")
_END: Any = object()


async def iterate_on_thread(pieces: Generator[PieceT, None, None]) -> AsyncGenerator[PieceT, None]:
    """Yield what a generator yields. Each `next` runs on one thread of its own, in the caller's context.

    A cancelled caller does not wait for a running step. The generator is closed on the thread after that step.
    """
    thread = _Thread()
    running = False
    try:
        while True:
            running = True
            piece = await asyncio.wrap_future(thread.call(partial(next, pieces, _END)))
            running = False
            if piece is _END:
                return
            yield piece
    finally:
        closed = thread.call(pieces.close)
        thread.end()
        if running:
            closed.add_done_callback(_log_failure)
        else:
            await asyncio.wrap_future(closed)


class _Thread:
    """Runs functions in order on a daemon thread, so that a step that never returns does not block the exit."""

    def __init__(self) -> None:
        self._context = copy_context()
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="recorder-model", daemon=True).start()

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Run this after the earlier calls."""
        future: Future[Any] = Future()
        self._jobs.put((future, work))
        return future

    def end(self) -> None:
        """End the thread after the earlier calls."""
        self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = self._context.run(work)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)


def _log_failure(closed: Future[Any]) -> None:
    if not closed.cancelled() and (error := closed.exception()) is not None:
        log.warning(
            "A model's _stream that was not read to its end raised %r on close", error, exc_info=error
        )
