"""Deltas in LangChain's chunks: text, calls of tools, and the rest in `additional_kwargs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.messages import AIMessageChunk
from recorder.messages.merge import is_label, merge_dicts, merge_lists
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.recorded import object_of, value_of
from recorder.wire.reply import merge_other


def fill(chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
    """Put the first choice's deltas of one event into a chunk, as LangChain has OpenAI's; whether there were any."""
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
    """Put a piece of a call into those of one event."""
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
    said = object_of(text)
    if said.get("id"):
        call["id"] = call["id"] or said["id"]
    if said.get("name") and isinstance(said["name"], str):
        call["name"] = (call["name"] or "") + said["name"]
    if extras := {key: said[key] for key in said if key not in ("id", "name")}:
        call["extras"] = merge_dicts(call.get("extras") or {}, extras)


def add_other(chunk: AIMessageChunk, text: str) -> None:
    """Put an `other` delta into a chunk; what is no structure is a label there."""
    merge_other(chunk.additional_kwargs, text)
    said = object_of(text)
    if labels := [key for key, value in said.items() if is_label(value)]:
        chunk.labels = chunk.labels.union(labels)


def add_more(chunk: AIMessageChunk, kind: str, text: str) -> None:
    """Put what is neither text nor a call into a chunk."""
    more = chunk.additional_kwargs
    if kind == REASONING:
        more["reasoning_content"] = more.get("reasoning_content", "") + text
    elif kind == REFUSAL:
        more["refusal"] = more.get("refusal", "") + text
    elif kind == CITATION:
        more["annotations"] = merge_lists(more.get("annotations", []), [value_of(text)])
    elif kind == OTHER:
        add_other(chunk, text)
