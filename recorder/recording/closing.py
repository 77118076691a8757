"""The end of a writer: the wait for it, and the end of its event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from recorder.core.waitable import Limited, Wait
from recorder.recording.stats import Stats

log = logging.getLogger("recorder")


class WriterEnd(Limited[Stats]):
    """The wait for the end of the writer. The writer's own thread does not wait for itself."""

    __slots__ = ("_is_writer_here", "_stats")

    def __init__(
        self,
        ended: Wait[Stats],
        seconds: float,
        stats: Callable[[], Stats],
        is_writer_here: Callable[[], bool],
    ) -> None:
        super().__init__(ended, seconds, stats)
        self._stats, self._is_writer_here = stats, is_writer_here

    def wait(self, timeout: float | None = None) -> Stats:
        """As `Limited.wait`."""
        return self._stats() if self._is_writer_here() else super().wait(timeout)


def close_loop(runner: asyncio.Runner) -> None:
    """Close the event loop of the writer's thread."""
    try:
        runner.close()
    except RuntimeError as error:
        # Python 3.12 starts no thread during the exit, and the end of an executor needs one.
        log.debug("The event loop of the writer's thread was not closed in order: %s", error)
