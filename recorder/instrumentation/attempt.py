"""One HTTP attempt of a model call, as a run: its start, the bytes of its response, and its end.

Nothing here raises into the application: what goes wrong is logged once, and ends the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from recorder.core.collection import collection
from recorder.instrumentation.content_decoding import Decode, decoder_of
from recorder.instrumentation.provider_errors import (
    reading_error,
    status_error,
    transport_error,
    unreadable_answer,
)
from recorder.runs.collected_streams import collector
from recorder.runs.run import WireRun
from recorder.runs.sdk_stream import settle_run, settle_run_async

log = logging.getLogger("recorder")

#: Of a body that is no stream, so many bytes are read. The rest is not recorded.
MAX_BODY = 64 * 2**20
#: How a stream of events begins.
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class Attempt:
    """Reports one attempt to the handlers. Its driver calls these methods, and `settle` after each."""

    def __init__(self, run: WireRun[Any], sdk: str) -> None:
        """`sdk` is the library whose exceptions the application gets."""
        self.run = run
        self._sdk = sdk
        self._is_open = False
        self._status = 0
        #: The body of a response that is no stream; None for a stream.
        self._body: bytearray | None = None
        #: Whether the body may be a stream of events, though the header says otherwise. The SDKs do not look at it.
        self._may_be_stream = False
        self._decode: Decode | None = None

    @property
    def has_pending(self) -> bool:
        """Whether a handler returned something to wait for."""
        return self.run.pending is not None

    @property
    def is_open(self) -> bool:
        """Whether the answer has not ended."""
        return self._is_open

    def settle(self) -> None:
        """Wait for what handlers returned."""
        settle_run(self.run)

    async def settle_async(self) -> None:
        """`settle` on an event loop."""
        await settle_run_async(self.run)

    def start(self) -> None:
        """The request is about to be sent."""
        collector.begin()
        self._is_open = True
        self._safely(self.run.start)

    def receive(self, response: Any) -> None:
        """The head of the response arrived."""
        self._safely(self._receive, response)

    def feed(self, data: bytes, moment_us: int | None = None) -> None:
        """Bytes of the body arrived, as they were sent; by default now (monotonic microseconds)."""
        self._safely(self._feed, data, moment_us)

    def feed_again(self) -> None:
        """All bytes were taken by `feed`."""

    def feed_complete(self, content: bytes) -> None:
        """The HTTP client has read the body, and decoded it."""
        self._decode = None
        self._safely(self._feed, content)

    def end(self) -> None:
        """The body has ended."""
        self._safely(self._end)

    def end_cut(self) -> None:
        """The body has ended or was left, and not all of it was read or had room: the run is interrupted."""
        self._safely(self._end_cut)

    def leave(self) -> None:
        """The response was closed: before the end of the answer a cancellation. A finalizer may call this."""
        if not self._is_open:
            return
        if collection.runs_here:
            collector.put(self._leave_and_settle)
        else:
            self._safely(self._leave)

    def leave_if_complete(self) -> None:
        """End if the answer is complete, though its response was not closed yet."""
        if self._is_open and self._body is None and self.run.reply.has_ended:
            self._safely(self._end_of_stream)

    def leave_collected(self) -> None:
        """The response was collected, or its thread is in a finalizer."""
        if self._is_open:
            collector.put(self._leave_and_settle)

    def end_collected(self) -> None:
        """The response was collected after all of its body was read."""
        if self._is_open:
            collector.put(self._end_and_settle)

    def fail(self, error: BaseException) -> None:
        """The request failed."""
        self._safely(self._fail, transport_error(self._sdk, error))

    def fail_reading(self, error: BaseException) -> None:
        """Reading the body of the response failed."""
        self._safely(self._fail, reading_error(self._sdk, error))

    def end_at_exit(self) -> None:
        """The process ends, and the response is still open."""
        self._leave_and_settle()

    # -- inside -------------------------------------------------------------------------------------------------

    def _safely(self, step: Callable[..., None], *args: Any) -> None:
        if not self._is_open:
            return
        try:
            step(*args)
        except Exception as error:
            log.warning("Recording of run %s ends early: %r", self.run.request.run_id, error, exc_info=error)
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._is_open = False
        try:
            self.run.fail(error)
        except Exception as failure:  # of a handler; it was logged where it was called
            log.debug("The end of run %s was not reported: %r", self.run.request.run_id, failure)

    def _receive(self, response: Any) -> None:
        # The response itself is not kept: this may live until the writer has translated all.
        self._status = response.status_code
        self.run.request.mask.learn_request(response.request)
        kind = response.headers.get("content-type", "").lower()
        is_stream = self.run.framing.is_stream(kind, requested=self.run.request.stream)
        if response.status_code >= 400 or not is_stream:
            self._body = bytearray()
            self._may_be_stream = response.status_code < 400
        self._decode = decoder_of(response.headers.get("content-encoding"))

    def _feed(self, data: bytes, moment_us: int | None = None) -> None:
        for piece in self._decode(data) if self._decode is not None else (data,):
            if self._may_be_stream:
                piece = self._tell_apart(piece)
            if self._body is None:
                self._feed_stream(piece, moment_us)
            elif len(self._body) < MAX_BODY:
                self._body += piece

    def _tell_apart(self, piece: bytes) -> bytes:
        """Tell by the first bytes whether the body is a stream. Returns what is to be read now."""
        start = bytes(self._body or b"") + piece
        head = start.lstrip()
        is_stream = head.startswith(_FIELDS)
        self._may_be_stream = not is_stream and any(field.startswith(head) for field in _FIELDS)
        if is_stream:
            self._body = None
        return start if is_stream else piece

    def _feed_stream(self, data: bytes, moment_us: int | None) -> None:
        try:
            self.run.report(data, moment_us)
        except Exception as error:
            if self.run.reply.error is None:
                raise
            self._fail(error)

    def _end(self) -> None:
        if self._body is None:
            self._end_of_stream()
        elif self._status >= 400:
            self._fail(self._status_error())
        else:
            self._end_of_body(bytes(self._body))

    def _end_cut(self) -> None:
        if self._body is not None and self._status >= 400:
            self._fail(self._status_error())
        elif self._body is None and self.run.reply.failure() is not None:
            self._end_of_stream()
        else:
            self._close()
            self.run.finish()

    def _end_of_stream(self) -> None:
        if self._is_read(self._read_rest):
            self._finish()

    def _end_of_body(self, body: bytes) -> None:
        if not self._is_read(partial(self.run.feed_complete, body, None)):
            return
        if self.run.reply.terminated or self.run.reply.goes_on:
            self._finish()
        else:
            self._fail(unreadable_answer(self._sdk, body))

    def _is_read(self, read: Callable[[], None]) -> bool:
        """Read the last part of the answer. False if the provider reports an error in it, which ends the run."""
        try:
            read()
        except Exception as error:
            if self.run.reply.failure() is None:
                raise
            self._fail(error)
            return False
        return True

    def _read_rest(self) -> None:
        for _ in self.run.rest():
            pass

    def _finish(self) -> None:
        self._close()
        self.run.finish()

    def _leave(self) -> None:
        if self._body is not None and self._status >= 400:
            self._fail(self._status_error())  # an SDK that tries again does not read the body
        elif self._body is None and self.run.reply.has_ended:
            self._end_of_stream()
        else:
            self._fail(GeneratorExit())

    def _leave_and_settle(self) -> None:
        self._safely(self._leave)
        settle_run(self.run)

    def _end_and_settle(self) -> None:
        self._safely(self._end)
        settle_run(self.run)

    def _status_error(self) -> Exception:
        return status_error(self._sdk, self._status, bytes(self._body or b""))

    def _fail(self, error: BaseException) -> None:
        self._close()
        self.run.fail(error)

    def _close(self) -> None:
        self._is_open = False

    def __del__(self) -> None:
        if self._is_open:
            collector.put(partial(_leave, self.run))


def _leave(run: WireRun[Any]) -> None:
    """End the run of a response that nothing refers to any more."""
    if run.reply.has_ended:
        for _ in run.rest():
            pass
        run.finish()
    else:
        run.fail(GeneratorExit())
    settle_run(run)
