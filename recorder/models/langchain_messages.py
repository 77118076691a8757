"""Makes LangChain's messages and chunks of recorder's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core import messages as langchain

from recorder.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

_PLAIN: dict[str, Callable[..., langchain.BaseMessage]] = {
    "user": langchain.HumanMessage,
    "system": langchain.SystemMessage,
}


def to_langchain(message: BaseMessage) -> langchain.BaseMessage:
    """The message as LangChain's class of the same name."""
    if isinstance(message, AIMessage):
        more = ("tool_calls", "invalid_tool_calls", "usage_metadata")
        return langchain.AIMessage(**_shared(message), **{name: getattr(message, name) for name in more})
    if isinstance(message, ToolMessage):
        result = {"tool_call_id": message.tool_call_id, "status": message.status}
        return langchain.ToolMessage(**_shared(message), **result)
    if message.type == "chat" or message.role not in _PLAIN:
        return langchain.ChatMessage(**_shared(message), role=message.role)
    return _PLAIN[message.role](**_shared(message))


def chunk_to_langchain(chunk: AIMessageChunk) -> langchain.AIMessageChunk:
    """The chunk as LangChain's."""
    more = ("tool_call_chunks", "usage_metadata", "chunk_position")
    return langchain.AIMessageChunk(**_shared(chunk), **{name: getattr(chunk, name) for name in more})


def _shared(message: BaseMessage) -> dict[str, Any]:
    return {
        "content": message.content,
        "additional_kwargs": message.additional_kwargs,
        "response_metadata": message.response_metadata,
        "name": message.name,
        "id": message.id,
    }
