"""Decodes OpenAI's Responses, streamed or as one JSON body, and the dialects of compatible providers, to deltas.

Text, reasoning, refusals, citations and signatures have the idx "0"; pieces of tool calls, and of items of other types,
have `0.<number of the item>`. A blank line stands between the parts of reasoning, whose `encrypted_content` is its
signature. Everything else is JSON of kind `other`:

* `{"output": [{"index": 1, ...}]}` holds an item of another type (a web search, a compaction), or a piece of one;
* `{"phase": "final_answer"}` is the phase of a message;
* `{"events": [{...}]}` holds an event of another type (a partial image).

`response.completed`, `response.incomplete` and `response.failed` end the response; a background answer that is only
`queued` or `in_progress` has not ended. The finish reason of an incomplete response is the reason in
`incomplete_details`. A completed response has none, so it gets the words of chat completions: `tool_calls` if it calls
tools that the client executes, else `stop`. In all other cases the status is the finish reason: `incomplete`, `failed`,
`cancelled`. What has no pieces is read from the later events that hold the complete text, item or response.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from recorder.core.json import dumps
from recorder.wire import usage
from recorder.wire.decoder import Decoder
from recorder.wire.deltas import OTHER, TEXT, Delta
from recorder.wire.errors import error_of, error_of_data, event_of
from recorder.wire.openai.responses_output import TEXT_EVENTS, OutputDecoder
from recorder.wire.reply import RUNNING, Reply
from recorder.wire.sse import END_NAMES, is_done, parse_frame_or_body

WIRE = "openai.responses"

_new_delta = tuple.__new__  # takes half the time of the named tuple's own constructor
#: The beginning of a text delta's frame, up to its data.
_HEAD = b"event: response.output_text.delta\ndata: {"
_DATA = len(_HEAD) - 1
#: Events with the response at its start.
_PROGRESS = frozenset(("response.created", "response.queued", "response.in_progress"))
_ENDED = frozenset(("completed", "incomplete", "failed", "cancelled"))
#: Last words of the events that end a response.
_LAST_WORDS = _ENDED | {"done"}
#: Keys that describe the response, besides id, model and usage.
_METADATA_KEYS = ("status", "service_tier", "incomplete_details", "previous_response_id", "conversation", "background",
                  "moderation", "metadata")  # fmt: skip
#: Keys that say where an event belongs; an event with no other keys has no content.
_PLACE_KEYS = frozenset(
    ("type", "sequence_number", "output_index", "item_id", "obfuscation", "content_index", "summary_index")
)
#: At most this many kinds of unknown events are remembered.
_MAX_STEMS = 1_000


class OpenAIResponses(Decoder):
    """Translates the frames of one response; `reply` holds the answer received so far.

    `decode` never raises: unknown content becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        self.reply = Reply()
        self._output = OutputDecoder(self.reply)
        #: Unknown events that came in pieces, without the last word of their type.
        self._stems: set[Any] = set()

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """Returns the deltas of one frame, none after the terminator.

        A frame that starts with `{` is a complete answer that was not streamed, or an event of a web socket.
        """
        event: Any = None
        if frame.startswith(_HEAD):
            try:
                event = orjson.loads(frame[_DATA:])
            except orjson.JSONDecodeError:
                pass  # several lines, or JSON that orjson does not read; `_decode` reads it
            else:
                if self._output.fast_place is not None and (text := self._plain_text(event)) is not None:
                    self.reply.add_text(text)
                    return (_new_delta(Delta, (text, TEXT, "0")),)
                if not isinstance(event, dict) or "type" not in event:
                    event = None  # `_decode_other` reads the type from the name
        return self._decode(frame, event)

    def _plain_text(self, event: Any) -> str | None:
        """The text of an event that holds nothing else, as most events do; None for every other event."""
        try:
            text = event["delta"]
            if (
                type(text) is str
                and text
                and (event["output_index"], event["content_index"], event.get("item_id"))
                == self._output.fast_place
                and event["type"] == "response.output_text.delta"
                and not event.get("logprobs")
                and "error" not in event
            ):
                return text
        except (KeyError, TypeError):
            pass
        return None

    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        """Decodes each frame that is not a text delta on one line of JSON."""
        sent = parse_frame_or_body(frame)
        data = sent.data
        if sent.error is not None:
            self.reply.error = error_of_data(sent.error)
        elif data is None or not data.strip():
            return
        elif not data.startswith(b"{") and is_done(sent):
            self._terminate()
        elif sent.name == "error":
            self.reply.error = error_of_data(data)
        else:
            event = event_of(data)
            if sent.name in END_NAMES and "type" not in event:
                self._terminate()
            else:
                self._decode_event(_typed(event, sent.name), deltas)

    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        kind = event.get("type")
        stem, _, word = kind.rpartition(".") if isinstance(kind, str) else ("", "", "")
        if error := event.get("error"):
            self.reply.error = error  # the SDK raises it, whatever the type of the event is
        if kind == "response.output_text.delta":
            self._output.text_piece(event, deltas)
        elif stem in TEXT_EVENTS and word in ("delta", "done"):
            self._output.text(stem, word, event, deltas)
        elif handle := _OUTPUT_EVENTS.get(kind or ""):
            handle(self._output, event, deltas)
        elif kind in _PROGRESS:
            self._set_response_fields(event["response"])
        elif stem == "response" and word in _LAST_WORDS:
            self._end(event, deltas)
        elif kind is None and ("output" in event or event.get("object") == "response"):
            self._body(event, deltas)
        else:
            self._unknown(event, deltas)
        if self._output.is_full:
            self.reply.truncated = True

    # -- the response -------------------------------------------------------------------------------------------

    def _body(self, body: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes a complete answer that was not streamed, or a background answer that may still go on."""
        if _text_or_none(body.get("status")) in RUNNING:
            self._set_response_fields(body)
            self._output.complete_output(body, deltas)
        else:
            self._end({"type": "response.completed", "response": body}, deltas)

    def _set_response_fields(self, response: Mapping[str, Any]) -> None:
        reply = self.reply
        reply.response_id = reply.response_id or _text_or_none(response.get("id"))
        reply.model = reply.model or _text_or_none(response.get("model"))
        reply.metadata |= {
            key: response[key] for key in _METADATA_KEYS if response.get(key) not in (None, {}, False)
        }
        raw_usage = usage.found_in(response)
        if raw_usage and isinstance(raw_usage, dict):
            reply.raw_usage = known = dict(usage.joined(reply.raw_usage, raw_usage))
            reply.usage = usage.from_openai(known) if usage.is_counted(known) else None

    def _end(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes the last event, which holds the complete response."""
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        status = _text_or_none(response.get("status"))
        if status not in _ENDED:
            status = str(event["type"]).rpartition(".")[2]
        try:
            self._set_response_fields(response)
            self._output.complete_output(response, deltas)
            self._set_origin(response)
        finally:
            self.reply.error = self.reply.error or response.get("error")
            self.reply.finish(0, self._finish_reason(status, response))
            self._terminate()

    def _set_origin(self, response: Mapping[str, Any]) -> None:
        """Sets what OpenAI has to get back with the reply, beside its message."""
        if outline := self._output.outline():
            self.reply.add_origin("output", outline)
            if response.get("store") is False:
                self.reply.add_origin("stored", False)

    def _finish_reason(self, status: str, response: Mapping[str, Any]) -> Any:
        if status in ("completed", "done"):
            return "tool_calls" if self._output.open_calls else "stop"
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return reason if status == "incomplete" and reason and isinstance(reason, str) else status

    def _terminate(self) -> None:
        self.reply.terminated = True
        self._output.fast_place = None

    def _unknown(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes an event of an unknown type: an error, the terminator of another format, or content.

        A complete text (`done`) is ignored if there were pieces of it.
        """
        stem, _, word = str(event.get("type", "")).rpartition(".")
        if (not stem.startswith("response") or word == "error") and (error := error_of(event)) is not None:
            self.reply.error = error
            return
        if event["type"] in END_NAMES:  # raises if the event has no type, so that it becomes undecodable
            self._terminate()
        if _PLACE_KEYS.issuperset(event):
            return
        index = event.get("output_index")
        place = stem, index if type(index) is int else None
        if word == "done" and place in self._stems:
            return
        if word == "delta" and len(self._stems) < _MAX_STEMS:
            self._stems.add(place)
        fields = {key: event[key] for key in event if key not in ("sequence_number", "obfuscation")}
        deltas.append(Delta(dumps({"events": [fields]}), OTHER))


def _typed(event: Any, name: str | None) -> Any:
    """The event with its name as its type if it has none, as some proxies send it; a response needs none."""
    is_response = not isinstance(event, dict) or "type" in event or event.get("object") == "response"
    return event if is_response or not name else {**event, "type": name}


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _nothing(output: OutputDecoder, event: dict[str, Any], deltas: list[Delta]) -> None:
    """Ignores an event whose content comes again in other events."""


_OUTPUT_EVENTS: dict[str, Callable[[OutputDecoder, dict[str, Any], list[Delta]], None]] = {
    "response.output_item.added": OutputDecoder.item_added,
    "response.output_item.done": OutputDecoder.item_done,
    "response.content_part.added": OutputDecoder.part_added,
    "response.content_part.done": OutputDecoder.part_done,
    "response.reasoning_summary_part.added": _nothing,
    "response.reasoning_summary_part.done": OutputDecoder.summary_done,
    "response.output_text.annotation.added": OutputDecoder.annotation,
    "response.code_interpreter_call_code.delta": OutputDecoder.code,
    "response.code_interpreter_call_code.done": OutputDecoder.code,
}
