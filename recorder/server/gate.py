"""Checks each request and WebSocket before anything else sees it, and reads bodies. It is ASGI middleware."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recorder.server.access import Access
from recorder.server.caller import Caller
from recorder.server.problem import ProblemError, problem_of

#: Bytes of a body: of most requests, which need none, and of one with messages and images.
MAX_BODY, MAX_CHAT_BODY = 64 * 1024, 4 * 1024 * 1024
#: The body of such a request has no meaning, and is not waited for.
_WITHOUT_BODY = frozenset(("GET", "HEAD", "OPTIONS"))
#: A body must be complete within this time (seconds).
BODY_WITHIN = 20.0
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
            scope[_CALLER] = await self._access.caller(HTTPConnection(scope))
            if scope["type"] == "http" and (most := _most_bytes(scope)) > 0:
                has_use = scope["method"] not in _WITHOUT_BODY
                receive = await _with_body(receive, most) if has_use else _limited(receive, most)
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


def _most_bytes(scope: Scope) -> int:
    """How long the body may be; 0 if there is none. Raises `ProblemError` if it says that it is longer."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    most = MAX_CHAT_BODY if path == "/chat" else MAX_BODY
    headers = {name.lower(): value for name, value in scope["headers"]}
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length[:20]) > most:
        raise _too_long(most)
    return most if b"transfer-encoding" in headers or length.strip(b"0") else 0


def _limited(receive: Receive, most: int) -> Receive:
    """As `receive`; a body that grows too long, and that nobody reads, counts as a client that left."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= most else {"type": "http.disconnect"}

    return limited


async def _with_body(receive: Receive, most: int) -> Receive:
    """As `receive`, after the complete body has come. Raises `ProblemError` for one that is too long or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if len(body) > most:
                    raise _too_long(most)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise ProblemError(
            408, f"The body was not complete after {BODY_WITHIN:g} seconds", {"connection": "close"}
        ) from None
    return _again({"type": "http.request", "body": bytes(body), "more_body": False}, receive)


def _again(first: Message, receive: Receive) -> Receive:
    """As `receive`, with this message before the others."""
    messages = [first]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


def _too_long(most: int) -> ProblemError:
    return ProblemError(413, f"The body may have {most:,} bytes", {"connection": "close"})
