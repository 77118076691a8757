"""The translator of Anthropic's messages: all kinds of blocks, unusual servers, damage, and encoding back."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.testing import anthropic_error_frame, anthropic_messages_body, anthropic_messages_frames
from recorder.wire.anthropic.reply import AnthropicReply
from recorder.wire.anthropic.stream import AnthropicMessages
from recorder.wire.deltas import Delta
from recorder.wire.reply import Reply
from tests.wires import at_random, by_one, crlf, encoded, frames_of, reply_fields, translated, unhurried

CALL = {"id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {"type": "web_search_result", "title": "Z", "url": "https://z.ch", "encrypted_content": "E=="}
    ],
}
CITATION = {"type": "web_search_result_location", "cited_text": "Z", "url": "https://z.ch"}


def event(type: str, **fields: Any) -> bytes:
    """Return one event with its name."""
    return b"event: " + type.encode() + b"\ndata: " + orjson.dumps({"type": type, **fields}) + b"\n\n"


def start(block: dict[str, Any], index: int = 0) -> bytes:
    """Return the event that begins a block."""
    return event("content_block_start", index=index, content_block=block)


def piece(index: int = 0, **delta: Any) -> bytes:
    """Return an event with one delta of a block."""
    return event("content_block_delta", index=index, delta=delta)


def stop(index: int = 0) -> bytes:
    """Return the event that ends a block."""
    return event("content_block_stop", index=index)


def text(content: str, index: int = 0) -> bytes:
    """Return an event with a piece of text."""
    return piece(index, type="text_delta", text=content)


def decoded(*frames: bytes) -> tuple[list[Delta], AnthropicReply]:
    """Return the deltas and the reply of frames."""
    deltas, reply = translated(frames, AnthropicMessages)
    assert isinstance(reply, AnthropicReply)
    return deltas, reply


def rebuilt(deltas: Iterable[Delta]) -> AnthropicReply:
    """Return the reply that is built from stored deltas alone."""
    reply = AnthropicReply()
    for delta in deltas:
        reply.add(delta)
    return reply


EMPTY_TEXT = {"type": "text", "text": ""}
EMPTY_THINKING = {"type": "thinking", "thinking": "", "signature": ""}

#: Frames, their deltas and their blocks, by the name of the case.
BLOCKS: dict[str, tuple[list[bytes], list[Delta], list[dict[str, Any]]]] = {
    "text": (
        [start(EMPTY_TEXT), text("Hel"), text("lo"), stop()],
        [Delta("Hel"), Delta("lo")],
        [{"type": "text", "text": "Hello"}],
    ),
    "text in the start": (
        [start({"type": "text", "text": "Hel"}), text("lo"), stop()],
        [Delta("Hel"), Delta("lo")],
        [{"type": "text", "text": "Hello"}],
    ),
    "two texts": (
        [start(EMPTY_TEXT), text("a"), stop(), start(EMPTY_TEXT, 1), text("b", 1), stop(1)],
        [Delta("a"), Delta("b", "text", "0.1")],
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
    ),
    "an empty text": (
        [start(EMPTY_TEXT), text(""), stop(), start(EMPTY_TEXT, 1), text("b", 1), stop(1)],
        [Delta('{"content_block":{"type":"text","text":""}}', "other"), Delta("b", "text", "0.1")],
        [EMPTY_TEXT, {"type": "text", "text": "b"}],
    ),
    "citations": (
        [start({"citations": [], **EMPTY_TEXT}), piece(type="citations_delta", citation=CITATION), text("Z"), stop()],
        [Delta(orjson.dumps(CITATION).decode(), "citation"), Delta("Z")],
        [{"type": "text", "text": "Z", "citations": [CITATION]}],
    ),
    "thinking": (
        [start(EMPTY_THINKING), piece(type="thinking_delta", thinking="Hm"), piece(type="thinking_delta", thinking="m"),
         piece(type="signature_delta", signature="Eq=="), stop(), start(EMPTY_TEXT, 1), text("Yes", 1), stop(1)],
        [Delta("Hm", "reasoning"), Delta("m", "reasoning"), Delta("Eq==", "signature"), Delta("Yes", "text", "0.1")],
        [{"type": "thinking", "thinking": "Hmm", "signature": "Eq=="}, {"type": "text", "text": "Yes"}],
    ),
    "thinking without its text": (
        [start(EMPTY_THINKING), piece(type="signature_delta", signature="Eq=="), stop()],
        [Delta("Eq==", "signature")],
        [{"type": "thinking", "thinking": "", "signature": "Eq=="}],
    ),
    "redacted thinking": (
        [start({"type": "redacted_thinking", "data": "X=="}), stop()],
        [Delta('{"content_block":{"type":"redacted_thinking","data":"X=="}}', "other")],
        [{"type": "redacted_thinking", "data": "X=="}],
    ),
    "a tool": (
        [start({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}, "caller": {"type": "direct"}}),
         piece(type="input_json_delta", partial_json=""), piece(type="input_json_delta", partial_json='{"a":'),
         piece(type="input_json_delta", partial_json=" 1}"), stop()],
        [Delta('{"id":"toolu_1","name":"f","caller":{"type":"direct"}}', "tool_call", "0.0"),
         Delta('{"a":', "tool_args", "0.0"), Delta(" 1}", "tool_args", "0.0")],
        [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}}],
    ),
    "a tool with its input in the start": (
        [start({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}), stop()],
        [Delta('{"id":"t","name":"f"}', "tool_call", "0.0"), Delta('{"a":1}', "tool_args", "0.0")],
        [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
    ),
    "a tool whose input in the start is only the first": (
        [start({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}),
         piece(type="input_json_delta", partial_json='{"a":2}'), stop()],
        [Delta('{"id":"t","name":"f"}', "tool_call", "0.0"), Delta('{"a":2}', "tool_args", "0.0")],
        [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 2}}],
    ),
    "a tool without input": (
        [start({"type": "tool_use", "id": "t", "name": "f", "input": {}}), stop()],
        [Delta('{"id":"t","name":"f"}', "tool_call", "0.0")],
        [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
    ),
    "a server's tool": (
        [start(SEARCH), piece(type="input_json_delta", partial_json='{"query":'),
         piece(type="input_json_delta", partial_json='"Z"}'), stop(), start(FOUND, 1), stop(1)],
        [Delta(orjson.dumps({"content_block": SEARCH}).decode(), "other"),
         Delta('{"partial_json":"{\\"query\\":"}', "other"), Delta('{"partial_json":"\\"Z\\"}"}', "other"),
         Delta(orjson.dumps({"content_block": FOUND}).decode(), "other", "0.1")],
        [{**SEARCH, "input": {"query": "Z"}}, FOUND],
    ),
    "compaction": (
        [start({"type": "compaction", "content": None}), piece(type="compaction_delta", content="So far: "),
         piece(type="compaction_delta", content="nothing."), stop()],
        [Delta('{"content_block":{"type":"compaction","content":null}}', "other"),
         Delta('{"content_block_delta":{"type":"compaction_delta","content":"So far: "}}', "other"),
         Delta('{"content_block_delta":{"type":"compaction_delta","content":"nothing."}}', "other")],
        [{"type": "compaction", "content": "So far: nothing."}],
    ),
    "unknown keys": (
        [start({**EMPTY_TEXT, "mood": "good"}), text("Hi"), stop()],
        [Delta('{"content_block":{"type":"text","mood":"good"}}', "other"), Delta("Hi")],
        [{"type": "text", "text": "Hi", "mood": "good"}],
    ),
}  # fmt: skip
each_block = pytest.mark.parametrize(("frames", "deltas", "blocks"), BLOCKS.values(), ids=BLOCKS)


@each_block
def test_each_kind_of_block_has_its_deltas(
    frames: list[bytes], deltas: list[Delta], blocks: list[dict[str, Any]]
) -> None:
    """The reply has the same block again."""
    found, reply = decoded(*frames)
    assert found == deltas
    assert reply.blocks() == blocks
    assert reply.text() == "".join(block["text"] for block in blocks if block["type"] == "text")


@each_block
def test_the_blocks_can_be_rebuilt_from_the_deltas(
    frames: list[bytes], deltas: list[Delta], blocks: list[dict[str, Any]]
) -> None:
    """This holds for stored deltas, and for deltas that were encoded as events again."""
    assert rebuilt(deltas).blocks() == blocks
    assert decoded(*encoded(deltas, Reply()))[1].blocks() == blocks


@each_block
def test_a_complete_answer_has_the_same_blocks(
    frames: list[bytes], deltas: list[Delta], blocks: list[dict[str, Any]]
) -> None:
    """It is one frame, with one delta for each part."""
    body = orjson.dumps(
        {"type": "message", "role": "assistant", "content": blocks, "stop_reason": "end_turn"}
    )
    found, reply = decoded(body)
    assert reply.blocks() == blocks
    assert reply.terminated
    assert rebuilt(found).blocks() == blocks


MANY: dict[str, Any] = {
    "pieces": ["Zürich", " 🎈", "中文", "\u2028", "\x00", '"\\'],
    "thinking": ["Hm", "m."],
    "signature": "Eq==",
    "redacted_thinking": "X==",
    "tool_calls": [CALL],
    "blocks": [SEARCH, FOUND],
}
#: A fixed id of the message makes equal bodies.
ID: dict[str, Any] = {"id": "msg_1"}


def test_the_message_has_text_blocks_calls_and_metadata() -> None:
    """Text is joined, and tool calls are parsed."""
    _, reply = decoded(
        *anthropic_messages_frames(**MANY, **ID, stop_reason="stop_sequence", stop_sequence="END")
    )
    message = reply.message()
    assert message.text == "".join(MANY["pieces"])
    kinds = ["thinking", "redacted_thinking", "text", "tool_use", "server_tool_use", "web_search_tool_result"]
    assert isinstance(message.content, list)
    assert [block["type"] for block in message.content] == kinds
    assert message.tool_calls == [
        {"name": "weather", "args": {"city": "Zürich"}, "id": "toolu_1", "type": "tool_call"}
    ]
    assert message.additional_kwargs == {}
    assert message.response_metadata == {
        "stop_reason": "stop_sequence", "stop_sequence": "END", "model_name": "claude-haiku-4-5-20251001"
    }  # fmt: skip
    assert reply.finish_reasons == {0: "stop_sequence"}
    assert (reply.response_id, reply.terminated) == ("msg_1", True)


def test_a_complete_and_a_streamed_message_are_equal() -> None:
    """Blocks, metadata and usage are the same."""
    _, streamed = decoded(*anthropic_messages_frames(**MANY, **ID))
    _, answer = decoded(anthropic_messages_body(**MANY, **ID))
    assert answer.blocks() == streamed.blocks()
    assert answer.message().response_metadata == streamed.message().response_metadata
    assert answer.raw_usage == streamed.raw_usage


@pytest.mark.parametrize(("written", "count"), [(7, 0), (9, 9)])
def test_cache_details_are_dropped_when_the_final_count_differs(written: int, count: int) -> None:
    """The end of a message counts again without details; those of its start are kept only if they agree."""
    lifetimes = {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0}
    began = {"input_tokens": 1, "cache_creation_input_tokens": 7, "cache_creation": lifetimes}
    _, reply = decoded(
        event("message_start", message={"id": "m", "usage": began}),
        event("message_delta", delta={"stop_reason": "end_turn"},
              usage={"input_tokens": 1, "cache_creation_input_tokens": written, "output_tokens": 2}),
    )  # fmt: skip
    assert reply.usage is not None
    assert (reply.usage["input_tokens"], reply.usage["input_token_details"]["cache_creation"]) == (
        1 + written,
        count,
    )


def test_content_of_text_only_is_a_string() -> None:
    """An answer without content is an empty string."""
    assert decoded(*anthropic_messages_frames(["Hi", "!"]))[1].message().content == "Hi!"
    assert decoded(*anthropic_messages_frames([]))[1].message().content == ""


# -- forms of events ---------------------------------------------------------------------------------------------


def nameless(frame: bytes) -> bytes:
    """Return the frame without its `event:` line."""
    return frame[frame.index(b"data:") :]


def data_first(frame: bytes) -> bytes:
    """Return the frame with its lines in the other order."""
    name, data = frame.strip().split(b"\n")
    return data + b"\n" + name + b"\n\n"


FORMS = {"without names": nameless, "data first": data_first, "crlf": crlf,
         "no blank": lambda frame: frame.replace(b": ", b":", 2)}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_events_without_names_or_in_another_form_are_read(form: Any) -> None:
    """The type is in the data, too."""
    frames = anthropic_messages_frames(**MANY, **ID)
    assert reply_fields(decoded(*map(form, frames))[1]) == reply_fields(decoded(*frames)[1])
    assert decoded(*map(form, frames))[0] == decoded(*frames)[0]


@pytest.mark.parametrize("padding", [True, False], ids=["padded", "plain"])
def test_deltas_do_not_depend_on_the_pieces_of_the_body(padding: bool) -> None:
    """The body comes byte by byte or in random pieces."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    frames = anthropic_messages_frames(**MANY, **ID, padding=padding)
    body, expected = b"".join(frames), decoded(*frames)[0]
    for pieces in (by_one(body), at_random(body, random.Random(seed)), by_one(crlf(body))):
        assert decoded(*frames_of(pieces))[0] == expected


def test_pings_and_comments_make_no_delta() -> None:
    """A frame without content makes no delta either."""
    frames = [event("ping"), b": keep-alive\n\n", b"\n\n", b"event: ping\ndata: {}\n\n"]
    deltas, reply = decoded(
        event("ping"), b": keep-alive\n\n", b"\n\n", start(EMPTY_TEXT), event("ping"), text("Hi")
    )
    assert deltas == [Delta("Hi")]
    assert reply.error is None
    assert decoded(*frames[:3])[0] == []


def test_frames_after_the_terminator_make_no_delta() -> None:
    """They are stored as frames only."""
    deltas, reply = decoded(*anthropic_messages_frames(["Hi"]), start(EMPTY_TEXT), text("!"))
    assert reply.text() == "Hi"
    assert deltas == [Delta("Hi")]


def test_an_incomplete_stream_has_its_content_and_no_end() -> None:
    """The usage is that of the start, and a tool call without its end is invalid."""
    frames = anthropic_messages_frames(["Let", " me", " see"], tool_calls=[CALL], prompt_tokens=9)
    cut = next(at for at, frame in enumerate(frames) if b"input_json" in frame) + 3
    _, reply = decoded(*frames[:cut])
    message = reply.message()
    assert (message.text, reply.terminated, reply.finish_reasons) == ("Let me see", False, {})
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == 9
    assert message.tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert isinstance(message.content, list)
    assert message.content[-1]["partial_json"] == invalid["args"]


# -- errors and unknown events -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [bytes, nameless], ids=["named", "nameless"])
def test_an_error_event_is_the_error_of_the_reply(form: Any) -> None:
    """It has the form of the body of the SDK's error."""
    deltas, reply = decoded(
        start(EMPTY_TEXT), text("Hi"), form(anthropic_error_frame("Overloaded", "overloaded_error"))
    )
    assert deltas == [Delta("Hi")]
    assert reply.error == {
        "type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}
    }  # fmt: skip


def test_an_error_event_may_be_plain_text() -> None:
    """Its text is the error."""
    assert decoded(b"event: error\ndata: upstream timed out\n\n")[1].error == "upstream timed out"


def test_a_complete_response_may_be_an_error() -> None:
    """Some gateways send it with status 200."""
    _, reply = decoded(b'{"type":"error","error":{"type":"api_error","message":"No"}}')
    assert reply.error["error"]["message"] == "No"
    assert not reply.terminated


ODD = [
    b"event: content_block_delta\ndata: not json\n\n",
    b"event: content_block_delta\ndata: {}\n\n",
    b"event: content_block_delta\ndata: []\n\n",
    b"event: content_block_delta\ndata: null\n\n",
    b'data: {"type":"content_block_delta"}\n\n',
    b'data: {"type":"content_block_delta","index":0,"delta":null}\n\n',
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}\n\n',
    b'data: {"type":"content_block_start","index":0}\n\n',
    b'data: {"type":"content_block_start","index":[],"content_block":{"type":"text"}}\n\n',
    b'data: {"type":"content_block_start","index":0,"content_block":"text"}\n\n',
    b'data: {"type":"message_start","message":7}\n\n',
    b'data: {"type":["message_stop"]}\n\n',
    b"{",
    b'{"type":"message","content":7}',
]


@pytest.mark.parametrize("frame", ODD)
def test_an_unreadable_frame_is_kept_as_other(frame: bytes) -> None:
    """The stream continues after it."""
    deltas, reply = decoded(frame, start(EMPTY_TEXT), text("Hi"))
    assert [delta.kind for delta in deltas] == ["other", "text"]
    assert "undecodable" in orjson.loads(deltas[0].text)
    assert reply.message().text == "Hi"


def test_a_lone_surrogate_is_kept() -> None:
    """Strict JSON parsers refuse it."""
    frame = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,' \
            b'"delta":{"type":"text_delta","text":"\\ud83d"}}\n\n'  # fmt: skip
    assert decoded(start(EMPTY_TEXT), text("a"), frame)[0][-1] == Delta("\ud83d")


def test_unknown_events_blocks_and_deltas_are_kept() -> None:
    """They have the kind `other`."""
    deltas, reply = decoded(
        event("mood", mood="good"),
        start({"type": "song", "key": "C"}),
        piece(type="note_delta", note="c"),
        stop(),
    )
    assert [delta.kind for delta in deltas] == ["other"] * 3
    assert reply.blocks() == [{"type": "song", "key": "C", "note": "c"}]
    assert reply.message().additional_kwargs == {"event": {"type": "mood", "mood": "good"}}


def test_a_number_in_place_of_text_becomes_text() -> None:
    """This holds for text and for tool input."""
    deltas, _ = decoded(start(EMPTY_TEXT), piece(type="text_delta", text=7))
    assert deltas == [Delta("7")]
    _, reply = decoded(start(SEARCH), piece(type="input_json_delta", partial_json=7), stop())
    assert reply.blocks() == [{**SEARCH, "partial_json": "7"}]


@unhurried
@given(
    st.lists(st.one_of(st.binary(max_size=80), st.sampled_from(ODD), st.sampled_from(BLOCKS["thinking"][0])))
)
def test_decode_accepts_any_frames_in_any_order(frames: list[bytes]) -> None:
    """No call raises, and a message can always be built."""
    deltas, reply = decoded(*frames)
    reply.message()
    rebuilt(deltas).message()
    encoded(deltas, reply)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["type", "index", "delta", "content_block", "text", "id", "name", "input", "message", "usage", "citations",
         "input_tokens", "signature", "partial_json", "thinking"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
TYPES = st.sampled_from(
    ["message", "message_start", "message_delta", "content_block_start", "content_block_delta", "content_block_stop",
     "text", "tool_use", "thinking", "text_delta", "input_json_delta", "citations_delta", "x"]
)  # fmt: skip


def _typed(value: Any, types: Any) -> Any:
    """Replace types at every depth by known ones."""
    if isinstance(value, list):
        return [_typed(each, types) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: types() if key == "type" else _typed(each, types) for key, each in value.items()} | {
        "type": types()
    }


@unhurried
@given(st.lists(JSON, max_size=6), st.data())
def test_decode_accepts_any_json(values: list[Any], data: st.DataObject) -> None:
    """Known types are in unexpected places."""
    frames = [b"data: " + orjson.dumps(_typed(value, lambda: data.draw(TYPES))) + b"\n\n" for value in values]
    deltas, reply = decoded(*frames)
    reply.message()
    rebuilt(deltas).message()
    encoded(deltas, reply)


# -- usage ---------------------------------------------------------------------------------------------------------


def test_usage_is_known_only_at_the_end() -> None:
    """The counts at the end are totals and replace those of the start."""
    frames = anthropic_messages_frames(["Hi"], prompt_tokens=9)
    translator = AnthropicMessages()
    usages = []
    for frame in frames:
        translator.decode(frame)
        usages.append(translator.reply.usage)
    assert [usage for usage in usages if usage is None] == [None] * (len(frames) - 2)
    assert translator.reply.usage == {
        "input_tokens": 9, "output_tokens": 1, "total_tokens": 10,
        "input_token_details": {"cache_read": 0, "cache_creation": 0},
    }  # fmt: skip
    assert translator.reply.raw_usage is not None
    assert translator.reply.raw_usage["service_tier"] == "standard"


def test_usage_of_the_end_is_added_to_that_of_the_start() -> None:
    """Some providers send only `output_tokens` at the end."""
    began = {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 1}
    _, reply = decoded(
        event("message_start", message={"id": "m", "usage": began}),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7}),
    )
    assert reply.usage is not None
    assert (reply.usage["input_tokens"], reply.usage["total_tokens"]) == (8, 15)


# -- memory ----------------------------------------------------------------------------------------------------------


def test_an_endless_stream_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has blocks without an end, and ever new names of counts."""
    monkeypatch.setattr("recorder.wire.reply.MAX_REPLY_BYTES", 2**20)
    translator = AnthropicMessages()
    started = event(
        "content_block_start", index=0, content_block={"type": "tool_use", "id": "x" * 1000, "name": "f"}
    )
    tracemalloc.start()
    try:
        for number in range(4_000):
            translator.decode(started.replace(b'"index":0', b'"index":%d' % number))
            translator.decode(event("message_delta", delta={}, usage={f"count_{number}": 1}))
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used_bytes < 4 * 2**20  # without the limit 7 MiB
    assert len(translator.reply.raw_usage or {}) <= 200


def test_the_reply_of_a_translator_is_a_reply() -> None:
    """It is an instance of the common class `Reply`."""
    assert isinstance(AnthropicMessages().reply, Reply)
