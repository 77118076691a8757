"""What a recorded run answers over HTTP: the provider's bytes where they are kept, else the same encoded again.

Without any I/O: generators that ask the library, and plays (`bodies.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recorder.errors import StoreError
from recorder.replay.driver import Listener
from recorder.replay.errors import error_of
from recorder.replay.http.body import (
    Encoded,
    Usageless,
    Verbatim,
    at_once,
    encoded_whole,
    first_frame,
    played,
)
from recorder.replay.http.failure import Broken, body_of, broken_of, failure_of, is_of_the_stream, status_of
from recorder.replay.http.not_recorded import has_no_end
from recorder.replay.playback import Ask, Play, frames, tokens
from recorder.replay.queries import Asking
from recorder.storage.reader import Library, RecordedRun
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE
from recorder.wire import encode
from recorder.wire.recorded import ANTHROPIC, Recorded

EVENTS, JSON = "text/event-stream; charset=utf-8", "application/json"
TEXT = "text/plain; charset=utf-8"
#: The header that names a run: in a request the one that is to answer it, in a response the one that did.
RUN_HEADER = "x-recorder-run"
#: The SDKs need not try again: what was recorded is what came of it.
_FINAL = {"x-should-retry": "false"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    #: Its wire format.
    wire: str
    body: Mapping[str, Any]

    @property
    def streamed(self) -> bool:
        """Whether a stream is asked for."""
        return bool(self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Whether usage is to be told in the stream; Anthropic always does."""
        return self.wire == ANTHROPIC or _asks_usage(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response; where there is no `play`, `broken` and `error` stand in its place."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: What streams instead of `body`, and who makes bytes of it.
    play: Play | None = None
    listener: Listener | None = None
    #: How the connection breaks in the end.
    broken: Broken | None = None
    #: What is raised in the end, when the run failed with what has nothing to do with HTTP.
    error: BaseException | None = None


def answer(asked: Asked, run: RecordedRun) -> Asking[Answer]:
    """The response to a request that this run answers. Raises `StoreError` for a run that is not all there."""
    if gaps := (yield Ask(Library.gaps, run.id)):
        lost = sum(gap.count for gap in gaps)
        raise StoreError(f"Run {run.id} has lost {lost} tokens ({gaps[0].reason}); record it again")
    first = yield from first_frame(run)
    if run.status == ERROR and not run.token_count and (status := status_of(run)) is not None:
        return _refused(asked, run, status, first)
    began = first is not None or run.token_count > 0
    broken, error = _end(run, began)
    if (broken or error) and not (began and asked.streamed):
        return Answer(broken=broken, error=error)
    if asked.streamed:
        return _stream(asked, run, first, broken, error)
    return (yield from _whole(asked, run, first))


def _end(run: RecordedRun, began: bool) -> tuple[Broken | None, BaseException | None]:
    """How the connection breaks, or what else is raised."""
    if run.status == CANCELLED or has_no_end(run):
        said = f"the recording of run {run.id} ends here, {run.status} after {run.token_count} tokens"
        return Broken("RemoteProtocolError", said), None
    if run.status != ERROR or is_of_the_stream(run):
        return None, None
    if (broken := broken_of(run, began)) is not None:
        return broken, None
    return None, error_of(run)


def _refused(asked: Asked, run: RecordedRun, status: int, first: bytes | None) -> Answer:
    """An HTTP status, its body in the words of the client's provider."""
    body = first if first is not None else body_of(run)
    if body is None or (run.wire != asked.wire and _is_json(body)):
        body = encode.body(asked.wire, recorded(run, asked, first), ())
    headers = {"content-type": JSON if _is_json(body) else TEXT, RUN_HEADER: run.id, **_FINAL}
    return Answer(status, headers, body)


def _stream(
    asked: Asked, run: RecordedRun, first: bytes | None, broken: Broken | None, error: BaseException | None
) -> Answer:
    headers = {"content-type": EVENTS, RUN_HEADER: run.id}
    if first is not None and run.wire == asked.wire and not _is_json(first):
        unasked = _asks_usage(run.request or {}) and not asked.wants_usage
        play, listener = played(run, frames), Usageless() if unasked else Verbatim()
    else:
        play, listener = played(run, tokens), Encoded(encode.encoder_of(asked.wire, recorded(run, asked)))
    return Answer(headers=headers, play=play, listener=listener, broken=broken, error=error)


def _whole(asked: Asked, run: RecordedRun, first: bytes | None) -> Asking[Answer]:
    headers = {"content-type": JSON, RUN_HEADER: run.id}
    if first is not None and run.wire == asked.wire and _is_json(first):
        return Answer(headers=headers, play=played(run, frames), listener=Verbatim())
    about = recorded(run, asked)
    body = yield from encoded_whole(asked.wire, run, about)
    if run.status == ERROR:  # in place of an event, and so without a status
        return Answer(500, {**headers, **_FINAL}, body)
    return Answer(headers=headers, play=at_once(run, body, about.ended_us or 0), listener=Verbatim())


def recorded(run: RecordedRun, asked: Asked, refusal: bytes | None = None) -> Recorded:
    """What an encoder needs to know of a run, for this request; `refusal` is the body of an HTTP error."""
    lasted = None if run.ended_at is None else run.ended_at - run.started_at
    return Recorded(
        wire=run.wire,
        response_id=run.response_id,
        model=run.model,
        created=int(run.started_at.timestamp()),
        finish_reasons={0: run.finish_reason} if run.finish_reason else {},
        usage=run.usage,
        include_usage=asked.wants_usage,
        failure=failure_of(run, refusal) if run.status == ERROR and broken_of(run, True) is None else None,
        terminated=run.status in (COMPLETE, INCOMPLETE),
        ended_us=None if lasted is None else round(lasted.total_seconds() * 1e6),
    )


def _asks_usage(body: Mapping[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _is_json(first: bytes) -> bool:
    """Whether a first frame is a whole body: no event begins so."""
    return first.lstrip()[:1] == b"{"
