"""Reports the end of streams that the garbage collector closes, on a thread of its own.

The garbage collector can run between any two steps of any thread. That thread may hold a lock that a handler waits
for, so a handler called there could wait for ever.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from recorder.core.waitable import Wait

log = logging.getLogger("recorder")


class Collector:
    """Runs jobs on a thread of its own."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew in a forked child, which does not have the parent's thread."""
        # Only SimpleQueue allows a `put` inside a `put` of the same thread.
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Reentrant, because a finalizer may use a model, also while this thread starts the collector's.
        self._starting = threading.RLock()

    def begin(self) -> None:
        """Start the thread, unless it runs. Each stream calls this at its start: the collector must start no thread.

        If no thread can be started, the jobs wait: the next stream tries again, and `drain` runs what is left.
        """
        if self._thread is None:
            with self._starting, suppress(RuntimeError, MemoryError):
                self._start()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="recorder-collector", daemon=True)
            thread.start()
            self._thread = thread

    def put(self, job: Callable[[], None]) -> None:
        """Run this job on the thread, after the earlier ones."""
        self._jobs.put(job)

    def drain(self, timeout: float) -> None:
        """Wait until all jobs are done, at most `timeout` seconds. Without a thread they run here."""
        if self._thread is None:
            self._run_jobs()
            return
        done: Wait[None] = Wait()
        self.put(lambda: done.set(None))
        done.wait(timeout)

    def _serve(self) -> None:
        while True:
            self._run(self._jobs.get())

    def _run_jobs(self) -> None:
        with suppress(Empty):
            while True:
                self._run(self._jobs.get_nowait())

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException:  # also one that ends threads: the later jobs still have to be done
            log.exception("A stream that the garbage collector closed could not be ended")


collector = Collector()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=collector.reset)
