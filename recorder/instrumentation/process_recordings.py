"""The recordings of the whole process: those that `attach()` began without a client."""

from __future__ import annotations

import os
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
    #: Whether it records nothing but the requests of linked runs (`linked_run.py`).
    is_linked: bool = False

    def is_alike(self, other: ProcessRecording) -> bool:
        """Whether both record the same requests for the same handlers."""
        return self._kind == other._kind

    @property
    def _kind(self) -> tuple[Any, ...]:
        return self.is_linked, self.hosts, *map(id, self.handlers)


#: Those of every `attach()`, and of those that are alike the first. Replaced as a whole, because requests read without
#: a lock.
_attached: tuple[ProcessRecording, ...] = ()
_recordings: tuple[ProcessRecording, ...] = ()


def recordings() -> tuple[ProcessRecording, ...]:
    """Those that record the process now, each kind once."""
    return _recordings


def add(recording: ProcessRecording) -> None:
    """Begin a recording."""
    with _lock:
        _set((*_attached, recording))


def remove(recording: ProcessRecording) -> None:
    """End a recording; another one that is alike goes on. May be called again."""
    with _lock:
        _set(tuple(other for other in _attached if other is not recording))


def _set(attached: tuple[ProcessRecording, ...]) -> None:
    global _attached, _recordings
    kinds: list[ProcessRecording] = []
    for recording in attached:
        if not any(recording.is_alike(other) for other in kinds):
            kinds.append(recording)
    _attached, _recordings = attached, tuple(kinds)


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
