"""Deltas of any run to OpenAI chat completions.

Reasoning goes out as `reasoning_content`, which most clients of the dialects know. Of a run of Anthropic's the
signatures of thoughts and the blocks of server tools have no place here; its calls are counted from 0 on.
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recorder.core.json import dumps
from recorder.errors import StoreError
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.openai.encode import Events, body_of
from recorder.wire.openai.request import with_extras
from recorder.wire.recorded import (
    ANTHROPIC,
    CHAT,
    Around,
    Recorded,
    Timed,
    choice_of,
    finish_reason,
    object_of,
    value_of,
)
from recorder.wire.reply import MAX_REPLY_BYTES, Reply
from recorder.wire.thoughts import DETAILS, FIELDS

#: kind -> the key of a delta whose value is the text.
_TEXTS = {TEXT: "content", REASONING: "reasoning_content", REFUSAL: "refusal"}
#: kind -> what stands around the text in the delta of an event.
_AROUND = {
    TEXT: (b'{"content":', b"}"),
    REASONING: (b'{"reasoning_content":', b"}"),
    REFUSAL: (b'{"refusal":', b"}"),
    TOOL_ARGS: (b'{"tool_calls":[{"index":%d,"function":{"arguments":', b"}}]}"),
}
#: What an `other` delta of Anthropic's says; no client of this format reads it.
_OF_A_BLOCK = frozenset(("content_block", "content_block_delta", "partial_json"))


def body(run: Recorded, deltas: Timed) -> bytes:
    """The same answer not streamed. Raises `StoreError` for one that is too long."""
    chat, reply = ChatStream(run), Reply()
    for _, delta in deltas:
        if (ours := chat.ours(delta)) is not None:
            reply.add(ours)
    if reply.truncated:
        raise StoreError(f"The answer has more than {MAX_REPLY_BYTES} bytes and is no body; stream it")
    choices = [_whole(run, reply, number) for number in sorted({*reply.choices, *run.finish_reasons, 0})]
    return body_of(run, "chat.completion", choices)


class ChatStream:
    """The events of one run."""

    def __init__(self, run: Recorded) -> None:
        self._run = run
        self._events = Events(run, "chat.completion.chunk")
        #: The choices that were opened, and whether each calls tools.
        self._choices: dict[int, bool] = {}
        #: choice -> its citations so far, which are told at once: the SDK's helper takes no second list of them. Those
        #: of another format's run at the end, of this one's where they were.
        self._cited: dict[int, list[Any]] = {}
        #: choice -> idx of a call -> its number; None where the numbers are those of this format.
        self._numbers: dict[int, dict[str, int]] | None = None if run.wire == CHAT else {}

    def opening(self, first: Delta | None) -> Iterator[bytes]:
        """The role of the first choice."""
        yield self._opened(0, first.kind if first is not None and choice_of(first.idx) == 0 else TEXT)

    def said(self, delta: Delta) -> Iterator[bytes]:
        """The events of a delta, none for what has no place here."""
        ours = self.ours(delta)
        if ours is None:
            return
        text, kind, idx = ours
        number = choice_of(idx)
        if self._run.wire == CHAT and (kind != CITATION or number not in self._cited):
            yield from self._citations()
        if kind == CITATION:
            self._cited.setdefault(number, []).append(value_of(text))
            return
        if number not in self._choices:
            yield self._opened(number, kind)
        if kind in (TOOL_CALL, TOOL_ARGS):
            self._choices[number] = True
        yield self._events.event(_choice(number, _delta(text, kind, idx, as_was=self._run.wire == CHAT)))

    def around(self, delta: Delta) -> Around | None:
        """What stands around the text of a delta like this one."""
        ours = self.ours(delta)
        if ours is None or ours.kind not in _AROUND:
            return None
        before, behind = _AROUND[ours.kind]
        if ours.kind == TOOL_ARGS:
            before %= _call_number(ours.idx)
        head = b'%b"choices":[{"index":%d,"delta":' % (self._events.head, choice_of(ours.idx))
        return head + before, behind + b',"logprobs":null,"finish_reason":null}]' + self._events.tail

    def ending(self) -> Iterator[bytes]:
        """The ends of all choices that have one, and of the response."""
        yield from self._citations()
        for number in sorted(self._choices.keys() | self._run.finish_reasons.keys()):
            reason = finish_reason(self._run, number, CHAT, calls=self._choices.get(number, False))
            if reason is not None:
                yield self._events.event(_choice(number, {}, reason))
        yield from self._events.end()

    def ours(self, delta: Delta) -> Delta | None:
        """The delta as one of this format; None for what has no place in it."""
        text, kind, idx = delta
        if kind in (TOOL_CALL, TOOL_ARGS):
            return delta if self._numbers is None else self._numbered(delta)
        if kind == OTHER:
            foreign = self._run.wire == ANTHROPIC or not _OF_A_BLOCK.isdisjoint(found := object_of(text))
            return None if foreign or not found else delta
        if kind == CITATION:
            citation = _citation(object_of(text)) if self._run.wire != CHAT else text
            return Delta(citation, kind, str(choice_of(idx))) if citation else None
        if kind not in _TEXTS:
            return None
        # A block of Anthropic's is a part of the choice, a text here is not.
        return delta if self._numbers is None else Delta(text, kind, str(choice_of(idx)))

    def _citations(self) -> Iterator[bytes]:
        cited, self._cited = self._cited, {}
        for number, listed in cited.items():
            if number not in self._choices:
                yield self._opened(number, CITATION)
            yield self._events.event(_choice(number, {"annotations": listed}))

    def _opened(self, number: int, kind: str) -> bytes:
        self._choices[number] = False
        return self._events.event(
            _choice(number, {"role": "assistant", "content": "" if kind == TEXT else None})
        )

    def _numbered(self, delta: Delta) -> Delta:
        assert self._numbers is not None
        choice = choice_of(delta.idx)
        calls = self._numbers.setdefault(choice, {})
        return delta._replace(idx=f"{choice}.{calls.setdefault(delta.idx, len(calls))}")


def _choice(number: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}


def _delta(text: str, kind: str, idx: str, *, as_was: bool) -> dict[str, Any]:
    if kind in _TEXTS:
        return {_TEXTS[kind]: text}
    if kind == OTHER:
        said = object_of(text)
        # Their text has an event of its own. The empty text beside them keeps it from counting twice.
        return {FIELDS[0]: "", **said} if DETAILS in said else said
    call: dict[str, Any] = {"index": _call_number(idx)}
    if kind == TOOL_ARGS:
        return {"tool_calls": [{**call, "function": {"arguments": text}}]}
    said = object_of(text)
    call |= {"id": said["id"]} if "id" in said else {}
    name = {"name": said["name"]} if "name" in said else {}
    function = {**name, "arguments": ""}
    extras = {key: said[key] for key in said if key not in ("id", "name")} if as_was else {}
    return {"tool_calls": [with_extras({**call, "type": "function", "function": function}, extras)]}


def _call_number(idx: str) -> int:
    part = idx.partition(".")[2]
    return int(part) if part.isdecimal() else 0


def _citation(said: dict[str, Any]) -> str:
    """A citation of another format; only what stands in the web has a place here."""
    if said.get("type") == "url_citation":
        return dumps(said)
    if not isinstance(said.get("url"), str):
        return ""
    cited = {key: said[key] for key in ("url", "title") if said.get(key) is not None}
    return dumps({"type": "url_citation", "url_citation": cited})


def _whole(run: Recorded, reply: Reply, number: int) -> dict[str, Any]:
    """A choice of an answer that is not streamed."""
    said, calls = reply.message(number).additional_kwargs, reply.tool_calls(number)
    text = reply.text(number)
    content: Any = text if text or not (said or calls) else None
    if isinstance(blocks := said.pop("content", None), list):
        content = [*blocks, {"type": "text", "text": text}] if text else blocks
    message = {"role": "assistant", "content": content, "refusal": None, **said}
    if calls:
        if run.wire != CHAT:
            calls = [{**call, "extras": None} for call in calls]
        message["tool_calls"] = [_call(call, number) for number, call in enumerate(calls)]
    reason = finish_reason(run, number, CHAT, calls=bool(calls))
    return {"index": number, "message": message, "logprobs": None, "finish_reason": reason}


def _call(call: dict[str, Any], number: int) -> dict[str, Any]:
    function = {"name": call["name"] or "", "arguments": call["arguments"]}
    # Results are sent back by the id, so that there must be one.
    found = {"id": call["id"] or f"call-{number}", "type": "function", "function": function}
    return with_extras(found, call.get("extras") or {})
