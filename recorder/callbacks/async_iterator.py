"""An asynchronous iterator over the tokens of a model that streams in another task or thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from itertools import count
from math import inf
from typing import Any, Literal

from recorder.callbacks.handlers import BaseCallbackHandler
from recorder.core.waitable import Wait
from recorder.errors import RecorderError

log = logging.getLogger("recorder")


class _DoneEvent(asyncio.Event):
    """An `asyncio.Event` that any thread may set and any event loop may await."""

    def __init__(self, on_set: Callable[[], None]) -> None:
        super().__init__()
        self._on_set = on_set
        self._over: Wait[Literal[True]] = Wait()

    def is_set(self) -> bool:
        return self._over.done

    def set(self) -> None:
        self._over.set(True)
        self._on_set()

    def clear(self) -> None:
        if self._over.done:
            self._over = Wait()

    async def wait(self) -> Literal[True]:
        return await self._over


#: A producer looks this often whether the reader's event loop was closed (seconds).
CHECK_INTERVAL = 1.0
#: A producer no longer waits for a reader that has read nothing for this long (seconds).
PATIENCE = 60.0


class _BufferSpace(Wait[None]):
    """Space for more tokens. It ends at most `PATIENCE` seconds after the last token was read.

    The reader's own task or thread does not wait, because then nobody would read.
    """

    __slots__ = ("_began_at", "_handler", "_reader")

    def __init__(self, handler: AsyncIteratorCallbackHandler, reader: asyncio.Task[Any] | None) -> None:
        super().__init__()
        self._handler = handler
        self._reader = reader
        self._began_at = time.monotonic()

    def wait(self, timeout: float | None = None) -> None:
        if self._reader is not None and _loop_here() is self._reader.get_loop():
            return
        limit = inf if timeout is None else time.monotonic() + timeout
        while not self._is_over():
            left = limit - time.monotonic()
            if left <= 0:
                raise TimeoutError
            with suppress(TimeoutError):
                super().wait(min(left, CHECK_INTERVAL))

    def __await__(self) -> Generator[None, None, None]:
        if self._reader is None or asyncio.current_task() is not self._reader:
            yield from self._awaited().__await__()

    async def _awaited(self) -> None:
        while not self._is_over():
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL):
                    await _Await(self)

    def _is_over(self) -> bool:
        """Whether there is space, or nobody reads any more."""
        gone = self._reader is not None and self._reader.get_loop().is_closed()
        if not self.done and (gone or self._idle_seconds() >= PATIENCE):
            self._handler.give_up_reader(self, gone=gone)
        return self.done

    def _idle_seconds(self) -> float:
        return time.monotonic() - max(self._began_at, self._handler.read_at)


class _Await:
    """Awaits a wait without the rules of its class."""

    def __init__(self, wait: Wait[None]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[None, None, None]:
        return Wait.__await__(self._wait)


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class AsyncIteratorCallbackHandler(BaseCallbackHandler):
    """`async for token in handler.aiter()` reads the tokens of a model that streams in another task or thread.

    While somebody iterates, a producer that is `limit` tokens ahead waits. Before that it does not wait, because the
    iteration may start after the call, in the same task: the handler then holds `limit` tokens and drops further ones,
    and the iteration raises `RecorderError` where tokens are missing. A handler may serve several runs in turn.

    A producer waits for a reader whose event loop is open, and at most 60 seconds without any token being read. After
    that it streams on as if nobody iterated, until a token is read again.
    """

    #: Set when the run ends. The application may set it too, to end the iteration.
    done: asyncio.Event

    def __init__(self, *, limit: int = 10_000) -> None:
        #: How many tokens the handler holds.
        self.limit = limit
        self.done = _DoneEvent(self._ended)
        # Reentrant, because signal handlers may call the handler. `done.set`, which finalizers call, takes no lock.
        self._lock = threading.RLock()
        self._tokens: deque[str] = deque()
        self._readers = 0
        #: Tokens dropped since the last start. The tokens that are held are older.
        self._dropped = 0
        #: What the reader waits for, and what producers wait for.
        self._changed: Wait[None] | None = None
        self._space: _BufferSpace | None = None
        self._reader: asyncio.Task[Any] | None = None
        #: When a reader took its last token (seconds on the monotonic clock).
        self.read_at = 0.0
        #: Whether producers have given up to wait for the reader.
        self._gave_up = False
        #: How often `done` was set, and whether the reader has read the last run to its end or stopped before.
        self._ends = 0
        self._end_numbers = count(1)
        self._seen = False
        self._left = False

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        """Begin a run: clear `done`, and drop the tokens that a reader who stopped early did not read."""
        self._begin()

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Begin a run: clear `done`, and drop the tokens that a reader who stopped early did not read."""
        self._begin()

    def on_llm_new_token(self, token: str, **kwargs: Any) -> Wait[None] | None:
        """Pass the token to the reader. Returns a `Wait` for space if the buffer is full."""
        if not token:
            return None
        with self._lock:
            space = self._put(token if isinstance(token, str) else str(token))
            self._wake()
        return space

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """End the iteration after the last token."""
        self.done.set()

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """End the iteration. The error itself is raised where the model was called."""
        self.done.set()

    async def aiter(self) -> AsyncIterator[str]:
        """Yield the tokens of one run until it ends.

        If the last run was read to its end, wait for the next one. Raises `RecorderError` where tokens are missing.
        """
        ends = self._enter()
        try:
            while True:
                token, changed = self._next(ends)
                if token is not None:
                    yield token
                elif changed is not None:
                    await changed
                else:
                    return
        finally:
            self._leave()

    def give_up_reader(self, space: Wait[None], *, gone: bool) -> None:
        """Wait for the reader no more. It is `gone` if its event loop was closed."""
        with self._lock:
            if self._space is space:
                self._gave_up, self._space = True, None
                if gone:
                    self._readers, self._reader, self._left = 0, None, True
        space.set(None)

    def _begin(self) -> None:
        with self._lock:
            if self._left:
                self._tokens.clear()
                self._dropped = 0
            self._left = self._seen = False
            self.done.clear()

    def _put(self, token: str) -> Wait[None] | None:
        held = len(self._tokens)
        is_read = self._readers and not self._gave_up
        # Beyond twice the limit, a producer ignores the wait for space.
        if self._dropped or held >= (2 * self.limit if is_read else self.limit):
            self._drop()
            return None
        self._tokens.append(token)
        if held < self.limit or not is_read:
            return None
        if self._space is None:
            self._space = _BufferSpace(self, self._reader)
        return self._space

    def _drop(self) -> None:
        self._dropped += 1
        # If the reader has stopped, nobody needs them.
        if self._dropped == 1 and not self._left:
            log.warning("%s", self._overflow())

    def _overflow(self) -> str:
        return (
            f"AsyncIteratorCallbackHandler holds {len(self._tokens):,} tokens that nobody reads, so further "
            "ones are dropped; iterate over aiter() in another task than the model's call, or raise limit="
        )

    def _enter(self) -> int | None:
        """How often `done` was set so far, if the last run was read to its end; else None."""
        with self._lock:
            self._readers += 1
            self._gave_up = False
            self._reader = asyncio.current_task()
            self._left = False
            return self._ends if self._seen else None

    def _next(self, ends: int | None) -> tuple[str | None, Wait[None] | None]:
        """The next token, or what to wait for until there may be one, or neither at the end."""
        with self._lock:
            if self._tokens:
                token = self._tokens.popleft()
                self.read_at, self._gave_up = time.monotonic(), False
                self._free_space()
                return token, None
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                raise RecorderError(f"{dropped:,} tokens are missing here. {self._overflow()}")
            # Before the check of `done`: an end after the check then ends this wait.
            changed = self._wait_for_change()
            if self.done.is_set() and ends != self._ends:
                self._seen = True
                return None, None
            return None, changed

    def _wait_for_change(self) -> Wait[None]:
        changed = self._changed
        if changed is None or changed.done:
            changed = self._changed = Wait()
        return changed

    def _free_space(self) -> None:
        if self._space is not None and len(self._tokens) <= self.limit // 2:
            self._space.set(None)
            self._space = None

    def _leave(self) -> None:
        with self._lock:
            self._readers = max(0, self._readers - 1)
            self._reader = None
            self._left = not self._seen
            if self._space is not None and not self._readers:
                self._space.set(None)
                self._space = None

    def _ended(self) -> None:
        """Called by `done.set`. Takes no lock, because finalizers call it too."""
        self._ends = next(self._end_numbers)
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set(None)
