"""Token usage: what providers send, in LangChain's `usage_metadata` shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from recorder.messages import InputTokenDetails, OutputTokenDetails, UsageMetadata

#: No honest count is larger, and the integers of every database hold a sum of two.
_MAX_COUNT = 2**53


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


def _counts(raw: object) -> dict[str, int]:
    """The counts in a mapping; providers send null, fractions and rubbish beside them."""
    if not isinstance(raw, Mapping):
        return {}
    return {key: value for key, value in raw.items() if type(value) is int and 0 <= value <= _MAX_COUNT}


def _named(**counts: int | None) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}
