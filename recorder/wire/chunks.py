"""Deltas in LangChain's chunks: text, calls of tools, and the rest in `additional_kwargs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.jsons import loads
from recorder.messages import AIMessageChunk
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
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
            _add_call(calls, int(part) if part.isdigit() else 0, kind, text)
        else:
            _add_more(chunk.additional_kwargs, kind, text)
    chunk.tool_call_chunks = list(calls.values())  # type: ignore[arg-type]
    return found


def _add_call(calls: dict[int, dict[str, Any]], index: int, kind: str, text: str) -> None:
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
    else:
        call |= {key: value for key, value in loads(text).items() if key in ("id", "name")}


def _add_more(additional: dict[str, Any], kind: str, text: str) -> None:
    if kind == REASONING:
        additional["reasoning_content"] = additional.get("reasoning_content", "") + text
    elif kind == REFUSAL:
        additional["refusal"] = additional.get("refusal", "") + text
    elif kind == CITATION:
        additional.setdefault("annotations", []).append(loads(text))
    elif kind == OTHER:
        merge_other(additional, text)
