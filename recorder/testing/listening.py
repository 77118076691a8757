"""Ends an asyncio server without losing a connection that it has just accepted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

#: Steps of the event loop from an accepted connection until the task that serves it has begun.
_STEPS = 4


async def stop_listening(server: asyncio.Server) -> None:
    """Accept nothing more, let each accepted connection reach its handler, and close the server.

    asyncio accepts a connection in one step and attaches it to the server in a later one. If the server is closed in
    between, the attaching fails (`assert self._sockets is not None`, CPython 3.11 to 3.13), and nobody closes the
    connection.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        with suppress(NotImplementedError):  # Windows' event loop
            loop.remove_reader(listening.fileno())
    for _ in range(_STEPS):
        await asyncio.sleep(0)
    server.close()
