"""Usage objects of all providers are counted in the units of the price list; odd ones are not guessed."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from recorder.costs.units import reported_cost, tier_in, units_in

OPENAI = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
ANTHROPIC = {
    "input_tokens": 10,
    "cache_read_input_tokens": 30,
    "cache_creation_input_tokens": 60,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40},
    "output_tokens": 5,
    "server_tool_use": {"web_search_requests": 2},
    "service_tier": "batch",
}
LANGCHAIN = {
    "input_tokens": 100,
    "output_tokens": 50,
    "total_tokens": 150,
    "input_token_details": {"cache_read": 10, "cache_creation": 0, "ephemeral_1h_input_tokens": 5},
    "output_token_details": {"reasoning": 7},
}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            OPENAI,
            {
                "input_tokens": 100,
                "output_tokens": 50,
                "cache_read_tokens": 40,
                "output_reasoning_tokens": 20,
            },
        ),
        (
            LANGCHAIN,
            {
                "input_tokens": 100,
                "output_tokens": 50,
                "cache_read_tokens": 10,
                "cache_write_tokens": 5,
                "cache_write_1h_tokens": 5,
                "output_reasoning_tokens": 7,
            },
        ),
        (
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 4,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 16,
            },
            {"input_tokens": 9, "output_tokens": 7, "output_reasoning_tokens": 3},
        ),
        ({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}, {"input_tokens": 3, "output_tokens": 2}),
        ({"prompt_eval_count": 3, "eval_count": 2}, {"input_tokens": 3, "output_tokens": 2}),
        ({"prompt_tokens": 0, "completion_tokens": 0}, {}),
    ],
    ids=["openai", "langchain", "gemini", "responses", "ollama", "zeros"],
)
def test_counts_have_the_units_of_prices(raw: dict[str, Any], expected: dict[str, int]) -> None:
    """Cached and reasoning tokens are parts of the input and the output."""
    assert units_in(raw) == expected


def test_anthropics_cache_is_a_part_of_the_input() -> None:
    """Writes for an hour are charged otherwise than those for five minutes."""
    assert units_in(ANTHROPIC, is_anthropic=True) == {
        "input_tokens": 100,
        "output_tokens": 5,
        "cache_read_tokens": 30,
        "cache_write_tokens": 60,
        "cache_write_1h_tokens": 40,
        "web_searches": 2,
    }
    assert tier_in(ANTHROPIC) == "batch"


@pytest.mark.parametrize(
    "raw",
    [
        {"input_tokens": "many", "output_tokens": -5, "total_tokens": nan},
        {"input_tokens": None, "output_tokens": inf, "total_tokens": 1, "input_token_details": "none"},
        {"prompt_tokens": -1, "completion_tokens": "7"},
        {"input_tokens": True, "output_tokens": [], "total_tokens": {}},
        {"server_tool_use": 7, "cost": "free"},
    ],
)
def test_what_is_no_count_counts_nothing(raw: dict[str, Any]) -> None:
    """Text, negative numbers and NaN of an odd provider are no tokens."""
    assert units_in(raw) == {}


def test_parts_that_are_more_than_their_sum_are_not_priced() -> None:
    """More cached tokens than input, or more reasoning than output: one of the counts is wrong."""
    assert units_in({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}) is None
    assert units_in({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 9}}) is None


@pytest.mark.parametrize(
    ("provider", "raw", "expected"),
    [
        ("openrouter", {"cost": 0.5}, 0.5),
        ("openrouter", {"cost": 0}, 0.0),
        (
            "openrouter",
            {"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 1.0}},
            1.05,
        ),
        (
            "openrouter",
            {"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.5}},
            0.5,
        ),
        ("perplexity", {"cost": {"input_tokens_cost": 0.1, "total_cost": 0.3}}, 0.3),
        ("openrouter", {"cost": nan}, None),
        ("openrouter", {"cost": -1}, None),
        ("openrouter", {"cost": True}, None),
        ("openrouter", {"cost": "0.5"}, None),
        ("openrouter", {"cost": 10**400}, None),
        ("openrouter", {}, None),
        ("yuan-provider", {"cost": 0.5}, None),
    ],
)
def test_a_reported_cost_is_taken_where_it_is_in_dollars(
    provider: str, raw: dict[str, Any], expected: float | None
) -> None:
    """The currency of other providers is not known."""
    assert reported_cost(provider, raw) == expected
