"""Token usage: what providers send, in LangChain's `usage_metadata` shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.messages import InputTokenDetails, OutputTokenDetails, UsageMetadata


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
    prompt_details = _counts(raw.get("prompt_tokens_details"))
    hits = prompt_details.get("cached_tokens", given.get("prompt_cache_hit_tokens"))
    input_details = _named(
        audio=prompt_details.get("audio_tokens"),
        cache_read=hits,
        cache_creation=prompt_details.get("cache_write_tokens"),
    )
    answer_details = _counts(raw.get("completion_tokens_details"))
    output_details = _named(
        audio=answer_details.get("audio_tokens"), reasoning=answer_details.get("reasoning_tokens")
    )
    if input_details:
        usage["input_token_details"] = InputTokenDetails(**input_details)  # type: ignore[typeddict-item]
    if output_details:
        usage["output_token_details"] = OutputTokenDetails(**output_details)  # type: ignore[typeddict-item]
    return usage


def _counts(raw: object) -> dict[str, int]:
    """The integer entries of a mapping; providers send null, floats and rubbish beside them."""
    if not isinstance(raw, Mapping):
        return {}
    return {key: value for key, value in raw.items() if type(value) is int}


def _named(**counts: int | None) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}
