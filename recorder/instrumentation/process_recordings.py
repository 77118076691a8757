"""The recordings of the whole process: those that `attach()` began without a client."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recorder.instrumentation.hosts import Hosts

_lock = threading.Lock()


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


def add(recording: ProcessRecording) -> None:
    """Begin a recording, unless one that is alike has begun."""
    global _recordings
    with _lock:
        if not any(recording.is_alike(other) for other in _recordings):
            _recordings = (*_recordings, recording)


def remove(recording: ProcessRecording) -> None:
    """End this recording and those that are alike."""
    global _recordings
    with _lock:
        _recordings = tuple(other for other in _recordings if not recording.is_alike(other))
