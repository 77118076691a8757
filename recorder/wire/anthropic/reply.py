"""The accumulator of Anthropic's answers, whose content is a list of blocks.

Each delta says where it belongs: `idx` is "0" for block 0 and `0.<index>` for the others (calls always
`0.<index>`). Its kind says of what type the block is: text and citation of a text block, reasoning and signature
of a thinking block, tool_call (JSON of the id, the name and what else the block has) and tool_args of a tool_use
block. What these do not say comes as JSON of kind `other`:

* `{"content_block": {...}}`, the first delta of its block, is how it began: one of any other type (redacted
  thinking, server tools and their results), an empty one, or one with keys that nobody told us about;
* `{"partial_json": "..."}` is a piece of the input of such a block, `{"content_block_delta": {...}}` any other delta.

So the deltas alone, without frames, give the message, and by `encode_anthropic.py` the stream.
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

#: The type of a block that began with nothing to say, by the kind of its first delta.
_TYPES = {
    TEXT: "text",
    CITATION: "text",
    REASONING: "thinking",
    SIGNATURE: "thinking",
    TOOL_CALL: "tool_use",
    TOOL_ARGS: "tool_use",
}
#: The same blocks as they begin.
_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "id": None, "name": None, "input": {}},
}
#: Keys of `other` deltas that speak of a block.
OF_A_BLOCK = frozenset(("content_block", "partial_json", "content_block_delta"))


class AnthropicReply(Reply):
    """One response as far as it has come. Its text blocks joined are the answer."""

    __slots__ = ()

    def blocks(self) -> list[dict[str, Any]]:
        """The content blocks as the API would have sent them in a whole answer."""
        return list(self.numbered().values())

    def numbered(self) -> dict[int, dict[str, Any]]:
        """The content blocks by their numbers, in order."""
        parts: dict[int, dict[str, list[str]]] = {}
        for (idx, kind), pieces in self._parts.items():
            parts.setdefault(block_of(idx), {}).setdefault(kind, []).extend(pieces)
        found = {number: _block(parts[number]) for number in sorted(parts)}
        return {number: block for number, block in found.items() if block}

    def tool_calls(self, choice: int = 0) -> list[dict[str, Any]]:
        """As of any reply; what else there is of a call is in its block."""
        calls = super().tool_calls(choice)
        return [{key: call[key] for key in ("id", "name", "arguments")} for call in calls]

    def message(self, choice: int = 0) -> AIMessage:
        """The final message, LangChain's shape, complete or as far as it has come."""
        message = super().message(choice)
        if message.usage_metadata is None and self.raw_usage and usage.is_counted(self.raw_usage):
            message.usage_metadata = usage.from_anthropic(self.raw_usage, streamed=True)
        return message

    def settle(self) -> None:
        """The counts of the start of the message, where no end of it told any."""
        if self.usage is None and self.raw_usage and usage.is_counted(self.raw_usage):
            self.usage = usage.from_anthropic(self.raw_usage, streamed=True)

    def whole_metadata(self) -> dict[str, Any]:
        """`model` and `usage`."""
        said: dict[str, Any] = {"model": self.model} if self.model else {}
        return said | ({"usage": self.raw_usage} if self.raw_usage else {})

    def response_metadata(self, choice: int = 0) -> dict[str, Any]:
        """`stop_reason`, `stop_sequence`, `model_name` and whatever else the provider said."""
        said = super().response_metadata(choice)
        reason = said.pop("finish_reason", None)
        stopped = {"stop_reason": reason, "stop_sequence": said.pop("stop_sequence", None)} if reason else {}
        return stopped | said

    def _content(self, choice: int) -> Content:
        """A plain text when there is only text."""
        blocks = self.blocks()
        if not blocks:
            return ""
        only = len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text"
        return blocks[0]["text"] if only else blocks

    def additional(self, choice: int) -> dict[str, Any]:
        more: dict[str, Any] = {}
        for piece in self._pieces(choice, OTHER):
            if not of_a_block(loads(piece)):
                merge_other(more, piece)
        return more


def of_a_block(said: Any) -> bool:
    """Whether the JSON of an `other` delta speaks of a block."""
    return isinstance(said, dict) and not OF_A_BLOCK.isdisjoint(said)


def block_of(idx: str) -> int:
    """The number of the block that a delta belongs to."""
    _, _, part = idx.partition(".")
    return int(part) if part.isdecimal() else 0


def _block(parts: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
    """One block of its pieces by kind; None where they speak of none."""
    others = [found for piece in parts.get(OTHER, ()) if of_a_block(found := loads(piece))]
    block = _began(others, next((_TYPES[kind] for kind in parts if kind in _TYPES), None))
    if block is None:
        return None
    block |= _filled(block, parts, others)
    if block.get("citations") in (None, []):
        block.pop("citations", None)
    return block


def _began(others: Iterable[dict[str, Any]], type: str | None) -> dict[str, Any] | None:
    """The block as it began."""
    said = [other["content_block"] for other in others if "content_block" in other]
    if type is not None:
        said = [_EMPTY[type], *said]
    return {key: value for each in said for key, value in each.items()} if said else None


def _filled(
    block: dict[str, Any], parts: Mapping[str, Sequence[str]], others: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """What the deltas make of it."""
    found: dict[str, Any] = {}
    if TEXT in parts:
        found["text"] = "".join(parts[TEXT])
    if CITATION in parts:
        found["citations"] = [loads(piece) for piece in parts[CITATION]]
    if REASONING in parts:
        found["thinking"] = "".join(parts[REASONING])
    if SIGNATURE in parts:
        found["signature"] = parts[SIGNATURE][-1]  # the SDK, too, takes the last one
    for piece in parts.get(TOOL_CALL, ()):
        found |= loads(piece)
    inputs = [*parts.get(TOOL_ARGS, ()), *(each["partial_json"] for each in others if "partial_json" in each)]
    if inputs:
        found |= _input("".join(inputs))
    for other in others:
        found |= _grown({**block, **found}, other.get("content_block_delta") or {})
    return found


def _input(text: str) -> dict[str, Any]:
    """Arguments parsed, or as far as they came under the name that LangChain has for them."""
    parsed = parse_args(text)
    return {"input": parsed} if parsed is not None else {"input": {}, "partial_json": text}


def _grown(block: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """The keys of a delta of another type, as chunks add up."""
    said = {key: value for key, value in delta.items() if key != "type" and value is not None}
    return merge_dicts({key: block[key] for key in said if key in block}, said)
