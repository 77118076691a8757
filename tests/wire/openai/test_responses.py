"""The translator of OpenAI's Responses: what begins, ends and describes a response."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.json import dumps, loads
from recorder.messages import AIMessageChunk, ChatGeneration, LLMResult
from recorder.recording.run_end import end_of_result
from recorder.wire.deltas import OTHER, TEXT, Delta
from recorder.wire.formats import filler_of, translator_of
from recorder.wire.openai import responses
from recorder.wire.openai.responses import WIRE, OpenAIResponses
from tests.responses import (
    USAGE,
    any_streams,
    created,
    decoded,
    done,
    ended,
    function_call,
    message,
    reply_of,
    sent,
    text,
)
from tests.streams import odd
from tests.wires import DONE, event, translated, unhurried


def test_a_stream_has_its_id_model_usage_and_end() -> None:
    """The usage is in LangChain's shape and as the provider sent it."""
    reply = reply_of(
        created(), text("Hel", "lo"), ended("completed", message("Hello"), service_tier="default")
    )
    assert (reply.text(), reply.response_id, reply.model) == ("Hello", "resp_1", "gpt-5")
    assert (reply.raw_usage, reply.usage) == (
        USAGE,
        {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    )
    assert (reply.finish_reasons, reply.terminated, reply.failure()) == ({0: "stop"}, True, None)
    assert reply.metadata == {"status": "completed", "service_tier": "default"}


def test_the_translator_is_found_by_the_name_of_the_format() -> None:
    """The chunks have the text as their content."""
    assert isinstance(translator_of("openai.responses"), OpenAIResponses)
    assert filler_of(WIRE, None).plain


TOO_LONG, FILTERED = {"reason": "max_output_tokens"}, {"reason": "content_filter"}
ENDS: dict[str, tuple[bytes, str, str]] = {
    "completed": (ended(), "stop", "complete"),
    "a call": (ended("completed", function_call("{}")), "tool_calls", "complete"),
    "too long": (ended("incomplete", incomplete_details=TOO_LONG), "max_output_tokens", "incomplete"),
    "filtered": (ended("incomplete", incomplete_details=FILTERED), "content_filter", "incomplete"),
    "steered": (ended("incomplete", incomplete_details={"reason": "steered"}), "steered", "incomplete"),
    "incomplete for no reason": (ended("incomplete"), "incomplete", "incomplete"),
    "cancelled": (ended("cancelled"), "cancelled", "interrupted"),
    "completed, but the response is incomplete": (
        sent("completed", response={"status": "incomplete", "incomplete_details": TOO_LONG}),
        "max_output_tokens",
        "incomplete",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("end", "reason", "status"), ENDS.values(), ids=ENDS)
def test_each_end_has_a_finish_reason_and_a_status(end: bytes, reason: str, status: str) -> None:
    """A limit makes the run incomplete."""
    reply = reply_of(created(), text("Hi"), end)
    assert (reply.finish_reasons, reply.terminated) == ({0: reason}, True)
    result = LLMResult([[ChatGeneration(reply.message())]])
    assert end_of_result(result).status == status


def test_a_failed_response_has_its_error() -> None:
    """The text before it stays."""
    error = {"code": "server_error", "message": "no memory"}
    reply = reply_of(created(), text("Hi"), ended("failed", error=error))
    assert (reply.text(), reply.failure(), reply.terminated) == ("Hi", error, True)
    assert reply_of(created(), ended("failed")).failure()["type"] == "failed"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (event({"type": "error", "code": "x", "message": "no memory", "sequence_number": 3}), "no memory"),
        (event({"type": "error", "error": {"type": "x", "message": "no memory"}}), "no memory"),
        (event({"type": "response.error", "message": "no memory"}), "no memory"),
        (event({"error": {"message": "no memory"}}), "no memory"),
        (b'event: error\ndata: {"code":"x","message":"no memory"}\n\n', "no memory"),
        (b'event: error\ndata: {"type":"error","error":{"message":"no memory"}}\n\n', "no memory"),
        (sent("output_text.delta", delta="a", error={"message": "no memory"}), "no memory"),
    ],
)  # fmt: skip
def test_an_error_is_found_flat_and_nested(frame: bytes, message: str) -> None:
    """An error in the stream does not end it: the SDK raises it, and whether more is read is not decided here."""
    reply = reply_of(created(), text("Hi"), frame)
    assert (reply.error["message"], reply.terminated, reply.text()[:2]) == (message, False, "Hi")


def test_an_error_that_is_only_text_is_found() -> None:
    """Servers behind proxies send such errors."""
    assert reply_of(b"event: error\ndata: gone\n\n").error == "gone"
    assert reply_of(b"error: gone\n\n").error == "gone"


def test_an_http_error_is_found() -> None:
    """It comes as one body."""
    reply = reply_of(b'{"error": {"message": "no key", "type": "invalid_request_error"}}')
    assert (reply.error["message"], reply.terminated, reply.finish_reasons) == ("no key", False, {})


def body(**fields: Any) -> bytes:
    """Return a body that is not streamed."""
    return orjson.dumps(
        {"id": "resp_1", "object": "response", "model": "gpt-5", **fields}, option=orjson.OPT_INDENT_2
    )


def test_a_body_that_is_not_streamed_is_a_complete_answer() -> None:
    """Reasoning, text and calls are found in its output."""
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    reply = reply_of(
        body(status="completed", output=[thought, message("Hello"), function_call('{"a":1}')], usage=USAGE)
    )
    assert (reply.text(), reply.text(kind="reasoning"), reply.terminated) == ("Hello", "Hm.", True)
    assert reply.tool_calls() == [{"id": "call_0", "name": "find", "arguments": '{"a":1}'}]
    assert (reply.finish_reasons, reply.raw_usage) == ({0: "tool_calls"}, USAGE)


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_background_answer_has_not_ended(status: str) -> None:
    """It has an id, by which the client asks again, and perhaps a part of the output."""
    reply = reply_of(body(status=status, background=True, output=[message("Hel")]))
    assert (reply.response_id, reply.terminated, reply.finish_reasons) == ("resp_1", False, {})
    assert (reply.has_ended, reply.metadata, reply.text()) == (
        False,
        {"status": status, "background": True},
        "Hel",
    )


def test_a_failed_body_has_its_error() -> None:
    """Its status is 200, as for every response that was made."""
    reply = reply_of(body(status="failed", error={"code": "server_error", "message": "no memory"}, output=[]))
    assert (reply.failure()["message"], reply.terminated, reply.finish_reasons) == (
        "no memory",
        True,
        {0: "failed"},
    )


def test_a_background_stream_begins_queued() -> None:
    """`response.queued` is no end."""
    queued = sent("queued", response={"id": "resp_1", "status": "queued"})
    reply = reply_of(created(), queued)
    assert (reply.metadata["status"], reply.terminated) == ("queued", False)


def test_an_event_of_a_web_socket_is_decoded() -> None:
    """It has no `data:`."""
    translator = OpenAIResponses()
    deltas = translator.decode(
        b'{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hi"}'
    )
    assert (list(deltas), translator.reply.terminated) == ([Delta("Hi")], False)


@pytest.mark.parametrize(
    "end", [DONE, b"event: done\ndata: {}\n\n", event({"type": "message_stop"}), b"data: DONE\n\n"]
)
def test_the_terminator_of_another_format_ends_the_stream(end: bytes) -> None:
    """Some proxies add `[DONE]`."""
    reply = reply_of(created(), text("Hi"), end)
    assert (reply.text(), reply.terminated, reply.finish_reasons) == ("Hi", True, {})
    assert reply_of(created(), ended(), end).finish_reasons == {0: "stop"}


def test_an_event_may_have_its_type_only_as_its_name() -> None:
    """Proxies send that, and the response itself as the data of its events."""
    piece = b'event: response.output_text.delta\ndata: {"output_index":0,"content_index":0,"delta":"Hi"}\n\n'
    start = (
        b"event: response.created\ndata: "
        + body(status="in_progress", output=[]).replace(b"\n", b"")
        + b"\n\n"
    )
    last = (
        b"event: response.completed\ndata: "
        + body(status="completed", output=[]).replace(b"\n", b"")
        + b"\n\n"
    )
    reply = reply_of(start, piece, last)
    assert (reply.text(), reply.response_id, reply.terminated, reply.finish_reasons) == (
        "Hi",
        "resp_1",
        True,
        {0: "stop"},
    )


def test_nothing_after_the_end_counts() -> None:
    """The response is complete."""
    assert decoded(created(), ended(), text("more"))[0] == []


def test_text_takes_the_fast_path_after_the_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most events hold a piece of the same text and nothing else."""
    slow: list[bytes] = []
    decode = OpenAIResponses._decode

    def watched(self: OpenAIResponses, frame: bytes, parsed: Any) -> Any:
        slow.append(frame)
        return decode(self, frame, parsed)

    monkeypatch.setattr(OpenAIResponses, "_decode", watched)
    deltas, reply = decoded(text("a", "b", "c"), text("d", content=1), text("e", content=1), ended())
    assert ([delta.text for delta in deltas], reply.text()) == ([*"abcde"], "abcde")
    assert len(slow) == 3


def test_an_event_of_a_later_api_is_kept() -> None:
    """What has content becomes a delta of kind other; what only reports progress does not."""
    progress = sent("web_search_call.searching", output_index=0, item_id="a", sequence_number=1)
    audio = sent("audio.delta", delta="QQ==", sequence_number=2)
    deltas, reply = decoded(created(), progress, audio, audio, sent("audio.done", data="QQ=="), ended())
    piece = {"type": "response.audio.delta", "delta": "QQ=="}
    assert deltas == [Delta(dumps({"events": [piece]}), OTHER)] * 2
    assert reply.message().additional_kwargs == {"events": [piece, piece]}
    alone = decoded(sent("audio.done", data="QQ=="))[0]
    assert alone == [Delta(dumps({"events": [{"type": "response.audio.done", "data": "QQ=="}]}), OTHER)]


def test_a_partial_image_is_kept() -> None:
    """The complete image is in the item."""
    partial = sent("image_generation_call.partial_image", output_index=0, item_id="a", partial_image_b64="QQ==",
                   partial_image_index=0)  # fmt: skip
    item = {"type": "image_generation_call", "id": "a", "status": "completed", "result": "QUE="}
    more = reply_of(created(), partial, done(item), ended("completed", item)).message().additional_kwargs
    assert [each["partial_image_b64"] for each in more["events"]] == ["QQ=="]
    assert more["output"] == [{**item, "index": 0}]


def test_bad_json_becomes_a_delta() -> None:
    """The recording goes on."""
    deltas, reply = decoded(created(), b"data: {oops\n\n", text("Hi"), ended())
    assert deltas == [Delta('{"undecodable":"{oops"}', OTHER), Delta("Hi")]
    assert reply.terminated
    assert decoded(b"data: [1, 2]\n\n")[0][0].kind == OTHER
    assert decoded(event({"choices": [{"delta": {"content": "Hi"}}]}))[0][0].kind == OTHER


def test_the_end_counts_even_if_its_output_cannot_be_read() -> None:
    """The response has ended whatever it holds."""
    broken = sent("completed", response={"id": "resp_1", "output": [{"type": "message", "content": 5}]})
    reply = reply_of(created(), text("Hi"), broken)
    assert (reply.text(), reply.terminated, reply.finish_reasons) == ("Hi", True, {0: "stop"})


@unhurried
@given(any_streams)
def test_no_stream_raises_and_the_chunks_add_up_to_the_message(frames: list[bytes]) -> None:
    """Values of any type may stand at any place."""
    translator, chunks = OpenAIResponses(), [AIMessageChunk("")]
    for frame in frames:
        chunk = AIMessageChunk("")
        if filler_of(WIRE, None).fill(chunk, translator.decode(frame)):
            chunks.append(chunk)
    total = (chunks[0] + chunks[1:] if len(chunks) > 1 else chunks[0]).to_message()
    found = translator.reply.message()
    assert total.content == found.content
    assert total.additional_kwargs == found.additional_kwargs
    assert total.tool_calls == found.tool_calls
    assert total.invalid_tool_calls == found.invalid_tool_calls


_KINDS = st.one_of(odd, st.sampled_from((*responses._OUTPUT_EVENTS, "response.created")))
_FIELDS = st.dictionaries(st.sampled_from(("response", "item", "part", "delta", "error")), odd)


@unhurried
@given(st.lists(st.builds(lambda kind, more: event({"type": kind, **more}), _KINDS, _FIELDS)))
def test_events_of_any_shape_do_not_raise(frames: list[bytes]) -> None:
    """Neither does their type have to be a text."""
    deltas, _ = translated(frames, OpenAIResponses)
    assert all(loads(delta.text) is not None for delta in deltas if delta.kind == OTHER)
    assert all(delta.text for delta in deltas if delta.kind == TEXT)
