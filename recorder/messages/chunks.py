"""Converts what the code of a `SimpleChatModel` returns or yields into chunks."""

from __future__ import annotations

import json
from copy import copy
from typing import Any

from recorder.errors import ConfigError
from recorder.messages.base import AIMessage, AIMessageChunk
from recorder.messages.convert import from_any
from recorder.messages.merge import tool_call_chunk

_FIELDS = ("name", "id", "usage_metadata")


def chunk_from(piece: Any) -> AIMessageChunk:
    """A new chunk from a str, a message, a chunk, a generation, or the first generation of a result.

    Objects of recorder and of LangChain are accepted. Raises `ConfigError` for anything else.
    """
    if isinstance(piece, str):
        return AIMessageChunk(piece)
    if isinstance(piece, AIMessageChunk):
        return copy(piece)
    if generations := getattr(piece, "generations", None):
        first = generations[0]
        return chunk_from(first[0] if isinstance(first, list) and first else first)
    if (message := getattr(piece, "message", None)) is not None:
        chunk = chunk_from(message)
        chunk.response_metadata = {
            **(getattr(piece, "generation_info", None) or {}),
            **chunk.response_metadata,
        }
        return chunk
    return _chunk_of_chunk(piece) if hasattr(piece, "tool_call_chunks") else _chunk_of_message(piece)


def is_complete_message(piece: Any) -> bool:
    """Whether a piece is a complete message, or a generation or result with one; not a text and not a chunk."""
    if generations := getattr(piece, "generations", None):
        first = generations[0]
        return is_complete_message(first[0] if isinstance(first, list) and first else first)
    message = getattr(piece, "message", piece)
    return not isinstance(message, str) and not hasattr(message, "tool_call_chunks")


def _chunk_of_chunk(piece: Any) -> AIMessageChunk:
    """Our chunk for a chunk of LangChain."""
    return AIMessageChunk(
        piece.content,
        additional_kwargs=dict(piece.additional_kwargs),
        response_metadata=dict(piece.response_metadata),
        tool_call_chunks=[dict(call) for call in piece.tool_call_chunks],  # type: ignore[misc]
        chunk_position=getattr(piece, "chunk_position", None),
        **{name: getattr(piece, name, None) for name in _FIELDS},
    )


def _chunk_of_message(piece: Any) -> AIMessageChunk:
    message = _message(piece)
    calls: list[tuple[Any, Any, Any, Any]] = [
        (call["name"], json.dumps(call["args"]), call["id"], call.get("extras"))
        for call in message.tool_calls
    ]
    calls += [
        (call["name"] or "", call["args"] or "", call["id"], call.get("extras"))
        for call in message.invalid_tool_calls
    ]
    return AIMessageChunk(
        message.content,
        additional_kwargs=dict(message.additional_kwargs),
        response_metadata=dict(message.response_metadata),
        tool_call_chunks=[
            tool_call_chunk(name, args, id, index, extras)
            for index, (name, args, id, extras) in enumerate(calls)
        ],
        **{name: getattr(message, name) for name in _FIELDS},
    )


def _message(piece: Any) -> AIMessage:
    try:
        message = from_any(piece)
    except ConfigError:
        message = None
    if not isinstance(message, AIMessage):
        raise ConfigError(
            f"an answer cannot be {type(piece).__name__} {piece!r:.80}; return or yield a str, an AIMessage, "
            "an AIMessageChunk or a generation"
        )
    return message
