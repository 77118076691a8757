"""The open runs, up to a limit, and the runs that were ended for being idle, which their next token reopens."""

from __future__ import annotations

from collections import OrderedDict

from recorder.core.clock import monotonic_us
from recorder.recording.buffer import OpenRun
from recorder.recording.queue import RecordingQueue
from recorder.storage.rows import INTERRUPTED, RunEnd


class OpenRuns:
    """Runs by their id as an integer. Each step is one call of a dictionary, so that no lock is needed."""

    def __init__(self, limit: int) -> None:
        #: Looked up for every token.
        self.open: dict[int, OpenRun] = {}
        self._idle: OrderedDict[int, OpenRun] = OrderedDict()
        self._limit = limit

    @property
    def idle_count(self) -> int:
        """How many runs were ended for being idle and can be reopened."""
        return len(self._idle)

    def add(self, key: int, run: OpenRun) -> bool:
        """Add a new run; False if too many are open. The oldest idle runs are removed to make space for it."""
        while len(self.open) + len(self._idle) >= self._limit:
            if not self._remove_idle():
                return False
        self.open[key] = run
        return True

    def find(self, key: int) -> OpenRun | None:
        """The run, open or idle."""
        return self.open.get(key) or self._idle.get(key)

    def remove(self, key: int) -> None:
        """Remove a run that has ended."""
        if self.open.pop(key, None) is None:
            self._idle.pop(key, None)

    def reopen(self, key: int) -> OpenRun | None:
        """Reopen an idle run for a token; None if no idle run has this key."""
        run = self._idle.pop(key, None)
        if run is not None:
            self.open[key] = run
        return run

    def clear(self) -> None:
        """Remove all runs."""
        self.open.clear()
        self._idle.clear()

    def close_idle(self, queue: RecordingQueue, seconds: float) -> None:
        """End the runs that were not active for so many seconds. Called by the writer."""
        before_us = monotonic_us() - seconds * 1e6
        # A copy of the dictionary, not a list of its items: making their tuples may start the garbage collector, and a
        # finalizer that it calls may end a run.
        for key, run in self.open.copy().items():
            if run.active_us > before_us:
                continue
            if queue.end_idle(run, RunEnd(INTERRUPTED, run.moment()), before_us):
                self._idle[key] = run  # before it leaves `open`, so that a token finds it in one of the two
                self.open.pop(key, None)

    def _remove_idle(self) -> bool:
        try:
            self._idle.popitem(last=False)
        except KeyError:
            return False
        return True
