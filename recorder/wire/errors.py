"""Errors inside of a stream, wherever and in whatever words a provider or a proxy puts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.core.json import dumps, loads
from recorder.wire.finish_reasons import meaning_of

#: Keys of an event, or of a choice, whose text says what went wrong.
_MESSAGES = ("error_message", "errorMessage", "error_msg", "errorMsg")
#: Keys that hold the sort of an error, and its number.
_TYPES = ("error_type", "errorType", "error_code", "errorCode")
#: Where an error's own words are, the first one that there is.
_WORDS = (
    "message",
    "msg",
    *_MESSAGES,
    "status_msg",
    "detail",
    "details",
    "error",
    "description",
    "reason",
    "title",
)
#: Keys of an event without choices that say how a request went.
_STATUSES = ("code", "status", "status_code", "statusCode")
_FINE = frozenset(("", "ok", "success", "succeeded", "none", "null"))
#: Longer words (characters) are cut in a message.
_MAX_WORDS = 2_000


def error_of(event: Mapping[str, Any]) -> Any:
    """The error that an event of any format states beside its choices or in their place; None where it states none."""
    if error := event.get("error"):
        return error
    if (found := _flat(event)) is not None:
        return found
    response = event.get("response")
    if isinstance(response, Mapping) and response.get("error"):
        return response["error"]
    return None if event.get("choices") else _in_place_of_choices(event)


def event_of(data: bytes) -> Any:
    """The JSON of an event; of a list of one, as Google words errors, that one."""
    found = loads(data)
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def error_of_choice(choice: Mapping[str, Any]) -> Any:
    """The error inside of a choice; None where there is none."""
    return choice.get("error") or _flat(choice)


def error_of_data(data: bytes) -> Any:
    """What an event that is known to be an error says: its JSON, the `error` inside of it, or its text."""
    text = data.decode("utf-8", "replace")
    try:
        found = loads(data)
    except ValueError:
        return text
    return (error_of(found) if isinstance(found, dict) else None) or found or text


def error_of_reason(reason: str, native: Any = None) -> dict[str, Any]:
    """The error of an answer whose finish reason says that the provider failed, and which says nothing else."""
    more = f" ({native})" if native and native != reason else ""
    return {"message": f"The provider ended the answer with finish reason {reason!r}{more}", "type": reason}


def words_of(error: Any) -> str:
    """What an error says for people; empty where it says nothing."""
    if isinstance(error, str):
        return error.strip()[:_MAX_WORDS]
    if isinstance(error, list):
        return next((words for each in error if (words := words_of(each))), "")
    if not isinstance(error, Mapping):
        return ""
    values = [error[key] for key in _WORDS if error.get(key)]
    texts = [value for value in values if isinstance(value, str)]
    if texts:
        return words_of(texts[0])
    nested = next((words for value in values if (words := words_of(value))), "")
    return nested or (dumps(values[0])[:_MAX_WORDS] if values else "")


def _flat(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """An error whose words are keys of the event itself."""
    message = next((part[key] for key in _MESSAGES if part.get(key)), None)
    kinds = {key: part[key] for key in _TYPES if part.get(key)}
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
        return {"message": words_of(event["detail"]) or dumps(event["detail"]), "detail": event["detail"]}
    return dict(event) if _has_failed(event) else None


def _named(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """An error under the name of its class, as AWS writes them: `{"throttlingException": {"message": ...}}`."""
    if len(event) != 1:
        return None
    ((name, said),) = event.items()
    is_one = name.endswith(("Exception", "Error")) and isinstance(said, Mapping)
    return {**said, "type": name} if is_one else None


def _is_error_word(word: Any) -> bool:
    return isinstance(word, str) and meaning_of(word.replace(".", "_")) == "failure"


def _has_failed(event: Mapping[str, Any]) -> bool:
    """A message with a code or a status that is not fine, as many servers word a refusal."""
    if not isinstance(event.get("message"), str):
        return False
    statuses = [event[key] for key in _STATUSES if event.get(key)]
    return (
        _is_odd_word(event.get("code")) or any(map(_is_error_word, statuses)) or any(map(_is_bad, statuses))
    )


def _is_odd_word(code: Any) -> bool:
    return isinstance(code, str) and not code.isdecimal() and code.lower() not in _FINE


def _is_bad(status: Any) -> bool:
    """Whether it is a number of HTTP's that refuses."""
    text = str(status)
    return not isinstance(status, bool) and text.isdecimal() and len(text) < 10 and int(text) >= 400
