"""A recorded run as an encoder needs it, and what the wire formats say in different words: usage, ends, errors."""

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

CHAT = "openai.chat"
COMPLETIONS = "openai.completions"
ANTHROPIC = "anthropic.messages"

#: Deltas with the microseconds from the request to each.
TimedDeltas = Iterable[tuple[int, Delta]]
#: What stands before and behind the text of a delta in its event.
TextTemplate = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended a run that failed."""

    #: For people.
    message: str
    #: The provider's word (`overloaded_error`), or the name of the exception (`openai.RateLimitError`).
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of a run beside its deltas. Times are microseconds since the request."""

    #: The wire format that the deltas were read from: openai.chat, openai.completions, anthropic.messages; None where
    #: nobody knows. In its own format a run is encoded as it was, in another as clients of that one expect it.
    wire: str | None = None
    response_id: str | None = None
    model: str | None = None
    #: Unix seconds.
    created: int = 0
    #: `choice` -> why it ended, in the provider's word; a choice that is missing ended like the first.
    finish_reasons: Mapping[int, str] = field(default_factory=dict)
    #: As the provider sent it, or LangChain's `usage_metadata`; None when it said nothing.
    usage: Mapping[str, Any] | None = None
    #: Whether the request asked for usage in the stream (`stream_options.include_usage`); Anthropic tells it always.
    include_usage: bool = True
    #: What else the provider said of the response: `system_fingerprint`, `service_tier`, `stop_sequence`, ...
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: What ended it in place of the provider's terminator.
    failure: Failure | None = None
    #: Whether the terminator came; the stream of a run that was cancelled breaks off as it did.
    terminated: bool = True
    #: When it ended; None for the time of the last delta.
    ended_us: int | None = None


def json_string(text: str) -> bytes:
    """A text in JSON; half a surrogate pair, which UTF-8 cannot say, as its escape."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return json.dumps(text).encode()


def json_bytes(value: Any) -> bytes:
    """Any JSON value, compact."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # a lone surrogate, an integer beyond 64 bits
        return json.dumps(value, separators=(",", ":")).encode()


def value_of(text: str) -> Any:
    """The JSON value of a delta; the text itself where it is none."""
    try:
        return loads(text)
    except ValueError:
        return text


def object_of(text: str) -> dict[str, Any]:
    """The JSON object of a delta; an empty one where it is none."""
    found = value_of(text)
    return found if isinstance(found, dict) else {}


def choice_of(idx: str) -> int:
    """The number of the choice in an idx."""
    choice = idx.partition(".")[0]
    return int(choice) if choice.isdecimal() else 0


# -- why a choice ended ------------------------------------------------------------------------------------------

#: Anthropic's words in OpenAI's, and the other way round.
_TO_OPENAI = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TO_ANTHROPIC = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def finish_reason(run: Recorded, choice: int, wire: str, *, calls: bool = False) -> str | None:
    """Why a choice ended, in the word of a wire format; None for one that never did. `calls`: it calls tools."""
    reasons = run.finish_reasons
    reason = reasons.get(choice, reasons.get(0))
    if reason is None:
        if not run.terminated or run.failure is not None:
            return None
        reason = "tool_calls" if calls else "stop"
        return _TO_ANTHROPIC[reason] if wire == ANTHROPIC else reason
    if run.wire == wire:
        return reason
    reason = _TO_ANTHROPIC.get(reason, reason) if wire == ANTHROPIC else _TO_OPENAI.get(reason, reason)
    # There are no calls in the legacy format.
    return "stop" if wire == COMPLETIONS and reason in ("tool_calls", "function_call") else reason


_OPENAI_COUNTS = frozenset(("prompt_tokens", "completion_tokens", "total_tokens"))
_ANTHROPIC_COUNTS = frozenset(("input_tokens", "output_tokens"))

# -- usage ---------------------------------------------------------------------------------------------------------


def openai_usage(run: Recorded) -> dict[str, Any] | None:
    """The usage in OpenAI's words; as the provider sent it where it speaks them."""
    raw = run.usage
    if not raw:
        return None
    theirs = raw.keys() & _ANTHROPIC_COUNTS or usage.is_counted(raw)
    if "prompt_tokens" in raw or "completion_tokens" in raw or not theirs:
        return dict(raw)
    counts = usage.read(raw, anthropic=run.wire == ANTHROPIC)
    asked, said = counts.get("input_token_details", {}), counts.get("output_token_details", {})
    found: dict[str, Any] = {
        "prompt_tokens": counts["input_tokens"],
        "completion_tokens": counts["output_tokens"],
        "total_tokens": counts["total_tokens"],
    }
    if (read := asked.get("cache_read")) is not None:
        found["prompt_tokens_details"] = {"cached_tokens": read}
    if (thought := said.get("reasoning")) is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": thought}
    return found


def anthropic_usage(run: Recorded) -> dict[str, Any]:
    """The usage in Anthropic's words, which the SDK cannot do without; as it was sent where it was Anthropic's."""
    raw = run.usage or {}
    ours = raw.keys() & _OPENAI_COUNTS or not raw.keys() & _ANTHROPIC_COUNTS
    if run.wire == ANTHROPIC or not raw or not ours:
        return {"input_tokens": 0, "output_tokens": 0, **raw}
    counts = usage.read(raw)
    details = counts.get("input_token_details", {})
    read, wrote = details.get("cache_read"), details.get("cache_creation")
    cached = {"cache_creation_input_tokens": wrote, "cache_read_input_tokens": read}
    found = {"input_tokens": max(0, counts["input_tokens"] - (read or 0) - (wrote or 0))}
    found |= {key: count for key, count in cached.items() if count is not None}
    return {**found, "output_tokens": counts["output_tokens"]}


# -- errors --------------------------------------------------------------------------------------------------------

#: Names of the SDKs' exceptions, and the types that the providers send for them.
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
#: A provider's own word.
_WORD = re.compile("[a-z][a-z0-9_]*")


def error_type(failure: Failure, otherwise: str) -> str:
    """The type of an error as a provider would say it."""
    said = failure.type or ""
    return said if _WORD.fullmatch(said) else _ERROR_TYPES.get(said.rpartition(".")[2], otherwise)
