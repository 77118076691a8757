"""The bounded queue between callbacks on any thread and the one writer.

Every run has one open segment that its producer appends to; the queue holds the runs that have something to write,
and the conversations that messages were added to. Taking freezes what they have. One lock guards it all: a lock a run
was no faster (32 threads: 0.49 us a call).
"""

from __future__ import annotations

import threading
from asyncio.events import _get_running_loop
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from math import inf
from typing import Literal

from recorder.bell import Bell
from recorder.clock import monotonic_us
from recorder.messages import BaseMessage
from recorder.openrun import OpenRun, Said, Taken, Took, size_of, weight_of
from recorder.records import Added, Addition, RunEnd, RunStart
from recorder.waiting import Wait
from recorder.wire.deltas import TEXT, Delta
from recorder.young import FRAME_COST, YoungFrames

#: Counted for each token beside its text and frame, for each run beside its messages, and for each message that is
#: added without a run (bytes, measured).
TOKEN_COST = 200
RUN_COST = 2_000
MESSAGE_COST = 1_000
_LONG = 1_000
#: On a running event loop nobody can be made to wait inside the call; so much more is taken there.
RESERVE = 1 / 8


Overflow = Literal["block", "drop_newest"]


class Intake:
    """Put from any thread without waiting, await work, take. No I/O."""

    def __init__(
        self, max_bytes: int, *, overflow: Overflow = "block", block_timeout: float = 5.0,
        frames_interval: float = 0.0,
    ) -> None:  # fmt: skip
        self._max = max_bytes
        self._frames_us = int(frames_interval * 1e6)
        self._hard = int(max_bytes * (1 + RESERVE))
        self._overflow = overflow
        self._block_timeout = block_timeout
        self.reset()

    def reset(self) -> None:
        """Begin anew, empty and with a lock of its own: in a forked child everything in here is the parent's."""
        self._lock = threading.Lock()
        # What the quick way compares with; closing sets it below everything.
        self._limit = self._max
        self._ready: deque[OpenRun | Addition] = deque()
        # Of each conversation what was added and not taken yet.
        self._additions: dict[str, Addition] = {}
        self._young = YoungFrames(self._frames_us)
        self._room: Wait[None] | None = None
        self._bell = Bell()
        self._urgent = False
        self._wake_bytes = self._max
        #: Bytes accepted and not yet released, in the writer's hands included.
        self.bytes = 0
        #: Tokens that found no room, or that belonged to no open run; and tokens that the writer took.
        self.dropped = 0
        self.taken = 0
        #: Runs that found no room when they began.
        self.refused = 0
        #: Messages without a run.
        self.added = 0
        self.tickets = 0
        self._order = 0
        self.closed = False
        #: Monotonic microseconds since when something has been waiting to be taken; None when nothing has.
        self.oldest_us: int | None = None

    # -- producers ------------------------------------------------------------------------------------------

    def start(self, start: RunStart, started_us: int) -> OpenRun:
        """Open a run; its start is queued at once. One that finds no room is opened, and all of it dropped.

        Off a loop it waits for room, up to `block_timeout`, as its tokens do.
        """
        run = OpenRun(start, started_us)
        size = RUN_COST + sum(map(weight_of, start.messages))
        run.refused = run.held = not self._admit(size, partial(self._begin, run, size))
        self.refused += run.refused
        return run

    def add(self, conversation_id: str, messages: Sequence[BaseMessage], at: datetime) -> bool:
        """Queue messages that belong to no run; whether they found room, for which it waits as `start` does."""
        size = 0
        for message in messages:
            size += MESSAGE_COST + weight_of(message)
        return self._admit(size, partial(self._add, conversation_id, messages, at, size))

    def put(self, run: OpenRun, text: str, at_us: int) -> Wait[None] | None:
        """Accept one token of plain text. Returns None while there is room, else what to wait for.

        Every token of a model without frames comes through here, so nothing is counted that can be worked out
        later.
        """
        size = len(text) + TOKEN_COST
        if size > _LONG and not text.isascii():
            size = size_of(text) + TOKEN_COST
        with self._lock:
            used = self.bytes + size
            if used <= self._limit and not run.held:
                self.bytes = used
                run.bytes += size
                run.extend((at_us, text))
                if not run.queued:
                    self._enqueue(run)
                return None
        return self._put_when_full(run, [at_us, text], None, at_us, size)

    def put_frame(
        self, run: OpenRun, frame: bytes | None, deltas: Sequence[Delta], at_us: int
    ) -> Wait[None] | None:
        """Accept the deltas of one frame, and the frame itself unless None; like `put`."""
        size = len(frame) + FRAME_COST if frame is not None else 0
        flat: list[int | Said] = []
        for text, kind, idx in deltas:
            size += TOKEN_COST + (len(text) if text.isascii() else 4 * len(text))
            flat += (at_us, text if kind == TEXT and idx == "0" else (text, kind, idx))
        with self._lock:
            used = self.bytes + size
            if used <= self._limit and not run.held:
                self.bytes = used
                run.bytes += size
                if frame is not None:
                    run.add_frame(frame, at_us)
                run.extend(flat)
                if not run.queued:
                    self._enqueue(run)
                return None
        return self._put_when_full(run, flat, frame, at_us, size)

    def end(self, run: OpenRun, end: RunEnd) -> None:
        """End a run; a second end is ignored. Always taken: it is small and says what is missing."""
        with self._lock:
            if run.ended or run.refused:
                return
            self._close_gap(run)
            run.ended = run.held = True
            run.end = end
            end.order = self._next()
            self._count(run, sum(map(weight_of, end.replies)))

    def refuse(self, tokens: int) -> None:
        """Count tokens that belong to no open run."""
        with self._lock:
            self.dropped += tokens

    # -- the writer -----------------------------------------------------------------------------------------

    def bind(self, wake_bytes: int) -> None:
        """Called once on the writer's loop; `wake_bytes` waiting wake it before its time."""
        self._bell.hang()
        self._wake_bytes = wake_bytes

    def unbind(self) -> int:
        """Called once when the writer ends; returns the ticket of the last thing that was queued."""
        with self._lock:
            self.closed = True
            self._limit = -1
            self._bell.take_down()
            room, self._room = self._room, None
        if room is not None:
            room.set(None)
        return self.tickets

    async def work(self) -> None:
        """Return when there is something to take, or when the writer is wanted."""
        while True:
            with self._lock:
                if self._ready or self._urgent or self.closed:
                    return
                self._bell.listen()
            await self._bell.rung(None)

    def wanted(self) -> bool:
        """Whether the writer is wanted before its time: by `flush` or `close`, or because much is waiting."""
        with self._lock:
            return self._urgent or self.bytes >= self._wake_bytes

    async def urgency(self, timeout: float) -> None:
        """Return after `timeout` seconds, or as soon as the writer is wanted or much is waiting."""
        with self._lock:
            if self._urgent or self.bytes >= self._wake_bytes:
                return
            self._bell.listen(for_all=False)
        await self._bell.rung(timeout)

    def hurry(self) -> int:
        """Want the writer now; returns the ticket of the newest thing that is queued."""
        with self._lock:
            self._urgent = True
            self._enqueue_later(inf)
            self._bell.ring()
            return self.tickets

    def close(self) -> int:
        """Take nothing more; returns the ticket of the last thing that is queued."""
        with self._lock:
            self.closed = True
            self._limit = -1
        return self.hurry()

    def counts(self) -> tuple[int, int, int, int | None]:
        """Tokens accepted and not yet taken, taken, dropped; and `oldest_us`: all of one moment."""
        with self._lock:
            waiting = sum(run.waiting for run in self._ready)
            return waiting, self.taken, self.dropped, self.oldest_us

    def due(self) -> float:
        """Seconds until frames come of age; infinite when none are waiting for it."""
        with self._lock:
            return self._young.due()

    def take(self, max_bytes: int) -> Took:
        """Freeze and hand over what runs and conversations have, in the order they were queued, up to `max_bytes`.

        The lock is held for a hundred of them at a time, so that no producer waits for a long take.
        """
        took = Took()
        with self._lock:
            self._enqueue_later(monotonic_us())
        while took.bytes < max_bytes:
            with self._lock:
                for _ in range(min(100, len(self._ready))):
                    self._freeze(self._ready.popleft(), took)
                    if took.bytes >= max_bytes:
                        break
                if not self._ready:
                    self._urgent = False
                    self.oldest_us = None
                    break
        return took

    def release(self, size: int) -> None:
        """Give back the room of what was settled, and let those who wait for room go on."""
        with self._lock:
            self.bytes -= size
            room = self._room
            if room is None or self.bytes > self._max * 0.9:
                return
            self._room = None
        room.set(None)

    # -- inside, with the lock held unless said otherwise ---------------------------------------------------------

    def _append(
        self, run: OpenRun, flat: list[int | Said], frame: bytes | None, at_us: int, size: int
    ) -> None:
        if frame is not None:
            run.add_frame(frame, at_us)
        run.extend(flat)
        self._count(run, size)

    def _next(self) -> int:
        """The place of what happens now: times are read before, by threads that may have been held up since."""
        self._order += 1
        return self._order

    def _begin(self, run: OpenRun, size: int) -> None:
        run.start.order = self._next()
        self._count(run, size)

    def _add(self, conversation_id: str, messages: Sequence[BaseMessage], at: datetime, size: int) -> None:
        addition = self._additions.get(conversation_id)
        if addition is None:
            addition = self._additions[conversation_id] = Addition(conversation_id)
        order = self._next()
        addition.said += [Added(order, at, message) for message in messages]
        self.added += len(messages)
        self._count(addition, size)

    def _count(self, queued: OpenRun | Addition, size: int) -> None:
        queued.bytes += size
        self.bytes += size
        if not queued.queued:
            self._enqueue(queued)

    def _enqueue(self, queued: OpenRun | Addition) -> None:
        queued.queued = True
        self.tickets += 1
        queued.ticket = self.tickets
        self._ready.append(queued)
        if self.oldest_us is None:
            self.oldest_us = monotonic_us()
        if self._bell.for_all or self.bytes >= self._wake_bytes:
            self._bell.ring()

    def _admit(self, size: int, accept: Callable[[], None]) -> bool:
        """The lock is not held here. Whether so much found room; it may use what is kept for loops."""
        deadline = 0.0
        while True:
            with self._lock:
                if self.closed:
                    return False
                if not self.bytes or self.bytes + size <= self._hard:
                    accept()
                    return True
                room = self._wanted_room(size)
                deadline = deadline or monotonic_us() + self._block_timeout * 1e6
                patience = (deadline - monotonic_us()) / 1e6
            if room is None or patience <= 0 or _get_running_loop() is not None:
                return False
            try:
                room.wait(patience)
            except TimeoutError:
                continue

    def _put_when_full(
        self, run: OpenRun, flat: list[int | Said], frame: bytes | None, at_us: int, size: int
    ) -> Wait[None] | None:
        """The lock is not held here. Off a loop this waits; on one it returns what to wait for."""
        on_loop = _get_running_loop() is not None
        deadline = monotonic_us() + int(self._block_timeout * 1e6)
        while True:
            with self._lock:
                if run.ended or run.refused or self.closed:
                    self.dropped += len(flat) // 2
                    return None
                if self._accepts(size, on_loop):
                    self._close_gap(run)
                    self._append(run, flat, frame, at_us, size)
                    return self._wanted_room() if on_loop else None
                room = self._wanted_room(size)
                patience = (deadline - monotonic_us()) / 1e6
                if on_loop or room is None or run.dropped or patience <= 0:
                    self._drop(run, flat, frame)
                    return room if on_loop else None
            try:
                room.wait(patience)
            except TimeoutError:
                continue

    def _accepts(self, size: int, on_loop: bool) -> bool:
        waits = self._overflow == "block"
        # One that is larger than the whole queue would find room never: it may have an empty one.
        return not self.bytes or self.bytes + size <= (self._hard if on_loop and waits else self._max)

    def _wanted_room(self, size: int = 0) -> Wait[None] | None:
        if self._overflow != "block" or self.bytes + size <= self._max * 0.9:
            return None
        if self._room is None:
            self._room = Wait()
            self._urgent = True
            self._enqueue_later(inf)  # young frames may be all that fills the queue
            self._bell.ring()
        return self._room

    def _drop(self, run: OpenRun, flat: list[int | Said], frame: bytes | None) -> None:
        """Count what found no room; the numbers go on, so that the hole shows."""
        if not run.dropped:
            run.dropped_at = run.seq
        run.held = True
        run.dropped += len(flat) // 2
        self.dropped += len(flat) // 2
        run.cut_tokens = run.take_tokens(dropped=len(flat) // 2)
        run.cut_frames = run.take_frames(dropped=int(frame is not None))

    def _close_gap(self, run: OpenRun) -> None:
        if run.dropped:
            run.gaps += ((run.dropped_at, run.dropped, "the queue was full"),)
        run.dropped = 0
        run.held = run.ended

    def _freeze(self, queued: OpenRun | Addition, took: Took) -> None:
        took.ticket = queued.ticket
        if isinstance(queued, Addition):
            took.additions.append(self._additions.pop(queued.conversation_id))
            took.bytes += queued.bytes
            return
        run = queued
        run.queued = False
        tokens = run.take_tokens()
        self.taken += sum(map(len, tokens))
        kept = 0 if self._urgent else self._young.keep(run)
        frames = () if kept else run.take_frames()
        took.runs.append(Taken(run, tokens, frames, run.gaps, run.end, run.bytes - kept))
        took.bytes += run.bytes - kept
        run.gaps, run.end, run.bytes = (), None, kept

    def _enqueue_later(self, before_us: float) -> None:
        """Queue the runs whose frames have come of age."""
        for run in self._young.of_age(before_us):
            if not run.queued:
                self._enqueue(run)
