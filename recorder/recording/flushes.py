"""Who waits until what was queued is stored."""

from __future__ import annotations

from collections import deque

from recorder.core.waitable import Wait
from recorder.errors import StoreError
from recorder.recording.queue import Intake


class Flushes:
    """`add` is for any thread, and takes no lock; the rest is for the writer's thread."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        # Those that the writer has not seen yet, and those it has, with the ticket that each waits for.
        self._new: deque[Wait[None]] = deque()
        self._seen: deque[tuple[int, Wait[None]]] = deque()
        self._ended = False
        #: The ticket until which everything is settled.
        self.settled = 0
        #: What a flush raises once something was lost.
        self.loss: StoreError | None = None
        # What was lost while nobody waited; the next flush raises it.
        self._untold: StoreError | None = None

    def add(self) -> Wait[None]:
        """A wait that is over when everything which is queued now is settled."""
        wait: Wait[None] = Wait()
        if self._intake.is_settled(self.settled):
            self._end(wait)
            return wait
        self._new.append(wait)
        self._intake.want()
        if self._ended:  # perhaps before it saw this one
            self.end()
        return wait

    def look(self) -> None:
        """Those that are new wait for everything that is queued now."""
        self._intake.look()
        if count := len(self._new):  # no more: what is queued after this look is not theirs
            ticket = self._intake.hurry()
            for _ in range(count):
                self._seen.append((ticket, self._new.popleft()))

    def settle(self, ticket: int) -> None:
        """Everything up to this ticket is stored, or lost."""
        self.settled = max(self.settled, ticket)
        while self._seen and self._seen[0][0] <= self.settled:
            self._end(self._seen[0][1])
            self._seen.popleft()

    def lose(self, ticket: int, loss: StoreError) -> None:
        """Something up to this ticket is lost: those that wait for it raise it, or else the next flush does."""
        awaited = bool(self._seen) and self._seen[0][0] <= ticket
        before, self.loss = self.loss, loss
        self.settle(ticket)
        self.loss = before
        self._untold = None if awaited else loss

    def end(self) -> None:
        """Nothing will be stored any more: all are over."""
        self._ended = True
        for waits in (self._new, [wait for _, wait in self._seen]):
            for wait in list(waits):
                self._end(wait)

    def leave_to_parent(self) -> None:
        """In a forked child: nothing flushes here what the parent's queue holds."""
        for wait in [*self._new, *(wait for _, wait in self._seen)]:
            wait.renew()
            wait.fail(StoreError("The process forked during this flush, which is the parent's; flush again"))

    def _end(self, wait: Wait[None]) -> None:
        loss, self._untold = self.loss or self._untold, None
        if loss is None:
            wait.set(None)
        else:
            wait.fail(loss)
