"""Reports the end of streams that the garbage collector closes, on a thread of its own.

The garbage collector can run between any two steps of any thread. That thread may hold a lock that a handler waits
for, so a handler called there could wait for ever.
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
    """Tells whether the garbage collector runs on this thread now, and runs jobs on a thread of its own."""

    def __init__(self) -> None:
        self._collecting: int | None = None
        self.reset()
        gc.callbacks.append(self._on_gc)

    def reset(self) -> None:
        """Start anew in a forked child, which does not have the parent's thread."""
        # Only SimpleQueue allows a `put` inside a `put` of the same thread.
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def runs_here(self) -> bool:
        """Whether the garbage collector runs on this thread now, and so is the caller."""
        return self._collecting == get_ident()

    def begin(self) -> None:
        """Start the thread, unless it runs. Each stream calls this at its start: the collector must start no thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="recorder-collector", daemon=True)
            self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        """Run this job on the thread, after the earlier ones."""
        self._jobs.put(job)

    def drain(self, timeout: float) -> None:
        """Wait until all jobs are done, at most `timeout` seconds."""
        if self._thread is not None and self._thread.is_alive():
            done: Wait[None] = Wait()
            self.put(lambda: done.set(None))
            done.wait(timeout)

    def _on_gc(self, phase: str, _info: dict[str, Any]) -> None:
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
