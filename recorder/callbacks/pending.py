"""What handlers give back to be waited for, and what becomes of their exceptions."""

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

from recorder.core.blocking_loop import is_loop_running
from recorder.core.inherited import never_finalize
from recorder.core.waitable import Wait

log = logging.getLogger("recorder")

#: id of a handler -> method -> how often it raised. Without a lock: finalizers count here, too.
_failures: dict[int, dict[str, int]] = {}


def failures(handler: Any) -> dict[str, int]:
    """How often each method of the handler raised; only the first of each was logged."""
    return dict(_failures.get(_key(handler), {}))


def _key(handler: Any) -> int:
    # A handler with __slots__ and no __weakref__ cannot be told from a later one at its address.
    return id(handler) if getattr(type(handler), "__weakrefoffset__", 0) else id(type(handler))


def _count(handler: Any, name: str) -> int:
    key, fresh = _key(handler), dict[str, int]()
    counts = _failures.setdefault(key, fresh)
    if counts is fresh and key == id(handler):
        weakref.finalize(handler, _failures.pop, key, None).atexit = False
    counts.setdefault(name, 0)
    # In one step, for no other thread comes in between without a call.
    found = counts[name] = counts[name] + 1
    return found


class Call:
    """One method of one handler."""

    __slots__ = ("handler", "method", "name")

    def __init__(self, handler: Any, name: str, method: Callable[..., Any]) -> None:
        self.handler = handler
        self.name = name
        self.method = method

    def failed(self, error: Exception, pending: list[Pending] | None = None) -> None:
        """Log the first error of this method, count the others; raise where the handler wants that."""
        # `is True`: a mock's attributes are all truthy.
        if getattr(self.handler, "raise_error", False) is True:
            discard(pending or ())
            raise error
        if _count(self.handler, self.name) == 1:
            log.warning(
                "%s.%s raised %r; the stream goes on, and further errors of it are only counted",
                type(self.handler).__name__,
                self.name,
                error,
                exc_info=error,
            )

    def keep(self, result: Any, pending: list[Pending] | None) -> list[Pending] | None:
        """The list with the result, when that can be waited for; anything else means nothing."""
        if not inspect.isawaitable(result):
            return pending
        return [*(pending or ()), Pending(result, self)]


class Pending(NamedTuple):
    """Something to wait for, and the method that gave it."""

    #: A `Wait`, a coroutine or another awaitable.
    thing: Awaitable[Any]
    call: Call


def discard(pending: Iterable[Pending]) -> None:
    """Close coroutines that nobody will await, so that Python does not warn of them."""
    for thing, _ in pending:
        if inspect.iscoroutine(thing):
            thing.close()


async def settle(pending: list[Pending]) -> None:
    """Wait for all, in order. Cancelling the caller ends it; a handler's own cancellation is its failure."""
    left = list(pending)
    try:
        while left:
            thing, call = left.pop(0)
            try:
                await thing
            except asyncio.CancelledError as error:
                if _cancelled_from_outside():
                    raise
                call.failed(RuntimeError(f"cancelled by itself: {error!r}"))
            except Exception as error:
                call.failed(error)
    finally:
        discard(left)


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def settle_now(pending: list[Pending], timeout: float | None = None) -> None:
    """The same for synchronous code: at most `timeout` seconds in all.

    Coroutines run on this thread's private event loop, which is kept: what a handler opens in one call it
    can use in the next. Where a loop runs in this thread already, a thread beside it does that.
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
        # A task or future belongs to the loop that made it, and goes on there.
        _run(_await(thing, timeout))


async def _await(thing: Awaitable[Any], timeout: float | None) -> None:
    await asyncio.wait_for(thing, timeout)


class _Private:
    """One thread's own event loop, and the thread beside it.

    Not a `BlockingLoop`: it stays for as long as its thread, and calls nest (a handler's coroutine may call a model).
    """

    def __init__(self) -> None:
        # A factory of its own, because the runner would else become the thread's current event loop.
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.beside: ThreadPoolExecutor | None = None
        weakref.finalize(self, _close, self.runner, os.getpid())


class _Here(threading.local):
    private: _Private | None = None


_here = _Here()


def _run(work: Coroutine[Any, Any, None]) -> None:
    private = _here.private = _here.private or _Private()
    if not is_loop_running():
        private.runner.run(work, context=copy_context())
        return
    private.beside = private.beside or ThreadPoolExecutor(1, thread_name_prefix="recorder-callbacks")
    private.beside.submit(copy_context().run, _run, work).result()


def _close(runner: asyncio.Runner, pid: int) -> None:
    if os.getpid() != pid:  # its selector is the parent's too, and would wake the parent no more
        never_finalize(runner)
    elif not runner.get_loop().is_running():
        runner.close()


def _forget_after_fork() -> None:
    _here.private = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
