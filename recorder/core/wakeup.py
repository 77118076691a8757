"""Wakes one event loop from any thread. Several calls during one wait wake it once."""

from __future__ import annotations

import asyncio


class LoopWait:
    """One wait of the loop. Each wait has its own object, so that a late `wake` does not end the next wait."""

    __slots__ = ("event", "on_any_change", "woken")

    def __init__(self, *, on_any_change: bool) -> None:
        self.event = asyncio.Event()
        #: True: any change ends the wait. False: only an urgent one does, or the wait has ended.
        self.on_any_change = on_any_change
        self.woken = False


class LoopWaker:
    """Ends the wait of one event loop.

    The loop calls `prepare` first, then checks whether there is work, and only then awaits `wait`. A `wake` after
    `prepare` is never lost. `wake` takes no lock, so finalizers and signal handlers may call it.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The current wait, or the last one.
        self.current = LoopWait(on_any_change=False)

    def attach(self) -> None:
        """Wake the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    def detach(self) -> None:
        """Wake no loop any more."""
        self._loop = None

    def prepare(self, *, on_any_change: bool = True) -> None:
        """Begin a wait: every `wake` from now on ends it."""
        self.current = LoopWait(on_any_change=on_any_change)

    def wake(self) -> None:
        """End the current wait, from any thread."""
        current, loop = self.current, self._loop
        if current.woken:
            return
        if loop is not None:
            try:
                loop.call_soon_threadsafe(current.event.set)
            except RuntimeError:
                return  # the loop is closed
        # Last: if a signal handler raises before this line, the next call must still wake the loop.
        current.woken, current.on_any_change = True, False

    async def wait(self, timeout: float | None) -> None:
        """Return after a `wake`, or after `timeout` seconds."""
        try:
            await asyncio.wait_for(self.current.event.wait(), timeout)
        except TimeoutError:
            return
