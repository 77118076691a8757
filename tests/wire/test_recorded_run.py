"""Finish reasons, usage and errors are translated between the words of the formats."""

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
def test_a_finish_reason_is_translated(reason: str, openai: str, anthropic: str) -> None:
    """Unknown reasons are not changed."""
    run = Recorded(finish_reasons={0: reason})
    assert finish_reason(run, 0, CHAT) == openai
    assert finish_reason(run, 0, ANTHROPIC) == anthropic


def test_a_finish_reason_is_not_changed_in_its_own_format() -> None:
    """Dialects use each other's reasons."""
    assert finish_reason(Recorded(wire=CHAT, finish_reasons={0: "end_turn"}), 0, CHAT) == "end_turn"
    assert finish_reason(Recorded(wire=ANTHROPIC, finish_reasons={0: "stop"}), 0, ANTHROPIC) == "stop"


@pytest.mark.parametrize(
    ("reason", "calls", "openai", "anthropic"),
    [
        ("STOP", False, "stop", "end_turn"),
        ("STOP", True, "tool_calls", "tool_use"),
        ("MAX_TOKENS", False, "length", "max_tokens"),
        ("SAFETY", False, "content_filter", "refusal"),
        ("OTHER", False, "OTHER", "OTHER"),
    ],
)
def test_a_reason_of_a_format_that_is_only_decoded_is_translated(
    reason: str, calls: bool, openai: str, anthropic: str
) -> None:
    """Gemini's words; it says of a call that it stopped, which clients of other formats do not expect."""
    run = Recorded(wire="gemini.generate_content", finish_reasons={0: reason})
    assert finish_reason(run, 0, CHAT, calls=calls) == openai
    assert finish_reason(run, 0, ANTHROPIC, calls=calls) == anthropic


def test_a_choice_without_a_finish_reason_gets_that_of_the_first() -> None:
    """The table of runs has one finish reason only."""
    run = Recorded(wire=CHAT, finish_reasons={0: "length", 2: "stop"})
    assert [finish_reason(run, number, CHAT) for number in (0, 1, 2)] == ["length", "length", "stop"]


def test_the_reason_of_tool_calls_becomes_stop_in_completions() -> None:
    """The legacy format has no tool calls."""
    assert finish_reason(Recorded(finish_reasons={0: "tool_use"}), 0, COMPLETIONS) == "stop"


@pytest.mark.parametrize("run", [Recorded(terminated=False), Recorded(failure=Failure("Oh"))])
def test_a_run_without_an_end_has_no_finish_reason(run: Recorded) -> None:
    """It was cancelled, or it failed."""
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
def test_usage_is_translated_to_openais_form(usage: dict[str, Any]) -> None:
    """There the prompt includes cached tokens."""
    assert openai_usage(Recorded(usage=usage)) == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


@pytest.mark.parametrize("usage", [OPENAI, LANGCHAINS], ids=["openai", "langchain"])
def test_usage_is_translated_to_anthropics_form(usage: dict[str, Any]) -> None:
    """There the input excludes cached tokens."""
    assert anthropic_usage(Recorded(usage=usage)) == {
        "input_tokens": 4,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }


def test_usage_in_its_own_form_is_not_changed() -> None:
    """Additional fields are kept."""
    odd = {"prompt_tokens": 1, "completion_tokens": None, "queue_time": 0.5}
    assert openai_usage(Recorded(usage=odd)) == odd
    assert anthropic_usage(Recorded(usage=ANTHROPICS)) == ANTHROPICS
    assert anthropic_usage(Recorded(usage={"output_tokens": 3, "speed": "fast"})) == {
        "input_tokens": 0,
        "output_tokens": 3,
        "speed": "fast",
    }


def test_invalid_counts_are_zero() -> None:
    """Some providers send null and fractions."""
    assert anthropic_usage(Recorded(usage={"prompt_tokens": "3", "completion_tokens": None})) == {
        "input_tokens": 0,
        "output_tokens": 0,
    }
    assert openai_usage(Recorded(usage={"input_tokens": None, "cache_read_input_tokens": 2.5})) == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }


def test_missing_usage_is_none_or_zero() -> None:
    """Anthropic's SDK requires usage."""
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
def test_the_type_of_an_error_is_translated(name: str | None, type: str) -> None:
    """It may be the name of an exception class."""
    assert error_type(Failure("Oh", name), "api_error") == type


@pytest.mark.parametrize(("idx", "choice"), [("0", 0), ("2", 2), ("1.5", 1), ("", 0), ("x.1", 0), ("²", 0)])
def test_the_choice_is_the_first_part_of_an_idx(idx: str, choice: int) -> None:
    """An invalid idx belongs to the first choice."""
    assert choice_of(idx) == choice


def test_invalid_json_of_a_delta_is_an_empty_object() -> None:
    """It raises no error."""
    assert [object_of(text) for text in ("{", "[1]", '{"a":1}', "null")] == [{}, {}, {"a": 1}, {}]
