"""An attempt whose bytes the recorder's writer translates, off the application's thread.

On the application's thread a chunk of bytes takes one entry in the recorder's queue. Its time is the time at which it
arrived there. A chunk that finds no room ends the capture of the run: what came before is stored, and a gap follows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Limited, Wait
from recorder.instrumentation.attempt import Attempt
from recorder.recording.capacity import return_none
from recorder.recording.deferred_steps import BytesTranslator
from recorder.recording.delayed_frames import FRAME_COST
from recorder.recording.queue import TOKEN_COST

#: Counted for each event beside its bytes. So the translated tokens never take more of the queue than the bytes did.
_EVENT_COST = FRAME_COST + TOKEN_COST


class DeferredAttempt:
    """The methods of `Attempt` for one recorder, which does them later and in order."""

    def __init__(self, attempt: Attempt, recorder: Any) -> None:
        """`recorder` is the `ChatHistoryCallback` that is the only handler of the run."""
        self.run = attempt.run
        self._attempt = attempt
        self._handler = recorder
        self._event_mark = self.run.framing.event_mark
        self._queue = recorder.recorder.queue
        self._epoch = self._queue.epoch
        self._block_timeout: float = recorder.recorder.config.block_timeout
        self._is_open = False
        #: Whether a chunk found no room.
        self._is_cut = False
        #: The chunk that waits for room, and until when it may (monotonic microseconds).
        self._refused: tuple[BytesTranslator, bytes, int] | None = None
        self._waits_until_us = 0.0

    #: A recorder returns nothing to wait for but for room, and the writer's thread never waits for that.
    has_pending = False

    @property
    def is_open(self) -> bool:
        """Whether the answer has not ended."""
        return self._is_open

    def settle(self) -> None:
        """Nothing is left to wait for."""

    async def settle_async(self) -> None:
        """Nothing is left to wait for."""

    def start(self) -> None:
        """The request is about to be sent. The run is queued now, so that it is stored before its first token."""
        self._is_open = True
        self._attempt.start()
        if self._handler.loses(self.run.request.run_id):  # then nothing of it is kept until the writer comes
            self._is_open = False
            self._attempt.leave()
        # The recorder has its own copies, which the queue counts.
        request = self.run.request
        request.messages.clear()
        for key in request.body.keys() - {"model"}:
            del request.body[key]

    def receive(self, response: Any) -> None:
        """The head of the response arrived."""
        self._attempt.receive(response)

    def feed(self, data: bytes, moment_us: int | None = None) -> Wait[None] | None:
        """Bytes of the body arrived, by default now (monotonic microseconds). Returns a wait for room; after it, call
        `feed_again`.

        Called for each chunk of a response: nearly always the queue is the only thing that it calls.
        """
        if self._is_cut or not self._is_open:
            return None
        size = len(data) + _EVENT_COST * (data.count(self._event_mark) + 1)
        if self._waits_until_us or self._queue.epoch is not self._epoch:
            return self._offer(self, data, size, moment_us)
        accepted = self._queue.offer(self, data, size, moment_us)
        return None if accepted is True else self._refuse(accepted, self, data, size)

    def feed_again(self) -> Wait[None] | None:
        """Offer the bytes again that found no room."""
        if self._refused is None:
            return None
        refused, self._refused = self._refused, None
        return self._offer(*refused)

    def feed_complete(self, content: bytes) -> Wait[None] | None:
        """The HTTP client has read the body, and decoded it. The rest is as with `feed`."""
        if not self._is_open:
            return None
        return self._offer(_CompleteBody(self._attempt), content, len(content) + _EVENT_COST)

    def end(self) -> None:
        """The body has ended. A finalizer may call this."""
        self._end(self._attempt.end_cut if self._misses_bytes() else self._attempt.end)

    def end_cut(self) -> None:
        """The rest of the response is not read, though it may go on: the run is interrupted."""
        self._end(self._attempt.end_cut)

    def leave(self) -> None:
        """The response was closed. A finalizer may call this."""
        self._end(self._attempt.end_cut if self._misses_bytes() else self._attempt.leave)

    def leave_if_complete(self) -> None:
        """As `Attempt.leave_if_complete`. Called on the writer's thread."""
        self._attempt.leave_if_complete()

    def leave_collected(self) -> None:
        """The response was collected."""
        self.leave()

    def end_collected(self) -> None:
        """The response was collected after all of its body was read."""
        self.end()

    def fail(self, error: BaseException) -> None:
        """The request failed."""
        self._end(partial(self._attempt.fail, error))

    def fail_reading(self, error: BaseException) -> None:
        """Reading the body of the response failed."""
        self._end(partial(self._attempt.fail_reading, error))

    def end_at_exit(self) -> None:
        """The process ends, and the response is still open."""
        self.leave()

    # -- inside -------------------------------------------------------------------------------------------------

    def _offer(
        self, translator: BytesTranslator, data: bytes, size: int, moment_us: int | None = None
    ) -> Wait[None] | None:
        """Queue bytes. Returns the limited wait for room. If there is none in time, the capture ends here."""
        if self._is_of_parent():
            return None
        accepted = self._queue.offer(translator, data, size, moment_us)
        if accepted is True:
            self._waits_until_us = 0.0  # there was room, so the run may wait for `block_timeout` again
            return None
        return self._refuse(accepted, translator, data, size)

    def _refuse(
        self, room: Literal[False] | Wait[None], translator: BytesTranslator, data: bytes, size: int
    ) -> Wait[None] | None:
        """These bytes found no room, and `room` is what to wait for, if anything."""
        moment_us = monotonic_us()
        self._waits_until_us = self._waits_until_us or moment_us + self._block_timeout * 1e6
        if room is False or moment_us >= self._waits_until_us:
            self._is_cut = True
            return None
        self._refused = translator, data, size
        return Limited(room, (self._waits_until_us - moment_us) / 1e6, return_none)

    def _misses_bytes(self) -> bool:
        """Whether bytes found no room until now, when the response ends."""
        if self._refused is not None:  # whoever waited for room was cancelled, or could not wait
            self._refused, self._is_cut = None, True
        return self._is_cut

    def _is_of_parent(self) -> bool:
        """Whether the process was forked since, and this is the child: the run is the parent's."""
        if self._queue.epoch is not self._epoch:
            self._is_open = False
        return not self._is_open

    def _end(self, step: Callable[[], None]) -> None:
        if not self._is_of_parent():
            self._is_open = False
            self._misses_bytes()
            # The order is that of now: a request that the application sends next comes after this answer.
            self._queue.defer(partial(self._finish, step, monotonic_us(), self._queue.next_order()))

    # -- on the writer's thread ---------------------------------------------------------------------------------

    def translate(self, data: bytes, moment_us: int) -> None:
        """Translate bytes that came at this time (monotonic microseconds)."""
        self._attempt.feed(data, moment_us)
        self.run.pending = None  # the queue has room for what it accepted as bytes

    def _finish(self, step: Callable[[], None], moment_us: int, order: int) -> None:
        run_id = self.run.request.run_id
        self._handler.on_stream_bytes_end(run_id=run_id, at_us=moment_us, order=order, cut=self._is_cut)
        step()
        self.run.pending = None


class _CompleteBody:
    """Translates a body that the HTTP client has read and decoded."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def translate(self, data: bytes, moment_us: int) -> None:
        """Translate the body. It has no times of its own."""
        self._attempt.feed_complete(data)
