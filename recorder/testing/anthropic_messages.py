"""Messages in the form of Anthropic's API: streamed events, responses that are not streamed, and errors."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recorder.testing.json_bodies import compact, text_of
from recorder.testing.song import pieces_of

#: The name of a model in the API's responses, by its short name in requests.
ANTHROPIC_SNAPSHOTS = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}

_LETTERS = string.ascii_letters + string.digits
#: The API puts fewer spaces than this before the last brace, so that the length does not reveal the token.
_PADDING = 15
#: A generator of its own, so that ids do not change the state of `random` in an application that seeds it.
_chance = random.Random()

#: `{"id", "name", "input"}`; the input is a dict, or a list of the pieces of its JSON.
ToolUse = Mapping[str, Any]


def anthropic_messages_frames(
    pieces: Sequence[str] = (),
    *,
    model: str = "claude-haiku-4-5",
    id: str = "",
    thinking: Sequence[str] = (),
    signature: str = "",
    redacted_thinking: str = "",
    tool_calls: Sequence[ToolUse] = (),
    blocks: Sequence[Mapping[str, Any]] = (),
    stop_reason: str | None = None,
    stop_sequence: str | None = None,
    prompt_tokens: int = 14,
    usage: Mapping[str, Any] | None = None,
    padding: bool = True,
) -> list[bytes]:
    """The events of one streamed message. Each is the bytes of one event with the blank line at its end.

    The order is: a block of `thinking` with its signature, `redacted_thinking`, the text, the tool calls, and `blocks`
    of any type, which are sent without deltas. `stop_reason` is "end_turn", or "tool_use" when there are calls, unless
    it is given. `usage` adds counts or replaces them. The same arguments with the same `id` give the same bytes.
    """
    content = _MessageContent(pieces, thinking, signature, redacted_thinking, tool_calls, blocks)
    encoder = _EventEncoder(
        id or message_id(), model, {**_input_usage(prompt_tokens), **(usage or {})}, padding
    )
    stopped = {"stop_reason": stop_reason or content.stop, "stop_sequence": stop_sequence}
    return [*encoder.frames(content, stopped)]


def anthropic_messages_body(
    pieces: Sequence[str] = (),
    *,
    model: str = "claude-haiku-4-5",
    id: str = "",
    thinking: Sequence[str] = (),
    signature: str = "",
    redacted_thinking: str = "",
    tool_calls: Sequence[ToolUse] = (),
    blocks: Sequence[Mapping[str, Any]] = (),
    stop_reason: str | None = None,
    stop_sequence: str | None = None,
    prompt_tokens: int = 14,
    usage: Mapping[str, Any] | None = None,
) -> bytes:
    """The answer of `anthropic_messages_frames`, not streamed: one message as JSON."""
    content = _MessageContent(pieces, thinking, signature, redacted_thinking, tool_calls, blocks)
    message = {
        **_message(id or message_id(), model),
        "content": content.complete_blocks(),
        "stop_reason": stop_reason or content.stop,
        "stop_sequence": stop_sequence,
        "usage": {**_input_usage(prompt_tokens), **content.output_usage(), **(usage or {}), **_SERVICE},
    }
    return compact(message)


def anthropic_error(message: str, type: str = "api_error", request_id: str = "") -> bytes:
    """The body of an error response in the API's form."""
    return compact(_error(message, type, request_id or anthropic_request_id()))


def anthropic_error_frame(message: str, type: str = "api_error") -> bytes:
    """An error during a stream; it is the last event."""
    error = {"details": None, "type": type, "message": message}
    return b"event: error\ndata: " + compact({"type": "error", "error": error}) + b"\n\n"


def anthropic_models() -> bytes:
    """The body of the response to GET /v1/models."""
    rest = {"type": "model", "created_at": "2025-10-15T00:00:00Z"}
    data = [{"id": snapshot, "display_name": name, **rest} for name, snapshot in ANTHROPIC_SNAPSHOTS.items()]
    return compact({"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]})


def message_id() -> str:
    """A new id of a message in the API's form."""
    return "msg_01" + _name(22)


def anthropic_request_id() -> str:
    """A new id of a request in the API's form, for the header `request-id`."""
    return "req_011" + _name(21)


def anthropic_prompt_tokens(request: Mapping[str, Any]) -> int:
    """An estimate of a request's tokens: its pieces, plus three for each message and three for the reply."""
    messages: Iterable[Any] = [{"content": request.get("system") or ""}, *request.get("messages", ())]
    return 3 + sum(3 + len(pieces_of(text_of(each))) for each in messages if isinstance(each, Mapping))


@dataclass(frozen=True, slots=True)
class _MessageContent:
    """The content of the message."""

    pieces: Sequence[str]
    thinking: Sequence[str]
    signature: str
    redacted_thinking: str
    tool_calls: Sequence[ToolUse]
    blocks: Sequence[Mapping[str, Any]]

    @property
    def stop(self) -> str:
        return "tool_use" if self.tool_calls else "end_turn"

    def streamed_blocks(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Each block as in `content_block_start`, and its deltas."""
        if self.thinking or self.signature:
            yield {"type": "thinking", "thinking": "", "signature": ""}, self._thinking_deltas()
        if self.redacted_thinking:
            yield {"type": "redacted_thinking", "data": self.redacted_thinking}, []
        if self.pieces:
            yield (
                {"type": "text", "text": ""},
                [{"type": "text_delta", "text": piece} for piece in self.pieces],
            )
        for call in self.tool_calls:
            yield _tool_use(call, {}), [_json_delta(piece) for piece in ["", *_input_pieces(call)]]
        yield from ((dict(block), []) for block in self.blocks)

    def _thinking_deltas(self) -> list[dict[str, Any]]:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in self.thinking]
        return [*deltas, {"type": "signature_delta", "signature": self.signature}]

    def complete_blocks(self) -> list[dict[str, Any]]:
        """The blocks of a message that is not streamed."""
        found: list[dict[str, Any]] = []
        if self.thinking or self.signature:
            found.append(
                {"type": "thinking", "thinking": "".join(self.thinking), "signature": self.signature}
            )
        if self.redacted_thinking:
            found.append({"type": "redacted_thinking", "data": self.redacted_thinking})
        if self.pieces:
            found.append({"type": "text", "text": "".join(self.pieces)})
        found += [_tool_use(call, json.loads("".join(_input_pieces(call)))) for call in self.tool_calls]
        return found + [dict(block) for block in self.blocks]

    def output_usage(self) -> dict[str, Any]:
        """The number of output tokens; each piece is one."""
        calls = sum(1 + len(_input_pieces(call)) for call in self.tool_calls)
        counts: dict[str, Any] = {"output_tokens": len(self.pieces) + len(self.thinking) + calls}
        if self.thinking:
            counts["output_tokens_details"] = {"thinking_tokens": len(self.thinking)}
        return counts


@dataclass(frozen=True, slots=True)
class _EventEncoder:
    """Encodes the events of one message."""

    id: str
    model: str
    #: The input counts, which the first event has already, and counts that the caller gave.
    usage: Mapping[str, Any]
    #: Whether events are padded.
    padding: bool
    chance: random.Random = field(default_factory=random.Random)

    def frames(self, content: _MessageContent, stopped: Mapping[str, Any]) -> Iterator[bytes]:
        """All events in order."""
        self.chance.seed(self.id)
        started = {**self.usage, "output_tokens": 1, **_SERVICE}
        message = {**_message(self.id, self.model), "content": [], "stop_reason": None, "stop_sequence": None}
        yield self.event("message_start", message={**message, "usage": started})
        for index, (block, deltas) in enumerate(content.streamed_blocks()):
            yield self.event("content_block_start", index=index, content_block=block)
            if index == 0:
                yield b'event: ping\ndata: {"type": "ping"}\n\n'
            for delta in deltas:
                yield self.event("content_block_delta", index=index, delta=delta)
            yield self.event("content_block_stop", index=index)
        counted = {key: count for key, count in self.usage.items() if key != "cache_creation"}
        yield self.event("message_delta", delta=stopped, usage={**content.output_usage(), **counted})
        yield self.event("message_stop")

    def event(self, name: str, **fields: Any) -> bytes:
        """One event."""
        data = compact({"type": name, **fields})
        if self.padding:
            data = data[:-1] + b" " * self.chance.randrange(_PADDING) + b"}"
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _message(id: str, model: str) -> dict[str, Any]:
    name = ANTHROPIC_SNAPSHOTS.get(model, model)
    return {"model": name, "id": id, "type": "message", "role": "assistant"}


def _tool_use(call: ToolUse, input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["id"], "name": call["name"], "input": input}


def _json_delta(piece: str) -> dict[str, Any]:
    return {"type": "input_json_delta", "partial_json": piece}


def _input_pieces(call: ToolUse) -> list[str]:
    input = call["input"]
    return pieces_of(compact(input).decode()) if isinstance(input, Mapping) else list(input)


_SERVICE = {"service_tier": "standard", "inference_geo": "not_available"}


def _input_usage(prompt_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    }


def _error(message: str, type: str, request_id: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": request_id}


def _name(length: int) -> str:
    return "".join(_chance.choices(_LETTERS, k=length))
