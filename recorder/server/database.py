"""The database that a server reads. It is opened by the first request, because a mounted application has no start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.config import default_url
from recorder.errors import Closed, ConfigError, StoreError
from recorder.replay.driver import to_its_end
from recorder.replay.reader_thread import ReaderThread, shared
from recorder.server.hub import Hub

T = TypeVar("T")


class ServedDatabase:
    """The readers of one database, and a hub for each event loop that serves it."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or default_url()
        self._readers: dict[str, ReaderThread] = {}
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._closed = False

    def hub(self) -> Hub:
        """The hub of the running event loop. Raises `Closed`."""
        loop = asyncio.get_running_loop()
        if loop not in self._hubs:
            for other in [each for each in self._hubs if each.is_closed()]:
                del self._hubs[other]
            self._hubs[loop] = Hub(self._reader("replay"), self._reader("serve"))
        self._require_open()
        return self._hubs[loop]

    async def ask(self, method: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """The result of a function of a `DatabaseReader`. Raises `Closed` and what the function raises."""
        found: T = await to_its_end(self._reader("serve").ask(method, *arguments))
        return found

    async def search(self, method: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """As `ask`, over a connection of its own: a search may take longer than what others wait for."""
        found: T = await to_its_end(self._reader("search").ask(method, *arguments))
        return found

    def drain(self) -> None:
        """End the streams of the running event loop, and accept no more."""
        if (hub := self._hubs.get(asyncio.get_running_loop())) is not None:
            hub.drain()

    def close(self) -> None:
        """End all streams and leave the database. Takes no lock and waits for nothing; any thread may call it."""
        self._closed = True
        for loop, hub in list(self._hubs.items()):
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(hub.drain)
        while self._readers:
            with suppress(KeyError):
                self._readers.popitem()[1].leave()

    def _reader(self, purpose: str) -> ReaderThread:
        self._require_open()
        if purpose not in self._readers:
            try:
                self._readers[purpose] = shared(self.url, purpose)
            except ConfigError as error:  # no fault of the request
                raise StoreError(str(error)) from error
        return self._readers[purpose]

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("The history that this server reads is closed; start the application again")


_of_histories: WeakKeyDictionary[ChatHistoryCallback, ServedDatabase] = WeakKeyDictionary()


def served(source: ChatHistoryCallback | str | None) -> ServedDatabase:
    """The database of a URL, or that of a history, which closes it when it is closed itself."""
    if not isinstance(source, ChatHistoryCallback):
        return ServedDatabase(source)
    found = _of_histories.get(source)
    if found is None:
        found = _of_histories[source] = ServedDatabase(source.recorder.url)
        source.recorder.closing.append(found.close)
        if source.recorder.closed:
            found.close()
    return found
