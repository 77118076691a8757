"""Waits for the awaitables that handlers return, and logs or raises the exceptions of handlers."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, NamedTuple

from recorder.core.after_fork import never_finalize
from recorder.core.blocking_loop import is_loop_running
from recorder.core.waitable import Wait

log = logging.getLogger("recorder")

#: id of a handler -> method -> number of its exceptions. No lock is used, because finalizers count here too.
_failures: dict[int, dict[str, int]] = {}


def failures(handler: Any) -> dict[str, int]:
    """How often each method of the handler raised. Only the first exception of a method is logged."""
    return dict(_failures.get(_key(handler), {}))


def _key(handler: Any) -> int:
    # Without weak references, a later handler may get the id of this one unnoticed. Its class is counted instead.
    return id(handler) if getattr(type(handler), "__weakrefoffset__", 0) else id(type(handler))


def _count(handler: Any, name: str) -> int:
    key, fresh = _key(handler), dict[str, int]()
    counts = _failures.setdefault(key, fresh)
    if counts is fresh and key == id(handler):
        weakref.finalize(handler, _failures.pop, key, None).atexit = False
    counts.setdefault(name, 0)
    # No call in this line, so no other thread runs in between.
    found = counts[name] = counts[name] + 1
    return found


class HandlerMethod:
    """One method of one handler."""

    __slots__ = ("handler", "method", "name")

    def __init__(self, handler: Any, name: str, method: Callable[..., Any]) -> None:
        self.handler = handler
        self.name = name
        self.method = method

    def failed(self, error: Exception, pending: list[Pending] | None = None) -> None:
        """Log the first error of this method and count the others. Raise it if the handler has `raise_error`."""
        # `is True`: a mock's attributes are all truthy.
        if getattr(self.handler, "raise_error", False) is True:
            discard(pending or ())
            raise error
        if _count(self.handler, self.name) == 1:
            log.warning(
                "%s.%s raised %r; the stream continues, and further errors of this method are only counted",
                type(self.handler).__name__,
                self.name,
                error,
                exc_info=error,
            )

    def add_result(self, result: Any, pending: list[Pending] | None) -> list[Pending] | None:
        """The list with the result appended, if it is awaitable. Other results are ignored."""
        if not inspect.isawaitable(result):
            return pending
        return [*(pending or ()), Pending(result, self)]


class Pending(NamedTuple):
    """An awaitable, and the method that returned it."""

    #: A `Wait`, a coroutine or another awaitable.
    thing: Awaitable[Any]
    call: HandlerMethod


def discard(pending: Iterable[Pending]) -> None:
    """Close coroutines that will not be awaited; otherwise Python warns about them."""
    for thing, _ in pending:
        if inspect.iscoroutine(thing):
            thing.close()


async def settle(pending: list[Pending]) -> None:
    """Await all, in order. If the caller is cancelled, stop; if a handler cancels itself, count it as its error."""
    left = list(pending)
    try:
        while left:
            thing, call = left.pop(0)
            try:
                await thing
            except asyncio.CancelledError as error:
                if _cancelled_from_outside():
                    raise
                call.failed(RuntimeError(f"the handler cancelled itself: {error!r}"))
            except Exception as error:
                call.failed(error)
    finally:
        discard(left)


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def settle_now(pending: list[Pending], timeout: float | None = None) -> None:
    """Wait for all in synchronous code, at most `timeout` seconds in total.

    Coroutines run on an event loop of this thread that stays open, so that a handler can use in a later call what it
    opened in an earlier one. If an event loop runs on this thread already, they run on a helper thread.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    left = list(pending)
    try:
        while left:
            thing, call = left.pop(0)
            try:
                _wait_for(thing, None if deadline is None else max(0.0, deadline - time.monotonic()))
            except (Exception, asyncio.CancelledError) as error:
                call.failed(error if isinstance(error, Exception) else RuntimeError(f"cancelled: {error!r}"))
    finally:
        discard(left)


def _wait_for(thing: Awaitable[Any], timeout: float | None) -> None:
    if isinstance(thing, Wait):
        thing.wait(timeout)
    elif not isinstance(thing, asyncio.Future):
        # A task or future belongs to the loop that made it, and continues there.
        _run(_await(thing, timeout))


async def _await(thing: Awaitable[Any], timeout: float | None) -> None:
    await asyncio.wait_for(thing, timeout)


class _ThreadLoop:
    """The event loop that belongs to one thread, and its helper thread.

    Not a `BlockingLoop`: it stays open as long as its thread, and calls nest (a handler's coroutine may call a model).
    """

    def __init__(self) -> None:
        # Without a factory, the runner would replace the thread's current event loop.
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.helper: ThreadPoolExecutor | None = None
        weakref.finalize(self, _close, self.runner, os.getpid())


class _Local(threading.local):
    loop: _ThreadLoop | None = None


_local = _Local()


def _run(work: Coroutine[Any, Any, None]) -> None:
    loop = _local.loop = _local.loop or _ThreadLoop()
    if not is_loop_running():
        loop.runner.run(work, context=copy_context())
        return
    loop.helper = loop.helper or ThreadPoolExecutor(1, thread_name_prefix="recorder-callbacks")
    loop.helper.submit(copy_context().run, _run, work).result()


def _close(runner: asyncio.Runner, pid: int) -> None:
    if os.getpid() != pid:  # a forked child: closing the shared selector would stop the parent's loop
        never_finalize(runner)
    elif not runner.get_loop().is_running():
        runner.close()


def _forget_after_fork() -> None:
    _local.loop = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
