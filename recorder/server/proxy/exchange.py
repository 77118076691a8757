"""One call through the proxy: the request goes to the upstream, and the response to the client while it comes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import aiohttp
from starlette.types import Send
from yarl import URL

from recorder.core.clock import monotonic_us
from recorder.replay.http.response import RUN_HEADER
from recorder.server.problem import ProblemError
from recorder.server.proxy.call_recording import CallRecording, ProxiedRequest
from recorder.server.proxy.early_end import EarlyEnd
from recorder.server.proxy.forwarded_headers import response_headers
from recorder.server.proxy.request_body import ClientLeftError, RequestBody
from recorder.server.proxy.upstream_client import UpstreamClient

log = logging.getLogger("recorder")

#: A resumable call goes on for so long after its client has left (seconds).
DETACHED_FOR = 3_600.0
#: What sending a request raises, and reading a response.
_FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class ProxyExchange:
    """One request and its response. `run` returns when both are over; `cut` ends it before."""

    def __init__(
        self, client: UpstreamClient, upstream: str, request: ProxiedRequest, url: URL, body: RequestBody,
        recording: CallRecording | None, *, is_resumable: bool,
    ) -> None:  # fmt: skip
        self._client = client
        self._upstream = upstream
        self._request = request
        self._url = url
        self._body = body
        self._recording = recording
        is_resumable = is_resumable and recording is not None
        self._early_end = EarlyEnd(goes_on_for=DETACHED_FOR if is_resumable else 0.0)
        self._has_begun = False

    def cut(self) -> None:
        """The server shuts down: end it now."""
        self._early_end.shut_down()

    async def run(self, send: Send) -> None:
        """Pass everything on. Raises `ProblemError` if there is no response, and `ClientLeftError`."""
        async with self._early_end.when(self._body.left()):
            await self._pass_on(send)
        if (reason := self._early_end.ended) is not None:
            await self._end_early(reason)

    # -- inside -------------------------------------------------------------------------------------------------

    async def _end_early(self, reason: str) -> None:
        if self._recording is not None:
            await (self._recording.leave() if reason == "left" else self._recording.interrupt())
        if reason == "shutdown" and not self._has_begun:
            raise ProblemError(503, "The server shuts down; try again", {"retry-after": "1"})

    async def _pass_on(self, send: Send) -> None:
        try:
            response = await self._client.send(
                self._request.method, self._url, self._request.headers, self._data()
            )
        except _FAILURES as error:
            await self._refuse(error)
        self._request.content = b""
        self._body.let_go()
        try:
            await self._respond(response, send)
        finally:
            response.close()  # nothing is left of it, or its rest must not come any more

    def _data(self) -> bytes | AsyncIterator[bytes] | None:
        if self._body.has_ended.is_set():
            content = self._request.content
            return content if content or self._body.exists else None
        return self._body.pieces()

    async def _refuse(self, error: Exception) -> None:
        """There is no response. Raises the problem that the client gets."""
        if self._recording is not None:
            await self._recording.fail(error, is_reading=False)
        if self._body.problem is not None:
            raise self._body.problem
        if isinstance(error.__cause__, ClientLeftError):
            raise ClientLeftError
        is_late = isinstance(error, TimeoutError)
        log.warning("The upstream %s has not answered: %s", self._upstream, type(error).__name__)
        how = "has not answered in time" if is_late else "cannot be reached, or has sent no valid response"
        raise ProblemError(
            504 if is_late else 502,
            f"The upstream {self._upstream} {how} ({type(error).__name__})",
            self._run_header(),
        )

    def _run_header(self) -> dict[str, str]:
        return {RUN_HEADER: self._recording.run_id} if self._recording is not None else {}

    async def _respond(self, response: aiohttp.ClientResponse, send: Send) -> None:
        if not 200 <= response.status < 600:
            await self._refuse(ValueError(f"status {response.status}"))
        if self._recording is not None:
            about = {name: response.headers.get(name, "") for name in ("content-type", "content-encoding")}
            self._recording.receive(response.status, about)
        headers = response_headers(response.raw_headers, response.status)
        headers += [(name.encode(), value.encode()) for name, value in self._run_header().items()]
        self._has_begun = True
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        try:
            await self._send_body(response.content, send)
        except Exception as error:
            await self._break_off(error)

    async def _send_body(self, content: aiohttp.StreamReader, send: Send) -> None:
        read, recording = content.readany, self._recording
        while data := await read():
            moment_us = monotonic_us()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            if recording is not None:
                await recording.feed(data, moment_us)
        if recording is not None:
            await recording.end()  # before the client knows that it is the end, and sends its next call
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _break_off(self, error: Exception) -> None:
        """The upstream was cut. The client's connection ends without the end of the body, so it sees the same."""
        is_bug = not isinstance(error, _FAILURES)
        log.warning("The response of %s is cut: %s", self._upstream, type(error).__name__, exc_info=is_bug)
        if self._recording is not None:
            await self._recording.fail(error, is_reading=True)
