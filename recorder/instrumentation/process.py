"""Which recorders record the whole process, and the default one.

A library is prepared when it is imported, so `attach()` itself imports nothing large.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from recorder.core.import_hooks import when_imported
from recorder.instrumentation.hosts import Hosts

if TYPE_CHECKING:
    from recorder.chat_history_callback import ChatHistoryCallback

LIBRARIES = ("httpx", "httpx2")

_lock = threading.RLock()
_is_installed = False
_default: ChatHistoryCallback | None = None


@dataclass(eq=False, slots=True)
class ProcessRecording:
    """One `attach()` without a client."""

    #: Empty for the default recorder.
    handlers: Sequence[Any]
    hosts: Hosts
    #: Its `Sender`, once a request was sent.
    sender: Any = None

    def is_alike(self, other: ProcessRecording) -> bool:
        """Whether both record the same hosts for the same handlers."""
        return self.hosts == other.hosts and [*map(id, self.handlers)] == [*map(id, other.handlers)]


#: Replaced as a whole, because requests read it without a lock.
_recordings: tuple[ProcessRecording, ...] = ()


def recordings() -> tuple[ProcessRecording, ...]:
    """Those that record the process now."""
    return _recordings


def attach_process(handlers: Sequence[Any], hosts: Hosts) -> Callable[[], None]:
    """Record all clients. Returns what ends it. Without handlers the default one is opened at the first model call."""
    global _recordings
    recording = ProcessRecording(handlers, hosts)
    with _lock:
        if not any(recording.is_alike(other) for other in _recordings):
            _recordings = (*_recordings, recording)
        _install()

    def detach() -> None:
        global _recordings
        with _lock:
            _recordings = tuple(other for other in _recordings if not recording.is_alike(other))

    return detach


def default_history() -> ChatHistoryCallback:
    """The recorder of the process for applications that made none. Its database is the default one.

    Such a program names no conversations, so they are found by their history.
    """
    global _default
    from recorder.chat_history_callback import ChatHistoryCallback

    with _lock:
        if _default is None or _default.recorder.closed:
            _default = ChatHistoryCallback(thread="history")
        return _default


def _install() -> None:
    """Prepare the libraries, once in the process. Without recordings they pass everything through."""
    global _is_installed
    if not _is_installed:
        _is_installed = True
        for name in LIBRARIES:
            when_imported(name, _prepare)


def _prepare(library: ModuleType) -> None:
    from recorder.instrumentation.process_send import replace

    replace(library)
