"""Reads one database on a thread of its own, for synchronous callers and any number of event loops.

It is a thread and not a `BlockingLoop`, because one connection serves all replays of a database in this process, and
because followers are woken by commits while no call runs. Followers of one run make the same queries; between two
commits each of those queries is run once.

The garbage collector may collect a replay or a follower on any thread, also inside of this module. The methods that a
finalizer calls, `unfollow` and `leave`, therefore take no lock and do not wait. They only schedule a call, and the
reader's thread does the work.
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
from contextvars import Context
from typing import Any, TypeVar

from recorder.core.after_fork import never_finalize
from recorder.core.collection import collection
from recorder.core.waitable import end_tasks
from recorder.errors import Closed, StoreError
from recorder.replay.playback import QueryStep
from recorder.storage.dialects import Watch, masked
from recorder.storage.reader import DatabaseReader
from recorder.storage.row_checks import readable

log = logging.getLogger("recorder")

T = TypeVar("T")
Method = Callable[..., Awaitable[T]]

#: A follower reads again after this time (seconds), also if no commit was noticed.
POLL_INTERVAL = 1.0
#: How long `close` waits for a database that does not answer (seconds).
CLOSE_TIMEOUT = 5.0
_CLOSED = "This replay is closed; make another one with Replay(url)"

_lock = threading.Lock()
#: By URL and purpose.
_readers: dict[tuple[str, str], ReaderThread] = {}
#: Readers of collected replays, once for each; their count of users is still to be lowered.
_left: deque[ReaderThread] = deque()


def shared(url: str, purpose: str = "replay") -> ReaderThread:
    """The shared reader of a database, with one user more. Each user calls `close` or `leave` once.

    A reader has one connection, so long queries of another purpose get a reader of their own. Raises `ConfigError` for
    an invalid URL.
    """
    _release_collected()
    with _lock:
        reader = _readers.get((url, purpose))
        if reader is None:
            reader = _readers[url, purpose] = ReaderThread(url, purpose)
        reader.users += 1
        return reader


def _release_collected() -> None:
    """Release the readers of collected replays."""
    while _left:
        with suppress(IndexError):  # another thread was faster
            _left.popleft().release()


class ReaderThread:
    """Runs queries of `DatabaseReader` on its thread; the first query connects."""

    def __init__(self, url: str, purpose: str = "replay") -> None:
        self.url = url
        self.purpose = purpose
        self.users = 0
        #: Grows whenever something may have been committed. Any thread may read it.
        self.version = 0
        self._database = DatabaseReader(url)
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opened = False
        self._query_lock: asyncio.Lock | None = None
        # How often the database did not answer, and the last error of that kind.
        self._failures = 0
        self._failure: StoreError | None = None
        # State of the followers, used only on the reader's loop: results since the last commit, by key of the query;
        # the event of the next commit; the followers themselves.
        self._answers: dict[Any, asyncio.Future[Any]] = {}
        self._changed: asyncio.Event | None = None
        self._followers: set[object] = set()
        self._watching: asyncio.Task[None] | None = None
        #: The current watch, and earlier ones that have not ended yet.
        self._watches: set[asyncio.Task[None]] = set()
        self._watch_started: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    def leave_to_parent(self) -> None:
        """Begin anew in a forked child: the thread, its loop and its tasks belong to the parent."""
        never_finalize(
            self._loop, self._answers, self._watches, self._watch_started, self._changed, self._ending
        )
        self._reset()

    def ask(self, method: Method[T], *arguments: Any) -> Future[T]:
        """Run a method of `DatabaseReader`. Wait with `.result()`, or with `await asyncio.wrap_future(...)`."""
        return self._submit(self._answer(method, arguments))

    def answer_to(self, step: QueryStep, *, follow: bool) -> Future[Any]:
        """Run the query of a playback. With `follow`, all followers share its result until the next commit."""
        if follow:
            return self._submit(self._answer_once(step))
        return self.ask(step.method, *step.arguments)

    def follow(self, follower: object) -> Future[None]:
        """Watch for commits on behalf of one more follower. Call `unfollow` once for it, also if this failed."""
        return self._submit(self._follow(follower))

    def unfollow(self, follower: object) -> None:
        """Remove a follower; the last one ends the watch. A finalizer may call this."""
        self._call(self._unfollow, follower)

    def after(self, version: int) -> Future[int]:
        """The first version after this one, as soon as there is one."""
        return self._submit(self._after(version))

    def close(self) -> None:
        """Remove a user. The last one closes the connection, ends the thread, and waits for that.

        In the garbage collector it neither locks nor waits.
        """
        if collection.runs_here:
            self.leave()
            return
        _release_collected()
        self.release()
        thread = self._thread
        if not self._closed or thread is None or thread is threading.current_thread():
            return
        thread.join(CLOSE_TIMEOUT)
        if thread.is_alive():
            log.warning("%s does not answer; its connection was not closed", masked(self.url))

    def leave(self) -> None:
        """Remove a user from a finalizer: nothing is locked or waited for."""
        _left.append(self)
        self._call(_release_collected)

    def release(self) -> None:
        """Remove a user. After the last one the thread closes the connection and ends by itself."""
        with _lock:
            self.users -= 1
            if self.users > 0:
                return
            if _readers.get((self.url, self.purpose)) is self:
                del _readers[self.url, self.purpose]
        with self._starting:
            self._closed = True
        self._call(self._begin_end)

    # -- on the reader's loop -----------------------------------------------------------------------------------

    async def _answer(self, method: Method[T], arguments: tuple[Any, ...]) -> T:
        if self._query_lock is None:
            self._query_lock = asyncio.Lock()
        failures = self._failures
        async with self._query_lock:  # one connection
            if self._failure is not None and failures < self._failures:
                # The database stopped answering while this query waited for its turn. Without this error each of many
                # queries would wait for a timeout of its own.
                raise StoreError(str(self._failure)) from self._failure
            try:
                return await self._answer_alone(method, arguments)
            except StoreError as error:
                if self._database.is_away(error):
                    self._failures, self._failure = self._failures + 1, error
                raise

    async def _answer_alone(self, method: Method[T], arguments: tuple[Any, ...]) -> T:
        with readable(self._database.errors):
            if not self._opened:
                await self._database.open()
                self._opened = True
            return await method(self._database, *arguments)

    async def _answer_once(self, step: QueryStep) -> Any:
        found = self._answers.get(step.key)
        if found is None:
            found = asyncio.ensure_future(self._answer(step.method, step.arguments))
            self._answers[step.key] = found
            found.add_done_callback(lambda done: self._forget_failed(step, done))
        return await asyncio.shield(found)

    def _forget_failed(self, step: QueryStep, done: asyncio.Future[Any]) -> None:
        """Drop a result that is an error, so that the next follower runs the query again."""
        failed = done.cancelled() or done.exception() is not None
        if failed and self._answers.get(step.key) is done:
            del self._answers[step.key]

    async def _follow(self, follower: object) -> None:
        self._followers.add(follower)
        if self._watching is None or self._watching.done():
            self._watch_started = asyncio.get_running_loop().create_future()
            self._changed = asyncio.Event()
            self._watching = asyncio.create_task(self._watch(self._watch_started))
            self._watches.add(self._watching)
            self._watching.add_done_callback(self._watches.discard)
        assert self._watch_started is not None
        await asyncio.shield(self._watch_started)

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

    async def _watch(self, started: asyncio.Future[None]) -> None:
        """Advance at each commit, and after POLL_INTERVAL seconds without one. Connect again after an error."""
        watch: Watch | None = None
        try:
            watch = await self._answer(DatabaseReader.watch, ())
            started.set_result(None)
            while self._watching is asyncio.current_task():
                try:
                    watch = watch or await self._database.watch()
                    await watch.wait_for_commit(POLL_INTERVAL)
                except Exception:  # followers get the error from their own queries
                    await _closed(watch)
                    watch = None
                    await asyncio.sleep(POLL_INTERVAL)
                self._advance()
        except Exception as error:  # the watch never began; the next follower starts another one
            started.set_exception(error)
            started.exception()  # mark it as retrieved: the follower may have gone
        finally:
            started.cancel()  # does nothing to a future that has a result
            await _closed(watch)

    def _stop_watching(self) -> None:
        watching, self._watching = self._watching, None
        # A watch that still connects is not cancelled, since a database driver may hang if it is. It ends by itself.
        if watching is not None and self._watch_started is not None and self._watch_started.done():
            watching.cancel()

    def _advance(self) -> None:
        """Drop the shared results, then wake the followers."""
        self._answers.clear()
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        if changed is not None:
            changed.set()

    def _begin_end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        """Close the connection and end the thread, within some seconds."""
        try:
            if self._changed is not None:
                self._changed.set()
            self._stop_watching()
            await _wait_for_end(list(self._watches))
            # Queries that nobody waits for any more, and tasks of the database driver that close cancelled calls.
            await _wait_for_end(_other_tasks())
            await end_tasks(POLL_INTERVAL)
            await _wait_for_end([asyncio.ensure_future(self._database.close())])
            await _wait_for_end(_other_tasks())
            await end_tasks(POLL_INTERVAL)
        finally:
            asyncio.get_running_loop().stop()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        try:
            with self._starting:  # so that no query reaches a loop that is stopping
                return asyncio.run_coroutine_threadsafe(work, self._running())
        except Closed:
            work.close()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise Closed(_CLOSED)
        if self._loop is None:
            # In an empty context: the loop keeps the context that it is made in, and all that the caller put there.
            loop = Context().run(asyncio.new_event_loop)
            self._thread = threading.Thread(target=_run, args=(loop,), name="recorder-reader", daemon=True)
            self._thread.start()
            self._loop = loop
        return self._loop

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the reader's loop, if there is one. Takes no lock and does not wait."""
        loop = self._loop
        if loop is None:
            return
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(function, *arguments)


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for reader in {*_readers.values(), *_left}:
        reader.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _other_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def _wait_for_end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until these tasks end, at most POLL_INTERVAL seconds."""
    if tasks:
        await asyncio.wait(tasks, timeout=POLL_INTERVAL)


async def _closed(watch: Watch | None) -> None:
    if watch is not None:
        await watch.close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
