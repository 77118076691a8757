"""How a run that failed failed, as HTTP knows it: with a status, in the stream, or by a connection that broke."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from recorder.core.json import dumps, loads
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import ERROR
from recorder.wire.recorded import Failure

#: How the SDKs begin the message of an HTTP status: "Error code: 429 - {...}".
STATUS = re.compile(r"Error code: (\d{3})(?: - (.*))?", re.DOTALL)
#: The SDKs' exceptions for a status, where the message does not say it.
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
class Broken:
    """A connection that breaks."""

    #: The exception of the HTTP library: ConnectError, ReadError, ReadTimeout, RemoteProtocolError.
    kind: str
    message: str


def status_of(run: RecordedRun) -> int | None:
    """The HTTP status that refused a run; None where none did."""
    found = STATUS.match(run.error_message or "")
    return int(found[1]) if found else _STATUSES.get(_short(run))


def body_of(run: RecordedRun) -> bytes | None:
    """The body of the response that refused it, as far as the SDK's message tells: None where that is but words."""
    message = run.error_message or ""
    found = STATUS.match(message)
    if found is None:
        return message.encode("utf-8", "replace")
    said = literal(found[2])
    if isinstance(said, (dict, list)):
        return dumps(said).encode("utf-8", "replace")
    return None if found[2] else b""


def broken_of(run: RecordedRun, began: bool) -> Broken | None:
    """How its connection broke, before or after something came; None where it did not."""
    name, said = run.error_type or "", run.error_message or ""
    if name.startswith(_SDKS):
        if _short(run) == "APITimeoutError":
            return Broken("ReadTimeout", said)
        if _short(run) == "APIConnectionError":
            return Broken("ReadError" if began else "ConnectError", said)
    return Broken(_short(run), said) if name.startswith(_HTTP) else None


def is_of_the_stream(run: RecordedRun) -> bool:
    """Whether the provider sent the error in place of an event."""
    name = run.error_type or ""
    return run.status == ERROR and name.startswith(_SDKS) and broken_of(run, True) is None


def failure_of(run: RecordedRun, refusal: bytes | None = None) -> Failure:
    """The provider's words for it, out of the body that it sent, or out of the SDK's."""
    message, kind = run.error_message or "", run.error_type
    found = STATUS.match(message)
    message = found[2] or message if found else message
    said = _json(refusal) if refusal is not None else literal(message)
    if isinstance(said, dict):
        inner = said["error"] if isinstance(said.get("error"), dict) else said
        message, kind = str(inner.get("message") or message), inner.get("type") or kind
    return Failure(message, kind)


def _short(run: RecordedRun) -> str:
    return (run.error_type or "").rpartition(".")[2]


def literal(written: str | None) -> Any:
    """A body as the SDKs write it into a message, which is a Python literal; None for anything else."""
    try:
        return ast.literal_eval(written or "None")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _json(body: bytes) -> Any:
    try:
        return loads(body)
    except ValueError:
        return None
