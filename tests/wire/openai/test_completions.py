"""Legacy completions become deltas: as the official SDK reads them, and in the dialects of other servers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.testing import openai_completion_body, openai_completion_frames
from recorder.wire.deltas import OTHER, REASONING, TEXT, Delta
from recorder.wire.openai import events as openai_events
from recorder.wire.openai.completions import OpenAICompletions
from recorder.wire.reply import Reply
from tests.by_the_sdk import BySdk, reading
from tests.wires import DONE, at_random, by_one, crlf, event, frames_of, unhurried


def piece(text: Any, *, index: int = 0, finish_reason: str | None = None, **fields: Any) -> bytes:
    """Return one event of one choice."""
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason, **fields}
    return event(
        {"id": "cmpl-1", "object": "text_completion", "created": 1, "choices": [choice], "model": "m"}
    )


def translated(frames: Iterable[bytes]) -> tuple[list[Delta], Reply]:
    """Return the deltas and the reply of frames."""
    translator = OpenAICompletions()
    deltas = [delta for frame in frames for delta in translator.decode(frame)]
    return deltas, translator.reply


def deltas_of(*frames: bytes) -> list[Delta]:
    """Return the deltas of frames."""
    return translated(frames)[0]


# -- compared with the SDK -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_the_sdk() -> Iterator[BySdk]:
    """Yield a reader of bodies that uses the official client over a real socket."""

    def request(client: openai.OpenAI, stream: bool) -> Any:
        return client.completions.create(model="m", prompt="Hi", stream=stream)

    with reading(request, lambda answer, stream: _added(answer if stream else [answer])) as read:
        yield read


def _added(events: Iterable[Any]) -> dict[str, Any]:
    """Add up the SDK's objects, for which it has no accumulator."""
    found: dict[str, Any] = {"id": None, "model": None, "usage": None, "choices": {}, "error": None}
    try:
        for event_ in events:
            found["id"], found["model"] = found["id"] or event_.id, found["model"] or event_.model
            found["usage"] = event_.usage.to_dict() if event_.usage else found["usage"]
            for choice in event_.choices:
                _add(
                    found["choices"].setdefault(choice.index, {"text": "", "finish": None, "logprobs": {}}),
                    choice,
                )
    except openai.APIError as failure:
        found["error"] = failure.body
    return found


def _add(known: dict[str, Any], choice: Any) -> None:
    known["text"] += choice.text
    known["finish"] = choice.finish_reason or known["finish"]
    for key, tokens in (choice.logprobs.to_dict() if choice.logprobs else {}).items():
        if tokens is not None:
            known["logprobs"].setdefault(key, []).extend(tokens)


def _ours(frames: Iterable[bytes]) -> dict[str, Any]:
    """Return the same fields of our reply, up to an error."""
    translator = OpenAICompletions()
    reply = translator.reply
    for frame in frames:
        translator.decode(frame)
        if reply.error is not None:
            break
    choices = {
        number: {
            "text": reply.text(number),
            "finish": reply.finish_reasons.get(number),
            "logprobs": reply.logprobs.get(number, {}),
        }
        for number in (reply.choices if reply.response_id else [])
    }
    about = {"id": reply.response_id, "model": reply.model, "usage": reply.raw_usage, "error": reply.error}
    return {**about, "choices": choices}


STREAMS: dict[str, list[bytes]] = {
    "text": openai_completion_frames(["Hello", " wörld", " 🎈"]),
    "three choices by turns": openai_completion_frames([["a", "b"], ["c"], ["d", "e", "f"]], n=3),
    "log probabilities": openai_completion_frames(["Hello", " there", "!"], logprobs=2),
    "log probabilities of two choices": openai_completion_frames([["a", "b"], ["c"]], n=2, logprobs=1),
    "log probabilities without the likeliest": openai_completion_frames(["Hello", "!"], logprobs=0),
    "no usage": openai_completion_frames(["x"], usage=False),
    "a length limit": openai_completion_frames(["x"], finish_reason="length"),
    "nothing": openai_completion_frames([]),
    "text and finish in one event": [piece("a", finish_reason="stop"), DONE],
    "nothing after the end": [piece("a"), DONE, piece("b"), DONE],
    "no end": [piece("a"), piece("b")],
    "half of a character": [piece("a"), piece("?").replace(b"?", b"\\ud83c")],
    "lines of JSON": [b'data: {"id": "1", "model": "m",\ndata: "choices": []}\n\n', piece("a"), DONE],
    "comments and pings": [b": ping\n\n", piece("a"), b"\n\n", b": ping\n\n", piece("b"), DONE],
    "no spaces": [piece("a").replace(b"data: ", b"data:"), b"data:[DONE]\n\n"],
    "an error": [piece("Hel"), event({"error": {"message": "Overloaded", "code": 502}}), piece("lo")],
    "an error that is text": [piece("Hel"), event({"error": "it broke"}), piece("lo")],
    "Azure: an event about the prompt": [
        event({"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        piece("a"),
        DONE,
    ],
}


@pytest.mark.parametrize("frames", STREAMS.values(), ids=STREAMS)
def test_completion_streams_give_the_sdks_result(frames: list[bytes], by_the_sdk: BySdk) -> None:
    """Text, finish reason, log probabilities, id, model, usage and errors are the same."""
    assert _ours(frames) == by_the_sdk(b"".join(frames))


BODIES = {
    "text": openai_completion_body(["Hello", " wörld"]),
    "choices": openai_completion_body([["a"], ["b", "c"]], n=2),
    "log probabilities": openai_completion_body(["Hello", "!"], logprobs=2),
    "nothing": openai_completion_body([]),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_complete_completions_give_the_sdks_result(body: bytes, by_the_sdk: BySdk) -> None:
    """A response without a stream is one frame, also after blank lines or a byte order mark."""
    expected = by_the_sdk(body, stream=False)
    for frame in (body, b"\n   \r\n" + body, b"\xef\xbb\xbf" + body):
        assert _ours([frame]) == expected
        assert translated([frame])[1].terminated


@pytest.mark.parametrize("frames", STREAMS.values(), ids=STREAMS)
def test_completion_streams_give_the_same_deltas_in_any_pieces(frames: list[bytes]) -> None:
    """The body comes byte by byte or in random pieces, with LF and CRLF."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, body = random.Random(seed), b"".join(frames)
    deltas, expected = translated(frames_of([body]))
    for pieces in (by_one(body), at_random(body, chance), by_one(crlf(body)), at_random(crlf(body), chance)):
        found, reply = translated(frames_of(pieces))
        assert found == deltas
        assert reply.message() == expected.message()


# -- dialects ------------------------------------------------------------------------------------------------

#: Frames and their deltas.
DIALECTS: dict[str, tuple[list[bytes], list[Delta]]] = {
    "text": ([piece("a"), piece("b")], [Delta("a"), Delta("b")]),
    "the second choice": ([piece("a", index=1)], [Delta("a", TEXT, "1")]),
    "an empty piece": ([piece(""), piece(None)], []),
    "vLLM: where it stopped": (
        [piece("a", stop_reason=None), piece("", stop_reason="END")],
        [Delta("a"), Delta('{"stop_reason":"END"}', OTHER)],
    ),
    "OpenRouter: reasoning": (
        [piece("", reasoning="Hm"), piece("", reasoning="m"), piece("4", reasoning=None)],
        [Delta("Hm", REASONING), Delta("m", REASONING), Delta("4")],
    ),
    "both words for reasoning": (
        [piece("", reasoning="Hm", reasoning_content="Hm")],
        [Delta("Hm", REASONING)],
    ),
    "Together: a chat's delta beside the text": (
        [piece("a", delta={"content": "a"}, token_id=7), piece("b", delta={"content": "b"}, token_id=8)],
        [Delta("a"), Delta("b")],
    ),
    "Azure: what its filters found": (
        [piece("a", content_filter_results={"hate": {"filtered": False}})],
        [Delta("a")],
    ),
    "unknown keys": (
        [piece("a", mood="happy"), piece("b", mood="happy"), piece("c", mood="sad", parts=[1])],
        [
            Delta("a"), Delta('{"mood":"happy"}', OTHER), Delta("b"), Delta("c"), Delta('{"mood":"sad"}', OTHER),
            Delta('{"parts":[1]}', OTHER),
        ],
    ),
    "unknown keys of the event": ([event({"choices": [], "citations": ["x"]})], [Delta('{"citations":["x"]}', OTHER)]),
    "text that is none": ([piece({"why": "?"})], [Delta('{"text":{"why":"?"}}', OTHER)]),
}  # fmt: skip


@pytest.mark.parametrize(("frames", "expected"), DIALECTS.values(), ids=DIALECTS)
def test_dialects_of_the_completions_format_are_read(frames: list[bytes], expected: list[Delta]) -> None:
    """Servers put reasoning and other content into different fields."""
    assert deltas_of(*frames) == expected


def test_azures_content_filters_of_completions_are_metadata() -> None:
    """The categories of all events are added up; an empty result at the end removes nothing."""
    hate, violence = {"hate": {"filtered": False}}, {"violence": {"filtered": True}}
    frames = [
        piece("a", content_filter_results=hate),
        piece("b", content_filter_results=violence),
        piece("", finish_reason="content_filter", content_filter_results={}),
    ]
    metadata = translated(frames)[1].response_metadata()
    assert metadata["content_filter_results"] == hate | violence


# -- random input --------------------------------------------------------------------------------------------


@unhurried
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["id", "choices", "text", "index", "logprobs", "finish_reason", "usage", "error", "tokens"]),
        inner,
    ),
))  # fmt: skip
def test_any_json_between_completion_events_can_be_decoded(value: Any) -> None:
    """Nothing is raised, and the valid events are read."""
    odd = b"data: " + json.dumps(value).encode() + b"\n\n"
    translator = OpenAICompletions()
    found = [delta for frame in (piece("a"), odd, piece("b")) for delta in translator.decode(frame)]
    assert [found[0], found[-1]] == [Delta("a"), Delta("b")]
    for text, kind, _ in found:
        assert kind in {TEXT, REASONING, OTHER}
        if kind == OTHER:
            json.loads(text)
    assert translator.reply.message().content is not None


@unhurried
@given(st.binary())
def test_any_bytes_can_be_decoded_as_completions(data: bytes) -> None:
    """Nothing is raised."""
    translator = OpenAICompletions()
    translator.decode(data)
    translator.decode(b"data: " + data + b"\n\n")


def test_ever_new_keys_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The translator remembers a limited number of values."""
    monkeypatch.setattr(openai_events, "MAX_REMEMBERED_VALUES", 100)
    translator = OpenAICompletions()
    for number in range(300):
        fields: Any = {f"key{number}": 1}
        translator.decode(piece("a", **fields))
    assert len(translator._last_values) == 100


def test_a_completion_stream_is_terminated_by_its_terminator() -> None:
    """The end of the bytes alone does not terminate it."""
    assert translated(openai_completion_frames(["a"]))[1].terminated
    assert not translated(openai_completion_frames(["a"])[:-1])[1].terminated
