"""Closes the streams that were left open, before Python ends.

Python closes a generator that is left over while it tears itself down, after the connections and the recorder are
gone. There Python 3.13.0 crashes in the HTTP client (segmentation fault).
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import weakref
from collections.abc import Generator
from typing import Any, TypeVar

from recorder.core.inherited import keep_for_ever
from recorder.models.collector import collector

log = logging.getLogger("recorder")

#: How long the callbacks of streams that the collector closed may take at exit (seconds).
DRAIN_TIMEOUT = 5.0

StreamT = TypeVar("StreamT", bound=Generator[Any, Any, Any])

#: Each stream by its id, until it is collected.
_streams: weakref.WeakValueDictionary[int, Generator[Any, Any, Any]] = weakref.WeakValueDictionary()


def closed_at_exit(stream: StreamT) -> StreamT:
    """The same stream; if it is still open when Python ends, it is closed there."""
    _streams[id(stream)] = stream
    # Exit functions run in reverse order: registered again for each stream, this one runs before the recorder drains
    # its queue and before the connections are closed, whichever module was imported first.
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    return stream


def _close_all() -> None:
    for reference in _streams.valuerefs():
        stream = reference()
        # One that a thread is running cannot be closed from here.
        if stream is not None and inspect.getgeneratorstate(stream) != inspect.GEN_RUNNING:
            _close(stream)
    collector.drain(DRAIN_TIMEOUT)


def _close(stream: Generator[Any, Any, Any]) -> None:
    try:
        stream.close()
    except Exception as error:
        log.warning("A stream that was left open raised %r when it was closed at exit", error, exc_info=error)


def _leave_to_parent() -> None:
    """In a forked child: the streams are the parent's, which reads on; nothing closes them here, at no time."""
    keep_for_ever(*(stream for reference in _streams.valuerefs() if (stream := reference()) is not None))
    _streams.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
