"""Decodes Anthropic's messages, and the dialects of compatible providers, to deltas.

`reply.py` describes how deltas represent blocks. Blocks come one after another, each with events for its start, its
content and its end. Token counts are cumulative, so `reply.usage` is set once, with the stop reason; until then
`reply.raw_usage` has the counts of the message's start. An event has its type twice: as its name and in its data. The
data decide, because some servers and proxies leave out the name.
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from recorder.core.json import dumps, loads
from recorder.wire import usage
from recorder.wire.anthropic.blocks import Block, Blocks, idx_of
from recorder.wire.anthropic.reply import AnthropicReply
from recorder.wire.decoder import MAX_OTHER, Decoder
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
    as_text,
)
from recorder.wire.errors import error_of, error_of_data, event_of
from recorder.wire.repeated_answer import rest_of
from recorder.wire.reply import Reply
from recorder.wire.sse import END_NAMES, is_done, parse_frame_or_body
from recorder.wire.tool_calls import text_of

WIRE = "anthropic.messages"

_new_delta = tuple.__new__  # takes half the time of the named tuple's own constructor
#: The beginning of a content delta's frame, up to its data.
_HEAD = b"event: content_block_delta\ndata: {"
_DATA = len(_HEAD) - 1
#: Type of a block -> the keys that become deltas of their own kinds.
_KNOWN = {
    "text": frozenset(("type", "text", "citations")),
    "thinking": frozenset(("type", "thinking", "signature")),
    "tool_use": frozenset(("type", "id", "name", "input", "partial_json")),
}
#: At most this many different counts of a message are kept.
_MAX_COUNTS = 100
#: Keys that describe the response, besides ids and usage.
_METADATA_KEYS = ("stop_sequence", "stop_details", "container", "context_management", "diagnostics")


class AnthropicMessages(Decoder):
    """Translates the frames of one response; `reply` holds the answer received so far.

    `decode` never raises: unknown content becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        self._answer = AnthropicReply()
        self.reply: Reply = self._answer
        self._blocks = Blocks()
        #: The content in the start of the message; it is used only if no block follows.
        self._start_content: Any = None
        #: The index and the idx of the text block whose pieces may take the fast path; None outside of a text block.
        self._fast_index: int | None = None
        self._idx = "0"
        self._streamed = True

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """Returns the deltas of one frame, none after the terminator.

        A frame that starts with `{` is a complete answer that was not streamed.
        """
        event: Any = None
        if frame.startswith(_HEAD):
            try:
                event = orjson.loads(frame[_DATA:])
            except orjson.JSONDecodeError:
                pass  # several lines, or JSON that orjson does not read; `_decode` reads it
            else:
                if self._fast_index is not None and (text := self._plain_text(event)) is not None:
                    delta = _new_delta(Delta, (text, TEXT, self._idx))
                    if self._idx == "0":
                        self.reply.add_text(text)
                    else:
                        self.reply.add(delta)
                    return (delta,)
        return self._decode(frame, event)

    def _plain_text(self, event: Any) -> str | None:
        """The text of an event that holds nothing else, as most events do; None for every other event."""
        try:
            delta = event["delta"]
            text = delta["text"]
            if (
                len(delta) == 2
                and len(event) == 3
                and event["index"] == self._fast_index
                and delta["type"] == "text_delta"
                and event["type"] == "content_block_delta"
                and type(text) is str
                and text
            ):
                return text
        except (KeyError, TypeError):
            pass
        return None

    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        """Decodes each frame that is not a content delta on one line of JSON."""
        sent = parse_frame_or_body(frame)
        data = sent.data
        if sent.error is not None:
            self.reply.error = error_of_data(sent.error)
        elif data is None or not data.strip():
            return
        elif not data.startswith(b"{") and is_done(sent):
            self._end(deltas)
        elif sent.name == "error":
            self.reply.error = data.decode("utf-8", "replace")
            if data.lstrip().startswith(b"{"):
                self.reply.error = loads(data) or self.reply.error
        else:
            event = event_of(data)
            if sent.name in END_NAMES and "type" not in event:
                self._end(deltas)
            else:
                self._decode_event(event, deltas)

    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        handle = _EVENTS.get(event.get("type", ""))
        if handle is not None:
            handle(self, event, deltas)
        elif (error := error_of(event)) is not None:
            self.reply.error = event if event.get("error") else {"type": "error", "error": error}
        else:
            event["type"]  # raises if the event has no type, so that it becomes undecodable
            deltas.append(Delta(dumps({"event": event}), OTHER))

    def _error(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self.reply.error = event

    def _ping(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Ignores an event that only keeps the connection alive."""

    # -- the message --------------------------------------------------------------------------------------------

    def _message(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes a complete answer: one that was not streamed, or one that repeats the stream."""
        self._streamed = self._blocks.any_started
        self._set_response_fields(event, usage.found_in(event))
        self._complete_content(event.get("content"), deltas)
        self._set_end_fields(event, usage.found_in(event))
        self._end(deltas)

    def _complete_content(self, content: Any, deltas: list[Delta]) -> None:
        """Adds the blocks of a complete answer that were not streamed, and the missing rest of streamed texts."""
        known = list(self._answer.numbered().items()) if self._blocks.any_started else []
        for position, block in enumerate(content if content is not None else ()):
            if position >= len(known):
                self._block_start({"index": position, "content_block": block}, deltas)
                self._block_stop({"index": position}, deltas)
                continue
            number, before = known[position]
            if block["type"] == before["type"] == "text":
                rest = rest_of(block["text"], before["text"])
                deltas += [Delta(rest, TEXT, idx_of(number, "text"))] if rest else []

    def _message_start(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._set_response_fields(event["message"], usage.found_in(event))
        self._start_content = event["message"].get("content")

    def _set_response_fields(self, message: dict[str, Any], raw_usage: Any) -> None:
        reply = self.reply
        reply.response_id = reply.response_id or _text_or_none(message.get("id"))
        reply.model = reply.model or _text_or_none(message.get("model"))
        self._set_usage(raw_usage)

    def _message_delta(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._set_end_fields({**event, **(event.get("delta") or {})}, usage.found_in(event))
        deltas += self._blocks.take_pending()

    def _set_end_fields(self, fields: dict[str, Any], raw_usage: Any) -> None:
        reply = self.reply
        for key in _METADATA_KEYS:
            if fields.get(key) is not None:
                reply.metadata[key] = fields[key]
        reply.finish(0, fields.get("stop_reason"))
        self._set_usage(raw_usage)
        if isinstance(raw_usage, dict) and reply.raw_usage and usage.is_counted(reply.raw_usage):
            reply.usage = usage.from_anthropic(reply.raw_usage, streamed=self._streamed)

    def _set_usage(self, raw_usage: Any) -> None:
        """Updates the counts. Each is a total; a count that is missing keeps its value."""
        if isinstance(raw_usage, dict) and raw_usage:
            known = self.reply.raw_usage or {}
            raw_usage = usage.with_anthropic_names(raw_usage, known)
            names = known.keys() | list(raw_usage)[:_MAX_COUNTS]
            changed = {key: count for key, count in raw_usage.items() if count is not None and key in names}
            self.reply.raw_usage = counted = (
                usage.merged(known, changed) if len(known) < _MAX_COUNTS else known
            )
            if self.reply.usage is not None:  # the usage was set before, and these counts came after it
                self.reply.usage = usage.from_anthropic(counted, streamed=self._streamed)

    def _message_stop(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._set_end_fields({}, usage.found_in(event))
        self._end(deltas)

    def _end(self, deltas: list[Delta]) -> None:
        self.reply.terminated = True
        self.reply.settle()
        self._fast_index = None
        deltas += self._blocks.take_pending()
        if self._start_content and not self._blocks.any_started:
            self._complete_content(self._start_content, deltas)

    # -- blocks -------------------------------------------------------------------------------------------------

    def _block_start(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        block = event["content_block"]
        opened = self._blocks.start(event.get("index"), str(block["type"]), block.get("id"), deltas)
        self._fast_index = None
        self._add_block(opened, block, deltas)

    def _add_block(self, opened: Block, block: dict[str, Any], deltas: list[Delta]) -> None:
        """Adds the content that a block has in its start; the start of an empty block becomes pending."""
        was_pending, opened.pending = opened.pending is not None, None
        fresh = _BLOCKS.get(opened.type, _other_block)(opened, block)
        deltas += [delta for delta in fresh if not (was_pending and delta.kind == TOOL_CALL)]
        if not fresh:
            opened.pending = _start_delta(opened, block)

    def _block_stop(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        ended = self._blocks.stop(event.get("index"))
        if ended is None:
            return
        if ended.idx == self._idx:
            self._fast_index = None
        block = event.get("content_block")
        if ended.pending is not None and isinstance(block, dict) and block.get("type") == ended.type:
            self._add_block(ended, block, deltas)  # some clients send the complete block in its stop event
        if ended.pending is not None:
            deltas.append(ended.pending)
            ended.pending = None

    def _block_delta(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        index, delta = event.get("index"), event["delta"]
        kind = delta["type"]
        block = self._blocks.piece(index, kind, deltas)
        if kind == "input_json_delta" and block.type != "tool_use":
            kind = "other_json_delta"
        if kind not in _DELTAS:
            kind, delta = _as_known(block, delta)
        text, its_kind = _DELTAS.get(kind, _other_delta)(delta)
        if not text:
            return
        if block.pending is not None and (its_kind != OTHER or block.type != "tool_use"):
            deltas += [block.pending] if its_kind == OTHER else []
            block.pending = None
        deltas.append(Delta(text, its_kind, block.idx))
        if its_kind == TEXT:
            self._fast_index, self._idx = index, block.idx


def _text_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    deltas = _unknown_keys(opened, block)
    if text := block.get("text"):
        deltas.append(Delta(as_text(text), TEXT, opened.idx))
    return deltas + [
        Delta(dumps(citation), CITATION, opened.idx) for citation in block.get("citations") or ()
    ]


def _thinking_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    deltas = _unknown_keys(opened, block)
    if thinking := block.get("thinking"):
        deltas.append(Delta(as_text(thinking), REASONING, opened.idx))
    if signature := block.get("signature"):
        deltas.append(Delta(as_text(signature), SIGNATURE, opened.idx))
    return deltas


def _tool_use_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    """The deltas of a call's start. Input in the start is pending: it is used only if no pieces of input follow."""
    fields = {key: block[key] for key in block if key not in ("type", "input") and block[key] is not None}
    fields |= {key: text_of(block.get(key)) for key in ("id", "name")}
    deltas = [Delta(dumps(fields), TOOL_CALL, opened.idx)]
    if block.get("input"):
        opened.pending = Delta(dumps(block["input"]), TOOL_ARGS, opened.idx)
        if len(opened.pending.text) > MAX_OTHER:  # too large to hold for every open block
            deltas.append(opened.pending)
            opened.pending = None
    return deltas


def _other_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    """The delta of a block of any other type, which has most or all of its content in its start."""
    return [_start_delta(opened, block)]


def _unknown_keys(opened: Block, block: dict[str, Any]) -> list[Delta]:
    more = {key: block[key] for key in block.keys() - _KNOWN[opened.type] if block[key] is not None}
    return [_start_delta(opened, {"type": opened.type, **more})] if more else []


def _start_delta(opened: Block, block: dict[str, Any]) -> Delta:
    return Delta(dumps({"content_block": block}), OTHER, opened.idx)


def _as_known(block: Block, delta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Reads a delta of an unknown type: as the block's text if it has that key, else without the block's own keys."""
    own = _KNOWN.get(block.type)
    if own is None:
        return delta["type"], delta
    if isinstance(delta.get(block.type), str):
        return f"{block.type}_delta", delta
    return delta["type"], {key: delta[key] for key in delta if key == "type" or key not in own}


def _other_delta(delta: dict[str, Any]) -> tuple[str, str]:
    has_content = any(value is not None for key, value in delta.items() if key != "type")
    return dumps({"content_block_delta": delta}) if has_content else "", OTHER


def _other_json(delta: dict[str, Any]) -> tuple[str, str]:
    piece = as_text(delta["partial_json"])
    return dumps({"partial_json": piece}) if piece else "", OTHER


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


_EVENTS: dict[str, Callable[[AnthropicMessages, dict[str, Any], list[Delta]], None]] = {
    "message": AnthropicMessages._message,
    "message_start": AnthropicMessages._message_start,
    "content_block_start": AnthropicMessages._block_start,
    "content_block_delta": AnthropicMessages._block_delta,
    "content_block_stop": AnthropicMessages._block_stop,
    "message_delta": AnthropicMessages._message_delta,
    "message_stop": AnthropicMessages._message_stop,
    "ping": AnthropicMessages._ping,
    "error": AnthropicMessages._error,
}
_BLOCKS: dict[str, Callable[[Block, dict[str, Any]], list[Delta]]] = {
    "text": _text_block,
    "thinking": _thinking_block,
    "tool_use": _tool_use_block,
}
#: Type of a delta -> its text and kind.
_DELTAS: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "text_delta": lambda delta: (as_text(delta["text"]), TEXT),
    "thinking_delta": lambda delta: (as_text(delta["thinking"]), REASONING),
    "signature_delta": lambda delta: (as_text(delta["signature"]), SIGNATURE),
    "input_json_delta": lambda delta: (as_text(delta["partial_json"]), TOOL_ARGS),
    "other_json_delta": _other_json,
    "citations_delta": lambda delta: (dumps(delta["citation"]), CITATION),
}
