"""HTTP clients for the SDKs that answer from a recording, without a network: `openai.OpenAI(http_client=...)`.

The SDKs use `httpx2`. The same exists for the older `httpx`, which other tools use.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any

from recorder.core.json import loads
from recorder.core.living import Living
from recorder.core.owned_generator import Owned
from recorder.errors import ConfigError, MissingExtra, RecorderError
from recorder.replay.driver import Driver, adrive, drive
from recorder.replay.http.match import Matcher
from recorder.replay.http.not_recorded import NotRecorded
from recorder.replay.http.response import RUN_HEADER, IncomingRequest, ReplayedResponse, response_to
from recorder.replay.pace import Options
from recorder.replay.playback import QueryStep
from recorder.replay.queries import Queries, run_queries, run_queries_async
from recorder.replay.reader_thread import ReaderThread
from recorder.storage.reader import DatabaseReader
from recorder.wire.recorded_run import ANTHROPIC, CHAT, COMPLETIONS, RESPONSES

#: The end of a request's path -> wire format; the same for the providers, Azure, and compatible servers.
_WIRES = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/responses": RESPONSES,
    "/messages": ANTHROPIC,
}
LIBRARIES = ("httpx2", "httpx")


class ResponseSource:
    """Finds the recorded response to each request of a client."""

    def __init__(self, owner: Any, matcher: Matcher, options: Options) -> None:
        # Referenced, because a `Replay` that is collected closes its database.
        self._owner = owner
        self.options = options
        self.matcher = matcher

    @property
    def reader(self) -> ReaderThread:
        """The reader of the database. Raises `Closed`."""
        reader: ReaderThread = self._owner.reader
        return reader

    def response_to(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Queries[ReplayedResponse]:
        """The response to a request. Raises `NotRecorded`."""
        parsed = _parsed(method, path, body)
        if run_id := headers.get(RUN_HEADER):
            run = yield QueryStep(DatabaseReader.run, run_id)
        else:
            is_retry = headers.get("x-stainless-retry-count", "0") != "0"
            run = yield from self.matcher.find(parsed.body, parsed.wire, is_retry=is_retry)
        return (yield from response_to(parsed, run))

    def driver(self, response: ReplayedResponse) -> Driver:
        """The driver of a response's body."""
        assert response.playback is not None
        assert response.listener is not None
        return Driver(
            self.reader, response.playback, response.listener, self.options, owner=self._owner, raises=False
        )


def _parsed(method: str, path: str, body: bytes) -> IncomingRequest:
    wire = next((wire for end, wire in _WIRES.items() if path.endswith(end)), None)
    if method != "POST" or wire is None:
        ends = ", ".join(_WIRES)
        raise NotRecorded(f"{method} {path} is not answered from a recording; only POST to {ends} is")
    try:
        fields = loads(body)
    except ValueError as error:
        raise NotRecorded(f"The body of this request to {path} is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise NotRecorded(f"The body of this request to {path} is not a JSON object")
    return IncomingRequest(wire, fields)


def http_client(source: ResponseSource, library: str) -> Any:
    """A synchronous client of this library."""
    # `trust_env=False`: a proxy from the environment would be used instead of the transport.
    module = _library(library)
    return _marked(module.Client(transport=_with_base(_Transport, module)(source), trust_env=False))


def http_async_client(source: ResponseSource, library: str) -> Any:
    """An asynchronous client of this library."""
    module = _library(library)
    return _marked(module.AsyncClient(transport=_with_base(_AsyncTransport, module)(source), trust_env=False))


def _marked(client: Any) -> Any:
    """The client with a mark: when the process is recorded, a replay is not recorded as a model call."""
    client.answers_from_recording = True
    return client


class _Transport:
    """Answers on the caller's thread."""

    library: Any

    def __init__(self, source: ResponseSource) -> None:
        self._source = source

    def handle_request(self, request: Any) -> Any:
        """The method that the library calls for each request."""
        body = request.read()
        with _raised_through_sdk(request):
            queries = self._source.response_to(request.method, request.url.path, request.headers, body)
            response = run_queries(self._source.reader, queries)
        return _response(self.library, response, request, self._body(response, request), _Body)

    def _body(self, response: ReplayedResponse, request: Any) -> Iterator[bytes]:
        driver = self._source.driver(response)
        assert response.playback is not None
        yield from drive(driver, response.playback)
        _raise_end(self.library, response, request)


class _AsyncTransport:
    """Answers on any event loop, without blocking it."""

    library: Any

    def __init__(self, source: ResponseSource) -> None:
        self._source = source

    async def handle_async_request(self, request: Any) -> Any:
        """The method that the library calls for each request."""
        sent = await request.aread()
        with _raised_through_sdk(request):
            queries = self._source.response_to(request.method, request.url.path, request.headers, sent)
            response = await run_queries_async(self._source.reader, queries)
        return _response(self.library, response, request, self._body(response, request), _AsyncBody)

    async def _body(self, response: ReplayedResponse, request: Any) -> AsyncIterator[bytes]:
        driver = self._source.driver(response)
        assert response.playback is not None
        async with Owned(adrive(driver, response.playback)) as body:
            async for data in body:
                yield data
        _raise_end(self.library, response, request)


class _Body:
    """The stream of a response, in the shape that the library needs."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        """End the playback; the client calls this at the end of the body, or when it stops early."""
        self.pieces.close()  # type: ignore[attr-defined]  # a generator


class _AsyncBody:
    """`_Body` on an event loop."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces

    async def aclose(self) -> None:
        """End the playback; the client calls this at the end of the body, or when it stops early."""
        await self.pieces.aclose()  # type: ignore[attr-defined]  # a generator


def _response(library: Any, response: ReplayedResponse, request: Any, pieces: Any, body: type) -> Any:
    if response.playback is None and (response.broken or response.error):
        _raise_end(library, response, request)
    if response.playback is None:
        return library.Response(
            response.status, headers=dict(response.headers), content=response.body, request=request
        )
    stream = _with_base(body, library)(pieces)
    found = library.Response(response.status, headers=dict(response.headers), stream=stream, request=request)
    if body is _Body:
        _responses.add(found)
    return found


#: The responses of synchronous clients that may be open.
_responses: Living[Any] = Living()


@atexit.register
def _close_all() -> None:
    """Close the responses that are still open at exit. Python 3.13.0 crashes if it closes them later."""
    for response in _responses.now():
        with suppress(Exception):  # another thread reads it
            response.close()


def _raise_end(library: Any, response: ReplayedResponse, request: Any) -> None:
    """Raise the error of a failed run, if any."""
    if response.error is not None:
        raise response.error
    if response.broken is not None:
        kind = getattr(library, response.broken.kind, library.ReadError)
        raise kind(response.broken.message, request=request)


@contextmanager
def _raised_through_sdk(request: Any) -> Iterator[None]:
    """Raise our errors as `AnthropicError` too: its SDK turns all other exceptions into connection errors."""
    try:
        yield
    except RecorderError as error:
        sdk = sys.modules.get("anthropic")
        if sdk is None or not request.url.path.endswith("/messages"):
            raise
        kind: Any = type(error)
        raise _subclass_of_both(kind, sdk.AnthropicError)(*error.args) from error.__cause__


@cache
def _subclass_of_both(kind: Any, other: Any) -> Any:
    return type(kind.__name__, (kind, other), {"__module__": kind.__module__, "__doc__": kind.__doc__})


_BASES = {
    _Transport: "BaseTransport",
    _AsyncTransport: "AsyncBaseTransport",
    _Body: "SyncByteStream",
    _AsyncBody: "AsyncByteStream",
}


@cache
def _with_base(kind: type, library: Any) -> Any:
    """Our class as a subclass of the library's base class."""
    return type(kind.__name__, (kind, getattr(library, _BASES[kind])), {"library": library})


def _library(name: str) -> Any:
    if name not in LIBRARIES:
        raise ConfigError(f"library is {name!r}; choose one of {', '.join(LIBRARIES)}")
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(f"{name} is not installed; pip install {name}") from error
