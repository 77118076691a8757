"""The messages of a Responses request, which are those of the recorded reply when a client sends it back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseFunctionToolCall

from recorder.core.json import dumps
from recorder.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    from_dict,
    to_dict,
)
from recorder.messages.identity import content_key, path_ids
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.recorded_run import value_of
from tests import responses
from tests.genuine import MISSING, Stream, name_of, responses_streams
from tests.responses import decoded, ended, function_call, message
from tests.streams import odd, texts
from tests.wires import unhurried

STREAMS = responses_streams()


def read(*items: Any, **fields: Any) -> list[BaseMessage]:
    """Return the messages of an input."""
    return responses_messages({"model": "m", "input": list(items), **fields})


def test_a_text_is_a_message_of_the_user() -> None:
    """The instructions come first."""
    assert responses_messages({"input": "Hi"}) == [HumanMessage("Hi")]
    found = responses_messages({"input": "Hi", "instructions": "Be brief."})
    assert found == [SystemMessage("Be brief."), HumanMessage("Hi")]
    assert responses_messages({"model": "m", "instructions": ""}) == []


def test_messages_have_their_roles_and_blocks() -> None:
    """Images and files are blocks as in the request."""
    image = {"type": "input_image", "image_url": "https://a", "detail": "auto"}
    found = read(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "No jokes."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "What is it?"}, image],
        },
        {"role": "assistant", "content": "A cat."},
        {"role": "critic", "content": "No."},
    )
    assert [(each.role, each.text) for each in found] == [
        ("system", "Be brief."), ("system", "No jokes."), ("user", "What is it?"), ("assistant", "A cat."),
        ("critic", "No."),
    ]  # fmt: skip
    assert isinstance(found[4], ChatMessage)
    assert found[2].content[1] == image
    assert content_key(found[2]) == content_key(
        HumanMessage([{"type": "text", "text": "What is it?"}, image])
    )


def test_the_models_items_are_one_message() -> None:
    """Reasoning, text and parallel calls belong to one reply; the results are messages of their own."""
    thought = {
        "type": "reasoning",
        "id": "rs",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "x",
    }
    search = {"type": "web_search_call", "id": "ws", "action": {"query": "x"}, "status": "completed"}
    results = [
        {"type": "function_call_output", "call_id": f"call_{index}", "output": "found"} for index in (1, 2)
    ]
    items = (
        thought,
        search,
        message("Let me ", "see."),
        function_call('{"a":1}', index=1),
        function_call("oops", index=2),
    )
    found = read({"role": "user", "content": "Hi"}, *items, *results)
    (reply,) = [each for each in found if isinstance(each, AIMessage)]
    assert (reply.content, [call["args"] for call in reply.tool_calls]) == ("Let me see.", [{"a": 1}])
    assert [call["args"] for call in reply.invalid_tool_calls] == ["oops"]
    assert reply.additional_kwargs == {
        "reasoning_content": "Hm.",
        "output": [{"type": "reasoning", "id": "rs", "encrypted_content": "x"}, search],
    }
    assert found[2:] == [ToolMessage("found", "call_1"), ToolMessage("found", "call_2")]


SCREEN = {"type": "computer_screenshot", "image_url": "u"}
RESULTS: list[tuple[dict[str, Any], ToolMessage]] = [
    (
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a"}]},
        ToolMessage([{"type": "text", "text": "a"}], "c"),
    ),
    ({"type": "custom_tool_call_output", "call_id": "c", "output": "a", "id": "x"}, ToolMessage("a", "c")),
    (
        {"type": "computer_call_output", "call_id": "c", "output": SCREEN},
        ToolMessage([{"type": "computer_call_output", "output": SCREEN}], "c"),
    ),
    (
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a", "stderr": ""}]},
        ToolMessage([{"type": "shell_call_output", "output": [{"stdout": "a", "stderr": ""}]}], "c"),
    ),
    ({"type": "local_shell_call_output", "id": "c", "output": "a"}, ToolMessage("a", "c")),
    ({"type": "apply_patch_call_output", "call_id": "c", "status": "failed"},
     ToolMessage([{"type": "apply_patch_call_output"}], "c", status="error")),
    (
        {"type": "tool_search_output", "call_id": "c", "execution": "client", "tools": [{"name": "t"}]},
        ToolMessage([{"type": "tool_search_output", "execution": "client", "tools": [{"name": "t"}]}], "c"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("item", "expected"), RESULTS, ids=[item["type"] for item, _ in RESULTS])
def test_a_result_answers_its_call(item: dict[str, Any], expected: ToolMessage) -> None:
    """Text and blocks are the content; anything else is a block."""
    assert read(item) == [expected]


def test_a_shell_of_the_server_and_its_output_belong_to_the_reply() -> None:
    """The shell of the client is answered by a message of its own."""
    output = {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a"}]}
    for kind, roles in (
        ("container_reference", ["assistant"]),
        ("local", ["assistant", "tool", "assistant"]),
    ):
        call = {
            "type": "shell_call",
            "call_id": "c",
            "action": {"commands": ["ls"]},
            "environment": {"type": kind},
        }
        items = call, output, message("Done.")
        assert [each.role for each in read(*items)] == roles
        reply = decoded(ended("completed", *items))[1].message()
        assert (content_key(read(*items)[0]) == content_key(reply)) == (len(roles) == 1)


def test_an_unknown_item_is_a_block() -> None:
    """Nothing of a request is lost."""
    reference = {"type": "item_reference", "id": "msg_1"}
    approval = {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}
    assert read(reference, approval, 5) == [
        HumanMessage([reference]), HumanMessage([approval]), HumanMessage([{"type": "unknown", "value": 5}]),
    ]  # fmt: skip


def test_objects_of_the_sdk_are_read() -> None:
    """Applications pass the items of a response as they are."""
    call = ResponseFunctionToolCall(**function_call("{}"))
    (reply,) = read(call)
    assert isinstance(reply, AIMessage)
    assert reply.tool_calls == [{"name": "find", "args": {}, "id": "call_0", "type": "tool_call"}]


# -- the reply that is sent back -------------------------------------------------------------------------------

ITEMS: list[dict[str, Any]] = [
    message("Hello ", {"type": "refusal", "refusal": "No."}),
    message({"type": "refusal", "refusal": "No."}),
    message("a", {"type": "output_picture", "data": "QQ=="}),
    function_call('{"b": 1, "a": [2]}'),
    function_call("oops"),
    function_call("", namespace="n"),
    {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "print(1)"},
    {"type": "mcp_call", "id": "m", "name": "find", "arguments": "{}", "server_label": "docs", "output": "x"},
    {"type": "mcp_list_tools", "id": "l", "server_label": "docs", "tools": []},
    {"type": "computer_call", "call_id": "c", "id": "x", "action": {"type": "click", "x": 1}},
    {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {"paths": ["x"]}},
    {"type": "tool_search_output", "execution": "server", "tools": []},
    {"type": "web_search_call", "id": "w", "action": {"query": "x"}},
    {"type": "image_generation_call", "id": "i", "result": "QQ=="},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"},
]  # fmt: skip


@unhurried
@given(st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4), st.booleans())
def test_a_reply_that_is_sent_back_has_the_same_id(items: list[dict[str, Any]], with_ids: bool) -> None:
    """With the ids of its items or without them, as in requests with `store=False`."""
    items = [
        {key: item[key] for key in item if with_ids or item["type"] == "mcp_call" or key != "id"}
        for item in items
    ]
    reply = decoded(ended("completed", *items))[1].message()
    question, again = {"role": "user", "content": "Hi"}, {"role": "user", "content": "And?"}
    recorded = [HumanMessage("Hi"), reply, HumanMessage("And?")]
    assert path_ids("c", read(question, *items, again)) == path_ids("c", recorded)


@pytest.mark.parametrize("stream", STREAMS or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")],
                         ids=name_of if STREAMS else None)  # fmt: skip
def test_a_genuine_output_that_is_sent_back_has_the_same_id(stream: Stream) -> None:
    """The next request holds the output of the last event."""
    _, reply = decoded(stream.body)
    last = [value_of(line[6:]) for line in stream.body.decode().splitlines() if line.startswith("data: ")][-1]
    request = stream.request or {}
    asked = responses_messages(request)
    items = [*request["input"], *last["response"]["output"]] if isinstance(request["input"], list) else None
    if items is None:
        items = [{"role": "user", "content": request["input"]}, *last["response"]["output"]]
    assert path_ids("c", responses_messages({**request, "input": items})) == path_ids(
        "c", [*asked, reply.message()]
    )


def test_genuine_conversations_continue_the_recorded_reply(streams: list[Stream]) -> None:
    """Real applications sent these requests; some of them hold the reply to a request before."""
    continued = []
    for before in STREAMS:
        reply = decoded(before.body)[1].message()
        assert isinstance(reply.content, str)
        reply.content = reply.content.replace(
            "\u2019", "'"
        )  # as in the requests, which a tool stored in ASCII
        path = [*responses_messages(before.request or {}), reply]
        for after in STREAMS:
            found = responses_messages(after.request or {})
            if before.name[:-2] == after.name[:-2] and len(found) > len(path):
                assert path_ids("c", found)[: len(path)] == path_ids("c", path), (before.name, after.name)
                continued.append(after.name)
    assert len(continued) >= 3


_ITEMS = st.one_of(responses._items, st.fixed_dictionaries(
    {"role": st.one_of(st.sampled_from(("user", "assistant", "system", "developer", "tool", "ai")), odd)},
    optional={"content": st.one_of(texts, st.lists(responses._parts, max_size=2), odd), "type": odd, "name": odd},
))  # fmt: skip


@unhurried
@given(st.one_of(st.lists(_ITEMS, max_size=4), odd), odd)
def test_requests_of_any_shape_can_be_stored(value: Any, instructions: Any) -> None:
    """No request raises, and each message survives its stored form."""
    for found in responses_messages({"input": value, "instructions": instructions}):
        assert from_dict(to_dict(found)) == found
        assert content_key(found)
        assert dumps(to_dict(found))
