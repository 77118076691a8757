"""Deltas of what a model tells by tokens and chunks, where there is no wire format to read, and chunks of them again.

A piece of a content block has the number of its block in its `idx`: `0.2`, or `0.2.reasoning` where the block's type is
not what the kind of the delta says (a piece of kind reasoning is of a block `thinking`). What a text and a thought do
not say comes as JSON of kind `other`: `{"content_block": {...}}` is a block, or more keys of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from recorder.core.json import dumps
from recorder.messages import AIMessageChunk
from recorder.messages.merge import merge_content, merge_dicts
from recorder.wire.chunks import add_call, add_more
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
from recorder.wire.recorded import object_of
from recorder.wire.tool_calls import StreamedCalls

_KINDS = {"reasoning_content": REASONING, "refusal": REFUSAL}
#: Keys of `additional_kwargs` that have deltas of their own.
_ELSEWHERE = frozenset((*_KINDS, "annotations", "tool_calls"))
#: Blocks that a chunk's `tool_call_chunks` tell as well.
_CALLS = frozenset(("tool_use", "tool_call", "tool_call_chunk", "input_json_delta", "function_call"))
#: Of how many blocks is remembered which numbers they have.
_MAX_BLOCKS = 10_000
#: The type of a block -> the kind of its text, which stands under that key; in `idx` where it is not the usual type.
_BLOCKS = {"text": (TEXT, "text", ""), "thinking": (REASONING, "thinking", ""),
           "reasoning": (REASONING, "reasoning", ".reasoning")}  # fmt: skip


class Places:
    """Where the pieces of one run belong: its calls and its blocks so far."""

    def __init__(self) -> None:
        self.calls = StreamedCalls()
        #: Index of a block -> its number; the numbers that are used, and the highest one.
        self._blocks: dict[Any, int] = {}
        self._used: set[int] = set()
        self._highest = -1

    def block(self, index: Any) -> int:
        """The number of a block: its index where that is one; a block without an index is always another."""
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


class Placed(Protocol):
    """What holds the places of a run, once there are any."""

    places: Any


def deltas_of(token: Any, chunk: Any, run: Placed) -> list[Delta]:
    """The deltas of a token and of the chunk that it came with: its content, and what its message has beside it."""
    message = getattr(chunk, "message", None)
    more = getattr(message, "additional_kwargs", None)
    calls = getattr(message, "tool_call_chunks", None)
    if type(token) is str and not more and not calls:
        return [Delta(token)] if token else []
    if run.places is None:
        run.places = Places()
    deltas = list(_of_content(token, run.places, bool(calls)))
    if isinstance(more, Mapping):
        deltas += _of_more(more)
    for call in calls or ():
        deltas += _of_call(call, run.places.calls)
    return deltas


def fill_own(chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
    """Put such deltas into a chunk, as the model's own chunk had them; whether there were any of the first choice."""
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
    """The calls of a chunk whose deltas these are, each with the index that tells it from the others."""
    calls: dict[int, dict[str, Any]] = {}
    for text, kind, idx in deltas:
        if kind in (TOOL_CALL, TOOL_ARGS):
            add_call(calls, int(idx.partition(".")[2]), kind, text)
    return list(calls.values())


def _of_content(content: Any, places: Places, has_calls: bool) -> Iterator[Delta]:
    """A token is a str, or with some models a list of content blocks."""
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, str):
            if block:
                yield Delta(block)
        elif isinstance(block, dict) and not (has_calls and block.get("type") in _CALLS):
            yield from _of_block(block, places)


def _of_block(block: dict[str, Any], places: Places) -> Iterator[Delta]:
    index, kind = block.get("index"), block.get("type") or "text"
    rest = {key: block[key] for key in block if key != "index" and block[key] is not None}
    if index is None and rest.keys() <= {"type", "text"} and isinstance(rest.get("text"), str):
        if rest["text"]:
            yield Delta(rest["text"])
        return
    idx = f"0.{places.block(index)}"
    told, key, suffix = _BLOCKS.get(kind, (OTHER, "", ""))
    text = rest.pop(key) if isinstance(rest.get(key), str) else ""
    signature = rest.pop("signature") if told == REASONING and isinstance(rest.get("signature"), str) else ""
    if told == OTHER or rest.keys() - {"type"}:
        yield Delta(dumps({"content_block": rest}), OTHER, idx + suffix)
    if text:
        yield Delta(text, told, idx + suffix)
    if signature:
        yield Delta(signature, SIGNATURE, idx + suffix)


def _of_more(more: Mapping[str, Any]) -> Iterator[Delta]:
    for key, kind in _KINDS.items():
        if (said := more.get(key)) and type(said) is str:
            yield Delta(said, kind)
    if isinstance(citations := more.get("annotations"), list):
        yield from (Delta(dumps(citation), CITATION) for citation in citations)
    rest = {
        key: value
        for key, value in more.items()
        if value is not None and (key not in _ELSEWHERE or (key in _KINDS and type(value) is not str))
    }
    if rest:
        yield Delta(dumps(rest), OTHER)


def _of_call(piece: Mapping[str, Any], calls: StreamedCalls) -> Iterator[Delta]:
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
    """The piece of a content block that a delta is."""
    number, _, type = part.partition(".")
    index = {"index": int(number) if number.isdecimal() else 0}
    if kind == OTHER:
        said = object_of(text)
        block = said.get("content_block")
        return {**(block if isinstance(block, dict) else said), **index}
    if kind == SIGNATURE:
        return {"type": type or "thinking", "signature": text, **index}
    if kind == REASONING:
        return {"type": type or "thinking", type or "thinking": text, **index}
    return {"type": type or "text", "text": text, **index}
