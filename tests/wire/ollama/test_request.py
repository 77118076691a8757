"""The messages of a request to Ollama: what a client sends back means the same as the recorded reply."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.messages.identity import content_key
from recorder.wire.ollama.request import (
    chat_messages,
    generate_messages,
    is_chat_request,
    is_generate_request,
)
from tests.wire.ollama.test_stream import CALL, DONE, chat, reply_of
from tests.wires import ODD_VALUES

STREAM = [
    chat(thinking="Hm. "), chat(content="Hel"), chat(content="lo!"), chat(tool_calls=[CALL]),
    chat(tool_calls=[{"function": {"name": "now", "arguments": {}}}]), chat() | DONE,
]  # fmt: skip
#: The calls as the client of ollama sends them back: without id and index.
_CALLS: list[Any] = [
    {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}},
    {"function": {"name": "now", "arguments": {}}},
]
WAYS: dict[str, dict[str, Any]] = {
    "the client of ollama": {"content": "Hello!", "thinking": "Hm. ", "tool_calls": _CALLS},
    "without reasoning": {"content": "Hello!", "tool_calls": _CALLS},
    "with ids": {"content": "Hello!", "tool_calls": [CALL, _CALLS[1]]},
    "with ids of the client's own": {
        "content": "Hello!", "tool_calls": [{**each, "id": f"own-{number}"} for number, each in enumerate(_CALLS)]
    },
    "with a type, and arguments as a text": {
        "content": "Hello!",
        "tool_calls": [
            {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}, _CALLS[1]
        ],
    },
    "with trailing spaces": {"content": "Hello! \n", "tool_calls": _CALLS},
}  # fmt: skip


@pytest.mark.parametrize("sent", WAYS.values(), ids=WAYS)
def test_a_reply_that_comes_back_is_the_recorded_one(sent: dict[str, Any]) -> None:
    """So a conversation is not stored twice."""
    [reply] = chat_messages({"messages": [{"role": "assistant", **sent}]})
    assert content_key(reply) == content_key(reply_of(*STREAM).message())


def test_a_reply_without_text_comes_back_without_content() -> None:
    """The client leaves out what is empty."""
    recorded = reply_of(chat(tool_calls=[CALL]), chat() | DONE).message()
    [sent] = chat_messages({"messages": [{"role": "assistant", "tool_calls": _CALLS[:1]}]})
    assert content_key(sent) == content_key(recorded)


def test_roles_and_results_of_tools() -> None:
    """A result names its tool. Some clients send the id of the call, too."""
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Is it sunny?"},
            {"role": "assistant", "content": "Let me see.", "thinking": "Hm."},
            {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
            {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "sunny"},
        ]
    }
    assert chat_messages(body) == [
        SystemMessage("Be brief."),
        HumanMessage("Is it sunny?"),
        AIMessage("Let me see.", additional_kwargs={"reasoning_content": "Hm."}),
        ToolMessage("sunny", name="get_weather"),
        ToolMessage("sunny", "call_1", name="get_weather"),
    ]


def test_images_are_blocks() -> None:
    """Of a message, and of a prompt."""
    blocks = [{"type": "text", "text": "What is this?"}, {"type": "image", "base64": "aGk="}]
    message = {"role": "user", "content": "What is this?", "images": ["aGk="]}
    assert chat_messages({"messages": [message]}) == [HumanMessage(blocks)]
    assert generate_messages({"prompt": "What is this?", "images": ["aGk="]}) == [HumanMessage(blocks)]


def test_a_prompt_may_have_instructions() -> None:
    """They are the first message."""
    assert generate_messages({"prompt": "Hi"}) == [HumanMessage("Hi")]
    assert generate_messages({"prompt": "Hi", "system": "Be brief."}) == [
        SystemMessage("Be brief."),
        HumanMessage("Hi"),
    ]


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STRANGERS: dict[str, Any] = {
    "a chat of the AI SDK": {
        "id": "1",
        "messages": [{"role": "user", "parts": []}],
        "trigger": "submit-message",
    },
    "no messages": {"model": "m", "messages": []},
    "messages in parts": {
        **CHAT,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    },
    "another role": {**CHAT, "messages": [{"role": "bot", "content": "Hi"}]},
    "a role that is no text": {**CHAT, "messages": [{"role": "user"}, 7]},
    "another parameter": {**CHAT, "temperature": 0.5},
    "a session": {**CHAT, "session_id": "1"},
}


@pytest.mark.parametrize("body", STRANGERS.values(), ids=STRANGERS)
def test_a_chat_of_another_service_is_told_apart(body: dict[str, Any]) -> None:
    """Many applications have the path `/api/chat`. Without messages Ollama only loads the model."""
    assert not is_chat_request(body)


def test_the_requests_of_ollama_are_accepted() -> None:
    """With all of their keys."""
    assert is_chat_request(CHAT)
    assert is_chat_request(
        {**CHAT, "tools": [], "stream": False, "think": "high", "options": {}, "keep_alive": "5m"}
    )
    assert is_generate_request({"model": "m", "prompt": "Hi", "system": "", "raw": True, "context": [1]})
    assert is_generate_request({"model": "m", "prompt": "", "images": ["aGk="]})
    for other in (
        {"model": "m"},
        {"model": "m", "prompt": ""},
        {"model": "m", "prompt": "Hi", "style": "oil"},
    ):
        assert not is_generate_request(other)


ODD: list[Any] = [*ODD_VALUES, [{"role": 7}], [{"function": 7}]]


def test_wrong_types_in_a_request_never_raise() -> None:
    """Each message has an identity."""
    keys = ("content", "images", "tool_calls", "thinking", "tool_name", "tool_call_id", "name")
    for value in ODD:
        bodies: list[Any] = [{"messages": value}, {"messages": [value]}, {"messages": [{"role": value}]}]
        bodies += [
            {"messages": [{"role": role, key: value}]}
            for key in keys
            for role in ("user", "assistant", "tool")
        ]
        for body in bodies:
            is_chat_request(body)
            assert all(content_key(message) for message in chat_messages(body))
        for body in ({"prompt": value}, {"prompt": "Hi", "images": value}, {"prompt": "Hi", "system": value}):
            is_generate_request(body)
            assert all(content_key(message) for message in generate_messages(body))
