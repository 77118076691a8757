"""One HTTP/1.1 connection of the loopback provider: requests in, answers out at their time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import islice
from typing import Any
from uuid import uuid4

import h11

from recorder.testing.answers import Answer

_READ = 65536
#: Bytes that are due at one moment go out in writes of about this size.
_WRITE = 65536


@dataclass(slots=True)
class Request:
    """A request as it came in."""

    method: str
    path: str
    #: Names in lower case.
    headers: dict[str, str]
    body: bytes = b""
    #: What the provider's user sees of it, see `LoopbackProvider.requests`.
    seen: dict[str, Any] = field(default_factory=dict)


class Connection:
    """Serves one client until it leaves, or an answer says to drop it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[Request], Answer],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._http = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        """Answer one request after another."""
        try:
            await self._serve()
            self._writer.close()
            await self._writer.wait_closed()
        except ConnectionError:
            pass  # The client left in the middle: streams that are dropped end like this.
        finally:
            self._writer.transport.abort()

    async def _serve(self) -> None:
        try:
            while request := await self._next_request():
                await self._respond(request)
        except h11.RemoteProtocolError as error:
            await self._refuse(error)

    async def _next_request(self) -> Request | None:
        """The next request with its body, or None when there will be no more."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        if self._http.our_state is not h11.IDLE:
            return None
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        request = Request(head.method.decode(), head.target.decode(), headers)
        while isinstance(event := await self._next_event(), h11.Data):
            request.body += event.data
        return request

    async def _next_event(self) -> Any:
        """What h11 makes of the bytes received so far and those still to come."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(go_on) or b"")
            self._http.receive_data(await self._reader.read(_READ))
        return event

    async def _respond(self, request: Request) -> None:
        """Send the answer to one request, each part at its time."""
        arrived = asyncio.get_running_loop().time()
        answer = self._answer(request)
        await asyncio.sleep(answer.delay)
        self._writer.write(self._head(answer))
        if not answer.streamed:
            self._writer.write(self._http.send(h11.Data(data=answer.body)) or b"")
        elif not await self._stream(answer, arrived, request.seen):
            return
        self._writer.write(self._http.send(h11.EndOfMessage()) or b"")
        await self._writer.drain()

    def _head(self, answer: Answer) -> bytes:
        """Status line and headers."""
        kind = "application/json" if answer.frames is None else "text/event-stream; charset=utf-8"
        headers = {
            "date": formatdate(usegmt=True),
            "content-type": kind,
            "x-request-id": f"req_{uuid4().hex}",
            **{name.lower(): value for name, value in answer.headers.items()},
        }
        if answer.streamed:
            headers["transfer-encoding"] = "chunked"
        else:
            headers["content-length"] = str(len(answer.body))
        return self._http.send(h11.Response(status_code=answer.status, headers=list(headers.items()))) or b""

    async def _stream(self, answer: Answer, arrived: float, seen: dict[str, Any]) -> bool:
        """Send the frames when they are due; whether the answer goes on to its end."""
        clock = asyncio.get_running_loop().time
        ready: list[bytes] = []
        size = 0
        for due, frame in islice(answer.timed_frames(), _last(answer)):
            wait = arrived + due - clock()
            if ready and (wait > 0 or size > _WRITE):
                await self._send(answer, ready, seen)
                ready, size = [], 0
            if wait > 0:
                await asyncio.sleep(wait)
            ready.append(frame)
            size += len(frame)
        await self._send(answer, ready, seen)
        return await self._ends(answer, seen["frames_sent"])

    async def _send(self, answer: Answer, frames: list[bytes], seen: dict[str, Any]) -> None:
        """Send frames that are due, and wait while the client reads slower than that."""
        # Chunks are framed by hand: h11 needs longer for one than a fast client for the event in it.
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in answer.pieces(frames)]
        self._writer.write(b"".join(chunks))
        seen["frames_sent"] += len(frames)
        await self._writer.drain()
        if self._reader.at_eof():
            raise ConnectionResetError("The client closed the connection.")

    async def _ends(self, answer: Answer, sent: int) -> bool:
        """Whether the answer is whole; one that hangs stays here until the client leaves."""
        if sent == answer.hang_after:
            await self._reader.read()
            return False
        return sent != answer.cut_after

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is no HTTP, if the answer has not begun."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        answer = Answer.error(error.error_status_hint, str(error))
        self._writer.write(self._head(answer) + answer.body)
        await self._writer.drain()


def _last(answer: Answer) -> int | None:
    """How many frames are sent at most."""
    limits = [limit for limit in (answer.cut_after, answer.hang_after) if limit is not None]
    return min(limits, default=None)
