"""The response of a stream, which the garbage collector does not close.

Closing a response takes locks of the connection pool, and the garbage collector may run on a thread that holds them.
The generators of HTTP clients close their response when they are collected. So a response and its body are referenced
from here until they are closed: by the code that leaves the stream, or by the thread `recorder-collector` if the stream
was collected. Both belong to the HTTP client and do not refer to the stream, so the stream itself can be collected.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from types import TracebackType
from typing import Any

from recorder.core.after_fork import never_finalize
from recorder.core.collection import collection
from recorder.runs.collected_streams import collector
from recorder.runs.own_calls import own_call

log = logging.getLogger("recorder")


class Kept:
    """The HTTP response and the iterator over its body."""

    __slots__ = ("body", "http")

    def __init__(self, http: Any, body: Any) -> None:
        self.http = http
        self.body = body
        _kept.add(self)

    def close(self) -> None:
        """Close the response of a synchronous client."""
        try:
            self.http.close()
        finally:
            self.drop()

    def drop(self) -> None:
        """Reference it no more. May be called again."""
        _kept.discard(self)


#: Adding and removing take no lock.
_kept: set[Kept] = set()


class OpenResponse:
    """`with OpenResponse(create(...)) as response`: sends the request of the SDK, and closes the response."""

    def __init__(self, sdk_response: Any) -> None:
        self._sdk_response = sdk_response

    def __enter__(self) -> Kept:
        with own_call():
            http = self._sdk_response.__enter__().http_response
        self._kept = Kept(http, http.iter_bytes())
        return self._kept

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if collection.runs_here:
            collector.put(self._kept.close)
            return
        try:
            self._sdk_response.__exit__(kind, error, trace)
        finally:
            self._kept.drop()


class AsyncOpenResponse:
    """`OpenResponse` on an event loop, which closes the streams that were collected.

    A loop that is closed cannot do that. Then the connection ends with the last reference.
    """

    _kept: Kept | None = None

    def __init__(self, sdk_response: Any) -> None:
        self._sdk_response = sdk_response
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Kept:
        with own_call():
            http = (await self._sdk_response.__aenter__()).http_response
        self._kept = Kept(http, http.aiter_bytes())
        return self._kept

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if collection.runs_here:  # a task was collected; nothing can be awaited here
            collector.put(self._leave)
            return
        kept, self._kept = self._kept, None
        assert kept is not None
        try:
            await kept.body.aclose()
        finally:
            await self._close(kept, kind, error, trace)

    async def _close(self, kept: Kept, *raised: Any) -> None:
        try:
            await self._sdk_response.__aexit__(*raised)
        finally:
            kept.drop()

    def __del__(self) -> None:
        if self._kept is not None and self._loop.is_closed():
            collector.put(self._kept.drop)

    def _leave(self) -> None:
        """Let the loop close the response, unless it is closed itself."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        try:
            self._loop.call_soon_threadsafe(_close_on_loop, kept)
        except RuntimeError:
            kept.drop()


def _close_on_loop(kept: Kept) -> None:
    asyncio.ensure_future(kept.http.aclose()).add_done_callback(partial(_closed, kept))


def _closed(kept: Kept, closing: asyncio.Future[None]) -> None:
    kept.drop()
    if not closing.cancelled() and (error := closing.exception()) is not None:
        log.debug("The response of a collected stream could not be closed: %r", error)


def leave_open() -> None:
    """At exit: leave the responses that are still open to the end of the process.

    The HTTP client could no longer close them: half of its modules are gone by then.
    """
    never_finalize(*_kept.copy())


def _leave_to_parent() -> None:
    """In a forked child: the parent goes on reading."""
    leave_open()
    _kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
