"""Messages as the `input` of a Responses request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseFunctionToolCall

from recorder.errors import ConfigError
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.messages.identity import path_ids
from recorder.wire.openai.responses_input import (
    Destination,
    input_items,
    is_item,
    messages_and_items,
    recorded_messages,
)
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.reasoning import origin_of
from tests.responses import decoded, ended, function_call, message
from tests.wire.openai.test_responses_outline import ITEMS
from tests.wires import unhurried

HERE = Destination("here")
IMAGE = {"type": "input_image", "image_url": "https://a/b.png"}


def sent(*messages: Any, to: Destination = HERE) -> list[Any]:
    """Return the items of an input."""
    return input_items(messages_and_items([*messages]), to)


def item(content: Any, role: str = "user") -> dict[str, Any]:
    """Return the item of a message."""
    return {"type": "message", "role": role, "content": content}


# -- the user and the application ------------------------------------------------------------------------------

BLOCKS: list[tuple[Any, Any]] = [
    ({"type": "text", "text": "Hi"}, {"type": "input_text", "text": "Hi"}),
    ("Hi", {"type": "input_text", "text": "Hi"}),
    ({"type": "input_text", "text": "Hi"}, {"type": "input_text", "text": "Hi"}),
    (
        {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
        {**IMAGE, "detail": "low"},
    ),
    ({"type": "image_url", "image_url": "https://a/b.png"}, IMAGE),
    ({"type": "image", "url": "https://a/b.png"}, IMAGE),
    (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
        {"type": "input_image", "image_url": "data:image/png;base64,QQ=="},
    ),
    ({"type": "input_image", "file_id": "file-1"}, {"type": "input_image", "file_id": "file-1"}),
    (
        {"type": "file", "file": {"file_data": "QQ==", "filename": "a.pdf"}},
        {"type": "input_file", "file_data": "QQ==", "filename": "a.pdf"},
    ),
    ({"type": "file", "file_id": "file-1"}, {"type": "input_file", "file_id": "file-1"}),
    ({"type": "non_standard", "value": IMAGE}, IMAGE),
]


@pytest.mark.parametrize(("block", "expected"), BLOCKS, ids=lambda value: str(value)[:40])
def test_blocks_of_all_formats_become_parts(block: Any, expected: dict[str, Any]) -> None:
    """Those of chat completions, of Anthropic and of LangChain."""
    assert sent(HumanMessage([block])) == [item([expected])]


def test_texts_keep_their_roles() -> None:
    """System and developer messages are items, as LangChain sends them."""
    given = [
        SystemMessage("Be brief."),
        ("developer", "No jokes."),
        ("user", "Hi"),
        {"role": "ai", "content": "Ho"},
    ]
    *texts, reply = sent(*given)
    assert texts == [item("Be brief.", "system"), item("No jokes.", "developer"), item("Hi")]
    assert reply == item([{"type": "output_text", "text": "Ho", "annotations": []}], "assistant")


def test_a_block_that_is_an_item_stands_alone() -> None:
    """It comes before the text of the message."""
    approval = {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}
    text = {"type": "text", "text": "Go on."}
    assert sent(HumanMessage([text, approval])) == [
        approval,
        item([{"type": "input_text", "text": "Go on."}]),
    ]
    assert sent(HumanMessage([approval])) == [approval]


def test_items_in_the_apis_form_are_sent_unchanged() -> None:
    """As dicts and as objects of the SDK; each message and item is recorded once."""
    call = function_call("{}")
    result = {"type": "function_call_output", "call_id": "call_0", "output": "found"}
    given = [HumanMessage("Hi"), ResponseFunctionToolCall(**call), result, item("And?")]
    assert sent(*given) == [item("Hi"), call, result, item("And?")]
    found = recorded_messages(messages_and_items(given), "Be brief.")
    assert [(each.role, each.text) for each in found] == [
        ("system", "Be brief."), ("user", "Hi"), ("assistant", ""), ("tool", "found"), ("user", "And?"),
    ]  # fmt: skip
    assert isinstance(found[2], AIMessage)
    assert found[2].tool_calls[0]["id"] == "call_0"


def test_messages_of_other_apis_are_no_items() -> None:
    """Their words for types look like those of items."""
    answer = {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"}
    human = {"type": "human", "content": "Hi"}
    for value in ({"type": "tool_call"}, human, AIMessage("Hi"), "Hi", ("user", "Hi"), answer, {"type": 5}):
        assert not is_item(value)
    with pytest.raises(ConfigError, match="cannot read a message from dict"):
        sent({"type": "tool_call"})


def test_results_of_anthropics_form_are_results() -> None:
    """A user's message there may hold them."""
    block = {"type": "tool_result", "tool_use_id": "c", "content": "warm"}
    assert sent({"role": "user", "content": [block, {"type": "text", "text": "Go on."}]}) == [
        {"type": "function_call_output", "call_id": "c", "output": "warm"},
        item([{"type": "input_text", "text": "Go on."}]),
    ]


# -- results of tools ------------------------------------------------------------------------------------------

SCREEN = {"type": "computer_screenshot", "image_url": "u"}
RESULTS: list[tuple[ToolMessage, dict[str, Any]]] = [
    (ToolMessage("warm", "c"), {"type": "function_call_output", "call_id": "c", "output": "warm"}),
    (
        ToolMessage([{"type": "text", "text": "warm"}, {"type": "image", "url": "https://a/b.png"}], "c"),
        {"type": "function_call_output", "call_id": "c",
         "output": [{"type": "input_text", "text": "warm"}, IMAGE]},
    ),
    (
        ToolMessage([{"type": "document", "a": 1}], "c"),
        {"type": "function_call_output", "call_id": "c", "output": '[{"type":"document","a":1}]'},
    ),
    (
        ToolMessage([{"type": "computer_call_output", "output": SCREEN}], "c"),
        {"type": "computer_call_output", "call_id": "c", "output": SCREEN},
    ),
    (
        ToolMessage(
            [{"type": "input_image", "image_url": "u"}], "c", additional_kwargs={"type": "computer_call_output"}
        ),
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "input_image", "image_url": "u"}},
    ),
    (
        ToolMessage("u", "c", additional_kwargs={"type": "computer_call_output", "acknowledged_safety_checks": []}),
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "input_image", "image_url": "u"},
         "acknowledged_safety_checks": []},
    ),
    (
        ToolMessage([{"type": "apply_patch_call_output"}], "c", status="error"),
        {"type": "apply_patch_call_output", "call_id": "c", "status": "failed"},
    ),
    (
        ToolMessage([{"type": "custom_tool_call_output", "output": "x"}], "c"),
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("result", "expected"), RESULTS, ids=lambda value: str(value)[:60])
def test_a_result_has_the_type_of_its_block(result: ToolMessage, expected: dict[str, Any]) -> None:
    """Or the one that LangChain has in `additional_kwargs`; without either, it is that of a function."""
    assert sent(result) == [expected]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("function_call", "function_call_output"), ("custom_tool_call", "custom_tool_call_output"),
     ("local_shell_call", "local_shell_call_output")],
)  # fmt: skip
def test_a_result_has_the_type_that_its_call_wants(kind: str, expected: str) -> None:
    """The call is in an earlier message."""
    extras = {} if kind == "function_call" else {"extras": {"type": kind}}
    call = {"name": "run", "args": {"__arg1": "ls"}, "id": "c", **extras}
    *_, result = sent(AIMessage("", tool_calls=[call]), ToolMessage("a.txt", "c"))
    assert (result["type"], result.get("call_id") or result["id"]) == (expected, "c")


# -- replies ---------------------------------------------------------------------------------------------------


def reply_from(host: str | None, items: list[dict[str, Any]]) -> AIMessage:
    """Return the reply with these items, as a model of this host returns it."""
    reply = decoded(ended("completed", *items))[1]
    found = reply.message()
    found.response_metadata |= origin_of(host, (), reply.tool_calls(), reply.origin)
    return found


@unhurried
@given(
    st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5, unique_by=lambda item: item["id"]),
    st.sampled_from(("here", "there", None)),
    st.booleans(),
)
def test_a_reply_that_is_sent_back_is_the_same_message(
    items: list[dict[str, Any]], host: str | None, stored: bool
) -> None:
    """To its host and to another one, with stored items and without."""
    reply = reply_from(host, items)
    conversation = [HumanMessage("Hi"), reply, HumanMessage("And?")]
    given = {"input": sent(*conversation, to=Destination("here", stored))}
    assert path_ids("c", responses_messages(given)) == path_ids("c", conversation)
    if host != "here":
        assert "encrypted_content" not in str(given)


def test_a_reply_of_another_format_is_its_text_and_its_calls() -> None:
    """Reasoning and blocks of Anthropic stay where they are from."""
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c", "name": "find", "input": {"a": 1}},
    ]
    given = {"role": "assistant", "content": blocks}
    assert sent(given) == [
        item([{"type": "output_text", "text": "Let me see.", "annotations": []}], "assistant"),
        {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"a":1}'},
    ]


def test_the_blocks_of_langchain_are_items() -> None:
    """Its messages have the items of a response as blocks, and texts with the id of their message."""
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "find", "arguments": "{}"}
    summary = {"type": "summary_text", "text": "Hm."}
    cited = {"type": "file_citation", "file_id": "file-1"}
    blocks = [
        {"type": "reasoning", "id": "rs_1", "summary": [{**summary, "index": 0}], "index": 0},
        {
            "type": "text",
            "text": "Let ",
            "annotations": [{**cited, "file_index": 3}],
            "id": "msg_1",
            "index": 1,
        },
        {"type": "refusal", "refusal": "No.", "id": "msg_1", "index": 2},
        {**call, "index": 3},
        {"type": "text", "text": "Me.", "id": "lc_2", "phase": "final_answer"},
    ]
    calls: list[Any] = [{"name": "find", "args": {}, "id": id, "type": "tool_call"} for id in ("c", "d")]
    given = AIMessage(blocks, tool_calls=calls)
    parts = [
        {"type": "output_text", "text": "Let ", "annotations": [{**cited, "index": 3}]},
        {"type": "refusal", "refusal": "No."},
    ]
    last = {"type": "output_text", "text": "Me.", "annotations": []}
    assert sent(given) == [
        {"type": "reasoning", "id": "rs_1", "summary": [summary]},
        {**item(parts, "assistant"), "id": "msg_1"},
        call,
        {**item([last], "assistant"), "phase": "final_answer"},
        {"type": "function_call", "call_id": "d", "name": "find", "arguments": "{}"},
    ]


def test_ids_are_not_sent_without_the_items_before_them() -> None:
    """LangChain has other blocks for reasoning, too; OpenAI refuses the id of a text whose reasoning is missing."""
    blocks = [
        {"type": "reasoning", "id": "rs_1", "reasoning": "Hm."},
        {"type": "text", "text": "Ho", "id": "msg_1"},
    ]
    assert sent(AIMessage(blocks)) == [
        item([{"type": "output_text", "text": "Ho", "annotations": []}], "assistant")
    ]
    assert sent(AIMessage([*blocks[1:], {"type": "tool_call", "id": "c"}]))[0]["id"] == "msg_1"


def test_an_empty_reply_and_a_refusal_are_messages() -> None:
    """So the conversation keeps its turns."""
    refusal = AIMessage("", additional_kwargs={"refusal": "No."})
    empty, refused = sent(AIMessage(""), refusal)
    assert empty["content"] == [{"type": "output_text", "text": "", "annotations": []}]
    assert refused["content"] == [{"type": "refusal", "refusal": "No."}]


def test_other_keys_of_a_call_go_to_the_host_that_sent_them() -> None:
    """Another host refuses them, and so does OpenAI with those of another format."""
    items = [function_call("{}", namespace="n")]
    plain = {"type": "function_call", "call_id": "call_0", "name": "find", "arguments": "{}"}
    assert sent(reply_from("here", items)) == [{**plain, "namespace": "n"}]
    assert sent(reply_from("there", items)) == [plain]
    call = {"name": "find", "args": {}, "id": "call_0", "extras": {"extra_content": {"google": {}}}}
    assert sent(AIMessage("", tool_calls=[call])) == [plain]


def test_invalid_arguments_are_sent_as_they_came() -> None:
    """The model sees what it wrote."""
    reply = reply_from("here", [message("Hm."), function_call("oops", index=1)])
    assert sent(reply)[1]["arguments"] == "oops"
