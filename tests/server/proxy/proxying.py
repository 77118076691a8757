"""Servers with providers' paths for tests: the recording proxy, and replays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.replay.http.match import Rules
from recorder.replay.pace import Options
from recorder.server.access import Access
from recorder.server.app import app_for
from recorder.server.database import ServedDatabase
from recorder.server.proxy.provider_paths import ProviderAnswers, ProviderPaths
from recorder.server.proxy.recording_proxy import RecordingProxy
from recorder.server.proxy.replay_endpoints import ReplayEndpoints
from recorder.server.proxy.upstream_client import UpstreamClient
from recorder.server.proxy.upstreams import DEFAULT_UPSTREAMS, upstreams_from
from recorder.server.serving import RecorderServer, listen

#: What no test may find anywhere but in the request that its provider received.
KEY = "sk-canary-0123456789abcdefghijklmnop"


@dataclass(frozen=True, slots=True)
class Proxied:
    """A running proxy."""

    url: str
    history: ChatHistoryCallback
    proxy: RecordingProxy

    def stored(self) -> str:
        """Wait until all calls have ended and are stored; return the URL of the database."""
        while self.proxy.open_calls:
            threading.Event().wait(0.001)
        self.history.flush().wait(20)
        return self.history.recorder.url


@contextmanager
def proxying(
    url: str, upstreams: Mapping[str, Any], tokens: Mapping[str, str | None] | None = None, *,
    client: Callable[[], UpstreamClient] = UpstreamClient, **options: Any,
) -> Iterator[Proxied]:  # fmt: skip
    """Run a proxy in a thread that records into this database; `options` are those of its history."""
    with ChatHistoryCallback(url, **options) as history:
        database = ServedDatabase(url)
        proxy = RecordingProxy(history, database, client=client())
        with _running(database, Access(tokens), upstreams, proxy) as address:
            yield Proxied(address, history, proxy)


@contextmanager
def replaying(
    url: str, tokens: Mapping[str, str | None] | None = None, *, options: Options | None = None,
    rules: Rules | None = None,
) -> Iterator[str]:  # fmt: skip
    """Run a server in a thread that answers from this database; yields its address."""
    database = ServedDatabase(url)
    answers = ReplayEndpoints(database, options or Options(speed=None), rules=rules)
    with _running(database, Access(tokens), DEFAULT_UPSTREAMS, answers) as address:
        yield address


@contextmanager
def _running(
    database: ServedDatabase, access: Access, upstreams: Mapping[str, Any], answers: ProviderAnswers
) -> Iterator[str]:
    app = ProviderPaths(app_for(database, access), access, upstreams_from(upstreams), answers)
    server = RecorderServer(app, database, listen("127.0.0.1", 0), answers=answers, drain_within=2)
    thread = threading.Thread(target=server.run, name="proxy of a test", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@dataclass(slots=True)
class Received:
    """A request as it came, byte for byte."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    #: Set when the client closes the connection.
    closed: threading.Event = field(default_factory=threading.Event)

    def values(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for each, value in self.headers if each.lower() == name]


#: The bytes that answer a request, in pieces that are sent one by one. None closes the connection.
Pieces = Sequence[bytes | None]


NOT_FOUND: Pieces = [b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"]


class RawUpstream:
    """A server that notes requests byte for byte and answers with bytes as they are, in a thread of its own."""

    def __init__(self, answers: Mapping[str, Pieces | Callable[[], AsyncIterator[bytes]]]) -> None:
        """`answers` are those to each path, without the query."""
        self._answers = answers
        self.requests: list[Received] = []
        #: How many connections clients have made.
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening = listen("127.0.0.1", 0)
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(),), daemon=True
        )

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> RawUpstream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            tasks.add(asyncio.create_task(self._answer_all(reader, writer)))

        server = await asyncio.start_server(connected, sock=self._listening)
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the loop closes the connections

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    request = await _received(reader)
                    self.requests.append(request)
                    if not await self._answer(request, reader, writer):
                        break
        finally:
            if not writer.is_closing():  # else what was sent is still to be read
                writer.transport.abort()

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send the answer; returns whether the connection stays open."""
        pieces = self._answers.get(request.target.partition("?")[0], NOT_FOUND)
        if callable(pieces):
            sending = asyncio.create_task(_send(writer, pieces()))
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                sending.cancel()
                request.closed.set()
                return False
            gone.cancel()
            return False
        for piece in pieces[:1] if request.method == "HEAD" else pieces:
            if piece is None:
                writer.close()
                return False
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return True


async def _send(writer: asyncio.StreamWriter, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        writer.write(piece)
        await writer.drain()


async def _received(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8", "surrogateescape")
    first, *lines = head.split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
    request = Received(method, target, headers, b"")
    if length := request.values("content-length"):
        request.body = await reader.readexactly(int(length[0]))
    elif request.values("transfer-encoding"):
        while size := int(await reader.readline(), 16):
            request.body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    return request


def response(body: bytes, *headers: str, status: str = "200 OK", size: int = 2**20) -> list[bytes | None]:
    """Return a response with a length, in pieces of this size."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return ["\r\n".join(lines).encode(), *(body[at : at + size] for at in range(0, len(body), size))]


def chunked(body: bytes, *headers: str, size: int = 7, status: str = "200 OK") -> list[bytes | None]:
    """Return a response in HTTP chunks of this size, each sent by itself."""
    lines = [f"HTTP/1.1 {status}", "transfer-encoding: chunked", *headers, "", ""]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return [
        "\r\n".join(lines).encode(),
        *(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces),
        b"0\r\n\r\n",
    ]
