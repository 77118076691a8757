"""The open runs, up to a limit, and the runs that were ended for being idle, which their next token reopens."""

from __future__ import annotations

from collections import OrderedDict

from recorder.core.clock import monotonic_us
from recorder.recording.buffer import OpenRun
from recorder.recording.queue import RecordingQueue
from recorder.storage.rows import INTERRUPTED, RunEnd


class OpenRuns:
    """Runs by their id as an integer. Each step is one call of a dictionary, so that no lock is needed.

    A run that moves is in both dictionaries for a moment, and never in none. A thread may have found a run before that
    was ended for being idle, and append a token to it afterwards. The queue then reopens the run while it is among the
    idle ones here, so each use of the idle runs asks whether the run is still idle.
    """

    def __init__(self, limit: int) -> None:
        #: Looked up for every token.
        self.open: dict[int, OpenRun] = {}
        self._idle: OrderedDict[int, OpenRun] = OrderedDict()
        self._limit = limit

    @property
    def idle_count(self) -> int:
        """How many runs were ended for being idle and can be reopened."""
        return len(self._idle)

    def add(self, key: int, run: OpenRun, queue: RecordingQueue) -> bool:
        """Add a new run; False if too many are open. The oldest idle runs are removed to make space for it."""
        while len(self.open) + len(self._idle) >= self._limit:
            if not self._remove_idle(queue):
                return False
        self.open[key] = run
        return True

    def find(self, key: int) -> OpenRun | None:
        """The run, open or idle."""
        # Twice, because another thread may reopen the run in between.
        return self.open.get(key) or self._idle.get(key) or self.open.get(key)

    def remove(self, key: int) -> None:
        """Remove a run that has ended."""
        self.open.pop(key, None)
        self._idle.pop(key, None)

    def reopen(self, key: int) -> OpenRun | None:
        """The run for a token, which is open again if it was idle; None if no run has this key."""
        run = self._idle.get(key)
        if run is None:
            return self.open.get(key)
        self.open[key] = run
        self._idle.pop(key, None)
        if run.ended:  # by another thread, which may have removed it before it was put back
            self.remove(key)
        return run

    def unended(self) -> dict[int, OpenRun]:
        """The runs that are neither ended nor idle."""
        # The open ones twice, because a run may move in between.
        before = self.open.copy()
        reopened = {key: run for key, run in self._idle.copy().items() if not run.idle}
        return {**before, **reopened, **self.open.copy()}

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
                self._idle[key] = run
                self.open.pop(key, None)
                if not run.idle:
                    self.reopen(key)

    def _remove_idle(self, queue: RecordingQueue) -> bool:
        """Remove the oldest idle run, or reopen it if it had a token; False if there is none."""
        try:
            key, run = next(iter(self._idle.items()), (0, None))
        except RuntimeError:  # another thread has just changed the dictionary
            return True
        if run is None:
            return False
        if queue.forget_idle(run):
            self._idle.pop(key, None)
        else:
            self.reopen(key)
        return True
