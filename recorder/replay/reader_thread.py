"""A library on a thread of its own: synchronous callers and any number of event loops ask it alike.

All replays of one database in a process share one. Who follows asks the same questions as the others who follow the
same run, and between two commits each question is put to the database once.

Replays and followers may be collected by the garbage collector, on any thread and in the middle of anything, also of
this module. What a finalizer calls, `unfollow` and `leave`, takes no lock and waits for nothing: it only appends, and
the reader's thread acts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from recorder.core.inherited import keep_for_ever
from recorder.core.waitable import end_tasks
from recorder.errors import Closed, StoreError
from recorder.replay.playback import Ask
from recorder.storage.dialects import Watch, masked
from recorder.storage.reader import Library
from recorder.storage.row_checks import readable

log = logging.getLogger("recorder")

T = TypeVar("T")
Method = Callable[..., Awaitable[T]]

#: The longest that who follows waits before it looks again without having been told of anything (seconds).
PATIENCE = 1.0
#: The longest that `close` waits for a database that does not answer (seconds).
CLOSE_TIMEOUT = 5.0
_CLOSED = "This replay is closed; make another one with Replay(url)"

_lock = threading.Lock()
_readers: dict[str, Reader] = {}
#: Readers that have one user less, because a replay was collected.
_left: deque[Reader] = deque()


def shared(url: str) -> Reader:
    """The reader of this database, one more user of it; `close` or `leave` it once. Raises for a URL that cannot be."""
    _tend()
    with _lock:
        reader = _readers.get(url)
        if reader is None:
            reader = _readers[url] = Reader(url)
        reader.users += 1
        return reader


def _tend() -> None:
    """Let go of the databases that collected replays have left."""
    while _left:
        with suppress(IndexError):  # another thread was faster
            _left.popleft().release()


class Reader:
    """Answers questions; connects with the first one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.users = 0
        #: Grows whenever something may have been committed; read from any thread.
        self.version = 0
        self._library = Library(url)
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opened = False
        self._asking: asyncio.Lock | None = None
        # How often the database was found to be away, and how that was told last.
        self._failures = 0
        self._failure: StoreError | None = None
        # Of those who follow, on the reader's loop: what was answered since the last commit, who waits for the next.
        self._answers: dict[Any, asyncio.Future[Any]] = {}
        self._changed: asyncio.Event | None = None
        self._followers: set[object] = set()
        self._watching: asyncio.Task[None] | None = None
        #: That one, and those before it that are not over yet.
        self._watches: set[asyncio.Task[None]] = set()
        self._begun: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    def leave_to_parent(self) -> None:
        """In a forked child: the thread, its loop and all that waits there are the parent's; begin anew."""
        keep_for_ever(self._loop, self._answers, self._watches, self._begun, self._changed, self._ending)
        self._begin()

    def ask(self, method: Method[T], *given: Any) -> Future[T]:
        """What a method of `Library` answers, to be waited for: `.result()`, or `await asyncio.wrap_future(...)`."""
        return self._submit(self._answer(method, given))

    def answer_to(self, step: Ask, *, follow: bool) -> Future[Any]:
        """The answer to a step of a play. Where one follows, who asked the same since the last commit asked for all."""
        if follow:
            return self._submit(self._answer_once(step))
        return self.ask(step.method, *step.given)

    def follow(self, follower: object) -> Future[None]:
        """Begin to watch for one more follower; `unfollow` it once, whatever came of this."""
        return self._submit(self._follow(follower))

    def unfollow(self, follower: object) -> None:
        """One follower less; the last one ends the watch. For finalizers, too."""
        self._call(self._unfollow, follower)

    def after(self, version: int) -> Future[int]:
        """The version after this one: at once, or when something may have been committed."""
        return self._submit(self._after(version))

    def close(self) -> None:
        """One user less; the last one lets go of the database and ends the thread."""
        _tend()
        self.release()
        thread = self._thread
        if not self._closed or thread is None or thread is threading.current_thread():
            return
        thread.join(CLOSE_TIMEOUT)
        if thread.is_alive():
            log.warning("%s does not answer, so it is left without closing the connection", masked(self.url))

    def leave(self) -> None:
        """One user less, who was collected: for finalizers."""
        _left.append(self)
        self._call(_tend)

    def release(self) -> None:
        """One user less; after the last one the reader's thread lets go of the database and ends."""
        with _lock:
            self.users -= 1
            if self.users > 0:
                return
            if _readers.get(self.url) is self:
                del _readers[self.url]
        with self._starting:
            self._closed = True
        self._call(self._begin_end)

    # -- on the reader's loop -----------------------------------------------------------------------------------

    async def _answer(self, method: Method[T], given: tuple[Any, ...]) -> T:
        if self._asking is None:
            self._asking = asyncio.Lock()
        failures = self._failures
        async with self._asking:  # one connection
            if self._failure is not None and failures < self._failures:
                # Found while this question waited for its turn; each of many would wait for the silence of its own.
                raise StoreError(str(self._failure)) from self._failure
            try:
                return await self._answer_alone(method, given)
            except StoreError as error:
                if self._library.is_away(error):
                    self._failures, self._failure = self._failures + 1, error
                raise

    async def _answer_alone(self, method: Method[T], given: tuple[Any, ...]) -> T:
        with readable(self._library.errors):
            if not self._opened:
                await self._library.open()
                self._opened = True
            return await method(self._library, *given)

    async def _answer_once(self, step: Ask) -> Any:
        found = self._answers.get(step.key)
        if found is None:
            found = asyncio.ensure_future(self._answer(step.method, step.given))
            self._answers[step.key] = found
            found.add_done_callback(lambda done: self._forget_failed(step, done))
        return await asyncio.shield(found)

    def _forget_failed(self, step: Ask, done: asyncio.Future[Any]) -> None:
        """An error is not an answer for whoever asks next."""
        failed = done.cancelled() or done.exception() is not None
        if failed and self._answers.get(step.key) is done:
            del self._answers[step.key]

    async def _follow(self, follower: object) -> None:
        self._followers.add(follower)
        if self._watching is None or self._watching.done():
            self._begun = asyncio.get_running_loop().create_future()
            self._changed = asyncio.Event()
            self._watching = asyncio.create_task(self._watch(self._begun))
            self._watches.add(self._watching)
            self._watching.add_done_callback(self._watches.discard)
        assert self._begun is not None
        await asyncio.shield(self._begun)

    def _unfollow(self, follower: object) -> None:
        self._followers.discard(follower)
        if not self._followers:
            self._stop_watching()
            self._answers.clear()

    async def _after(self, version: int) -> int:
        while self.version == version and self._changed is not None and self._ending is None:
            await self._changed.wait()
        if self._ending is not None:
            raise Closed(_CLOSED)
        return self.version

    async def _watch(self, begun: asyncio.Future[None]) -> None:
        """Advance at each commit, and now and then without one; watch anew when the connection is gone."""
        watch: Watch | None = None
        try:
            watch = await self._answer(Library.watch, ())
            begun.set_result(None)
            while self._watching is asyncio.current_task():
                try:
                    watch = watch or await self._library.watch()
                    await watch.wait_for_commit(PATIENCE)
                except Exception:  # the server is away: its questions say so, the watch only tries again
                    await _closed(watch)
                    watch = None
                    await asyncio.sleep(PATIENCE)
                self._advance()
        except Exception as error:  # it never began; the next follower tries again
            begun.set_exception(error)
            begun.exception()  # who waited for it may have left
        finally:
            begun.cancel()  # nothing where it began
            await _closed(watch)

    def _stop_watching(self) -> None:
        watching, self._watching = self._watching, None
        # One that is about to begin ends by itself: a driver that is left while it connects answers to nobody.
        if watching is not None and self._begun is not None and self._begun.done():
            watching.cancel()

    def _advance(self) -> None:
        """Forget the answers, then let the followers ask again."""
        self._answers.clear()
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        if changed is not None:
            changed.set()

    def _begin_end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        """Let go of the database and end the thread, within some seconds."""
        try:
            if self._changed is not None:
                self._changed.set()
            self._stop_watching()
            await _over(list(self._watches))
            # Questions whose askers have left, and what drivers do of their own: they close what was cut short.
            await _over(_others())
            await end_tasks(PATIENCE)
            await _over([asyncio.ensure_future(self._library.close())])
            await _over(_others())
            await end_tasks(PATIENCE)
        finally:
            asyncio.get_running_loop().stop()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        try:
            with self._starting:  # so that nothing is handed to a loop that ends
                return asyncio.run_coroutine_threadsafe(work, self._running())
        except Closed:
            work.close()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise Closed(_CLOSED)
        if self._loop is None:
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(loop,), name="recorder-reader", daemon=True)
            self._thread.start()
            self._loop = loop
        return self._loop

    def _call(self, function: Callable[..., None], *given: Any) -> None:
        """Call it on the reader's loop, where there is one; without a lock and without waiting."""
        loop = self._loop
        if loop is None:
            return
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(function, *given)


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for reader in {*_readers.values(), *_left}:
        reader.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _others() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def _over(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for these, for a while."""
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE)


async def _closed(watch: Watch | None) -> None:
    if watch is not None:
        await watch.close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
