"""Checks each request and WebSocket before anything else sees it, and reads bodies. It is ASGI middleware."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from recorder.server.access import Access
from recorder.server.caller import Caller
from recorder.server.page_files import is_page
from recorder.server.problem import ProblemError, problem_of
from recorder.server.request_bodies import RequestBodies

#: Where a request has its caller.
_CALLER = "recorder.caller"


class Gate:
    """Lets requests pass that `Access` allows."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._bodies = RequestBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            if is_page(scope):
                self._access.check_place(scope["headers"], scope.get("scheme", "http"))
            else:
                scope[_CALLER] = await self._access.caller(HTTPConnection(scope))
            if scope["type"] == "http":
                receive = await self._bodies.read(scope, receive)
        except ClientDisconnect:
            return
        except ProblemError as error:
            await refuse(scope, receive, send, error)
            return
        await self._app(scope, receive, send)


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


def known_caller(scope: Scope) -> Caller | None:
    """Who sent a request; None if `Gate` has refused it."""
    found: Caller | None = scope.get(_CALLER)
    return found
