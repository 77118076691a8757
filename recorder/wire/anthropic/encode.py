"""Encodes the deltas of any run as Anthropic's messages.

The answer is a list of blocks, which are started, filled and stopped one after another. An Anthropic run keeps its
blocks (`idx` names them). In any other run a block starts when the kind changes, and each tool call has its own block.
Only the first choice is sent, because the format has no others. A refusal is sent as text.
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from recorder.core.json import loads
from recorder.messages import parse_args
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
)
from recorder.wire.recorded_run import (
    ANTHROPIC,
    RESPONSES,
    Failure,
    Recorded,
    TextTemplate,
    TimedDeltas,
    anthropic_usage,
    choice_of,
    error_type,
    finish_reason,
    json_bytes,
    object_of,
    value_of,
)

#: Kind of a delta -> the type of its block.
_TYPES = {
    TEXT: "text",
    REFUSAL: "text",
    CITATION: "text",
    REASONING: "thinking",
    SIGNATURE: "thinking",
    TOOL_CALL: "tool_use",
    TOOL_ARGS: "tool_use",
}
#: Kind of a delta -> the bytes before its text in an event.
_TEXT_PREFIXES = {
    TEXT: b'{"type":"text_delta","text":',
    REFUSAL: b'{"type":"text_delta","text":',
    REASONING: b'{"type":"thinking_delta","thinking":',
    TOOL_ARGS: b'{"type":"input_json_delta","partial_json":',
}
#: Type of a block -> the block in its start event.
_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "id": "", "name": "", "input": {}},
}
#: Metadata keys in the `message_delta` event, beside the stop reason: inside of its `delta`, and next to it.
_IN_DELTA = ("stop_details", "container")
_BESIDE_DELTA = ("context_management", "diagnostics")
#: Keys of the usage that are sent only at the start of a message, and those sent at its start and its end.
_AT_START = frozenset(("cache_creation", "service_tier", "inference_geo"))
_ALWAYS = frozenset(("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))

_NO_WORD = re.compile("[^a-z0-9_.]", re.IGNORECASE | re.ASCII)

EventDict = dict[str, Any]


class AnthropicEncoder:
    """Encodes the events of one run."""

    def __init__(self, run: Recorded) -> None:
        self._run = run
        self._blocks = _BlockEncoder(run)

    def opening(self, first: Delta | None) -> Iterator[bytes]:
        """The event with the message, without content."""
        usage = anthropic_usage(self._run)
        usage = {**{key: usage[key] for key in usage if key in _AT_START | _ALWAYS}, "output_tokens": 0}
        yield _frame({"type": "message_start", "message": {**_message(self._run), "usage": usage}})

    def events(self, delta: Delta) -> Iterator[bytes]:
        """The frames of a delta; none if the format cannot express it."""
        return map(_frame, self._blocks.events(delta))

    def text_template(self, delta: Delta) -> TextTemplate | None:
        """The bytes before and after the text in the frame of a delta like this one; None without a text."""
        number = self._blocks.block_number(delta)
        if number is None or delta.kind not in _TEXT_PREFIXES:
            return None
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % number
        return head + _TEXT_PREFIXES[delta.kind], b"}}\n\n"

    def ending(self) -> Iterator[bytes]:
        """The frames that stop the open blocks and the message, or the error."""
        run = self._run
        if run.failure is not None:
            yield _frame(_error(run.failure))
            return
        end_fields = _end_fields(run, self._blocks)
        if not run.terminated and end_fields["stop_reason"] is None:
            return  # the stream was cut off here
        yield from map(_frame, self._blocks.stop_all())
        usage = {key: value for key, value in anthropic_usage(run).items() if key not in _AT_START}
        beside = _metadata(run, _BESIDE_DELTA)
        yield _frame({"type": "message_delta", "delta": end_fields, "usage": usage, **beside})
        if run.terminated:
            yield _frame({"type": "message_stop"})


def body(run: Recorded, deltas: TimedDeltas) -> bytes:
    """The answer as one JSON body; the error's body if the run failed."""
    if run.failure is not None:
        return json_bytes(_error(run.failure))
    blocks = _BlockEncoder(run)
    content: list[EventDict] = []
    pieces: dict[tuple[int, str], list[str]] = {}
    for _, delta in deltas:
        _collect(blocks.events(delta), content, pieces)
    _collect(blocks.stop_all(), content, pieces)
    for (number, key), texts in pieces.items():
        _fill(content[number], key, "".join(texts))
    message = _message(run) | {"content": content, "usage": anthropic_usage(run)}
    return json_bytes(message | _end_fields(run, blocks) | _metadata(run, _BESIDE_DELTA))


class _BlockEncoder:
    """Encodes deltas as events of blocks; knows which block is open, and the block of each tool call."""

    def __init__(self, run: Recorded) -> None:
        self._same_format = run.wire == ANTHROPIC
        #: The signatures of OpenAI's Responses are not Anthropic's.
        self._has_signatures = run.wire != RESPONSES
        #: Number of the newest block, and its key; the key is None when the block is stopped.
        self._number = -1
        self._key: Any = None
        #: A call whose name may not be complete yet; its start event is sent before the next other event.
        self._pending_call: dict[str, Any] | None = None
        #: Key of a call -> number of its block.
        self._calls: dict[Any, int] = {}
        #: Number of a call's open block -> its arguments so far. Other providers interleave the arguments of several
        #: calls, and a stopped block must not get more of them.
        self._arguments: dict[int, list[str]] = {}

    @property
    def has_calls(self) -> bool:
        """Whether the answer calls tools."""
        return bool(self._calls)

    def block_number(self, delta: Delta) -> int | None:
        """The number of the open block that the next delta like this one belongs to; None if there is none."""
        if choice_of(delta.idx) != 0 or delta.kind not in _TYPES:
            return None
        key = self._key_of(delta)
        return self._calls.get(key, self._number if key == self._key else None)

    def events(self, delta: Delta) -> Iterator[EventDict]:
        """The events of one delta; none if the format cannot express it."""
        text, kind, idx = delta
        if choice_of(idx) != 0 or (kind == SIGNATURE and not self._has_signatures):
            return
        if kind == OTHER:
            if self._same_format:
                yield from self._other(idx, object_of(text))
        elif kind == TOOL_CALL:
            call = object_of(text)
            if not self._same_format:
                call = {key: call[key] for key in call if key in ("id", "name")}
            yield from self._tool_call(self._key_of(delta), call)
        elif kind in _TYPES and (piece := self._delta(text, kind)) is not None:
            yield from self._piece(self._key_of(delta), kind, piece)

    def stop_all(self) -> Iterator[EventDict]:
        """The stop events of all open blocks."""
        yield from self._stop_newest()
        for number in self._arguments:
            yield {"type": "content_block_stop", "index": number}
        self._arguments.clear()

    def _stop_newest(self) -> Iterator[EventDict]:
        """The stop event of the newest block, before another one starts; none for a call with incomplete arguments."""
        yield from self._start_pending_call()
        if self._key is not None and not self._needs_arguments(self._number):
            self._arguments.pop(self._number, None)
            yield {"type": "content_block_stop", "index": self._number}
        self._key = None

    def _needs_arguments(self, number: int) -> bool:
        return number in self._arguments and not _is_json("".join(self._arguments[number]))

    def _key_of(self, delta: Delta) -> Any:
        return delta.idx if self._same_format else (delta.idx, _TYPES[delta.kind])

    def _piece(self, key: Any, kind: str, piece: dict[str, Any]) -> Iterator[EventDict]:
        yield from self._start_pending_call()
        if key != self._key and key not in self._calls:
            yield from self._start_block(key, _EMPTY[_TYPES[kind]])
            if kind == TOOL_ARGS:
                self._add_call(key)
        # A piece of a call goes into the call's block even if another block started since: calls may be interleaved.
        number = self._calls.get(key, self._number)
        if number in self._arguments:
            self._arguments[number].append(piece.get("partial_json", ""))
        yield {"type": "content_block_delta", "index": number, "delta": piece}

    def _add_call(self, key: Any) -> None:
        self._calls[key] = self._number
        if not self._same_format:
            self._arguments[self._number] = []

    def _tool_call(self, key: Any, fields: dict[str, Any]) -> Iterator[EventDict]:
        """Starts a call, or adds a piece to its name."""
        known = self._pending_call if key == self._key else None
        if known is not None:
            name = f"{known.get('name') or ''}{fields.get('name') or ''}"
            self._pending_call = {**fields, **known, "name": name}
        elif key not in self._calls:  # otherwise its start event is sent already and cannot change
            yield from self._stop_newest()
            self._number += 1
            self._add_call(key)
            self._key, self._pending_call = key, fields

    def _start_pending_call(self) -> Iterator[EventDict]:
        """The start event of the pending call, whose name is complete now."""
        if self._pending_call is not None:
            # The id is required: clients return a tool's result with it.
            missing = {"id": f"toolu_{self._number}", "name": "", "input": {}}
            block = {"type": "tool_use", **_with_defaults(self._pending_call, missing)}
            self._pending_call = None
            yield {"type": "content_block_start", "index": self._number, "content_block": block}

    def _start_block(self, key: Any, block: dict[str, Any]) -> Iterator[EventDict]:
        yield from self._stop_newest()
        self._number += 1
        self._key = key
        yield {"type": "content_block_start", "index": self._number, "content_block": block}

    def _delta(self, text: str, kind: str) -> dict[str, Any] | None:
        if kind == CITATION:
            citation = value_of(text) if self._same_format else _citation(object_of(text))
            return {"type": "citations_delta", "citation": citation} if citation is not None else None
        if kind == REASONING:
            return {"type": "thinking_delta", "thinking": text}
        if kind == SIGNATURE:
            return {"type": "signature_delta", "signature": text}
        if kind == TOOL_ARGS:
            return {"type": "input_json_delta", "partial_json": text}
        return {"type": "text_delta", "text": text}

    def _other(self, idx: str, fields: dict[str, Any]) -> Iterator[EventDict]:
        """The events of an `other` delta of this format: blocks of other types, their pieces, unknown events."""
        if isinstance(event := fields.get("event"), dict):
            yield event
        elif isinstance(block := fields.get("content_block"), dict):
            yield from self._start_block(idx, _with_defaults(block, _EMPTY.get(str(block.get("type")), {})))
        elif idx == self._key and ("partial_json" in fields or "content_block_delta" in fields):
            yield from self._start_pending_call()
            piece = fields.get("content_block_delta") or {"type": "input_json_delta", **fields}
            yield {"type": "content_block_delta", "index": self._number, "delta": piece}


def _is_json(text: str) -> bool:
    try:
        loads(text)
    except ValueError:
        return False
    return True


def _with_defaults(block: EventDict, defaults: EventDict) -> EventDict:
    """The block with the default values of the keys that it does not have, after its own keys."""
    return {**block, **{key: value for key, value in defaults.items() if key not in block}}


def _frame(event: EventDict) -> bytes:
    # Without the event name the SDK silently skips the event. A type from outside may hold any characters, a name not.
    name = _NO_WORD.sub("_", str(event.get("type"))).encode()
    return b"event: %b\ndata: %b\n\n" % (name, json_bytes(event))


def _message(run: Recorded) -> dict[str, Any]:
    head = {"id": run.response_id or "", "type": "message", "role": "assistant", "model": run.model or ""}
    return {**head, "content": [], "stop_reason": None, "stop_sequence": None}


def _end_fields(run: Recorded, blocks: _BlockEncoder) -> dict[str, Any]:
    """The stop reason, the stop sequence and other metadata of the message's end."""
    reason = finish_reason(run, 0, ANTHROPIC, calls=blocks.has_calls)
    end = {"stop_reason": reason, "stop_sequence": run.metadata.get("stop_sequence")}
    return end | _metadata(run, _IN_DELTA)


def _metadata(run: Recorded, keys: Iterable[str]) -> dict[str, Any]:
    return {key: run.metadata[key] for key in keys if run.metadata.get(key) is not None}


def _error(failure: Failure) -> EventDict:
    fields = {"type": error_type(failure, "api_error"), "message": failure.message}
    return {"type": "error", "error": fields}


def _citation(fields: dict[str, Any]) -> dict[str, Any] | None:
    """A citation of another format in this one; None if it has no URL, because only web citations are converted."""
    cited = fields.get("url_citation") if isinstance(fields.get("url_citation"), dict) else fields
    if not isinstance(cited, dict) or not isinstance(cited.get("url"), str):
        return None
    fields = {"type": "web_search_result_location", "url": cited["url"], "title": cited.get("title")}
    return {**fields, "cited_text": "", "encrypted_index": ""}


# -- an answer that is not streamed --------------------------------------------------------------------------------


def _collect(
    events: Iterable[EventDict], content: list[EventDict], pieces: dict[tuple[int, str], list[str]]
) -> None:
    """Puts events into the blocks that they make; pieces of text are collected in `pieces`, to be joined at the end."""
    for event in events:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            number, delta = event["index"], event["delta"]
            if delta.get("type") == "citations_delta":
                block = content[number]
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
                continue
            for key, value in delta.items():
                if key == "type" or value is None:
                    continue
                if isinstance(value, str):
                    pieces.setdefault((number, key), []).append(value)
                else:
                    content[number][key] = value


def _fill(block: EventDict, key: str, text: str) -> None:
    if key == "partial_json":
        block["input"] = parse_args(text) or {}
    else:
        old = block.get(key)
        block[key] = old + text if isinstance(old, str) else text
