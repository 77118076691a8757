"""Token usage: what providers send, in LangChain's `usage_metadata` shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from recorder.messages import InputTokenDetails, OutputTokenDetails, UsageMetadata

#: No honest count is larger, and the integers of every database hold a sum of two.
_MAX_COUNT = 2**53
#: Anthropic's details of what it wrote to its cache, and LangChain's.
_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


def from_openai(raw: Mapping[str, Any]) -> UsageMetadata:
    """`usage_metadata` of an OpenAI-compatible `usage` object; counts that are missing are 0.

    Cache reads are `prompt_tokens_details.cached_tokens` (OpenAI) or `prompt_cache_hit_tokens` (DeepSeek),
    cache writes `cache_write_tokens` (OpenRouter).
    """
    given = _counts(raw)
    prompt, answer = given.get("prompt_tokens", 0), given.get("completion_tokens", 0)
    usage = UsageMetadata(
        input_tokens=prompt, output_tokens=answer, total_tokens=given.get("total_tokens", prompt + answer)
    )
    asked = _counts(raw.get("prompt_tokens_details"))
    input_details = _named(
        audio=asked.get("audio_tokens"),
        cache_read=asked.get("cached_tokens", given.get("prompt_cache_hit_tokens")),
        cache_creation=asked.get("cache_write_tokens"),
    )
    said = _counts(raw.get("completion_tokens_details"))
    output_details = _named(audio=said.get("audio_tokens"), reasoning=said.get("reasoning_tokens"))
    if input_details:
        usage["input_token_details"] = cast(InputTokenDetails, input_details)
    if output_details:
        usage["output_token_details"] = cast(OutputTokenDetails, output_details)
    return usage


def from_anthropic(raw: Mapping[str, Any]) -> UsageMetadata:
    """`usage_metadata` of an Anthropic `usage` object; counts that are missing are 0.

    There `input_tokens` are those that no cache had to do with; here they are all. What was written to the cache is
    told by its time to live where the provider tells it so, and then not in `cache_creation` a second time.
    """
    given, by_lifetime = _counts(raw), _lifetimes(raw.get("cache_creation"))
    read, written = given.get("cache_read_input_tokens"), given.get("cache_creation_input_tokens")
    told = sum(by_lifetime.values())
    prompt = given.get("input_tokens", 0) + (read or 0) + (told or written or 0)
    answer = given.get("output_tokens", 0)
    details = _named(cache_read=read, cache_creation=0 if told else written, **by_lifetime)
    usage = UsageMetadata(
        input_tokens=prompt,
        output_tokens=answer,
        total_tokens=prompt + answer,
        input_token_details=cast(InputTokenDetails, details),
    )
    thought = _counts(raw.get("output_tokens_details")).get("thinking_tokens")
    if thought is not None:
        usage["output_token_details"] = {"reasoning": thought}
    return usage


def is_outdated(raw: Mapping[str, Any]) -> bool:
    """Whether what was written to Anthropic's cache was counted again, and its details by lifetime were not.

    Those of the start of a message then disagree with the count of its end, or say nothing, as LangChain has it.
    """
    written, lifetimes = _counts(raw).get("cache_creation_input_tokens"), raw.get("cache_creation")
    if written is None or lifetimes is None:
        return False
    told = sum(_lifetimes(lifetimes).values())
    return told == 0 or told != written


def _lifetimes(raw: object) -> dict[str, int]:
    """Tokens written to the cache, by how long they stay there."""
    return {key: count for key, count in _counts(raw).items() if key in _LIFETIMES}


def _counts(raw: object) -> dict[str, int]:
    """The counts in a mapping; providers send null, fractions and rubbish beside them."""
    if not isinstance(raw, Mapping):
        return {}
    return {key: value for key, value in raw.items() if type(value) is int and 0 <= value <= _MAX_COUNT}


def _named(**counts: int | None) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}
