"""HTTP clients for the SDKs, which answer from a recording in process: `openai.OpenAI(http_client=...)`.

The SDKs stand on `httpx2`; the same for the older `httpx`, which other tools stand on.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import cache
from importlib import import_module
from typing import Any

from recorder.core.json import loads
from recorder.errors import ConfigError, MissingExtra, RecorderError
from recorder.replay.driver import Driver, adrive, drive
from recorder.replay.http.match import Matcher
from recorder.replay.http.not_recorded import NotRecorded
from recorder.replay.http.response import RUN_HEADER, Answer, Asked, answer
from recorder.replay.pace import Options
from recorder.replay.playback import Ask
from recorder.replay.queries import Asking, answered, answered_async
from recorder.replay.reader_thread import Reader
from recorder.storage.reader import Library
from recorder.wire.recorded import ANTHROPIC, CHAT, COMPLETIONS

#: The wire format by the end of the path, of the providers' own servers, of Azure's and of all that do as they.
_WIRES = {"/chat/completions": CHAT, "/completions": COMPLETIONS, "/messages": ANTHROPIC}
LIBRARIES = ("httpx2", "httpx")


class Tape:
    """What a client plays, and how."""

    def __init__(self, owner: Any, matcher: Matcher, options: Options) -> None:
        # Kept: a `Replay` that nobody holds any more lets go of the database.
        self._owner = owner
        self.options = options
        self.matcher = matcher

    @property
    def reader(self) -> Reader:
        """Who reads the database. Raises `Closed`."""
        found: Reader = self._owner.reader
        return found

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asking[Answer]:
        """The response to a request. Raises `NotRecorded`."""
        asked = _asked(method, path, body)
        if run_id := headers.get(RUN_HEADER):
            run = yield Ask(Library.run, run_id)
        else:
            again = headers.get("x-stainless-retry-count", "0") != "0"
            run = yield from self.matcher.find(asked.body, asked.wire, again=again)
        return (yield from answer(asked, run))

    def driver(self, found: Answer) -> Driver:
        """What drives the body of an answer that is played."""
        assert found.play is not None
        assert found.listener is not None
        return Driver(self.reader, found.play, found.listener, self.options, owner=self._owner, raises=False)


def _asked(method: str, path: str, body: bytes) -> Asked:
    wire = next((wire for end, wire in _WIRES.items() if path.endswith(end)), None)
    if method != "POST" or wire is None:
        ends = ", ".join(_WIRES)
        raise NotRecorded(f"{method} {path} is not answered from a recording; what is: POST to {ends}")
    try:
        said = loads(body)
    except ValueError as error:
        raise NotRecorded(f"The body of this request to {path} is no JSON ({error})") from error
    if not isinstance(said, dict):
        raise NotRecorded(f"The body of this request to {path} is no JSON object")
    return Asked(wire, said)


def http_client(tape: Tape, library: str) -> Any:
    """A synchronous client of this library."""
    # Without the environment: a proxy from there would come before the transport.
    found = _library(library)
    return found.Client(transport=_based(_Transport, found)(tape), trust_env=False)


def http_async_client(tape: Tape, library: str) -> Any:
    """An asynchronous client of this library."""
    found = _library(library)
    return found.AsyncClient(transport=_based(_AsyncTransport, found)(tape), trust_env=False)


class _Transport:
    """Answers in the caller's thread."""

    library: Any

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def handle_request(self, request: Any) -> Any:
        """As the library wants it."""
        body = request.read()
        with _as_the_sdk_lets_through(request):
            asking = self._tape.answer(request.method, request.url.path, request.headers, body)
            found = answered(self._tape.reader, asking)
        return _response(self.library, found, request, self._body(found, request), _Body)

    def _body(self, found: Answer, request: Any) -> Iterator[bytes]:
        driver = self._tape.driver(found)
        assert found.play is not None
        yield from drive(driver, found.play)
        _raise_end(self.library, found, request)


class _AsyncTransport:
    """Answers on any event loop, which it does not keep."""

    library: Any

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    async def handle_async_request(self, request: Any) -> Any:
        """As the library wants it."""
        sent = await request.aread()
        with _as_the_sdk_lets_through(request):
            asking = self._tape.answer(request.method, request.url.path, request.headers, sent)
            found = await answered_async(self._tape.reader, asking)
        return _response(self.library, found, request, self._body(found, request), _AsyncBody)

    async def _body(self, found: Answer, request: Any) -> AsyncIterator[bytes]:
        driver = self._tape.driver(found)
        assert found.play is not None
        async with aclosing(adrive(driver, found.play)) as body:  # type: ignore[type-var]
            async for data in body:
                yield data
        _raise_end(self.library, found, request)


class _Body:
    """A body as it is played."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        """The client has left, or has all."""
        self.pieces.close()  # type: ignore[attr-defined]  # a generator


class _AsyncBody:
    """`_Body` on an event loop."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces

    async def aclose(self) -> None:
        """The client has left, or has all."""
        await self.pieces.aclose()  # type: ignore[attr-defined]  # a generator


def _response(library: Any, found: Answer, request: Any, pieces: Any, body: type) -> Any:
    if found.play is None and (found.broken or found.error):
        _raise_end(library, found, request)
    if found.play is None:
        return library.Response(
            found.status, headers=dict(found.headers), content=found.body, request=request
        )
    stream = _based(body, library)(pieces)
    return library.Response(found.status, headers=dict(found.headers), stream=stream, request=request)


def _raise_end(library: Any, found: Answer, request: Any) -> None:
    """What a run that failed ends with."""
    if found.error is not None:
        raise found.error
    if found.broken is not None:
        kind = getattr(library, found.broken.kind, library.ReadError)
        raise kind(found.broken.message, request=request)


@contextmanager
def _as_the_sdk_lets_through(request: Any) -> Iterator[None]:
    """Anthropic's SDK calls every exception a connection error, but those of its own family."""
    try:
        yield
    except RecorderError as error:
        sdk = sys.modules.get("anthropic")
        if sdk is None or not request.url.path.endswith("/messages"):
            raise
        kind: Any = type(error)
        raise _of_both(kind, sdk.AnthropicError)(*error.args) from error.__cause__


@cache
def _of_both(kind: Any, other: Any) -> Any:
    return type(kind.__name__, (kind, other), {"__module__": kind.__module__, "__doc__": kind.__doc__})


_BASES = {
    _Transport: "BaseTransport",
    _AsyncTransport: "AsyncBaseTransport",
    _Body: "SyncByteStream",
    _AsyncBody: "AsyncByteStream",
}


@cache
def _based(kind: type, library: Any) -> Any:
    """A class of ours on its base in the library."""
    return type(kind.__name__, (kind, getattr(library, _BASES[kind])), {"library": library})


def _library(name: str) -> Any:
    if name not in LIBRARIES:
        raise ConfigError(f"library is {name!r}; choose one of {', '.join(LIBRARIES)}")
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(f"{name} is not installed; pip install {name}") from error
