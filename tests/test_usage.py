"""Token counts in LangChain's shape, from what OpenAI-compatible providers send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.usage import from_anthropic, from_openai
from tests.genuine import Stream
from tests.wires import frames_of, genuine, translated, unhurried

_OPENAI = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0, "accepted_prediction_tokens": 9},
}
_DEEPSEEK = {
    "prompt_tokens": 6,
    "completion_tokens": 2,
    "prompt_cache_hit_tokens": 4,
    "prompt_cache_miss_tokens": 2,
}
_OPENROUTER = {
    "prompt_tokens": 9,
    "completion_tokens": 1,
    "total_tokens": 10,
    "cost": 0.00085,
    "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 7},
    "completion_tokens_details": None,
}


def counts(prompt: int, answer: int, total: int | None = None, **details: Any) -> dict[str, Any]:
    """Usage in LangChain's shape."""
    found = {"input_tokens": prompt, "output_tokens": answer, "total_tokens": prompt + answer}
    return {**found, **({} if total is None else {"total_tokens": total}), **details}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            _OPENAI,
            counts(
                100,
                40,
                input_token_details={"audio": 5, "cache_read": 60},
                output_token_details={"audio": 0, "reasoning": 30},
            ),
        ),
        (_DEEPSEEK, counts(6, 2, input_token_details={"cache_read": 4})),
        (
            {**_DEEPSEEK, "prompt_tokens_details": {"cached_tokens": 3}},
            counts(6, 2, input_token_details={"cache_read": 3}),
        ),
        (_OPENROUTER, counts(9, 1, input_token_details={"cache_read": 0, "cache_creation": 7})),
        ({"prompt_tokens": 3, "completion_tokens": 4}, counts(3, 4)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 9}, counts(3, 4, 9)),
        ({"total_tokens": 9}, counts(0, 0, 9)),
        ({}, counts(0, 0)),
    ],
    ids=["OpenAI", "DeepSeek", "both", "OpenRouter", "no total", "another total", "total alone", "nothing"],
)
def test_usage_of_each_provider(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    """Details that were not given are left out; counts that were not given are 0."""
    assert from_openai(raw) == expected


@pytest.mark.parametrize(
    "rubbish", [None, "7", 7.5, float("nan"), True, -1, 2**63, [7], {"n": 7}], ids=lambda value: repr(value)
)
def test_what_is_no_count_is_not_counted(rubbish: Any) -> None:
    """Databases hold integers of 64 bits, and a sum must fit as well."""
    raw = {"prompt_tokens": rubbish, "completion_tokens": 4, "total_tokens": rubbish}
    assert from_openai(raw) == counts(0, 4)
    details = {"prompt_tokens_details": rubbish, "completion_tokens_details": {"reasoning_tokens": rubbish}}
    assert from_openai({"completion_tokens": 4, **details}) == counts(0, 4)


@unhurried
@given(
    st.dictionaries(
        st.sampled_from(sorted(_OPENAI)), st.integers() | st.dictionaries(st.text(), st.integers())
    )
)
def test_every_count_fits_into_every_database(raw: dict[str, Any]) -> None:
    """Whatever a provider claims."""
    usage = from_openai(raw)
    assert all(0 <= usage[key] < 2**63 for key in ("input_tokens", "output_tokens", "total_tokens"))


@genuine
def test_genuine_usage_is_what_langchain_makes_of_it(stream: Stream) -> None:
    """Beside the details that LangChain does not know; and it lists empty ones."""
    base = pytest.importorskip("langchain_openai.chat_models.base")
    _, reply = translated(frames_of([stream.body]))
    if reply.raw_usage is None:
        assert b'"usage":{' not in stream.body
        return
    theirs = base._create_usage_metadata(reply.raw_usage)
    assert reply.usage == {key: value for key, value in theirs.items() if value != {}}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"input_tokens": 10, "output_tokens": 5}, counts(10, 5, input_token_details={})),
        (
            {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100,
             "cache_creation_input_tokens": 7},
            counts(117, 5, input_token_details={"cache_read": 100, "cache_creation": 7}),
        ),
        (
            {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 7,
             "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}},
            counts(17, 5, input_token_details={
                "cache_creation": 0, "ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}),
        ),
        (
            {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 3}, "service_tier": "standard"},
            counts(0, 5, input_token_details={}, output_token_details={"reasoning": 3}),
        ),
        ({"input_tokens": None, "output_tokens": -1, "cache_creation": 7}, counts(0, 0, input_token_details={})),
    ],
)  # fmt: skip
def test_anthropic_s_counts(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    """What the cache had to do with is part of the input, and rubbish counts nothing."""
    assert from_anthropic(raw) == expected
