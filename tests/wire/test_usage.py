"""Token counts of all providers are converted to LangChain's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.messages import AIMessage, AIMessageChunk, ChatGeneration, LLMResult
from recorder.models import SimpleChatModel
from recorder.testing import anthropic_messages_frames
from recorder.wire.usage import found_in, from_anthropic, from_openai, joined, with_anthropic_names
from tests.alike import assert_alike, claude, forms_of
from tests.alike import openai as chat
from tests.chatting import CALL_STYLES, CallStyle, name_of
from tests.genuine import Stream
from tests.wires import DONE, delta, event, frames_of, genuine, translated, unhurried

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
_RESPONSES = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 140,
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
    """Return usage in LangChain's form."""
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
            _RESPONSES,
            counts(100, 40, input_token_details={"cache_read": 60}, output_token_details={"reasoning": 30}),
        ),
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
    ids=[
        "OpenAI",
        "DeepSeek",
        "Responses",
        "both",
        "OpenRouter",
        "no total",
        "another total",
        "total alone",
        "nothing",
    ],
)
def test_the_usage_of_each_provider_is_converted(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    """Missing details are left out, and missing counts are 0."""
    assert from_openai(raw) == expected


@pytest.mark.parametrize(
    "rubbish", [None, "7", 7.5, float("nan"), True, -1, 2**63, [7], {"n": 7}], ids=lambda value: repr(value)
)
def test_invalid_counts_are_ignored(rubbish: Any) -> None:
    """Databases store integers of 64 bits, which sums must fit, too."""
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
def test_every_converted_count_fits_into_64_bits(raw: dict[str, Any]) -> None:
    """This holds for any input."""
    usage = from_openai(raw)
    assert all(0 <= usage[key] < 2**63 for key in ("input_tokens", "output_tokens", "total_tokens"))


@genuine
def test_the_usage_of_genuine_streams_equals_langchains(stream: Stream) -> None:
    """LangChain's empty details are left out."""
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
def test_anthropics_usage_is_converted(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    """Cached tokens are part of the input, and invalid counts are ignored."""
    assert from_anthropic(raw) == expected


# -- names and places of usage ---------------------------------------------------------------------------------------

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

#: The counts 11 and 5 under the names of different servers.
NAMES: dict[str, dict[str, Any]] = {
    "OpenAI": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
    "Responses": {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16, "prompt_tps": 21.5},
    "without a total": {"input_tokens": 11, "output_tokens": 5},
    "in camel case": {"promptTokens": 11, "completionTokens": 5, "totalTokens": 16},
    "Bedrock": {"inputTokenCount": 11, "outputTokenCount": 5, "invocationLatency": 700},
    "Gemini": {"promptTokenCount": 11, "candidatesTokenCount": 4, "thoughtsTokenCount": 1, "totalTokenCount": 16},
    "Ollama": {"prompt_eval_count": 11, "eval_count": 5},
    "both names, one of them with 0": {
        "prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16, "input_tokens": 0, "output_tokens": 0
    },
    "the other of them with 0": {
        "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "input_tokens": 11, "output_tokens": 5
    },
}  # fmt: skip
names = pytest.mark.parametrize("raw", NAMES.values(), ids=NAMES)


@both
@names
def test_usage_is_read_under_every_known_name(raw: dict[str, Any], style: CallStyle, tmp_path: Path) -> None:
    """The counts are the same live, in SQL and in a replay."""
    body = delta(role="assistant", content="Hi") + event(
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": raw}
    )
    found = forms_of(chat, body + DONE, style, tmp_path)
    assert found.end == ("complete", "stop", 11, 5)
    assert found.live.usage_metadata is not None
    assert found.live.usage_metadata["total_tokens"] == found.run["total_tokens"] == 16
    assert_alike(found)


@pytest.mark.parametrize("make", [chat, claude], ids=["chat", "anthropic"])
@both
def test_usage_is_the_same_on_both_databases(database: str, make: Any, style: CallStyle) -> None:
    """While it streams, in SQL, in the stored message and in a replay."""
    *frames, _, stop = anthropic_messages_frames(["Hi"])
    last = event({"type": "message_delta", "delta": {"stop_reason": "stop"}, "usage": _DETAILED})
    chunk = event({"choices": [_CHOICE], "usage": _DETAILED})
    body = delta(content="Hi") + chunk + DONE if make is chat else b"".join((*frames, last, stop))
    found = forms_of(make, body, style, database)
    assert found.end == ("complete", "stop", 11, 5)
    assert found.live.usage_metadata is not None
    assert found.live.usage_metadata["total_tokens"] == found.run["total_tokens"] == 16
    assert found.live.usage_metadata["input_token_details"]["cache_read"] == 4
    assert_alike(found)


@names
def test_usage_of_an_anthropic_stream_is_read_under_every_known_name(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    """A proxy may use Anthropic's format with other names for counts."""
    *frames, _, stop = anthropic_messages_frames(["Hi"])
    last = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": raw})
    found = forms_of(claude, b"".join((*frames, last, stop)), CALL_STYLES[0], tmp_path)
    assert found.end == ("complete", "end_turn", 11, 5)
    assert_alike(found)


_CHOICE: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": "stop"}
_RAW = NAMES["OpenAI"]
_DETAILED = {**_RAW, "prompt_tokens_details": {"cached_tokens": 4}}
#: Events with the usage, each in another place.
PLACES: dict[str, dict[str, Any]] = {
    "in the choice": {"choices": [{**_CHOICE, "usage": _RAW}]},
    "in the delta": {"choices": [{**_CHOICE, "delta": {"usage": _RAW}}]},
    "beside the choices": {"choices": [_CHOICE], "usage": _RAW},
    "under another name": {"choices": [_CHOICE], "usageMetadata": _RAW},
    "under one more": {"choices": [_CHOICE], "token_usage": _RAW},
    "in Groq's place": {"choices": [_CHOICE], "x_groq": {"id": "1", "usage": _RAW}},
    "in the place of somebody like Groq": {"choices": [_CHOICE], "x_other": {"usage": _RAW}},
    "in the metadata": {"choices": [_CHOICE], "meta": {"usage": _RAW}},
}


@pytest.mark.parametrize("last", PLACES.values(), ids=PLACES)
def test_usage_is_read_in_every_known_place(last: dict[str, Any], tmp_path: Path) -> None:
    """It makes no token and is not part of the message."""
    found = forms_of(chat, delta(content="Hi") + event(last) + DONE, CALL_STYLES[0], tmp_path)
    assert found.end == ("complete", "stop", 11, 5)
    assert found.tokens_of("text", "reasoning") == [("0", "Hi")]
    assert "usage" not in found.live.additional_kwargs
    assert_alike(found)


def test_usage_of_an_anthropic_stream_may_come_only_at_its_start_or_end(tmp_path: Path) -> None:
    """Bedrock sends its metrics with the terminator, and some proxies count only at the start."""
    metrics = {"amazon-bedrock-invocationMetrics": NAMES["Bedrock"]}
    start = event({"type": "message_start", "message": {"id": "m", "model": "x"}})
    text = b"".join(anthropic_messages_frames(["Hi"])[1:-2])
    end = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    found = forms_of(
        claude, start + text + end + event({"type": "message_stop", **metrics}), CALL_STYLES[0], tmp_path
    )
    assert found.end == ("complete", "end_turn", 11, 5)
    assert_alike(found)

    counted = event({"type": "message_start", "message": {"id": "m", "usage": NAMES["without a total"]}})
    for tail in (DONE, event({"type": "message_stop"}), b""):
        found = forms_of(claude, counted + text + end + tail, CALL_STYLES[0], tmp_path)
        assert found.end[2:] == (11, 5)
        assert_alike(found)


def test_usage_may_be_spread_over_several_events(tmp_path: Path) -> None:
    """Zeros and missing usage at the end remove nothing."""
    usages: list[Any] = [{"total_tokens": 0}, {"prompt_tokens": 11, "total_tokens": 11}, {"completion_tokens": 5},
                         {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None]  # fmt: skip
    choice = {"index": 0, "delta": {"content": "a"}}
    body = b"".join(event({"choices": [choice], "usage": usage}) for usage in usages)
    found = forms_of(chat, body + delta(finish_reason="stop") + DONE, CALL_STYLES[0], tmp_path)
    assert found.end == ("complete", "stop", 11, 5)
    assert_alike(found)
    assert joined({"prompt_tokens": 1}, {"prompt_tokens": 2, "completion_tokens": 3}) == {
        "prompt_tokens": 2, "completion_tokens": 3}  # fmt: skip


def test_a_zero_at_the_end_of_an_anthropic_stream_is_ignored() -> None:
    """Some proxies know the input only at the start."""
    late = {"input_tokens": 0, "output_tokens": 7}
    assert with_anthropic_names(late, {"input_tokens": 5, "output_tokens": 1}) == {"output_tokens": 7}
    assert with_anthropic_names(late, {}) == late
    cached = {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}
    translated_usage = with_anthropic_names(cached, {})
    assert from_anthropic(translated_usage)["input_tokens"] == from_openai(cached)["input_tokens"] == 9


@pytest.mark.parametrize(
    "nothing", [{}, {"usage": None}, {"usage": {}}, {"x_groq": 5}, {"meta": {"usage": []}}]
)
def test_empty_usage_is_no_usage(nothing: dict[str, Any]) -> None:
    """Keys without a value count as missing."""
    assert found_in(nothing) is None


class ScriptedModel(SimpleChatModel):
    """A model that yields the given pieces."""

    def _stream(self, messages: Any, **options: Any) -> Any:
        yield from options["pieces"]


def _own(metadata: dict[str, Any]) -> AIMessageChunk:
    return AIMessageChunk("a", response_metadata=metadata)


OWN: dict[str, list[Any]] = {
    "as LangChain": [AIMessageChunk("a"), AIMessageChunk("", usage_metadata=from_openai(_RAW))],
    "in the metadata": [_own({}), _own({"token_usage": _RAW})],
    "in the metadata, the sum so far": [
        _own({"usage": {**_RAW, "completion_tokens": 1}}),
        _own({"usage": _RAW}),
    ],
    "in the output of a result": [LLMResult([[ChatGeneration(AIMessage("a"))]], {"token_usage": _RAW})],
}


@both
@pytest.mark.parametrize("pieces", OWN.values(), ids=OWN)
def test_usage_of_a_users_model_is_read_in_every_known_place(
    pieces: list[Any], style: CallStyle, tmp_path: Path
) -> None:
    """All three counts are the same live and in SQL."""
    make = lambda provider, **options: ScriptedModel(pieces=pieces, **options)  # noqa: E731
    found = forms_of(make, b"", style, tmp_path)
    assert found.end[2:] == (11, 5)
    assert found.live.usage_metadata is not None
    assert found.live.usage_metadata["total_tokens"] == 16
    assert_alike(found)
