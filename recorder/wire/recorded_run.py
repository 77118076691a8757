"""A recorded run as the encoders need it, and conversions between the formats: finish reasons, usage, errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from recorder.core.json import loads
from recorder.wire import usage
from recorder.wire.deltas import Delta
from recorder.wire.finish_reasons import meaning_of

CHAT = "openai.chat"
COMPLETIONS = "openai.completions"
RESPONSES = "openai.responses"
ANTHROPIC = "anthropic.messages"

#: Deltas, each with its time in microseconds since the request.
TimedDeltas = Iterable[tuple[int, Delta]]
#: The bytes before and after the text of a delta in its event.
TextTemplate = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that ended a failed run."""

    #: The message for people.
    message: str
    #: The provider's type of error (`overloaded_error`), or the name of the exception (`openai.RateLimitError`).
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The data of a run without its deltas. Times are microseconds since the request."""

    #: The wire format that the deltas were decoded from, by its name in `formats`; None if unknown. In its own format a
    #: run is encoded as it was sent, in another one as clients of that format expect it.
    wire: str | None = None
    response_id: str | None = None
    model: str | None = None
    #: Unix seconds.
    created: int = 0
    #: `choice` -> its finish reason, in the provider's word. A missing choice has the reason of choice 0.
    finish_reasons: Mapping[int, str] = field(default_factory=dict)
    #: The usage as the provider sent it, or LangChain's `usage_metadata`; None if there is none.
    usage: Mapping[str, Any] | None = None
    #: Whether the request asked for usage in the stream (`stream_options.include_usage`); Anthropic always sends it.
    include_usage: bool = True
    #: Other fields that describe the response: `system_fingerprint`, `service_tier`, `stop_sequence`, ...
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: The error that ended the run; None if it did not fail.
    failure: Failure | None = None
    #: Whether the provider's terminator was received; without it, the encoded stream is cut off too.
    terminated: bool = True
    #: The time of the end; None for the time of the last delta.
    ended_us: int | None = None


def json_string(text: str) -> bytes:
    """A text as a JSON string; a lone surrogate, which UTF-8 cannot encode, becomes an escape."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return json.dumps(text).encode()


def json_bytes(value: Any) -> bytes:
    """A value as compact JSON."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # a lone surrogate, an integer beyond 64 bits
        return json.dumps(value, separators=(",", ":")).encode()


def value_of(text: str) -> Any:
    """The JSON value of a delta; the text itself if it is no JSON."""
    try:
        return loads(text)
    except ValueError:
        return text


def object_of(text: str) -> dict[str, Any]:
    """The JSON object of a delta; an empty one if its JSON is no object."""
    value = value_of(text)
    return value if isinstance(value, dict) else {}


def choice_of(idx: str) -> int:
    """The number of the choice in an idx."""
    choice = idx.partition(".")[0]
    return int(choice) if choice.isdecimal() else 0


# -- finish reasons ----------------------------------------------------------------------------------------------

#: Anthropic's finish reasons -> OpenAI's, and the other way round.
_TO_OPENAI = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "max_output_tokens": "length",
    "incomplete": "length",
}
_TO_ANTHROPIC = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
    "max_output_tokens": "max_tokens",
    "incomplete": "max_tokens",
}


def finish_reason(run: Recorded, choice: int, wire: str, *, calls: bool = False) -> str | None:
    """The finish reason of a choice in a wire format; None if the choice never ended. `calls`: it calls tools."""
    reasons = run.finish_reasons
    reason = reasons.get(choice, reasons.get(0))
    if reason is None:
        if not run.terminated or run.failure is not None:
            return None
        reason = "tool_calls" if calls else "stop"
        return _TO_ANTHROPIC[reason] if wire == ANTHROPIC else reason
    if run.wire == wire:
        return reason
    if run.wire is not None and run.wire not in _ENCODED:
        reason = _openai_reason(reason, calls=calls)
    reason = _TO_ANTHROPIC.get(reason, reason) if wire == ANTHROPIC else _TO_OPENAI.get(reason, reason)
    # The legacy format has no tool calls.
    return "stop" if wire == COMPLETIONS and reason in ("tool_calls", "function_call") else reason


#: The formats that both sides of the tables above are about. Others say `STOP` also of an answer that calls tools.
_ENCODED = frozenset((CHAT, COMPLETIONS, RESPONSES, ANTHROPIC))


def _openai_reason(reason: str, *, calls: bool) -> str:
    """OpenAI's word for a reason of a format that is only decoded; an unknown reason stays as it is."""
    meaning = meaning_of(reason)
    if meaning == "good":
        return "tool_calls" if calls else "stop"
    if meaning == "limit":
        return "length" if reason.lower() in _LENGTHS else "content_filter"
    return reason


_LENGTHS = frozenset(("max_tokens", "length", "continuation"))
_OPENAI_COUNTS = frozenset(("prompt_tokens", "completion_tokens", "total_tokens"))
_ANTHROPIC_COUNTS = frozenset(("input_tokens", "output_tokens"))

# -- usage ---------------------------------------------------------------------------------------------------------


def openai_usage(run: Recorded) -> dict[str, Any] | None:
    """The usage under OpenAI's names; unchanged if it has these names already. None without usage."""
    raw = run.usage
    if not raw:
        return None
    convertible = raw.keys() & _ANTHROPIC_COUNTS or usage.is_counted(raw)
    if "prompt_tokens" in raw or "completion_tokens" in raw or not convertible:
        return dict(raw)
    counts = usage.read(raw, anthropic=run.wire == ANTHROPIC)
    input_details, output_details = (
        counts.get("input_token_details", {}),
        counts.get("output_token_details", {}),
    )
    converted: dict[str, Any] = {
        "prompt_tokens": counts["input_tokens"],
        "completion_tokens": counts["output_tokens"],
        "total_tokens": counts["total_tokens"],
    }
    if (read := input_details.get("cache_read")) is not None:
        converted["prompt_tokens_details"] = {"cached_tokens": read}
    if (reasoning := output_details.get("reasoning")) is not None:
        converted["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return converted


def anthropic_usage(run: Recorded) -> dict[str, Any]:
    """The usage under Anthropic's names, which the SDK requires; unchanged if it has these names already."""
    raw = run.usage or {}
    convertible = raw.keys() & _OPENAI_COUNTS or not raw.keys() & _ANTHROPIC_COUNTS
    if run.wire == ANTHROPIC or not raw or not convertible:
        return {"input_tokens": 0, "output_tokens": 0, **raw}
    counts = usage.read(raw)
    details = counts.get("input_token_details", {})
    read, written = details.get("cache_read"), details.get("cache_creation")
    cached = {"cache_creation_input_tokens": written, "cache_read_input_tokens": read}
    converted = {"input_tokens": max(0, counts["input_tokens"] - (read or 0) - (written or 0))}
    converted |= {key: count for key, count in cached.items() if count is not None}
    return {**converted, "output_tokens": counts["output_tokens"]}


def responses_usage(run: Recorded) -> dict[str, Any] | None:
    """The usage under the names of OpenAI's Responses; unchanged in a run of this format. None without usage."""
    raw = run.usage
    if not raw or run.wire == RESPONSES or not (usage.is_counted(raw) or raw.keys() & _ANTHROPIC_COUNTS):
        return dict(raw) if raw else None
    counts = usage.read(raw, anthropic=run.wire == ANTHROPIC)
    input_details, output_details = (
        counts.get("input_token_details", {}),
        counts.get("output_token_details", {}),
    )
    return {
        "input_tokens": counts["input_tokens"],
        "input_tokens_details": {"cached_tokens": input_details.get("cache_read", 0)},
        "output_tokens": counts["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": output_details.get("reasoning", 0)},
        "total_tokens": counts["total_tokens"],
    }


# -- errors --------------------------------------------------------------------------------------------------------

#: Name of an SDK's exception -> the type of error that the providers send for it.
_ERROR_TYPES = {
    "BadRequestError": "invalid_request_error",
    "AuthenticationError": "authentication_error",
    "PermissionDeniedError": "permission_error",
    "NotFoundError": "not_found_error",
    "UnprocessableEntityError": "invalid_request_error",
    "RateLimitError": "rate_limit_error",
    "OverloadedError": "overloaded_error",
    "DeadlineExceededError": "timeout_error",
}
#: The form of a provider's own error type.
_WORD = re.compile("[a-z][a-z0-9_]*")


def error_type(failure: Failure, otherwise: str) -> str:
    """The type of an error as a provider sends it; `otherwise` if it is not known."""
    name = failure.type or ""
    return name if _WORD.fullmatch(name) else _ERROR_TYPES.get(name.rpartition(".")[2], otherwise)
