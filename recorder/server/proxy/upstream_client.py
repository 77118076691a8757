"""The HTTP client of the proxy, one for each event loop."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from recorder.runs.own_calls import own_call

#: A connection to an upstream must be made within this time, and a response may be silent for so long (seconds). Models
#: think for minutes before their first byte.
CONNECT_WITHIN = 15.0
SILENT_FOR = 600.0
#: Bytes of a line of a response's head.
_MAX_LINE = 32 * 1024
#: aiohttp warns of larger bodies (bytes) if they are passed as they are.
_LARGE = 2**19
_SKIPPED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class UpstreamClient:
    """Sends requests as they are: no redirects, no cookies, no decompression, nothing from the environment."""

    def __init__(self, *, connect_within: float = CONNECT_WITHIN, silent_for: float = SILENT_FOR) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_within, sock_connect=connect_within, sock_read=silent_for
        )
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def send(
        self, method: str, url: URL, headers: CIMultiDict[str], data: bytes | AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        """The response, once its head is there. Raises `ClientError`, `OSError`, `TimeoutError` and `ValueError`."""
        body: Any = io.BytesIO(data) if isinstance(data, bytes) and len(data) > _LARGE else data
        with own_call():  # a process that is recorded does not record it once more
            return await self._session().request(
                method, url, headers=headers, data=body, allow_redirects=False, skip_auto_headers=_SKIPPED
            )

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def close(self) -> None:
        """Close the connections of all event loops, on their threads. Any thread may call this."""
        while self._sessions:
            with suppress(KeyError, RuntimeError):  # another thread was faster, or the loop is closed
                loop, session = self._sessions.popitem()
                loop.call_soon_threadsafe(_close, loop, session)

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        found = self._sessions.get(loop)
        if found is None:
            for other in [each for each in self._sessions if each.is_closed()]:
                del self._sessions[other]
            found = self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),  # else one client would get the cookies of another one
                timeout=self._timeout,
                auto_decompress=False,
                trust_env=False,
                max_line_size=_MAX_LINE,
                max_field_size=_MAX_LINE,
            )
            # A request whose body was read already cannot be sent once more.
            found._retry_connection = False
        return found


def _close(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    closing = loop.create_task(session.close())
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)


#: Tasks that close sessions; an event loop does not hold its tasks.
_closing: set[asyncio.Task[None]] = set()
