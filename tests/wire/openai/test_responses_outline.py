"""The outline of a reply: with the message it makes the items of the response again, or none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.json import dumps, loads
from recorder.messages import AIMessage, from_dict, to_dict
from recorder.wire.openai.responses_outline import is_needed, items_of, outline_of
from recorder.wire.reply import Reply
from tests import responses
from tests.responses import decoded, ended, function_call, message
from tests.streams import odd
from tests.wires import unhurried

CITED = {
    "type": "output_text",
    "text": "See a.",
    "annotations": [
        {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 4, "end_index": 5}
    ],
}
ITEMS: list[dict[str, Any]] = [
    message("Hello ", {"type": "refusal", "refusal": "No."}),
    message("", index=1),
    message(CITED, "", index=2, phase="final_answer"),
    function_call('{"b":1}', index=3),
    function_call("oops", index=4),
    {**function_call('{"c":2}', index=5), "namespace": "n"},
    {"type": "custom_tool_call", "id": "x", "call_id": "c", "name": "run", "input": "print(1)", "status": "completed"},
    {"type": "mcp_call", "id": "m", "name": "find", "arguments": "{}", "server_label": "docs", "output": "x",
     "error": None},
    {"type": "mcp_list_tools", "id": "l", "server_label": "docs", "tools": []},
    {"type": "computer_call", "id": "y", "call_id": "d", "action": {"type": "click", "x": 1},
     "pending_safety_checks": None, "status": "completed"},
    {"type": "web_search_call", "id": "w", "status": "completed", "action": {"query": "x"}},
    {"type": "code_interpreter_call", "id": "i", "status": "completed", "code": "1", "outputs": None},
    {"type": "compaction", "id": "k", "encrypted_content": "x"},
    {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"},
    {"type": "reasoning", "id": "s", "summary": [{"type": "summary_text", "text": "Hm."},
                                                 {"type": "summary_text", "text": ""},
                                                 {"type": "summary_text", "text": "Oh."}]},
    {"type": "reasoning", "id": "t", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
]  # fmt: skip


def reply_of(*items: dict[str, Any]) -> Reply:
    """Return the reply of a response with these items."""
    return decoded(ended("completed", *items))[1]


def stored(reply: Reply) -> AIMessage:
    """Return the message of a reply after it was stored."""
    found = from_dict(loads(dumps(to_dict(reply.message())).encode()))
    assert isinstance(found, AIMessage)
    return found


@unhurried
@given(st.lists(st.sampled_from(ITEMS), max_size=6, unique_by=lambda item: item["id"]))
def test_a_message_and_its_outline_make_the_items_of_the_response(items: list[dict[str, Any]]) -> None:
    """In their order and with all their fields."""
    reply = reply_of(*items)
    outline = [outline_of(item, number) for number, item in enumerate(items)]
    assert items_of(stored(reply), loads(dumps(outline).encode())) == items
    assert reply.origin.get("output", []) == (outline if is_needed(outline) else [])


@pytest.mark.parametrize(
    ("items", "needed"),
    [
        ([], False),
        ([message("Hi")], False),
        ([message("Hi"), function_call("{}")], False),
        ([function_call("{}"), message("Hi")], True),
        ([message("Hi"), message("there", index=1)], True),
        ([ITEMS[13], message("Hi")], True),
        ([ITEMS[9]], True),
    ],
    ids=lambda value: str([item["type"] for item in value]) if isinstance(value, list) else None,
)
def test_a_text_and_calls_need_no_outline(items: list[dict[str, Any]], needed: bool) -> None:
    """OpenAI accepts them without ids. So most messages are stored without one."""
    assert bool(reply_of(*items).origin) is needed


CHANGES: dict[str, dict[str, Any]] = {
    "shorter text": {"content": "See"},
    "longer text": {"content": "See a. More."},
    "blocks": {"content": [{"type": "text", "text": "See a."}]},
    "no call": {"tool_calls": []},
    "another call": {"tool_calls": [{"name": "find", "args": {}, "id": "other"}]},
    "no reasoning": {"additional_kwargs": {}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_message_makes_no_items(change: dict[str, Any]) -> None:
    """The outline does not describe it any more."""
    items = [ITEMS[14], message(CITED), function_call("{}", index=1)]
    reply = stored(reply_of(*items))
    outline = [outline_of(item, number) for number, item in enumerate(items)]
    assert items_of(reply, outline) == items
    fields = {name: getattr(reply, name) for name in ("content", "tool_calls", "additional_kwargs")} | change
    assert items_of(AIMessage(**fields), outline) is None


def test_a_response_that_openai_does_not_store_is_marked() -> None:
    """Its ids are unknown there."""
    items = [ITEMS[13], message("Hi")]
    assert decoded(ended("completed", *items, store=False))[1].origin["stored"] is False
    assert "stored" not in decoded(ended("completed", *items, store=True))[1].origin


@unhurried
@given(
    st.one_of(responses._items, st.dictionaries(st.sampled_from(("type", "content", "summary")), odd)), odd
)
def test_items_and_outlines_of_any_shape_raise_nothing(item: Any, outline: Any) -> None:
    """The items come from servers, and outlines from files."""
    fields = item if isinstance(item, dict) else {}
    found = [outline_of(fields, 0)]
    is_needed(found)
    items_of(AIMessage("Hi"), found)
    items_of(AIMessage("Hi"), outline)
    items_of(AIMessage("Hi"), [outline])
