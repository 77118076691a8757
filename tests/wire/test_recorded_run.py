"""What the formats say in different words: why an answer ended, what it cost, what went wrong."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.wire.recorded_run import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    Failure,
    Recorded,
    anthropic_usage,
    choice_of,
    error_type,
    finish_reason,
    object_of,
    openai_usage,
)


@pytest.mark.parametrize(
    ("reason", "openai", "anthropic"),
    [
        ("end_turn", "stop", "end_turn"),
        ("stop_sequence", "stop", "stop_sequence"),
        ("pause_turn", "stop", "pause_turn"),
        ("max_tokens", "length", "max_tokens"),
        ("model_context_window_exceeded", "length", "model_context_window_exceeded"),
        ("tool_use", "tool_calls", "tool_use"),
        ("refusal", "content_filter", "refusal"),
        ("stop", "stop", "end_turn"),
        ("length", "length", "max_tokens"),
        ("tool_calls", "tool_calls", "tool_use"),
        ("function_call", "function_call", "tool_use"),
        ("content_filter", "content_filter", "refusal"),
        ("novelty", "novelty", "novelty"),
    ],
)
def test_a_reason_is_said_in_each_formats_word(reason: str, openai: str, anthropic: str) -> None:
    """One that nobody told us about stays as it is."""
    run = Recorded(finish_reasons={0: reason})
    assert finish_reason(run, 0, CHAT) == openai
    assert finish_reason(run, 0, ANTHROPIC) == anthropic


def test_in_its_own_format_a_reason_is_never_touched() -> None:
    """Dialects use each other's words."""
    assert finish_reason(Recorded(wire=CHAT, finish_reasons={0: "end_turn"}), 0, CHAT) == "end_turn"
    assert finish_reason(Recorded(wire=ANTHROPIC, finish_reasons={0: "stop"}), 0, ANTHROPIC) == "stop"


def test_a_choice_that_nobody_said_anything_of_ended_like_the_first() -> None:
    """The table of runs has one reason."""
    run = Recorded(wire=CHAT, finish_reasons={0: "length", 2: "stop"})
    assert [finish_reason(run, number, CHAT) for number in (0, 1, 2)] == ["length", "length", "stop"]


def test_there_are_no_calls_in_the_legacy_format() -> None:
    """They end like any other answer."""
    assert finish_reason(Recorded(finish_reasons={0: "tool_use"}), 0, COMPLETIONS) == "stop"


@pytest.mark.parametrize("run", [Recorded(terminated=False), Recorded(failure=Failure("Oh"))])
def test_what_never_ended_has_no_reason(run: Recorded) -> None:
    """Left, or failed."""
    assert finish_reason(run, 0, CHAT) is None
    assert finish_reason(run, 0, ANTHROPIC) is None


OPENAI = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
ANTHROPICS = {
    "input_tokens": 4,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 2,
    "output_tokens": 5,
    "output_tokens_details": {"thinking_tokens": 3},
}
LANGCHAINS = {
    "input_tokens": 10,
    "output_tokens": 5,
    "total_tokens": 15,
    "input_token_details": {"cache_read": 4, "cache_creation": 2},
    "output_token_details": {"reasoning": 3},
}


@pytest.mark.parametrize("usage", [ANTHROPICS, LANGCHAINS], ids=["anthropic", "langchain"])
def test_usage_is_said_in_openais_words(usage: dict[str, Any]) -> None:
    """There the prompt is all of it, what came from the cache too."""
    assert openai_usage(Recorded(usage=usage)) == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


@pytest.mark.parametrize("usage", [OPENAI, LANGCHAINS], ids=["openai", "langchain"])
def test_usage_is_said_in_anthropics_words(usage: dict[str, Any]) -> None:
    """There the input is what no cache had to do with."""
    assert anthropic_usage(Recorded(usage=usage)) == {
        "input_tokens": 4,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }


def test_usage_stays_as_it_was_in_its_own_words() -> None:
    """With whatever else the provider says there."""
    odd = {"prompt_tokens": 1, "completion_tokens": None, "queue_time": 0.5}
    assert openai_usage(Recorded(usage=odd)) == odd
    assert anthropic_usage(Recorded(usage=ANTHROPICS)) == ANTHROPICS
    assert anthropic_usage(Recorded(usage={"output_tokens": 3, "speed": "fast"})) == {
        "input_tokens": 0,
        "output_tokens": 3,
        "speed": "fast",
    }


def test_rubbish_counts_as_nothing() -> None:
    """Providers send null and fractions beside the counts."""
    assert anthropic_usage(Recorded(usage={"prompt_tokens": "3", "completion_tokens": None})) == {
        "input_tokens": 0,
        "output_tokens": 0,
    }
    assert openai_usage(Recorded(usage={"input_tokens": None, "cache_read_input_tokens": 2.5})) == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }


def test_no_usage_is_none_where_it_may_be() -> None:
    """Anthropic's SDK cannot do without."""
    assert openai_usage(Recorded()) is None
    assert anthropic_usage(Recorded()) == {"input_tokens": 0, "output_tokens": 0}


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("overloaded_error", "overloaded_error"),
        ("openai.RateLimitError", "rate_limit_error"),
        ("anthropic._exceptions.OverloadedError", "overloaded_error"),
        ("builtins.ValueError", "api_error"),
        ("ValueError", "api_error"),
        ("a word\nwith a line", "api_error"),
        (None, "api_error"),
    ],
)
def test_an_errors_type_is_a_providers_word(name: str | None, type: str) -> None:
    """Also where the name of an exception is all that was recorded."""
    assert error_type(Failure("Oh", name), "api_error") == type


@pytest.mark.parametrize(("idx", "choice"), [("0", 0), ("2", 2), ("1.5", 1), ("", 0), ("x.1", 0), ("²", 0)])
def test_an_idx_begins_with_its_choice(idx: str, choice: int) -> None:
    """What cannot be read belongs to the first."""
    assert choice_of(idx) == choice


def test_what_is_no_object_is_an_empty_one() -> None:
    """Damaged JSON of a delta is no reason to end."""
    assert [object_of(text) for text in ("{", "[1]", '{"a":1}', "null")] == [{}, {}, {"a": 1}, {}]
