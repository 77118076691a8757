"""Encodes what OpenAI's two formats share: the beginning of each event, the end of a stream, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recorder.wire.recorded_run import Failure, Recorded, error_type, json_bytes, json_string, openai_usage

DONE = b"data: [DONE]\n\n"

#: Keys of a response's metadata that the API sends in each event.
_METADATA_KEYS = ("service_tier", "system_fingerprint", "provider")


class EventWriter:
    """Writes the events of one response."""

    def __init__(self, run: Recorded, kind: str) -> None:
        """`kind` is the value of `object` in each event."""
        self._run = run
        #: The bytes of an event before its choices, and after them.
        self.head = b"data: %b" % head_of(run, kind)
        # Like the API: if the request asked for usage, it is null in each event but the last.
        self.tail = b',"usage":null}\n\n' if run.include_usage else b"}\n\n"

    def event(self, choice: Mapping[str, Any]) -> bytes:
        """An event with one choice."""
        return b'%b"choices":[%b]%b' % (self.head, json_bytes(choice), self.tail)

    def end(self) -> Iterator[bytes]:
        """The frames after the choices have ended: the error, or the usage and the terminator."""
        run = self._run
        if run.failure is not None:
            yield b"data: %b\n\n" % json_bytes(error_of(run.failure))
            return
        if run.include_usage and (usage := openai_usage(run)):
            yield b'%b"choices":[],"usage":%b}\n\n' % (self.head, json_bytes(usage))
        if run.terminated:
            yield DONE


def head_of(run: Recorded, kind: str) -> bytes:
    """The beginning of an event or of a JSON body, up to its choices."""
    metadata = b"".join(
        b'"%b":%b,' % (key.encode(), json_bytes(run.metadata[key]))
        for key in _METADATA_KEYS
        if run.metadata.get(key) is not None
    )
    response_id, model = json_string(run.response_id or ""), json_string(run.model or "")
    values = response_id, kind.encode(), run.created, model, metadata
    return b'{"id":%b,"object":"%b","created":%d,"model":%b,%b' % values


def body_of(run: Recorded, kind: str, choices: list[dict[str, Any]]) -> bytes:
    """The JSON body of an answer that is not streamed; the error's body if the run failed."""
    if run.failure is not None:
        return json_bytes(error_of(run.failure))
    usage = openai_usage(run)
    end = b',"usage":%b}' % json_bytes(usage) if usage else b"}"
    return b'%b"choices":%b%b' % (head_of(run, kind), json_bytes(choices), end)


def error_of(failure: Failure) -> dict[str, Any]:
    """An error in the API's format, for a stream or a body."""
    fields = {"message": failure.message, "type": error_type(failure, "server_error")}
    return {"error": {**fields, "param": None, "code": None}}
