"""The runs that are open, at most so many, and those that were closed for being idle, which a token opens again."""

from __future__ import annotations

from collections import OrderedDict

from recorder.core.clock import monotonic_us
from recorder.recording.buffer import OpenRun
from recorder.recording.queue import Intake
from recorder.storage.rows import INTERRUPTED, RunEnd


class Registry:
    """By the run's id as an integer. Each step is one call of a dictionary, so that no lock is needed."""

    def __init__(self, limit: int) -> None:
        #: Looked up for every token.
        self.open: dict[int, OpenRun] = {}
        self._idle: OrderedDict[int, OpenRun] = OrderedDict()
        self._limit = limit

    @property
    def idle_count(self) -> int:
        """How many runs are closed for being idle, and can be opened again."""
        return len(self._idle)

    def add(self, key: int, run: OpenRun) -> bool:
        """Keep a run that begins; False where too many are open. Idle ones are forgotten first."""
        while len(self.open) + len(self._idle) >= self._limit:
            if not self._forget_one():
                return False
        self.open[key] = run
        return True

    def find(self, key: int) -> OpenRun | None:
        """The run, open or idle."""
        return self.open.get(key) or self._idle.get(key)

    def remove(self, key: int) -> None:
        """The run is over."""
        self.open.pop(key, None)
        self._idle.pop(key, None)

    def reopen(self, key: int) -> OpenRun | None:
        """A token came that belongs to no open run: the idle run that it belongs to, which is open again."""
        run = self._idle.pop(key, None)
        if run is not None:
            self.open[key] = run
        return run

    def clear(self) -> None:
        """Forget all."""
        self.open.clear()
        self._idle.clear()

    def close_idle(self, intake: Intake, seconds: float) -> None:
        """Close the runs of which nothing came for so long; called by the writer."""
        before_us = monotonic_us() - seconds * 1e6
        for key, run in list(self.open.items()):
            if run.touched_us > before_us:
                continue
            if intake.rest(run, RunEnd(INTERRUPTED, run.moment()), before_us):
                self._idle[key] = run  # before it leaves: a token that comes now finds it in one of the two
                self.open.pop(key, None)

    def _forget_one(self) -> bool:
        try:
            self._idle.popitem(last=False)
        except KeyError:
            return False
        return True
