"""uvicorn's HTTP protocol with the limits that it lacks: on headers, on their time, and on clients that do not read.

A client that sends half a request, or stops reading a response, would hold its connection for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from recorder.server.hub import STALLED_AFTER
from recorder.server.problem import problem

#: Bytes of the request line and the headers together, and the number of headers.
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
#: Bytes that are parsed at once.
_PART = 4096
#: A request must be complete, up to its body, within this time (seconds).
HEADERS_WITHIN = 10.0


class LimitedHttp(HttpToolsProtocol):
    """Answers 431 and 408, and drops clients that do not read."""

    #: Limits as attributes, so that a server can choose others.
    headers_within = HEADERS_WITHIN
    stalled_after = STALLED_AFTER

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._received = 0
        self._is_reading_headers = True
        self._is_refused = self._is_upgraded = False
        self._late: asyncio.TimerHandle | None = None
        self._stall = StallTimer(self.loop, self.stalled_after)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_wait()
        self._stall.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # In parts, so that headers are counted without what comes behind them.
        for start in range(0, len(data), _PART):
            if self._is_refused or self._is_upgraded:
                return
            self._receive(data[start : start + _PART] if len(data) > _PART else data)

    def _receive(self, part: bytes) -> None:
        if self._is_reading_headers:
            self._received += len(part)
            if self._received > MAX_HEADER_BYTES:
                self._refuse(431, f"The request line and its headers may have {MAX_HEADER_BYTES:,} bytes")
                return
            if self._late is None:  # a further request on this connection
                self._wait_for_headers()
        super().data_received(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS and not self._is_refused:
            self._refuse(431, f"A request may have {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        self._is_reading_headers = False
        self._cancel_wait()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._is_refused:
            return
        super().on_message_complete()
        self._is_reading_headers, self._received = True, 0

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.begin(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.end()

    def handle_websocket_upgrade(self) -> None:
        self._cancel_wait()
        self._is_upgraded = True
        if not self._is_refused:
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        if not self._is_refused:
            self._refuse(400, f"{msg[:200]} Send HTTP/1.1")

    def _wait_for_headers(self) -> None:
        self._late = self.loop.call_later(self.headers_within, self._refuse_late)

    def _cancel_wait(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse_late(self) -> None:
        self._late = None
        self._refuse(408, f"The headers were not complete after {self.headers_within:g} seconds")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer with a problem and close the connection; nothing more is read from it."""
        self._is_refused = True
        self._cancel_wait()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # else a response is being sent
            response = problem(status, detail, {"connection": "close"})
            lines = [
                b"HTTP/1.1 %d %s" % (status, b"Refused"),
                *(b"%s: %s" % each for each in response.raw_headers),
            ]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """Drops clients that do not read."""

    stalled_after = STALLED_AFTER

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._stall = StallTimer(self.loop, self.stalled_after)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.begin(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stall.end()
        super().connection_lost(exc)


class StallTimer:
    """Cuts a connection whose client has not read for some time, with all that is still to be sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """The buffer of the connection is full."""
        self.end()
        self._timer = self._loop.call_later(self._seconds, transport.abort)

    def end(self) -> None:
        """The client reads again, or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
