"""Makes the HTTP response of a recorded run: from the stored frames, or encoded from its tokens. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recorder.errors import StoreError
from recorder.replay.driver import Listener
from recorder.replay.errors import error_of
from recorder.replay.http.body import (
    Encoded,
    Verbatim,
    WithoutUsage,
    encoded_body,
    first_frame,
    played,
    single_body,
)
from recorder.replay.http.failure import (
    BrokenConnection,
    body_of,
    broken_of,
    failure_of,
    is_of_the_stream,
    status_of,
)
from recorder.replay.http.not_recorded import has_no_end
from recorder.replay.playback import Playback, QueryStep, frames, tokens
from recorder.replay.queries import Queries
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE
from recorder.wire import encode
from recorder.wire.recorded_run import ANTHROPIC, RESPONSES, Recorded

EVENTS, JSON = "text/event-stream; charset=utf-8", "application/json"
TEXT = "text/plain; charset=utf-8"
#: The header with the id of a run. In a request: the run that must answer it. In a response: the run that did.
RUN_HEADER = "x-recorder-run"
#: Tells the SDKs not to retry: the recording holds the last attempt.
_FINAL = {"x-should-retry": "false"}


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A request of a client."""

    #: Wire format, from the path of the request.
    wire: str
    body: Mapping[str, Any]

    @property
    def streamed(self) -> bool:
        """Whether it requests a stream."""
        return bool(self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Whether the stream must contain usage; Anthropic's and that of OpenAI's Responses always do."""
        return self.wire in (ANTHROPIC, RESPONSES) or _asks_usage(self.body)


@dataclass(frozen=True, slots=True)
class ReplayedResponse:
    """One HTTP response. If `broken` or `error` is set and there is no `playback`, it is raised instead."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Streamed instead of `body`; the listener turns its steps into bytes.
    playback: Playback | None = None
    listener: Listener | None = None
    #: How the connection breaks at the end of the body.
    broken: BrokenConnection | None = None
    #: Raised at the end of the body, if the run failed by an error that is not HTTP's.
    error: BaseException | None = None


def response_to(request: IncomingRequest, run: RecordedRun) -> Queries[ReplayedResponse]:
    """The response of a run to a request. Raises `StoreError` if tokens of the run are missing."""
    if gaps := (yield QueryStep(DatabaseReader.gaps, run.id)):
        lost = sum(gap.count for gap in gaps)
        raise StoreError(f"Run {run.id} has lost {lost} tokens ({gaps[0].reason}); record it again")
    first = yield from first_frame(run)
    if run.status == ERROR and not run.token_count and (status := status_of(run)) is not None:
        return _refused(request, run, status, first)
    began = first is not None or run.token_count > 0
    broken, error = connection_end(run, began)
    if (broken or error) and not (began and request.streamed):
        return ReplayedResponse(broken=broken, error=error)
    if request.streamed:
        return _stream(request, run, first, broken, error)
    return (yield from _single(request, run, first))


def connection_end(run: RecordedRun, began: bool) -> tuple[BrokenConnection | None, BaseException | None]:
    """How the connection breaks, or the error to raise, at the end of the body."""
    if run.status == CANCELLED or has_no_end(run):
        message = f"the recording of run {run.id} ends here, {run.status} after {run.token_count} tokens"
        return BrokenConnection("RemoteProtocolError", message), None
    if run.status != ERROR or is_of_the_stream(run):
        return None, None
    if (broken := broken_of(run, began)) is not None:
        return broken, None
    return None, error_of(run)


def _refused(
    request: IncomingRequest, run: RecordedRun, status: int, first: bytes | None
) -> ReplayedResponse:
    """A response with the status of the error, its body in the format of the request."""
    body = first if first is not None else body_of(run)
    if body is None or (run.wire != request.wire and _is_json(body)):
        body = encode.body(request.wire, recorded(run, request, first), ())
    headers = {"content-type": JSON if _is_json(body) else TEXT, RUN_HEADER: run.id, **_FINAL}
    return ReplayedResponse(status, headers, body)


def _stream(
    request: IncomingRequest,
    run: RecordedRun,
    first: bytes | None,
    broken: BrokenConnection | None,
    error: BaseException | None,
) -> ReplayedResponse:
    headers = {"content-type": EVENTS, RUN_HEADER: run.id}
    if first is not None and run.wire == request.wire and not _is_json(first):
        unwanted = _asks_usage(run.request or {}) and not request.wants_usage
        playback, listener = played(run, frames), WithoutUsage() if unwanted else Verbatim()
    else:
        playback, listener = (
            played(run, tokens),
            Encoded(encode.encoder_of(request.wire, recorded(run, request))),
        )
    return ReplayedResponse(headers=headers, playback=playback, listener=listener, broken=broken, error=error)


def _single(request: IncomingRequest, run: RecordedRun, first: bytes | None) -> Queries[ReplayedResponse]:
    headers = {"content-type": JSON, RUN_HEADER: run.id}
    if first is not None and run.wire == request.wire and _is_json(first):
        return ReplayedResponse(headers=headers, playback=played(run, frames), listener=Verbatim())
    values = recorded(run, request)
    body = yield from encoded_body(request.wire, run, values)
    if run.status == ERROR:  # the error was an event of a stream, so it had no status
        return ReplayedResponse(500, {**headers, **_FINAL}, body)
    return ReplayedResponse(
        headers=headers, playback=single_body(run, body, values.ended_us or 0), listener=Verbatim()
    )


def recorded(run: RecordedRun, request: IncomingRequest, refusal: bytes | None = None) -> Recorded:
    """The values of a run that an encoder needs for this request. `refusal` is the body of an HTTP error."""
    lasted = None if run.ended_at is None else run.ended_at - run.started_at
    return Recorded(
        wire=run.wire,
        response_id=run.response_id,
        model=run.model,
        created=int(run.started_at.timestamp()),
        finish_reasons={0: run.finish_reason} if run.finish_reason else {},
        usage=run.usage,
        include_usage=request.wants_usage,
        failure=failure_of(run, refusal) if run.status == ERROR and broken_of(run, True) is None else None,
        terminated=run.status in (COMPLETE, INCOMPLETE),
        ended_us=None if lasted is None else round(lasted.total_seconds() * 1e6),
    )


def _asks_usage(body: Mapping[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _is_json(first: bytes) -> bool:
    """Whether a first frame is a complete JSON body: no event begins with a brace."""
    return first.lstrip()[:1] == b"{"
