"""The provider's response to a run once more, from any byte on: from the database, also while it still comes.

So a client that was cut gets the rest, from any server process and after any crash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from recorder.errors import NotFound, RecorderError
from recorder.replay.driver import StepQueries, asteps
from recorder.replay.http.failure import status_of
from recorder.replay.http.response import EVENTS, JSON, RUN_HEADER, connection_end
from recorder.replay.pace import Options
from recorder.replay.playback import EndStep, FramesStep, Step, frames
from recorder.server.caller import Caller
from recorder.server.conversations import run_for
from recorder.server.database import ServedDatabase
from recorder.server.gate import caller_of
from recorder.server.hub import Hub, Reason
from recorder.server.problem import NO_SNIFFING, ProblemError, documented
from recorder.server.proxy.early_end import EarlyEnd, http_client_left
from recorder.server.streams import begun_run
from recorder.storage.id_lookup import uuid_of
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.storage.rows import ERROR

log = logging.getLogger("recorder")

_NOT_KEPT = {"cache-control": "no-store", **NO_SNIFFING}
#: A run is stored within this time after its begin (seconds).
_STORED_WITHIN = 5.0
#: The largest offset (bytes).
_MOST = 2**53
Offset = Annotated[int, Query(ge=0, le=_MOST, description="The number of the first byte.")]
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes of the response, as the provider sent them.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    **documented(400, 401, 403, 404, 409, 413, 416, 422, 503),
}


def response_routes(database: ServedDatabase) -> APIRouter:
    """`GET /runs/{id}/response`."""
    router = APIRouter(tags=["streams"])

    @router.get("/runs/{id}/response", responses=_RESPONSES, response_class=Response)
    async def response(request: Request, id: str, offset: Offset = 0) -> Response:
        """The provider's response from a byte on: what is stored at once, the rest as it is stored."""
        return await run_response(database, id, caller_of(request.scope), offset, status=200)

    return router


async def run_response(
    database: ServedDatabase, run_id: str, caller: Caller, offset: int = 0, *, status: int | None = None
) -> Response:
    """The response of a run from a byte on, with the provider's status unless another one is given.

    Raises `NotFound`. It raises `ProblemError` when it is sent: for an offset behind the end, and for a run without
    recorded bytes.
    """
    run = await _stored_run(database, run_id, caller)
    return _RunResponse(_StoredBody(database.hub(), run), offset, status)


async def _stored_run(database: ServedDatabase, run_id: str, caller: Caller) -> RecordedRun:
    """The run; one that has begun a moment ago may not be stored yet."""
    try:
        found: RecordedRun = await database.ask(run_for, run_id, caller)
    except NotFound:
        if not _is_new(run_id):
            raise
        return await begun_run(database, run_id, caller, _STORED_WITHIN)
    return found


def _is_new(run_id: str) -> bool:
    """Whether an id was made a moment ago: recorder's ids of runs (UUID, version 7) begin with their time."""
    wanted = uuid_of(run_id)
    return (
        wanted is not None and abs(time.time() - int(wanted.replace("-", "")[:12], 16) / 1e3) < _STORED_WITHIN
    )


@dataclass(slots=True)
class _StoredBody:
    """Reads the stored bytes of a run, and follows it to its end."""

    hub: Hub
    #: As it was read last.
    run: RecordedRun
    #: How many bytes came so far.
    length: int = 0
    is_json: bool = False
    #: Whether the provider's connection was cut at the end, or bytes at the end are missing.
    end_is_cut: bool = True

    async def pieces(self, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset` on; b"" for events before it. What is no stream of events comes at the run's end."""
        complete = []
        async with aclosing(self._steps()) as steps:
            async for step in steps:
                if isinstance(step, FramesStep):
                    data = b"".join(frame for _, frame in step.items)
                    self.is_json = self.is_json or (not self.length and data.lstrip()[:1] in (b"{", b"["))
                    rest = data[max(0, offset - self.length) :]
                    self.length += len(data)
                    if self.is_json:
                        complete.append(rest)
                    else:
                        yield rest
                elif isinstance(step, EndStep):
                    await self._end(step)
        if any(complete):
            yield b"".join(complete)

    def _steps(self) -> AsyncGenerator[Step, None]:
        options = Options(speed=None, follow=True)
        playback = frames(self.run, options)
        return asteps(StepQueries(self.hub.reader, playback, options, owner=self), playback)

    async def _end(self, step: EndStep) -> None:
        self.run = step.run
        gaps = await asyncio.wrap_future(self.hub.pages.ask(DatabaseReader.gaps, step.run.id))
        self.end_is_cut = bool(gaps) or any(connection_end(step.run, bool(self.length))) or not self.length


class _RunResponse(Response):
    """Sends the bytes. It is a reader of the hub, which ends it when the server shuts down or its client stalls."""

    def __init__(self, body: _StoredBody, offset: int, status: int | None) -> None:
        super().__init__()
        self.run = body.run
        self._body = body
        self._offset = offset
        self._given_status = status
        self._pieces = body.pieces(offset)
        self._has_begun = False
        self._early_end = EarlyEnd()
        #: As in `HubReader`.
        self.sending_since: float | None = None
        self.sent_at = time.monotonic()

    def wake(self) -> None:
        """There are no heartbeats in the bytes of a provider."""

    def end(self, reason: Reason) -> None:
        """End it now. Without the end of the body the client knows that there is more."""
        self._early_end.shut_down()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._early_end.when(http_client_left(receive)):
                self._body.hub.add(self)
                await self._send_all(send)
        except RecorderError as error:
            if not self._has_begun:
                raise
            log.warning("A reader of the response to run %s is cut off: %s", self.run.id, error)
        finally:
            self._body.hub.remove(self)
            await self._pieces.aclose()
        if self._early_end.ended == "shutdown" and not self._has_begun:
            raise ProblemError(503, "The server shuts down; try again", {"retry-after": "1"})

    # -- inside -------------------------------------------------------------------------------------------------

    async def _send_all(self, send: Send) -> None:
        first = await self._first_piece()
        headers = {
            RUN_HEADER: self.run.id,
            "content-type": JSON if self._body.is_json else EVENTS,
            **_NOT_KEPT,
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._has_begun = True
        await send({"type": "http.response.start", "status": self._status(), "headers": raw})
        await self._send(send, first)
        async for data in self._pieces:
            await self._send(send, data)
        if not self._body.end_is_cut:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _first_piece(self) -> bytes:
        """The first bytes; b"" if the next ones are still to come."""
        body = self._body
        first = await anext(self._pieces, None)
        while first == b"" and not self.run.is_open:
            first = await anext(self._pieces, None)
        if first is None and not body.length and body.end_is_cut:
            raise ProblemError(
                409, f"No bytes of a response to run {self.run.id} are stored; it is {body.run.status}"
            )
        if first is None and body.length < self._offset:
            raise ProblemError(416, f"The response has {body.length} bytes, and the offset is {self._offset}")
        return first or b""

    def _status(self) -> int:
        run = self._body.run
        refused = status_of(run) if run.status == ERROR and not run.token_count else None
        return self._given_status or refused or 200

    async def _send(self, send: Send, data: bytes) -> None:
        if not data:
            return
        self.sending_since = time.monotonic()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self.sending_since, self.sent_at = None, time.monotonic()
