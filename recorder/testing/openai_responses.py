"""Responses in the form of OpenAI's API: streamed events, and responses that are not streamed."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recorder.testing.json_bodies import compact, indented, text_of
from recorder.testing.openai_chat import SNAPSHOTS, ToolCallFields
from recorder.testing.song import pieces_of

_HEX = "0123456789abcdef"
_LETTERS = string.ascii_letters + string.digits
#: A generator of its own, so that ids do not change the state of `random` in an application that seeds it.
_chance = random.Random()
#: The most characters of padding in an event, with which the API hides the length of a token.
_PADDING = 16

EventFields = dict[str, Any]


def openai_responses_frames(
    pieces: Sequence[str] = (),
    *,
    model: str = "gpt-4o-mini",
    id: str = "",
    reasoning: Sequence[str] = (),
    tool_calls: Sequence[ToolCallFields] = (),
    refusal: str = "",
    items: Sequence[Mapping[str, Any]] = (),
    incomplete: str | None = None,
    error: Mapping[str, Any] | None = None,
    previous_response_id: str | None = None,
    created: int | None = None,
    prompt_tokens: int = 14,
    obfuscation: bool = True,
) -> list[bytes]:
    """The events of one streamed response. Each is the bytes of one event with the blank line at its end.

    The order is: a summary of the `reasoning`, `items` of any type, which are sent without pieces, a message with the
    text or the `refusal`, the tool calls, and the complete response with its usage. With the reason `incomplete` the
    response is incomplete; with `error` (`{"code", "message"}`) it has failed. The same arguments with the same `id`
    and `created` give the same bytes.
    """
    content = _ResponseContent(pieces, reasoning, tool_calls, refusal, items)
    response = _response(id, model, created, previous_response_id)
    encoder = _EventNumbers(random.Random(response["id"]), obfuscation)
    frames = [encoder.frame(f"response.{word}", response=response) for word in ("created", "in_progress")]
    for index, item in enumerate(content.items(response["id"])):
        frames += [encoder.frame(kind, **fields) for kind, fields in _item_events(index, item, content)]
    ended = _ended(response, content, prompt_tokens, incomplete, error)
    return [*frames, encoder.frame(f"response.{ended['status']}", response=ended)]


def openai_responses_body(
    pieces: Sequence[str] = (),
    *,
    model: str = "gpt-4o-mini",
    id: str = "",
    reasoning: Sequence[str] = (),
    tool_calls: Sequence[ToolCallFields] = (),
    refusal: str = "",
    items: Sequence[Mapping[str, Any]] = (),
    incomplete: str | None = None,
    error: Mapping[str, Any] | None = None,
    previous_response_id: str | None = None,
    created: int | None = None,
    prompt_tokens: int = 14,
) -> bytes:
    """The answer of `openai_responses_frames`, not streamed: one response, indented as the API sends it."""
    content = _ResponseContent(pieces, reasoning, tool_calls, refusal, items)
    response = _response(id, model, created, previous_response_id)
    return indented(_ended(response, content, prompt_tokens, incomplete, error))


def openai_responses_error_frame(message: str, type: str = "server_error", code: str | None = None) -> bytes:
    """An error during a stream. It is the last event."""
    error = {"type": type, "code": code, "message": message, "param": None}
    return b"event: error\ndata: " + compact({"type": "error", "error": error}) + b"\n\n"


def responses_prompt_tokens(request: Mapping[str, Any]) -> int:
    """An estimate of a prompt's tokens: the pieces of its texts, plus four for each item and three for the reply."""
    given = request.get("input")
    items = given if isinstance(given, list) else [{"content": given}]
    texts = [str(request.get("instructions") or ""), *map(text_of, items)]
    return 3 + sum(4 + len(pieces_of(text)) for text in texts if text)


def response_id() -> str:
    """A new id in the API's form."""
    return "resp_" + "".join(_chance.choices(_HEX, k=50))


@dataclass(frozen=True, slots=True)
class _ResponseContent:
    """The content of one response."""

    pieces: Sequence[str]
    reasoning: Sequence[str]
    tool_calls: Sequence[ToolCallFields]
    refusal: str
    more_items: Sequence[Mapping[str, Any]]

    @property
    def tokens(self) -> int:
        """The number of output tokens; each piece is one."""
        calls = sum(1 + len(argument_pieces(call)) for call in self.tool_calls)
        return len(self.pieces) + len(self.reasoning) + len(pieces_of(self.refusal)) + calls

    def items(self, id: str) -> list[EventFields]:
        """The complete output items; their ids depend on the id of the response."""
        suffix = id.removeprefix("resp_")
        found: list[EventFields] = []
        if self.reasoning:
            summary = [{"type": "summary_text", "text": "".join(self.reasoning)}]
            found.append({"id": f"rs_{suffix}", "type": "reasoning", "summary": summary})
        found += map(dict, self.more_items)
        if self.pieces or self.refusal or not self.tool_calls:
            head = {"id": f"msg_{suffix}", "type": "message", "status": "completed"}
            found.append({**head, "content": [self._part()], "role": "assistant"})
        return [
            *found,
            *(_call_item(f"fc_{number}_{suffix}", call) for number, call in enumerate(self.tool_calls)),
        ]

    def _part(self) -> EventFields:
        if self.refusal:
            return {"type": "refusal", "refusal": self.refusal}
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(self.pieces)}


@dataclass(slots=True)
class _EventNumbers:
    """Encodes events, each with the next number."""

    chance: random.Random
    #: Whether events with a piece are padded.
    obfuscation: bool
    next: int = field(default=0)

    def frame(self, kind: str, **fields: Any) -> bytes:
        """One event."""
        event = {"type": kind, "sequence_number": self.next, **fields}
        self.next += 1
        if self.obfuscation and "delta" in fields:
            event["obfuscation"] = "".join(
                self.chance.choices(_LETTERS, k=self.chance.randrange(1, _PADDING))
            )
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), compact(event))


def _item_events(
    index: int, item: EventFields, content: _ResponseContent
) -> Iterator[tuple[str, EventFields]]:
    """The type and the fields of each event of an item."""
    place = {"output_index": index}
    in_progress = {"status": "in_progress"} if "status" in item else {}
    empty = {key: type(item[key])() for key in ("content", "summary", "arguments") if key in item}
    yield "response.output_item.added", {**place, "item": {**item, **in_progress, **empty}}
    inside = {"item_id": item["id"], **place} if "id" in item else place
    if item["type"] == "message":
        yield from _part_events(inside, item["content"][0], content)
    elif item["type"] == "reasoning" and item.get("summary"):
        yield from _summary_events(inside, item["summary"][0], content)
    elif item["type"] == "function_call":
        call = next(call for call in content.tool_calls if call["id"] == item["call_id"])
        yield from _argument_events(inside, call)
    yield "response.output_item.done", {**place, "item": item}


def _part_events(
    place: EventFields, part: EventFields, content: _ResponseContent
) -> Iterator[tuple[str, EventFields]]:
    place = {**place, "content_index": 0}
    is_refusal = part["type"] == "refusal"
    key, stem = ("refusal", "response.refusal") if is_refusal else ("text", "response.output_text")
    more: EventFields = {} if is_refusal else {"logprobs": []}
    yield "response.content_part.added", {**place, "part": {**part, key: ""}}
    for piece in pieces_of(content.refusal) if content.refusal else content.pieces:
        yield f"{stem}.delta", {**place, "delta": piece, **more}
    yield f"{stem}.done", {**place, key: part[key], **more}
    yield "response.content_part.done", {**place, "part": part}


def _summary_events(
    place: EventFields, part: EventFields, content: _ResponseContent
) -> Iterator[tuple[str, EventFields]]:
    place = {**place, "summary_index": 0}
    yield "response.reasoning_summary_part.added", {**place, "part": {**part, "text": ""}}
    for piece in content.reasoning:
        yield "response.reasoning_summary_text.delta", {**place, "delta": piece}
    yield "response.reasoning_summary_text.done", {**place, "text": part["text"]}
    yield "response.reasoning_summary_part.done", {**place, "part": part}


def _argument_events(place: EventFields, call: ToolCallFields) -> Iterator[tuple[str, EventFields]]:
    pieces = argument_pieces(call)
    for piece in pieces:
        yield "response.function_call_arguments.delta", {**place, "delta": piece}
    yield "response.function_call_arguments.done", {**place, "arguments": "".join(pieces)}


def _call_item(id: str, call: ToolCallFields) -> EventFields:
    arguments = "".join(argument_pieces(call))
    head = {"id": id, "type": "function_call", "status": "completed", "arguments": arguments}
    return {**head, "call_id": call["id"], "name": call["name"]}


def argument_pieces(call: ToolCallFields) -> list[str]:
    """The pieces of a call's arguments."""
    arguments = call["arguments"]
    return pieces_of(arguments) if isinstance(arguments, str) else list(arguments)


def _response(id: str, model: str, created: int | None, previous_response_id: str | None) -> EventFields:
    """A response at its start."""
    return {
        "id": id or response_id(),
        "object": "response",
        "created_at": int(time.time()) if created is None else created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": SNAPSHOTS.get(model, model),
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }


def _ended(
    response: EventFields,
    content: _ResponseContent,
    prompt_tokens: int,
    incomplete: str | None,
    error: Mapping[str, Any] | None,
) -> EventFields:
    """The response at its end."""
    usage = {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": content.tokens,
        "output_tokens_details": {"reasoning_tokens": len(content.reasoning)},
        "total_tokens": prompt_tokens + content.tokens,
    }
    ended = {**response, "status": "completed", "output": content.items(response["id"]), "usage": usage}
    if error is not None:
        return {**ended, "status": "failed", "error": dict(error)}
    if incomplete is not None:
        return {**ended, "status": "incomplete", "incomplete_details": {"reason": incomplete}}
    return ended
