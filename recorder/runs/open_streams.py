"""Closes the streams that are still open at exit.

Otherwise Python would close these generators later, after the connections and the recorder were closed. At that point
Python 3.13.0 crashes in the HTTP client (segmentation fault).
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

from recorder.core.after_fork import never_finalize
from recorder.core.living import Living
from recorder.runs.collected_streams import collector
from recorder.runs.open_response import leave_open

log = logging.getLogger("recorder")

#: How long exit waits for the handlers of streams that the garbage collector closed (seconds).
DRAIN_TIMEOUT = 5.0

StreamT = TypeVar("StreamT", bound=Generator[Any, Any, Any])

#: The open streams of synchronous code.
_streams: Living[Generator[Any, Any, Any]] = Living()

#: The open runs of event loops.
_async_runs: Living[AsyncRun] = Living()


class AsyncRun(Protocol):
    """A run whose stream only its event loop can close."""

    def end_at_exit(self) -> None:
        """Report that the stream was left."""


def closed_at_exit(stream: StreamT) -> StreamT:
    """Return the same stream. If it is still open at exit, it is closed then."""
    _streams.add(stream)
    _register()
    return stream


def ended_at_exit(run: AsyncRun) -> None:
    """If the run is still open at exit, and its event loop does not run, its end is reported then."""
    _async_runs.add(run)
    _register()


def _register() -> None:
    # Exit functions run in reverse order. Registered again for each stream, this one always runs before those that
    # drain the recorder's queue and close the connections.
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    try:
        _end_streams()
        _drain()
    finally:
        leave_open()


def _end_streams() -> None:
    for stream in _streams.now():
        # A generator that another thread is running cannot be closed.
        if inspect.getgeneratorstate(stream) != inspect.GEN_RUNNING:
            _call(stream.close)
    for run in _async_runs.now():
        _call(run.end_at_exit)


def _drain() -> None:
    try:
        collector.drain(DRAIN_TIMEOUT)
    except TimeoutError:
        log.warning(
            "The handlers of streams that the garbage collector closed have not returned after %g s; "
            "the process ends without them",
            DRAIN_TIMEOUT,
        )


def _call(close: Callable[[], None]) -> None:
    try:
        close()
    except Exception as error:
        log.warning("A stream that was left open raised %r when it was closed at exit", error, exc_info=error)


def _leave_to_parent() -> None:
    """In a forked child: never close the parent's streams, which the parent goes on reading."""
    never_finalize(*_streams.now(), *_async_runs.now())
    _streams.clear()
    _async_runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
