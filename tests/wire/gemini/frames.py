"""Frames as Gemini sends them, scripted from the types of google-genai 3.6: no genuine stream was seen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from recorder.wire.deltas import Delta
from recorder.wire.gemini.stream import Gemini
from recorder.wire.reply import Reply

MODEL = "gemini-2.5-flash"
#: The usage of the last event. Reasoning is not part of the candidates' count.
USAGE = {
    "promptTokenCount": 14, "candidatesTokenCount": 7, "thoughtsTokenCount": 5, "totalTokenCount": 26,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 14}],
}  # fmt: skip
CALL = {"id": "call-7", "name": "get_weather", "args": {"city": "Paris", "days": 2}}
SIGNATURE = "c2lnbmVk"


def event(*parts: Any, finish: str | None = None, index: int | None = None, **fields: Any) -> dict[str, Any]:
    """Return an event with one candidate that has these parts; `fields` are others of the event."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    if index is not None:
        candidate["index"] = index
    return {"candidates": [candidate], "modelVersion": MODEL, "responseId": "r-1", **fields}


def text(value: str) -> dict[str, Any]:
    """Return a part with a text."""
    return {"text": value}


def thought(value: str) -> dict[str, Any]:
    """Return a part with a text of the reasoning."""
    return {"text": value, "thought": True}


#: A stream with everything that usually occurs.
EVENTS = [
    event(
        thought("The user greets"),
        thought(" me."),
        usageMetadata={"promptTokenCount": 14, "totalTokenCount": 14},
    ),
    event(text("Hello")),
    event(text(' thére, {"a": [1]} 中\\"!')),
    event({"functionCall": CALL, "thoughtSignature": SIGNATURE}),
    event(text(""), finish="STOP", usageMetadata=USAGE),
]
#: Its tokens.
DELTAS = [
    Delta("The user greets", "reasoning"),
    Delta(" me.", "reasoning"),
    Delta("Hello"),
    Delta(' thére, {"a": [1]} 中\\"!'),
    Delta('{"id":"call-7","name":"get_weather"}', "tool_call", "0.0"),
    Delta('{"city":"Paris","days":2}', "tool_args", "0.0"),
    Delta(SIGNATURE, "signature", "0.0"),
]


def sse(events: Iterable[Any]) -> bytes:
    """Return the body with `?alt=sse`: events that end with CRLF."""
    return b"".join(b"data: " + _json(each).encode() + b"\r\n\r\n" for each in events)


def array(events: Sequence[Any], indent: int | None = 2) -> bytes:
    """Return the body without it: one array, which grows by an object at a time."""
    return b"[" + b"\n,\r\n".join(_json(each, indent).encode() for each in events) + b"\n]\n"


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def decoded(*bodies: bytes, sizes: Iterable[int] = ()) -> tuple[list[Delta], Reply]:
    """Return what the translator makes of a stream that arrives in these pieces, or in pieces of these sizes."""
    translator = Gemini()
    splitter = translator.framing.splitter()
    pieces = list(_cut(b"".join(bodies), sizes)) if sizes else list(bodies)
    frames = [frame for piece in pieces for frame in splitter.feed(piece)]
    if rest := splitter.end():
        frames.append(rest)
    assert b"".join(frames) == b"".join(bodies)
    return [delta for frame in frames for delta in translator.decode(frame)], translator.reply


def _cut(body: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    start = 0
    for size in sizes:
        yield body[start : start + size]
        start += size
    yield body[start:]


def reply_of(*events: Any) -> Reply:
    """Return the reply that the translator makes of a stream of events."""
    return decoded(sse(events))[1]
