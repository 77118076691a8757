"""The database that a server reads. It is opened by the first request, because a mounted application has no start.

What a server writes goes through a recorder: that of its application, or one of its own that the first write opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakMethod, ref

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.config import default_url
from recorder.errors import Closed, ConfigError, RecorderError, StoreError
from recorder.recording.store_work import Work
from recorder.replay.driver import to_its_end
from recorder.replay.reader_thread import ReaderThread, shared
from recorder.server.hub import Hub

T = TypeVar("T")

#: How long a request waits until something is written (seconds).
_WRITES_WITHIN = 5.0


class ServedDatabase:
    """The readers of one database, the recorder that writes to it, and a hub for each event loop that serves it."""

    def __init__(
        self,
        url: str | None = None,
        *,
        history: ChatHistoryCallback | None = None,
        own_history: ChatHistoryCallback | None = None,
    ) -> None:
        """`history` is the recorder of an application, which closes it; `own_history` is closed with this."""
        self.url = history.recorder.url if history is not None else url or default_url()
        #: Called by `close`, perhaps several times; they take no lock and do not wait. Weak references, because a
        #: history is collected only if nothing of its database refers to it.
        self.on_close: list[WeakMethod[Callable[[], None]]] = []
        # A weak reference: the application may drop a recorder without closing it.
        self._history = None if history is None else ref(history)
        self._own_history = own_history
        self._readers: dict[str, ReaderThread] = {}
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._closed = False
        #: Whether the server ends.
        self.is_draining = False

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

    @property
    def readers(self) -> int:
        """How many readers follow streams."""
        return sum(hub.followers for hub in list(self._hubs.values()))

    @property
    def stall(self) -> float:
        """For how long the slowest of them has not accepted a piece (seconds)."""
        return max((hub.stall for hub in list(self._hubs.values())), default=0.0)

    @property
    def history(self) -> ChatHistoryCallback | None:
        """The recorder, if there is one by now."""
        return self._own_history if self._history is None else self._history()

    async def recording(self) -> ChatHistoryCallback:
        """The recorder, open. Raises `Closed`, and `StoreError` if the database cannot be written to."""
        self._require_open()
        try:
            if (found := self.history) is None:
                if self._history is not None:
                    raise Closed("The history that this server records with is gone; keep a reference to it")
                found = self._own_history = ChatHistoryCallback(self.url)
            await found.opened()
            found.recorder.require_open()
        except RecorderError as error:
            self._own_history = None  # a refused recorder is closed; the next request tries again
            raise _no_fault_of_the_request(error) from error
        return found

    async def write(self, work: Work) -> Any:
        """The result of work on the recorder's store. Raises `StoreError` if the database does not answer in time."""
        history = await self.recording()
        try:
            async with asyncio.timeout(_WRITES_WITHIN):
                return await history.recorder.with_store(work)
        except TimeoutError as error:
            raise StoreError(
                "The database does not accept what is written; try again when it answers"
            ) from error

    def drain(self) -> None:
        """End the streams of the running event loop, and accept no more."""
        self.is_draining = True
        if (hub := self._hubs.get(asyncio.get_running_loop())) is not None:
            hub.drain()

    def close(self) -> None:
        """End all streams and leave the database. Takes no lock and waits for nothing; any thread may call it."""
        self._closed = self.is_draining = True
        for reference in self.on_close:
            if (closed := reference()) is not None:
                closed()
        if self._own_history is not None:
            self._own_history.close()
        for loop, hub in list(self._hubs.items()):
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(hub.drain)
        while self._readers:
            with suppress(KeyError):
                self._readers.popitem()[1].leave()

    def end(self) -> None:
        """`close`, and wait until everything is stored, for as long as the recorder's `close_timeout`."""
        self.close()
        if (history := self.history) is not None:
            history.close().wait()

    def _reader(self, purpose: str) -> ReaderThread:
        self._require_open()
        if purpose not in self._readers:
            try:
                self._readers[purpose] = shared(self.url, purpose)
            except ConfigError as error:
                raise _no_fault_of_the_request(error) from error
        return self._readers[purpose]

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("The history that this server reads is closed; start the application again")


def _no_fault_of_the_request(error: RecorderError) -> RecorderError:
    return StoreError(str(error)) if isinstance(error, ConfigError) else error


_of_histories: WeakKeyDictionary[ChatHistoryCallback, ServedDatabase] = WeakKeyDictionary()


def served(source: ChatHistoryCallback | str | None) -> ServedDatabase:
    """The database of a URL, or that of a history, which closes it when it is closed itself. Raises `ConfigError`."""
    if source is None or isinstance(source, str):
        return ServedDatabase(source)
    if not isinstance(source, ChatHistoryCallback):
        raise ConfigError(
            f"history is of type {type(source).__name__}; pass a ChatHistoryCallback, or the URL of a database"
        )
    if source.stores_elsewhere:
        raise ConfigError(
            "The history has a store of its own, which has no URL to be read at; pass a URL to it"
        )
    found = _of_histories.get(source)
    if found is None:
        found = _of_histories[source] = ServedDatabase(history=source)
        source.recorder.closing.append(found.close)
        if source.recorder.closed:
            found.close()
    return found
