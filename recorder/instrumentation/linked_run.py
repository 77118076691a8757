"""A run of another framework, linked to the HTTP requests that it sends.

The framework's callbacks begin and end the run. The bytes of its answer are those of the HTTP response, so nothing is
lost that the framework leaves out. A context variable links both: the framework sends the request in the context in
which it reported the start.

The first attempts of a call may fail, and the SDK tries again. The run is one run with the tokens of the last attempt.
Each attempt that failed before it is a child run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any
from uuid import UUID

import uuid_utils.compat

from recorder.callbacks.handlers import BaseCallbackHandler
from recorder.messages import LLMResult
from recorder.wire.deltas import Delta

_current: ContextVar[LinkedRun | None] = ContextVar("linked_run", default=None)
_CANCELS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)


def linked_run() -> LinkedRun | None:
    """The run to which a request belongs that is sent now; None without one."""
    run = _current.get()
    return run if run is not None and run.takes_request else None


def others_than_linked(handlers: Sequence[Any]) -> list[Any]:
    """The handlers without those that store into the database of the run around this request, but its own one.

    A program that has the framework's handler may be run with `recorder run`, which records into the same database.
    """
    run = _current.get()
    if run is None or not run.is_open:
        return list(handlers)
    return [each for each in handlers if each is run.recorder_handler or _url_of(each) != run.recorder.url]


def _url_of(handler: Any) -> Any:
    return getattr(getattr(handler, "recorder", None), "url", None)


def linked_handler() -> Any:
    """The recorder of that run; None without one."""
    run = linked_run()
    return run.recorder_handler if run is not None else None


def recorders_of(attempt: Any) -> list[Any]:
    """The handlers that an attempt is recorded for; of a linked run, the recorder of the framework's callbacks."""
    handlers = attempt.run.request.handlers
    return [each.recorder_handler if isinstance(each, LinkedRun) else each for each in handlers]


class _FailedAttempt:
    """An attempt that failed. It is a child run if another attempt follows."""

    def __init__(self, start: Mapping[str, Any], error: BaseException, response: LLMResult | None) -> None:
        self.start, self.error, self.response = start, error, response


class LinkedRun(BaseCallbackHandler):
    """The handler of the attempts of one run. Its methods are called in order, on the recorder's thread.

    If the recorder takes no bytes, they are called on the application's thread.
    """

    tokens_from_frames = True
    takes_mask = True

    def __init__(self, handler: Any, run_id: UUID) -> None:
        """`handler` is the `ChatHistoryCallback` that records the run, which has begun."""
        self.recorder_handler = handler
        self.recorder = handler.recorder
        self.takes_bytes = handler.takes_bytes
        self.run_id = run_id
        #: Whether requests belong to this run.
        self.is_open = True
        #: Whether a request was sent.
        self.has_sent = False
        self._attempt: Any = None
        self._ended = False
        self._start: dict[str, Any] = {}
        self._failed: _FailedAttempt | None = None
        self._response: LLMResult | None = None

    @property
    def takes_request(self) -> bool:
        """Whether a request belongs to the run: the first one, and further attempts. Others at the same time do not."""
        return self.is_open and (self._attempt is None or not self._attempt.is_open)

    def enter(self) -> None:
        """Requests that are sent in this context belong to the run."""
        _current.set(self)

    def follow(self, attempt: Any) -> None:
        """A request of the run is about to be sent; this attempt reads its answer."""
        self.has_sent = True
        self._attempt = attempt

    # -- the framework's side, which may come before the bytes are translated ------------------------------------

    def end(self, response: Any) -> None:
        """The framework has the answer."""
        self._close(partial(self._end, response))

    def fail(self, error: BaseException, response: Any) -> None:
        """The framework reports an error; `response` is what had arrived before, as it saw it."""
        self._close(partial(self._fail, error, response))

    # -- the attempts -------------------------------------------------------------------------------------------

    def loses(self, run_id: UUID) -> bool:
        """As `ChatHistoryCallback.loses`."""
        lost: bool = self.recorder_handler.loses(run_id)
        return lost

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: Sequence[Sequence[Any]], **kwargs: Any
    ) -> None:
        """An attempt begins: what its request says is added to the run."""
        self._later(partial(self._begin_attempt, {**kwargs, "messages": messages, "serialized": serialized}))

    def on_llm_start(self, serialized: dict[str, Any], prompts: Sequence[str], **kwargs: Any) -> None:
        """As `on_chat_model_start`, for a completion."""
        self._later(partial(self._begin_attempt, {**kwargs, "prompts": prompts, "serialized": serialized}))

    def on_stream_frame(self, frame: bytes, at_us: int, deltas: Sequence[Delta], *, run_id: UUID) -> Any:
        """An event of the answer."""
        return self.recorder_handler.on_stream_frame(frame, at_us, deltas, run_id=run_id)

    def on_stream_bytes_end(self, *, run_id: UUID, at_us: int, order: int, cut: bool = False) -> None:
        """The last bytes of an attempt came at this time."""
        self.recorder_handler.on_stream_bytes_end(run_id=run_id, at_us=at_us, order=order, cut=cut)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """The answer was read. The run ends when the framework says so: it may have failed to read the answer."""
        self._response = response

    def on_llm_error(self, error: BaseException, *, response: LLMResult | None = None, **kwargs: Any) -> None:
        """An attempt failed: another one may follow. A cancellation ends the run."""
        self._failed = _FailedAttempt(self._start, error, response)
        if isinstance(error, _CANCELS):
            self.is_open = False
            self._break(error, response)

    # -- inside -------------------------------------------------------------------------------------------------

    def _close(self, step: Callable[[], None]) -> None:
        self.is_open = False
        if self.has_sent:
            self._later(step)
        else:
            step()

    def _later(self, step: Callable[[], None]) -> None:
        if self.takes_bytes:
            self.recorder.queue.defer(step)
        else:  # a recorder that redacts queues nothing that is not redacted
            step()

    def _begin_attempt(self, start: dict[str, Any]) -> None:
        if self._failed is not None:
            self._add_child(self._failed)
        self._failed, self._start = None, start
        self.recorder_handler.add_request(
            self.run_id, start.get("wire"), start.get("input_hash"), start.get("mask"), start.get("host")
        )

    def _add_child(self, failed: _FailedAttempt) -> None:
        start = dict(failed.start)
        run_id = uuid_utils.compat.uuid7()
        names = {"run_id": run_id, "parent_run_id": self.run_id}
        self.recorder_handler.add_child({**start, **names}, failed.error, failed.response)

    def _end(self, response: Any) -> None:
        if self._response is None and self._attempt is not None:
            self._attempt.leave_if_complete()
        if not self._ended:
            self._finish(self._response if self._response is not None else response)

    def _fail(self, error: BaseException, response: Any) -> None:
        if self._response is not None and isinstance(error, _CANCELS):
            self._finish(self._response)  # the answer was complete before
            return
        failed = self._failed
        seen = self._response or (failed.response if failed is not None else None)
        self._break(error, seen if seen is not None else response)

    def _finish(self, response: Any) -> None:
        if not self._ended:
            self._ended = True
            self.recorder_handler.end_linked(self.run_id, response)

    def _break(self, error: BaseException, response: Any) -> None:
        if not self._ended:
            self._ended = True
            self.recorder_handler.end_linked(self.run_id, response, error)
