"""Answers of Gemini and Ollama for the scripted provider, and their requests in the form of OpenAI's.

They are scripted from the types of google-genai 3.6 and ollama 0.6: no genuine stream of the two was seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.testing import Answer

_GEMINI = re.compile(r"/models/(?P<model>[^:]+):(?P<method>\w+)$")
OUTPUT_TOKENS = 7


def is_gemini(path: str) -> bool:
    """Return whether a path without its query is one of Gemini."""
    return _GEMINI.search(path) is not None


def is_ollama(path: str) -> bool:
    """Return whether a path is one of Ollama."""
    return path.startswith("/api/")


def as_chat(body: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the body of a request as that of a chat completion; a body of another format unchanged."""
    if is_ollama(path):
        return {**body, "stream": body.get("stream", True)}
    if (found := _GEMINI.search(path)) is None:
        return body
    functions = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations") or ()]
    return {
        "model": found["model"],
        "stream": found["method"] == "streamGenerateContent",
        "messages": [_as_message(content) for content in body["contents"]],
        "tools": functions,
    }


def _as_message(content: Mapping[str, Any]) -> dict[str, Any]:
    parts = content["parts"]
    if any("functionResponse" in part for part in parts):
        return {"role": "tool", "content": ""}
    text = "".join(part.get("text", "") for part in parts)
    return {"role": "user" if content.get("role") == "user" else "assistant", "content": text}


def error(path: str, status: int) -> Answer:
    """Return a response with an error status in the format of the path."""
    found: Any = {"code": status, "message": "Not now.", "status": "RESOURCE_EXHAUSTED"}
    body = {"error": found if is_gemini(path) else "not now"}
    return Answer(status=status, body=json.dumps(body).encode())


# -- Gemini ------------------------------------------------------------------------------------------------------


def gemini_events(
    pieces: Sequence[str], *, model: str = "gemini-2.5-flash", prompt_tokens: int = 14, call: Any = None
) -> list[dict[str, Any]]:
    """Return the objects of a stream: one for each piece, a call, and the finish reason with the usage."""
    usage = {"promptTokenCount": prompt_tokens, "totalTokenCount": prompt_tokens}
    parts = [{"text": piece} for piece in pieces] + ([{"functionCall": call}] if call else [])
    total = {**usage, "candidatesTokenCount": OUTPUT_TOKENS, "totalTokenCount": prompt_tokens + OUTPUT_TOKENS}
    shared = {"modelVersion": model, "responseId": "r-1"}
    events = [{"candidates": [_candidate([part])], "usageMetadata": usage, **shared} for part in parts]
    last = {**_candidate([{"text": ""}]), "finishReason": "STOP"}
    return [*events, {"candidates": [last], "usageMetadata": total, **shared}]


def _candidate(parts: list[Any]) -> dict[str, Any]:
    return {"content": {"parts": parts, "role": "model"}, "index": 0}


def gemini_frames(*pieces: str, **fields: Any) -> list[bytes]:
    """Return the frames of a stream with `?alt=sse`."""
    return [b"data: " + _json(each) + b"\r\n\r\n" for each in gemini_events(pieces, **fields)]


def gemini_array(*pieces: str, **fields: Any) -> list[bytes]:
    """Return the pieces of the array that is sent without it."""
    events = [json.dumps(each, indent=2).encode() for each in gemini_events(pieces, **fields)]
    return [b"[" + events[0], *(b"\n,\r\n" + event for event in events[1:]), b"\n]\n"]


def gemini_body(*pieces: str, **fields: Any) -> bytes:
    """Return the body of an answer that is not streamed."""
    events = gemini_events(pieces, **fields)
    parts = [part for event in events for part in event["candidates"][0]["content"]["parts"]]
    events[-1]["candidates"][0]["content"]["parts"] = parts
    return json.dumps(events[-1], indent=2).encode()


# -- Ollama ------------------------------------------------------------------------------------------------------


def ollama_lines(
    *pieces: str, model: str = "qwen3", prompt_tokens: int = 14, call: Any = None, key: str = "message"
) -> list[bytes]:
    """Return the lines of a stream, of a chat or with the key `response` of a text."""
    lines = [_piece(key, content=piece) for piece in pieces]
    if call:
        lines.append(_piece(key, tool_calls=[{"id": "call_1", "function": {"index": 0, **call}}]))
    lines.append({**_piece(key), **_end(prompt_tokens)})
    head = {"model": model, "created_at": "2026-11-28T12:00:00.1Z", "done": False}
    return [_json({**head, **line}) + b"\n" for line in lines]


def ollama_body(*pieces: str, call: Any = None, key: str = "message", **fields: Any) -> bytes:
    """Return the body of an answer that is not streamed."""
    last = json.loads(ollama_lines(key=key, **fields)[-1])
    calls = {"tool_calls": [{"id": "call_1", "function": call}]} if call else {}
    return _json({**last, **_piece(key, content="".join(pieces), **calls)})


def _piece(key: str, content: str = "", **message: Any) -> dict[str, Any]:
    return {key: content if key == "response" else {"role": "assistant", "content": content, **message}}


def _end(prompt_tokens: int) -> dict[str, Any]:
    counts = {"prompt_eval_count": prompt_tokens, "eval_count": OUTPUT_TOKENS}
    return {"done": True, "done_reason": "stop", "total_duration": 9_000, **counts}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


# -- answers of the scripted provider ------------------------------------------------------------------------------


def encoded(path: str, body: Mapping[str, Any], pieces: Sequence[str], call: Any, prompt_tokens: int) -> Any:
    """Return the frames of an answer as a list if the request says so, else its body."""
    fields = {"model": body["model"], "prompt_tokens": prompt_tokens}
    if is_gemini(path):
        call = call and {"id": "call-1", "name": call[0], "args": call[1]}
        make: Any = gemini_frames if body["stream"] else gemini_body
    else:
        call = call and {"name": call[0], "arguments": call[1]}
        fields["key"] = "response" if path.endswith("/generate") else "message"
        make = ollama_lines if body["stream"] else ollama_body
    return make(*pieces, call=call, **fields)


def content_type(path: str) -> dict[str, str]:
    """Return the header of a stream."""
    return {"content-type": "text/event-stream" if is_gemini(path) else "application/x-ndjson"}
