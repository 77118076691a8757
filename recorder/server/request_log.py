"""Counts each request, and logs it in one line: the route's template, the status, the time, the user and the run.

A line has no path, no query, no header and no content: conversations are in paths, texts in queries, tokens in headers.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recorder.core.printable import printable
from recorder.server.event_stream import RUN_HEADER
from recorder.server.gate import known_caller
from recorder.server.request_counts import RequestCounts

#: One line for each request, at INFO.
log = logging.getLogger("recorder.requests")

#: The route of a request that was refused before its route was known, and of one that has none.
NO_ROUTE = "none"
#: The status of a WebSocket that is open, of one that was refused without an answer, and of a request whose client left
#: before there was one.
_OPEN, _REFUSED, _LEFT = 101, 403, 499


class RequestLog:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = ObservedAnswer(scope, send, self._counts)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            answer.status = answer.status or 500
            raise
        finally:
            answer.end()


class ObservedAnswer:
    """One request and what is answered."""

    def __init__(self, scope: Scope, send: Send, counts: RequestCounts) -> None:
        self._scope, self._send, self._counts = scope, send, counts
        self._began = time.monotonic()
        #: 0 before there is one.
        self.status = 0
        self._run: str | None = None

    async def send(self, message: Message) -> None:
        """As the server's `send`."""
        kind = message["type"]
        if kind in ("http.response.body", "websocket.http.response.body"):
            self._counts.sent_bytes += len(message.get("body", b""))
        elif kind == "websocket.send":
            self._counts.sent_bytes += len(message.get("text") or message.get("bytes") or b"")
        elif not self.status:
            self._begin(message)
        await self._send(message)

    def end(self) -> None:
        """The request is over: the answer is complete, or the client has left."""
        route, method = self._route(), self._scope.get("method", "WEBSOCKET")
        self.status = self.status or _LEFT
        self._counts.count(method, route, self.status)
        if not log.isEnabledFor(logging.INFO):
            return
        ms = round((time.monotonic() - self._began) * 1000, 1)
        fields = {"method": method, "route": route, "status": self.status, "ms": ms, "user": self._user()}
        fields["run"] = self._run
        log.info("%s", _line(fields), extra=fields)

    def _begin(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self.status = _OPEN
        elif message["type"] == "websocket.close":
            self.status = _REFUSED
        else:
            self.status = message["status"]
            for name, value in message.get("headers", ()):
                if name == RUN_HEADER.encode():
                    self._run = value.decode()
        self._counts.begins(self._route(), time.monotonic() - self._began)

    def _route(self) -> str:
        path: str | None = getattr(self._scope.get("route"), "path", None)
        return path or NO_ROUTE

    def _user(self) -> str | None:
        caller = known_caller(self._scope)
        return None if caller is None else caller.user_id


def _line(fields: dict[str, Any]) -> str:
    """The fields for people. A user's id cannot begin a line of its own."""
    shown = f"{fields['method']} {fields['route']} {fields['status']} {fields['ms']} ms"
    for name in ("user", "run"):
        if fields[name] is not None:
            shown += f" {name}={printable(fields[name])!r}"
    return shown
