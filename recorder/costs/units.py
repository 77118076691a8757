"""What a usage object counts, in the units of the price list, and the cost that some providers report in it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from recorder.wire import usage

#: Providers that report US dollars in their usage. OpenRouter's credits are dollars:
#: https://openrouter.ai/docs/use-cases/usage-accounting and https://docs.perplexity.ai/api-reference
_REPORTING = frozenset(("openrouter", "perplexity"))
#: Keys of LangChain's details, which several providers' names are read into, and the units.
_INPUT = {
    "cache_read": "cache_read_tokens",
    "cache_creation": "cache_write_tokens",
    "ephemeral_5m_input_tokens": "cache_write_tokens",
    "ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    "audio": "input_audio_tokens",
}
_OUTPUT = {"audio": "output_audio_tokens", "reasoning": "output_reasoning_tokens"}


def units_in(raw: Mapping[str, Any], *, is_anthropic: bool = False) -> dict[str, int] | None:
    """The counts of a usage object by unit, without zeros. None if the parts are more than their sum."""
    counts: Mapping[str, Any] = usage.read(raw, anthropic=is_anthropic, langchain=True)
    found = {name: _count(counts.get(name)) for name in ("input_tokens", "output_tokens")}
    for details, names in (("input_token_details", _INPUT), ("output_token_details", _OUTPUT)):
        for name, count in _mapping(counts.get(details)).items():
            if (unit := names.get(name)) is not None:
                found[unit] = found.get(unit, 0) + _count(count)
    found["cache_write_tokens"] = found.get("cache_write_tokens", 0) + found.get("cache_write_1h_tokens", 0)
    found["web_searches"] = _count(_mapping(raw.get("server_tool_use")).get("web_search_requests"))
    return {unit: count for unit, count in found.items() if count} if _adds_up(found) else None


def tier_in(raw: Mapping[str, Any]) -> str | None:
    """The service tier that a usage object names; Anthropic's do."""
    found = raw.get("service_tier")
    return found if isinstance(found, str) else None


def reported_cost(provider: str | None, raw: Mapping[str, Any]) -> float | None:
    """The cost that the provider itself reports (US dollars); None if it reports none.

    With a key of one's own, OpenRouter charges a fee only, and the other provider charges the rest.
    """
    if provider not in _REPORTING:
        return None
    given = raw.get("cost")
    details = _mapping(raw.get("cost_details"))
    charged = _amount(given.get("total_cost") if isinstance(given, Mapping) else given)
    if charged is None or raw.get("is_byok") is not True:
        return charged
    return charged + (_amount(details.get("upstream_inference_cost")) or 0.0)


def _adds_up(found: Mapping[str, int]) -> bool:
    inside = ("cache_read_tokens", "cache_write_tokens", "input_audio_tokens")
    made = ("output_audio_tokens", "output_reasoning_tokens")
    return (
        sum(found.get(unit, 0) for unit in inside) <= found["input_tokens"]
        and sum(found.get(unit, 0) for unit in made) <= found["output_tokens"]
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int:
    """A count; 0 for what is none: text, a negative number, NaN."""
    return value if type(value) is int and value > 0 else 0


def _amount(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if isfinite(found) and found >= 0 else None
