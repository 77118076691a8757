"""The bounded queue between callbacks on any thread and the one writer.

The producer of a run appends to the run's own buffer. The queue holds the runs that have something to write, and the
conversations that messages were added to; draining freezes their buffers. One lock guards all of it: one lock for each
run was no faster (32 threads: 0.49 us a call).

Finalizers and signal handlers never wait here: `end`, `wake_writer` and `close` take no lock. Any other call of a
thread that is inside the queue already is deferred until that thread leaves.
"""

from __future__ import annotations

from asyncio.events import _get_running_loop
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.messages import BaseMessage
from recorder.recording.buffer import OpenRun, TokenValue, size_of_content, size_of_message, size_of_start
from recorder.recording.capacity import RUN_COST, Overflow
from recorder.recording.delayed_frames import FRAME_COST
from recorder.recording.ready_queue import ReadyQueue
from recorder.storage.batch import Addition
from recorder.storage.rows import AnnotationRow, RunEnd
from recorder.wire.deltas import TEXT, Delta

#: Counted for each token beside its text and frame, and for each message that is added without a run (bytes, measured).
TOKEN_COST = 200
MESSAGE_COST = 1_000
#: A text that is not ASCII and longer than this is counted at four bytes a character.
_LONG = 1_000

#: The reason of the gap of a run that began while the queue was full.
FULL_AT_START = "the queue was full when the run began; its messages are not stored"


class PendingPut(NamedTuple):
    """The arguments of one `put` or `put_frame` on the slow path."""

    run: OpenRun
    flat: Sequence[int | TokenValue]
    frame: bytes | None
    at_us: int
    #: Bytes in the queue.
    size: int
    #: Whether the producer is on a running event loop, where the call must not block.
    on_loop: bool

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.flat) // 2


class RecordingQueue(ReadyQueue):
    """The producers' side: start, put, end and add, from any thread. No I/O."""

    def __init__(
        self, max_bytes: int, *, overflow: Overflow = "block", block_timeout: float = 5.0,
        frames_interval: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(max_bytes, overflow, block_timeout, frames_interval)
        self._frames_interval = frames_interval
        #: Tokens that came while the queue was full, or belonged to no open run.
        self.dropped = 0
        #: Runs that began while the queue was full, and those of them that are not stored at all.
        self.refused_runs = 0
        self.lost_runs = 0
        #: Messages of requests and replies that are not stored because the queue was full.
        self.lost_messages = 0
        #: Messages, annotations and details that were added without a run.
        self.added = 0
        # Numbers starts, ends and additions. Times do not give their order: a thread may pause after it read the clock.
        self.next_order = count(1).__next__

    def reset(self) -> None:
        """Make the queue empty, with a new lock. For a forked child, where all of its contents are the parent's."""
        RecordingQueue.__init__(
            self, self._max_bytes, overflow=self._overflow, block_timeout=self._block_timeout,
            frames_interval=self._frames_interval,
        )  # fmt: skip

    # -- producers ------------------------------------------------------------------------------------------

    def start(self, run: OpenRun) -> None:
        """Queue a run's start. Off an event loop the call waits for capacity, up to `block_timeout`.

        If there is none, the run's row is queued without its messages, and with a gap.
        """
        size = RUN_COST + size_of_start(run.start)
        with self._lock:
            fits = self.bytes + size <= self._limit and not self._inside
            if fits:
                self._inside = True  # calls are allowed from here on, as in `Exclusive.call`
                try:
                    self._start(run, size)
                finally:
                    self._inside = False
        if not fits:
            self._start_slowly(run, size)
        elif self._pending:
            self.run_pending()

    def reject(self, run: OpenRun, end: RunEnd, reason: str) -> None:
        """Queue the row of a run that is not recorded, with a gap that has the reason."""
        run.ended = run.slow_path = True
        self._start_without_messages(run, reason, end)

    def add(
        self, key: tuple[str, str | None], at: datetime, messages: Sequence[BaseMessage] = (), *,
        details: Mapping[str, str] | None = None, annotations: Sequence[AnnotationRow] = (),
    ) -> bool:  # fmt: skip
        """Queue what belongs to no run; `key` is that of its `Addition`. Waits for capacity as `start` does. False if
        there was none."""
        size = 0
        for message in messages:
            size += MESSAGE_COST + size_of_message(message)
        if details or annotations:
            for text in (*(details or {}).values(), *(row.data or "" for row in annotations)):
                size += MESSAGE_COST + len(text)
        with self._lock:
            fits = self.bytes + size <= self._limit and not self._inside
            if fits:
                self._inside = True  # calls are allowed from here on, as in `Exclusive.call`
                try:
                    self._add(key, at, messages, details, annotations, size)
                finally:
                    self._inside = False
        if not fits:
            add = partial(self._add, key, at, messages, details, annotations, size)
            return self._admit(size, add, late=bool(annotations))
        if self._pending:
            self.run_pending()
        return True

    def put(self, run: OpenRun, text: str, at_us: int) -> Wait[None] | None:
        """Accept one token of plain text. Returns None, or what to wait for when the queue is full.

        Every token of a model without frames comes through here, so nothing is counted that can be computed later.
        Until `_inside` is set there is no call while the lock is held, so that no signal handler runs there.
        """
        size = len(text) + TOKEN_COST
        if size > _LONG and not text.isascii():
            size = size_of_content(text) + TOKEN_COST
        flat: Sequence[int | TokenValue] = (at_us, text)
        with self._lock:
            used = self.bytes + size
            if used <= self._limit and not run.slow_path and not self._inside:
                self.bytes = used
                run.bytes += size
                run.flat += flat
                if run.queued:
                    return None
                flat = ()
                self._inside = True  # calls are allowed from here on, as in `Exclusive.call`
                try:
                    self._enqueue(run)
                finally:
                    self._inside = False
        if flat:
            return self._put_slowly(run, flat, None, at_us, size)
        if self._pending:
            self.run_pending()
        return None

    def put_frame(
        self, run: OpenRun, frame: bytes | None, deltas: Sequence[Delta], at_us: int
    ) -> Wait[None] | None:
        """Accept the deltas of one frame, and the frame unless it is None. Returns the same as `put`."""
        size = len(frame) + FRAME_COST if frame is not None else 0
        flat: list[int | TokenValue] = []
        for text, kind, idx in deltas:
            size += TOKEN_COST + (len(text) if text.isascii() else 4 * len(text))
            flat += (at_us, text if kind == TEXT and idx == "0" else (text, kind, idx))
        framed: Sequence[Any] = (frame, at_us)
        with self._lock:
            used, frames = self.bytes + size, run.frames
            fits = used <= self._limit and not run.slow_path and not self._inside
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
                self._inside = True  # calls are allowed from here on, as in `Exclusive.call`
                try:
                    run.append(flat, frame, at_us)
                    self._enqueue(run)
                finally:
                    self._inside = False
        if not fits:
            return self._put_slowly(run, flat, frame, at_us, size)
        if self._pending:
            self.run_pending()
        return None

    def end(self, run: OpenRun, end: RunEnd) -> None:
        """End a run; a second end is ignored. Takes no lock and never waits, because finalizers call it."""
        if run.ended or run.lost:
            return
        # Told here, because another thread may run the action.
        first = self._translates_here
        seal = partial(self._end, run, end, sum(map(size_of_message, end.replies)), first=first)
        end.order = run.ended_order or self.next_order()
        self._pending.append(seal)  # as `call_soon` does, in one step: Ctrl-C comes before or after it
        run.ended = run.slow_path = True
        if self._waker.current.on_any_change:
            self._waker.wake()

    def end_idle(self, run: OpenRun, end: RunEnd, before_us: float) -> bool:
        """End a run that was not active since `before_us` (monotonic); its next token reopens it. False if it was."""
        end.order = self.next_order()
        return self.call(partial(self._end_idle, run, end, before_us))

    def forget_idle(self, run: OpenRun) -> bool:
        """Let an idle run stay ended: later tokens are dropped. False if a token has reopened it."""
        return self.call(partial(self._forget_idle, run))

    def count_dropped(self, tokens: int) -> None:
        """Count tokens that belong to no open run."""
        count_them = partial(self._count_dropped, tokens)
        self.call(count_them, nested=partial(self.call_soon, count_them))

    def counts(self) -> tuple[int, int, int, int | None]:
        """Tokens that are queued, drained and dropped; and since when the oldest item waits that is queued or in flight
        (monotonic microseconds, None without any). All at one moment."""
        self.run_pending()
        return self.call(self._counts, nested=self._counts)

    # -- called with the lock held unless a docstring says otherwise -----------------------------------------------

    def _start_slowly(self, run: OpenRun, size: int) -> None:
        """The lock must not be held."""
        run.full_since_us = monotonic_us()
        if not self._admit(size, partial(self._start, run, size)):
            self._start_without_messages(run, FULL_AT_START)

    def _start(self, run: OpenRun, size: int) -> None:
        if run.ended:
            return  # the recorder was closed meanwhile
        run.active_us = monotonic_us()
        run.start.order = self.next_order()
        run.full_since_us = 0
        self._count(run, size)

    def _start_without_messages(self, run: OpenRun, reason: str, end: RunEnd | None = None) -> None:
        """The lock must not be held."""
        queue_row = partial(self._queue_row, run, reason, end, run.remove_messages())
        self.call(queue_row, nested=partial(self.call_soon, queue_row))

    def _queue_row(self, run: OpenRun, reason: str, end: RunEnd | None, lost: int) -> None:
        size = RUN_COST + size_of_start(run.start)
        moment_us = monotonic_us()
        run.start.order = self.next_order()
        self.refused_runs += 1
        self.lost_messages += lost
        if self.closed or not self._fits(size, self._limit_for_ends):
            run.lost = run.slow_path = True
            self.lost_runs += 1
            return
        run.active_us = moment_us
        run.gap_reason, run.slow_path = reason, True
        if end is not None:
            self._seal(run, end, 0)
        self._count(run, size)

    def _add(
        self, key: tuple[str, str | None], at: datetime, messages: Sequence[BaseMessage],
        details: Mapping[str, str] | None, annotations: Sequence[AnnotationRow], size: int,
    ) -> None:  # fmt: skip
        """Add to what is queued for the same conversation and user."""
        addition, order = self._additions.get(key), self.next_order()
        if addition is None:
            addition = self._additions[key] = Addition(*key, at, order=order)
        addition.added.append(order, at, messages)
        if details:
            addition.details |= details
            self.added += len(details)
        if annotations:
            addition.annotations += annotations
            self.added += len(annotations)
        self.added += len(messages)
        self._count(addition, size)

    def _put_slowly(
        self, run: OpenRun, flat: Sequence[int | TokenValue], frame: bytes | None, at_us: int, size: int
    ) -> Wait[None] | None:
        """The lock must not be held. Off an event loop the call waits; on one it returns what to wait for."""
        put = PendingPut(run, flat, frame, at_us, size, _get_running_loop() is not None)
        wait = self.call(partial(self._try_put_first, put), nested=partial(self._put_soon, put))
        while wait is not None and not put.on_loop:
            wait.wait()
            wait = self.call(partial(self._try_put, put))
        return wait

    def _try_put_first(self, put: PendingPut) -> Wait[None] | None:
        if (run := put.run).capacity_wait is not None and run.capacity_wait.done:
            run.full_since_us = 0  # there was capacity since, so the run may wait for `block_timeout` again
        return self._try_put(put)

    def _put_soon(self, put: PendingPut) -> None:
        if put.run.ended or self.closed:
            self.call_soon(partial(self._count_dropped, put.tokens))
            return
        put.run.slow_path = True  # so that later tokens stay behind this one
        once = [put._replace(on_loop=True)]  # an action may run twice
        self.call_soon(lambda: once and self._accept_or_drop(once.pop()))

    def _try_put(self, put: PendingPut) -> Wait[None] | None:
        """Accept or drop the tokens; off an event loop with a full queue, neither. Returns the wait for capacity."""
        if put.run.ended or (self.closed and not self._translates_here):
            self.dropped += put.tokens
            return None
        return self._accept_or_drop(put)

    def _accept_or_drop(self, put: PendingPut) -> Wait[None] | None:
        run = put.run
        if run.sealed or run.lost:
            self.dropped += put.tokens
            return None
        if run.idle:
            self._reopen(run)
        if self._translates_here or self._fits(put.size, self._max_bytes):
            run.full_since_us = 0
            self._append(put)
            return None
        wait = self._wait_of_run(run)
        if put.on_loop and wait is not None and self._fits(put.size, self._limit_on_loops):
            self._append(put)
            run.slow_path = True
        elif put.on_loop or wait is None:
            self._drop(put)
        return wait

    def _append(self, put: PendingPut) -> None:
        run = put.run
        run.close_gap()
        run.append(put.flat, put.frame, put.at_us)
        self._count(run, put.size)

    def _drop(self, put: PendingPut) -> None:
        run = put.run
        run.active_us = monotonic_us()
        run.drop(put.tokens, int(put.frame is not None))
        self.dropped += put.tokens

    def _end(self, run: OpenRun, end: RunEnd, size: int, *, first: bool) -> None:
        if not run.sealed:
            if run.without_messages or not self._fits(size, self._limit_for_ends):
                self.lost_messages += len(end.replies)
                end.replies, size = (), 0
            self._seal(run, end, size)
        if run.end is not None:
            self._enqueue(run, first=first)

    def _seal(self, run: OpenRun, end: RunEnd, size: int) -> None:
        run.close_gap()
        run.ended = run.sealed = run.slow_path = True
        run.idle = False
        run.end = end
        run.bytes += size
        self.bytes += size

    def _end_idle(self, run: OpenRun, end: RunEnd, before_us: float) -> bool:
        if run.ended or run.lost or run.idle or run.queued or run.active_us > before_us:
            return False
        run.close_gap()
        run.idle = run.slow_path = True
        run.end = end
        self._enqueue(run)
        return True

    def _forget_idle(self, run: OpenRun) -> bool:
        if run.idle:
            run.ended = run.sealed = True
        return run.ended

    def _reopen(self, run: OpenRun) -> None:
        if run.end is None:  # it was drained, so the stored row says that the run is over
            run.reopened = True
        run.end = None
        run.idle = run.slow_path = False

    def _count_dropped(self, tokens: int) -> None:
        self.dropped += tokens

    def _counts(self) -> tuple[int, int, int, int | None]:
        known = self.in_flight_us, self.oldest_us, *self._oldest_deferred_us()
        times = [each for each in known if each is not None]
        queued = sum(run.queued_tokens for run in self._ready)
        return queued, self.drained, self.dropped, min(times, default=None)
