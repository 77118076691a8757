"""Records the model calls of the whole process: of every client of httpx, httpx2 and aiohttp, made before or later.

A library is prepared when it is imported, so `attach()` itself imports nothing large.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from recorder.core.import_hooks import when_imported
from recorder.instrumentation.hosts import ALL_HOSTS, Hosts
from recorder.instrumentation.process_recordings import ProcessRecording, add, remove

#: The libraries whose clients have a method `send`.
LIBRARIES = ("httpx", "httpx2")

_lock = threading.Lock()
_is_installed = False


def attach_process(handlers: Sequence[Any], hosts: Hosts) -> Callable[[], None]:
    """Record all clients. Returns what ends it. Without handlers the default one is opened at the first model call."""
    recording = ProcessRecording(handlers, hosts)
    add(recording)
    _install()
    return partial(remove, recording)


def attach_linked() -> Callable[[], None]:
    """Record the requests of linked runs (`linked_run.py`); others pass through. Returns what ends it."""
    recording = ProcessRecording((), ALL_HOSTS, is_linked=True)
    add(recording)
    _install()
    return partial(remove, recording)


def _install() -> None:
    """Prepare the libraries, once in the process. Without recordings they pass everything through."""
    global _is_installed
    with _lock:
        is_first, _is_installed = not _is_installed, True
    if is_first:
        for name in LIBRARIES:
            when_imported(name, _prepare)
        when_imported("aiohttp", _prepare_aiohttp)


def _prepare(library: ModuleType) -> None:
    # Here, because the import takes as long as that of a small library.
    from recorder.instrumentation.process_send import replace

    replace(library)


def _prepare_aiohttp(library: ModuleType) -> None:
    from recorder.instrumentation.aiohttp_calls import replace

    replace(library)


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
