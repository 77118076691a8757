"""Wakes one event loop from any thread, once for however many rings."""

from __future__ import annotations

import asyncio


class Sleep:
    """One sleep of the loop. Each has an object of its own, so that a late ring ends no later sleep."""

    __slots__ = ("ended", "event", "for_all")

    def __init__(self, *, for_all: bool) -> None:
        self.event = asyncio.Event()
        #: Whether it is to end for anything at all, not only for what is urgent; and whether it was ended.
        self.for_all = for_all
        self.ended = False


class Bell:
    """`ring` takes no lock, so that finalizers and signal handlers may call it.

    Whoever sleeps calls `listen` first, then looks whether there is something to do, and only then awaits `rung`:
    what comes after the look rings.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The one that is going on, or the last.
        self.sleep = Sleep(for_all=False)

    def hang(self) -> None:
        """Called on the loop that is to be woken."""
        self._loop = asyncio.get_running_loop()

    def take_down(self) -> None:
        """Nobody is to be woken any more."""
        self._loop = None

    def listen(self, *, for_all: bool = True) -> None:
        """From here on a ring counts; before `rung` is awaited."""
        self.sleep = Sleep(for_all=for_all)

    def ring(self) -> None:
        """Wake the loop, from any thread."""
        sleep, loop = self.sleep, self._loop
        if sleep.ended:
            return
        if loop is not None:
            try:
                loop.call_soon_threadsafe(sleep.event.set)
            except RuntimeError:
                return  # the loop was closed
        # Only now: an exception that a signal handler raises before must not silence the rings that follow.
        sleep.ended, sleep.for_all = True, False

    async def rung(self, timeout: float | None) -> None:
        """Return after a ring, or after `timeout` seconds."""
        try:
            await asyncio.wait_for(self.sleep.event.wait(), timeout)
        except TimeoutError:
            return
