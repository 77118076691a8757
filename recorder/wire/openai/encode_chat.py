"""Encodes the deltas of any run as OpenAI chat completions.

Reasoning is sent as `reasoning_content`, which most clients of the dialects know. From a run of Anthropic, or of
OpenAI's Responses, signatures and the blocks or items of server tools are left out. Its calls are numbered from 0.
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recorder.core.json import dumps
from recorder.errors import StoreError
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.openai.encode import EventWriter, body_of
from recorder.wire.openai.request import with_extras
from recorder.wire.reasoning import DETAILS, FIELDS
from recorder.wire.recorded_run import (
    ANTHROPIC,
    CHAT,
    RESPONSES,
    Recorded,
    TextTemplate,
    TimedDeltas,
    choice_of,
    finish_reason,
    object_of,
    value_of,
)
from recorder.wire.reply import MAX_REPLY_BYTES, Reply

#: kind -> the key of a delta whose value is the text.
_TEXTS = {TEXT: "content", REASONING: "reasoning_content", REFUSAL: "refusal"}
#: kind -> the bytes before and after the text in the delta of an event.
_TEMPLATES = {
    TEXT: (b'{"content":', b"}"),
    REASONING: (b'{"reasoning_content":', b"}"),
    REFUSAL: (b'{"refusal":', b"}"),
    TOOL_ARGS: (b'{"tool_calls":[{"index":%d,"function":{"arguments":', b"}}]}"),
}
#: The keys of an `other` delta of Anthropic's format; no client of this format reads them.
_ANTHROPIC_KEYS = frozenset(("content_block", "content_block_delta", "partial_json"))


def body(run: Recorded, deltas: TimedDeltas) -> bytes:
    """The answer as one JSON body. Raises `StoreError` if it is longer than `MAX_REPLY_BYTES`."""
    chat, reply = ChatEncoder(run), Reply()
    for _, delta in deltas:
        if (converted := chat.convert(delta)) is not None:
            reply.add(converted)
    if reply.truncated:
        raise StoreError(f"The answer is too long for one body: more than {MAX_REPLY_BYTES} bytes; stream it")
    numbers = sorted({*reply.choices, *run.finish_reasons, 0})
    choices = [_complete_choice(run, reply, number) for number in numbers]
    return body_of(run, "chat.completion", choices)


class ChatEncoder:
    """Encodes the events of one run."""

    def __init__(self, run: Recorded) -> None:
        self._run = run
        self._writer = EventWriter(run, "chat.completion.chunk")
        #: Number of a choice that has begun -> whether it calls tools.
        self._choices: dict[int, bool] = {}
        #: choice -> its citations that are not sent yet. They are sent in one list, because the SDK's helper does not
        #: add up several lists: at their place in a run of this format, at the end in a run of another format.
        self._cited: dict[int, list[Any]] = {}
        #: choice -> idx of a call -> its number; None if the run already has the numbers of this format.
        self._call_numbers: dict[int, dict[str, int]] | None = None if run.wire == CHAT else {}

    def opening(self, first: Delta | None) -> Iterator[bytes]:
        """The event with the role of the first choice."""
        yield self._role_event(0, first.kind if first is not None and choice_of(first.idx) == 0 else TEXT)

    def events(self, delta: Delta) -> Iterator[bytes]:
        """The frames of a delta; none if the format cannot express it."""
        converted = self.convert(delta)
        if converted is None:
            return
        text, kind, idx = converted
        number = choice_of(idx)
        if self._run.wire == CHAT and (kind != CITATION or number not in self._cited):
            yield from self._citations()
        if kind == CITATION:
            self._cited.setdefault(number, []).append(value_of(text))
            return
        if number not in self._choices:
            yield self._role_event(number, kind)
        if kind in (TOOL_CALL, TOOL_ARGS):
            self._choices[number] = True
        yield self._writer.event(_choice(number, _delta(text, kind, idx, same_format=self._run.wire == CHAT)))

    def text_template(self, delta: Delta) -> TextTemplate | None:
        """The bytes before and after the text in the frame of a delta like this one; None without a text."""
        converted = self.convert(delta)
        if converted is None or converted.kind not in _TEMPLATES:
            return None
        prefix, suffix = _TEMPLATES[converted.kind]
        if converted.kind == TOOL_ARGS:
            prefix %= _call_number(converted.idx)
        head = b'%b"choices":[{"index":%d,"delta":' % (self._writer.head, choice_of(converted.idx))
        return head + prefix, suffix + b',"logprobs":null,"finish_reason":null}]' + self._writer.tail

    def ending(self) -> Iterator[bytes]:
        """The events with the finish reasons, then the end of the response."""
        yield from self._citations()
        for number in sorted(self._choices.keys() | self._run.finish_reasons.keys()):
            reason = finish_reason(self._run, number, CHAT, calls=self._choices.get(number, False))
            if reason is not None:
                yield self._writer.event(_choice(number, {}, reason))
        yield from self._writer.end()

    def convert(self, delta: Delta) -> Delta | None:
        """The delta in this format; None if the format cannot express it."""
        text, kind, idx = delta
        if kind in (TOOL_CALL, TOOL_ARGS):
            return delta if self._call_numbers is None else self._renumbered(delta)
        if kind == OTHER:
            foreign = self._run.wire in (ANTHROPIC, RESPONSES) or not _ANTHROPIC_KEYS.isdisjoint(
                found := object_of(text)
            )
            return None if foreign or not found else delta
        if kind == CITATION:
            citation = _citation(object_of(text)) if self._run.wire != CHAT else text
            return Delta(citation, kind, str(choice_of(idx))) if citation else None
        if kind not in _TEXTS:
            return None
        # In other formats the idx may name a content block; in this format, text belongs to the choice itself.
        return delta if self._call_numbers is None else Delta(text, kind, str(choice_of(idx)))

    def _citations(self) -> Iterator[bytes]:
        cited, self._cited = self._cited, {}
        for number, citations in cited.items():
            if number not in self._choices:
                yield self._role_event(number, CITATION)
            yield self._writer.event(_choice(number, {"annotations": citations}))

    def _role_event(self, number: int, kind: str) -> bytes:
        self._choices[number] = False
        return self._writer.event(
            _choice(number, {"role": "assistant", "content": "" if kind == TEXT else None})
        )

    def _renumbered(self, delta: Delta) -> Delta:
        assert self._call_numbers is not None
        choice = choice_of(delta.idx)
        calls = self._call_numbers.setdefault(choice, {})
        return delta._replace(idx=f"{choice}.{calls.setdefault(delta.idx, len(calls))}")


def _choice(number: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}


def _delta(text: str, kind: str, idx: str, *, same_format: bool) -> dict[str, Any]:
    if kind in _TEXTS:
        return {_TEXTS[kind]: text}
    if kind == OTHER:
        fields = object_of(text)
        # Reasoning details: their text has an event of its own. The empty text here keeps it from being read twice.
        return {FIELDS[0]: "", **fields} if DETAILS in fields else fields
    call: dict[str, Any] = {"index": _call_number(idx)}
    if kind == TOOL_ARGS:
        return {"tool_calls": [{**call, "function": {"arguments": text}}]}
    fields = object_of(text)
    call |= {"id": fields["id"]} if "id" in fields else {}
    name = {"name": fields["name"]} if "name" in fields else {}
    function = {**name, "arguments": ""}
    extras = {key: fields[key] for key in fields if key not in ("id", "name")} if same_format else {}
    return {"tool_calls": [with_extras({**call, "type": "function", "function": function}, extras)]}


def _call_number(idx: str) -> int:
    part = idx.partition(".")[2]
    return int(part) if part.isdecimal() else 0


def _citation(fields: dict[str, Any]) -> str:
    """A citation of another format in this one; empty if it has no URL, because this format only has web citations."""
    if fields.get("type") == "url_citation":
        return dumps(fields)
    if not isinstance(fields.get("url"), str):
        return ""
    cited = {key: fields[key] for key in ("url", "title") if fields.get(key) is not None}
    return dumps({"type": "url_citation", "url_citation": cited})


def _complete_choice(run: Recorded, reply: Reply, number: int) -> dict[str, Any]:
    """A choice of the JSON body."""
    fields, calls = reply.message(number).additional_kwargs, reply.tool_calls(number)
    text = reply.text(number)
    content: Any = text if text or not (fields or calls) else None
    if isinstance(blocks := fields.pop("content", None), list):
        content = [*blocks, {"type": "text", "text": text}] if text else blocks
    message = {"role": "assistant", "content": content, "refusal": None, **fields}
    if calls:
        if run.wire != CHAT:
            calls = [{**call, "extras": None} for call in calls]
        message["tool_calls"] = [_call(call, number) for number, call in enumerate(calls)]
    reason = finish_reason(run, number, CHAT, calls=bool(calls))
    return {"index": number, "message": message, "logprobs": None, "finish_reason": reason}


def _call(call: dict[str, Any], number: int) -> dict[str, Any]:
    function = {"name": call["name"] or "", "arguments": call["arguments"]}
    # The id is required: clients return a tool's result with it.
    fields = {"id": call["id"] or f"call-{number}", "type": "function", "function": function}
    return with_extras(fields, call.get("extras") or {})
