"""What of a message is searched."""

from __future__ import annotations

from recorder.core.escaping import escape
from recorder.core.json import dumps
from recorder.messages import AIMessage, HumanMessage
from recorder.storage.message_columns import columns_of_message
from recorder.storage.search.searched_text import MAX_TEXT, MAX_TOOL_TEXT, call_texts, own_text, words_of_row


def test_text_and_tool_calls_are_searched() -> None:
    """Names, keys and values of arguments; not ids of calls, nor images."""
    call = {
        "name": "find_order",
        "args": {"order": 4711, "notes": ["a parcel", None, True]},
        "id": "call_xyz",
    }
    assert words_of_row(*columns_of_message(AIMessage("Looking", tool_calls=[call]))) == (
        "looking find order 4711 notes a parcel true"
    )
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    message = HumanMessage([{"type": "text", "text": "What is this?"}, image])
    assert words_of_row(*columns_of_message(message)) == "what is this"


def test_long_texts_are_searched_up_to_a_limit() -> None:
    """Results of tools have a smaller one. What was escaped is searched as it was said."""
    text = "begin " + "x " * MAX_TEXT + "end"
    assert words_of_row("user", text, None) == "begin x"
    assert len(own_text("tool", "x" * MAX_TEXT)) == MAX_TOOL_TEXT
    assert own_text("user", escape("a\0b\ud800")) == "a\0b\ud800"
    assert words_of_row("user", escape("a\0b\ud800"), None) == "a b"


def test_damaged_and_deep_tool_calls_are_left_out() -> None:
    """Another program may have written anything."""
    deep: object = "deepest"
    for _ in range(5_000):
        deep = [deep]
    stored = '{"tool_calls":[{"name":"f","args":' + "[" * 900 + '"deepest"' + "]" * 900 + "}]}"
    assert call_texts(stored) == ["f deepest"]
    for parts in (
        "{",
        '"tool_calls"',
        dumps({"tool_calls": 1}),
        dumps({"tool_calls": [1, None, {"args": 1}]}),
    ):
        assert [text.strip() for text in call_texts(parts)] in ([], ["", "", "1"])
