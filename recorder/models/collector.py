"""Streams that the garbage collector closes: their callbacks are called on a thread of their own.

The collector runs between any two steps of any thread, which may hold a lock that a callback waits for.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from threading import get_ident
from typing import Any

from recorder.core.waitable import Wait

log = logging.getLogger("recorder")


class Collector:
    """Whether the collector runs on this thread now, and the thread that does what it may not."""

    def __init__(self) -> None:
        self._collecting: int | None = None
        self.reset()
        gc.callbacks.append(self._heard)

    def reset(self) -> None:
        """In a forked child: the thread is the parent's."""
        # The one queue that may be put into while this thread is putting already.
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def runs_here(self) -> bool:
        """Whether the collector runs on this thread, and calls what asks for it."""
        return self._collecting == get_ident()

    def begin(self) -> None:
        """Start the thread, unless it runs; where a stream begins, for the collector may not."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="recorder-collector", daemon=True)
            self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        """Do this soon, on the thread."""
        self._jobs.put(job)

    def drain(self, timeout: float) -> None:
        """Wait until what was put is done."""
        if self._thread is not None and self._thread.is_alive():
            done: Wait[None] = Wait()
            self.put(lambda: done.set(None))
            done.wait(timeout)

    def _heard(self, phase: str, _info: dict[str, Any]) -> None:
        self._collecting = get_ident() if phase == "start" else None

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:
                log.exception("A stream that the garbage collector closed could not be ended")
            del job


collector = Collector()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=collector.reset)
