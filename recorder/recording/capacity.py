"""How many bytes the queue holds, and who waits for room in it."""

from __future__ import annotations

from asyncio.events import _get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Literal

from recorder.core.clock import monotonic_us
from recorder.core.exclusive import Exclusive
from recorder.core.waitable import Limited, Wait
from recorder.recording.buffer import OpenRun, Took

#: Counted for a run beside its messages (bytes, measured).
RUN_COST = 2_000
#: On a running event loop nobody can be made to wait inside the call; so much more of the bound is taken there. And so
#: much more again, at least the rows of so many runs, is kept for begins and ends that find no room.
RESERVE = 1 / 8
RESERVED_RUNS = 256
#: Who waits for room goes on when so much of the bound is used.
_ROOM = 0.9

Overflow = Literal["block", "drop_newest"]


def nothing() -> None:
    """What a wait for room gives, whether there is room now or its time is over."""


class Room(Exclusive):
    """The bound of the queue. A producer waits for room, until there was some, at most `block_timeout` in all."""

    def __init__(self, max_bytes: int, overflow: Overflow, block_timeout: float) -> None:
        super().__init__()
        self._max = max_bytes
        self._for_loops = int(max_bytes * (1 + RESERVE))
        self._for_ends = self._for_loops + max(int(max_bytes * RESERVE), RESERVED_RUNS * RUN_COST)
        self._overflow = overflow
        self._block_timeout = block_timeout
        # What the quick way compares with; closing sets it below everything.
        self._limit = max_bytes
        self._room: Wait[None] | None = None
        #: Bytes accepted and not yet released, in the writer's hands included.
        self.bytes = 0
        self.closed = False

    def release(self, size: int, took: Took | None = None) -> None:
        """Give back the room of what was settled, and let those who wait for room go on. `took` counts it."""
        if (room := self.now(partial(self._release, size, took or Took()))) is not None:
            room.set(None)

    # -- inside the lock unless said otherwise --------------------------------------------------------------------

    def _room_is_wanted(self) -> None:
        """Somebody waits for room: whatever can be written is to be written now."""

    def _admit(self, size: int, accept: Callable[[], None]) -> bool:
        """Outside the lock. Whether so much found room; it may use what is kept for loops."""
        admit = partial(self._admit_now, size, accept)
        found = self.now(admit, partial(self._admit_soon, size, accept))
        if found is True:  # as nearly always
            return True
        over_us = 0.0
        while not isinstance(found, bool):
            over_us = over_us or monotonic_us() + self._block_timeout * 1e6
            patience = (over_us - monotonic_us()) / 1e6
            if patience <= 0 or _get_running_loop() is not None:
                return False
            Limited(found, patience, nothing).wait()
            found = self.now(admit)
        return found

    def _admit_now(self, size: int, accept: Callable[[], None]) -> bool | Wait[None]:
        if self.closed:
            return False
        if self._fits(size, self._for_loops):
            accept()
            return True
        return self._wait_for_room() or False

    def _admit_soon(self, size: int, accept: Callable[[], None]) -> bool:
        if self.closed or not self._fits(size, self._for_loops):
            return False
        self.soon(accept)
        return True

    def _fits(self, size: int, limit: int) -> bool:
        # What is larger than the queue would find room never: it may have an empty one.
        return not self.bytes or self.bytes + size <= limit

    def _wait_for_room(self) -> Wait[None] | None:
        """What all who find no room wait for; None where nobody waits."""
        if self._overflow != "block":
            return None
        if self._room is None:
            self._room = Wait()
        self._room_is_wanted()
        return self._room

    def _patience(self, run: OpenRun) -> Wait[None] | None:
        """What the next token of this run waits for; None where it does not, or has waited for long enough."""
        room, moment_us = self._wait_for_room(), monotonic_us()
        run.room = room
        run.full_since_us = run.full_since_us or moment_us
        left = self._block_timeout - (moment_us - run.full_since_us) / 1e6
        return Limited(room, left, nothing) if room is not None and left > 0 else None

    def _release(self, size: int, took: Took) -> Wait[None] | None:
        room = self._no_more_waiting() if self.bytes - size <= self._max * _ROOM else None
        self.bytes -= size
        took.released += size
        return room

    def _no_more_waiting(self) -> Wait[None] | None:
        room, self._room = self._room, None
        return room
