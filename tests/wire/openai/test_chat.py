"""OpenAI chat completions become deltas: as the official SDK reads them, and in all dialects of other providers."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState

from recorder.core.json import loads
from recorder.testing import openai_chat_body, openai_chat_frames
from recorder.wire import repeated_answer, reply, sse
from recorder.wire import tool_calls as wire_calls
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.openai import events as openai_events
from recorder.wire.openai.chat import OpenAIChat
from recorder.wire.reply import Reply
from tests.alike import assert_alike, forms_of
from tests.alike import openai as chat
from tests.by_the_sdk import BySdk, reading
from tests.chatting import CALL_STYLES, CallStyle, name_of
from tests.genuine import Stream, chat_streams
from tests.wires import (
    DONE,
    at_random,
    by_one,
    calls,
    choice_fields,
    crlf,
    delta,
    event,
    frames_of,
    genuine,
    reply_fields,
    reply_of,
    translated,
    unhurried,
)

# -- compared with the SDK -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_the_sdk() -> Iterator[BySdk]:
    """Yield a reader of bodies that uses the official client over a real socket."""

    def request(client: openai.OpenAI, stream: bool) -> Any:
        return client.chat.completions.create(model="m", messages=[], stream=stream)

    with reading(
        request, lambda answer, stream: _accumulated(answer) if stream else _reply(answer, answer.usage)
    ) as read:
        yield read


def _accumulated(stream: Iterable[Any]) -> dict[str, Any]:
    """Return the result of the SDK's own accumulator, and the error that ended the chunks."""
    state, usage, error = ChatCompletionStreamState(), None, None
    try:
        for chunk in stream:
            _without_annotations(chunk)
            state.handle_chunk(chunk)
            in_groq = (chunk.model_extra or {}).get("x_groq") or {}
            usage = chunk.usage or in_groq.get("usage") or usage
    except openai.APIError as failure:
        error = failure.body
    return {**_reply(state.current_completion_snapshot, usage), "error": error}


def _without_annotations(chunk: Any) -> None:
    # The accumulator raises an error for annotations without an index.
    for choice in chunk.choices:
        (choice.delta.model_extra or {}).pop("annotations", None)


def _reply(answer: Any, usage: Any) -> dict[str, Any]:
    choices = sorted(answer.choices, key=lambda choice: choice.index)
    return {
        "id": answer.id,
        "model": answer.model,
        "usage": usage.to_dict() if hasattr(usage, "to_dict") else usage,
        "choices": [_choice(choice) for choice in choices],
        "error": None,
    }


def _choice(choice: Any) -> dict[str, Any]:
    message, more = choice.message, choice.message.model_extra or {}
    calls = message.tool_calls or ()
    function = message.function_call
    found = {
        "text": message.content,
        "reasoning": more.get("reasoning_content") or more.get("reasoning"),
        "refusal": message.refusal,
        "calls": [(call.id, call.function.name, call.function.arguments) for call in calls],
        "finish_reason": choice.finish_reason,
        "logprobs": _logprobs(choice.logprobs),
        "function_call": function and function.to_dict(),
    }
    return {key: value for key, value in found.items() if value}


def _logprobs(found: Any) -> dict[str, Any]:
    lists = found.to_dict() if found else {}
    return {key: value for key, value in lists.items() if value}


def _ours(frames: Iterable[bytes]) -> dict[str, Any]:
    """Return the same fields of our reply, up to an error."""
    translator = OpenAIChat()
    reply = translator.reply
    for frame in frames:
        translator.decode(frame)
        if reply.error is not None:
            break
    return {
        "id": reply.response_id,
        "model": reply.model,
        "usage": reply.raw_usage,
        "choices": [_our_choice(reply, number) for number in reply.choices],
        "error": reply.error,
    }


def _our_choice(reply: Reply, number: int) -> dict[str, Any]:
    metadata, more = reply.response_metadata(number), reply.message(number).additional_kwargs
    found = {"logprobs": metadata.get("logprobs"), "function_call": more.get("function_call")}
    return choice_fields(reply, number) | {key: value for key, value in found.items() if value}


@genuine
def test_genuine_streams_give_the_sdks_result(stream: Stream, by_the_sdk: BySdk) -> None:
    """Choices, ids, model, usage, and an error with everything before it are the same."""
    theirs = by_the_sdk(stream.body)
    ours = _ours(frames_of([stream.body]))
    if theirs["error"] is not None:
        # The event of the error may contain more fields, which the SDK does not return.
        theirs["usage"] = ours["usage"]
        for choice, other in zip(ours["choices"], theirs["choices"], strict=True):
            choice["finish_reason"] = other.get("finish_reason")
    assert _without_none(ours) == _without_none(theirs)


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    choices = [{k: v for k, v in choice.items() if v is not None} for choice in found["choices"]]
    return {**found, "choices": choices}


@pytest.mark.matrix
@genuine
def test_genuine_streams_give_the_same_deltas_in_any_pieces(stream: Stream) -> None:
    """The body comes byte by byte or in random pieces, with LF and CRLF."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    deltas, expected = translated(frames_of([stream.body]))
    body = crlf(stream.body)
    for pieces in (
        by_one(stream.body),
        at_random(stream.body, chance),
        by_one(body),
        at_random(body, chance),
    ):
        found, reply = translated(frames_of(pieces))
        assert found == deltas
        assert reply_fields(reply) == reply_fields(expected)


CALLS: list[dict[str, Any]] = [
    {"id": "call_1", "name": "weather", "arguments": ['{"city": ', '"München', '"}']},
    {"id": "call_2", "name": "time", "arguments": ""},
]
FINISH = delta(finish_reason="stop")
_LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}

#: Streams that the SDK's accumulator accepts.
_ACCEPTED: dict[str, list[bytes]] = {
    "text": openai_chat_frames(["Hello", " wörld", " 🎈"]),
    "three choices by turns": openai_chat_frames([["a", "b"], ["c"], ["d", "e", "f"]], n=3),
    "reasoning": openai_chat_frames(["4"], reasoning=["2", "+2"]),
    "calls": openai_chat_frames([], tool_calls=CALLS),
    "calls of two choices": openai_chat_frames(["x"], tool_calls=CALLS, n=2),
    "no usage": openai_chat_frames(["x"], usage=False),
    "a length limit": openai_chat_frames(["x"], finish_reason="length"),
    "a refusal": [delta(role="assistant", refusal="I can"), delta(refusal="'t"), FINISH, DONE],
    "a name in pieces": [
        calls({"index": 0, "id": "a", "type": "function", "name": "get_", "arguments": ""}),
        calls({"index": 0, "name": "weather", "arguments": "{}"}),
        FINISH,
        DONE,
    ],
    "a legacy function call": [
        delta(role="assistant", content=None, function_call={"name": "look", "arguments": ""}),
        delta(function_call={"arguments": '{"x"'}),
        delta(function_call={"arguments": ": 1}"}),
        delta(finish_reason="function_call"),
        DONE,
    ],
    "log probabilities": [
        event(
            {
                "id": "1",
                "model": "m",
                "choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": found}],
            }
        )
        for found in ({"content": [_LOGPROB], "refusal": None}, {"content": [_LOGPROB, _LOGPROB]}, None)
    ],
    "nothing after the end": [delta(content="a"), FINISH, DONE, delta(content="b"), DONE],
    "no end": [delta(content="a"), delta(content="b")],
    "half of a character": [
        delta(content="a"),
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83c"}}]}\n\n',
    ],
    "lines of JSON": [b'data: {"id": "1", "model": "m",\ndata: "choices": []}\n\n', delta(content="a"), DONE],
    "comments and pings": [b": ping\n\n", delta(content="a"), b"\n\n", b": ping\n\n", DONE],
    "no spaces": [delta(content="a").replace(b"data: ", b"data:"), b"data:[DONE]\n\n"],
}


@pytest.mark.parametrize("frames", _ACCEPTED.values(), ids=_ACCEPTED)
def test_made_streams_give_the_sdks_result(frames: list[bytes], by_the_sdk: BySdk) -> None:
    """These streams have forms that the genuine ones lack."""
    assert _ours(frames) == by_the_sdk(b"".join(frames))


_BODIES = {
    "text": openai_chat_body(["Hello", " wörld"]),
    "choices": openai_chat_body([["a"], ["b", "c"]], n=2),
    "calls": openai_chat_body([], tool_calls=CALLS),
    "reasoning": openai_chat_body(["4"], reasoning=["2+2"]),
    "refusal": orjson.dumps(
        {"id": "1", "model": "m", "choices": [{"index": 0, "message": {"content": None, "refusal": "No."}}]}
    ),
}


@pytest.mark.parametrize("body", _BODIES.values(), ids=_BODIES)
def test_complete_responses_give_the_sdks_result(body: bytes, by_the_sdk: BySdk) -> None:
    """A response without a stream is one frame, also after blank lines or a byte order mark."""
    expected = by_the_sdk(body, stream=False)
    for frame in (body, b"\n   \r\n" + body, b"\xef\xbb\xbf" + body):
        assert _ours([frame]) == expected
        assert reply_of(frame).terminated


_ERRORS: dict[str, Any] = {
    "object": {"message": "Overloaded", "code": 502},
    "no message": {"message": None, "type": "server_error"},
    "text": "it broke",
    "number": 7,
    "list": ["it", "broke"],
    "message of another kind": {"message": {"why": "?"}},
}


@pytest.mark.parametrize("name", ["", "event: error\n"], ids=["unnamed", "named"])
@pytest.mark.parametrize("error", _ERRORS.values(), ids=_ERRORS)
def test_error_events_give_the_sdks_error(error: Any, name: str, by_the_sdk: BySdk) -> None:
    """This holds for every form of an error, and the reply has everything before it."""
    frames = [delta(content="Hel"), name.encode() + event({"error": error}), delta(content="lo")]
    ours = _ours(frames)
    assert ours == by_the_sdk(b"".join(frames))
    assert (ours["error"], ours["choices"]) == (error, [{"text": "Hel"}])


@pytest.mark.parametrize("nothing", [None, {}, "", [], False, 0], ids=repr)
def test_an_empty_error_is_no_error(nothing: Any, by_the_sdk: BySdk) -> None:
    """Some providers send the key with each event."""
    choice = {"index": 0, "delta": {"content": "a"}}
    frames = [event({"id": "1", "model": "m", "choices": [choice], "error": nothing}), DONE]
    assert _ours(frames) == by_the_sdk(b"".join(frames))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"message": "slow down"}', {"message": "slow down"}),
        (b"Bad Gateway", "Bad Gateway"),
        (b"[1]", [1]),
        (b"null", "null"),
    ],
    ids=["object", "text", "list", "null"],
)
def test_an_event_named_error_is_an_error(data: bytes, error: Any) -> None:
    """The SDK checks the key `error` only, and cannot read such an event."""
    found = reply_of(delta(content="a"), b"event: error\ndata: " + data + b"\n\n")
    assert (found.error, found.text()) == (error, "a")


# -- dialects ------------------------------------------------------------------------------------------------

_THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"type": "text", "text": "m"}]}
_IMAGE = {"type": "image_url", "image_url": "https://example.org/x.png"}
_SIGNED = {"type": "reasoning.text", "signature": "c2ln", "index": 0}

#: Frames, the fields of the choice, and its `additional_kwargs` without reasoning and refusal.
_DIALECTS: dict[str, tuple[list[bytes], dict[str, Any], dict[str, Any]]] = {
    "DeepSeek: reasoning_content": (
        [
            delta(content=None, reasoning_content="Hm"),
            delta(reasoning_content="m", content=""),
            delta(content="4"),
        ],
        {"reasoning": "Hmm", "text": "4"},
        {},
    ),
    "vLLM: both words for reasoning": (
        [delta(reasoning="Hm", reasoning_content="Hm"), delta(reasoning_content="m", reasoning="m")],
        {"reasoning": "Hmm"},
        {},
    ),
    "Databricks: reasoning in blocks": (
        [delta(content=[{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}])],
        {"reasoning": "Hm"},
        {},
    ),
    "reasoning under other names": (
        [
            delta(thinking="a"),
            delta(thought="b"),
            delta(reasoning_text="c", thoughts="c"),
            delta(thought={"d": 1}),
        ],
        {"reasoning": "abc"},
        {"thought": {"d": 1}},
    ),
    "OpenRouter: reasoning repeated in details": (
        [
            delta(content="", reasoning="Hm", reasoning_details=[{"type": "reasoning.text", "text": "Hm"}]),
            delta(content="", reasoning=None, reasoning_details=[_SIGNED]),
        ],
        {"reasoning": "Hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}, _SIGNED]},
    ),
    "OpenRouter: pieces of one part": (
        [
            delta(reasoning="H", reasoning_details=[{"type": "reasoning.text", "text": "H", "index": 0}]),
            delta(reasoning="m", reasoning_details=[{"type": "reasoning.text", "text": "m", "index": 0}]),
            delta(reasoning_details=[_SIGNED]),
        ],
        {"reasoning": "Hm"},
        {"reasoning_details": [{**_SIGNED, "text": "Hm", "type": "reasoning.text"}]},
    ),
    "reasoning in details alone": (
        [delta(reasoning_details=[{"text": "Hm"}]), delta(reasoning_details=[{"text": "m"}])],
        {"reasoning": "Hmm"},
        {"reasoning_details": [{"text": "Hm"}, {"text": "m"}]},
    ),
    "Mistral: content in blocks": (
        [
            delta(content=[_THINKING]),
            delta(content=[{"type": "thinking", "thinking": "!"}]),
            delta(content=[{"type": "text", "text": "4"}, {"type": "text", "text": ""}, "."]),
            delta(content={"type": "text", "text": "!"}),
            delta(content=[_IMAGE]),
        ],
        {"reasoning": "Hmm!", "text": "4.!"},
        {"content": [_IMAGE]},
    ),
    "Mistral: thinking that is no text": (
        [delta(content=[{"type": "thinking", "thinking": [{"type": "reference", "ids": [1]}]}])],
        {},
        {"content": [{"type": "thinking", "thinking": [{"type": "reference", "ids": [1]}]}]},
    ),
    "Groq: the channel of each piece": (
        [
            delta(channel="analysis", reasoning="a"),
            delta(channel="analysis", reasoning="b"),
            delta(channel="final"),
        ],
        {"reasoning": "ab"},
        {"channel": "final"},
    ),
    "Perplexity: the message so far beside each delta": (
        [
            event(
                {"choices": [{"index": 0, "message": {"content": text}, "delta": piece}], "citations": ["x"]}
            )
            for text, piece in (("Hel", {"content": "Hel"}), ("Hello", {"content": "lo"}), ("Hello", {}))
        ],
        {"text": "Hello"},
        {"citations": ["x"]},
    ),
    "a whole message in an event": (
        [event({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]}), DONE],
        {"text": "Hello"},
        {},
    ),
    "OpenAI: sound": (
        [
            delta(audio={"id": "audio_1", "transcript": "Hel"}),
            delta(audio={"data": "AAA", "transcript": "lo"}),
            delta(audio={"data": "BBB"}),
            delta(audio={"expires_at": 1_700_000_000}),
        ],
        {},
        {"audio": {"id": "audio_1", "transcript": "Hello", "data": "AAABBB", "expires_at": 1_700_000_000}},
    ),
    "citations": (
        [
            delta(annotations=[{"type": "url_citation", "n": 1}]),
            delta(annotations={"type": "url_citation", "n": 2}),
        ],
        {},
        {"annotations": [{"type": "url_citation", "n": 1}, {"type": "url_citation", "n": 2}]},
    ),
    "a refusal that is no text": (
        [delta(refusal={"why": "no"}), delta(refusal=" - no")],
        {"refusal": '{"why":"no"} - no'},
        {"refusal": '{"why":"no"} - no'},
    ),
    "a refusal in blocks": (
        [delta(refusal=[{"type": "refusal", "refusal": "I "}, "can"]), delta(refusal=[{"text": "not."}])],
        {"refusal": "I cannot."},
        {"refusal": "I cannot."},
    ),
    "unknown keys": (
        [delta(mood="happy", tags=["a"]), delta(mood="happy", tags=["b"]), delta(mood="sad", seed=7)],
        {},
        {"mood": "sad", "tags": ["a", "b"], "seed": 7},
    ),
}


@pytest.mark.parametrize(("frames", "expected", "more"), _DIALECTS.values(), ids=_DIALECTS)
def test_dialects_of_the_chat_format_are_read(
    frames: list[bytes], expected: dict[str, Any], more: dict[str, Any]
) -> None:
    """Providers put text, reasoning and other content into different fields."""
    reply = reply_of(*frames)
    assert choice_fields(reply) == expected
    found = reply.message().additional_kwargs
    assert {key: value for key, value in found.items() if key != "reasoning_content"} == more


def test_azures_content_filters_are_metadata() -> None:
    """Those of the prompt come first, and those of the deltas are added up."""
    prompt = [{"prompt_index": 0, "content_filter_results": {"jailbreak": {"detected": False}}}]
    hate, violence = {"hate": {"filtered": False}}, {"violence": {"filtered": True}}
    pieces = [({"content": "a"}, hate), ({"content": "b"}, hate | violence), ({}, {})]
    frames = [event({"id": "", "model": "", "choices": [], "prompt_filter_results": prompt})]
    for fields, found in pieces:
        frames.append(
            event({"id": "1", "choices": [{"index": 0, "delta": fields, "content_filter_results": found}]})
        )
    deltas, reply = translated(frames)
    assert deltas == [Delta("a"), Delta("b")]
    metadata = reply.response_metadata()
    assert metadata["prompt_filter_results"] == prompt
    assert metadata["content_filter_results"] == hate | violence


def test_azures_content_filters_may_come_without_a_delta() -> None:
    """Asynchronous filters send their results in events of their own."""
    found = {"protected_material_text": {"filtered": False, "detected": False}}
    choice = {
        "index": 0,
        "finish_reason": None,
        "content_filter_results": found,
        "content_filter_offsets": {"start_offset": 0},
    }
    reply = reply_of(
        delta(content="a"), event({"id": "", "model": "", "choices": [choice]}), delta(content="b"), DONE
    )
    assert reply.text() == "ab"
    assert reply.response_metadata()["content_filter_results"] == found


#: Pieces of calls, and the resulting calls: (id, name, arguments).
_CALLS: dict[str, tuple[list[bytes], list[tuple[Any, Any, str]]]] = {
    "id and name repeated in each chunk": (
        [calls({"index": 0, "id": "a", "name": "f", "arguments": piece}) for piece in ("{", "}")],
        [("a", "f", "{}")],
    ),
    "empty id and name in the later chunks": (
        [
            calls({"index": 0, "id": "a", "name": "f", "arguments": "{"}),
            calls({"index": 0, "id": "", "name": "", "arguments": "}"}),
            calls({"index": 0, "id": None, "name": None, "arguments": None}),
        ],
        [("a", "f", "{}")],
    ),
    "vLLM: another id in each chunk": (
        [
            calls({"index": 0, "id": "a", "name": "f", "arguments": ""}),
            calls({"index": 0, "id": "b", "arguments": "{"}),
            calls({"index": 0, "id": "c", "arguments": "}"}),
        ],
        [("a", "f", "{}")],
    ),
    "Gemini: index 0 for every call": (
        [
            calls({"index": 0, "id": "a", "name": "f", "arguments": "{}"}),
            calls({"index": 0, "id": "b", "name": "f", "arguments": '{"x"'}),
            calls({"index": 0, "arguments": ": 1}"}),
        ],
        [("a", "f", "{}"), ("b", "f", '{"x": 1}')],
    ),
    "an index that another call has already": (
        [
            calls({"index": 0, "id": "a", "name": "f"}),
            calls({"index": 0, "id": "b", "name": "f"}),
            calls({"index": 1, "id": "c", "name": "f", "arguments": "{}"}),
        ],
        [("a", "f", ""), ("b", "f", ""), ("c", "f", "{}")],
    ),
    "no index: by ids": (
        [
            calls({"id": "a", "name": "f", "arguments": "{"}),
            calls({"arguments": "}"}),
            calls({"id": "b", "name": "f", "arguments": "[1"}, {"id": "c", "name": "g"}),
            calls({"id": "b", "name": "f", "arguments": "]"}),
        ],
        [("a", "f", "{}"), ("b", "f", "[1]"), ("c", "g", "")],
    ),
    "no index, no id: by names": (
        [calls({"name": "f", "arguments": "{"}, {"name": "g"}), calls({"name": "f", "arguments": "}"})],
        [(None, "f", "{}"), (None, "g", "")],
    ),
    "no index, no id, no name": (
        [calls({"arguments": "{"}), calls({"arguments": "}"})],
        [(None, None, "{}")],
    ),
    "index null": ([calls({"index": None, "id": "a", "name": "f", "arguments": "{}"})], [("a", "f", "{}")]),
    "gaps between the indexes": (
        [
            calls({"index": 3, "id": "d", "name": "f", "arguments": "{"}),
            calls({"index": 7, "id": "h", "name": "g"}),
            calls({"index": 3, "arguments": "}"}),
        ],
        [("d", "f", "{}"), ("h", "g", "")],
    ),
    "a negative index": ([calls({"index": -1, "id": "a", "name": "f"})], [("a", "f", "")]),
    "arguments before the name": (
        [calls({"index": 0, "arguments": "{}"}), calls({"index": 0, "id": "a", "name": "f"})],
        [("a", "f", "{}")],
    ),
    "arguments as an object": (
        [calls({"index": 0, "id": "a", "name": "f", "arguments": {"x": [1]}})],
        [("a", "f", '{"x":[1]}')],
    ),
    "an id and a name that are no text": (
        [calls({"index": 0, "id": 7, "name": 8}), calls({"index": 0, "id": {"a": 1}})],
        [("7", "8", "")],
    ),
    "one call that is not in a list": (
        [delta(tool_calls={"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}})],
        [("a", "f", "{}")],
    ),
    "a custom tool": (
        [
            delta(
                tool_calls=[{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": ""}}]
            ),
            delta(tool_calls=[{"index": 0, "custom": {"input": "ls"}}]),
        ],
        [("a", "sh", "ls")],
    ),
    "no function": ([delta(tool_calls=[{"index": 0, "id": "a", "type": "function"}])], [("a", None, "")]),
}


@pytest.mark.parametrize(("frames", "expected"), _CALLS.values(), ids=_CALLS)
def test_pieces_of_tool_calls_are_assigned_to_their_calls(
    frames: list[bytes], expected: list[tuple[Any, Any, str]]
) -> None:
    """Providers mark the call of a piece by index, id or name."""
    assert choice_fields(reply_of(*frames)).get("calls", []) == expected


def test_tool_calls_of_two_choices_are_separate() -> None:
    """Both have the same index, and later pieces have no id."""
    frames = [
        calls({"index": 0, "id": name, "name": name, "arguments": "{"}, index=choice)
        for choice, name in enumerate("ab")
    ]
    frames += [calls({"index": 0, "arguments": "}"}, index=choice) for choice in (1, 0)]
    reply = reply_of(*frames)
    assert [choice_fields(reply, choice)["calls"] for choice in (0, 1)] == [
        [("a", "a", "{}")],
        [("b", "b", "{}")],
    ]


def test_a_call_is_opened_once() -> None:
    """Its id and name are one delta before its arguments, although each piece repeats them."""
    frames = [calls({"index": 2, "id": "a", "name": "f", "arguments": piece}) for piece in "{}"]
    deltas, _ = translated(frames)
    assert deltas == [
        Delta('{"id":"a","name":"f"}', TOOL_CALL, "0.2"),
        Delta("{", TOOL_ARGS, "0.2"),
        Delta("}", TOOL_ARGS, "0.2"),
    ]


# -- usage and metadata --------------------------------------------------------------------------------------

_USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
_WHERE_USAGE_IS: dict[str, dict[str, Any]] = {
    "after the choices": {"choices": [], "usage": _USAGE},
    "without choices": {"usage": _USAGE},
    "choices null": {"choices": None, "usage": _USAGE},
    "Groq": {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": _USAGE}},
    "Moonshot": {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": _USAGE}]},
}


@pytest.mark.parametrize("found", _WHERE_USAGE_IS.values(), ids=_WHERE_USAGE_IS)
def test_usage_is_found_in_every_known_place(found: dict[str, Any]) -> None:
    """It makes no delta."""
    deltas, reply = translated([event(found)])
    assert (deltas, reply.raw_usage) == ([], _USAGE)
    assert reply.usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert reply.message().usage_metadata == reply.usage


@pytest.mark.parametrize("usage", [None, {}, True, 5, "much", [1]], ids=repr)
def test_invalid_usage_is_ignored(usage: Any) -> None:
    """The text in the same event is read."""
    choice = {"index": 0, "delta": {"content": "a"}}
    for found in ({"usage": usage}, {"x_groq": usage}, {"x_groq": {"usage": usage}}):
        deltas, reply = translated([event({"choices": [choice], **found})])
        assert (deltas, reply.usage, reply.raw_usage) == ([Delta("a")], None, None)


def test_the_last_usage_is_used() -> None:
    """Some providers send the usage so far with each event."""
    sums = [{"prompt_tokens": 3, "completion_tokens": number} for number in (1, 2, 3)]
    choices = [{"index": 0, "delta": {"content": "a"}}]
    reply = reply_of(*(event({"choices": choices, "usage": found}) for found in sums))
    assert (reply.text(), reply.raw_usage) == ("aaa", sums[-1])


def test_metadata_of_the_response_are_collected() -> None:
    """The first id and model are used, and other known fields are in the metadata."""
    first: dict[str, Any] = {"id": "", "model": None, "system_fingerprint": None, "choices": []}
    second = {"id": "1", "model": "m", "system_fingerprint": "fp", "service_tier": "flex", "choices": []}
    third = {"id": "2", "model": "n", "provider": "p", "choices": [{"index": 0, "finish_reason": "stop"}]}
    reply = reply_of(event(first), event(second), event(third))
    assert (reply.response_id, reply.model) == ("1", "m")
    assert reply.metadata == {"system_fingerprint": "fp", "service_tier": "flex", "provider": "p"}
    assert reply.message().response_metadata == {"finish_reason": "stop", "model_name": "m", **reply.metadata}


def test_an_id_or_model_that_is_not_text_is_ignored() -> None:
    """The database and LangChain need text."""
    reply = reply_of(event({"id": 7, "model": ["m"], "choices": []}))
    assert (reply.response_id, reply.model) == (None, None)


def test_unknown_lists_beside_the_choices_are_kept_when_they_change() -> None:
    """Plain values under unknown keys are dropped."""
    frames = [event({"choices": [], "search": [1], "took_ms": number}) for number in range(3)]
    deltas, _ = translated([*frames, event({"choices": [], "search": [2]})])
    assert deltas == [Delta('{"search":[1]}', OTHER), Delta('{"search":[2]}', OTHER)]


# -- kind and idx --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (delta(content="a"), [Delta("a", TEXT, "0")]),
        (delta(content="a", index=2), [Delta("a", TEXT, "2")]),
        (delta(reasoning="a", index=1), [Delta("a", REASONING, "1")]),
        (delta(refusal="a", content="b"), [Delta("a", REFUSAL, "0"), Delta("b", TEXT, "0")]),
        (delta(annotations=[{"n": 1}]), [Delta('{"n":1}', CITATION, "0")]),
        (delta(mood="ä", index=1), [Delta('{"mood":"ä"}', OTHER, "1")]),
        (delta(role="assistant", content=""), []),
        (delta(role="assistant", content=None, refusal=None, tool_calls=None), []),
        (delta(finish_reason="stop"), []),
        (event({"choices": [{"delta": {"content": "a"}}]}), [Delta("a", TEXT, "0")]),
        (event({"choices": [{"index": None, "delta": {"content": "a"}}]}), [Delta("a", TEXT, "0")]),
        (event({"choices": [{"index": "1", "delta": {"content": "a"}}]}), [Delta("a", TEXT, "1")]),
        (event({"choices": [{"index": 0, "delta": None}]}), []),
        (event({"choices": [{"index": 0}]}), []),
        (event({}), []),
        (b"data: \n\n", []),
        (b"data:    \n\n", []),
        (b": ping\n\n", []),
        (b"event: ping\n\n", []),
        (b"\n", []),
        (b"", []),
        (b"\xef\xbb\xbf" + delta(content="a"), [Delta("a")]),
        (b"id: 7\nevent: message\n" + delta(content="a"), [Delta("a")]),
        (delta(content="a\x00b"), [Delta("a\x00b")]),
        (b'data: {"choices":[{"delta":{"content":"\\ud83c"}}]}\n\n', [Delta("\ud83c")]),
        (b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', [Delta("\ufffd")]),
        (b'data: {"choices":[{"delta":{"content":"a"}}],"took":NaN}\n\n', [Delta("a")]),
        (b"data: nonsense\n\n", [Delta('{"undecodable":"nonsense"}', OTHER)]),
        (b'data: {"choices": [{"del\n\n', [Delta('{"undecodable":"{\\"choices\\": [{\\"del"}', OTHER)]),
        (b"data: 7\n\n", [Delta('{"undecodable":"7"}', OTHER)]),
        (b'{"choices": [{"mess', [Delta('{"undecodable":"{\\"choices\\": [{\\"mess"}', OTHER)]),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, bytes) else "",
)
def test_a_frame_gives_its_deltas(frame: bytes, expected: list[Delta]) -> None:
    """A frame without content gives none, and an unreadable one gives a delta of kind `other`."""
    deltas, _ = translated([frame])
    assert deltas == expected


def test_an_unreadable_frame_does_not_affect_others() -> None:
    """The stream continues after it."""
    reply = reply_of(delta(content="a"), b"data: {]\n\n", event([1]), delta(content="b"), DONE)
    assert (reply.text(), reply.terminated) == ("ab", True)


def test_deeply_nested_json_is_kept() -> None:
    """Where Python cannot parse it, its text is kept."""
    for depth in (100, 500, 100_000):
        nested = b"[" * depth + b"]" * depth
        deltas, _ = translated([b'data: {"choices":[{"delta":{"deep":' + nested + b"}}]}\n\n"])
        assert [delta.kind for delta in deltas] == [OTHER]
        assert nested.decode()[:60_000] in deltas[0].text


def test_a_long_unreadable_frame_is_kept_in_part() -> None:
    """The delta has its beginning, and the stored frame has all of it."""
    deltas, _ = translated([b"data: " + "ä".encode() * 100_000 + b"\n\n"])
    assert 60_000 < len(deltas[0].text.encode()) < 70_000


@pytest.mark.parametrize(
    "end", [DONE, b"data:[DONE]\r\n\r\n", b"event: done\ndata: [DONE]\n\n", b"data: [DONE]"]
)
def test_text_and_errors_after_the_terminator_are_ignored(end: bytes) -> None:
    """The SDKs stop reading there."""
    reply = reply_of(
        delta(content="a"), end, delta(content="b"), event({"error": "late"}), delta(role="x"), end
    )
    assert (reply.text(), reply.error, reply.terminated) == ("a", None, True)


def test_a_finish_reason_is_not_the_terminator() -> None:
    """The usage follows it, and a stream without `[DONE]` may be cut off."""
    assert not reply_of(delta(content="a"), delta(finish_reason="stop")).terminated
    assert not reply_of(b'{"choices": []}').terminated


# -- random and damaged input --------------------------------------------------------------------------------

_KEYS = [
    "id",
    "model",
    "choices",
    "usage",
    "x_groq",
    "error",
    "index",
    "delta",
    "message",
    "content",
    "role",
    "tool_calls",
    "function",
    "custom",
    "name",
    "arguments",
    "input",
    "finish_reason",
    "logprobs",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "annotations",
    "audio",
    "type",
    "text",
    "thinking",
    "signature",
    "data",
    "moderation",
    "function_call",
    "prompt_tokens",
    "prompt_tokens_details",
]
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.sampled_from(["text", "thinking", "stop", "0", "-1", "assistant"])
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=12,
)
_EVENTS = (
    _JSON
    | _JSON.map(lambda found: {"choices": found})
    | _JSON.map(lambda found: {"choices": [{"index": 0, "delta": found}]})
    | _JSON.map(lambda found: {"choices": [{"delta": {"content": [found]}, "logprobs": found, "index": 1}]})
    | _JSON.map(lambda found: {"choices": [{"message": {"tool_calls": [found, {"function": found}]}}]})
)
_JSON_KINDS = (TOOL_CALL, CITATION, OTHER)


def _check(frames: list[bytes]) -> None:
    """Assert that nothing is raised, and that the deltas alone give the same messages."""
    deltas, reply = translated(frames)
    again = Reply()
    for each in deltas:
        assert type(each.text) is str
        assert each.text
        if each.kind in _JSON_KINDS:
            loads(each.text)
        again.add(each)
    for number in again.choices:
        ours, theirs = again.message(number), reply.message(number)
        assert (ours.content, ours.tool_calls) == (theirs.content, theirs.tool_calls)
        assert repr(ours.additional_kwargs) == repr(
            theirs.additional_kwargs
        )  # repr, because NaN is not equal to itself
        assert ours.invalid_tool_calls == theirs.invalid_tool_calls
    assert set(again.choices) <= {0, *reply.choices}


@unhurried
@given(st.lists(_EVENTS, max_size=4))
def test_any_json_can_be_decoded(events: list[Any]) -> None:
    """Random values come as events of a stream and as complete responses."""
    bodies = [json.dumps(found).encode() for found in events]
    _check([b"data: " + body + b"\n\n" for body in bodies])
    for body in bodies:
        _check([body])


@unhurried
@given(
    st.lists(st.binary(max_size=40) | st.binary(max_size=20).map(lambda data: b"data: {" + data), max_size=4)
)
def test_any_bytes_can_be_decoded(frames: list[bytes]) -> None:
    """They do not have the form of events."""
    _check(frames)


def _mutated(value: Any, chance: random.Random) -> Any:
    """Replace random values by values of other types."""
    if chance.random() < 0.05:
        return chance.choice(
            (None, True, -1, 2**80, 1.5, "", "x", "\ud83c", [], {}, [value], {"x": value}, [[None]])
        )
    if isinstance(value, dict):
        kept = {key: _mutated(inner, chance) for key, inner in value.items() if chance.random() > 0.03}
        return {chance.choice(_KEYS) if chance.random() < 0.02 else key: inner for key, inner in kept.items()}
    return [_mutated(inner, chance) for inner in value] if isinstance(value, list) else value


def _damaged(frame: bytes, chance: random.Random) -> bytes:
    """Replace random bytes of a frame."""
    damaged = bytearray(frame)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(damaged))
        damaged[at : at + chance.randrange(3)] = chance.choice(
            (b"", b"\x00", b"\xff", b'"', b"{", b"\n", b"\r")
        )
    return bytes(damaged)


@pytest.mark.matrix
@genuine
def test_damaged_genuine_streams_can_be_decoded(stream: Stream) -> None:
    """Keys are missing, values have other types, and bytes are changed."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    frames = chance.sample(found := frames_of([stream.body]), min(len(found), 40))
    events = [loads(frame[6:]) for frame in frames if frame.startswith(b"data: {")]
    mutated = [b"data: " + json.dumps(_mutated(each, chance)).encode() + b"\n\n" for each in events]
    _check(mutated)
    _check([_damaged(frame, chance) for frame in frames])
    _check(frames_of([_damaged(stream.body, chance)]))


# -- endless streams -----------------------------------------------------------------------------------------


def _unknown(key: str, value: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {key: value}}]})


_ENDLESS: dict[str, Callable[[int], bytes]] = {
    "tokens": lambda number: delta(content="token "),
    "tokens of the second choice": lambda number: delta(content="token ", index=1),
    "choices": lambda number: delta(content="a", index=number, finish_reason="stop"),
    "finish reasons": lambda number: delta(index=number, finish_reason=f"because {number}"),
    "tool calls": lambda number: calls({"index": number, "id": f"call_{number}", "name": f"f{number}"}),
    "tool calls without index": lambda number: calls({"id": f"call_{number}", "name": f"f{number}"}),
    "tool calls of many choices": lambda number: calls({"id": "a", "name": "f"}, index=number),
    "arguments": lambda number: calls({"index": 0, "arguments": "x"}),
    "unknown keys": lambda number: _unknown(f"key_{number}", number),
    "long unknown values": lambda number: _unknown(f"key_{number}", str(number) * 500),
    "unknown lists": lambda number: delta(key=[number]),
    "keys beside the choices": lambda number: event({"choices": [], f"key_{number}": [number]}),
    "log probabilities": lambda number: event(
        {
            "choices": [
                {"index": 0, "delta": {}, "logprobs": {"content": [{"token": str(number), "logprob": -1.0}]}}
            ]
        }
    ),
    "ever other log probabilities": lambda number: event(
        {"choices": [{"index": number, "delta": {}, "logprobs": {f"key_{number}": []}}]}
    ),
    "usage": lambda number: event({"choices": [], "usage": {"prompt_tokens": number}}),
    "ids": lambda number: event({"id": f"id_{number}", "choices": [], "system_fingerprint": str(number)}),
    "what cannot be read": lambda number: b"data: {%d\n\n" % number,
}


@pytest.mark.parametrize("frame", _ENDLESS.values(), ids=_ENDLESS)
def test_an_endless_chat_stream_takes_bounded_memory(
    frame: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From some point on nothing is kept, the reply is `truncated`, and its messages can be read."""
    monkeypatch.setattr(reply, "MAX_REPLY_BYTES", 100_000)
    monkeypatch.setattr(reply, "MAX_CHOICES", 50)
    monkeypatch.setattr(wire_calls, "MAX_CALLS", 100)
    monkeypatch.setattr(repeated_answer, "_MAX_ITEMS", 100)
    monkeypatch.setattr(openai_events, "MAX_REMEMBERED_VALUES", 100)
    frames = [frame(number) for number in range(9_000)]
    translator = OpenAIChat()
    tracemalloc.start()
    try:
        for each in frames[:3_000]:
            translator.decode(each)
        before, _ = tracemalloc.get_traced_memory()
        for each in frames[3_000:]:
            translator.decode(each)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert before < 1_000_000
    assert after < before + 60_000  # ten bytes a frame, because the JSON decoder caches some keys
    found = [translator.reply.message(number) for number in translator.reply.choices]
    assert len(found) <= 50
    kept = {"usage", "ids"}
    assert translator.reply.truncated == (_name_of(frame) not in kept)


def _name_of(frame: Callable[[int], bytes]) -> str:
    return next(name for name, each in _ENDLESS.items() if each is frame)


def test_a_truncated_reply_has_its_finish_reason_and_usage() -> None:
    """They are kept, however long the reply was."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reply, "MAX_REPLY_BYTES", 1_000)
        frames = [delta(content="token")] * 100
        found = reply_of(*frames, delta(finish_reason="stop"), event({"choices": [], "usage": usage}), DONE)
    assert (found.truncated, found.terminated, found.raw_usage) == (True, True, usage)
    assert found.finish_reasons == {0: "stop"}
    assert found.message().response_metadata["truncated"] is True


def test_pieces_of_a_frame_that_is_too_long_can_be_decoded() -> None:
    """They make deltas of kind `other` or none, and the next event is read normally."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("MAX_FRAME_BYTES", 64), ("_SMALL", 8), ("_LARGE", 16)):
            patch.setattr(sse, name, size)
        frames = frames_of([delta(content="x" * 1_000), event({"choices": [{"delta": {"content": "y"}}]})])
        assert max(map(len, frames)) <= 64
        deltas, found = translated(frames)
    assert found.text() == "y"
    assert [each.kind for each in deltas] == [OTHER, TEXT]


@pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
def test_a_time_with_a_fraction(style: CallStyle, tmp_path: Path) -> None:
    """Some servers write `created` as a float, and each event has another one."""
    choices: list[dict[str, Any]] = [
        {"delta": {"content": "a"}},
        {"delta": {"content": "b"}},
        {"delta": {}, "finish_reason": "stop"},
    ]
    events = (
        event(
            {
                "id": "1",
                "created": 1_700_000_000.25 + place,
                "model": "m",
                "choices": [{"index": 0, **choice}],
            }
        )
        for place, choice in enumerate(choices)
    )
    found = forms_of(chat, b"".join(events) + DONE, style, tmp_path)
    assert (found.end[:2], found.live.text) == (("complete", "stop"), "ab")
    assert_alike(found)


def test_there_are_genuine_chat_streams_of_several_providers() -> None:
    """Some of them contain errors."""
    if not chat_streams():
        pytest.skip("no genuine provider streams")
    assert len({stream.provider for stream in chat_streams()}) >= 5
    assert any(b'"error":' in stream.body for stream in chat_streams())
