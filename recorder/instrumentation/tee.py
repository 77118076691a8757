"""The byte stream of a response that is recorded: the application gets the same bytes at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any, Self

from recorder.instrumentation.attempt import Attempt
from recorder.runs.sdk_stream import settle_run, settle_run_async


def tee(stream: Any, attempt: Attempt) -> Any:
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

    def __init__(self, stream: Any, attempt: Attempt) -> None:
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
            settle_run(self._attempt.run)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._attempt.leave()
            if self._attempt.run.pending:
                await settle_run_async(self._attempt.run)

    def __del__(self) -> None:
        # Nothing refers to the response any more. The finalizer may run anywhere, also in the queue's lock.
        if (attempt := self.__dict__.get("_attempt")) is not None:
            attempt.leave_collected()


class _Steps:
    """Reads the chunks on a thread."""

    def __init__(self, chunks: Iterator[bytes], attempt: Attempt) -> None:
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
            settle_run(attempt.run)
            raise
        except BaseException as error:
            attempt.fail_reading(error)
            settle_run(attempt.run)
            raise
        attempt.feed(data)
        if attempt.run.pending:
            settle_run(attempt.run)
        return data


class _AsyncSteps:
    """Reads the chunks on an event loop."""

    def __init__(self, chunks: AsyncIterator[bytes], attempt: Attempt) -> None:
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
            await settle_run_async(attempt.run)
            raise
        except BaseException as error:
            attempt.fail_reading(error)
            await settle_run_async(attempt.run)
            raise
        attempt.feed(data)
        if attempt.run.pending:
            await settle_run_async(attempt.run)
        return data
