"""Encodes the deltas of any run as OpenAI's Responses.

The last event holds the complete response, so the encoder holds all texts of the answer. An answer that was cut off by
a limit is incomplete; any other one that has ended is completed.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from recorder.errors import StoreError
from recorder.wire.deltas import Delta
from recorder.wire.finish_reasons import meaning_of
from recorder.wire.openai.encode import error_of
from recorder.wire.openai.encode_responses_calls import EventFields
from recorder.wire.openai.encode_responses_output import OutputEncoder
from recorder.wire.recorded_run import Recorded, TextTemplate, TimedDeltas, json_bytes, responses_usage
from recorder.wire.reply import MAX_REPLY_BYTES

#: Fields of a response that the run's metadata may have.
_METADATA_KEYS = (
    "service_tier",
    "previous_response_id",
    "conversation",
    "background",
    "moderation",
    "metadata",
)
#: Finish reason of another format -> the reason of an incomplete response.
_REASONS = {
    "length": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
}


class ResponsesEncoder:
    """Encodes the events of one run."""

    def __init__(self, run: Recorded) -> None:
        self._run = run
        self._output = OutputEncoder(run)
        self._sequence_number = 0

    def opening(self, first: Delta | None) -> Iterator[bytes]:
        """The events with the response, without output."""
        for word in ("created", "in_progress"):
            response = _response(self._run, "in_progress", [])
            yield self._frame({"type": f"response.{word}", "response": response})

    def events(self, delta: Delta) -> Iterator[bytes]:
        """The frames of a delta; none if the format cannot express it."""
        return self._frames(self._output.events(delta))

    def text_template(self, delta: Delta) -> TextTemplate | None:
        """None: each event has a number of its own, and the last one needs all texts."""
        return None

    def ending(self) -> Iterator[bytes]:
        """The events that complete the items and the response, or the error."""
        run = self._run
        if run.failure is not None:
            yield self._frame({"type": "error", **error_of(run.failure)})
            return
        if not run.terminated:
            return  # the stream was cut off here
        yield from self._frames(self._output.end())
        response = complete_response(run, self._output)
        yield self._frame({"type": f"response.{response['status']}", "response": response})

    def _frames(self, events: Iterable[EventFields]) -> Iterator[bytes]:
        return map(self._frame, events)

    def _frame(self, event: EventFields) -> bytes:
        numbered = {**event, "sequence_number": self._sequence_number}
        self._sequence_number += 1
        # A type that comes from a recorded event may hold any characters, but a line of its own ends the name.
        name = "".join(str(event.get("type")).split()).encode("utf-8", "replace")
        return b"event: %b\ndata: %b\n\n" % (name, json_bytes(numbered))


def body(run: Recorded, deltas: TimedDeltas) -> bytes:
    """The answer as one JSON body; the error's body if the run failed.

    Raises `StoreError` if the answer is longer than `MAX_REPLY_BYTES`.
    """
    if run.failure is not None:
        return json_bytes(error_of(run.failure))
    output, size = OutputEncoder(run), 0
    for _, delta in deltas:
        for _ in output.events(delta):
            pass  # only the items are needed
        size += len(delta.text)
        if size > MAX_REPLY_BYTES:
            raise StoreError(
                f"The answer is too long for one body: more than {MAX_REPLY_BYTES} bytes; stream it"
            )
    for _ in output.end():
        pass
    return json_bytes(complete_response(run, output))


def complete_response(run: Recorded, output: OutputEncoder) -> EventFields:
    """The response with its output, status and usage."""
    reason = run.finish_reasons.get(0)
    usage = responses_usage(run)
    if reason is not None and meaning_of(reason) == "limit":
        details = None if reason == "incomplete" else {"reason": _REASONS.get(reason, reason)}
        return _response(run, "incomplete", output.output(), usage, details)
    return _response(run, "completed", output.output(), usage)


def _response(
    run: Recorded, status: str, items: list[Any], usage: Any = None, details: Any = None
) -> EventFields:
    """A response with the fields that the API always sends."""
    return {
        "id": run.response_id or "",
        "object": "response",
        "created_at": run.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": details,
        "instructions": None,
        "max_output_tokens": None,
        "model": run.model or "",
        "output": items,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": usage,
        "metadata": {},
        **{key: run.metadata[key] for key in _METADATA_KEYS if run.metadata.get(key) is not None},
    }
