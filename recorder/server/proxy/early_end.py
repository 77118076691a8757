"""Ends the work on a response early: when its client leaves, or when the server shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal

from starlette.types import Receive


class EarlyEnd:
    """One response. Used once, by the task that works on it."""

    def __init__(self, *, goes_on_for: float = 0.0) -> None:
        """The work may go on for so long after its client has left (seconds)."""
        self._goes_on_for = goes_on_for
        self._limit = asyncio.timeout(None)
        self._reason: Literal["left", "shutdown"] | None = None
        #: Why the work was ended early; None while it was not.
        self.ended: Literal["left", "shutdown"] | None = None

    def shut_down(self) -> None:
        """The server shuts down: end now."""
        self._end_within(0.0, "shutdown")

    def leave(self) -> None:
        """The client does not read: end as if it had left."""
        self._end_within(self._goes_on_for, "left")

    @asynccontextmanager
    async def when(self, left: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """The block is ended as soon as `left` returns, or `shut_down` is called; then `ended` says why."""
        watch = asyncio.create_task(left)
        watch.add_done_callback(self._on_left)
        try:
            async with self._limit:
                yield
        except TimeoutError:
            if not self._limit.expired():
                raise
            self.ended = self._reason
        finally:
            watch.cancel()

    def _on_left(self, watch: asyncio.Task[None]) -> None:
        if not watch.cancelled() and watch.exception() is None:
            self.leave()

    def _end_within(self, seconds: float, reason: Literal["left", "shutdown"]) -> None:
        if self._reason == "shutdown" or self._limit.expired():
            return
        self._reason = reason
        try:
            self._limit.reschedule(asyncio.get_running_loop().time() + seconds)
        except (
            RuntimeError,
            AssertionError,
        ):  # the block is over; before Python 3.12 the other one if it has not begun
            return


async def http_client_left(receive: Receive) -> None:
    """Return when the client has closed its connection, or has got all of the response."""
    while (await receive())["type"] != "http.disconnect":
        pass
