"""Accumulates Anthropic's answers, whose content is a list of blocks.

The `idx` of a delta names its block: "0" for block 0 and `0.<index>` for the others (tool calls always
`0.<index>`). The kind of a delta gives the type of the block: text and citation belong to a text block, reasoning and
signature to a thinking block, tool_call (JSON of the id, the name and other keys) and tool_args to a tool_use block.
Everything else is JSON of kind `other`:

* `{"content_block": {...}}`, the first delta of its block, holds the block's start: a block of another type (redacted
  thinking, server tools and their results), an empty block, or a block with unknown keys;
* `{"partial_json": "..."}` is a piece of the input of such a block;
* `{"content_block_delta": {...}}` is any other delta of a block.

So the message, and the stream (see `encode.py`), can be made from the deltas alone, without frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recorder.core.json import loads
from recorder.messages import AIMessage, Content, parse_args
from recorder.messages.merge import merge_dicts
from recorder.wire import usage
from recorder.wire.deltas import CITATION, OTHER, REASONING, SIGNATURE, TEXT, TOOL_ARGS, TOOL_CALL
from recorder.wire.reply import Reply, merge_other

#: Kind of a delta -> the type of its block.
_TYPES = {
    TEXT: "text",
    CITATION: "text",
    REASONING: "thinking",
    SIGNATURE: "thinking",
    TOOL_CALL: "tool_use",
    TOOL_ARGS: "tool_use",
}
#: Type of a block -> the block before its first delta.
_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "id": None, "name": None, "input": {}},
}
#: An `other` delta with one of these keys belongs to a block.
BLOCK_KEYS = frozenset(("content_block", "partial_json", "content_block_delta"))


class AnthropicReply(Reply):
    """One response, as far as it was received. The answer's text is the text of its blocks, joined."""

    __slots__ = ()

    def blocks(self) -> list[dict[str, Any]]:
        """The content blocks as the API sends them in an answer that is not streamed."""
        return list(self.numbered().values())

    def numbered(self) -> dict[int, dict[str, Any]]:
        """The content blocks by their numbers, in order."""
        parts: dict[int, dict[str, list[str]]] = {}
        for (idx, kind), pieces in self._parts.items():
            parts.setdefault(block_of(idx), {}).setdefault(kind, []).extend(pieces)
        found = {number: _block(parts[number]) for number in sorted(parts)}
        return {number: block for number, block in found.items() if block}

    def tool_calls(self, choice: int = 0) -> list[dict[str, Any]]:
        """The tool calls as `{"id", "name", "arguments"}`, without extras: the block of a call has its other keys."""
        calls = super().tool_calls(choice)
        return [{key: call[key] for key in ("id", "name", "arguments")} for call in calls]

    def message(self, choice: int = 0) -> AIMessage:
        """The message in LangChain's shape, complete or as far as it was received."""
        message = super().message(choice)
        if message.usage_metadata is None and self.raw_usage and usage.is_counted(self.raw_usage):
            message.usage_metadata = usage.from_anthropic(self.raw_usage, streamed=True)
        return message

    def settle(self) -> None:
        """Uses the counts of the message's start if its end had none."""
        if self.usage is None and self.raw_usage and usage.is_counted(self.raw_usage):
            self.usage = usage.from_anthropic(self.raw_usage, streamed=True)

    def unstreamed_metadata(self) -> dict[str, Any]:
        """LangChain's additional metadata of an answer that was not streamed: `model` and `usage`."""
        fields: dict[str, Any] = {"model": self.model} if self.model else {}
        return fields | ({"usage": self.raw_usage} if self.raw_usage else {})

    def response_metadata(self, choice: int = 0) -> dict[str, Any]:
        """`stop_reason`, `stop_sequence`, `model_name` and other metadata that the provider sent."""
        fields = super().response_metadata(choice)
        reason = fields.pop("finish_reason", None)
        end = {"stop_reason": reason, "stop_sequence": fields.pop("stop_sequence", None)} if reason else {}
        return end | fields

    def _content(self, choice: int) -> Content:
        """A string if there is only one block, of plain text; otherwise the list of blocks."""
        blocks = self.blocks()
        if not blocks:
            return ""
        is_text = len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text"
        return blocks[0]["text"] if is_text else blocks

    def additional(self, choice: int) -> dict[str, Any]:
        more: dict[str, Any] = {}
        for piece in self._pieces(choice, OTHER):
            if not is_block_json(loads(piece)):
                merge_other(more, piece)
        return more


def is_block_json(fields: Any) -> bool:
    """Whether the JSON of an `other` delta belongs to a block."""
    return isinstance(fields, dict) and not BLOCK_KEYS.isdisjoint(fields)


def block_of(idx: str) -> int:
    """The number of the block that a delta belongs to."""
    _, _, part = idx.partition(".")
    return int(part) if part.isdecimal() else 0


def _block(parts: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
    """Builds one block from its pieces by kind; None if no piece belongs to a block."""
    others = [found for piece in parts.get(OTHER, ()) if is_block_json(found := loads(piece))]
    block = _started(others, next((_TYPES[kind] for kind in parts if kind in _TYPES), None))
    if block is None:
        return None
    block |= _content_keys(block, parts, others)
    if block.get("citations") in (None, []):
        block.pop("citations", None)
    return block


def _started(others: Iterable[dict[str, Any]], type: str | None) -> dict[str, Any] | None:
    """The block at its start; None if no delta describes it."""
    starts = [other["content_block"] for other in others if "content_block" in other]
    if type is not None:
        starts = [_EMPTY[type], *starts]
    return {key: value for each in starts for key, value in each.items()} if starts else None


def _content_keys(
    block: dict[str, Any], parts: Mapping[str, Sequence[str]], others: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """The keys of a block that its deltas set after its start."""
    found: dict[str, Any] = {}
    if TEXT in parts:
        found["text"] = "".join(parts[TEXT])
    if CITATION in parts:
        found["citations"] = [loads(piece) for piece in parts[CITATION]]
    if REASONING in parts:
        found["thinking"] = "".join(parts[REASONING])
    if SIGNATURE in parts:
        found["signature"] = parts[SIGNATURE][-1]  # the SDK also uses the last one
    for piece in parts.get(TOOL_CALL, ()):
        found |= loads(piece)
    inputs = [*parts.get(TOOL_ARGS, ()), *(each["partial_json"] for each in others if "partial_json" in each)]
    if inputs:
        found |= _input("".join(inputs))
    for other in others:
        found |= _with_delta({**block, **found}, other.get("content_block_delta") or {})
    return found


def _input(text: str) -> dict[str, Any]:
    """The parsed input; incomplete JSON stays text, under the key that LangChain uses."""
    parsed = parse_args(text)
    return {"input": parsed} if parsed is not None else {"input": {}, "partial_json": text}


def _with_delta(block: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """The keys of a delta of an unknown type, added to the block's the way LangChain adds chunks."""
    fields = {key: value for key, value in delta.items() if key != "type" and value is not None}
    return merge_dicts({key: block[key] for key in fields if key in block}, fields)
