"""Reads the body of a request with limits: as one piece for a model call, or piece by piece for anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from starlette.types import Receive

from recorder.server.problem import ProblemError

#: Bytes of the body of a model call, of all of them that are held at one moment, and of any other body.
MAX_MODEL_CALL = 64 * 2**20
MAX_HELD = 512 * 2**20
MAX_UPLOAD = 2**30
#: A client may be silent for so long while it sends a body (seconds).
_SILENT_FOR = 30.0


class ClientLeftError(Exception):
    """The client closed its connection before its request was complete."""


class HeldBytes:
    """Counts the bytes of all bodies that one server holds."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self._limit = limit
        self.used = 0

    def add(self, size: int) -> None:
        """Hold more. Raises `ProblemError` with status 503."""
        if self.used + size > self._limit:
            raise ProblemError(503, "The server holds too many requests now; try again", {"retry-after": "1"})
        self.used += size

    def remove(self, size: int) -> None:
        """Hold less."""
        self.used -= size


class RequestBody:
    """The body of one request. It is read once."""

    def __init__(self, receive: Receive, headers: Iterable[tuple[bytes, bytes]], held: HeldBytes) -> None:
        self._receive = receive
        self._held = held
        named = {name: value for name, value in headers if name in (b"content-length", b"transfer-encoding")}
        length = named.get(b"content-length", b"")
        #: Its size as the client says (bytes); None for a chunked body.
        self.length = int(length[:20]) if length.isdigit() else None
        #: Whether there is one.
        self.exists = bool(self.length) or b"transfer-encoding" in named
        #: Why it could not be read.
        self.problem: ProblemError | None = None
        #: Set at its end. Until then nobody else may call `receive`.
        self.has_ended = asyncio.Event()
        self._holds = 0

    async def read_all(self) -> bytes:
        """The body in one piece. Raises `ProblemError` with status 408, 413 or 503, and `ClientLeftError`."""
        found = bytearray()
        async for piece in self.pieces(MAX_MODEL_CALL):
            self._held.add(len(piece))
            self._holds += len(piece)
            found += piece
        return bytes(found)

    def let_go(self) -> None:
        """What `read_all` returned is needed no more."""
        self._held.remove(self._holds)
        self._holds = 0

    async def pieces(self, limit: int = MAX_UPLOAD) -> AsyncIterator[bytes]:
        """The pieces of the body as they come. Raises as `read_all` does."""
        received = 0
        if (self.length or 0) > limit:
            raise self._refused(413, f"The body may have {limit:,} bytes")
        is_complete = False
        while not is_complete:
            piece, is_complete = await self._next()
            received += len(piece)
            if received > limit:
                raise self._refused(413, f"The body may have {limit:,} bytes")
            if is_complete:
                self.has_ended.set()
            if piece:
                yield piece

    async def left(self) -> None:
        """Wait until the client has closed its connection."""
        await self.has_ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(_SILENT_FOR):
                message = await self._receive()
        except TimeoutError:
            raise self._refused(408, f"Nothing of the body came for {_SILENT_FOR:g} seconds") from None
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        return message.get("body", b""), not message.get("more_body", False)

    def _refused(self, status: int, detail: str) -> ProblemError:
        self.problem = ProblemError(status, detail, {"connection": "close"})
        return self.problem
