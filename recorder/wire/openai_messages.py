"""Messages as OpenAI chat completions take them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recorder.jsons import dumps
from recorder.messages import AIMessage, BaseMessage, ToolMessage, from_any

#: What langchain-openai calls it too.
_ROLE = "__openai_role__"
#: What an assistant message may carry beside content and calls.
_CARRIED = ("refusal", "audio", "function_call")


def request_messages(messages: Iterable[Any]) -> list[dict[str, Any]]:
    """The `messages` of a request; dicts with a role are sent as they are."""
    return [
        message if isinstance(message, dict) and "role" in message else to_openai(from_any(message))
        for message in messages
    ]


def to_openai(message: BaseMessage) -> dict[str, Any]:
    """One message. https://platform.openai.com/docs/api-reference/chat/create"""
    sent: dict[str, Any] = {"role": message.additional_kwargs.get(_ROLE, message.role)}
    sent["content"] = (
        [block for block in map(_block, message.content) if block] if _listed(message) else message.content
    )
    if message.name:
        sent["name"] = message.name
    if isinstance(message, ToolMessage):
        sent["tool_call_id"] = message.tool_call_id
    if isinstance(message, AIMessage):
        _assistant(message, sent)
    return sent


def _listed(message: BaseMessage) -> bool:
    return isinstance(message.content, list)


def _block(block: Any) -> dict[str, Any] | None:
    """A content block; calls and thinking have their own places, or none, in this format."""
    if isinstance(block, str):
        return {"type": "text", "text": block}
    if block.get("type") in ("tool_use", "thinking", "redacted_thinking", "reasoning"):
        return None
    return dict(block)


def _assistant(message: AIMessage, sent: dict[str, Any]) -> None:
    calls = [_call(call["id"], call["name"], dumps(call["args"])) for call in message.tool_calls]
    calls += [_call(call["id"], call["name"], call["args"]) for call in message.invalid_tool_calls]
    if calls:
        sent["tool_calls"] = calls
        sent["content"] = sent["content"] or None
    for key in _CARRIED:
        if message.additional_kwargs.get(key):
            sent[key] = message.additional_kwargs[key]


def _call(call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name or "", "arguments": arguments or ""}
    return {"type": "function", "id": call_id, "function": function}
