"""Puts deltas into LangChain's chunks: text, tool calls, and everything else in `additional_kwargs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.messages import AIMessageChunk
from recorder.messages.merge import is_label, merge_dicts, merge_lists
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.recorded_run import object_of, value_of
from recorder.wire.reply import merge_other


def fill(chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
    """Adds the first choice's deltas of one event to a chunk, in the shape of LangChain's chunks for OpenAI.

    Returns whether there were any.
    """
    calls: dict[int, dict[str, Any]] = {}
    found = False
    for text, kind, idx in deltas:
        choice, _, part = idx.partition(".")
        if choice != "0":
            continue
        found = True
        if kind == TEXT:
            chunk.content += text  # type: ignore[operator]
        elif kind in (TOOL_CALL, TOOL_ARGS):
            add_call(calls, int(part) if part.isdigit() else 0, kind, text)
        else:
            add_more(chunk, kind, text)
    chunk.tool_call_chunks = list(calls.values())  # type: ignore[arg-type]
    return found


def add_call(calls: dict[int, dict[str, Any]], index: int, kind: str, text: str) -> None:
    """Adds a piece of a tool call to the calls of one event."""
    call = calls.get(index)
    if call is None:
        call = calls[index] = {
            "name": None,
            "args": "",
            "id": None,
            "index": index,
            "type": "tool_call_chunk",
        }
    if kind == TOOL_ARGS:
        call["args"] += text
        return
    fields = object_of(text)
    if fields.get("id"):
        call["id"] = call["id"] or fields["id"]
    if fields.get("name") and isinstance(fields["name"], str):
        call["name"] = (call["name"] or "") + fields["name"]
    if extras := {key: fields[key] for key in fields if key not in ("id", "name")}:
        call["extras"] = merge_dicts(call.get("extras") or {}, extras)


def add_other(chunk: AIMessageChunk, text: str) -> None:
    """Adds an `other` delta to a chunk; its plain values become labels of the chunk."""
    merge_other(chunk.additional_kwargs, text)
    fields = object_of(text)
    if labels := [key for key, value in fields.items() if is_label(value)]:
        chunk.labels = chunk.labels.union(labels)


def add_more(chunk: AIMessageChunk, kind: str, text: str) -> None:
    """Adds a delta that is neither text nor part of a tool call to a chunk."""
    more = chunk.additional_kwargs
    if kind == REASONING:
        more["reasoning_content"] = more.get("reasoning_content", "") + text
    elif kind == REFUSAL:
        more["refusal"] = more.get("refusal", "") + text
    elif kind == CITATION:
        more["annotations"] = merge_lists(more.get("annotations", []), [value_of(text)])
    elif kind == OTHER:
        add_other(chunk, text)
