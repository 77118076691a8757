"""Makes chunks, as `on_llm_new_token` gets them, from LangChain's events and from whole messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.core.json import dumps
from recorder.messages import AIMessageChunk, ChatGenerationChunk

_START, _DELTA, _FINISH = "content-block-start", "content-block-delta", "content-block-finish"


def chunk_of_event(event: Any) -> ChatGenerationChunk | None:
    """What an event of LangChain's third version adds to the message; None if it adds nothing."""
    if not isinstance(event, Mapping):
        return None
    kind, index = event.get("event"), event.get("index", 0)
    if kind == _DELTA:
        return _chunk_of_delta(_mapping(event.get("delta")), index)
    block = _mapping(event.get("content"))
    if kind == _START and block.get("type") == "tool_call_chunk":
        return _call(index, block.get("args"), block.get("name"), block.get("id"))
    if kind == _FINISH and block.get("type") == "non_standard":
        return _content([{**_mapping(block.get("value")), "index": index}])
    return None


def chunk_of_message(message: Any) -> ChatGenerationChunk:
    """A whole message as one chunk: the application did not stream."""
    calls = getattr(message, "tool_calls", None) or ()
    chunk = AIMessageChunk("", additional_kwargs=_mapping(message.additional_kwargs))
    chunk.tool_call_chunks = [
        _call_chunk(n, dumps(c["args"]), c["name"], c["id"]) for n, c in enumerate(calls)
    ]
    return ChatGenerationChunk(chunk)


def _chunk_of_delta(delta: dict[str, Any], index: Any) -> ChatGenerationChunk | None:
    kind = delta.get("type")
    if kind == "text-delta":
        return _content(delta.get("text") or "")
    if kind == "reasoning-delta":
        return _content([{"type": "reasoning", "reasoning": delta.get("reasoning"), "index": index}])
    if kind == "tool-call-delta":
        return _call(index, delta.get("args"))
    if kind == "block-delta":
        return _content([{**_mapping(delta.get("fields")), "index": index}])
    return None


def _content(content: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(AIMessageChunk(content))


def _call(index: Any, args: Any, name: Any = None, id: Any = None) -> ChatGenerationChunk:
    chunk = AIMessageChunk("")
    chunk.tool_call_chunks = [_call_chunk(index, args, name, id)]
    return ChatGenerationChunk(chunk)


def _call_chunk(index: Any, args: Any, name: Any, id: Any) -> Any:
    return {"name": name, "args": args, "id": id, "index": index, "type": "tool_call_chunk"}


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
