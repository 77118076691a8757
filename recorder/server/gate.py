"""Checks each request and WebSocket before anything else sees it, and limits bodies. It is ASGI middleware."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recorder.server.access import Access, Caller
from recorder.server.page_files import is_page
from recorder.server.problem import ProblemError, problem_of

#: Bytes of a body. Nothing that is served here needs one.
MAX_BODY = 64 * 1024
#: Where a request has its caller.
_CALLER = "recorder.caller"


class Gate:
    """Lets requests pass that `Access` allows."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            if is_page(scope):
                self._access.check_place(scope["headers"], scope.get("scheme", "http"))
            else:
                scope[_CALLER] = self._access.check(scope["headers"], scope.get("scheme", "http"))
            _check_length(scope)
        except ProblemError as error:
            await refuse(scope, receive, send, error)
            return
        await self._app(scope, _limited(receive) if scope["type"] == "http" else receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    """Answer a request, or a WebSocket that is not open yet, with a problem."""
    response = problem_of(error)
    if scope["type"] == "http":
        await response(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await receive()  # the request for a connection
        start = {"status": response.status_code, "headers": response.raw_headers}
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": response.body})
    else:
        await send({"type": "websocket.close", "code": 1008})


def caller_of(scope: Scope) -> Caller:
    """Who sent the request that `Gate` let pass."""
    found: Caller = scope[_CALLER]
    return found


def _check_length(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and (not value.isdigit() or int(value[:20]) > MAX_BODY):
            raise ProblemError(413, f"The body may have {MAX_BODY:,} bytes", {"connection": "close"})


def _limited(receive: Receive) -> Receive:
    """As `receive`; a body that grows too long counts as a client that left."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= MAX_BODY else {"type": "http.disconnect"}

    return limited
