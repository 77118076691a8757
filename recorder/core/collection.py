"""Tells whether the garbage collector runs on this thread now.

The collector can run between any two steps of a thread, which may hold a lock that a finalizer needs, or be the thread
that a finalizer would wait for. A `with` block of a generator that is collected ends inside the collector, too.
"""

from __future__ import annotations

import gc
import os
from threading import get_ident
from typing import Any


class Collection:
    """The collection that runs now, if one does. Python never runs two at once."""

    def __init__(self) -> None:
        self._thread: int | None = None
        gc.callbacks.append(self.on_gc)

    @property
    def runs_here(self) -> bool:
        """Whether the collector runs on this thread now, and so is the caller."""
        return self._thread == get_ident()

    def on_gc(self, phase: str, _info: dict[str, Any]) -> None:
        """The callback of the module `gc`."""
        self._thread = get_ident() if phase == "start" else None

    def reset_in_child(self) -> None:
        """In a forked child: a collection on another thread does not go on here, and never ends."""
        if not self.runs_here:
            self._thread = None


collection = Collection()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=collection.reset_in_child)
