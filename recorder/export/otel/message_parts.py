"""Messages as the conventions write them: `{role, parts: [{type: text | tool_call | ...}]}`, as JSON of limited size.

https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-input-messages.json
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recorder.core.json import dumps
from recorder.export.otel.span_texts import clean
from recorder.messages import AIMessage, BaseMessage, ToolMessage

#: Characters of the texts of one attribute. The newest messages are kept whole, the first ones are cut or left out.
MAX_CONTENT = 100_000
#: Blocks of a message.
_MAX_PARTS = 200
#: Wire formats that send instructions apart from the messages.
_APART = ("anthropic.", "gemini.", "openai.responses")
_INSTRUCTIONS = ("system", "developer")


class _ContentBudget:
    """The characters that are left."""

    def __init__(self) -> None:
        self.left = MAX_CONTENT

    def cut(self, text: str) -> str:
        """The text, or its beginning with its length."""
        kept = clean(text[: max(0, self.left)])
        self.left -= len(text)
        return kept if len(kept) == len(text) else f"{kept}... ({len(text):,} characters)"

    def value(self, value: Any) -> Any:
        """A JSON value; one that is too long becomes a text."""
        text = dumps(value)
        if len(text) <= self.left:
            self.left -= len(text)
            return value
        return self.cut(text)


def input_of(messages: Sequence[BaseMessage], wire: str | None) -> tuple[str | None, str | None]:
    """The attributes for the messages and for the instructions of a request; None for what it does not have."""
    count = _leading_instructions(messages) if (wire or "").startswith(_APART) else 0
    apart, rest = messages[:count], messages[count:]
    parts = [part for message in apart for part in _parts(message, _ContentBudget())]
    return _joined(rest), dumps(parts) if parts else None


def output_of(replies: Sequence[BaseMessage], finish_reason: str | None) -> str | None:
    """The attribute for the replies; None without one."""
    more = {"finish_reason": finish_reason} if finish_reason else {}
    return _joined(replies, more)


def _leading_instructions(messages: Sequence[BaseMessage]) -> int:
    count = 0
    while count < len(messages) and messages[count].role in _INSTRUCTIONS:
        count += 1
    return count


def _joined(messages: Sequence[BaseMessage], more: Mapping[str, Any] | None = None) -> str | None:
    """The messages as JSON. From the last one back, so that what is left out is the oldest."""
    budget, found = _ContentBudget(), []
    for message in reversed(messages):
        if budget.left <= 0:
            break
        found.append({"role": clean(message.role), "parts": [*_parts(message, budget)], **(more or {})})
    return dumps(found[::-1]) if found else None


def _parts(message: BaseMessage, budget: _ContentBudget) -> Iterator[dict[str, Any]]:
    if isinstance(message, ToolMessage):
        yield {"type": "tool_call_response", "id": message.tool_call_id, "response": budget.cut(message.text)}
        return
    blocks = [message.content] if isinstance(message.content, str) else message.content[:_MAX_PARTS]
    for block in blocks:
        if (part := _part(block, budget)) is not None:
            yield part
    if isinstance(message, AIMessage):
        for call in message.tool_calls[:_MAX_PARTS]:
            arguments = budget.value(call["args"])
            yield {"type": "tool_call", "id": call["id"], "name": clean(call["name"]), "arguments": arguments}
        for broken in message.invalid_tool_calls[:_MAX_PARTS]:
            arguments = budget.cut(broken.get("args") or "")
            yield {
                "type": "tool_call",
                "id": broken.get("id"),
                "name": broken.get("name"),
                "arguments": arguments,
            }


def _part(block: Any, budget: _ContentBudget) -> dict[str, Any] | None:
    """One block. Of images, files and what is unknown only the type; None for a call, which the message has too."""
    if isinstance(block, str):
        return {"type": "text", "content": budget.cut(block)} if block else None
    if not isinstance(block, Mapping):
        return None
    kind = block.get("type", "text")
    if kind in ("tool_use", "tool_call", "function_call", "input_json_delta"):
        return None
    for key, type_ in (("thinking", "reasoning"), ("reasoning", "reasoning"), ("text", "text")):
        if isinstance(text := block.get(key), str):
            return {"type": "reasoning" if kind == "reasoning" else type_, "content": budget.cut(text)}
    return {"type": clean(str(kind))[:100]}
