"""Messages are converted to the form of OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.messages import AIMessage, AIMessageChunk, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.wire.openai.request import request_messages

CALL = {"name": "f", "args": {"a": [1, "ü"]}, "id": "call_1"}
SENT = {"type": "function", "id": "call_1", "function": {"name": "f", "arguments": '{"a":[1,"ü"]}'}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (HumanMessage("Hi"), {"role": "user", "content": "Hi"}),
        (HumanMessage("Hi", name="ann"), {"role": "user", "content": "Hi", "name": "ann"}),
        (SystemMessage("Be brief."), {"role": "system", "content": "Be brief."}),
        (
            SystemMessage("Be kind.", additional_kwargs={"__openai_role__": "developer"}),
            {"role": "developer", "content": "Be kind."},
        ),
        (ChatMessage("Psst", role="critic"), {"role": "critic", "content": "Psst"}),
        (
            HumanMessage(["Who?", PICTURE]),
            {"role": "user", "content": [{"type": "text", "text": "Who?"}, PICTURE]},
        ),
        (
            ToolMessage("20 °C", tool_call_id="call_1", name="f", status="error"),
            {"role": "tool", "content": "20 °C", "tool_call_id": "call_1"},
        ),
        (AIMessage("Hello"), {"role": "assistant", "content": "Hello"}),
        (AIMessage("", tool_calls=[CALL]), {"role": "assistant", "content": None, "tool_calls": [SENT]}),
        (AIMessage("So:", tool_calls=[CALL]), {"role": "assistant", "content": "So:", "tool_calls": [SENT]}),
        (
            AIMessage("", invalid_tool_calls=[{**CALL, "args": '{"a'}]),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{**SENT, "function": {"name": "f", "arguments": '{"a'}}],
            },
        ),
        (
            AIMessage([{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"},
                       {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}], tool_calls=[CALL]),
            {"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "tool_calls": [SENT]},
        ),
        (
            AIMessage("", additional_kwargs={"refusal": "No.", "reasoning_content": "Hm"}),
            {"role": "assistant", "content": "", "refusal": "No."},
        ),
        (
            AIMessage("", additional_kwargs={"audio": {"id": "audio_1", "data": "UklGRg==", "transcript": "Hi"}}),
            {"role": "assistant", "content": "", "audio": {"id": "audio_1"}},
        ),
        (
            AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}}),
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        ),
        (
            AIMessage("", tool_calls=[CALL], additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}}),
            {"role": "assistant", "content": None, "tool_calls": [SENT]},
        ),
        (("ai", "Hello"), {"role": "assistant", "content": "Hello"}),
        ({"role": "human", "content": "Hi"}, {"role": "user", "content": "Hi"}),
        ({"type": "ai", "content": "Hello"}, {"role": "assistant", "content": "Hello"}),
        (
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "assistant", "content": None, "tool_calls": [SENT]},
        ),
    ],
)  # fmt: skip
def test_a_message_is_converted_to_the_apis_form(message: Any, sent: dict[str, Any]) -> None:
    """Recorder's messages, tuples and dicts of both libraries are accepted."""
    assert request_messages([message]) == [sent]


_DATA = "UklGRg=="
#: Blocks of data in the forms that LangChain accepts: its own old and new ones, OpenAI's and Anthropic's.
_BLOCKS: dict[str, dict[str, Any]] = {
    "image, new": {"type": "image", "base64": _DATA, "mime_type": "image/png"},
    "image, new, by URL": {"type": "image", "url": "https://example.org/cat.png"},
    "image, old": {"type": "image", "source_type": "base64", "data": _DATA, "mime_type": "image/png"},
    "image, old, by URL": {"type": "image", "source_type": "url", "url": "https://example.org/cat.png"},
    "image, Anthropic's": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": _DATA},
    },
    "image, Anthropic's, by URL": {
        "type": "image",
        "source": {"type": "url", "url": "https://example.org/cat.png"},
    },
    "image, OpenAI's": PICTURE,
    "sound, new": {"type": "audio", "base64": _DATA, "mime_type": "audio/wav"},
    "sound, old": {"type": "audio", "source_type": "base64", "data": _DATA, "mime_type": "audio/mp3"},
    "sound, OpenAI's": {"type": "input_audio", "input_audio": {"data": _DATA, "format": "wav"}},
    "file, new": {
        "type": "file",
        "base64": _DATA,
        "mime_type": "application/pdf",
        "extras": {"filename": "a.pdf"},
    },
    "file, old": {
        "type": "file",
        "source_type": "base64",
        "data": _DATA,
        "mime_type": "application/pdf",
        "filename": "b.pdf",
    },
    "file, new, by id": {"type": "file", "file_id": "file-1"},
    "file, old, by id": {"type": "file", "source_type": "id", "id": "file-1"},
    "file, OpenAI's": {"type": "file", "file": {"file_id": "file-1"}},
    "text": {"type": "text", "text": "Hi"},
    "thinking": {"type": "thinking", "thinking": "Hm"},
    "a call": {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
    "an unknown type": {"type": "hologram", "data": _DATA},
}


@pytest.mark.parametrize("block", _BLOCKS.values(), ids=_BLOCKS)
def test_blocks_are_converted_as_in_langchain(block: dict[str, Any]) -> None:
    """The request of an application does not change with the library."""
    base = pytest.importorskip("langchain_openai.chat_models.base")
    content = [{"type": "text", "text": "See:"}, block]
    (sent,) = request_messages([HumanMessage(content)])
    assert sent == {"role": "user", "content": base._format_message_content(content, role="human")}


def test_a_file_without_a_name_gets_langchains_default_name() -> None:
    """LangChain also warns of it."""
    block = {"type": "file", "base64": _DATA, "mime_type": "application/pdf"}
    (sent,) = request_messages([HumanMessage([block])])
    assert sent["content"][0]["file"]["filename"] == "LC_AUTOGENERATED"


def test_the_sum_of_chunks_is_sent_with_complete_calls() -> None:
    """The calls were streamed in pieces."""
    pieces = [{"name": "f", "args": '{"a": [1,', "id": "call_1", "index": 0}, {"args": ' "ü"]}', "index": 0}]
    chunks = [
        AIMessageChunk("", tool_call_chunks=[{"name": None, "id": None, "type": "tool_call_chunk", **piece}])  # type: ignore[typeddict-item]
        for piece in pieces
    ]
    (sent,) = request_messages([chunks[0] + chunks[1]])
    assert sent["tool_calls"] == [SENT]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]},
        {"role": "developer", "content": "Be kind.", "name": "boss"},
        {"role": "assistant", "content": None, "tool_calls": [SENT], "anything": "new"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
        {"role": "function", "name": "f", "content": "1"},
    ],
    ids=lambda message: message["role"],
)  # fmt: skip
def test_messages_in_the_apis_form_are_not_changed(message: dict[str, Any]) -> None:
    """Fields that recorder does not know are kept, too."""
    assert request_messages([message]) == [message]
