"""Wakes one event loop from any thread, once for however many rings."""

from __future__ import annotations

import asyncio


class Bell:
    """Whoever uses it guards it with a lock of their own; only `rung` is awaited without."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._has_rung = False
        #: Whether the loop wants to be woken for anything at all, or only for what does not bear waiting.
        self.for_all = False

    def hang(self) -> None:
        """Called on the loop that is to be woken."""
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def take_down(self) -> None:
        """Nobody is to be woken any more."""
        self._loop = None

    def listen(self, *, for_all: bool = True) -> None:
        """From here on a ring counts; before `rung` is awaited."""
        self.for_all = for_all
        self._has_rung = False
        if self._event is not None:
            self._event.clear()

    def ring(self) -> None:
        """Wake the loop, from any thread."""
        self.for_all = False
        if self._loop is not None and self._event is not None and not self._has_rung:
            self._has_rung = True
            self._loop.call_soon_threadsafe(self._event.set)

    async def rung(self, timeout: float | None) -> None:
        """Return after a ring, or after `timeout` seconds."""
        assert self._event is not None
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return
