"""The shapes of output items: calls, reasoning and citations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from recorder.core.json import loads
from recorder.wire.openai.responses_items import (
    call_of,
    is_call,
    item_of_call,
    reasoning_parts,
    unwrapped_citation,
    wrapped_citation,
)
from tests.streams import odd
from tests.wires import unhurried

CALLS: list[dict[str, Any]] = [
    {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"a":1}', "namespace": "n"},
    {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "print(1)"},
    {"type": "mcp_call", "id": "m", "name": "find", "arguments": "{}", "server_label": "docs", "output": "x"},
    {"type": "computer_call", "call_id": "c", "action": {"type": "click", "x": 1}, "pending_safety_checks": ["s"]},
    {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
    {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "a"}},
    {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {"queries": ["x"]}},
    {"type": "computer_call", "call_id": "c", "actions": [{"type": "click"}]},
]  # fmt: skip


@pytest.mark.parametrize("item", CALLS, ids=lambda item: item["type"])
def test_a_call_becomes_an_item_again(item: dict[str, Any]) -> None:
    """Nothing but its status and the id of the item is lost."""
    assert is_call(item)
    call = call_of(item)
    assert item_of_call({"id": call.id, "name": call.name, **call.extras}, call.arguments) == item


@pytest.mark.parametrize(
    "item",
    [
        {"type": "tool_search_call", "call_id": "c", "execution": "server", "arguments": {}},
        {"type": "web_search_call", "id": "w", "action": {}},
        {"type": "computer_call", "id": "c", "action": {}},
        {"type": ["function_call"]},
        {},
    ],
)
def test_what_the_server_executes_is_no_call(item: dict[str, Any]) -> None:
    """Nor is an item without an id for its result."""
    assert not is_call(item)


def test_the_parts_of_reasoning_have_their_places() -> None:
    """The summary comes first; empty parts are left out."""
    item = {
        "content": [{"type": "reasoning_text", "text": "c"}],
        "summary": [{"type": "summary_text", "text": ""}, "b", 5],
    }
    assert list(reasoning_parts(item)) == [("summary", 1, "b"), ("content", 0, "c")]


@unhurried
@given(odd)
def test_a_citation_is_unwrapped_again(annotation: Any) -> None:
    """An annotation of an unknown shape is not changed."""
    assert unwrapped_citation(wrapped_citation(annotation)) == annotation
    cited = {"type": "file_citation", "index": 3, "mood": annotation}
    assert wrapped_citation(cited) == {
        "type": "file_citation",
        "file_citation": {"index": 3, "mood": annotation},
    }
    assert unwrapped_citation(wrapped_citation(cited)) == cited


def test_a_list_of_actions_is_one_object_of_arguments() -> None:
    """The arguments of a call are an object."""
    assert loads(call_of(CALLS[-1]).arguments) == {"actions": [{"type": "click"}]}
