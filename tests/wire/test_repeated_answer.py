"""Content that a stream repeats counts once: a whole answer at its end, and repeated lists and items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recorder.messages import AIMessage, AIMessageChunk
from recorder.models import OpenAI, SimpleChatModel
from recorder.testing import Answer, LoopbackProvider
from recorder.wire.openai.completions import OpenAICompletions
from recorder.wire.repeated_answer import UNCHANGED, difference, repeats_all
from tests.alike import assert_alike, forms_of
from tests.alike import openai as chat
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, history_at, name_of, recorded
from tests.wires import DONE, calls, delta, event, reply_of, translated

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
STREAMED = (
    delta(role="assistant", reasoning_content="Hm")
    + delta(content="Hello")
    + delta(content=" there")
    + calls({"index": 0, "id": "a", "name": "f", "arguments": '{"x":'})
    + calls({"index": 0, "arguments": "1}"})
)
ALL: dict[str, Any] = {
    "role": "assistant",
    "content": "Hello there",
    "reasoning_content": "Hm",
    "tool_calls": [CALL],
}


def last(
    key: str = "message", kind: str = "chat.completion", reason: str | None = "stop", **fields: Any
) -> bytes:
    """Return the last event of a stream, with usage and these fields."""
    choice = {"index": 0, "finish_reason": reason, key: fields}
    return event({"id": "1", "object": kind, "model": "m", "usage": USAGE, "choices": [choice]})


CHUNK = "chat.completion.chunk"
#: Different ends of one stream, which repeat the whole answer.
ENDS = {
    "a message": last(**ALL),
    "a message of a chunk": last(kind=CHUNK, **ALL),
    "a message without a reason": last(reason=None, **ALL) + delta(finish_reason="stop"),
    "a message beside an empty delta": event(
        {"choices": [{"index": 0, "delta": {}, "message": ALL, "finish_reason": "stop"}], "usage": USAGE}
    ),
    "a message behind the end": delta(finish_reason="stop") + last(**ALL),
    "a message with calls without ids": last(**{**ALL, "tool_calls": [{**CALL, "id": ""}]}),
    "a delta that is a whole answer": last("delta", **{**ALL, "tool_calls": [{**CALL, "index": 0}]}),
    "a delta like the others": last("delta", CHUNK, **{**ALL, "reasoning_content": None, "tool_calls": [
        {**CALL, "index": 0}]}),
    "a delta behind the end": delta(finish_reason="stop") + last("delta", CHUNK, None, content="Hello there"),
    "a delta with blanks around it": last("delta", CHUNK, content="\nHello there "),
    "two times": last(**ALL) + last(**ALL),
}  # fmt: skip


@both
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_repeated_chat_answer_counts_once(end: bytes, style: CallStyle, tmp_path: Path) -> None:
    """Text, reasoning and calls are the same live, stored and replayed."""
    found = forms_of(chat, STREAMED + end + DONE, style, tmp_path)
    assert (found.live.text, "".join(text for _, text in found.tokens_of("text"))) == (
        "Hello there",
        "Hello there",
    )
    assert found.live.additional_kwargs == {"reasoning_content": "Hm"}
    assert [(call["id"], call["args"]) for call in found.live.tool_calls] == [("a", {"x": 1})]
    assert found.end[:2] == ("complete", "stop")
    assert_alike(found)


@both
@pytest.mark.parametrize("kind", ["chat.completion", CHUNK])
def test_a_complete_chat_answer_without_deltas_counts(kind: str, style: CallStyle, tmp_path: Path) -> None:
    """Servers that do not stream answer so."""
    found = forms_of(chat, last(kind=kind, **ALL) + DONE, style, tmp_path)
    assert (found.live.text, found.end) == ("Hello there", ("complete", "stop", 9, 2))
    assert [call["args"] for call in found.live.tool_calls] == [{"x": 1}]
    assert_alike(found)


def test_a_repeated_chat_answer_adds_what_is_missing(tmp_path: Path) -> None:
    """The end of the text, a call and a citation were not streamed before."""
    more = {**ALL, "content": "Hello there!", "tool_calls": [CALL, {**CALL, "id": "b"}], "seen": [1, 2],
            "annotations": [{"n": 1}, {"n": 2}], "mood": {"a": 1, "b": 2}}  # fmt: skip
    before = delta(annotations=[{"n": 1}], mood={"a": 1}, seen=[1])
    found = forms_of(chat, STREAMED + before + last(**more) + DONE, PLAIN, tmp_path)
    assert found.live.text == "Hello there!"
    assert [call["id"] for call in found.live.tool_calls] == ["a", "b"]
    expected = {"annotations": [{"n": 1}, {"n": 2}], "mood": {"a": 1, "b": 2}, "seen": [1, 2]}
    assert found.live.additional_kwargs == {"reasoning_content": "Hm", **expected}
    assert_alike(found)


def test_a_different_answer_at_the_end_is_ignored(tmp_path: Path) -> None:
    """The application has received the streamed text already."""
    other = {**ALL, "content": "Something else", "mood": {"a": 2}}
    found = forms_of(chat, STREAMED + delta(mood={"a": 1}) + last(**other) + DONE, PLAIN, tmp_path)
    assert (found.live.text, found.live.additional_kwargs["mood"]) == ("Hello there", {"a": 1})
    assert_alike(found)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["ha", "ha"], "haha"),
        (["0", "0", "00"], "0000"),
        (["a", "b"], "ab"),
        (["Hello", " there", " Hello there"], "Hello there Hello there"),
    ],
)
def test_repeated_words_are_text(pieces: list[str], text: str) -> None:
    """Short repetitions, and repetitions that do not end the stream, are part of the answer."""
    frames = [delta(content=piece) for piece in pieces[:-1]]
    if len(pieces[-1]) > 3:
        frames += [delta(content=pieces[-1]), delta(finish_reason="stop")]
    else:
        frames.append(delta(content=pieces[-1], finish_reason="stop"))
    assert reply_of(*frames).text() == text


def test_events_with_message_in_place_of_delta_are_read(tmp_path: Path) -> None:
    """Each has a piece, or all of the text so far."""
    for texts in (["Hel", "lo", "!"], ["Hel", "Hello", "Hello!"]):
        events = [
            event({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": reason}]})
            for text, reason in zip(texts, (None, None, "stop"), strict=True)
        ]
        found = forms_of(chat, b"".join(events) + DONE, PLAIN, tmp_path)
        assert found.live.text == "Hello!"
        assert_alike(found)


def test_repeated_answers_of_two_choices_count_once() -> None:
    """Two answers were requested."""
    frames = [
        delta(content=text, index=number) for number, text in enumerate(("Hello there", "Good morning"))
    ]
    again = [
        {"index": number, "message": {"content": text}, "finish_reason": "stop"}
        for number, text in enumerate(("Hello there", "Good morning"))
    ]
    found = reply_of(*frames, event({"object": "chat.completion", "choices": again}))
    assert [found.text(number) for number in (0, 1)] == ["Hello there", "Good morning"]


def completion(text: str, reason: str | None = None) -> bytes:
    """Return an event of the legacy format."""
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return event({"object": "text_completion", "choices": [choice]})


@both
def test_a_repeated_completion_counts_once(style: CallStyle, tmp_path: Path) -> None:
    """The last event has the same form as the others."""
    body = completion("Hello") + completion(" there") + completion("Hello there", "stop") + DONE
    with LoopbackProvider(Answer(frames=[body])) as provider, history_at(tmp_path) as history:
        model = OpenAI("m", base_url=provider.base_url, api_key="any", max_retries=0, callbacks=[history])
        assert "".join(style.stream(model, "Hi")) == "Hello there"  # type: ignore[arg-type]
    assert recorded(f"sqlite:///{tmp_path / 'history.db'}").text == "Hello there"
    _, reply = translated([completion("Hello there", "stop")], OpenAICompletions)
    assert reply.text() == "Hello there"


class ScriptedModel(SimpleChatModel):
    """A model that yields the given pieces."""

    def _stream(self, messages: Any, **options: Any) -> Any:
        yield from options["pieces"]


@both
def test_a_repeated_message_of_a_users_model_counts_once(style: CallStyle, tmp_path: Path) -> None:
    """The message alone counts, too."""
    call = {"name": "f", "args": {"x": 1}, "id": "a"}
    message = AIMessage("Hello there", tool_calls=[call], additional_kwargs={"reasoning_content": "Hm"},
                        response_metadata={"finish_reason": "stop"})  # fmt: skip
    pieces = [
        AIMessageChunk("Hello", additional_kwargs={"reasoning_content": "Hm"}),
        AIMessageChunk(" there", tool_calls=[call]),
        message,
    ]
    for given in (pieces, [message]):
        make = lambda provider, given=given, **options: ScriptedModel(pieces=given, **options)  # noqa: E731
        found = forms_of(make, b"", style, tmp_path)
        assert (found.live.text, found.run["finish_reason"]) == ("Hello there", "stop")
        assert found.live.additional_kwargs == {"reasoning_content": "Hm"}
        assert [call["args"] for call in found.live.tool_calls] == [{"x": 1}]
        assert_alike(found)


# -- items and lists -------------------------------------------------------------------------------------------------


def tool(**more: Any) -> dict[str, Any]:
    """Return one of Groq's executed tools."""
    return {"index": 0, "type": "search", "arguments": '{"q":1}', **more}


FOUND = {"results": [{"title": "A", "score": 0.5}]}


@both
def test_a_repeated_item_with_more_keys_is_one_item(style: CallStyle, tmp_path: Path) -> None:
    """The first item names the tool, the later ones repeat it with its results."""
    first, second = tool(search_results={"results": []}), tool(output="found", search_results=FOUND)
    body = b"".join(delta(executed_tools=[item]) for item in (first, second, second))
    found = forms_of(chat, body + delta(content="Hello", finish_reason="stop") + DONE, style, tmp_path)
    assert found.live.additional_kwargs == {"executed_tools": [second]}
    assert len(found.tokens_of("other")) == 2
    assert_alike(found)


def test_pieces_of_an_item_with_one_index_are_joined(tmp_path: Path) -> None:
    """Equal pieces are joined, too, and an item with another index is another item."""
    pieces = [
        {"index": 0, "type": "t", "text": "ha"},
        {"index": 0, "type": "t", "text": "ha"},
        {"index": 0, "type": "t", "text": "!", "format": "x"},
        {"index": 1, "type": "t", "text": "b"},
        {"index": 1, "id": "z", "type": "t", "text": "c"},
    ]
    body = b"".join(delta(reasoning_details=[piece], parts=[piece]) for piece in pieces)
    found = forms_of(chat, body + delta(finish_reason="stop") + DONE, PLAIN, tmp_path)
    expected = [
        {"index": 0, "type": "t", "text": "haha!", "format": "x"},
        {"index": 1, "id": "z", "type": "t", "text": "bc"},
    ]
    more = {"reasoning_details": expected, "parts": expected, "reasoning_content": "haha!bc"}
    assert found.live.additional_kwargs == more
    assert_alike(found)


def test_a_growing_list_beside_the_choices_is_one_list(tmp_path: Path) -> None:
    """Perplexity sends the citations so far with each event."""
    events = [event({"choices": [{"index": 0, "delta": {"content": "a"}}], "citations": list(range(count))})
              for count in (1, 1, 2, 3)]  # fmt: skip
    found = forms_of(chat, b"".join(events) + DONE, PLAIN, tmp_path)
    assert found.live.additional_kwargs == {"citations": [0, 1, 2]}
    assert found.tokens_of("other") == [
        ("0", '{"citations":[0]}'),
        ("0", '{"citations":[1]}'),
        ("0", '{"citations":[2]}'),
    ]
    assert_alike(found)


def test_a_repeated_large_list_makes_one_delta() -> None:
    """Only its hash is remembered."""
    large = event({"choices": [], "results": ["x" * 5_000_000]})
    deltas, _ = translated([large, large])
    assert len(deltas) == 1


@pytest.mark.parametrize(
    ("known", "value", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [2]}),
        ({"a": {"b": "x"}}, {"a": {"b": "x", "c": 1}}, {"a": {"c": 1}}),
        ({"a": None}, {"a": 1}, {"a": 1}),
        ({"a": None}, {}, UNCHANGED),
        ({"a": 1}, {"a": 1}, UNCHANGED),
        ({"a": 1}, {"a": True}, None),
        ({"a": 1}, {"b": 1}, None),
        ([1, 2], [1], None),
        ([], [1], [1]),
        ("a", "ab", None),
    ],
)
def test_difference_returns_what_a_value_adds(known: Any, value: Any, expected: Any) -> None:
    """It returns UNCHANGED for equal values, and None if the known value is not contained in the other."""
    assert difference(known, value) == expected


def test_a_text_counts_as_repeated_from_a_minimal_length_on() -> None:
    """That is four characters in several pieces, or eight in one."""
    assert not repeats_all("ha", ["h", "a"])
    assert repeats_all("haha", ["ha", "ha"])
    assert not repeats_all("haha", ["haha"])
    assert repeats_all("Hello there", ["Hello there"])
