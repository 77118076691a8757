"""Pieces of tool calls are assigned to their calls, and signatures of calls are sent back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.messages import AIMessage, HumanMessage, ToolMessage, from_any, from_dict, to_dict
from recorder.replay import Replay
from recorder.testing import Answer, LoopbackProvider
from recorder.wire.deltas import TOOL_CALL
from recorder.wire.tool_calls import StreamedArguments
from tests.alike import Forms, assert_alike, forms_of, total
from tests.alike import openai as chat
from tests.chatting import CALL_STYLES, CallStyle, history_at, name_of
from tests.wires import DONE, calls, delta, event, translated, unhurried

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

END = delta(finish_reason="tool_calls") + DONE
X1, Y2 = '{"x":1}', '{"y":2}'


def full(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    """Return a call that comes complete in one piece."""
    return {"name": name, "arguments": arguments, **more}


#: Pieces of calls, and the resulting calls.
PLACED: dict[str, tuple[bytes, list[tuple[str, dict[str, Any]]]]] = {
    "two under one index, without ids": (
        calls(full("find", X1, index=0, id="")) + calls(full("look", Y2, index=0, id="")),
        [("find", {"x": 1}), ("look", {"y": 2})],
    ),
    "one tool twice": (
        calls(full("find", X1, index=0)) + calls(full("find", '{"x":2}', index=0)),
        [("find", {"x": 1}), ("find", {"x": 2})],
    ),
    "one tool twice with the same arguments": (
        calls(full("find", X1, index=0)) + calls(full("find", X1, index=0)),
        [("find", {"x": 1}), ("find", {"x": 1})],
    ),
    "later pieces whose id is the word null": (
        calls(full("find", '{"x"', index=0, id="a")) + calls({"index": 0, "id": "null", "arguments": ":1}"}),
        [("find", {"x": 1})],
    ),
    "later pieces whose id is the word null, without an index": (
        calls(full("find", '{"x"', id="a")) + calls({"id": "null", "arguments": ":1}"}),
        [("find", {"x": 1})],
    ),
    "in one event": (
        calls(full("find", X1, index=0), full("find", '{"x":2}', index=0)),
        [("find", {"x": 1}), ("find", {"x": 2})],
    ),
    "one tool twice without an index": (
        calls(full("find", X1)) + calls(full("find", '{"x":2}')),
        [("find", {"x": 1}), ("find", {"x": 2})],
    ),
    "another tool opened before its arguments": (
        calls(full("find", X1, index=0)) + calls(full("look", "", index=0)) + calls({"index": 0, "arguments": Y2}),
        [("find", {"x": 1}), ("look", {"y": 2})],
    ),
    "the same id for all": (
        calls(full("find", X1, index=0, id="a")) + calls(full("look", Y2, index=0, id="a")),
        [("find", {"x": 1}), ("look", {"y": 2})],
    ),
    "the same id under two indexes": (
        calls(full("find", X1, index=0, id="a")) + calls(full("look", Y2, index=1, id="a")),
        [("find", {"x": 1}), ("look", {"y": 2})],
    ),
    "the id alone says which": (
        calls(full("find", '{"x"', index=0, id="a")) + calls({"index": 1, "id": "a", "arguments": ":1}"}),
        [("find", {"x": 1})],
    ),
    "arguments under another index than their call": (
        calls({"index": 0, "id": "a", "name": "find", "arguments": ""}) + calls({"index": 0, "arguments": X1})
        + calls({"index": 0, "id": "b", "name": "look", "arguments": ""}) + calls({"index": 1, "arguments": Y2[:3]})
        + calls({"index": 1, "arguments": Y2[3:]}),
        [("find", {"x": 1}), ("look", {"y": 2})],
    ),
    "an index as text": (
        calls({"index": "0", "id": "a", "name": "find", "arguments": '{"x"'})
        + calls({"index": "0", "arguments": ":1}"}),
        [("find", {"x": 1})],
    ),
    "a later index first": (
        calls({"index": 1, "id": "b", "name": "look", "arguments": Y2}) + calls(full("find", X1, index=0, id="a")),
        [("look", {"y": 2}), ("find", {"x": 1})],
    ),
    # Cases that are one call.
    "the name again with each piece": (
        calls(full("find", '{"x":', index=0, id="a")) + calls(full("find", "1}", index=0, id="a")),
        [("find", {"x": 1})],
    ),
    "the name again, without an id": (
        calls(full("find", '{"x":', index=0)) + calls(full("find", "1}", index=0)), [("find", {"x": 1})]
    ),
    "the name again behind the end": (
        calls(full("find", X1, index=0)) + calls(full("find", "", index=0)) + calls(full("find", "\n", index=0)),
        [("find", {"x": 1})],
    ),
    "the whole call again": (
        calls(full("find", X1, index=0, id="a")) + calls(full("find", X1, index=0, id="a")), [("find", {"x": 1})]
    ),
    "a name in pieces": (
        calls({"index": 0, "id": "a", "name": "fi", "arguments": ""})
        + calls({"index": 0, "name": "nd", "arguments": X1}),
        [("find", {"x": 1})],
    ),
    "a name in two pieces of one event": (
        calls({"index": 0, "id": "a", "name": "fi"}, {"index": 0, "name": "nd", "arguments": X1}), [("find", {"x": 1})]
    ),
    "a piece that ends like an object": (
        calls(full("find", '{"a":{"x":1}', index=0)) + calls(full("find", ',"b":1}', index=0)),
        [("find", {"a": {"x": 1}, "b": 1})],
    ),
    "braces inside of texts": (
        calls(full("find", '{"a":"\\"}', index=0)) + calls(full("find", '}{\\\\"}', index=0)),
        [("find", {"a": '"}}{\\'})],
    ),
}  # fmt: skip


def called(message: AIMessage) -> list[tuple[str, Any]]:
    """Return name and arguments of each call."""
    assert message.invalid_tool_calls == []
    return [(call["name"], call["args"]) for call in message.tool_calls]


@pytest.mark.parametrize(("pieces", "expected"), PLACED.values(), ids=PLACED)
def test_each_piece_is_assigned_to_its_call(pieces: bytes, expected: list[Any], tmp_path: Path) -> None:
    """The calls are the same live, stored and replayed."""
    found = forms_of(chat, pieces + END, CALL_STYLES[len(pieces) % 2], tmp_path)
    assert found.message is not None
    assert called(found.message) == expected
    assert len({idx for idx, _ in found.tokens_of(TOOL_CALL)}) == len(expected)
    assert_alike(found)


def test_calls_of_a_complete_answer_are_told_apart_by_their_position(tmp_path: Path) -> None:
    """They have the same name, and the same id or none."""
    for ids in (("a", "a"), ("", ""), (None, "b")):
        listed = [{"id": id, "function": {"name": "find", "arguments": X1}} for id in ids]
        message = {"role": "assistant", "content": None, "tool_calls": listed}
        body = json.dumps(
            {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
        ).encode()
        _, reply = translated([body])
        assert called(reply.message()) == [("find", {"x": 1})] * 2


_JSON = st.recursive(st.integers() | st.text(max_size=4) | st.none(), lambda inner: st.lists(inner, max_size=2)
                     | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=6)  # fmt: skip


@unhurried
@given(st.dictionaries(st.text(max_size=3), _JSON, max_size=3), st.data())
def test_arguments_are_complete_at_their_last_brace(value: dict[str, Any], data: st.DataObject) -> None:
    """The pieces of the text, and when `are_complete` is read, make no difference."""
    text, found = json.dumps(value, ensure_ascii=False), StreamedArguments()
    start = 0
    while start < len(text):
        end = data.draw(st.integers(start + 1, len(text)))
        found.add(text[start:end])
        start = end
        if data.draw(st.booleans()):
            assert found.are_complete == (start == len(text))
    assert found.are_complete
    assert found.equal(text)


@pytest.mark.parametrize("text", ["", " ", "null", '"{}"', "[{}]", "7", "{", '{"a":"}', "abc {}"])
def test_arguments_that_are_not_a_complete_object_are_not_complete(text: str) -> None:
    """More may follow."""
    found = StreamedArguments()
    found.add(text)
    assert not found.are_complete


def test_endless_arguments_are_checked_in_bounded_memory() -> None:
    """Their text is not needed to know whether they are complete."""
    found = StreamedArguments()
    for piece in ['{"a":"', *("x" * 3 for _ in range(20_000)), '"}']:
        found.add(piece)
    assert len(found._unscanned) < 5_000
    assert found.are_complete


# -- signatures of calls ---------------------------------------------------------------------------------------------

EXTRA = {"google": {"thought_signature": "U0lH"}}
SIGNED = calls({"index": 0, "id": "a", "name": "find", "arguments": "{}", "extra_content": EXTRA})
SIGNED += calls({"index": 1, "id": "b", "name": "look", "arguments": "{}"})


def sent_back(messages: Any) -> list[dict[str, Any]]:
    """Send these messages to the host of their reply, and return the reply's calls in that request."""
    requests: list[Any] = []

    def answer(request: Any, path: str) -> Answer:
        requests.append(request)
        return Answer(frames=[delta(content="Ok") + DONE])

    origin = messages[1].response_metadata.get("origin", {}).get("host", ":0")
    with LoopbackProvider(answer, port=int(origin.rpartition(":")[2])) as provider:
        chat(provider).invoke(messages, stream=True)
    (found,) = [message for message in requests[0]["messages"] if message["role"] == "assistant"]
    listed: list[dict[str, Any]] = found["tool_calls"]
    return listed


def with_results(answer: Any) -> list[Any]:
    """Return the messages of the next request."""
    results = [ToolMessage("1", tool_call_id=call["id"]) for call in answer.tool_calls]
    return [HumanMessage("Hi"), answer, *results]


@both
def test_the_signature_of_a_call_is_stored_and_sent_back(style: CallStyle, tmp_path: Path) -> None:
    """Gemini requires it; this holds for the sum of chunks, the stored message and a replay."""
    found: Forms = forms_of(chat, SIGNED + END, style, tmp_path)
    assert any("U0lH" in text for _, text in found.tokens_of(TOOL_CALL))
    assert found.message is not None
    for message in (found.live, found.message, total(found.replayed)):
        first, second = message.tool_calls
        assert (first["extras"], "extras" in second) == ({"extra_content": EXTRA}, False)
        one, two = sent_back(with_results(message))
        assert (one["extra_content"], "extra_content" in two) == (EXTRA, False)
    assert_alike(found)


@both
def test_the_signature_of_a_complete_answer_is_sent_back(style: CallStyle, tmp_path: Path) -> None:
    """It may be read from the database for the next request."""
    call = {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": "{}", "k": 1},
        "extra_content": EXTRA,
    }
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = json.dumps(
        {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    )
    answer = Answer(body=body.encode(), headers={"content-type": "application/json"})
    with LoopbackProvider(answer) as provider, history_at(tmp_path, conversation_id="c") as history:
        live = style.invoke(chat(provider, callbacks=[history]), "Hi")
    with Replay(f"sqlite:///{tmp_path / 'history.db'}") as replay:
        stored = replay.messages("c")[1]
    for each in (live, stored, from_dict(to_dict(live)), from_any(message)):
        assert sent_back(with_results(each)) == [call]


def test_a_repeated_signature_makes_one_delta() -> None:
    """Some servers repeat the whole call with each piece."""
    frame = calls({"index": 0, "id": "a", "name": "f", "arguments": "", "extra_content": EXTRA})
    deltas, reply = translated([frame, frame])
    assert len(deltas) == 1
    assert reply.tool_calls()[0]["extras"] == {"extra_content": EXTRA}


def test_calls_and_the_finish_reason_may_come_in_one_event() -> None:
    """Both are read."""
    choice = {
        "index": 0,
        "delta": {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": X1}}]},
    }
    _, reply = translated([event({"choices": [{**choice, "finish_reason": "tool_calls"}]})])
    assert called(reply.message()) == [("f", {"x": 1})]
