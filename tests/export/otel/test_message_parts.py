"""Messages are written in the form of the conventions, and are bounded."""

from __future__ import annotations

import json
from typing import Any

from recorder.export.otel.message_parts import MAX_CONTENT, input_of, output_of
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage


def parsed(text: str | None) -> Any:
    """Return the value of JSON text."""
    assert text is not None
    return json.loads(text)


def test_calls_results_and_reasoning_are_parts() -> None:
    """Broken calls keep their text; of an image only the type is there."""
    call = AIMessage(
        [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Wait."},
            {"type": "tool_use", "id": "t1"},
        ],
        tool_calls=[{"name": "add", "args": {"a": 1}, "id": "t1"}],
        invalid_tool_calls=[{"name": "add", "args": "{", "id": "t2", "error": None}],
    )
    asked = HumanMessage(["Look:", {"type": "image_url", "image_url": {"url": "data:secret"}}])
    messages, instructions = input_of([asked, call, ToolMessage("2", "t1")], "openai.chat")
    assert instructions is None
    assert parsed(messages) == [
        {"role": "user", "parts": [{"type": "text", "content": "Look:"}, {"type": "image_url"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "text", "content": "Wait."},
                {"type": "tool_call", "id": "t1", "name": "add", "arguments": {"a": 1}},
                {"type": "tool_call", "id": "t2", "name": "add", "arguments": "{"},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", "response": "2"}]},
    ]


def test_instructions_are_apart_where_the_provider_takes_them_apart() -> None:
    """In chat completions they are messages like the others."""
    sent = [SystemMessage("Be brief."), HumanMessage("Hi")]
    apart = input_of(sent, "anthropic.messages")
    assert parsed(apart[1]) == [{"type": "text", "content": "Be brief."}]
    assert [message["role"] for message in parsed(apart[0])] == ["user"]
    assert [message["role"] for message in parsed(input_of(sent, "openai.chat")[0])] == ["system", "user"]


def test_the_newest_messages_are_kept() -> None:
    """What is too long is cut, and what came before is left out."""
    sent = [HumanMessage("first"), HumanMessage("x" * MAX_CONTENT), HumanMessage("last")]
    found = parsed(input_of(sent, None)[0])
    assert [message["parts"][0]["content"][-20:] for message in found] == [
        "x... (100,000 characters)"[-20:],
        "last",
    ]


def test_a_reply_has_its_finish_reason() -> None:
    """Without a reply there is no attribute."""
    assert parsed(output_of([AIMessage("Hi")], "stop")) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hi"}], "finish_reason": "stop"}
    ]
    assert output_of([], "error") is None
