"""Anthropic's messages, and those of the providers that speak like it, to deltas.

Which deltas say which block is written in `anthropic_reply.py`. Blocks come one after another, each opened, filled
and closed by events of its own. Counts of tokens are cumulative and so told once, with the stop reason; until then
`reply.raw_usage` has what the start of the message said. An event says its type twice, as its name and inside of
its data: the data are believed, so that servers and proxies which leave out the name are understood.
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
from recorder.wire.deltas import CITATION, OTHER, REASONING, SIGNATURE, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.errors import error_of, error_of_data, event_of
from recorder.wire.repeats import rest_of
from recorder.wire.reply import Reply
from recorder.wire.sse import BOM, END_NAMES, Event, is_done, parse
from recorder.wire.tool_calls import text_of

WIRE = "anthropic.messages"

_NOTHING: tuple[Delta, ...] = ()
_new_delta = tuple.__new__  # half the time of the named tuple's own
#: How the frame of a piece begins, up to its data.
_HEAD = b"event: content_block_delta\ndata: {"
_DATA = len(_HEAD) - 1
#: Keys of a block that have deltas of their own.
_KNOWN = {
    "text": frozenset(("type", "text", "citations")),
    "thinking": frozenset(("type", "thinking", "signature")),
    "tool_use": frozenset(("type", "id", "name", "input", "partial_json")),
}
#: Longer undecodable frames (bytes) are kept in full as frames only.
_MAX_OTHER = 64 * 1024
#: How many different counts a message may have.
_MAX_COUNTS = 100
#: What a message says of the whole response beside ids and usage, where it says anything.
_METADATA_KEYS = ("stop_sequence", "stop_details", "container", "context_management", "diagnostics")


class AnthropicMessages:
    """Translates the frames of one response; `reply` is the answer as far as it has come.

    `decode` never raises: what it does not know becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        self._answer = AnthropicReply()
        self.reply: Reply = self._answer
        self._blocks = Blocks()
        #: What the start of the message has of its content; it counts where no block comes.
        self._early: Any = None
        #: Index and idx of the text block whose pieces may take the short way; None outside of one.
        self._flowing: int | None = None
        self._idx = "0"
        self._streamed = True

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """The deltas of one frame, none after the terminator.

        A frame that starts with `{` is a whole answer that was not streamed.
        """
        event: Any = None
        if frame.startswith(_HEAD):
            try:
                event = orjson.loads(frame[_DATA:])
            except orjson.JSONDecodeError:
                pass  # several lines, or JSON that only the slow way reads
            else:
                if self._flowing is not None and (text := self._plain_text(event)) is not None:
                    delta = _new_delta(Delta, (text, TEXT, self._idx))
                    if self._idx == "0":
                        self.reply.add_text(text)
                    else:
                        self.reply.add(delta)
                    return (delta,)
        return self._decode(frame, event)

    def _plain_text(self, event: Any) -> str | None:
        """The text of an event that says nothing else, as most of a stream does; None for every other."""
        try:
            delta = event["delta"]
            text = delta["text"]
            if (
                len(delta) == 2
                and len(event) == 3
                and event["index"] == self._flowing
                and delta["type"] == "text_delta"
                and event["type"] == "content_block_delta"
                and type(text) is str
                and text
            ):
                return text
        except (KeyError, TypeError):
            pass
        return None

    def _decode(self, frame: bytes, event: Any) -> Sequence[Delta]:
        if self.reply.terminated:
            return _NOTHING
        found: list[Delta] = []
        try:
            if event is None:
                self._unusual(frame, found)
            else:
                self._event(event, found)
        except Exception:
            # Whatever a provider may send, the recording goes on, and the delta says what it was.
            data = parse(frame).data or frame
            text = data[:_MAX_OTHER].decode("utf-8", "replace")
            found.append(Delta(dumps({"undecodable": text}), OTHER))
        for delta in found:
            self.reply.add(delta)
        return found

    def _unusual(self, frame: bytes, found: list[Delta]) -> None:
        """Each frame that is no plain piece of text."""
        body = frame.removeprefix(BOM).lstrip()
        sent = Event(body) if body.startswith(b"{") else parse(frame)
        data = sent.data
        if sent.error is not None:
            self.reply.error = error_of_data(sent.error)
        elif data is None or not data.strip():
            return
        elif not data.startswith(b"{") and is_done(sent):
            self._end(found)
        elif sent.name == "error":
            self.reply.error = data.decode("utf-8", "replace")
            if data.lstrip().startswith(b"{"):
                self.reply.error = loads(data) or self.reply.error
        else:
            event = event_of(data)
            if sent.name in END_NAMES and "type" not in event:
                self._end(found)
            else:
                self._event(event, found)

    def _event(self, event: dict[str, Any], found: list[Delta]) -> None:
        handle = _EVENTS.get(event.get("type", ""))
        if handle is not None:
            handle(self, event, found)
        elif (error := error_of(event)) is not None:
            self.reply.error = event if event.get("error") else {"type": "error", "error": error}
        else:
            event["type"]  # without one it is nobody's event: raises
            found.append(Delta(dumps({"event": event}), OTHER))

    def _error(self, event: dict[str, Any], found: list[Delta]) -> None:
        self.reply.error = event

    def _ping(self, event: dict[str, Any], found: list[Delta]) -> None:
        """Only says that the connection is alive."""

    # -- the message --------------------------------------------------------------------------------------------

    def _message(self, event: dict[str, Any], found: list[Delta]) -> None:
        """A whole answer: one that was not streamed, or all that was streamed once more."""
        self._streamed = self._blocks.have_begun
        self._begin(event, usage.found_in(event))
        self._whole(event.get("content"), found)
        self._finished(event, usage.found_in(event))
        self._end(found)

    def _whole(self, content: Any, found: list[Delta]) -> None:
        """The blocks of a whole answer, those that did not come yet; of a text that was cut off the rest."""
        known = list(self._answer.numbered().items()) if self._blocks.have_begun else []
        for position, block in enumerate(content if content is not None else ()):
            if position >= len(known):
                self._block_start({"index": position, "content_block": block}, found)
                self._block_stop({"index": position}, found)
                continue
            number, before = known[position]
            if block["type"] == before["type"] == "text":
                rest = rest_of(block["text"], before["text"])
                found += [Delta(rest, TEXT, idx_of(number, "text"))] if rest else []

    def _message_start(self, event: dict[str, Any], found: list[Delta]) -> None:
        self._begin(event["message"], usage.found_in(event))
        self._early = event["message"].get("content")

    def _begin(self, message: dict[str, Any], spent: Any) -> None:
        reply = self.reply
        reply.response_id = reply.response_id or _text_or_none(message.get("id"))
        reply.model = reply.model or _text_or_none(message.get("model"))
        self._spent(spent)

    def _message_delta(self, event: dict[str, Any], found: list[Delta]) -> None:
        self._finished({**event, **(event.get("delta") or {})}, usage.found_in(event))
        found += self._blocks.unsaid()

    def _finished(self, said: dict[str, Any], spent: Any) -> None:
        reply = self.reply
        for key in _METADATA_KEYS:
            if said.get(key) is not None:
                reply.metadata[key] = said[key]
        reply.finish(0, said.get("stop_reason"))
        self._spent(spent)
        if isinstance(spent, dict) and reply.raw_usage and usage.is_counted(reply.raw_usage):
            reply.usage = usage.from_anthropic(reply.raw_usage, streamed=self._streamed)

    def _spent(self, spent: Any) -> None:
        """Counts are totals, and what is left out keeps its value."""
        if isinstance(spent, dict) and spent:
            known = self.reply.raw_usage or {}
            spent = usage.in_anthropic_words(spent, known)
            names = known.keys() | list(spent)[:_MAX_COUNTS]
            news = {key: count for key, count in spent.items() if count is not None and key in names}
            self.reply.raw_usage = counted = usage.merged(known, news) if len(known) < _MAX_COUNTS else known
            if self.reply.usage is not None:  # it was told, and something comes behind it
                self.reply.usage = usage.from_anthropic(counted, streamed=self._streamed)

    def _message_stop(self, event: dict[str, Any], found: list[Delta]) -> None:
        self._finished({}, usage.found_in(event))
        self._end(found)

    def _end(self, found: list[Delta]) -> None:
        self.reply.terminated = True
        self.reply.settle()
        self._flowing = None
        found += self._blocks.unsaid()
        if self._early and not self._blocks.have_begun:
            self._whole(self._early, found)

    # -- its blocks -----------------------------------------------------------------------------------------------

    def _block_start(self, event: dict[str, Any], found: list[Delta]) -> None:
        block = event["content_block"]
        begun = self._blocks.start(event.get("index"), str(block["type"]), block.get("id"), found)
        self._flowing = None
        self._begun(begun, block, found)

    def _begun(self, begun: Block, block: dict[str, Any], found: list[Delta]) -> None:
        was_begun, begun.unsaid = begun.unsaid is not None, None
        said = _BLOCKS.get(begun.type, _whole_block)(begun, block)
        found += [delta for delta in said if not (was_begun and delta.kind == TOOL_CALL)]
        if not said:
            begun.unsaid = _whole(begun, block)

    def _block_stop(self, event: dict[str, Any], found: list[Delta]) -> None:
        ended = self._blocks.stop(event.get("index"))
        if ended is None:
            return
        if ended.idx == self._idx:
            self._flowing = None
        block = event.get("content_block")
        if ended.unsaid is not None and isinstance(block, dict) and block.get("type") == ended.type:
            self._begun(ended, block, found)  # some clients write the whole block into its stop
        if ended.unsaid is not None:
            found.append(ended.unsaid)
            ended.unsaid = None

    def _block_delta(self, event: dict[str, Any], found: list[Delta]) -> None:
        index, delta = event.get("index"), event["delta"]
        kind = delta["type"]
        block = self._blocks.piece(index, kind, found)
        if kind == "input_json_delta" and block.type != "tool_use":
            kind = "other_json_delta"
        if kind not in _DELTAS:
            kind, delta = _as_known(block, delta)
        text, its_kind = _DELTAS.get(kind, _other_delta)(delta)
        if not text:
            return
        if block.unsaid is not None and (its_kind != OTHER or block.type != "tool_use"):
            found += [block.unsaid] if its_kind == OTHER else []
            block.unsaid = None
        found.append(Delta(text, its_kind, block.idx))
        if its_kind == TEXT:
            self._flowing, self._idx = index, block.idx


def _text_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    found = _unknown_keys(opened, block)
    if text := block.get("text"):
        found.append(Delta(_as_text(text), TEXT, opened.idx))
    return found + [Delta(dumps(citation), CITATION, opened.idx) for citation in block.get("citations") or ()]


def _thinking_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    found = _unknown_keys(opened, block)
    if thinking := block.get("thinking"):
        found.append(Delta(_as_text(thinking), REASONING, opened.idx))
    if signature := block.get("signature"):
        found.append(Delta(_as_text(signature), SIGNATURE, opened.idx))
    return found


def _tool_use_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    """A call begins with its name. Input that is there already counts where no pieces of it follow."""
    said = {key: block[key] for key in block if key not in ("type", "input") and block[key] is not None}
    said |= {key: text_of(block.get(key)) for key in ("id", "name")}
    found = [Delta(dumps(said), TOOL_CALL, opened.idx)]
    if block.get("input"):
        opened.unsaid = Delta(dumps(block["input"]), TOOL_ARGS, opened.idx)
        if len(opened.unsaid.text) > _MAX_OTHER:  # too much to be kept for every block that is open
            found.append(opened.unsaid)
            opened.unsaid = None
    return found


def _whole_block(opened: Block, block: dict[str, Any]) -> list[Delta]:
    """A block of any other type says most or all in its start."""
    return [_whole(opened, block)]


def _unknown_keys(opened: Block, block: dict[str, Any]) -> list[Delta]:
    more = {key: block[key] for key in block.keys() - _KNOWN[opened.type] if block[key] is not None}
    return [_whole(opened, {"type": opened.type, **more})] if more else []


def _whole(opened: Block, block: dict[str, Any]) -> Delta:
    return Delta(dumps({"content_block": block}), OTHER, opened.idx)


def _as_known(block: Block, delta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A piece of an unknown type: the text of a block that has one, or else nothing that takes the place of its own."""
    own = _KNOWN.get(block.type)
    if own is None:
        return delta["type"], delta
    if isinstance(delta.get(block.type), str):
        return f"{block.type}_delta", delta
    return delta["type"], {key: delta[key] for key in delta if key == "type" or key not in own}


def _other_delta(delta: dict[str, Any]) -> tuple[str, str]:
    says = any(value is not None for key, value in delta.items() if key != "type")
    return dumps({"content_block_delta": delta}) if says else "", OTHER


def _other_json(delta: dict[str, Any]) -> tuple[str, str]:
    piece = _as_text(delta["partial_json"])
    return dumps({"partial_json": piece}) if piece else "", OTHER


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


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
    "text_delta": lambda delta: (_as_text(delta["text"]), TEXT),
    "thinking_delta": lambda delta: (_as_text(delta["thinking"]), REASONING),
    "signature_delta": lambda delta: (_as_text(delta["signature"]), SIGNATURE),
    "input_json_delta": lambda delta: (_as_text(delta["partial_json"]), TOOL_ARGS),
    "other_json_delta": _other_json,
    "citations_delta": lambda delta: (dumps(delta["citation"]), CITATION),
}
