"""One HTTP/1.1 connection of the loopback provider: it reads requests and sends each frame when it is due."""

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
#: Frames that are due at the same moment are sent in writes of about this size (bytes).
_WRITE = 65536


@dataclass(slots=True)
class ReceivedRequest:
    """A request as it was received."""

    method: str
    path: str
    #: Names in lower case.
    headers: dict[str, str]
    body: bytes = b""
    #: Its entry in `LoopbackProvider.requests`.
    log_entry: dict[str, Any] = field(default_factory=dict)


class Connection:
    """Serves one client until the client closes the connection, or until an answer does (`cut_after`)."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[ReceivedRequest], Answer],
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
            pass  # The client closed the connection during a stream, as a `break` in the application does.
        finally:
            self._writer.transport.abort()

    async def _serve(self) -> None:
        try:
            while request := await self._next_request():
                await self._respond(request)
        except h11.RemoteProtocolError as error:
            await self._refuse(error)

    async def _next_request(self) -> ReceivedRequest | None:
        """The next request with its body; None when the client sends no more."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        if self._http.our_state is not h11.IDLE:
            return None
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        request = ReceivedRequest(head.method.decode(), head.target.decode(), headers)
        while isinstance(event := await self._next_event(), h11.Data):
            request.body += event.data
        return request

    async def _next_event(self) -> Any:
        """The next event of h11; reads from the socket until there is one."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(go_on) or b"")
            self._http.receive_data(await self._reader.read(_READ))
        return event

    async def _respond(self, request: ReceivedRequest) -> None:
        """Send the answer to one request, each frame when it is due."""
        arrived = asyncio.get_running_loop().time()
        answer = self._answer(request)
        await asyncio.sleep(answer.delay)
        self._writer.write(self._head(answer))
        if not answer.streamed:
            self._writer.write(self._http.send(h11.Data(data=answer.body)) or b"")
        elif not await self._stream(answer, arrived, request.log_entry):
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

    async def _stream(self, answer: Answer, arrived: float, log_entry: dict[str, Any]) -> bool:
        """Send the frames when they are due; returns whether the answer was sent to its end."""
        clock = asyncio.get_running_loop().time
        ready: list[bytes] = []
        size = 0
        for due, frame in islice(answer.timed_frames(), _last(answer)):
            wait = arrived + due - clock()
            if ready and (wait > 0 or size > _WRITE):
                await self._send(answer, ready, log_entry)
                ready, size = [], 0
            if wait > 0:
                await asyncio.sleep(wait)
            ready.append(frame)
            size += len(frame)
        await self._send(answer, ready, log_entry)
        return await self._is_complete(answer, log_entry["frames_sent"])

    async def _send(self, answer: Answer, frames: list[bytes], log_entry: dict[str, Any]) -> None:
        """Send frames that are due, and wait until the client has read enough of them."""
        # The chunk headers are written here and not by h11: h11 takes longer for a chunk than a fast client takes for
        # the event in it.
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in answer.pieces(frames)]
        self._writer.write(b"".join(chunks))
        log_entry["frames_sent"] += len(frames)
        await self._writer.drain()
        if self._reader.at_eof():
            raise ConnectionResetError("The client closed the connection.")

    async def _is_complete(self, answer: Answer, sent: int) -> bool:
        """Whether all frames were sent; an answer with `hang_after` waits here until the client disconnects."""
        if sent == answer.hang_after:
            await self._reader.read()
            return False
        return sent != answer.cut_after

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer input that is not HTTP with an error, unless a response was already started."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        answer = Answer.error(error.error_status_hint, str(error))
        self._writer.write(self._head(answer) + answer.body)
        await self._writer.drain()


def _last(answer: Answer) -> int | None:
    """The number of frames to send at most; None is no limit."""
    limits = [limit for limit in (answer.cut_after, answer.hang_after) if limit is not None]
    return min(limits, default=None)
