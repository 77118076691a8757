"""A TCP proxy before Postgres that cuts at a chosen byte, slows down, loses a COMMIT, or passes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import make_url

from recorder.testing.listening import stop_listening
from tests import postgres

#: How PostgreSQL's messages begin and end: one letter, then four bytes of length.
#: https://www.postgresql.org/docs/current/protocol-message-formats.html
_HEAD = 5
_COMMIT = b"COMMIT"
_CHUNK = 16_384

#: What happens to the next COMMIT. "before": it does not reach the server. "half sent": half of it does. "after": its
#: answer is lost. "half answered": half of the answer is lost. "swallowed": it is lost, and both connections stay open.
Trouble = Literal["before", "half sent", "after", "half answered", "swallowed"]
TROUBLES: tuple[Trouble, ...] = ("before", "half sent", "after", "half answered", "swallowed")


class Cut(ConnectionError):
    """Raised in order to close both connections."""


@dataclass
class Proxy:
    """A proxy before one database, which clients reach by `url`. Its fields can be set at any time, from any thread."""

    target: str
    #: What happens to the next COMMIT; None afterwards.
    at_commit: Trouble | None = None
    #: Cut after so many more bytes from the client, or from the server; None for never.
    cut_after_sent: int | None = None
    cut_after_answered: int | None = None
    #: Bytes a second in each direction; None for no limit.
    rate: int | None = None
    #: While it is true, no byte passes.
    stalled: bool = False
    #: How many connections were cut, and how many were made.
    cuts: int = 0
    clients: int = 0
    _port: int = 0
    _listener: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    #: Connections to the server that are open and have no client.
    _lost: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL with which clients connect."""
        parsed = make_url(self.target).set(host="127.0.0.1", port=self._port, query={"sslmode": "disable"})
        return parsed.render_as_string(hide_password=False)

    def open(self) -> None:
        """Listen, on the same port as before."""
        postgres.run(self._listen())

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        postgres.run(self._shut())

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._client, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._listener is not None:
            await stop_listening(self._listener)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._lost:
            writer.transport.abort()
        self._lost.clear()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.clients += 1
        server: asyncio.StreamWriter | None = None
        try:
            answers, server = await self._server()
            sending, answering = self._send(reader, server), self._answer(answers, writer)
            both = asyncio.create_task(sending), asyncio.create_task(answering)
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the server is away, or the proxy is closed: the client sees its connection end
        finally:
            self._tasks.discard(task)
            for each_writer in filter(None, (writer, server)):
                if each_writer not in self._lost:
                    each_writer.transport.abort()

    async def _server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parsed = make_url(self.target)
        host, port = parsed.query.get("host") or parsed.host, parsed.port or 5432
        if isinstance(host, str) and host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(str(host), port)

    async def _send(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        """Pass on the client's messages one by one; the first one has no letter."""
        size = await reader.readexactly(4)
        await self._pass(size + await reader.readexactly(int.from_bytes(size, "big") - 4), server, sent=True)
        while True:
            head = await reader.readexactly(_HEAD)
            message = head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            if message[:1] == b"Q" and message[_HEAD:].startswith(_COMMIT) and self.at_commit:
                await self._trouble(message, server)
            else:
                await self._pass(message, server, sent=True)

    async def _trouble(self, message: bytes, server: asyncio.StreamWriter) -> None:
        trouble, self.at_commit = self.at_commit, None
        if trouble == "swallowed":  # the connection to the server stays open
            self.cuts += 1
            self._lost.append(server)
            return
        if trouble == "before":
            self._cut()
        if trouble == "half sent":
            server.write(message[: len(message) // 2])
            await server.drain()
            self._cut()
        # An answer to COMMIT has 18 bytes: CommandComplete with its tag, and ReadyForQuery.
        self.cut_after_answered = 0 if trouble == "after" else 7
        await self._pass(message, server, sent=True)

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await answers.read(_CHUNK):
            await self._pass(data, writer, sent=False)

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, *, sent: bool) -> None:
        """Pass bytes on at the given rate, up to the byte where the connection is to be cut."""
        while data:
            while self.stalled:  # noqa: ASYNC110 - a test sets it from another thread
                await asyncio.sleep(0.005)
            step = data[: max(1, self.rate // 50)] if self.rate else data
            left = self.cut_after_sent if sent else self.cut_after_answered
            if left is not None and left < len(step):
                writer.write(step[:left])
                with suppress(OSError):
                    await writer.drain()
                self._cut()
            self._count(len(step), sent)
            writer.write(step)
            await writer.drain()
            data = data[len(step) :]
            if self.rate:
                await asyncio.sleep(len(step) / self.rate)

    def _count(self, size: int, sent: bool) -> None:
        if sent and self.cut_after_sent is not None:
            self.cut_after_sent -= size
        if not sent and self.cut_after_answered is not None:
            self.cut_after_answered -= size

    def _cut(self) -> None:
        self.cuts += 1
        self.cut_after_sent = self.cut_after_answered = None
        raise Cut


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy that listens inside."""
    found = Proxy(target)
    found.open()
    try:
        yield found
    finally:
        found.close()
