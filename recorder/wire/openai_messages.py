"""Messages as OpenAI chat completions take them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recorder.jsons import dumps
from recorder.messages import AIMessage, BaseMessage, ToolMessage, from_any

#: What langchain-openai calls it too.
_ROLE = "__openai_role__"
#: The roles of the API; LangChain's dicts say human and ai.
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))


def request_messages(messages: Iterable[Any]) -> list[dict[str, Any]]:
    """The `messages` of a request; dicts that are in the API's form are sent as they are."""
    return [message if _is_openai(message) else to_openai(from_any(message)) for message in messages]


def _is_openai(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        return False
    # LangChain's calls have name and args in place of function.
    return all("name" not in call for call in message.get("tool_calls") or () if isinstance(call, dict))


def to_openai(message: BaseMessage) -> dict[str, Any]:
    """One message. https://platform.openai.com/docs/api-reference/chat/create"""
    sent: dict[str, Any] = {"role": message.additional_kwargs.get(_ROLE, message.role)}
    sent["content"] = (
        [block for block in map(_block, message.content) if block] if _listed(message) else message.content
    )
    if isinstance(message, ToolMessage):
        return {**sent, "tool_call_id": message.tool_call_id}
    if message.name:
        sent["name"] = message.name
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
    more = message.additional_kwargs
    calls = [_call(call["id"], call["name"], dumps(call["args"])) for call in message.tool_calls]
    calls += [_call(call["id"], call["name"], call["args"]) for call in message.invalid_tool_calls]
    if calls:
        sent["tool_calls"] = calls
    elif more.get("function_call"):  # the API takes one of the two
        sent["function_call"] = more["function_call"]
    if calls or more.get("function_call"):
        sent["content"] = sent["content"] or None
    if more.get("refusal"):
        sent["refusal"] = more["refusal"]
    if "id" in (more.get("audio") or ()):  # the API knows the sound by its id, and takes nothing else
        sent["audio"] = {"id": more["audio"]["id"]}


def _call(call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name or "", "arguments": arguments or ""}
    return {"type": "function", "id": call_id, "function": function}
