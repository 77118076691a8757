"""What the two formats of OpenAI share on the way out: the head of each event, the end of a stream, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recorder.wire.recorded import Failure, Recorded, error_type, openai_usage, quoted, written

DONE = b"data: [DONE]\n\n"

#: What the API says of a response, and so may be said again.
_METADATA_KEYS = ("service_tier", "system_fingerprint", "provider")


class Events:
    """The events of one response."""

    def __init__(self, run: Recorded, kind: str) -> None:
        """`kind` is the `object` that each event says it is."""
        self._run = run
        #: What stands before and behind the choices of an event.
        self.head = b"data: %b" % head_of(run, kind)
        # As the API: where usage is asked for, each event but the last says that it has none.
        self.tail = b',"usage":null}\n\n' if run.usage_asked else b"}\n\n"

    def event(self, choice: Mapping[str, Any]) -> bytes:
        """An event with one choice."""
        return b'%b"choices":[%b]%b' % (self.head, written(choice), self.tail)

    def end(self) -> Iterator[bytes]:
        """The error, or the usage and the terminator, after the choices have ended."""
        run = self._run
        if run.failure is not None:
            yield b"data: %b\n\n" % written(error_of(run.failure))
            return
        if run.usage_asked and (usage := openai_usage(run)):
            yield b'%b"choices":[],"usage":%b}\n\n' % (self.head, written(usage))
        if run.terminated:
            yield DONE


def head_of(run: Recorded, kind: str) -> bytes:
    """The beginning of an event or of a whole answer, up to its choices."""
    said = b"".join(
        b'"%b":%b,' % (key.encode(), written(run.metadata[key]))
        for key in _METADATA_KEYS
        if run.metadata.get(key) is not None
    )
    names = quoted(run.response_id or ""), kind.encode(), run.created, quoted(run.model or ""), said
    return b'{"id":%b,"object":"%b","created":%d,"model":%b,%b' % names


def body_of(run: Recorded, kind: str, choices: list[dict[str, Any]]) -> bytes:
    """An answer that is not streamed; of a run that failed, the error's."""
    if run.failure is not None:
        return written(error_of(run.failure))
    usage = openai_usage(run)
    end = b',"usage":%b}' % written(usage) if usage else b"}"
    return b'%b"choices":%b%b' % (head_of(run, kind), written(choices), end)


def error_of(failure: Failure) -> dict[str, Any]:
    """An error as the API words it, in a stream or as a body."""
    said = {"message": failure.message, "type": error_type(failure, "server_error")}
    return {"error": {**said, "param": None, "code": None}}
