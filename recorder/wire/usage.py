"""Reads token usage under the names of all providers, and converts it to LangChain's `usage_metadata` shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from recorder.messages import InputTokenDetails, OutputTokenDetails, UsageMetadata

#: The `usage_source` of a run whose provider reported no usage, or only a part of it.
ESTIMATED_USAGE = "estimated"
#: Larger numbers are no token counts; the integers of both databases hold the sum of two such counts.
_MAX_COUNT = 2**53
#: Names of the counts, in snake case: OpenAI's, Anthropic's and Responses', Gemini's and Bedrock's, Ollama's.
_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count", "input_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "completion_token_count", "output_token_count",
           "candidates_token_count", "generated_tokens", "eval_count")  # fmt: skip
_TOTAL = ("total_tokens", "total_token_count")
#: Names of the objects with details. Below: names of the single counts inside of these objects, and (BESIDE) next to
#: the counts above.
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_CACHE_READ = ("cached_tokens", "cache_read", "cache_read_tokens")
_CACHE_READ_BESIDE = (
    "prompt_cache_hit_tokens",
    "cached_tokens",
    "cache_read_input_tokens",
    "cached_content_token_count",
)
_CACHE_WRITTEN = ("cache_write_tokens", "cache_creation", "cache_creation_tokens")
_CACHE_WRITTEN_BESIDE = ("cache_creation_input_tokens", "cache_write_input_tokens")
_REASONING = ("reasoning_tokens", "reasoning", "thinking_tokens")
_REASONING_BESIDE = ("reasoning_tokens", "thoughts_token_count")
_AUDIO = ("audio_tokens", "audio")
#: Keys of an event, or of a part of it, that hold usage.
PLACES = (
    "usage", "usage_metadata", "usageMetadata", "token_usage", "tokenUsage", "amazon-bedrock-invocationMetrics"
)  # fmt: skip
#: Parts of an event that may hold usage inside.
_INSIDE = ("x_groq", "response", "message", "metadata", "meta", "delta")
#: Counts of tokens written to the cache, by time to live; Anthropic and LangChain use the same names.
_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
#: Anthropic's counts of the input.
_ANTHROPIC_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_HUMP = re.compile("(?<=[a-z0-9])(?=[A-Z])")


def found_in(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The usage in an event, a choice or metadata, under any name, at most one level deeper; None if there is none."""
    if not part:
        return None
    inner = [part[key] for key in _INSIDE if key in part]
    for each in (part, *inner, *[part[key] for key in part if str(key).startswith("x_")]):
        if type(each) is dict or isinstance(each, Mapping):
            for place in PLACES:
                if (usage := each.get(place)) and isinstance(usage, Mapping):
                    return cast(Mapping[str, Any], usage)
    return None


def is_counted(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object has a token count under a known name."""
    return not _counts(raw).keys().isdisjoint((*_INPUT, *_OUTPUT, *_TOTAL, *_ANTHROPIC_INPUT))


def joined(known: Mapping[str, Any] | None, later: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merges the usage of a later event into the usage known so far; later counts replace earlier ones.

    Input and output may come in different events. If all later counts are 0, the known ones stay. A later value that
    is missing or is no count changes nothing.
    """
    if known is None:
        return later
    now, before = _counts(later), _counts(known)
    if not any(now.values()) and any(before.values()):
        return known
    has_counts = [not now.keys().isdisjoint(names) for names in (_INPUT, _OUTPUT)]
    # Both counts are new, perhaps under other names; or one is new, so that the known total is outdated.
    outdated = (*_INPUT, *_OUTPUT, *_TOTAL) if all(has_counts) else _TOTAL if any(has_counts) else ()
    return merged({key: value for key, value in known.items() if _snake(key) not in outdated}, later)


def merged(known: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Merges later values into known ones, at each level. Only a count replaces a count, only an object an object."""
    found = dict(known)
    for key, value in later.items():
        before = known.get(key)
        if isinstance(before, Mapping):
            found[key] = merged(before, value) if isinstance(value, Mapping) else before
        elif not _is_count(before) or _is_count(value):
            found[key] = value
    return found


def read(raw: Mapping[str, Any], *, anthropic: bool = False, langchain: bool = False) -> UsageMetadata:
    """`usage_metadata` for the usage in a run's row: a provider's counts, or LangChain's, which stay unchanged."""
    if langchain and "input_tokens" in raw and "total_tokens" in raw:
        return cast(UsageMetadata, raw)
    counts = _counts(raw)
    plain = counts.keys().isdisjoint(("prompt_tokens", *_TOTAL))
    cached = "cache_read_input_tokens" in counts or "cache_creation_input_tokens" in counts
    return from_anthropic(raw, streamed=True) if anthropic or (plain and cached) else from_openai(raw)


def from_openai(raw: Mapping[str, Any]) -> UsageMetadata:
    """`usage_metadata` of an OpenAI-compatible `usage` object; missing counts are 0.

    If a count has two names, the first value that is not 0 is used, because some proxies fill one of them with 0.
    Cache reads are `prompt_tokens_details.cached_tokens` (OpenAI) or `prompt_cache_hit_tokens` (DeepSeek), cache writes
    `cache_write_tokens` (OpenRouter).
    """
    counts = _counts(raw)
    prompt, answer = _first(counts, _INPUT) or 0, _first(counts, _OUTPUT) or 0
    # Gemini's counts of the answer and of the prompt exclude the reasoning and what the provider's own tools read.
    if "candidates_token_count" in counts or counts.keys().isdisjoint(_OUTPUT):
        answer += counts.get("thoughts_token_count", 0)
    prompt += counts.get("tool_use_prompt_token_count", 0)
    total = _first(counts, _TOTAL)
    usage = UsageMetadata(input_tokens=prompt, output_tokens=answer, total_tokens=total or prompt + answer)
    if input_details := _input_details(raw, counts):
        usage["input_token_details"] = cast(InputTokenDetails, input_details)
    if output_details := _output_details(raw, counts):
        usage["output_token_details"] = cast(OutputTokenDetails, output_details)
    return usage


def _input_details(raw: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, int]:
    inside = _details(raw, _INPUT_DETAILS)
    return _named(
        audio=_first(inside, _AUDIO),
        cache_read=_first(inside, _CACHE_READ, _first(counts, _CACHE_READ_BESIDE)),
        cache_creation=_first(inside, _CACHE_WRITTEN, _first(counts, _CACHE_WRITTEN_BESIDE)),
    )


def _output_details(raw: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, int]:
    inside = _details(raw, _OUTPUT_DETAILS)
    return _named(
        audio=_first(inside, _AUDIO),
        reasoning=_first(inside, _REASONING, _first(counts, _REASONING_BESIDE)),
    )


def with_anthropic_names(raw: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    """The later counts of a message under Anthropic's names; some proxies use other names.

    Input counts are dropped if all are 0 and known ones are not: some proxies count the input at the start, and send 0
    at the end.
    """
    counts, before = _counts(raw), _counts(known)
    if not counts.get("input_tokens") and not counts.get("output_tokens") and is_counted(raw):
        raw = _renamed(raw)
        counts = _counts(raw)
    if any(before.get(key) for key in _ANTHROPIC_INPUT) and not any(
        counts.get(key) for key in _ANTHROPIC_INPUT
    ):
        return {key: value for key, value in raw.items() if key not in _ANTHROPIC_INPUT}
    return raw


def _renamed(raw: Mapping[str, Any]) -> dict[str, Any]:
    usage, found = from_openai(raw), dict(raw)
    read = usage.get("input_token_details", {}).get("cache_read", 0)
    if usage["input_tokens"]:
        found |= {"input_tokens": max(0, usage["input_tokens"] - read), "cache_read_input_tokens": read}
    if usage["output_tokens"]:
        found |= {"output_tokens": usage["output_tokens"]}
    return found


def from_anthropic(raw: Mapping[str, Any], *, streamed: bool = False) -> UsageMetadata:
    """`usage_metadata` of an Anthropic `usage` object; missing counts are 0.

    Anthropic's `input_tokens` exclude cached tokens, LangChain's include them. If the provider sends cache writes by
    time to live, these counts are used and `cache_creation` is 0, so that nothing counts twice. The end of a stream
    has a new total without these details; they are used only if their sum equals the total, as in LangChain.
    """
    counts, by_lifetime = _counts(raw), _lifetimes(raw.get("cache_creation"))
    read, written = counts.get("cache_read_input_tokens"), counts.get("cache_creation_input_tokens")
    lifetime_total = sum(by_lifetime.values())
    if streamed and written is not None and (not lifetime_total or lifetime_total != written):
        lifetime_total, by_lifetime = 0, {}
    prompt = counts.get("input_tokens", 0) + (read or 0) + (lifetime_total or written or 0)
    answer = counts.get("output_tokens", 0)
    details = _named(cache_read=read, cache_creation=0 if lifetime_total else written, **by_lifetime)
    usage = UsageMetadata(
        input_tokens=prompt,
        output_tokens=answer,
        total_tokens=prompt + answer,
        input_token_details=cast(InputTokenDetails, details),
    )
    reasoning = _counts(raw.get("output_tokens_details")).get("thinking_tokens")
    if reasoning is not None:
        usage["output_token_details"] = {"reasoning": reasoning}
    return usage


def _lifetimes(raw: object) -> dict[str, int]:
    """Tokens written to the cache, by time to live."""
    return {key: count for key, count in _counts(raw).items() if key in _LIFETIMES}


def _counts(raw: object) -> dict[str, int]:
    """The counts in a mapping, with keys in snake case; null, fractions and other values are left out."""
    if not isinstance(raw, Mapping):
        return {}
    return {_snake(key): value for key, value in raw.items() if _is_count(value)}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _snake(key: object) -> str:
    name = str(key)
    return name if name.islower() else _HUMP.sub("_", name).lower()


def _details(raw: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """The counts in the objects under these names; if two objects have the same count, the first name wins."""
    return {key: count for name in reversed(names) for key, count in _counts(raw.get(name)).items()}


def _first(counts: Mapping[str, int], names: Iterable[str], otherwise: int | None = None) -> int | None:
    """The first count under these names that is not 0; 0 if all are 0, `otherwise` if there is none."""
    found = [counts[name] for name in names if name in counts]
    return next(filter(None, found), 0) if found else otherwise


def _named(**counts: int | None) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}
