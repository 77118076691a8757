"""Deltas of any run to OpenAI's legacy completions.

The format has text, and in the dialects reasoning; a refusal goes out as the text that it is to its reader. Tool calls,
citations and signatures have no place in it.
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recorder.errors import StoreError
from recorder.wire.deltas import OTHER, REASONING, REFUSAL, TEXT, Delta
from recorder.wire.openai.encode import Events, body_of
from recorder.wire.recorded import COMPLETIONS, Around, Recorded, Timed, choice_of, finish_reason, object_of
from recorder.wire.reply import MAX_REPLY_BYTES, Reply

#: kind -> what stands around its text in a choice.
_AROUND = {
    TEXT: (b'{"text":', b""),
    REFUSAL: (b'{"text":', b""),
    REASONING: (b'{"text":"","reasoning_content":', b""),
}


class CompletionsStream:
    """The events of one run."""

    def __init__(self, run: Recorded) -> None:
        self._run = run
        self._events = Events(run, "text_completion")
        self._choices = {0}

    def opening(self, first: Delta | None) -> tuple[bytes, ...]:
        """Nothing: the format has no roles."""
        return ()

    def said(self, delta: Delta) -> Iterator[bytes]:
        """The event of a delta, none for what has no place here."""
        if (said := _said(self._run, delta)) is not None:
            self._choices.add(said["index"])
            yield self._events.event(said)

    def around(self, delta: Delta) -> Around | None:
        """What stands around the text of a delta like this one."""
        if delta.kind not in _AROUND:
            return None
        before, behind = _AROUND[delta.kind]
        more = b',"index":%d,"logprobs":null,"finish_reason":null}]' % choice_of(delta.idx)
        return b'%b"choices":[%b' % (self._events.head, before), behind + more + self._events.tail

    def ending(self) -> Iterator[bytes]:
        """The ends of all choices that have one, and of the response."""
        for number in sorted(self._choices | self._run.finish_reasons.keys()):
            if (reason := finish_reason(self._run, number, COMPLETIONS)) is not None:
                yield self._events.event(_choice(number, "", reason))
        yield from self._events.end()


def body(run: Recorded, deltas: Timed) -> bytes:
    """The same answer not streamed. Raises `StoreError` for one that is too long."""
    reply = Reply()
    for _, delta in deltas:
        if _said(run, delta) is not None:
            kind = TEXT if delta.kind == REFUSAL else delta.kind
            reply.add(Delta(delta.text, kind, str(choice_of(delta.idx))))
    if reply.truncated:
        raise StoreError(f"The answer has more than {MAX_REPLY_BYTES} bytes and is no body; stream it")
    choices = [
        {**_choice(number, reply.text(number), finish_reason(run, number, COMPLETIONS)),
         **reply.message(number).additional_kwargs}
        for number in sorted({*reply.choices, *run.finish_reasons, 0})
    ]  # fmt: skip
    return body_of(run, "text_completion", choices)


def _said(run: Recorded, delta: Delta) -> dict[str, Any] | None:
    """The choice of the event for a delta; None for what has no place here."""
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
