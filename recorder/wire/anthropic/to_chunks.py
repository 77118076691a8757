"""Puts deltas of Anthropic's answers into LangChain's chunks, as blocks with an `index` that add up to the content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recorder.core.json import loads
from recorder.messages import AIMessageChunk, tool_call_chunk
from recorder.messages.merge import merge_content, merge_lists
from recorder.wire.anthropic.reply import block_of, is_block_json
from recorder.wire.deltas import CITATION, OTHER, REASONING, SIGNATURE, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.to_chunks import add_other


def wants_blocks(body: Mapping[str, Any]) -> bool:
    """Whether the answer may hold more than text; then LangChain's chunks hold lists of blocks from the start."""
    thinking, edits = body.get("thinking") or {}, (body.get("context_management") or {}).get("edits") or ()
    return (
        bool(body.get("tools") or body.get("mcp_servers") or (body.get("extra_body") or {}).get("tools"))
        or thinking.get("type") in ("enabled", "adaptive")
        or any("compact" in str(edit.get("type")) for edit in edits)
        or any(_is_cited(block) for message in body.get("messages", ()) for block in _blocks(message))
    )


def _blocks(message: Mapping[str, Any]) -> Sequence[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else ()


def _is_cited(block: Any) -> bool:
    document = isinstance(block, Mapping) and block.get("type") == "document"
    return document and bool((block.get("citations") or {}).get("enabled"))


def fill_text(chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
    """Adds text as a string, and everything else as blocks. Returns whether there were deltas."""
    return _fill(chunk, deltas, as_blocks=False)


def fill_blocks(chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
    """Adds everything as blocks. Returns whether there were deltas."""
    if len(deltas) == 1 and deltas[0][1] == TEXT:
        text, _, idx = deltas[0]
        chunk.content = [{"text": text, "type": "text", "index": block_of(idx)}]
        return True
    chunk.content = []
    return _fill(chunk, deltas, as_blocks=True)


def _fill(chunk: AIMessageChunk, deltas: Sequence[Delta], *, as_blocks: bool) -> bool:
    blocks: list[dict[str, Any]] = []
    for text, kind, idx in deltas:
        if kind == TEXT and not as_blocks:
            chunk.content = merge_content(chunk.content, [text])
        elif kind == OTHER and not is_block_json(loads(text)):
            add_other(chunk, text)
        else:
            index = block_of(idx)
            blocks.append({**_PIECES[kind](text), "index": index})
            if kind in (TOOL_CALL, TOOL_ARGS):
                chunk.tool_call_chunks = merge_lists(chunk.tool_call_chunks, [_call(kind, text, index)])
    if blocks:
        chunk.content = merge_content(chunk.content, [merge_lists([], blocks)])
    return bool(deltas)


def _call(kind: str, text: str, index: int) -> Any:
    if kind == TOOL_ARGS:
        return tool_call_chunk(None, text, None, index)
    fields = loads(text)
    return tool_call_chunk(fields.get("name"), "", fields.get("id"), index)


def _other(text: str) -> dict[str, Any]:
    fields = loads(text)
    if "content_block" in fields:
        return dict(fields["content_block"])
    if "partial_json" in fields:
        return {"type": "input_json_delta", "partial_json": fields["partial_json"]}
    delta = {key: value for key, value in fields["content_block_delta"].items() if value is not None}
    return {**delta, "type": str(delta.get("type", "")).removesuffix("_delta")}


#: Kind of a delta -> makes the piece of a block from the delta's text.
_PIECES: dict[str, Callable[[str], dict[str, Any]]] = {
    TEXT: lambda text: {"type": "text", "text": text},
    CITATION: lambda text: {"type": "text", "citations": [loads(text)]},
    REASONING: lambda text: {"type": "thinking", "thinking": text},
    SIGNATURE: lambda text: {"type": "thinking", "thinking": "", "signature": text},
    TOOL_CALL: lambda text: {"type": "tool_use", "input": {}, **loads(text)},
    TOOL_ARGS: lambda text: {"type": "input_json_delta", "partial_json": text},
    OTHER: _other,
}
