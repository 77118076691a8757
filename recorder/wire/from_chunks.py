"""Makes deltas from a model's tokens and chunks, for models without a wire format, and chunks from such deltas.

A piece of a content block has the number of its block in its `idx`: `0.2`. If the block's type is not the usual one for
the kind of the delta, the `idx` also names the type: `0.2.reasoning` (kind reasoning usually means a `thinking` block).
Everything but text and reasoning is JSON of kind `other`: `{"content_block": {...}}` is a block, or more keys of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from recorder.core.json import dumps
from recorder.messages import AIMessageChunk
from recorder.messages.merge import merge_content, merge_dicts
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
)
from recorder.wire.recorded_run import object_of
from recorder.wire.to_chunks import add_call, add_more
from recorder.wire.tool_calls import StreamedCalls

_KINDS = {"reasoning_content": REASONING, "refusal": REFUSAL}
#: Keys of `additional_kwargs` that become deltas of their own kinds.
_OWN_KINDS = frozenset((*_KINDS, "annotations", "tool_calls"))
#: Types of blocks that a chunk's `tool_call_chunks` repeat.
_CALLS = frozenset(("tool_use", "tool_call", "tool_call_chunk", "input_json_delta", "function_call"))
#: The numbers of at most this many blocks are remembered.
_MAX_BLOCKS = 10_000
#: Type of a block -> the kind of its text, the key of its text, and the suffix of its `idx`.
_BLOCKS = {"text": (TEXT, "text", ""), "thinking": (REASONING, "thinking", ""),
           "reasoning": (REASONING, "reasoning", ".reasoning")}  # fmt: skip


class Places:
    """The tool calls and content blocks of one run so far."""

    def __init__(self) -> None:
        self.calls = StreamedCalls()
        #: Index of a block -> its number. Below: the used numbers, and the highest one.
        self._blocks: dict[Any, int] = {}
        self._used: set[int] = set()
        self._highest = -1

    def block(self, index: Any) -> int:
        """The number of a block: its index if that is a number; a block without an index always gets a new number."""
        known = self._blocks.get(index) if isinstance(index, (int, str)) else None
        if known is not None:
            return known
        free = type(index) is int and index >= 0 and index not in self._used
        number = index if free else self._highest + 1
        self._highest = max(number, self._highest)
        if len(self._used) < _MAX_BLOCKS:
            self._used.add(number)
            if isinstance(index, (int, str)):
                self._blocks[index] = number
        return number


class HasPlaces(Protocol):
    """An object that holds the `Places` of a run; None before the first delta that needs them."""

    places: Any


def has_only_text(chunk: Any) -> bool:
    """Whether the token of a chunk is all that the chunk adds, if the token is a text."""
    message = getattr(chunk, "message", None)
    return not getattr(message, "additional_kwargs", None) and not getattr(message, "tool_call_chunks", None)


def deltas_of(token: Any, chunk: Any, run: HasPlaces) -> list[Delta]:
    """The deltas of a token and of its chunk: the content, then `additional_kwargs` and tool calls of the message."""
    if type(token) is str and has_only_text(chunk):
        return [Delta(token)] if token else []
    message = getattr(chunk, "message", None)
    kwargs = getattr(message, "additional_kwargs", None)
    calls = getattr(message, "tool_call_chunks", None)
    if run.places is None:
        run.places = Places()
    deltas = list(_content_deltas(token, run.places, bool(calls)))
    if isinstance(kwargs, Mapping):
        deltas += _kwargs_deltas(kwargs)
    for call in calls or ():
        deltas += _call_deltas(call, run.places.calls)
    return deltas


def fill_own(chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
    """Adds such deltas to a chunk, in the shape of the model's own chunk; returns whether the first choice had any."""
    calls: dict[int, dict[str, Any]] = {}
    found = False
    for text, kind, idx in deltas:
        choice, _, part = idx.partition(".")
        if choice != "0":
            continue
        found = True
        if kind in (TOOL_CALL, TOOL_ARGS):
            add_call(calls, int(part) if part.isdecimal() else 0, kind, text)
        elif part:
            chunk.content = merge_content(chunk.content, [[_block(text, kind, part)]])
        elif kind == TEXT:
            chunk.content = merge_content(chunk.content, [text])
        elif kind == OTHER:
            chunk.additional_kwargs = merge_dicts(chunk.additional_kwargs, object_of(text))
        else:
            add_more(chunk, kind, text)
    chunk.tool_call_chunks = list(calls.values())  # type: ignore[arg-type]
    return found


def calls_of(deltas: Sequence[Delta]) -> Any:
    """The `tool_call_chunks` of a chunk with these deltas, each with the index of its call."""
    calls: dict[int, dict[str, Any]] = {}
    for text, kind, idx in deltas:
        if kind in (TOOL_CALL, TOOL_ARGS):
            add_call(calls, int(idx.partition(".")[2]), kind, text)
    return list(calls.values())


def _content_deltas(content: Any, places: Places, has_calls: bool) -> Iterator[Delta]:
    """The deltas of a token: a string, or with some models a list of content blocks."""
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, str):
            if block:
                yield Delta(block)
        elif isinstance(block, dict) and not (has_calls and block.get("type") in _CALLS):
            yield from _block_deltas(block, places)


def _block_deltas(block: dict[str, Any], places: Places) -> Iterator[Delta]:
    index, kind = block.get("index"), block.get("type") or "text"
    rest = {key: block[key] for key in block if key != "index" and block[key] is not None}
    if index is None and rest.keys() <= {"type", "text"} and isinstance(rest.get("text"), str):
        if rest["text"]:
            yield Delta(rest["text"])
        return
    idx = f"0.{places.block(index)}"
    delta_kind, key, suffix = _BLOCKS.get(kind, (OTHER, "", ""))
    text = rest.pop(key) if isinstance(rest.get(key), str) else ""
    signature = (
        rest.pop("signature") if delta_kind == REASONING and isinstance(rest.get("signature"), str) else ""
    )
    if delta_kind == OTHER or rest.keys() - {"type"}:
        yield Delta(dumps({"content_block": rest}), OTHER, idx + suffix)
    if text:
        yield Delta(text, delta_kind, idx + suffix)
    if signature:
        yield Delta(signature, SIGNATURE, idx + suffix)


def _kwargs_deltas(kwargs: Mapping[str, Any]) -> Iterator[Delta]:
    for key, kind in _KINDS.items():
        if (text := kwargs.get(key)) and type(text) is str:
            yield Delta(text, kind)
    if isinstance(citations := kwargs.get("annotations"), list):
        yield from (Delta(dumps(citation), CITATION) for citation in citations)
    rest = {
        key: value
        for key, value in kwargs.items()
        if value is not None and (key not in _OWN_KINDS or (key in _KINDS and type(value) is not str))
    }
    if rest:
        yield Delta(dumps(rest), OTHER)


def _call_deltas(piece: Mapping[str, Any], calls: StreamedCalls) -> Iterator[Delta]:
    args = piece.get("args") or ""
    arguments = args if isinstance(args, str) else dumps(args)
    call = calls.place("0", piece.get("index"), piece.get("id"), piece.get("name"), arguments)
    if call is None:
        return
    if changes := call.changes(piece.get("id"), piece.get("name"), piece.get("extras") or {}):
        yield Delta(dumps(changes), TOOL_CALL, call.idx)
    if arguments:
        call.arguments.add(arguments)
        yield Delta(arguments, TOOL_ARGS, call.idx)


def _block(text: str, kind: str, part: str) -> dict[str, Any]:
    """The piece of a content block for a delta."""
    number, _, type = part.partition(".")
    index = {"index": int(number) if number.isdecimal() else 0}
    if kind == OTHER:
        fields = object_of(text)
        block = fields.get("content_block")
        return {**(block if isinstance(block, dict) else fields), **index}
    if kind == SIGNATURE:
        return {"type": type or "thinking", "signature": text, **index}
    if kind == REASONING:
        return {"type": type or "thinking", type or "thinking": text, **index}
    return {"type": type or "text", "text": text, **index}
