"""Deltas of any run to Anthropic's messages.

The answer is a list of blocks, opened, filled and closed one after another. A run of Anthropic's has the blocks that
it had (`idx` says which); in any other run a block is opened where the kind changes, and each call of a tool has one.
Only the first choice is told, there are no others here; a refusal goes out as text.
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
from recorder.wire.recorded import (
    ANTHROPIC,
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

#: kind -> the type of the block that it belongs to.
_TYPES = {
    TEXT: "text",
    REFUSAL: "text",
    CITATION: "text",
    REASONING: "thinking",
    SIGNATURE: "thinking",
    TOOL_CALL: "tool_use",
    TOOL_ARGS: "tool_use",
}
#: kind -> what stands before its text in an event.
_TEMPLATES = {
    TEXT: b'{"type":"text_delta","text":',
    REFUSAL: b'{"type":"text_delta","text":',
    REASONING: b'{"type":"thinking_delta","thinking":',
    TOOL_ARGS: b'{"type":"input_json_delta","partial_json":',
}
#: What a block of a type has when it begins.
_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "id": "", "name": "", "input": {}},
}
#: What the end of a message says beside the reason, where the run knows it: in its delta, and next to it.
_IN_DELTA = ("stop_details", "container")
_BESIDE_DELTA = ("context_management", "diagnostics")
#: What the usage of a message says only at its start, and what both there and at its end.
_AT_START = frozenset(("cache_creation", "service_tier", "inference_geo"))
_ALWAYS = frozenset(("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))

_NO_WORD = re.compile("[^a-z0-9_.]", re.IGNORECASE | re.ASCII)

Event = dict[str, Any]


class AnthropicEncoder:
    """The events of one run."""

    def __init__(self, run: Recorded) -> None:
        self._run = run
        self._blocks = _Blocks(run)

    def opening(self, first: Delta | None) -> Iterator[bytes]:
        """The message, without content."""
        usage = anthropic_usage(self._run)
        usage = {**{key: usage[key] for key in usage if key in _AT_START | _ALWAYS}, "output_tokens": 0}
        yield _frame({"type": "message_start", "message": {**_message(self._run), "usage": usage}})

    def events(self, delta: Delta) -> Iterator[bytes]:
        """The events of a delta, none for what has no place here."""
        return map(_frame, self._blocks.events(delta))

    def text_template(self, delta: Delta) -> TextTemplate | None:
        """What stands around the text of a delta like this one."""
        number = self._blocks.number_of(delta)
        if number is None or delta.kind not in _TEMPLATES:
            return None
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % number
        return head + _TEMPLATES[delta.kind], b"}}\n\n"

    def ending(self) -> Iterator[bytes]:
        """The end of the open blocks and of the message, or the error."""
        run = self._run
        if run.failure is not None:
            yield _frame(_error(run.failure))
            return
        ended = _ended(run, self._blocks)
        if not run.terminated and ended["stop_reason"] is None:
            return  # it broke off where it was
        yield from map(_frame, self._blocks.closed())
        usage = {key: value for key, value in anthropic_usage(run).items() if key not in _AT_START}
        beside = _metadata(run, _BESIDE_DELTA)
        yield _frame({"type": "message_delta", "delta": ended, "usage": usage, **beside})
        if run.terminated:
            yield _frame({"type": "message_stop"})


def body(run: Recorded, deltas: TimedDeltas) -> bytes:
    """The same answer not streamed; of a run that failed, the error."""
    if run.failure is not None:
        return json_bytes(_error(run.failure))
    blocks = _Blocks(run)
    content: list[Event] = []
    pieces: dict[tuple[int, str], list[str]] = {}
    for _, delta in deltas:
        _collect(blocks.events(delta), content, pieces)
    _collect(blocks.closed(), content, pieces)
    for (place, key), texts in pieces.items():
        _fill(content[place], key, "".join(texts))
    message = _message(run) | {"content": content, "usage": anthropic_usage(run)}
    return json_bytes(message | _ended(run, blocks) | _metadata(run, _BESIDE_DELTA))


class _Blocks:
    """The blocks so far: which is open, and where each call has its own."""

    def __init__(self, run: Recorded) -> None:
        self._as_was = run.wire == ANTHROPIC
        #: Number of the newest block, and what distinguishes it from the next; None when it is closed.
        self._number = -1
        self._key: Any = None
        #: A call whose name may still grow: its block is opened by what comes next.
        self._call: dict[str, Any] | None = None
        #: Key of a call -> number of its block.
        self._calls: dict[Any, int] = {}
        #: Number of a call's block that is open -> its arguments so far. Others than Anthropic send the arguments of
        #: several calls by turns, and a block that was closed may have no more of them.
        self._arguments: dict[int, list[str]] = {}

    @property
    def has_calls(self) -> bool:
        """Whether tools were called."""
        return bool(self._calls)

    def number_of(self, delta: Delta) -> int | None:
        """The number of the block that another delta like this one would go into as it is; None for none."""
        if choice_of(delta.idx) != 0 or delta.kind not in _TYPES:
            return None
        key = self._key_of(delta)
        return self._calls.get(key, self._number if key == self._key else None)

    def events(self, delta: Delta) -> Iterator[Event]:
        """The events of one delta, none for what has no place here."""
        text, kind, idx = delta
        if choice_of(idx) != 0:
            return
        if kind == OTHER:
            if self._as_was:
                yield from self._other(idx, object_of(text))
        elif kind == TOOL_CALL:
            call = object_of(text)
            if not self._as_was:
                call = {key: call[key] for key in call if key in ("id", "name")}
            yield from self._called(self._key_of(delta), call)
        elif kind in _TYPES and (piece := self._delta(text, kind)) is not None:
            yield from self._piece(self._key_of(delta), kind, piece)

    def closed(self) -> Iterator[Event]:
        """The end of every block that is open."""
        yield from self._left()
        for number in self._arguments:
            yield {"type": "content_block_stop", "index": number}
        self._arguments.clear()

    def _left(self) -> Iterator[Event]:
        """The end of the newest block before another one begins; not of a call whose arguments may go on."""
        yield from self._named()
        if self._key is not None and not self._goes_on(self._number):
            self._arguments.pop(self._number, None)
            yield {"type": "content_block_stop", "index": self._number}
        self._key = None

    def _goes_on(self, number: int) -> bool:
        return number in self._arguments and not _is_json("".join(self._arguments[number]))

    def _key_of(self, delta: Delta) -> Any:
        return delta.idx if self._as_was else (delta.idx, _TYPES[delta.kind])

    def _piece(self, key: Any, kind: str, piece: dict[str, Any]) -> Iterator[Event]:
        yield from self._named()
        if key != self._key and key not in self._calls:
            yield from self._opened(key, _EMPTY[_TYPES[kind]])
            if kind == TOOL_ARGS:
                self._begun_call(key)
        # A call goes on in its block also where another one began: several may come interleaved.
        number = self._calls.get(key, self._number)
        if number in self._arguments:
            self._arguments[number].append(piece.get("partial_json", ""))
        yield {"type": "content_block_delta", "index": number, "delta": piece}

    def _begun_call(self, key: Any) -> None:
        self._calls[key] = self._number
        if not self._as_was:
            self._arguments[self._number] = []

    def _called(self, key: Any, said: dict[str, Any]) -> Iterator[Event]:
        """A call begins, or its name grows."""
        known = self._call if key == self._key else None
        if known is not None:
            name = f"{known.get('name') or ''}{said.get('name') or ''}"
            self._call = {**said, **known, "name": name}
        elif key not in self._calls:  # else nothing that is said of it has a place any more
            yield from self._left()
            self._number += 1
            self._begun_call(key)
            self._key, self._call = key, said

    def _named(self) -> Iterator[Event]:
        """The call that waited for the rest of its name is opened."""
        if self._call is not None:
            # Results are sent back by the id, so that there must be one.
            missing = {"id": f"toolu_{self._number}", "name": "", "input": {}}
            block = {"type": "tool_use", **_completed(self._call, missing)}
            self._call = None
            yield {"type": "content_block_start", "index": self._number, "content_block": block}

    def _opened(self, key: Any, block: dict[str, Any]) -> Iterator[Event]:
        yield from self._left()
        self._number += 1
        self._key = key
        yield {"type": "content_block_start", "index": self._number, "content_block": block}

    def _delta(self, text: str, kind: str) -> dict[str, Any] | None:
        if kind == CITATION:
            citation = value_of(text) if self._as_was else _citation(object_of(text))
            return {"type": "citations_delta", "citation": citation} if citation is not None else None
        if kind == REASONING:
            return {"type": "thinking_delta", "thinking": text}
        if kind == SIGNATURE:
            return {"type": "signature_delta", "signature": text}
        if kind == TOOL_ARGS:
            return {"type": "input_json_delta", "partial_json": text}
        return {"type": "text_delta", "text": text}

    def _other(self, idx: str, said: dict[str, Any]) -> Iterator[Event]:
        """What only Anthropic says: blocks of other types and their pieces, events that nobody told us about."""
        if isinstance(event := said.get("event"), dict):
            yield event
        elif isinstance(block := said.get("content_block"), dict):
            yield from self._opened(idx, _completed(block, _EMPTY.get(str(block.get("type")), {})))
        elif idx == self._key and ("partial_json" in said or "content_block_delta" in said):
            yield from self._named()
            piece = said.get("content_block_delta") or {"type": "input_json_delta", **said}
            yield {"type": "content_block_delta", "index": self._number, "delta": piece}


def _is_json(text: str) -> bool:
    try:
        loads(text)
    except ValueError:
        return False
    return True


def _completed(block: Event, usual: Event) -> Event:
    """The block as it was said, and behind it what it usually has as well."""
    return {**block, **{key: value for key, value in usual.items() if key not in block}}


def _frame(event: Event) -> bytes:
    # Without the name the SDK yields nothing and raises nothing; it is one word, whatever somebody sent once.
    name = _NO_WORD.sub("_", str(event.get("type"))).encode()
    return b"event: %b\ndata: %b\n\n" % (name, json_bytes(event))


def _message(run: Recorded) -> dict[str, Any]:
    head = {"id": run.response_id or "", "type": "message", "role": "assistant", "model": run.model or ""}
    return {**head, "content": [], "stop_reason": None, "stop_sequence": None}


def _ended(run: Recorded, blocks: _Blocks) -> dict[str, Any]:
    """Why the message ended, and what else its end says."""
    reason = finish_reason(run, 0, ANTHROPIC, calls=blocks.has_calls)
    stopped = {"stop_reason": reason, "stop_sequence": run.metadata.get("stop_sequence")}
    return stopped | _metadata(run, _IN_DELTA)


def _metadata(run: Recorded, keys: Iterable[str]) -> dict[str, Any]:
    return {key: run.metadata[key] for key in keys if run.metadata.get(key) is not None}


def _error(failure: Failure) -> Event:
    said = {"type": error_type(failure, "api_error"), "message": failure.message}
    return {"type": "error", "error": said}


def _citation(said: dict[str, Any]) -> dict[str, Any] | None:
    """A citation of another format; only what stands in the web has a place here."""
    cited = said.get("url_citation") if isinstance(said.get("url_citation"), dict) else said
    if not isinstance(cited, dict) or not isinstance(cited.get("url"), str):
        return None
    found = {"type": "web_search_result_location", "url": cited["url"], "title": cited.get("title")}
    return {**found, "cited_text": "", "encrypted_index": ""}


# -- an answer that is not streamed --------------------------------------------------------------------------------


def _collect(events: Iterable[Event], content: list[Event], pieces: dict[tuple[int, str], list[str]]) -> None:
    """Put events into the blocks that they make; texts in pieces, to be joined at the end."""
    for event in events:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            place, delta = event["index"], event["delta"]
            if delta.get("type") == "citations_delta":
                block = content[place]
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
                continue
            for key, value in delta.items():
                if key == "type" or value is None:
                    continue
                if isinstance(value, str):
                    pieces.setdefault((place, key), []).append(value)
                else:
                    content[place][key] = value


def _fill(block: Event, key: str, text: str) -> None:
    if key == "partial_json":
        block["input"] = parse_args(text) or {}
    else:
        old = block.get(key)
        block[key] = old + text if isinstance(old, str) else text
