"""Finds out whether a request repeats the one before it: then both are attempts of one run."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any, NamedTuple
from uuid import UUID

import uuid_utils.compat

from recorder.instrumentation.model_calls import ModelCall

#: The header in which the SDKs of OpenAI and Anthropic count the attempts of a call, from 0.
_RETRIES = "x-stainless-retry-count"
#: Other libraries (LiteLLM, instructor, Mistral's SDK) send the same body again, without a header. They do so at most
#: this long after the failure (seconds). Later it is a new call.
_LONGEST_PAUSE = 60.0


class _LastAttempt(NamedTuple):
    """The last attempt in this context, which the next one may repeat."""

    run_id: UUID
    input_hash: str
    retries: int
    #: When it failed (seconds of the monotonic clock); None if it did not.
    failed_at: float | None = None


_last_attempt: ContextVar[_LastAttempt | None] = ContextVar("last_attempt", default=None)


def run_id_of(call: ModelCall, request: Any, *, is_recorded: bool) -> UUID:
    """A new id. A further attempt has the id of the first one: the recorder then counts the attempts of a run.

    A request that `is_recorded` already, for other handlers, has the same id for all handlers.
    """
    last = _last_attempt.get()
    if last is None or not call.input_hash or last.input_hash != call.input_hash:
        return uuid_utils.compat.uuid7()
    is_counted = _retries_of(request) == last.retries + 1
    is_same_run = is_recorded or is_counted or _has_just_failed(last)
    return last.run_id if is_same_run else uuid_utils.compat.uuid7()


def remember_attempt(run_id: UUID, input_hash: str, request: Any) -> None:
    """The request is about to be sent in this context."""
    _last_attempt.set(_LastAttempt(run_id, input_hash, _retries_of(request)))


def remember_failure() -> None:
    """The last attempt of this context had no answer, or one with an error status."""
    if (last := _last_attempt.get()) is not None:
        _last_attempt.set(last._replace(failed_at=time.monotonic()))


def _has_just_failed(last: _LastAttempt) -> bool:
    return last.failed_at is not None and time.monotonic() - last.failed_at <= _LONGEST_PAUSE


def _retries_of(request: Any) -> int:
    text = request.headers.get(_RETRIES, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
