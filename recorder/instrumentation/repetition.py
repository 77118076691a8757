"""Finds out whether a request repeats the one before it: then both are attempts of one run."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any, NamedTuple

import uuid_utils.compat

from recorder.instrumentation.attempt_factory import NumberedRun
from recorder.instrumentation.model_calls import ModelCall
from recorder.runs.run import Request

#: The header in which the SDKs of OpenAI and Anthropic count the attempts of a call, from 0.
_RETRIES = "x-stainless-retry-count"
#: Other libraries (LiteLLM, instructor, Mistral's SDK) send the same body to the same URL again, without a header. They
#: do so at most this long after the failure (seconds). Later it is a new call.
_LONGEST_PAUSE = 60.0
#: Statuses after which libraries try again, beside all from 500 on.
_PASSING = frozenset((408, 409, 429))


class _LastAttempt(NamedTuple):
    """The last attempt in this context, which the next one may repeat."""

    run: NumberedRun
    url: str
    input_hash: str
    retries: int
    #: When it failed (seconds of the monotonic clock); None if it did not.
    failed_at: float | None = None


_last_attempt: ContextVar[_LastAttempt | None] = ContextVar("last_attempt", default=None)


def numbered_run(call: ModelCall, request: Any, *, is_recorded: bool) -> NumberedRun:
    """The run of a request: a new call, or a further attempt of the last one.

    A request that `is_recorded` already, for other handlers, is the same run for all handlers.
    """
    last = _last_attempt.get()
    found = (str(request.url), call.input_hash)
    if last is None or not call.input_hash or found != (last.url, last.input_hash):
        return NumberedRun(uuid_utils.compat.uuid7())
    if is_recorded:
        return last.run
    is_counted = _retries_of(request) == last.retries + 1
    return _next(last.run) if is_counted or _has_just_failed(last) else NumberedRun(uuid_utils.compat.uuid7())


def remember_attempt(made: Request, request: Any) -> None:
    """The request is about to be sent in this context."""
    run = NumberedRun(made.run_id, made.attempt, made.first_run_id)
    _last_attempt.set(_LastAttempt(run, str(request.url), made.input_hash, _retries_of(request)))


def remember_failure(status: int | None = None) -> None:
    """The last attempt of this context had no answer, or one with an error status that may pass."""
    if status is not None and status < 500 and status not in _PASSING:
        return
    if (last := _last_attempt.get()) is not None:
        _last_attempt.set(last._replace(failed_at=time.monotonic()))


def _next(run: NumberedRun) -> NumberedRun:
    return NumberedRun(uuid_utils.compat.uuid7(), run.attempt + 1, run.first_run_id or run.run_id)


def _has_just_failed(last: _LastAttempt) -> bool:
    return last.failed_at is not None and time.monotonic() - last.failed_at <= _LONGEST_PAUSE


def _retries_of(request: Any) -> int:
    text = request.headers.get(_RETRIES, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
