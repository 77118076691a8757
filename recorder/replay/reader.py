"""A library on a thread of its own: synchronous callers and any number of event loops ask it alike.

All replays of one database in a process share one. Who follows asks the same questions as the others who follow the
same run, and between two commits each question is put to the database once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from recorder.dialects import Watch, said
from recorder.dialects.inherited import keep_for_ever
from recorder.errors import Closed, RecorderError, StoreError
from recorder.library import Library
from recorder.replay.play import Ask

T = TypeVar("T")
Method = Callable[..., Awaitable[T]]

#: The longest that who follows waits before it looks again without having been told of anything (seconds).
PATIENCE = 1.0

_lock = threading.Lock()
_readers: dict[str, Reader] = {}


def shared(url: str) -> Reader:
    """The reader of this database, one more user of it; `close` it once. Raises for a URL that cannot be."""
    with _lock:
        reader = _readers.get(url)
        if reader is None:
            reader = _readers[url] = Reader(url)
        reader.users += 1
        return reader


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
        # Of those who follow, on the reader's loop: what was answered since the last commit, who waits for the next.
        self._answers: dict[tuple[Any, ...], asyncio.Future[Any]] = {}
        self._news: asyncio.Event | None = None
        self._followers = 0
        self._watching: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None

    def leave_to_parent(self) -> None:
        """In a forked child: the thread, its loop and all that waits there are the parent's; begin anew."""
        keep_for_ever(self._loop, self._answers, self._watching, self._begun, self._news)
        self._begin()

    def ask(self, method: Method[T], *given: Any) -> Future[T]:
        """What a method of `Library` answers, to be waited for: `.result()`, or `await asyncio.wrap_future(...)`."""
        return self._submit(self._answer(method, given))

    def ask_once(self, knowing: str, method: Method[T], *given: Any) -> Future[T]:
        """The same; who asked it before, since the last commit and knowing the same, has asked for all."""
        return self._submit(self._answer_once(knowing, method, given))

    def answer_to(self, step: Ask, *, follow: bool) -> Future[Any]:
        """The answer to a step of a play, got together with others where one follows."""
        if follow:
            return self.ask_once(step.knowing, step.method, *step.given)
        return self.ask(step.method, *step.given)

    def follow(self) -> Future[None]:
        """Begin to watch, for one more follower; `unfollow` once."""
        return self._submit(self._follow())

    def unfollow(self) -> None:
        """One follower less; the last one ends the watch."""
        with suppress(Closed):  # which ended it
            self._submit(self._unfollow())

    def after(self, version: int) -> Future[int]:
        """The version after this one: at once, or when something may have been committed."""
        return self._submit(self._after(version))

    def close(self) -> None:
        """One user less; the last one lets go of the database and ends the thread."""
        with _lock:
            self.users -= 1
            if self.users > 0:
                return
            if _readers.get(self.url) is self:
                del _readers[self.url]
        with self._starting:
            self._closed, loop, thread = True, self._loop, self._thread
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    # -- on the reader's loop -----------------------------------------------------------------------------------

    async def _answer(self, method: Method[T], given: tuple[Any, ...]) -> T:
        if self._asking is None:
            self._asking = asyncio.Lock()
        async with self._asking:  # one connection
            try:
                if not self._opened:
                    await self._library.open()
                    self._opened = True
                return await method(self._library, *given)
            except self._library.errors as error:
                raise StoreError(f"The database says: {said(error)}") from error

    async def _answer_once(self, knowing: str, method: Method[T], given: tuple[Any, ...]) -> T:
        key = (knowing, method, *given)
        found = self._answers.get(key)
        if found is None:
            found = self._answers[key] = asyncio.ensure_future(self._answer(method, given))
        return await asyncio.shield(found)

    async def _follow(self) -> None:
        self._followers += 1
        if self._watching is None:
            self._begun = asyncio.get_running_loop().create_future()
            self._news = asyncio.Event()
            self._watching = asyncio.create_task(self._watch(self._begun))
        assert self._begun is not None
        await asyncio.shield(self._begun)

    async def _unfollow(self) -> None:
        self._followers -= 1
        if self._followers == 0:
            await self._stop_watching()

    async def _after(self, version: int) -> int:
        while self.version == version and self._news is not None:
            await self._news.wait()
        return self.version

    async def _watch(self, begun: asyncio.Future[None]) -> None:
        """Advance at each commit, and now and then without one; watch anew when the connection is gone."""
        watch: Watch | None = None
        try:
            watch = await self._answer(Library.watch, ())
            begun.set_result(None)
            while True:
                try:
                    watch = watch or await self._library.watch()
                    await watch.news(PATIENCE)
                except Exception:  # the server is away: its questions say so, the watch only tries again
                    await _closed(watch)
                    watch = None
                    await asyncio.sleep(PATIENCE)
                self._advance()
        except RecorderError as error:  # it never began
            begun.set_exception(error)
        finally:
            begun.cancel()  # who waits for it has left, too; nothing where it began
            await _closed(watch)

    def _advance(self) -> None:
        """Forget the answers, then let the followers ask again."""
        self._answers.clear()
        self.version += 1
        news, self._news = self._news, asyncio.Event()
        if news is not None:
            news.set()

    async def _stop_watching(self) -> None:
        task, self._watching = self._watching, None
        if task is None or self._begun is None:
            return
        # A driver whose connecting is cancelled leaves a thread or a connection behind, so connecting may end first.
        await asyncio.wait((self._begun,), timeout=PATIENCE)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        self._answers.clear()

    async def _end(self) -> None:
        await self._stop_watching()
        # Questions whose askers have left, and what drivers do of their own: they close what was cut short.
        await _over(_others())
        for task in (stuck := _others()):
            task.cancel()
        await _over(stuck)
        await self._library.close()
        await _over(_others())

    # -- the thread -----------------------------------------------------------------------------------------------

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._running())
        except Closed:
            work.close()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._closed:
                raise Closed("This replay is closed; make another one with Replay(url)")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="recorder-reader", daemon=True
                )
                self._thread.start()
            return self._loop


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for reader in _readers.values():
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
    loop.run_forever()
