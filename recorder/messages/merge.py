"""How streamed pieces add up: usage, metadata, content and tool calls, by LangChain's rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NotRequired, TypedDict, cast

#: Content of a message: text, or a list of text and blocks.
Content = str | list[Any]

#: Strings that say which one it is: an equal one is kept, not joined to itself.
_IDENTIFYING = frozenset(
    {"id", "type", "role", "name", "object", "model", "model_name", "model_provider", "output_version"}
    | {"finish_reason", "stop_reason", "service_tier", "system_fingerprint", "response_id"}
)
#: Numbers that say which one or when: the later wins, they are not summed.
_ORDINAL = frozenset({"index", "created", "timestamp"})


class InputTokenDetails(TypedDict, total=False):
    """Where the input tokens went; they need not sum to all of them."""

    audio: int
    #: Read from the provider's cache.
    cache_read: int
    #: Written to the provider's cache.
    cache_creation: int
    #: The same by time to live, where the provider tells it so; then `cache_creation` is 0.
    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class OutputTokenDetails(TypedDict, total=False):
    """Where the output tokens went; they need not sum to all of them."""

    audio: int
    #: Thought, and not shown.
    reasoning: int


class UsageMetadata(TypedDict):
    """Token counts of a message, the same for every provider."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: NotRequired[InputTokenDetails]
    output_token_details: NotRequired[OutputTokenDetails]


class ToolCall(TypedDict):
    """A call of a tool that the model asks for, arguments parsed."""

    name: str
    args: dict[str, Any]
    id: str | None
    type: NotRequired[str]


class InvalidToolCall(TypedDict):
    """A call whose arguments are no JSON object: their text as it came."""

    name: str | None
    args: str | None
    id: str | None
    error: str | None
    type: NotRequired[str]


class ToolCallChunk(TypedDict):
    """A streamed piece of a call; pieces with the same index belong together."""

    name: str | None
    args: str | None
    id: str | None
    index: int | None
    type: NotRequired[str]


def tool_call(name: str | None, args: dict[str, Any], id: str | None) -> ToolCall:
    """A `ToolCall` of its parts."""
    return {"name": name or "", "args": args, "id": id, "type": "tool_call"}


def invalid_tool_call(
    name: str | None, args: str | None, id: str | None, error: str | None = None
) -> InvalidToolCall:
    """An `InvalidToolCall` of its parts."""
    return {"name": name, "args": args, "id": id, "error": error, "type": "invalid_tool_call"}


def tool_call_chunk(name: str | None, args: str | None, id: str | None, index: int | None) -> ToolCallChunk:
    """A `ToolCallChunk` of its parts."""
    return {"name": name, "args": args, "id": id, "index": index, "type": "tool_call_chunk"}


def add_usage(left: UsageMetadata | None, right: UsageMetadata | None) -> UsageMetadata:
    """The sum of both, details included; a missing one counts as nothing."""
    total = _add_counts(cast(dict[str, Any], left or {}), cast(dict[str, Any], right or {}))
    for key in ("input_tokens", "output_tokens", "total_tokens"):
        total.setdefault(key, 0)
    return cast(UsageMetadata, total)


def _add_counts(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    total = dict(left)
    for key, value in right.items():
        if isinstance(value, dict):
            total[key] = _add_counts(total.get(key) or {}, value)
        elif value is not None:
            total[key] = (total.get(key) or 0) + value
    return total


def merge_dicts(left: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """The pieces of a dict joined: text appended, lists and dicts merged, counts added.

    Where LangChain raises because types differ, the later value wins: a provider's odd chunk must
    not end the user's stream.
    """
    merged = dict(left)
    for other in others:
        for key, value in other.items():
            old = merged.get(key)
            merged[key] = value if old is None else old if value is None else _merge_value(key, old, value)
    return merged


def _merge_value(key: str, old: Any, new: Any) -> Any:
    if type(old) is not type(new):
        return new
    if isinstance(old, str):
        return old if _same_one(key, old, new) else old + new
    if isinstance(old, dict):
        return merge_dicts(old, new)
    if isinstance(old, list):
        return merge_lists(old, new)
    summed = isinstance(old, int) and not isinstance(old, bool) and key not in _ORDINAL and old != new
    return old + new if summed else new


def _same_one(key: str, old: str, new: str) -> bool:
    return (key in _IDENTIFYING and old == new) or (key == "index" and old.startswith("lc_"))


def merge_lists(left: list[Any], *others: list[Any]) -> list[Any]:
    """One list; items with the same `index`, and no two ids, are pieces of one item."""
    merged = list(left)
    for other in others:
        for item in other:
            at = _place(merged, item)
            if at is None:
                merged.append(item)
            else:
                merged[at] = merge_dicts(merged[at], _without_type(item, merged[at]))
    return merged


def _place(merged: list[Any], item: Any) -> int | None:
    if not isinstance(item, dict) or not _is_index(item.get("index")):
        return None
    for at, old in enumerate(merged):
        if isinstance(old, dict) and old.get("index") == item["index"] and _one_id(old, item):
            return at
    return None


def _is_index(index: Any) -> bool:
    return isinstance(index, int) or (isinstance(index, str) and index.startswith("lc_"))


def _one_id(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return not left.get("id") or not right.get("id") or left["id"] == right["id"]


def _without_type(item: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "type" or "type" not in old}


def merge_content(first: Content, others: Iterable[Content]) -> Content:
    """Text after text; as soon as one is a list, a list."""
    merged: Content = first
    for content in others:
        if isinstance(merged, str):
            merged = merged + content if isinstance(content, str) else _as_list(merged) + content
        elif isinstance(content, list):
            merged = merge_lists(merged, content)
        elif content:
            merged = _append_text(merged, content)
    return merged


def _as_list(text: str) -> list[Any]:
    # LangChain keeps an empty text as the first item; it says nothing and providers refuse it.
    return [text] if text else []


def _append_text(blocks: list[Any], text: str) -> list[Any]:
    if blocks and isinstance(blocks[-1], str):
        return [*blocks[:-1], blocks[-1] + text]
    return [*blocks, text]


def parse_calls(
    chunks: Iterable[ToolCallChunk], *, whole: bool
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """The calls and the invalid ones of merged pieces; without `whole`, as far as their JSON goes."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for chunk in chunks:
        args = parse_args(chunk["args"], whole=whole)
        if args is None:
            invalid.append(invalid_tool_call(chunk["name"], chunk["args"], chunk["id"]))
        else:
            calls.append(tool_call(chunk["name"], args, chunk["id"]))
    return calls, invalid


def parse_args(text: str | None, *, whole: bool = True) -> dict[str, Any] | None:
    """Arguments as a dict, none for no text, or None where the text is no JSON object."""
    if not text:
        return {}
    value = _loads(text)
    if value is None and not whole:
        value = _loads_cut(text)
    return value if isinstance(value, dict) else None


def _loads(text: str) -> Any:
    # strict=False as LangChain: models do put raw newlines into strings.
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


_MARK = re.compile(r'\\.?|["{}\[\],]', re.DOTALL)
_CUT_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{0,3})?")


def _loads_cut(text: str) -> Any:
    """The value of a JSON text that stops in the middle, without its last unfinished piece."""
    # Of each open bracket: what closes it, and the length up to its last finished item.
    opened: list[tuple[str, int]] = []
    quoted = False
    escape = len(text)
    for mark in _MARK.finditer(text):
        sign = mark[0]
        if sign == '"':
            quoted = not quoted
        elif sign[0] == "\\":
            escape = mark.start()
        elif quoted:
            continue
        elif sign in "{[":
            opened.append(("}" if sign == "{" else "]", mark.end()))
        elif not opened or (sign in "}]" and opened.pop()[0] != sign):
            return None
        elif sign == ",":
            opened[-1] = (opened[-1][0], mark.start())
    if not opened:
        return None
    closing = "".join(sign for sign, _ in reversed(opened))
    unescaped = text[:escape] if _CUT_ESCAPE.fullmatch(text, escape) else text
    ends = [unescaped + '"'] if quoted else [text, text.rstrip("+-.eE")]
    for candidate in (*ends, text[: opened[-1][1]]):
        if (value := _loads(candidate + closing)) is not None:
            return value
    return None
