"""Reads the bodies of requests before their routes do: within a time, and limited in length, each and all together."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from recorder.server.problem import ProblemError

#: Bytes of a body: of most requests, which need none, and of one with messages and images.
MAX_BODY, MAX_CHAT_BODY = 64 * 1024, 4 * 1024 * 1024
#: Bytes of all bodies that are being received.
MAX_BODIES = 256 * 1024 * 1024
#: The body of such a request has no meaning, and is not waited for.
_WITHOUT_BODY = frozenset(("GET", "HEAD", "OPTIONS"))
#: A body must be complete within this time (seconds).
BODY_WITHIN = 20.0


class RequestBodies:
    """The bodies that are being received by one application."""

    def __init__(self) -> None:
        self._bytes = 0

    async def read(self, scope: Scope, receive: Receive) -> Receive:
        """As `receive`, after the complete body has come.

        Raises `ProblemError` for a body that is too long or too slow, and `ClientDisconnect`.
        """
        if (most := _most_bytes(scope)) == 0:
            return receive
        if scope["method"] in _WITHOUT_BODY:
            return _limited(receive, most)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_WITHIN):
                while not await self._extend(body, receive, most):
                    pass
        except TimeoutError:
            detail = f"The body was not complete after {BODY_WITHIN:g} seconds"
            raise ProblemError(408, detail, {"connection": "close"}) from None
        finally:
            self._bytes -= len(body)
        return _again({"type": "http.request", "body": bytes(body), "more_body": False}, receive)

    async def _extend(self, body: bytearray, receive: Receive, most: int) -> bool:
        """Receive the next part of a body. Returns whether it was the last one."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        body += part
        self._bytes += len(part)
        if len(body) > most:
            raise _too_long(most)
        if self._bytes > MAX_BODIES:
            headers = {"connection": "close", "retry-after": "1"}
            raise ProblemError(
                503, "Too many bodies are being received; send the request again later", headers
            )
        return not message.get("more_body", False)


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


def _again(first: Message, receive: Receive) -> Receive:
    """As `receive`, with this message before the others."""
    messages = [first]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


def _too_long(most: int) -> ProblemError:
    return ProblemError(413, f"The body may have {most:,} bytes", {"connection": "close"})
