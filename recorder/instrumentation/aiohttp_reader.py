"""The body of a response of aiohttp that is recorded: the application reads the same bytes at the same time.

The class of the response's `StreamReader` is replaced by a subclass of it. So the object stays the same, aiohttp's
parser feeds it as before, and each of its ways of reading works. All of them take the bytes with one method, which
reports them.

A read whose task is cancelled loses no bytes of the application: what has to be waited for, such as room in the queue,
is waited for before the next bytes are taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, wraps
from typing import Any

from recorder.core.collection import collection
from recorder.instrumentation.attempt_factory import AnyAttempt
from recorder.runs.collected_streams import collector

#: The methods that wait for bytes; those with other names call one of these.
_READS = ("readany", "readuntil", "readchunk", "read")
#: What they return at the end.
_NOTHING = (b"", (b"", False))
_NEWLINE = ord("\n")
_BLANK_LINES = (b"\n", b"\r\n")


def record_reads(content: Any, attempts: Sequence[AnyAttempt], *, is_error: bool) -> None:
    """Report to these attempts what is read from a `StreamReader`, and how that ends.

    `is_error` tells whether the status is one of an error. Raises `TypeError` for another object than aiohttp's.
    """
    kind: Any = type(content)
    if (
        kind.__name__ != "StreamReader"
        or not kind.__module__.startswith("aiohttp.")
        or issubclass(kind, _Reads)
    ):
        raise TypeError(
            f"The body is of type {kind.__module__}.{kind.__qualname__}, not aiohttp's StreamReader"
        )
    made = recorded_class(kind)
    callbacks = _Callbacks(content._eof_callbacks)
    callbacks.report = _Report(attempts, is_error=is_error)
    content._eof_callbacks = callbacks
    content.__class__ = made


@lru_cache(maxsize=8)
def recorded_class(kind: Any) -> type:
    """The subclass that reports; with the name of its base class, which logs show.

    Raises `TypeError` or `AttributeError` for a version of aiohttp that none fits.
    """
    names: dict[str, Any] = {
        "__slots__": (),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    names |= {name: _recorded(getattr(kind, name)) for name in _READS}
    names["_read_nowait_chunk"] = _reported(kind._read_nowait_chunk)
    made = type(kind.__name__, (_Reads, kind), names)
    kind.__new__(kind).__class__ = made  # of another layout in some version of aiohttp
    return made


class _Callbacks(list[Callable[[], None]]):
    """The callbacks for the end of a body. A `StreamReader` has no attribute of its own that is free."""

    report: _Report


class _Report:
    """Passes on what the application reads to some attempts."""

    def __init__(self, attempts: Sequence[AnyAttempt], *, is_error: bool) -> None:
        self.is_error = is_error
        #: So many of the next bytes were reported already.
        self.known = 0
        #: Whether the next read has to wait: for room in the queue, or for what handlers returned.
        self.waits = False
        #: What the read that is going on has taken.
        self._pieces: list[bytes] = []
        self._feeds = [_Feed(attempt) for attempt in attempts]

    def take(self, data: bytes) -> None:
        """The application takes these bytes. They are reported with the other ones of the same read."""
        if self.known:
            known, self.known = self.known, max(0, self.known - len(data))
            data = data[known:]
        if data:
            self._pieces.append(data)

    def pass_on(self, content: Any) -> None:
        """Report what a read has taken; after a line also the blank line that came with it, which ends the event."""
        pieces = self._pieces
        if not pieces:
            return
        if content._buffer and not self.known and pieces[-1][-1] == _NEWLINE:
            first, start = content._buffer[0], content._buffer_offset
            if first.startswith(_BLANK_LINES, start):
                pieces.append(first[start : first.index(b"\n", start) + 1])
                self.known = len(pieces[-1])
        self._put(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def pass_on_rest(self, data: bytes) -> None:
        """Report bytes that have come and that the application leaves unread."""
        self.take(data)
        if self._pieces:
            self._put(b"".join(self._pieces))

    def _put(self, data: bytes) -> None:
        self._pieces = []
        for feed in self._feeds:
            self.waits |= feed.put(data)

    async def settle(self) -> None:
        """Wait for what the bytes before have to wait for."""
        for feed in self._feeds:
            await feed.settle()
        self.waits = False

    async def end(self) -> None:
        """The application has read the end."""
        for feed in self._feeds:
            feed.attempt.end()
        await self.settle()

    async def fail_reading(self, error: Exception) -> None:
        """The application gets this error instead of bytes."""
        for feed in self._feeds:
            feed.attempt.fail_reading(error)
        await self.settle()

    def leave(self, *, is_read: bool) -> None:
        """The response was released or closed; `is_read` tells whether all of its body was read before."""
        for feed in self._feeds:
            feed.leave(is_read=is_read)

    def leave_collected(self, *, is_read: bool) -> None:
        """Nothing refers to the body any more. A finalizer calls this."""
        for feed in self._feeds:
            feed.attempt.end_collected() if is_read else feed.attempt.leave_collected()


class _Feed:
    """The bytes for one attempt. Those that came while others waited for room are held until the next read."""

    def __init__(self, attempt: AnyAttempt) -> None:
        self.attempt = attempt
        self._held: bytearray | None = None

    def put(self, data: bytes) -> bool:
        """Report these bytes, or hold them. Returns whether the next read has to wait."""
        if self._held is not None:
            self._held += data
        elif self.attempt.feed(data) is not None:
            self._held = bytearray()
        return self._held is not None or self.attempt.has_pending

    async def settle(self) -> None:
        """Wait for room, and for what handlers returned."""
        while self._held is not None:
            if (wait := self.attempt.feed_again()) is not None:
                await wait
            else:
                self._put_held()
        if self.attempt.has_pending:
            await self.attempt.settle_async()

    def leave(self, *, is_read: bool) -> None:
        """The response was released. Nothing can be awaited here, so handlers are waited for on another thread."""
        if self._held is not None and self.attempt.feed_again() is None:
            self._put_held()
        self.attempt.end() if is_read else self.attempt.leave()
        if self.attempt.has_pending:
            collector.put(self.attempt.settle)

    def _put_held(self) -> None:
        held, self._held = self._held, None
        if held:
            self.put(bytes(held))


def _recorded(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A method that reads, and reports what it took and how it ended."""

    @wraps(read)
    async def recorded(content: Any, *args: Any, **options: Any) -> Any:
        report: _Report = content._eof_callbacks.report
        if report.waits:
            await report.settle()
        try:
            found = await read(content, *args, **options)
        except Exception as error:
            report.pass_on(content)
            if _is_last(content, error):
                await report.fail_reading(error)
            raise
        report.pass_on(content)
        if found in _NOTHING and content.at_eof():
            await report.end()
        return found

    return recorded


def _reported(take: Callable[[Any, int], bytes]) -> Callable[[Any, int], bytes]:
    """The method with which all others take bytes."""

    @wraps(take)
    def reported(content: Any, n: int) -> bytes:
        data = take(content, n)
        content._eof_callbacks.report.take(data)
        return data

    return reported


class _Reads:
    """The other methods of a `StreamReader` that report."""

    __slots__ = ()

    _buffer: Any
    _buffer_offset: int
    _eof_callbacks: Any

    def read_nowait(self, n: int = -1) -> bytes:
        found: bytes = super().read_nowait(n)  # type: ignore[misc]
        self._eof_callbacks.report.pass_on(self)
        return found

    def unread_data(self, data: bytes) -> None:
        super().unread_data(data)  # type: ignore[misc]
        self._eof_callbacks.report.known += len(data)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """The connection fails, or the response is released or closed: then no byte can be read any more."""
        is_read = self.at_eof()  # type: ignore[attr-defined]
        super().set_exception(exc, *cause)  # type: ignore[misc]
        if self.is_eof():  # type: ignore[attr-defined]
            self._leave(is_read=is_read)

    def recorder_released(self) -> None:
        """The connection was given back or closed. At the end of the body aiohttp does it, else the application."""
        if not self.is_eof():  # type: ignore[attr-defined]
            self._leave(is_read=False)

    def _leave(self, *, is_read: bool) -> None:
        report: _Report = self._eof_callbacks.report
        if collection.runs_here:  # queueing bytes takes a lock, which this thread may hold
            report.leave_collected(is_read=is_read)
            return
        report.pass_on(self)
        if report.is_error and not is_read:
            # Who raises for such a status reads no body, but its first bytes came with the head.
            report.pass_on_rest(b"".join(self._buffer)[self._buffer_offset :])
        report.leave(is_read=is_read)

    def __del__(self) -> None:
        callbacks = getattr(self, "_eof_callbacks", None)
        if (report := getattr(callbacks, "report", None)) is not None:
            report.leave_collected(is_read=self.at_eof())  # type: ignore[attr-defined]


def _is_last(content: Any, error: Exception) -> bool:
    """Whether nothing can be read after this error. After a line that is too long, for example, one can read on."""
    if content.exception() is not None or isinstance(error, TimeoutError):
        return True
    connection = getattr(content, "_protocol", None)
    return (
        isinstance(error, RuntimeError) and getattr(connection, "connected", True) is False
    )  # by `session.close()`
