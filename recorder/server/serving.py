"""Runs the server of `recorder serve`: uvicorn with its own limits, and an end in order.

On SIGTERM or Ctrl-C the streams end first, then the runs and the requests under way, then the recorder is closed
and the database is left. Each step has a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from recorder.errors import ConfigError
from recorder.server.chat_runs import ChatRuns
from recorder.server.database import ServedDatabase
from recorder.server.http_limits import LimitedHttp, LimitedWebSocket
from recorder.server.proxy.provider_paths import ProviderAnswers

#: How long requests that are under way may take after the signal to end (seconds).
DRAIN_WITHIN = 5
#: So long before the end of this time, calls to providers' paths are cut (seconds).
_CUT_BEFORE = 0.5
#: How often a second signal is looked for while runs go on (seconds).
_LOOKS_AGAIN = 0.1
#: Bytes of a message that a WebSocket's client sends, and how many connections there may be.
_MAX_MESSAGE = 64 * 1024
_MAX_CONNECTIONS = 10_000


class _WithoutCuts(logging.Filter):
    """Leaves out uvicorn's line for a response without an end, which the server has cut on purpose and has logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != "ASGI callable returned without completing response."


_WITHOUT_CUTS = _WithoutCuts()


class RecorderServer(uvicorn.Server):
    """One server on one listening socket."""

    def __init__(
        self, app: ASGIApp, database: ServedDatabase, listening: socket.socket, *,
        chats: ChatRuns | None = None, answers: ProviderAnswers | None = None, drain_within: int = DRAIN_WITHIN,
    ) -> None:  # fmt: skip
        logging.getLogger("uvicorn.error").addFilter(_WITHOUT_CUTS)  # once, however often it is added
        self._database = database
        self._chats = chats
        #: What answers requests to providers' paths.
        self._answers = answers
        self._listening = listening
        self._serving_loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedHttp,
                ws=LimitedWebSocket,
                loop="uvloop",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,  # it would have the paths of conversations
                server_header=False,
                proxy_headers=False,
                ws_max_size=_MAX_MESSAGE,
                ws_per_message_deflate=False,  # half as much again, and 74 KiB a reader
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=drain_within,
            )
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        found: int = self._listening.getsockname()[1]
        return found

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes, or `stop` is called."""
        try:
            super().run(sockets or [self._listening])
        finally:
            self._database.end()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As `uvicorn.Server.serve`, remembering the loop."""
        self._serving_loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def stop(self) -> None:
        """End, as a signal does; any thread may call this."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: end. A second one ends at once."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then the runs and the requests under way."""
        self._database.drain()
        if self._answers is not None:
            self._answers.drain((self.config.timeout_graceful_shutdown or DRAIN_WITHIN) - _CUT_BEFORE)
        runs = asyncio.create_task(self._drain_runs())
        await super().shutdown(sockets)
        await runs
        if self._answers is not None:
            await self._answers.aclose()

    async def _drain_runs(self) -> None:
        if self._chats is None:
            return
        draining = asyncio.create_task(self._chats.drain())
        while not draining.done():
            if self.force_exit:
                self._chats.cancel_all()
            await asyncio.wait({draining}, timeout=_LOOKS_AGAIN)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigError` if the address is not free, or is none of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host!r} is no address of this machine: {error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            f"{host} port {port} cannot be listened on: {error}; choose another with --port, 0 takes a free one"
        ) from error
    return listening
