"""One request and its response over a provider's SDK: the run told to its callbacks, the bytes as they come.

An error while reading is raised as the SDK would raise it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from ssl import SSLError
from typing import Any

from recorder.callbacks import settle, settle_now
from recorder.models.collector import collector
from recorder.models.run import Run, WireRun
from recorder.wire.reply import Reply

#: How long the end of a stream waits for the end of its body, which comes after the terminator and without
#: which HTTP/1.1 cannot use the connection again (seconds; what the asynchronous SDKs wait).
DRAIN = 0.1


@contextmanager
def told(call: Run[Any]) -> Iterator[None]:
    """Tell the handlers that the run begins, and how it ends: well, or with what is raised inside.

    Raises at once where there is no request that could be sent.
    """
    collector.begin()
    try:
        call.start()
        settle_call(call)
        require_request(call)
        yield
        call.finish()
        settle_call(call)
    except BaseException as error:
        if isinstance(error, GeneratorExit) and collector.runs_here:
            collector.put(partial(_fail, call, error))
        else:
            _fail(call, error)
        raise


def _fail(call: Run[Any], error: BaseException) -> None:
    call.fail(error)
    settle_call(call)


@asynccontextmanager
async def told_async(call: Run[Any]) -> AsyncIterator[None]:
    """`told` on an event loop."""
    try:
        call.start()
        await settle_async(call)
        require_request(call)
        yield
        call.finish()
        await settle_async(call)
    except BaseException as error:
        call.fail(error)
        await settle_async(call)
        raise


def require_request(call: Run[Any]) -> None:
    """Raise why there is no request, where there is none."""
    if call.request.error is not None:
        raise call.request.error


def settle_call(call: Run[Any]) -> None:
    """Wait for what its handlers gave back."""
    pending, call.pending = call.pending, None
    if pending:
        settle_now(pending)


async def settle_async(call: Run[Any]) -> None:
    """`settle_call` on an event loop."""
    pending, call.pending = call.pending, None
    if pending:
        await settle(pending)


def read(response: Any, reply: Reply, sdk: Any) -> Iterator[bytes]:
    """The body as it comes, up to the terminator that `reply` has met in it, and what follows soon."""
    http = response.http_response
    body = http.iter_bytes()
    with _raising_as(sdk, http.request):
        for data in body:
            yield data
            if reply.terminated:
                break
    if reply.terminated:
        yield from _drained(http, body)


async def read_async(response: Any, reply: Reply, sdk: Any) -> AsyncGenerator[bytes, None]:
    """`read` on an event loop."""
    http = response.http_response
    async with aclosing(http.aiter_bytes()) as body:
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
    # A blocked read has the timeout that it began with; another thread has to end it.
    late = threading.Timer(DRAIN, _hang_up, (http, sock))
    late.daemon = True
    try:
        late.start()
    except RuntimeError:
        return found  # the interpreter shuts down and starts no more threads
    try:
        for data in body:
            found.append(data)
    except Exception:
        pass  # the answer is whole, whatever happens to its connection
    finally:
        late.cancel()
        late.join()
    return found


def _hang_up(http: Any, sock: socket.socket) -> None:
    # A body that was read to its end has given the connection back: it may serve another request by now.
    if not http.is_closed:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was faster


def _socket(http: Any) -> socket.socket | None:
    """The connection's own socket; other streams go on, over HTTP/2, where one ends."""
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
        pass  # the answer is whole, whatever happens to its connection
    return found


@contextmanager
def _raising_as(sdk: Any, request: Any) -> Iterator[None]:
    """Errors of the HTTP client as the SDK raises them; others as they are."""
    try:
        yield
    except Exception as error:
        libraries = ("httpx", "aiohttp")
        kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith(libraries)}
        # The SDK's aiohttp client calls a connection that breaks a connect timeout, which no read can have.
        if "TimeoutException" in kinds and "ConnectTimeout" not in kinds:
            raise sdk.APITimeoutError(request=request) from error
        # TLS that breaks off comes through as it is, and so do some errors of aiohttp.
        broken = {"RequestError", "ClientError"} & kinds or isinstance(error, SSLError)
        if broken or type(error).__name__ == "EndOfStream":
            raise sdk.APIConnectionError(request=request) from error
        raise


def whole(response: Any, call: WireRun[Any], sdk: Any) -> None:
    """An answer that was not streamed. Raises the SDK's error for what is none."""
    call.whole(response.http_response.content, response.http_response)
    if not call.reply.terminated:
        raise sdk.APIResponseValidationError(response.http_response, response.http_response.text)
