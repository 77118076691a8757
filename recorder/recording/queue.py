"""The bounded queue between callbacks on any thread and the one writer.

Every run has one open segment that its producer appends to; the queue holds the runs that have something to write,
and the conversations that messages were added to. Taking freezes what they have. One lock guards it all: a lock a run
was no faster (32 threads: 0.49 us a call).

Finalizers and signal handlers never wait here: `end`, `want` and `close` take no lock, and what else is called while
its thread is inside already runs when that thread leaves.
"""

from __future__ import annotations

from asyncio.events import _get_running_loop
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.messages import BaseMessage
from recorder.recording.buffer import OpenRun, Said, size_of, weight_of, weight_of_start
from recorder.recording.capacity import RUN_COST, Overflow
from recorder.recording.delayed_frames import FRAME_COST
from recorder.recording.ready import Ready
from recorder.storage.rows import Added, Addition, RunEnd, RunStart
from recorder.wire.deltas import TEXT, Delta

#: Counted for each token beside its text and frame, and for each message that is added without a run (bytes, measured).
TOKEN_COST = 200
MESSAGE_COST = 1_000
_LONG = 1_000

#: The reason of the gap of a run that began while the queue was full.
FULL_AT_START = "the queue was full when the run began; its messages are not stored"


class Piece(NamedTuple):
    """Tokens that come at once, with their frame if there is one, and their size in the queue."""

    run: OpenRun
    flat: Sequence[int | Said]
    frame: bytes | None
    at_us: int
    size: int
    #: Whether its producer is on a running event loop, and so cannot be made to wait.
    on_loop: bool

    @property
    def tokens(self) -> int:
        """How many."""
        return len(self.flat) // 2


class Intake(Ready):
    """Put from any thread, await work, take. No I/O."""

    def __init__(
        self, max_bytes: int, *, overflow: Overflow = "block", block_timeout: float = 5.0,
        frames_interval: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(max_bytes, overflow, block_timeout, frames_interval)
        self._frames_interval = frames_interval
        #: Tokens that found no room, or that belonged to no open run.
        self.dropped = 0
        #: Runs that found no room when they began, and those of them whose row found none either.
        self.refused = 0
        self.lost_runs = 0
        #: Messages of requests and replies that found no room.
        self.lost_messages = 0
        #: Messages without a run.
        self.added = 0
        # The place of what happens now: times are read before, by threads that may have been held up since.
        self._order = count(1)

    def reset(self) -> None:
        """Begin anew, empty and with a lock of its own: in a forked child everything in here is the parent's."""
        Intake.__init__(
            self, self._max, overflow=self._overflow, block_timeout=self._block_timeout,
            frames_interval=self._frames_interval,
        )  # fmt: skip

    # -- producers ------------------------------------------------------------------------------------------

    def start(self, start: RunStart, started_us: int) -> OpenRun:
        """A new run, begun."""
        run = OpenRun(start, started_us)
        self.begin(run)
        return run

    def begin(self, run: OpenRun) -> None:
        """Queue a run's start. Off a loop it waits for room, up to `block_timeout`, as the run's tokens do.

        Where there is none its row is queued all the same, without its messages, and with a gap.
        """
        size = RUN_COST + weight_of_start(run.start)
        run.full_since_us = monotonic_us()
        if not self._admit(size, partial(self._begin, run, size)):
            self._begin_short(run, FULL_AT_START)

    def begin_and_end(self, run: OpenRun, end: RunEnd, reason: str) -> None:
        """Queue the row of a run that is not recorded, with a gap that says why."""
        run.ended = run.held = True
        self._begin_short(run, reason, end)

    def add(self, conversation_id: str, messages: Sequence[BaseMessage], at: datetime) -> bool:
        """Queue messages that belong to no run; whether they found room, for which it waits as `begin` does."""
        size = 0
        for message in messages:
            size += MESSAGE_COST + weight_of(message)
        return self._admit(size, partial(self._add, conversation_id, messages, at, size))

    def put(self, run: OpenRun, text: str, at_us: int) -> Wait[None] | None:
        """Accept one token of plain text. Returns None while there is room, else what to wait for.

        Every token of a model without frames comes through here, so nothing is counted that can be worked out
        later. Until `_inside` is set there is no call inside the lock, so that no signal handler runs there.
        """
        size = len(text) + TOKEN_COST
        if size > _LONG and not text.isascii():
            size = size_of(text) + TOKEN_COST
        flat: Sequence[int | Said] = (at_us, text)
        with self._lock:
            used = self.bytes + size
            if used <= self._limit and not run.held and not self._inside:
                self.bytes = used
                run.bytes += size
                run.flat += flat
                if run.queued:
                    return None
                flat = ()
                self._inside = True  # from here on there are calls, as in `Exclusive.now`
                try:
                    self._enqueue(run)
                finally:
                    self._inside = False
        if flat:
            return self._put_slowly(run, flat, None, at_us, size)
        if self._later:
            self.catch_up()
        return None

    def put_frame(
        self, run: OpenRun, frame: bytes | None, deltas: Sequence[Delta], at_us: int
    ) -> Wait[None] | None:
        """Accept the deltas of one frame, and the frame itself unless None; like `put`."""
        size = len(frame) + FRAME_COST if frame is not None else 0
        flat: list[int | Said] = []
        for text, kind, idx in deltas:
            size += TOKEN_COST + (len(text) if text.isascii() else 4 * len(text))
            flat += (at_us, text if kind == TEXT and idx == "0" else (text, kind, idx))
        framed: Sequence[Any] = (frame, at_us)
        with self._lock:
            used, frames = self.bytes + size, run.frames
            fits = used <= self._limit and not run.held and not self._inside
            if fits:
                self.bytes = used
                run.bytes += size
                if run.queued and frame is None:
                    run.flat += flat
                    return None
                if run.queued and frames is not None:
                    frames.flat += framed
                    run.flat += flat
                    return None
                self._inside = True  # from here on there are calls: as in `Exclusive.now`
                try:
                    run.append(flat, frame, at_us)
                    self._enqueue(run)
                finally:
                    self._inside = False
        if not fits:
            return self._put_slowly(run, flat, frame, at_us, size)
        if self._later:
            self.catch_up()
        return None

    def end(self, run: OpenRun, end: RunEnd) -> None:
        """End a run; a second end is ignored. Takes no lock and never waits: finalizers call it."""
        if run.ended or run.refused:
            return
        seal = partial(self._end, run, end, sum(map(weight_of, end.replies)))
        end.order = next(self._order)
        self._later.append(seal)  # as `soon` does, in one step: Ctrl-C comes before it or after it
        run.ended = run.held = True
        if self._bell.sleep.for_all:
            self._bell.ring()

    def rest(self, run: OpenRun, end: RunEnd, before_us: float) -> bool:
        """End a run of which nothing came since then, until a token comes all the same; whether it was so."""
        end.order = next(self._order)
        return self.now(partial(self._rest, run, end, before_us))

    def refuse(self, tokens: int) -> None:
        """Count tokens that belong to no open run."""
        count_them = partial(self._refuse, tokens)
        self.now(count_them, nested=partial(self.soon, count_them))

    def counts(self) -> tuple[int, int, int, int | None]:
        """Tokens accepted and not yet taken, taken, dropped; and `oldest_us`: all of one moment."""
        self.catch_up()
        return self.now(self._counts, nested=self._counts)

    # -- inside, with the lock held unless said otherwise ---------------------------------------------------------

    def _begin(self, run: OpenRun, size: int) -> None:
        if run.ended:
            return  # closed meanwhile
        run.touched_us = monotonic_us()
        run.start.order = next(self._order)
        run.full_since_us = 0
        self._count(run, size)

    def _begin_short(self, run: OpenRun, reason: str, end: RunEnd | None = None) -> None:
        """The lock is not held here."""
        begin = partial(self._queue_row, run, reason, end, run.shorten())
        self.now(begin, nested=partial(self.soon, begin))

    def _queue_row(self, run: OpenRun, reason: str, end: RunEnd | None, lost: int) -> None:
        size = RUN_COST + weight_of_start(run.start)
        moment_us = monotonic_us()
        run.start.order = next(self._order)
        self.refused += 1
        self.lost_messages += lost
        if self.closed or not self._fits(size, self._for_ends):
            run.refused = run.held = True
            self.lost_runs += 1
            return
        run.touched_us = moment_us
        run.gap_reason, run.held = reason, True
        if end is not None:
            self._seal(run, end, 0)
        self._count(run, size)

    def _add(self, conversation_id: str, messages: Sequence[BaseMessage], at: datetime, size: int) -> None:
        addition = self._additions.get(conversation_id)
        if addition is None:
            addition = self._additions[conversation_id] = Addition(conversation_id)
        order = next(self._order)
        addition.added += [Added(order, at, message) for message in messages]
        self.added += len(messages)
        self._count(addition, size)

    def _put_slowly(
        self, run: OpenRun, flat: Sequence[int | Said], frame: bytes | None, at_us: int, size: int
    ) -> Wait[None] | None:
        """The lock is not held here. Off a loop this waits; on one it returns what to wait for."""
        piece = Piece(run, flat, frame, at_us, size, _get_running_loop() is not None)
        room = self.now(partial(self._place_first, piece), nested=partial(self._place_soon, piece))
        while room is not None and not piece.on_loop:
            room.wait()
            room = self.now(partial(self._place, piece))
        return room

    def _place_first(self, piece: Piece) -> Wait[None] | None:
        if (run := piece.run).room is not None and run.room.done:
            run.full_since_us = 0  # there was room since, so that it may wait anew
        return self._place(piece)

    def _place_soon(self, piece: Piece) -> None:
        if piece.run.ended or self.closed:
            self.soon(partial(self._refuse, piece.tokens))
            return
        piece.run.held = True  # what comes next is placed after it
        once = [piece._replace(on_loop=True)]  # an action may run twice
        self.soon(lambda: once and self._fit(once.pop()))

    def _place(self, piece: Piece) -> Wait[None] | None:
        """Accept a piece or drop it; off a loop, where it waits, neither. Returns what its producer waits for."""
        if piece.run.ended or self.closed:
            self.dropped += piece.tokens
            return None
        return self._fit(piece)

    def _fit(self, piece: Piece) -> Wait[None] | None:
        run = piece.run
        if run.sealed or run.refused:
            self.dropped += piece.tokens
            return None
        if run.idle:
            self._reopen(run)
        if self._fits(piece.size, self._max):
            run.full_since_us = 0
            self._append(piece)
            return None
        room = self._patience(run)
        if piece.on_loop and room is not None and self._fits(piece.size, self._for_loops):
            self._append(piece)
            run.held = True
        elif piece.on_loop or room is None:
            self._drop(piece)
        return room

    def _append(self, piece: Piece) -> None:
        run = piece.run
        run.close_gap()
        run.append(piece.flat, piece.frame, piece.at_us)
        self._count(run, piece.size)

    def _drop(self, piece: Piece) -> None:
        run = piece.run
        run.touched_us = monotonic_us()
        run.drop(piece.tokens, int(piece.frame is not None))
        self.dropped += piece.tokens

    def _end(self, run: OpenRun, end: RunEnd, size: int) -> None:
        if not run.sealed:
            if run.shortened or not self._fits(size, self._for_ends):
                self.lost_messages += len(end.replies)
                end.replies, size = (), 0
            self._seal(run, end, size)
        if run.end is not None:
            self._enqueue(run)

    def _seal(self, run: OpenRun, end: RunEnd, size: int) -> None:
        run.close_gap()
        run.ended = run.sealed = run.held = True
        run.idle = False
        run.end = end
        run.bytes += size
        self.bytes += size

    def _rest(self, run: OpenRun, end: RunEnd, before_us: float) -> bool:
        if run.ended or run.refused or run.idle or run.queued or run.touched_us > before_us:
            return False
        run.close_gap()
        run.idle = run.held = True
        run.end = end
        self._enqueue(run)
        return True

    def _reopen(self, run: OpenRun) -> None:
        if run.end is None:  # it was taken, so that its row says that the run is over
            run.reopened = True
        run.end = None
        run.idle = run.held = False

    def _refuse(self, tokens: int) -> None:
        self.dropped += tokens

    def _counts(self) -> tuple[int, int, int, int | None]:
        return sum(run.waiting for run in self._ready), self.taken, self.dropped, self.oldest_us
