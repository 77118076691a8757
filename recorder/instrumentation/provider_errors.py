"""Names errors as the application's library names them, the provider's SDK or aiohttp, for the record.

The application gets the SDK's own exception. That is made after the HTTP client has returned, so a recorder at the HTTP
client does not see it. These classes have the same names, and no SDK is imported for them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from recorder.wire.errors import error_text

#: HTTP status -> the SDKs' class. Above 499 it is `InternalServerError`, else `APIStatusError`.
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
_RESPONSE_ERROR_AIOHTTP = ("aiohttp.client_exceptions", "ClientResponseError")


class ProviderError(Exception):
    """The base class of the errors that are only recorded."""

    #: The response with the error, or None: its `content` and `is_stream_consumed`.
    response: Any = None


def status_error(sdk: str, status: int, body: bytes) -> ProviderError:
    """The error of a response with an error status."""
    module, name = _RESPONSE_ERROR_AIOHTTP if sdk == AIOHTTP else (sdk, _status_name(sdk, status))
    error = _error(module, name, _status_message(sdk, status, body.decode("utf-8", "replace").strip()))
    error.response = SimpleNamespace(content=body, is_stream_consumed=True)
    return error


def stream_error(sdk: str, error: Any) -> ProviderError:
    """The error that a provider sent in the stream."""
    if sdk == "anthropic":
        return _error(sdk, "APIStatusError", str(error))
    return _error(sdk, "APIError", error_text(error) or "An error occurred during streaming")


def unreadable_answer(sdk: str, body: bytes) -> ProviderError:
    """The error of a successful response whose body is no answer of a model."""
    module, name = _RESPONSE_ERROR_AIOHTTP if sdk == AIOHTTP else (sdk, "APIResponseValidationError")
    return _error(module, name, body[:2_000].decode("utf-8", "replace"))


def transport_error(sdk: str, error: BaseException) -> BaseException:
    """The error for an exception of the HTTP client, as the SDK names it; the same exception if it is no error."""
    if sdk == AIOHTTP or not isinstance(error, Exception):  # a cancellation, or Ctrl-C
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


def _status_name(sdk: str, status: int) -> str:
    names = _OF_STATUS_ANTHROPIC if sdk == "anthropic" else _OF_STATUS
    return names.get(status) or ("InternalServerError" if status >= 500 else "APIStatusError")


def _status_message(sdk: str, status: int, text: str) -> str:
    """The message that the SDK makes of such a response."""
    message = f"Error code: {status}"
    try:
        body = json.loads(text)
    except ValueError:
        return (text or message) if sdk == "anthropic" else message
    if sdk == "anthropic":
        return f"{message} - {body}"
    error = body.get("error", body) if isinstance(body, dict) else None
    found = error.get("message") if isinstance(error, dict) else None
    return f"{message} - {found}" if isinstance(found, str) and found else message


def _error(module: str, name: str, message: str) -> ProviderError:
    return _class(module, name)(message)


@lru_cache(maxsize=64)
def _class(module: str, name: str) -> type[ProviderError]:
    return type(name, (ProviderError,), {"__module__": module})
