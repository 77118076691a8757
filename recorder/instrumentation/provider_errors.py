"""Names errors as the application's library names them, the provider's SDK or aiohttp, for the record.

The application gets the SDK's own exception. That is made after the HTTP client has returned, so a recorder at the HTTP
client does not see it. These classes have the same names, and no SDK is imported for them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, NamedTuple

from recorder.wire.errors import error_text

_ANTHROPIC, _GENAI, _OLLAMA = "anthropic", "google_genai", "ollama"
#: HTTP status -> the class of OpenAI's SDK. Above 499 it is `InternalServerError`, else `APIStatusError`.
_OF_STATUS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
_OF_STATUS_ANTHROPIC = _OF_STATUS | {
    413: "RequestTooLargeError",
    503: "ServiceUnavailableError",
    504: "DeadlineExceededError",
    529: "OverloadedError",
}


#: The name of aiohttp used without an SDK, in place of the name of an SDK. Its exceptions reach the application as they
#: are. For a response with an error status it has one class, which `raise_for_status` raises.
AIOHTTP = "aiohttp"


class SdkErrors(NamedTuple):
    """The exceptions of an SDK. Without a name for it, the HTTP client's exception reaches the application."""

    #: The module of the classes.
    module: str
    #: HTTP status -> the class.
    statuses: dict[int, str]
    #: The class for other statuses from 500 on, and below.
    server: str
    other: str
    #: The class for an error in the stream, and for a body that is no answer.
    stream: str
    unreadable: str
    #: Whether an exception of the HTTP client is replaced by one of the SDK: when it sends, and when it reads.
    wraps_sending: bool = True
    wraps_reading: bool = True


_OPENAI_ERRORS = SdkErrors(
    "openai", _OF_STATUS, "InternalServerError", "APIStatusError", "APIError", "APIResponseValidationError"
)
_SDKS = {
    _ANTHROPIC: _OPENAI_ERRORS._replace(
        module="anthropic", statuses=_OF_STATUS_ANTHROPIC, stream="APIStatusError", wraps_reading=False
    ),
    _GENAI: SdkErrors(
        "google.genai.errors", {}, "ServerError", "ClientError", "APIError", "UnknownApiResponseError",
        wraps_sending=False, wraps_reading=False,
    ),
    AIOHTTP: SdkErrors(
        "aiohttp.client_exceptions", {}, "ClientResponseError", "ClientResponseError", "ClientResponseError",
        "ClientResponseError", wraps_sending=False, wraps_reading=False,
    ),
    _OLLAMA: SdkErrors(
        "ollama._types", {}, "ResponseError", "ResponseError", "ResponseError", "ResponseError",
        wraps_sending=False, wraps_reading=False,
    ),
}  # fmt: skip


class ProviderError(Exception):
    """The base class of the errors that are only recorded."""

    #: The response with the error, or None: its `content` and `is_stream_consumed`.
    response: Any = None


def status_error(sdk: str, status: int, body: bytes) -> ProviderError:
    """The error of a response with an error status."""
    message = _status_message(sdk, status, body.decode("utf-8", "replace").strip())
    error = _error(sdk, _class_of_status(sdk, status), message)
    error.response = SimpleNamespace(content=body, is_stream_consumed=True)
    return error


def stream_error(sdk: str, error: Any) -> ProviderError:
    """The error that a provider sent in the stream."""
    names = _names_of(sdk)
    if sdk == _ANTHROPIC:
        return _error(sdk, names.stream, str(error))
    if sdk == _GENAI:
        return _genai_error(sdk, error)
    if sdk == _OLLAMA:
        return _error(sdk, names.stream, f"{error_text(error)} (status code: -1)")
    return _error(sdk, names.stream, error_text(error) or "An error occurred during streaming")


def unreadable_answer(sdk: str, body: bytes) -> ProviderError:
    """The error of a successful response whose body is no answer of a model."""
    return _error(sdk, _names_of(sdk).unreadable, body[:2_000].decode("utf-8", "replace"))


def transport_error(sdk: str, error: BaseException) -> BaseException:
    """The error for an exception of the HTTP client, as the SDK names it; the same exception if it is no error."""
    # A cancellation and Ctrl-C are no errors.
    if not isinstance(error, Exception) or not _names_of(sdk).wraps_sending:
        return error
    kinds = {kind.__name__ for kind in type(error).__mro__}
    is_timeout = "TimeoutException" in kinds or isinstance(error, TimeoutError)
    named = (
        _error(sdk, "APITimeoutError", "Request timed out.")
        if is_timeout
        else _error(
            sdk, "APIConnectionError", f"Connection error: {error}" if str(error) else "Connection error."
        )
    )
    named.__cause__ = error
    return named


def reading_error(sdk: str, error: BaseException) -> BaseException:
    """`transport_error` for an exception while the body was read, which some SDKs pass on unchanged."""
    return transport_error(sdk, error) if _names_of(sdk).wraps_reading else error


def _names_of(sdk: str) -> SdkErrors:
    return _SDKS.get(sdk, _OPENAI_ERRORS)


def _class_of_status(sdk: str, status: int) -> str:
    names = _names_of(sdk)
    return names.statuses.get(status) or (names.server if status >= 500 else names.other)


def _status_message(sdk: str, status: int, text: str) -> str:
    """The message that the SDK makes of such a response."""
    message = f"Error code: {status}"
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if sdk == _GENAI:
        return _genai_message(
            status, body if body is not None else {"message": text, "status": _phrase_of(status)}
        )
    error = body.get("error", body) if isinstance(body, dict) else None
    if sdk == _OLLAMA:
        return f"{error if isinstance(error, str) else text} (status code: {status})"
    if sdk == _ANTHROPIC:
        return (text or message) if body is None else f"{message} - {body}"
    found = error.get("message") if isinstance(error, dict) else None
    return f"{message} - {found}" if isinstance(found, str) and found else message


def _genai_error(sdk: str, error: Any) -> ProviderError:
    """The error of an event. Its class follows from the code in it, as that of a response from the status."""
    code = error.get("code") if isinstance(error, dict) else None
    name = _names_of(sdk).stream
    if isinstance(code, int) and 400 <= code < 600:
        name = _class_of_status(sdk, code)
    return _error(sdk, name, _genai_message(code, {"error": error}))


def _genai_message(code: Any, details: Any) -> str:
    """The code, the provider's name of the status, and the body. A list with one body is that body."""
    if isinstance(details, list) and len(details) == 1:
        details = details[0]
    fields = details if isinstance(details, dict) else {}
    error = fields.get("error")
    status = fields.get("status", error.get("status") if isinstance(error, dict) else None)
    return f"{code} {status}. {details}"


def _phrase_of(status: int) -> str:
    """The usual words for a status."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""


def _error(sdk: str, name: str, message: str) -> ProviderError:
    return _class(_names_of(sdk).module, name)(message)


@lru_cache(maxsize=64)
def _class(module: str, name: str) -> type[ProviderError]:
    return type(name, (ProviderError,), {"__module__": module})
