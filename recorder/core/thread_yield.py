"""Lets other threads run in the middle of long work."""

from __future__ import annotations

from time import sleep

from recorder.core.clock import monotonic_us


class ThreadYield:
    """Lets other threads run after every few calls, so that an event loop is not late by a whole batch.

    Without it, a thread that wants Python's global lock waits until this one has had it for 5 ms. Beside an application
    that keeps the lock as long, getting it back costs 5 ms each time: then this yields only once.
    """

    _EVERY = 8
    _TOO_LONG_US = 1_000

    def __init__(self) -> None:
        self._left = self._EVERY

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            before = monotonic_us()
            sleep(0)
            self._left = self._EVERY if monotonic_us() - before < self._TOO_LONG_US else -1
