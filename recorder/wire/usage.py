"""Token usage: what providers send, under whatever names, in LangChain's `usage_metadata` shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from recorder.messages import InputTokenDetails, OutputTokenDetails, UsageMetadata

#: No honest count is larger, and the integers of every database hold a sum of two.
_MAX_COUNT = 2**53
#: Names of the counts, in snake case: OpenAI's, Anthropic's and Responses', Gemini's and Bedrock's, Ollama's.
_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count", "input_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "completion_token_count", "output_token_count",
           "candidates_token_count", "generated_tokens", "eval_count")  # fmt: skip
_TOTAL = ("total_tokens", "total_token_count")
#: Names of the details, and inside of them, or beside the counts, of what they count.
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_READ = ("cached_tokens", "cache_read", "cache_read_tokens")
_READ_BESIDE = (
    "prompt_cache_hit_tokens",
    "cached_tokens",
    "cache_read_input_tokens",
    "cached_content_token_count",
)
_WRITTEN = ("cache_write_tokens", "cache_creation", "cache_creation_tokens")
_WRITTEN_BESIDE = ("cache_creation_input_tokens", "cache_write_input_tokens")
_THOUGHT = ("reasoning_tokens", "reasoning", "thinking_tokens")
_THOUGHT_BESIDE = ("reasoning_tokens", "thoughts_token_count")
_AUDIO = ("audio_tokens", "audio")
#: Where a part of an event has its usage.
PLACES = (
    "usage", "usage_metadata", "usageMetadata", "token_usage", "tokenUsage", "amazon-bedrock-invocationMetrics"
)  # fmt: skip
#: Parts of an event that may have it inside.
_INSIDE = ("x_groq", "response", "message", "metadata", "meta", "delta")
#: Anthropic's details of what it wrote to its cache, and LangChain's.
_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
#: Anthropic's counts of the input.
_PAID = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_HUMP = re.compile("(?<=[a-z0-9])(?=[A-Z])")


def found_in(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The usage that an event, a choice or metadata have, under any name or one level deeper; None without any."""
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
    """Whether there is any count of tokens in it that is known."""
    return not _counts(raw).keys().isdisjoint((*_INPUT, *_OUTPUT, *_TOTAL, *_PAID))


def joined(known: Mapping[str, Any] | None, later: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage of a response whose events tell it again and again: the last count of each counts.

    Where input and output are told by different events, both do. Zeros at the end take nothing back, nor does what
    is left out or is no count.
    """
    if known is None:
        return later
    now, before = _counts(later), _counts(known)
    if not any(now.values()) and any(before.values()):
        return known
    told = [not now.keys().isdisjoint(names) for names in (_INPUT, _OUTPUT)]
    # All counts anew, perhaps under other names; or one of them, and so another total.
    old = (*_INPUT, *_OUTPUT, *_TOTAL) if all(told) else _TOTAL if any(told) else ()
    return merged({key: value for key, value in known.items() if _snake(key) not in old}, later)


def merged(known: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """What was known with what came later; a count and details stay where something else comes in their place."""
    found = dict(known)
    for key, value in later.items():
        before = known.get(key)
        if isinstance(before, Mapping):
            found[key] = merged(before, value) if isinstance(value, Mapping) else before
        elif not _is_count(before) or _is_count(value):
            found[key] = value
    return found


def read(raw: Mapping[str, Any], *, anthropic: bool = False, langchain: bool = False) -> UsageMetadata:
    """`usage_metadata` of what a run's row keeps: the counts of a provider, or LangChain's, which stay as they are."""
    if langchain and "input_tokens" in raw and "total_tokens" in raw:
        return cast(UsageMetadata, raw)
    given = _counts(raw)
    plain = given.keys().isdisjoint(("prompt_tokens", *_TOTAL))
    cached = "cache_read_input_tokens" in given or "cache_creation_input_tokens" in given
    return from_anthropic(raw, streamed=True) if anthropic or (plain and cached) else from_openai(raw)


def from_openai(raw: Mapping[str, Any]) -> UsageMetadata:
    """`usage_metadata` of an OpenAI-compatible `usage` object; counts that are missing are 0.

    Of two names for the same count the first that is not 0 counts: some proxies fill both, and one of them with 0.
    Cache reads are `prompt_tokens_details.cached_tokens` (OpenAI) or `prompt_cache_hit_tokens` (DeepSeek),
    cache writes `cache_write_tokens` (OpenRouter).
    """
    given = _counts(raw)
    prompt, answer = _first(given, _INPUT) or 0, _first(given, _OUTPUT) or 0
    if "candidates_token_count" in given:  # Gemini's own counts leave the thoughts out
        answer += given.get("thoughts_token_count", 0)
    total = _first(given, _TOTAL)
    usage = UsageMetadata(input_tokens=prompt, output_tokens=answer, total_tokens=total or prompt + answer)
    asked, said = _details(raw, _INPUT_DETAILS), _details(raw, _OUTPUT_DETAILS)
    input_details = _named(
        audio=_first(asked, _AUDIO),
        cache_read=_first(asked, _READ, _first(given, _READ_BESIDE)),
        cache_creation=_first(asked, _WRITTEN, _first(given, _WRITTEN_BESIDE)),
    )
    output_details = _named(
        audio=_first(said, _AUDIO), reasoning=_first(said, _THOUGHT, _first(given, _THOUGHT_BESIDE))
    )
    if input_details:
        usage["input_token_details"] = cast(InputTokenDetails, input_details)
    if output_details:
        usage["output_token_details"] = cast(OutputTokenDetails, output_details)
    return usage


def in_anthropic_words(raw: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Later counts of a message in Anthropic's names, though a proxy may say them in others.

    No message has an input of 0 tokens: some proxies count the input at the start, and at the end say 0.
    """
    given, before = _counts(raw), _counts(known)
    if not given.get("input_tokens") and not given.get("output_tokens") and is_counted(raw):
        raw = _renamed(raw)
        given = _counts(raw)
    if any(before.get(key) for key in _PAID) and not any(given.get(key) for key in _PAID):
        return {key: value for key, value in raw.items() if key not in _PAID}
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
    """`usage_metadata` of an Anthropic `usage` object; counts that are missing are 0.

    There `input_tokens` are those that no cache had to do with; here they are all. What was written to the cache is
    told by its time to live where the provider tells it so, and then not in `cache_creation` a second time. The end
    of a stream counts again without those details: the start's count while they agree, as with LangChain.
    """
    given, by_lifetime = _counts(raw), _lifetimes(raw.get("cache_creation"))
    read, written = given.get("cache_read_input_tokens"), given.get("cache_creation_input_tokens")
    told = sum(by_lifetime.values())
    if streamed and written is not None and (not told or told != written):
        told, by_lifetime = 0, {}
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


def _lifetimes(raw: object) -> dict[str, int]:
    """Tokens written to the cache, by how long they stay there."""
    return {key: count for key, count in _counts(raw).items() if key in _LIFETIMES}


def _counts(raw: object) -> dict[str, int]:
    """The counts in a mapping, in snake case; providers send null, fractions and rubbish beside them."""
    if not isinstance(raw, Mapping):
        return {}
    return {_snake(key): value for key, value in raw.items() if _is_count(value)}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _snake(key: object) -> str:
    name = str(key)
    return name if name.islower() else _HUMP.sub("_", name).lower()


def _details(raw: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """The details under all of these names; of two counts the one under the first name."""
    return {key: count for name in reversed(names) for key, count in _counts(raw.get(name)).items()}


def _first(counts: Mapping[str, int], names: Iterable[str], otherwise: int | None = None) -> int | None:
    """The first of these counts that is not 0, else 0 where there is any."""
    found = [counts[name] for name in names if name in counts]
    return next(filter(None, found), 0) if found else otherwise


def _named(**counts: int | None) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}
