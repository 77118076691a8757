"""Encoders: deltas become events and are read back without loss, or in another format with what it can express."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given

from recorder.core.json import loads
from recorder.errors import ConfigError
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
)
from recorder.wire.encode import WIRES, body, encode
from recorder.wire.recorded_run import ANTHROPIC, CHAT, COMPLETIONS, RESPONSES, Failure, Recorded, choice_of
from recorder.wire.sse import parse
from tests.encoded import (
    anthropic_deltas,
    body_of,
    chat_deltas,
    completions_deltas,
    read,
    responses_deltas,
    timed,
)
from tests.wires import unhurried

OPENAI_USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
RESPONSES_USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
ANTHROPIC_USAGE = {
    "input_tokens": 3,
    "cache_read_input_tokens": 2,
    "output_tokens": 4,
    "service_tier": "standard",
}
HELLO = [Delta("Hel"), Delta("lo")]
THOUGHT = [Delta("Hm", REASONING), Delta("Sig", SIGNATURE), Delta("Hello", TEXT, "0.1")]


def run(wire: str, **fields: Any) -> Recorded:
    """Return a run that ended normally."""
    known = {"response_id": "r-1", "model": "m", "created": 7, "finish_reasons": {0: "stop"}}
    if wire == ANTHROPIC:
        known |= {"finish_reasons": {0: "end_turn"}, "usage": ANTHROPIC_USAGE}
    else:
        known |= {"usage": OPENAI_USAGE}
    return Recorded(wire=wire, **{**known, **fields})


def events(wire: str, run: Recorded, deltas: list[Delta]) -> list[Any]:
    """Return the data of each event; `[DONE]` as text."""
    found = [parse(frame).data or b"" for _, frame in encode(wire, run, timed(deltas))]
    return [orjson.loads(data) if data.startswith(b"{") else data.decode() for data in found]


# -- encoding and reading ----------------------------------------------------------------------------------------


@unhurried
@given(chat_deltas())
def test_encoded_chats_are_read_back_without_loss(deltas: list[Delta]) -> None:
    """All deltas, id, model, usage and finish reasons are the same."""
    reasons = {number: f"reason {number}" for number in {0, *(choice_of(idx) for _, _, idx in deltas)}}
    found, reply = read(CHAT, body_of(CHAT, run(CHAT, finish_reasons=reasons), deltas))
    assert found == deltas
    assert (reply.response_id, reply.model, reply.raw_usage) == ("r-1", "m", OPENAI_USAGE)
    assert (reply.finish_reasons, reply.terminated, reply.error) == (reasons, True, None)


@unhurried
@given(completions_deltas())
def test_encoded_completions_are_read_back_without_loss(deltas: list[Delta]) -> None:
    """All deltas, id, model, usage and finish reasons are the same."""
    reasons = dict.fromkeys({0, *(choice_of(idx) for _, _, idx in deltas)}, "stop")
    found, reply = read(COMPLETIONS, body_of(COMPLETIONS, run(COMPLETIONS, finish_reasons=reasons), deltas))
    assert found == deltas
    assert (reply.response_id, reply.model, reply.raw_usage) == ("r-1", "m", OPENAI_USAGE)
    assert (reply.finish_reasons, reply.terminated, reply.error) == (reasons, True, None)


@unhurried
@given(responses_deltas())
def test_encoded_responses_are_read_back_without_loss(deltas: list[Delta]) -> None:
    """This holds for items of every type, their numbers and their pieces."""
    found, reply = read(RESPONSES, body_of(RESPONSES, run(RESPONSES, usage=RESPONSES_USAGE), deltas))
    assert found == deltas
    assert (reply.response_id, reply.model, reply.raw_usage) == ("r-1", "m", RESPONSES_USAGE)
    calls = [call for call in reply.tool_calls() if call.get("extras", {}).get("type") != "mcp_call"]
    assert reply.finish_reasons == {0: "tool_calls" if calls else "stop"}
    assert (reply.terminated, reply.error) == (True, None)


@unhurried
@given(responses_deltas())
def test_a_complete_response_equals_its_stream(deltas: list[Delta]) -> None:
    """The body that is not streamed is the response of the last event, and is read as the same message."""
    complete = body(RESPONSES, run(RESPONSES), timed(deltas))
    *_, (_, last) = encode(RESPONSES, run(RESPONSES), timed(deltas))
    assert loads(complete) == loads(parse(last).data or b"")["response"]
    _, streamed = read(RESPONSES, body_of(RESPONSES, run(RESPONSES), deltas))
    _, reply = read(RESPONSES, complete)
    assert reply.message() == streamed.message()


@unhurried
@given(chat_deltas())
def test_a_chat_can_be_encoded_as_a_response(deltas: list[Delta]) -> None:
    """The first choice becomes items; each of them is completed once."""
    body_bytes = body_of(RESPONSES, run(CHAT), deltas)
    _, ours = read(CHAT, body_of(CHAT, run(CHAT), deltas))
    _, reply = read(RESPONSES, body_bytes)
    assert (reply.text(), reply.text(0, REFUSAL)) == (ours.text(), ours.text(0, REFUSAL))
    assert reply.text(0, REASONING).replace("\n\n", "") == ours.text(0, REASONING).replace("\n\n", "")
    assert [call["arguments"] for call in reply.tool_calls()] == [c["arguments"] for c in ours.tool_calls()]
    assert all(call["id"] for call in reply.tool_calls())
    assert body_bytes.count(b"event: response.output_item.added") == body_bytes.count(
        b"event: response.output_item.done"
    )
    assert ours.usage is not None
    assert reply.usage is not None
    assert ours.usage.items() <= reply.usage.items()


@unhurried
@given(anthropic_deltas())
def test_an_anthropic_message_can_be_encoded_as_a_response(deltas: list[Delta]) -> None:
    """Text, reasoning and calls are the same."""
    _, ours = read(ANTHROPIC, body_of(ANTHROPIC, run(ANTHROPIC), deltas))
    _, reply = read(RESPONSES, body_of(RESPONSES, run(ANTHROPIC), deltas))
    assert reply.text() == ours.text()
    assert reply.text(0, REASONING).replace("\n\n", "") == ours.text(0, REASONING).replace("\n\n", "")
    assert reply.tool_calls() == ours.tool_calls()


@unhurried
@given(responses_deltas())
def test_a_response_can_be_encoded_in_the_other_formats(deltas: list[Delta]) -> None:
    """Text, reasoning and calls are the same in chats and Anthropic's messages."""
    _, ours = read(RESPONSES, body_of(RESPONSES, run(RESPONSES), deltas))
    for wire in (CHAT, ANTHROPIC):
        _, reply = read(wire, body_of(wire, run(RESPONSES), deltas))
        assert reply.text(0, REASONING) == ours.text(0, REASONING)
        assert [call["arguments"] for call in reply.tool_calls()] == [
            c["arguments"] for c in ours.tool_calls()
        ]
        assert "signature" not in repr(reply.message().content).replace("'signature': ''", "")
    assert read(CHAT, body_of(CHAT, run(RESPONSES), deltas))[1].text() == ours.text()


@unhurried
@given(anthropic_deltas())
def test_encoded_anthropic_messages_are_read_back_without_loss(deltas: list[Delta]) -> None:
    """This holds for blocks of every type."""
    found, reply = read(ANTHROPIC, body_of(ANTHROPIC, run(ANTHROPIC), deltas))
    assert found == deltas
    assert (reply.response_id, reply.model, reply.raw_usage) == ("r-1", "m", ANTHROPIC_USAGE)
    assert (reply.finish_reasons, reply.terminated, reply.error) == ({0: "end_turn"}, True, None)


@unhurried
@given(chat_deltas())
def test_a_complete_chat_equals_its_stream(deltas: list[Delta]) -> None:
    """Text, reasoning, refusal and calls of each choice are the same."""
    body_bytes = body(CHAT, run(CHAT), timed(deltas))
    _, streamed = read(CHAT, body_of(CHAT, run(CHAT), deltas))
    _, reply = read(CHAT, body_bytes)
    assert reply.choices == streamed.choices
    for number in reply.choices:
        for kind in (TEXT, REASONING, REFUSAL):
            assert reply.text(number, kind) == streamed.text(number, kind)
        called = zip(reply.tool_calls(number), streamed.tool_calls(number), strict=True)
        assert all(
            one["arguments"] == call["arguments"] and one["name"] == call["name"] for one, call in called
        )
    assert (reply.raw_usage, reply.finish_reasons) == (streamed.raw_usage, streamed.finish_reasons)


@unhurried
@given(completions_deltas())
def test_a_complete_completion_equals_its_stream(deltas: list[Delta]) -> None:
    """Text, reasoning, usage and finish reasons are the same."""
    _, reply = read(COMPLETIONS, body(COMPLETIONS, run(COMPLETIONS), timed(deltas)))
    _, streamed = read(COMPLETIONS, body_of(COMPLETIONS, run(COMPLETIONS), deltas))
    assert reply.choices == streamed.choices
    for number in reply.choices:
        assert reply.text(number) == streamed.text(number)
        assert reply.text(number, REASONING) == streamed.text(number, REASONING)
    assert (reply.raw_usage, reply.finish_reasons) == (streamed.raw_usage, streamed.finish_reasons)


@unhurried
@given(anthropic_deltas())
def test_a_complete_anthropic_message_has_the_blocks_of_its_stream(deltas: list[Delta]) -> None:
    """Arguments that are not a JSON object cannot be in a complete message."""
    _, reply = read(ANTHROPIC, body(ANTHROPIC, run(ANTHROPIC), timed(deltas)))
    _, streamed = read(ANTHROPIC, body_of(ANTHROPIC, run(ANTHROPIC), deltas))
    blocks = [{key: block[key] for key in block.keys() - {"partial_json"}} for block in streamed.blocks()]
    assert reply.blocks() == blocks
    assert (reply.raw_usage, reply.finish_reasons) == (streamed.raw_usage, streamed.finish_reasons)


@unhurried
@given(anthropic_deltas())
def test_an_anthropic_message_can_be_encoded_as_a_chat(deltas: list[Delta]) -> None:
    """Text, reasoning and calls are the same; calls are numbered from 0."""
    _, ours = read(ANTHROPIC, body_of(ANTHROPIC, run(ANTHROPIC), deltas))
    found, reply = read(CHAT, body_of(CHAT, run(ANTHROPIC), deltas))
    assert reply.text() == ours.text()
    assert reply.text(0, REASONING) == ours.text(0, REASONING)
    assert reply.tool_calls() == ours.tool_calls()
    parts = list(dict.fromkeys(idx for _, kind, idx in found if kind == TOOL_CALL))
    assert parts == [f"0.{number}" for number in range(len(parts))]


@unhurried
@given(chat_deltas())
def test_a_chat_can_be_encoded_as_an_anthropic_message(deltas: list[Delta]) -> None:
    """The first choice becomes blocks, each of which is closed once."""
    body_bytes = body_of(ANTHROPIC, run(CHAT), deltas)
    _, ours = read(CHAT, body_of(CHAT, run(CHAT), deltas))
    _, reply = read(ANTHROPIC, body_bytes)
    text = "".join(text for text, kind, idx in deltas if kind in (TEXT, REFUSAL) and idx == "0")
    assert reply.text() == text
    assert reply.text(0, REASONING) == ours.text(0, REASONING)
    assert [call["arguments"] for call in reply.tool_calls()] == [c["arguments"] for c in ours.tool_calls()]
    assert [call["name"] or None for call in reply.tool_calls()] == [c["name"] for c in ours.tool_calls()]
    starts, stops = (
        body_bytes.count(b"event: content_block_start"),
        body_bytes.count(b"event: content_block_stop"),
    )
    assert starts == stops


@unhurried
@given(chat_deltas())
def test_a_chat_can_be_encoded_as_a_completion(deltas: list[Delta]) -> None:
    """Texts and refusals are the text."""
    _, reply = read(COMPLETIONS, body_of(COMPLETIONS, run(CHAT), deltas))
    for number in "012":
        text = "".join(text for text, kind, idx in deltas if kind in (TEXT, REFUSAL) and idx == number)
        assert reply.text(int(number)) == text


# -- what the formats require --------------------------------------------------------------------------------------


def test_a_chat_begins_with_the_role_and_ends_with_done() -> None:
    """The events equal those of the API."""
    found = events(CHAT, run(CHAT), HELLO)
    assert [choice for event in found[:-1] for choice in event["choices"]] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None},
        {"index": 0, "delta": {"content": "Hel"}, "logprobs": None, "finish_reason": None},
        {"index": 0, "delta": {"content": "lo"}, "logprobs": None, "finish_reason": None},
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"},
    ]
    assert found[-2]["choices"] == []
    assert [event["usage"] for event in found[:-1]] == [None] * 4 + [OPENAI_USAGE]
    assert found[-1] == "[DONE]"
    head = {"id": "r-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    assert all(head.items() <= event.items() for event in found[:-1])


def test_usage_is_encoded_only_if_requested() -> None:
    """An event without choices breaks other clients. Anthropic's format always has the usage."""
    for wire in (CHAT, COMPLETIONS):
        found = events(wire, run(wire, include_usage=False), HELLO)
        assert all("usage" not in event and event["choices"] for event in found[:-1])
    assert events(ANTHROPIC, run(CHAT, include_usage=False), HELLO)[-2]["usage"] == {
        "input_tokens": 3,
        "output_tokens": 4,
    }


def test_each_event_has_the_time_of_its_delta() -> None:
    """Opening events have the time of the first delta, closing events that of the run's end."""
    for wire in WIRES:
        found = [at for at, _ in encode(wire, run(wire, ended_us=9_000), timed(HELLO))]
        assert sorted(found) == found
        assert {1000, 2000, 9_000} == set(found)
        assert {at for at, _ in encode(wire, run(wire), timed(HELLO))} == {1000, 2000}
        assert {at for at, _ in encode(wire, run(wire, ended_us=5), [])} == {5}


def test_an_encoded_anthropic_message_has_event_names_and_closed_blocks() -> None:
    """Without the names the SDK yields nothing."""
    frames = [frame for _, frame in encode(ANTHROPIC, run(ANTHROPIC), timed(THOUGHT))]
    found = [(parse(frame).name, orjson.loads(parse(frame).data or b"")) for frame in frames]
    assert all(name == data["type"] for name, data in found)
    assert [(name, data.get("index")) for name, data in found] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert found[0][1]["message"]["usage"] == {**ANTHROPIC_USAGE, "output_tokens": 0}
    assert found[-2][1]["usage"] == {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 4}


def test_each_change_of_kind_begins_an_anthropic_block() -> None:
    """Interleaved calls have one block each."""
    deltas = [
        Delta("Hm", REASONING),
        Delta("Well", TEXT),
        Delta('{"id":"a","name":"get_"}', TOOL_CALL, "0.0"),
        Delta('{"name":"time"}', TOOL_CALL, "0.0"),
        Delta('{"id":"b","name":"f"}', TOOL_CALL, "0.1"),
        Delta("{", TOOL_ARGS, "0.0"),
        Delta("{}", TOOL_ARGS, "0.1"),
        Delta("}", TOOL_ARGS, "0.0"),
        Delta("so", TEXT),
        Delta("No", REFUSAL),
        Delta("other", TEXT, "1"),
    ]
    found = orjson.loads(body(ANTHROPIC, run(CHAT, finish_reasons={0: "tool_calls"}), timed(deltas)))
    assert found["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "text", "text": "Well"},
        {"type": "tool_use", "id": "a", "name": "get_time", "input": {}},
        {"type": "tool_use", "id": "b", "name": "f", "input": {}},
        {"type": "text", "text": "soNo"},
    ]
    assert (found["stop_reason"], found["type"], found["role"]) == ("tool_use", "message", "assistant")
    _, reply = read(ANTHROPIC, body_of(ANTHROPIC, run(CHAT), deltas))
    assert [call["arguments"] for call in reply.tool_calls()] == ["{}", "{}"]


def test_a_tool_call_without_an_id_gets_one_in_anthropics_format() -> None:
    """Arguments without an opening delta are a call, too."""
    deltas = [Delta('{"name":"f"}', TOOL_CALL, "0.0"), Delta("{}", TOOL_ARGS, "0.3")]
    first, second = orjson.loads(body(ANTHROPIC, run(CHAT), timed(deltas)))["content"]
    assert (first["id"], first["name"], second["type"]) == ("toolu_0", "f", "tool_use")


def test_web_citations_are_translated_between_formats() -> None:
    """Citations that only one format has are left out of the other."""
    theirs = {"type": "url_citation", "url_citation": {"url": "https://a", "title": "A", "start_index": 1}}
    deltas = [Delta("x"), Delta(orjson.dumps(theirs).decode(), CITATION), Delta('{"file":1}', CITATION)]
    block = orjson.loads(body(ANTHROPIC, run(CHAT), timed(deltas)))["content"][0]
    assert [(each["type"], each["url"]) for each in block["citations"]] == [
        ("web_search_result_location", "https://a")
    ]
    ours = [
        Delta("x"),
        Delta(orjson.dumps(block["citations"][0]).decode(), CITATION),
        Delta('{"document":1}', CITATION),
    ]
    message = orjson.loads(body(CHAT, run(ANTHROPIC), timed(ours)))["choices"][0]["message"]
    assert message["annotations"] == [
        {"type": "url_citation", "url_citation": {"url": "https://a", "title": "A"}}
    ]


def test_server_tools_are_left_out_of_other_formats() -> None:
    """Clients of other formats could not read them."""
    block = '{"content_block":{"type":"server_tool_use","id":"s","name":"n","input":{}}}'
    deltas = [Delta(block, OTHER), Delta("Hello", TEXT, "0.1")]
    for wire in (CHAT, COMPLETIONS):
        assert b"server_tool_use" not in body_of(wire, run(ANTHROPIC), deltas)
    assert b"server_tool_use" in body_of(ANTHROPIC, run(ANTHROPIC), deltas)
    assert b"x_more" not in body_of(ANTHROPIC, run(CHAT), [Delta('{"x_more":{}}', OTHER)])


@pytest.mark.parametrize("wire", WIRES)
def test_an_error_is_encoded_in_the_form_of_the_format(wire: str) -> None:
    """It follows the deltas, and there is no terminator."""
    failed = run(wire, finish_reasons={}, failure=Failure("Too much", "overloaded_error"))
    found, reply = read(wire, body_of(wire, failed, HELLO))
    assert found == HELLO
    assert not reply.terminated
    fields = reply.error.get("error", reply.error)
    assert (fields["message"], fields["type"]) == ("Too much", "overloaded_error")
    assert orjson.loads(body(wire, failed, timed(HELLO)))["error"]["message"] == "Too much"


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != RESPONSES])
def test_a_run_without_a_terminator_is_encoded_without_one(wire: str) -> None:
    """A finish reason is kept if the run has one."""
    left = run(wire, finish_reasons={}, terminated=False, usage=None)
    found, reply = read(wire, body_of(wire, left, HELLO))
    assert (found, reply.finish_reasons, reply.terminated) == (HELLO, {}, False)
    found, reply = read(wire, body_of(wire, replace(left, finish_reasons={0: "x"}), HELLO))
    assert (found, reply.finish_reasons, reply.terminated) == (HELLO, {0: "x"}, False)


@pytest.mark.parametrize("wire", WIRES)
def test_a_run_without_deltas_is_encoded_as_an_empty_answer(wire: str) -> None:
    """The answer has a terminator."""
    found, reply = read(wire, body_of(wire, run(wire), []))
    assert (found, reply.terminated, reply.text()) == ([], True, "")
    _, reply = read(wire, body(wire, run(wire), []))
    assert (reply.terminated, reply.text()) == (True, "")


@pytest.mark.parametrize("wire", WIRES)
def test_a_run_without_a_finish_reason_gets_the_usual_one(wire: str) -> None:
    """The SDKs' helpers need one; an answer with calls gets that of calls."""
    bare = Recorded()
    usual, called = ("end_turn", "tool_use") if wire == ANTHROPIC else ("stop", "tool_calls")
    _, reply = read(wire, body_of(wire, bare, HELLO))
    assert reply.finish_reasons == {0: usual}
    _, reply = read(wire, body_of(wire, bare, [Delta('{"id":"a","name":"f"}', TOOL_CALL, "0.2")]))
    assert reply.finish_reasons == {0: "stop" if wire == COMPLETIONS else called}


@pytest.mark.parametrize("wire", WIRES)
def test_text_cannot_break_out_of_its_event(wire: str) -> None:
    """Blank lines, lines like fields, and lone surrogates remain text."""
    texts = ["a\n\ndata: [DONE]\n\n", "\r\r", "event: error\n", "\u2028", "\x00", "\ud800", '"}]}']
    found, _ = read(wire, body_of(wire, run(wire), [Delta(text) for text in texts]))
    assert [delta.text for delta in found] == texts


def test_a_response_without_a_terminator_has_no_finish_reason() -> None:
    """In this format both are in the last event; no item is completed."""
    left = run(RESPONSES, finish_reasons={0: "stop"}, terminated=False)
    found, reply = read(RESPONSES, body_of(RESPONSES, left, HELLO))
    assert (found, reply.finish_reasons, reply.terminated) == (HELLO, {}, False)


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != RESPONSES])
def test_an_endless_stream_is_encoded_in_bounded_memory(wire: str) -> None:
    """Each delta gives one event at once."""

    def endless() -> Iterator[tuple[int, Delta]]:
        for number in itertools.count():
            yield number, Delta(f"token {number} ")

    frames = encode(wire, run(wire), endless())
    for _ in itertools.islice(frames, 1_000):
        pass
    tracemalloc.start()
    try:
        for _ in itertools.islice(frames, 20_000):
            pass
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_unknown_format_is_refused() -> None:
    """The error lists the known formats."""
    with pytest.raises(
        ConfigError, match=r"choose one of openai\.chat, openai\.completions, openai\.responses, anth"
    ):
        encode("openai.images", Recorded(), [])
    with pytest.raises(ConfigError, match="no encoder"):
        body("", Recorded(), [])


@pytest.mark.parametrize("beside", [{"reasoning": "Hm"}, {}], ids=["with a field", "alone"])
def test_reasoning_details_count_once_after_encoding(beside: dict[str, str]) -> None:
    """The details and their text are two events of the encoded stream, but one reasoning."""
    fields = {**beside, "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "index": 0}]}
    event = orjson.dumps({"choices": [{"index": 0, "delta": fields}]})
    deltas, _ = read(CHAT, b"data: " + event + b"\n\ndata: [DONE]\n\n")
    again, _ = read(CHAT, body_of(CHAT, run(CHAT), deltas))
    assert [delta.text for delta in again if delta.kind == REASONING] == ["Hm"]
    assert sorted(again) == sorted(deltas)
