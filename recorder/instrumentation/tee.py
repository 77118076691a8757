"""The byte stream of a response that is recorded: the application gets the same bytes at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any, Self

from recorder.instrumentation.attempt_factory import AnyAttempt


def tee(stream: Any, attempt: AnyAttempt) -> Any:
    """A byte stream of the same kind, synchronous or asynchronous or both. It reports what is read to `attempt`."""
    kinds = [kind for kind in type(stream).__mro__ if kind.__name__ in ("SyncByteStream", "AsyncByteStream")]
    found: Any = _class(tuple(kinds))(stream, attempt)
    return found


@lru_cache(maxsize=32)
def _class(kinds: tuple[type, ...]) -> type:
    """The tee that is an instance of these classes of the HTTP library, which checks it."""
    return type("RecordedByteStream", (_Tee, *kinds), {"__init__": _Tee.__init__})


class _Tee:
    """Both kinds; the HTTP client calls the methods of one of them."""

    def __init__(self, stream: Any, attempt: AnyAttempt) -> None:
        self._stream = stream
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        # Anthropic's SDK and the HTTP client look for attributes of their own.
        return getattr(self.__dict__["_stream"], name)

    def __iter__(self) -> Iterator[bytes]:
        return _Steps(iter(self._stream), self._attempt)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _AsyncSteps(aiter(self._stream), self._attempt)

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._attempt.leave()
            self._attempt.settle()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._attempt.leave()
            await self._attempt.settle_async()

    def __del__(self) -> None:
        # Nothing refers to the response any more. The finalizer may run anywhere, also in the queue's lock.
        if (attempt := self.__dict__.get("_attempt")) is not None:
            attempt.leave_collected()


class _Steps:
    """Reads the chunks on a thread."""

    def __init__(self, chunks: Iterator[bytes], attempt: AnyAttempt) -> None:
        self._chunks = chunks
        self._attempt = attempt

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        attempt = self._attempt
        try:
            data = next(self._chunks)
        except StopIteration:
            attempt.end()
            attempt.settle()
            raise
        except BaseException as error:
            attempt.fail_reading(error)
            attempt.settle()
            raise
        wait = attempt.feed(data)
        while wait is not None:
            wait.wait()
            wait = attempt.feed_again()
        if attempt.has_pending:
            attempt.settle()
        return data


class _AsyncSteps:
    """Reads the chunks on an event loop."""

    def __init__(self, chunks: AsyncIterator[bytes], attempt: AnyAttempt) -> None:
        self._chunks = chunks
        self._attempt = attempt

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        attempt = self._attempt
        try:
            data = await anext(self._chunks)
        except StopAsyncIteration:
            attempt.end()
            await attempt.settle_async()
            raise
        except BaseException as error:
            attempt.fail_reading(error)
            await attempt.settle_async()
            raise
        wait = attempt.feed(data)
        while wait is not None:
            await wait
            wait = attempt.feed_again()
        if attempt.has_pending:
            await attempt.settle_async()
        return data
