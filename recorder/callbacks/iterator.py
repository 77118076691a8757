"""Tokens as an asynchronous iterator, beside the call that makes them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from itertools import count
from typing import Any, Literal

from recorder.callbacks.handlers import BaseCallbackHandler
from recorder.core.waitable import Wait
from recorder.errors import RecorderError

log = logging.getLogger("recorder")


class _Done(asyncio.Event):
    """An `asyncio.Event` that any thread may set, on any loop."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed
        self._over: Wait[Literal[True]] = Wait()

    def is_set(self) -> bool:
        return self._over.done

    def set(self) -> None:
        self._over.set(True)
        self._changed()

    def clear(self) -> None:
        if self._over.done:
            self._over = Wait()

    async def wait(self) -> Literal[True]:
        return await self._over


class _Room(Wait[None]):
    """Room for more tokens. Whoever would keep the reader from running by waiting does not wait."""

    __slots__ = ("_reader",)

    def __init__(self, reader: asyncio.Task[Any] | None) -> None:
        super().__init__()
        self._reader = reader

    def wait(self, timeout: float | None = None) -> None:
        if self._reader is None or _loop_here() is not self._reader.get_loop():
            super().wait(timeout)

    def __await__(self) -> Generator[None, None, None]:
        if self._reader is None or asyncio.current_task() is not self._reader:
            yield from super().__await__()


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class AsyncIteratorCallbackHandler(BaseCallbackHandler):
    """`async for token in handler.aiter()`, while a model streams in another task or thread.

    While someone iterates, a producer that is `limit` tokens ahead waits for room. Before that nothing can
    wait (the iterating may come after the call, in the same task): `limit` tokens are held, further ones
    dropped, and the iteration says so. The handler may be used for one run after another.
    """

    #: Set when the run is over; the application may set it too, to end the iteration.
    done: asyncio.Event

    def __init__(self, *, limit: int = 10_000) -> None:
        #: Tokens.
        self.limit = limit
        self.done = _Done(self._ended)
        # Reentrant: signal handlers may come in between. `done.set`, which finalizers call, does without.
        self._lock = threading.RLock()
        self._tokens: deque[str] = deque()
        self._readers = 0
        #: Tokens that found no room since the last start; what is held is from before them.
        self._dropped = 0
        #: What the reader sleeps on, and what producers sleep on.
        self._news: Wait[None] | None = None
        self._room: _Room | None = None
        self._reader: asyncio.Task[Any] | None = None
        #: How often `done` was set, and whether a reader has seen the last run to its end or left it.
        self._ends = 0
        self._end_numbers = count(1)
        self._seen = False
        self._left = False

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        """Begin a run: `done` is cleared, and what a reader who left did not take is gone."""
        self._begin()

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Begin a run: `done` is cleared, and what a reader who left did not take is gone."""
        self._begin()

    def on_llm_new_token(self, token: str, **kwargs: Any) -> Wait[None] | None:
        """Hand the token to the reader; what it returns is over when there is room again."""
        if not token:
            return None
        with self._lock:
            room = self._put(token if isinstance(token, str) else str(token))
            self._wake()
        return room

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """End the iteration after the last token."""
        self.done.set()

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """End the iteration as well; the error itself is raised where the model was called."""
        self.done.set()

    async def aiter(self) -> AsyncIterator[str]:
        """The tokens of one run, until it is over.

        After a run that was read to its end, it waits for the next one. Raises `RecorderError` at the place
        where tokens are missing.
        """
        ends = self._enter()
        try:
            while True:
                token, news = self._take(ends)
                if token is not None:
                    yield token
                elif news is not None:
                    await news
                else:
                    return
        finally:
            self._leave()

    def _begin(self) -> None:
        with self._lock:
            if self._left:
                self._tokens.clear()
                self._dropped = 0
            self._left = self._seen = False
            self.done.clear()

    def _put(self, token: str) -> Wait[None] | None:
        held = len(self._tokens)
        # Past twice the limit someone does not wait for the room that it was told to wait for.
        if self._dropped or held >= (2 * self.limit if self._readers else self.limit):
            self._drop()
            return None
        self._tokens.append(token)
        if held < self.limit or not self._readers:
            return None
        if self._room is None:
            self._room = _Room(self._reader)
        return self._room

    def _drop(self) -> None:
        self._dropped += 1
        # After a reader who left, nobody misses them.
        if self._dropped == 1 and not self._left:
            log.warning("%s", self._overflow())

    def _overflow(self) -> str:
        return (
            f"AsyncIteratorCallbackHandler holds {len(self._tokens):,} tokens that nobody reads, so further "
            "ones are dropped; iterate over aiter() in another task than the model's call, or raise limit="
        )

    def _enter(self) -> int | None:
        """How often `done` was set so far, when it stands for a run that was read already."""
        with self._lock:
            self._readers += 1
            self._reader = asyncio.current_task()
            self._left = False
            return self._ends if self._seen else None

    def _take(self, ends: int | None) -> tuple[str | None, Wait[None] | None]:
        """The next token, or what to sleep on until there may be one, or neither at the end."""
        with self._lock:
            if self._tokens:
                token = self._tokens.popleft()
                self._make_room()
                return token, None
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                raise RecorderError(f"{dropped:,} tokens are missing here. {self._overflow()}")
            news = (
                self._listen()
            )  # before looking whether the run is over: an end that comes after that wakes
            if self.done.is_set() and ends != self._ends:
                self._seen = True
                return None, None
            return None, news

    def _listen(self) -> Wait[None]:
        news = self._news
        if news is None or news.done:
            news = self._news = Wait()
        return news

    def _make_room(self) -> None:
        if self._room is not None and len(self._tokens) <= self.limit // 2:
            self._room.set(None)
            self._room = None

    def _leave(self) -> None:
        with self._lock:
            self._readers -= 1
            self._reader = None
            self._left = not self._seen
            if self._room is not None and not self._readers:
                self._room.set(None)
                self._room = None

    def _ended(self) -> None:
        """Called by `done.set`, also from finalizers: takes no lock."""
        self._ends = next(self._end_numbers)
        self._wake()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set(None)
