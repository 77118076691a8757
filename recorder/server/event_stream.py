"""The responses that carry a stream: server-sent events and WebSocket messages.

A reader ends when its client leaves, when it does not read for long, and when the server shuts down. The run goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from recorder.errors import RecorderError
from recorder.server.access import SUBPROTOCOL
from recorder.server.follower import Follower
from recorder.server.piece import Piece
from recorder.server.problem import NO_SNIFFING
from recorder.server.protocols import sse, websocket

log = logging.getLogger("recorder")

#: The header with the id of the run.
RUN_HEADER = "x-recorder-run"
#: Close codes of WebSockets: the run has ended, the server restarts, the database failed.
_ENDED, _RESTART, _FAILED = 1000, 1012, 1011


class EventStream(Response):
    """A run as server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, follower: Follower) -> None:
        about = {RUN_HEADER: follower.run.id, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(None, 200, {**about, **NO_SNIFFING})
        del self.headers["content-length"]
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_piece(piece: Piece | None) -> None:
            body = sse.HEARTBEAT if piece is None else piece.encoded(sse.encode)
            await send({"type": "http.response.body", "body": body, "more_body": True})

        follower = self._follower
        async with _ended_when(_left_http(receive), follower):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": sse.OPENING, "more_body": True})
            try:
                await follower.run_to_its_end(send_piece)
            except RecorderError as error:
                log.warning("A reader of run %s is cut off: %s", follower.run.id, error)
        if follower.ended in (None, "shutdown"):  # without an event of the end the client comes back
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_messages(socket: WebSocket, follower: Follower) -> None:
    """Send a run as WebSocket messages, and close the WebSocket."""

    async def send_piece(piece: Piece | None) -> None:
        await socket.send_text(websocket.HEARTBEAT if piece is None else piece.encoded(websocket.encode))

    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
    code = _RESTART
    async with _ended_when(_left_websocket(socket.receive), follower):
        try:
            if await follower.run_to_its_end(send_piece):
                code = _ENDED
        except RecorderError as error:
            log.warning("A reader of run %s is cut off: %s", follower.run.id, error)
            code = _FAILED
        except WebSocketDisconnect:
            follower.end("left")
    if follower.ended in (None, "shutdown"):
        await socket.close(code)


@asynccontextmanager
async def _ended_when(left: asyncio.Task[None], follower: Follower) -> AsyncIterator[None]:
    """Inside, the follower ends as soon as this task does."""
    left.add_done_callback(lambda _: follower.end("left"))
    try:
        yield
    finally:
        left.cancel()


def _left_http(receive: Receive) -> asyncio.Task[None]:
    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return asyncio.create_task(wait())


def _left_websocket(receive: Receive) -> asyncio.Task[None]:
    async def wait() -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass  # what clients send has no meaning

    return asyncio.create_task(wait())
