"""Finds errors inside of a stream, in the many shapes that providers and proxies send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.core.json import dumps, loads
from recorder.wire.finish_reasons import meaning_of

#: Keys of an event, or of a choice, whose value is an error message.
_MESSAGE_KEYS = ("error_message", "errorMessage", "error_msg", "errorMsg")
#: Keys that hold the type of an error, and its code.
_TYPE_KEYS = ("error_type", "errorType", "error_code", "errorCode")
#: Keys of an error that may hold its message; the first one that is present counts.
_TEXT_KEYS = (
    "message",
    "msg",
    *_MESSAGE_KEYS,
    "status_msg",
    "detail",
    "details",
    "error",
    "description",
    "reason",
    "title",
)
#: Keys of an event without choices that hold the status of the request.
_STATUS_KEYS = ("code", "status", "status_code", "statusCode")
_SUCCESS_WORDS = frozenset(("", "ok", "success", "succeeded", "none", "null"))
#: Longer error texts (characters) are cut.
_MAX_TEXT = 2_000


def error_of(event: Mapping[str, Any]) -> Any:
    """The error of an event of any format, beside its choices or in their place; None if it has none."""
    if error := event.get("error"):
        return error
    if (found := _flat(event)) is not None:
        return found
    response = event.get("response")
    if isinstance(response, Mapping) and response.get("error"):
        return response["error"]
    return None if event.get("choices") else _in_place_of_choices(event)


def event_of(data: bytes) -> Any:
    """The JSON of an event. A list with one item, as Google sends errors, gives that item."""
    found = loads(data)
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def error_of_choice(choice: Mapping[str, Any]) -> Any:
    """The error inside of a choice; None if it has none."""
    return choice.get("error") or _flat(choice)


def error_of_data(data: bytes) -> Any:
    """The error in the data of an error event: the `error` inside of its JSON, else the JSON, else the text."""
    text = data.decode("utf-8", "replace")
    try:
        found = loads(data)
    except ValueError:
        return text
    return (error_of(found) if isinstance(found, dict) else None) or found or text


def error_of_reason(reason: str, native: Any = None) -> dict[str, Any]:
    """The error of an answer that has no other error than a finish reason which means that the provider failed."""
    more = f" ({native})" if native and native != reason else ""
    return {"message": f"The provider ended the answer with finish reason {reason!r}{more}", "type": reason}


def error_text(error: Any) -> str:
    """The message of an error for people, at most 2,000 characters; empty if it has none."""
    if isinstance(error, str):
        return error.strip()[:_MAX_TEXT]
    if isinstance(error, list):
        return next((text for each in error if (text := error_text(each))), "")
    if not isinstance(error, Mapping):
        return ""
    values = [error[key] for key in _TEXT_KEYS if error.get(key)]
    texts = [value for value in values if isinstance(value, str)]
    if texts:
        return error_text(texts[0])
    nested = next((text for value in values if (text := error_text(value))), "")
    return nested or (dumps(values[0])[:_MAX_TEXT] if values else "")


def _flat(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """An error whose message and type are keys of the event itself; None if it has none."""
    message = next((part[key] for key in _MESSAGE_KEYS if part.get(key)), None)
    kinds = {key: part[key] for key in _TYPE_KEYS if part.get(key)}
    if message is None and not any(key in kinds for key in ("error_type", "errorType")):
        return None
    kind = kinds.get("error_type") or kinds.get("errorType")
    code = kinds.get("error_code") or kinds.get("errorCode")
    return {"message": message or part.get("message") or str(kind), "type": kind, "code": code}


def _in_place_of_choices(event: Mapping[str, Any]) -> Any:
    if any(_is_error_word(event.get(key)) for key in ("object", "type", "__type")):
        return dict(event)
    if (named := _named(event)) is not None:
        return named
    if errors := event.get("errors"):
        return errors[0] if isinstance(errors, list) else errors
    base = event.get("base_resp")
    if isinstance(base, Mapping) and base.get("status_code"):
        return dict(base)
    if event.get("detail") and "delta" not in event:
        return {"message": error_text(event["detail"]) or dumps(event["detail"]), "detail": event["detail"]}
    return dict(event) if _has_failed(event) else None


def _named(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """An error under the name of its class, as AWS sends it: `{"throttlingException": {"message": ...}}`."""
    if len(event) != 1:
        return None
    ((name, fields),) = event.items()
    is_error = name.endswith(("Exception", "Error")) and isinstance(fields, Mapping)
    return {**fields, "type": name} if is_error else None


def _is_error_word(word: Any) -> bool:
    return isinstance(word, str) and meaning_of(word.replace(".", "_")) == "failure"


def _has_failed(event: Mapping[str, Any]) -> bool:
    """Whether an event has a message and a code or status that means failure, as many servers refuse requests."""
    if not isinstance(event.get("message"), str):
        return False
    statuses = [event[key] for key in _STATUS_KEYS if event.get(key)]
    return (
        _is_error_code(event.get("code"))
        or any(map(_is_error_word, statuses))
        or any(map(_is_http_error, statuses))
    )


def _is_error_code(code: Any) -> bool:
    return isinstance(code, str) and not code.isdecimal() and code.lower() not in _SUCCESS_WORDS


def _is_http_error(status: Any) -> bool:
    """Whether a status is an HTTP status code of 400 or more."""
    text = str(status)
    return not isinstance(status, bool) and text.isdecimal() and len(text) < 10 and int(text) >= 400
