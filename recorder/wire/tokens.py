"""Deltas of what a model tells by tokens and chunks, where there is no wire format to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recorder.jsons import dumps
from recorder.wire.deltas import CITATION, REASONING, REFUSAL, TOOL_ARGS, TOOL_CALL, Delta

_KINDS = {"reasoning_content": REASONING, "refusal": REFUSAL}


def deltas_of(token: Any, chunk: Any) -> list[Delta]:
    """The deltas of a token and of the chunk that it came with: text, and what the chunk's message has beside it."""
    message = getattr(chunk, "message", None)
    more = getattr(message, "additional_kwargs", None) or {}
    deltas = [Delta(text) for text in _texts(token)]
    deltas += [
        Delta(said, kind) for key, kind in _KINDS.items() if (said := more.get(key)) and type(said) is str
    ]
    if isinstance(citations := more.get("annotations"), list):
        deltas += [Delta(dumps(citation), CITATION) for citation in citations]
    for call in getattr(message, "tool_call_chunks", None) or ():
        idx = f"0.{call.get('index') or 0}"
        opening = {key: call[key] for key in ("id", "name") if call.get(key)}
        if opening:
            deltas.append(Delta(dumps(opening), TOOL_CALL, idx))
        if args := call.get("args"):
            deltas.append(Delta(args if isinstance(args, str) else dumps(args), TOOL_ARGS, idx))
    return deltas


def _texts(token: Any) -> Iterator[str]:
    """A token is a str, or with some models a list of content blocks."""
    for block in token if isinstance(token, list) else [token]:
        text = block.get("text") if isinstance(block, dict) else block
        if isinstance(text, str) and text:
            yield text
