"""What is ready to be written, in order, and the writer's side of it: sleep until there is something, and take it."""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf

from recorder.core.clock import monotonic_us
from recorder.core.wakeup import Bell
from recorder.recording.buffer import OpenRun, Taken, Took
from recorder.recording.capacity import Overflow, Room
from recorder.recording.delayed_frames import YoungFrames
from recorder.storage.rows import Addition


class Ready(Room):
    """The runs that have something to write, and the conversations that messages were added to."""

    def __init__(
        self, max_bytes: int, overflow: Overflow, block_timeout: float, frames_interval: float
    ) -> None:
        super().__init__(max_bytes, overflow, block_timeout)
        self._ready: deque[OpenRun | Addition] = deque()
        # Of each conversation what was added and not taken yet.
        self._additions: dict[str, Addition] = {}
        self._young = YoungFrames(int(frames_interval * 1e6))
        self._bell = Bell()
        # Somebody wants the writer: `_wanted` until it has looked, `_urgent` until it has taken everything.
        self._wanted = False
        self._urgent = False
        self._wake_bytes = max_bytes
        #: Tokens that the writer took.
        self.taken = 0
        #: How often something was queued; each that is queued has the number as its ticket.
        self.tickets = 0
        #: Monotonic microseconds since when something has been waiting to be taken; None when nothing has.
        self.oldest_us: int | None = None

    def close(self) -> None:
        """Take nothing more. Takes no lock: signal handlers call it."""
        self.closed = True
        self._limit = -1
        self.want()

    def want(self) -> None:
        """Want the writer now. Takes no lock: signal handlers call it."""
        self._wanted = True
        self._bell.ring()

    def is_settled(self, ticket: int) -> bool:
        """Whether nothing was queued after this ticket, and no frames wait for their time. Takes no lock."""
        return self.tickets <= ticket and not (self._later or self._ready or self._young)

    # -- the writer -----------------------------------------------------------------------------------------

    def bind(self, wake_bytes: int) -> None:
        """Called once on the writer's loop; `wake_bytes` waiting wake it before its time."""
        self._bell.hang()
        self._wake_bytes = wake_bytes

    def unbind(self) -> int:
        """Called once when the writer ends; returns the ticket of the last thing that was queued."""
        self.close()
        self._bell.take_down()
        if (room := self.now(self._no_more_waiting)) is not None:
            room.set(None)
        return self.tickets

    async def work(self) -> None:
        """Return when there is something to take, or when the writer is wanted."""
        while True:
            self._bell.listen()
            if self._ready or self._later or self.closed or self._wanted or self._urgent:
                return
            await self._bell.rung(None)

    @property
    def wanted(self) -> bool:
        """Whether the writer is wanted before its time: by `flush` or `close`, or because much is waiting."""
        return self._wanted or self._urgent or self.bytes >= self._wake_bytes

    async def urgency(self, timeout: float) -> None:
        """Return after `timeout` seconds, or as soon as the writer is wanted or much is waiting."""
        self._bell.listen(for_all=False)
        if not self.wanted:
            await self._bell.rung(timeout)

    def look(self) -> None:
        """The writer looks what it is wanted for; whoever wants it from here on rings again."""
        self._wanted = False

    def hurry(self) -> int:
        """Have everything taken next, young frames too; returns the ticket of the newest thing that is queued."""
        self.catch_up()
        return self.now(self._hurry)

    def due(self) -> float:
        """Seconds until frames come of age; infinite when none are waiting for it."""
        return self.now(self._young.due)

    def take(self, max_bytes: int, took: Took | None = None) -> Took:
        """Freeze and hand over what runs and conversations have, in the order they were queued, up to `max_bytes`.

        The lock is held for a hundred of them at a time, so that no producer waits for a long take. Where memory runs
        out, `took` has what was taken until then.
        """
        took, moment_us = took or Took(), monotonic_us()
        self.catch_up()
        self.now(partial(self._enqueue_later, moment_us))
        # What is queued from here on waits for the next one, so that no run is in it twice.
        more = partial(self._take_some, took, max_bytes, moment_us, self.tickets)
        while took.bytes < max_bytes and self.now(more):
            pass
        return took

    # -- inside, with the lock held -------------------------------------------------------------------------------

    def _count(self, queued: OpenRun | Addition, size: int) -> None:
        self._enqueue(queued)  # first: what was counted and is not queued would be released never
        queued.bytes += size
        self.bytes += size
        if self.bytes >= self._wake_bytes:
            self._bell.ring()

    def _enqueue(self, queued: OpenRun | Addition) -> None:
        """Queue it, unless it is queued."""
        if queued.queued:
            return
        queued.queued = True
        self.tickets += 1
        queued.ticket = self.tickets
        self._ready.append(queued)
        if self.oldest_us is None:
            self.oldest_us = monotonic_us()
        if self._bell.sleep.for_all or self.bytes >= self._wake_bytes:
            self._bell.ring()

    def _room_is_wanted(self) -> None:
        self._urgent = True
        self._enqueue_later(inf)  # young frames may be all that fills the queue
        self._bell.ring()

    def _hurry(self) -> int:
        self._urgent = True
        self._enqueue_later(inf)
        return self.tickets

    def _enqueue_later(self, before_us: float) -> None:
        """Queue the runs whose frames have come of age."""
        for run in self._young.of_age(before_us):
            self._enqueue(run)

    def _take_some(self, took: Took, max_bytes: int, moment_us: int, last: int) -> bool:
        """Whether there is more to take."""
        for _ in range(min(100, len(self._ready))):
            if took.bytes >= max_bytes:
                return False
            if self._ready[0].ticket > last:
                self._urgent, self.oldest_us = False, moment_us
                return False
            self._freeze(self._ready[0], took, moment_us)
            self._ready.popleft()
        if self._ready:
            return True
        self._urgent, self.oldest_us = False, None
        return False

    def _freeze(self, queued: OpenRun | Addition, took: Took, moment_us: int) -> None:
        """Hand over what there is. When it fails for lack of memory nothing has changed."""
        if isinstance(queued, Addition):
            took.additions.append(queued)
            del self._additions[queued.conversation_id]
            took.bytes += queued.bytes
            took.ticket = queued.ticket
            return
        run = queued
        kept = 0 if self._urgent else self._young.keep(run)
        run.cut(frames=not kept)
        frames = () if kept else run.cut_frames
        taken = Taken(run, run.cut_tokens, frames, run.gaps, run.end, run.bytes - kept, run.reopened)
        tokens = sum(map(len, taken.tokens))
        took.runs.append(taken)
        self.taken += tokens
        took.bytes += run.bytes - kept
        took.ticket = run.ticket
        run.cut_tokens, run.cut_frames, run.gaps = (), (), ()
        run.end, run.bytes = None, kept
        run.queued = run.reopened = False
        run.touched_us = moment_us
