"""Joins streamed pieces by LangChain's rules: usage, metadata, content and tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Sequence
from typing import Any, NotRequired, TypedDict, cast

#: Content of a message: text, or a list of texts and blocks.
Content = str | list[Any]

#: Strings that identify something: equal strings are not joined.
_IDENTIFYING = frozenset(
    {"id", "type", "role", "name", "object", "model", "model_name", "model_provider", "output_version"}
    | {"service_tier", "system_fingerprint", "response_id"}
)
#: Values that are never split into pieces: the later one replaces the earlier one.
_LATEST = frozenset({"finish_reason", "stop_reason", "signature", "thought_signature", "format"})
#: Values nested deeper than this are not merged: the later one replaces the earlier one.
_MAX_DEPTH = 100
#: The type of a call of OpenAI's custom tools, and LangChain's name for its input, which is plain text.
CUSTOM_CALL, CUSTOM_INPUT = "custom_tool_call", "__arg1"
#: Numbers that are positions or times: the later one replaces the earlier one, they are not added.
_ORDINAL = frozenset({"index", "created", "timestamp"})


class InputTokenDetails(TypedDict, total=False):
    """Kinds of input tokens, in tokens. The sum may differ from `input_tokens`."""

    audio: int
    #: Read from the provider's cache.
    cache_read: int
    #: Written to the provider's cache.
    cache_creation: int
    #: `cache_creation` by time to live, if the provider sends it; `cache_creation` is then 0.
    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class OutputTokenDetails(TypedDict, total=False):
    """Kinds of output tokens, in tokens. The sum may differ from `output_tokens`."""

    audio: int
    #: Reasoning that is not part of the text.
    reasoning: int


class UsageMetadata(TypedDict):
    """Token counts of a message, in the same form for every provider."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: NotRequired[InputTokenDetails]
    output_token_details: NotRequired[OutputTokenDetails]


class ToolCall(TypedDict):
    """A tool call of the model, with parsed arguments."""

    name: str
    args: dict[str, Any]
    id: str | None
    type: NotRequired[str]
    #: Other fields of the call, which the provider wants back with it. LangChain's name.
    extras: NotRequired[dict[str, Any]]


class InvalidToolCall(TypedDict):
    """A call whose arguments are not a JSON object. `args` is their text as received."""

    name: str | None
    args: str | None
    id: str | None
    error: str | None
    type: NotRequired[str]
    extras: NotRequired[dict[str, Any]]


class ToolCallChunk(TypedDict):
    """A streamed piece of a call. Pieces with the same index belong to one call."""

    name: str | None
    args: str | None
    id: str | None
    index: int | None
    type: NotRequired[str]
    extras: NotRequired[dict[str, Any]]


def tool_call(
    name: str | None, args: dict[str, Any], id: str | None, extras: dict[str, Any] | None = None
) -> ToolCall:
    """Make a `ToolCall`."""
    call: ToolCall = {"name": name or "", "args": args, "id": id, "type": "tool_call"}
    return {**call, "extras": extras} if extras else call


def invalid_tool_call(
    name: str | None,
    args: str | None,
    id: str | None,
    error: str | None = None,
    extras: dict[str, Any] | None = None,
) -> InvalidToolCall:
    """Make an `InvalidToolCall`."""
    call: InvalidToolCall = {
        "name": name,
        "args": args,
        "id": id,
        "error": error,
        "type": "invalid_tool_call",
    }
    return {**call, "extras": extras} if extras else call


def tool_call_chunk(
    name: str | None,
    args: str | None,
    id: str | None,
    index: int | None,
    extras: dict[str, Any] | None = None,
) -> ToolCallChunk:
    """Make a `ToolCallChunk`."""
    chunk: ToolCallChunk = {"name": name, "args": args, "id": id, "index": index, "type": "tool_call_chunk"}
    return {**chunk, "extras": extras} if extras else chunk


def add_usage(left: UsageMetadata | None, right: UsageMetadata | None) -> UsageMetadata:
    """The sum of both, including their details. None counts as zero."""
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
    """Join the pieces of a dict: texts are joined, lists and dicts merged, counts added.

    If the types of two values differ, the later one replaces the earlier one. (LangChain raises, but an odd chunk of a
    provider must not end the user's stream.) The time is linear in the number of pieces.
    """
    return _merge_dicts((left, *others), 0)


def merge_latest(pieces: Sequence[dict[str, Any]], labels: Container[str] | None = None) -> dict[str, Any]:
    """As `merge_dicts`, but under the keys in `labels` a later text or number replaces the earlier one.

    If `labels` is None, this holds for all keys.
    """
    last = {
        key: value
        for piece in pieces
        for key, value in piece.items()
        if value is not None and (labels is None or key in labels)
    }
    return merge_dicts({}, *pieces) | {key: value for key, value in last.items() if is_label(value)}


def is_label(value: Any) -> bool:
    """Whether a value is a text, a number or a bool: neither None nor a dict nor a list."""
    return value is not None and not isinstance(value, (dict, list))


def _merge_dicts(pieces: Sequence[dict[str, Any]], depth: int) -> dict[str, Any]:
    by_key: dict[str, list[Any]] = {}
    for piece in pieces:
        for key, value in piece.items():
            values = by_key.setdefault(key, [])
            if value is not None:
                values.append(value)
    return {key: _merge_values(key, values, depth) if values else None for key, values in by_key.items()}


def _merge_values(key: str, values: list[Any], depth: int) -> Any:
    value = values[-1]
    if len(values) == 1 or depth > _MAX_DEPTH or key in _LATEST:
        return value
    kind = type(value)
    # A value replaces all values of another type before it.
    start = next((at + 1 for at in range(len(values) - 2, -1, -1) if type(values[at]) is not kind), 0)
    same = values[start:] if start else values
    if kind is str:
        return _merge_texts(key, same)
    if kind is dict:
        return _merge_dicts(same, depth + 1)
    if kind is list:
        merged = _MergedList(depth + 1)
        for items in same:
            merged.add_all(items)
        return merged.result()
    return _merge_counts(same) if kind is int and key not in _ORDINAL else value


def _merge_texts(key: str, texts: list[str]) -> str:
    if key == "index" and texts[0].startswith("lc_"):
        return texts[0]
    if key not in _IDENTIFYING:
        return "".join(texts)
    merged = texts[0]
    for text in texts[1:]:
        merged = merged if merged == text else merged + text
    return merged


def _merge_counts(counts: list[int]) -> int:
    merged = counts[0]
    for count in counts[1:]:
        merged = merged if merged == count else merged + count
    return merged


def merge_lists(left: list[Any], *others: list[Any]) -> list[Any]:
    """Join lists. Items with the same `index`, and without different ids, are pieces of one item."""
    merged = _MergedList(0)
    for items in (left, *others):
        merged.add_all(items)
    return merged.result()


class _MergedList:
    """The list that results from merging lists, with the pieces of each item."""

    __slots__ = ("_depth", "_ids", "_pieces", "_places")

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._pieces: list[list[Any]] = []
        #: Index -> the places of the items with that index; place -> id of the item, if it has one.
        self._places: dict[Any, list[int]] = {}
        self._ids: dict[int, Any] = {}

    def add_all(self, items: list[Any]) -> None:
        """Add items, or join them to the items that they are pieces of."""
        for item in items:
            indexed = isinstance(item, dict) and _is_index(item.get("index"))
            if not indexed or not self._joined(item):
                self._pieces.append([item])

    def add_text(self, text: str) -> None:
        """Add text as an item, or join it to the last item if that is text."""
        if text and self._pieces and isinstance(self._pieces[-1][0], str):
            self._pieces[-1].append(text)
        elif text:
            self._pieces.append([text])

    def result(self) -> list[Any]:
        """The list of joined items."""
        return [pieces[0] if len(pieces) == 1 else self._item(pieces) for pieces in self._pieces]

    def _joined(self, item: dict[str, Any]) -> bool:
        """Join the item to the one that it is a piece of. False if there is none; the caller then appends it."""
        places, id = self._places.setdefault(item["index"], []), item.get("id")
        for at in places:
            known = self._ids.get(at)
            if not id or not known or known == id:
                self._pieces[at].append(item)
                self._ids[at] = known or id
                return True
        places.append(len(self._pieces))
        self._ids[len(self._pieces)] = id
        return False

    def _item(self, pieces: list[Any]) -> Any:
        if isinstance(pieces[0], str):
            return "".join(pieces)
        typed = next((at for at, piece in enumerate(pieces) if "type" in piece), 0)
        later = [
            {key: value for key, value in piece.items() if key != "type"} for piece in pieces[typed + 1 :]
        ]
        return _merge_dicts([*pieces[: typed + 1], *later], self._depth + 1)


def _is_index(index: Any) -> bool:
    return isinstance(index, int) or (isinstance(index, str) and index.startswith("lc_"))


def merge_content(first: Content, others: Iterable[Content]) -> Content:
    """Join contents: a text if all are texts, else a list."""
    contents = [first, *others]
    if all(isinstance(content, str) for content in contents):
        return "".join(contents)  # type: ignore[arg-type]
    merged = _MergedList(0)
    for content in contents:
        if isinstance(content, list):
            merged.add_all(content)
        else:
            # An empty text is left out, because providers refuse it. (LangChain keeps it as the first item.)
            merged.add_text(content)
    return merged.result()


def parse_calls(
    chunks: Iterable[ToolCallChunk], *, complete: bool
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """The valid and the invalid calls of joined pieces. If not `complete`, cut JSON is parsed up to its end."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for chunk in chunks:
        extras = chunk.get("extras")
        args = args_of_call(chunk["args"], extras, complete=complete)
        if args is None:
            invalid.append(invalid_tool_call(chunk["name"], chunk["args"], chunk["id"], extras=extras))
        else:
            calls.append(tool_call(chunk["name"], args, chunk["id"], extras))
    return calls, invalid


def args_of_call(
    text: str | None, extras: dict[str, Any] | None, *, complete: bool = True
) -> dict[str, Any] | None:
    """The arguments of a call as `parse_args` reads them; of a custom tool, LangChain's dict with the plain text."""
    if extras and extras.get("type") == CUSTOM_CALL:
        return {CUSTOM_INPUT: text or ""}
    return parse_args(text, complete=complete)


def parse_args(text: str | None, *, complete: bool = True) -> dict[str, Any] | None:
    """Arguments as a dict; {} for no text; None if the text is not a JSON object. `complete`: it may not be cut."""
    if not text:
        return {}
    value = _loads(text)
    if value is None and not complete:
        value = _loads_cut(text)
    return value if isinstance(value, dict) else None


def _loads(text: str) -> Any:
    # strict=False as in LangChain: models write raw newlines into strings.
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


_MARK = re.compile(r'\\.?|["{}\[\],]', re.DOTALL)
_CUT_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{0,3})?")


def _loads_cut(text: str) -> Any:
    """The value of a JSON text that is cut somewhere, without its last incomplete item."""
    # For each open bracket: its closing bracket, and the length of the text up to its last complete item.
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
