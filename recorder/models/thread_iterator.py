"""Code that blocks, beside an event loop: on a thread of its own, one step at a time."""

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


async def aside(pieces: Generator[PieceT, None, None]) -> AsyncGenerator[PieceT, None]:
    """What a generator yields, each piece made on a thread when it is asked for, in the caller's context.

    Who is cancelled while a piece is being made does not wait for it; the generator is closed when it is there.
    """
    thread = _Thread()
    making = False
    try:
        while True:
            making = True
            piece = await asyncio.wrap_future(thread.call(partial(next, pieces, _END)))
            making = False
            if piece is _END:
                return
            yield piece
    finally:
        closed = thread.call(pieces.close)
        thread.end()
        if making:
            closed.add_done_callback(_log_failure)
        else:
            await asyncio.wrap_future(closed)


class _Thread:
    """A daemon: an answer that never comes must not keep the process from ending."""

    def __init__(self) -> None:
        self._context = copy_context()
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="recorder-model", daemon=True).start()

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Do this after what was asked for before."""
        future: Future[Any] = Future()
        self._jobs.put((future, work))
        return future

    def end(self) -> None:
        """No more work after this."""
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
        log.warning("A model's stream that was left raised %r when it was closed", error, exc_info=error)
