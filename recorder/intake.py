"""The bounded queue between callbacks on any thread and the one writer.

Every run has one open segment that its producer appends to; the queue holds the runs that have something to write.
Taking freezes what a run has. One lock guards it all: a lock a run was no faster (32 threads: 0.49 us a call).
"""

from __future__ import annotations

import asyncio
import threading
from asyncio.events import _get_running_loop
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Literal

from recorder.clock import monotonic_us
from recorder.openrun import OpenRun, Said, Taken, size_of
from recorder.records import RunEnd, RunStart
from recorder.waiting import Wait
from recorder.wire.deltas import TEXT, Delta

#: Counted for each token beside its text and frame, and for each run beside its messages (bytes, measured).
TOKEN_COST = 200
RUN_COST = 2_000
FRAME_COST = 100
#: Frames of one run beyond this many bytes are taken however young.
_MANY = 64 * 1024
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
        self._ready: deque[OpenRun] = deque()
        # Runs whose frames are too young to be taken, oldest first.
        self._later: deque[tuple[int, OpenRun]] = deque()
        self._room: Wait[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._asleep = self._woke = self._urgent = False
        self._wake_bytes = self._max
        #: Bytes accepted and not yet released, in the writer's hands included.
        self.bytes = 0
        #: Tokens that found no room, or that belonged to no open run; and tokens that the writer took.
        self.dropped = 0
        self.taken = 0
        #: Runs that found no room when they began.
        self.refused = 0
        self.tickets = 0
        self.closed = False
        #: Monotonic microseconds since when something has been waiting to be taken; None when nothing has.
        self.oldest_us: int | None = None

    # -- producers ------------------------------------------------------------------------------------------

    def start(self, start: RunStart, started_us: int) -> OpenRun:
        """Open a run; its start is queued at once. One that finds no room is opened, and all of it dropped.

        Off a loop it waits for room, up to `block_timeout`, as its tokens do.
        """
        run = OpenRun(start, started_us)
        size = RUN_COST + sum(size_of(message.content) for message in start.messages)
        run.refused = run.held = not self._admit(run, size)
        self.refused += run.refused
        return run

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
            self._count(run, sum(size_of(reply.content) for reply in end.replies))

    def refuse(self, tokens: int) -> None:
        """Count tokens that belong to no open run."""
        with self._lock:
            self.dropped += tokens

    # -- the writer -----------------------------------------------------------------------------------------

    def bind(self, wake_bytes: int) -> None:
        """Called once on the writer's loop; `wake_bytes` waiting wake it before its time."""
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._wake_bytes = wake_bytes

    def unbind(self) -> int:
        """Called once when the writer ends; returns the ticket of the last thing that was queued."""
        with self._lock:
            self.closed = True
            self._limit = -1
            self._loop = None
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
                self._sleep()
            await self._woken(None)

    def wanted(self) -> bool:
        """Whether the writer is wanted before its time: by `flush` or `close`, or because much is waiting."""
        with self._lock:
            return self._urgent or self.bytes >= self._wake_bytes

    async def urgency(self, timeout: float) -> None:
        """Return after `timeout` seconds, or as soon as the writer is wanted or much is waiting."""
        with self._lock:
            if self._urgent or self.bytes >= self._wake_bytes:
                return
            self._sleep()
            self._asleep = False
        await self._woken(timeout)

    def hurry(self) -> int:
        """Want the writer now; returns the ticket of the newest thing that is queued."""
        with self._lock:
            self._urgent = True
            self._enqueue_later(inf)
            self._wake()
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
            return max(0.0, (self._later[0][0] - monotonic_us()) / 1e6) if self._later else inf

    def take(self, max_bytes: int) -> list[Taken]:
        """Freeze and hand over what runs have, in the order they were queued, up to `max_bytes`.

        The lock is held for a hundred runs at a time, so that no producer waits for a long take.
        """
        taken: list[Taken] = []
        with self._lock:
            self._enqueue_later(monotonic_us())
        while max_bytes > 0:
            with self._lock:
                for _ in range(min(100, len(self._ready))):
                    part = self._freeze(self._ready.popleft())
                    taken.append(part)
                    max_bytes -= part.bytes
                    if max_bytes <= 0:
                        break
                if not self._ready:
                    self._urgent = False
                    self.oldest_us = None
                    break
        return taken

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

    def _count(self, run: OpenRun, size: int) -> None:
        run.bytes += size
        self.bytes += size
        if not run.queued:
            self._enqueue(run)

    def _enqueue(self, run: OpenRun) -> None:
        run.queued = True
        self.tickets += 1
        run.ticket = self.tickets
        self._ready.append(run)
        if self.oldest_us is None:
            self.oldest_us = monotonic_us()
        if self._asleep or self.bytes >= self._wake_bytes:
            self._wake()

    def _admit(self, run: OpenRun, size: int) -> bool:
        """The lock is not held here. Whether a new run found room; it may use what is kept for loops."""
        deadline = monotonic_us() + self._block_timeout * 1e6
        while True:
            with self._lock:
                if self.closed:
                    return False
                if not self.bytes or self.bytes + size <= self._hard:
                    self._count(run, size)
                    return True
                room = self._wanted_room(size)
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
            self._wake()
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

    def _freeze(self, run: OpenRun) -> Taken:
        run.queued = False
        tokens = run.take_tokens()
        self.taken += sum(map(len, tokens))
        kept = self._kept(run)
        frames = () if kept else run.take_frames()
        taken = Taken(run, tokens, frames, run.gaps, run.end, run.bytes - kept, run.ticket)
        run.gaps, run.end, run.bytes = (), None, kept
        return taken

    def _kept(self, run: OpenRun) -> int:
        """Bytes of the run's frames when they are too young and few to be taken, else 0.

        A row of twenty frames takes 40 bytes a frame, one of five 65: ids, keys and beginnings are shared.
        """
        frames = run.frames
        if frames is None or run.cut_frames or run.ended or self._urgent:
            return 0
        due = run.started_us + frames.at_us[0] + self._frames_us
        size = sum(map(len, frames.data)) + FRAME_COST * len(frames.data)
        if due <= monotonic_us() or size > _MANY:
            return 0
        if not run.later:
            run.later = True
            self._later.append((due, run))
        return size

    def _enqueue_later(self, before_us: float) -> None:
        """Queue the runs whose frames have come of age."""
        while self._later and self._later[0][0] <= before_us:
            _, run = self._later.popleft()
            run.later = False
            if run.frames is not None and not run.queued:
                self._enqueue(run)

    def _sleep(self) -> None:
        self._asleep = True
        self._woke = False
        if self._event is not None:
            self._event.clear()

    def _wake(self) -> None:
        self._asleep = False
        if self._loop is not None and self._event is not None and not self._woke:
            self._woke = True
            self._loop.call_soon_threadsafe(self._event.set)

    async def _woken(self, timeout: float | None) -> None:
        assert self._event is not None
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return
