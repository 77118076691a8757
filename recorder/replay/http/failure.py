"""How a run failed, in terms of HTTP: by a status, by an error event in the stream, or by a broken connection."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from recorder.core.json import dumps, loads
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import ERROR
from recorder.wire.recorded_run import Failure

#: How the SDKs begin the message of an HTTP status: "Error code: 429 - {...}".
STATUS = re.compile(r"Error code: (\d{3})(?: - (.*))?", re.DOTALL)
#: The SDKs' exceptions for a status, used if the message has none.
_STATUSES = {
    "BadRequestError": 400,
    "AuthenticationError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "ConflictError": 409,
    "RequestTooLargeError": 413,
    "UnprocessableEntityError": 422,
    "RateLimitError": 429,
    "InternalServerError": 500,
    "ServiceUnavailableError": 503,
    "DeadlineExceededError": 504,
    "OverloadedError": 529,
}
_SDKS, _HTTP = ("openai.", "anthropic."), ("httpx2.", "httpx.")


@dataclass(frozen=True, slots=True)
class BrokenConnection:
    """The connection breaks at the end of the replayed response."""

    #: Name of the HTTP library's exception: ConnectError, ReadError, ReadTimeout, RemoteProtocolError.
    kind: str
    message: str


def status_of(run: RecordedRun) -> int | None:
    """The HTTP status of the error response to a run; None if it did not fail by one."""
    found = STATUS.match(run.error_message or "")
    return int(found[1]) if found else _STATUSES.get(_short(run))


def body_of(run: RecordedRun) -> bytes | None:
    """The body of the error response, as far as the SDK's message holds it; None if the message is only prose."""
    message = run.error_message or ""
    found = STATUS.match(message)
    if found is None:
        return message.encode("utf-8", "replace")
    body = literal(found[2])
    if isinstance(body, (dict, list)):
        return dumps(body).encode("utf-8", "replace")
    return None if found[2] else b""


def broken_of(run: RecordedRun, began: bool) -> BrokenConnection | None:
    """How the connection of a run broke; None if it did not. `began` is whether anything was received before."""
    name, message = run.error_type or "", run.error_message or ""
    if name.startswith(_SDKS):
        if _short(run) == "APITimeoutError":
            return BrokenConnection("ReadTimeout", message)
        if _short(run) == "APIConnectionError":
            return BrokenConnection("ReadError" if began else "ConnectError", message)
    return BrokenConnection(_short(run), message) if name.startswith(_HTTP) else None


def is_of_the_stream(run: RecordedRun) -> bool:
    """Whether the provider sent the error as an event of the stream."""
    name = run.error_type or ""
    return run.status == ERROR and name.startswith(_SDKS) and broken_of(run, True) is None


def failure_of(run: RecordedRun, refusal: bytes | None = None) -> Failure:
    """The provider's error message and type: from the body `refusal` if given, else from the SDK's message."""
    message, kind = run.error_message or "", run.error_type
    found = STATUS.match(message)
    message = found[2] or message if found else message
    body = _json(refusal) if refusal is not None else literal(message)
    if isinstance(body, dict):
        inner = body["error"] if isinstance(body.get("error"), dict) else body
        message, kind = str(inner.get("message") or message), inner.get("type") or kind
    return Failure(message, kind)


def _short(run: RecordedRun) -> str:
    return (run.error_type or "").rpartition(".")[2]


def literal(written: str | None) -> Any:
    """The body in an SDK's message, which the SDKs write as a Python literal; None for any other text."""
    try:
        return ast.literal_eval(written or "None")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _json(body: bytes) -> Any:
    try:
        return loads(body)
    except ValueError:
        return None
