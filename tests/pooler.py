"""A proxy in front of Postgres that tests can close, cut or stall, and that can share connections as a pooler does.

It listens on a socket in a folder. Of Postgres' protocol it knows only where a message ends and whether a transaction
is open (https://www.postgresql.org/docs/current/protocol-message-formats.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import make_url

from recorder.testing.listening import stop_listening
from tests import postgres

#: The kind of a message, and all its bytes.
Message = tuple[bytes, bytes]

#: The name that libpq and asyncpg look for in a folder.
_SOCKET = ".s.PGSQL.5432"


@dataclass
class Server:
    """A connection to the real server, already logged in."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    #: The server's messages after the login; each client of a shared connection receives the same ones.
    greeting: bytes


@dataclass
class Pooler:
    """A proxy in front of one database; clients connect to `url`."""

    target: str
    folder: Path
    #: Number of server connections that all clients share, each for a transaction; 0: one connection for each client.
    shared: int = 0
    #: While this is set, no message is passed on in either direction, and no connection is closed.
    stalled: bool = False
    #: Close the connection when the next COMMIT has reached the server, before its response is passed on.
    cut_at_commit: bool = False
    cuts: int = 0
    #: Number of clients so far, and of messages that named a prepared statement.
    clients: int = 0
    named_statements: int = 0
    _committing: bool = False
    #: The messages after the login that each client receives on a shared connection.
    _greeting: bytes = b""
    _listener: asyncio.Server | None = None
    _free: asyncio.Queue[Server] = field(default_factory=asyncio.Queue)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _sockets: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return the URL at which clients connect."""
        parsed = make_url(self.target)
        return f"postgresql://{parsed.username}@/{parsed.database}?host={self.folder}"

    def open(self) -> None:
        """Start to listen."""
        postgres.run(self._listen())

    def close(self) -> None:
        """Stop listening and close all connections."""
        postgres.run(self._shut())

    async def _listen(self) -> None:
        self._free = asyncio.Queue()
        for _ in range(self.shared):
            server = await self._server(None)
            self._greeting = server.greeting
            self._free.put_nowait(server)
        self._listener = await asyncio.start_unix_server(self._client, self.folder / _SOCKET)

    async def _shut(self) -> None:
        if self._listener is not None:
            await stop_listening(self._listener)
            (self.folder / _SOCKET).unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._sockets:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        self._sockets.clear()

    async def _server(self, startup: bytes | None) -> Server:
        """Log in at the real server with a client's own startup message, or with an equivalent one."""
        parsed = make_url(self.target)
        host = str(parsed.query["host"])
        reader, writer = await asyncio.open_unix_connection(f"{host}/{_SOCKET}")
        self._sockets.append(writer)
        words = ["user", parsed.username or "", "database", parsed.database or "", "client_encoding", "utf8"]
        body = (196_608).to_bytes(4, "big") + b"".join(word.encode() + b"\0" for word in words) + b"\0"
        writer.write(startup or (len(body) + 4).to_bytes(4, "big") + body)
        greeting = b""
        while True:
            kind, message = await _message(reader)
            greeting += message
            if kind in b"ZE":
                return Server(reader, writer, greeting)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._sockets.append(writer)
        self.clients += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = await reader.readexactly(4)
        startup = size + await reader.readexactly(int.from_bytes(size, "big") - 4)
        own = None if self.shared else await self._server(startup)
        writer.write(own.greeting if own else self._greeting)
        following = asyncio.create_task(_message(reader))
        try:
            while (message := await following)[0] != b"X":
                server = own or await self._free.get()
                try:
                    following = await self._turn(message, server, reader, writer)
                finally:
                    if own is None:
                        self._free.put_nowait(server)
        finally:
            writer.close()
            if own is not None:
                own.writer.close()

    async def _turn(
        self, message: Message, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> asyncio.Task[Message]:
        """Pass on one transaction on one server connection; return the task that reads the first message after it."""
        answers: asyncio.Task[None] | None = None
        following = asyncio.create_task(_message(reader))
        try:
            while True:
                await self._pass_on(message, server)
                answers = answers or asyncio.create_task(self._answer(server, writer))
                await asyncio.wait({answers, following}, return_when=asyncio.FIRST_COMPLETED)
                if answers.done():
                    answers.result()
                    return following
                message = await following
                following = asyncio.create_task(_message(reader))
        except BaseException:
            for task in filter(None, (answers, following)):
                task.cancel()
            raise

    async def _pass_on(self, message: Message, server: Server) -> None:
        while self.stalled:  # noqa: ASYNC110 - a test sets it from another thread
            await asyncio.sleep(0.01)
        kind, data = message
        self.named_statements += kind == b"P" and not data[5:].startswith(b"\0")
        self._committing = kind == b"Q" and data[5:].startswith(b"COMMIT")
        server.writer.write(data)

    async def _answer(self, server: Server, writer: asyncio.StreamWriter) -> None:
        """Pass the server's responses on until no transaction is open."""
        while True:
            kind, data = await _message(server.reader)
            if self._committing and self.cut_at_commit:
                self.cut_at_commit = False
                self.cuts += 1
                raise ConnectionError("cut")
            writer.write(data)
            if kind == b"Z":
                await writer.drain()
                if data.endswith(b"I"):
                    return


async def _message(reader: asyncio.StreamReader) -> Message:
    """Read the next message and return its kind and all its bytes."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


@contextmanager
def open_pooler(target: str, folder: Path, *, shared: int = 0) -> Iterator[Pooler]:
    """Yield a pooler that is open inside."""
    found = Pooler(target, folder, shared)
    found.open()
    try:
        yield found
    finally:
        found.close()
