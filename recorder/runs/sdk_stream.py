"""Reads the response of a provider's SDK as bytes, and reports the start and the end of a run to its handlers.

Errors while reading are raised as the SDK's exceptions.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from asyncio.events import _get_running_loop
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from ssl import SSLError
from types import TracebackType
from typing import Any, Protocol

from recorder.callbacks import Pending, settle, settle_now
from recorder.core.collection import collection
from recorder.runs.collected_streams import collector
from recorder.runs.open_response import Kept
from recorder.runs.open_streams import ended_at_exit
from recorder.runs.run import WireRun
from recorder.wire.reply import Reply

#: How long a stream waits, after the provider's terminator, for the end of the HTTP body (seconds). Without that end
#: HTTP/1.1 cannot use the connection again. The asynchronous SDKs wait as long.
DRAIN = 0.1


class Reported(Protocol):
    """A run whose start and end are reported to handlers: of a model, or of a chain."""

    #: Awaitables that handlers returned.
    pending: list[Pending] | None

    @property
    def error(self) -> Exception | None:
        """Why the run cannot go on after its start, or None."""

    def start(self) -> None:
        """Report the start."""

    def finish(self) -> None:
        """Report the end."""

    def fail(self, error: BaseException) -> None:
        """Report the error. Does nothing if the end was reported before."""


@contextmanager
def reporting(run: Reported) -> Iterator[None]:
    """Report the start of the run, and at the end its result or the exception that was raised inside.

    Raises the request's error if no request could be made.
    """
    collector.begin()
    try:
        run.start()
        settle_run(run)
        require_request(run)
        yield
        run.finish()
        settle_run(run)
    except BaseException as error:
        if collection.runs_here:
            collector.put(partial(_fail, run, error))
        else:
            _fail(run, error)
        raise


def _fail(run: Reported, error: BaseException) -> None:
    run.fail(error)
    settle_run(run)


class ReportingAsync:
    """`reporting` on an event loop: `async with ReportingAsync(run)`.

    It is no generator, because the event loop would close that in a task of its own. If the loop was closed before the
    stream was, nothing ever closes the stream; then the collector's thread reports the end.
    """

    _is_open = False

    def __init__(self, run: Reported) -> None:
        self._run = run
        self._loop = _get_running_loop()

    async def __aenter__(self) -> None:
        collector.begin()
        self._is_open = True
        ended_at_exit(self)
        try:
            self._run.start()
            await settle_run_async(self._run)
            require_request(self._run)
        except BaseException as error:
            await self._fail(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self._fail(error)
            return
        try:
            self._run.finish()
            await settle_run_async(self._run)
            self._is_open = False
        except BaseException as failure:
            await self._fail(failure)
            raise

    def end_at_exit(self) -> None:
        """Report that the stream was left, unless its loop runs on another thread."""
        if self._is_open and not (self._loop is not None and self._loop.is_running()):
            self._is_open = False
            _fail(self._run, GeneratorExit())

    def __del__(self) -> None:
        if self._is_open and self._loop is not None and self._loop.is_closed():
            collector.put(partial(_fail, self._run, GeneratorExit()))

    async def _fail(self, error: BaseException) -> None:
        self._is_open = False
        if collection.runs_here:  # a task was collected; nothing can be awaited here
            collector.put(partial(_fail, self._run, error))
            return
        self._run.fail(error)
        await settle_run_async(self._run)


def require_request(run: Reported) -> None:
    """Raise the request's error, if no request could be made."""
    if run.error is not None:
        raise run.error


def settle_run(run: Reported) -> None:
    """Wait for the awaitables that the handlers returned."""
    pending, run.pending = run.pending, None
    if pending:
        settle_now(pending)


async def settle_run_async(run: Reported) -> None:
    """`settle_run` on an event loop."""
    pending, run.pending = run.pending, None
    if pending:
        await settle(pending)


def read(response: Kept, reply: Reply, sdk: Any) -> Iterator[bytes]:
    """Yield the body as it arrives, until `reply` has read the terminator; then what arrives within `DRAIN`."""
    http, body = response.http, response.body
    with _raising_as(sdk, http.request):
        for data in body:
            yield data
            if reply.terminated:
                break
    if reply.terminated:
        yield from _drained(http, body)


async def read_async(response: Kept, reply: Reply, sdk: Any) -> AsyncGenerator[bytes, None]:
    """`read` on an event loop."""
    http, body = response.http, response.body
    with _raising_as(sdk, http.request):
        async for data in body:
            yield data
            if reply.terminated:
                break
    if reply.terminated:
        for data in await _drained_async(http, body):
            yield data


def _drained(http: Any, body: Iterator[bytes]) -> list[bytes]:
    found: list[bytes] = []
    if (sock := _socket(http)) is None:
        return found
    # A blocked read keeps the timeout it started with, so another thread has to end it.
    timer = threading.Timer(DRAIN, _shut_down, (http, sock))
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:
        return found  # the interpreter shuts down and starts no more threads
    try:
        for data in body:
            found.append(data)
    except Exception:
        pass  # the answer is complete; an error of the connection does not matter
    finally:
        timer.cancel()
        timer.join()
    return found


def _shut_down(http: Any, sock: socket.socket) -> None:
    # If the body was read to its end, its connection is back in the pool and may serve another request now.
    if not http.is_closed:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the server closed it first


def _socket(http: Any) -> socket.socket | None:
    """The socket of an HTTP/1.1 connection. None for HTTP/2, where several streams share one connection."""
    if http.http_version != "HTTP/1.1" or http.is_closed:
        return None
    stream = http.extensions.get("network_stream")
    return stream.get_extra_info("socket") if stream is not None else None


async def _drained_async(http: Any, body: AsyncIterator[bytes]) -> list[bytes]:
    found: list[bytes] = []
    if http.http_version != "HTTP/1.1":
        return found
    try:
        async with asyncio.timeout(DRAIN):
            async for data in body:
                found.append(data)
    except Exception:
        pass  # the answer is complete; an error of the connection does not matter
    return found


@contextmanager
def _raising_as(sdk: Any, request: Any) -> Iterator[None]:
    """Raise errors of the HTTP client as the SDK's exceptions, and others unchanged."""
    try:
        yield
    except Exception as error:
        libraries = ("httpx", "aiohttp")
        kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith(libraries)}
        # The SDK's aiohttp client reports a broken connection as a connect timeout. A read has no connect timeout.
        if "TimeoutException" in kinds and "ConnectTimeout" not in kinds:
            raise sdk.APITimeoutError(request=request) from error
        # The HTTP client does not translate errors of TLS, nor some errors of aiohttp.
        broken = {"RequestError", "ClientError"} & kinds or isinstance(error, SSLError)
        if broken or type(error).__name__ == "EndOfStream":
            raise sdk.APIConnectionError(request=request) from error
        raise


def read_complete(response: Any, run: WireRun[Any], sdk: Any) -> None:
    """Read a response that was not streamed. Raises the SDK's exception if its body is not an answer."""
    run.feed_complete(response.http_response.content, response.http_response)
    if not (run.reply.terminated or run.reply.goes_on):
        raise sdk.APIResponseValidationError(response.http_response, response.http_response.text)
