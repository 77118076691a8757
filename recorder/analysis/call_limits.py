"""How long a call of an analyzer may last."""

from __future__ import annotations

from math import inf

from recorder.core.deadline import seconds

#: How long the start of a worker may take, with the import of what its analyzer needs (seconds).
START_TIMEOUT = 60.0
#: The longest that a thread waits until it looks at the limits again (seconds).
SLICE = 0.2
#: From this many failures in a row on, an analyzer pauses after each one: doubled each time, at most LONGEST_PAUSE.
_FEW = 3
_LONGEST_PAUSE = 60.0


class CallLimits:
    """Limits that all analyzers of one recorder share."""

    def __init__(self, timeout: float) -> None:
        #: How long one call may last (seconds).
        self.timeout = timeout
        #: When all calls must be over (monotonic seconds). Any thread may set it.
        self.until = inf

    @property
    def is_over(self) -> bool:
        """Whether no call may begin or go on."""
        return seconds() >= self.until


class Pauses:
    """How long an analyzer is left alone that ends its worker again and again, or never returns."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def is_pausing(self) -> bool:
        """Whether the analyzer is not called now."""
        return seconds() < self._until

    def failed(self) -> None:
        """A worker has ended without being asked to."""
        self._failures += 1
        if self._failures >= _FEW:
            self._until = seconds() + min(_LONGEST_PAUSE, 2.0 ** (self._failures - _FEW))

    def succeeded(self) -> None:
        """A call has returned."""
        self._failures = 0
