"""Encodes the deltas of any run as OpenAI's legacy completions.

The format has text, and in the dialects reasoning. A refusal is sent as text, because it is text to its reader.
Tool calls, citations and signatures are left out.
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recorder.errors import StoreError
from recorder.wire.deltas import OTHER, REASONING, REFUSAL, TEXT, Delta
from recorder.wire.openai.encode import EventWriter, body_of
from recorder.wire.recorded_run import (
    COMPLETIONS,
    Recorded,
    TextTemplate,
    TimedDeltas,
    choice_of,
    finish_reason,
    object_of,
)
from recorder.wire.reply import MAX_REPLY_BYTES, Reply

#: kind -> the bytes before and after its text in a choice.
_TEMPLATES = {
    TEXT: (b'{"text":', b""),
    REFUSAL: (b'{"text":', b""),
    REASONING: (b'{"text":"","reasoning_content":', b""),
}


class CompletionsEncoder:
    """Encodes the events of one run."""

    def __init__(self, run: Recorded) -> None:
        self._run = run
        self._writer = EventWriter(run, "text_completion")
        self._choices = {0}

    def opening(self, first: Delta | None) -> tuple[bytes, ...]:
        """Nothing: the format has no roles."""
        return ()

    def events(self, delta: Delta) -> Iterator[bytes]:
        """The frame of a delta; none if the format cannot express it."""
        if (choice := _choice_of(self._run, delta)) is not None:
            self._choices.add(choice["index"])
            yield self._writer.event(choice)

    def text_template(self, delta: Delta) -> TextTemplate | None:
        """The bytes before and after the text in the frame of a delta like this one; None without a text."""
        if delta.kind not in _TEMPLATES:
            return None
        prefix, suffix = _TEMPLATES[delta.kind]
        fields = b',"index":%d,"logprobs":null,"finish_reason":null}]' % choice_of(delta.idx)
        return b'%b"choices":[%b' % (self._writer.head, prefix), suffix + fields + self._writer.tail

    def ending(self) -> Iterator[bytes]:
        """The events with the finish reasons, then the end of the response."""
        for number in sorted(self._choices | self._run.finish_reasons.keys()):
            if (reason := finish_reason(self._run, number, COMPLETIONS)) is not None:
                yield self._writer.event(_choice(number, "", reason))
        yield from self._writer.end()


def body(run: Recorded, deltas: TimedDeltas) -> bytes:
    """The answer as one JSON body. Raises `StoreError` if it is longer than `MAX_REPLY_BYTES`."""
    reply = Reply()
    for _, delta in deltas:
        if _choice_of(run, delta) is not None:
            kind = TEXT if delta.kind == REFUSAL else delta.kind
            reply.add(Delta(delta.text, kind, str(choice_of(delta.idx))))
    if reply.truncated:
        raise StoreError(f"The answer is too long for one body: more than {MAX_REPLY_BYTES} bytes; stream it")
    choices = [
        {**_choice(number, reply.text(number), finish_reason(run, number, COMPLETIONS)),
         **reply.message(number).additional_kwargs}
        for number in sorted({*reply.choices, *run.finish_reasons, 0})
    ]  # fmt: skip
    return body_of(run, "text_completion", choices)


def _choice_of(run: Recorded, delta: Delta) -> dict[str, Any] | None:
    """The choice in the event of a delta; None if the format cannot express the delta."""
    text, kind, idx = delta
    number = choice_of(idx)
    if kind in (TEXT, REFUSAL):
        return _choice(number, text)
    if kind == REASONING:
        return _choice(number, "") | {"reasoning_content": text}
    if kind == OTHER and run.wire == COMPLETIONS and (found := object_of(text)):
        return _choice(number, "") | found
    return None


def _choice(number: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": number, "logprobs": None, "finish_reason": reason}
