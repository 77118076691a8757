"""Frames that wait for company: of a run that sends few, they are taken together a little later."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf

from recorder.core.clock import monotonic_us
from recorder.recording.buffer import OpenRun

#: Counted for each frame beside its bytes.
FRAME_COST = 100
#: Frames of one run beyond this many bytes are taken however young.
_MANY = 64 * 1024


class YoungFrames:
    """The runs whose frames are too young to be taken, oldest first. The intake's lock guards it.

    A row of twenty frames takes 40 bytes a frame, one of five 65: ids, keys and beginnings are shared.
    """

    def __init__(self, interval_us: int) -> None:
        self._interval_us = interval_us
        self._runs: deque[tuple[int, OpenRun]] = deque()

    def __bool__(self) -> bool:
        return bool(self._runs)

    def keep(self, run: OpenRun) -> int:
        """Bytes of the run's frames when they are young and few and so wait, else 0."""
        frames = run.frames
        if frames is None or run.cut_frames or run.ended or run.idle:
            return 0
        due = run.started_us + frames.flat[1] + self._interval_us
        size = sum(map(len, frames.data)) + FRAME_COST * len(frames)
        if due <= monotonic_us() or size > _MANY:
            return 0
        if not run.later:
            run.later = True
            self._runs.append((due, run))
        return size

    def due(self) -> float:
        """Seconds until some come of age; infinite when none wait for it."""
        return max(0.0, (self._runs[0][0] - monotonic_us()) / 1e6) if self._runs else inf

    def of_age(self, before_us: float) -> Iterator[OpenRun]:
        """The runs whose frames have come of age by then."""
        while self._runs and self._runs[0][0] <= before_us:
            _, run = self._runs.popleft()
            run.later = False
            if run.frames is not None:
                yield run
