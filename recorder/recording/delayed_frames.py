"""Delays writing frames by up to `frames_interval`, so that one row holds many of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf

from recorder.core.clock import monotonic_us
from recorder.recording.buffer import OpenRun

#: Counted in the queue for each frame, beside its bytes.
FRAME_COST = 100
#: More frames of one run than this are written without delay (bytes).
_MANY = 64 * 1024


class DelayedFrames:
    """The runs whose frames are delayed, oldest first. The queue's lock guards it.

    A row of twenty frames takes 40 bytes a frame, a row of five takes 65: ids, keys and common beginnings are shared.
    """

    def __init__(self, interval_us: int) -> None:
        self._interval_us = interval_us
        self._runs: deque[tuple[int, OpenRun]] = deque()

    def __bool__(self) -> bool:
        return bool(self._runs)

    def delay(self, run: OpenRun) -> int:
        """Delay the run's frames if they are few and recent. Returns their size in the queue (bytes), 0 if they are not
        delayed."""
        frames = run.frames
        if frames is None or run.frozen_frames or run.ended or run.idle:
            return 0
        due_us = run.started_us + frames.flat[1] + self._interval_us
        size = sum(map(len, frames.data)) + FRAME_COST * len(frames)
        if due_us <= monotonic_us() or size > _MANY:
            return 0
        if not run.is_delayed:
            run.is_delayed = True
            self._runs.append((due_us, run))
        return size

    def seconds_until_due(self) -> float:
        """Seconds until the oldest delayed frames are due; infinite if there are none."""
        return max(0.0, (self._runs[0][0] - monotonic_us()) / 1e6) if self._runs else inf

    def pop_due(self, before_us: float) -> Iterator[OpenRun]:
        """Remove and yield the runs whose frames are due at that time (monotonic microseconds)."""
        while self._runs and self._runs[0][0] <= before_us:
            _, run = self._runs.popleft()
            run.is_delayed = False
            if run.frames is not None:
                yield run
