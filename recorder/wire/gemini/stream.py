"""Decodes Gemini's answers to deltas, streamed and not streamed, of the Gemini API and of Vertex AI.

A stream has no terminator: it is complete if each candidate has a finish reason when the body ends. Each event has the
usage so far. Parts of one event belong together as they came: text and reasoning have the idx of the candidate, a call
has `<candidate>.<number>`, and a signature has the idx of the part that it signs.
https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from recorder.core.json import dumps, loads
from recorder.wire import usage
from recorder.wire.decoder import Decoder
from recorder.wire.deltas import CITATION, OTHER, Delta
from recorder.wire.errors import error_of, error_of_data
from recorder.wire.finish_reasons import meaning_of
from recorder.wire.gemini.content import PartReader, parts_of
from recorder.wire.gemini.framing import FRAMING
from recorder.wire.json_frames import BLANK
from recorder.wire.repeated_answer import UNCHANGED, Items
from recorder.wire.reply import Reply
from recorder.wire.reply_without_call_ids import ReplyWithoutCallIds
from recorder.wire.sse import BOM, is_done, parse

WIRE = "gemini.generate_content"

#: What stands between the objects of an array.
_BETWEEN = BLANK + b","
#: Keys of an event -> the names under which they describe the response.
_METADATA = {"createTime": "create_time", "modelStatus": "model_status", "promptFeedback": "prompt_feedback"}
#: Keys of an answer: an object with none of them is none.
_ANSWER_KEYS = frozenset(("candidates", "promptFeedback", "usageMetadata"))
_EVENT_KEYS = _ANSWER_KEYS | _METADATA.keys() | {"modelVersion", "responseId", "error"}
#: Keys of a candidate that only describe it, and those that are read elsewhere.
_DETAILS = frozenset(("finishMessage", "tokenCount", "avgLogprobs", "safetyRatings"))
_READ = frozenset(
    ("index", "content", "finishReason", "citationMetadata", "groundingMetadata", "logprobsResult")
)
#: What stands for no finish reason.
_NO_REASONS = (None, "FINISH_REASON_UNSPECIFIED")
#: The finish reason of a blocked prompt, if the block's own reason says nothing (`OTHER`).
_BLOCKED = "BLOCKED"
_MAX_INDEX = 2**31


class GeminiReply(ReplyWithoutCallIds):
    """One response, as far as it was received. Only finish reasons say that it has ended, whatever a proxy adds."""

    __slots__ = ()

    @property
    def has_ended(self) -> bool:
        """Whether each candidate that began has a finish reason."""
        return self.finish_reasons.keys() >= set(self.choices)


class Gemini(Decoder):
    """Translates the frames of one response; `reply` holds the answer received so far.

    `decode` never raises: unknown content becomes a delta of kind `other`.
    """

    wire = WIRE
    framing = FRAMING

    def __init__(self) -> None:
        self.reply: Reply = GeminiReply()
        self._parts = PartReader()
        self._items = Items()

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """Returns the deltas of one frame.

        A frame is an event, an object of an array with what stands before it, or a complete answer: an object alone.
        """
        event: Any = None
        if frame.startswith(b"data: {"):
            try:
                event = orjson.loads(frame[6:])
            except orjson.JSONDecodeError:
                pass  # several lines, or JSON that orjson does not read; `_decode` reads it
        return self._decode(frame, event)

    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        body = frame.strip(_BETWEEN)
        if body.startswith((b"{", b"[")):
            is_alone = frame.lstrip(BLANK).startswith(b"{")
            self._decode_json(body, deltas, is_alone=is_alone)
        elif body.strip(b"]" + BLANK):
            self._decode_sent(frame, deltas)

    def _decode_json(self, body: bytes, deltas: list[Delta], *, is_alone: bool) -> None:
        try:
            found = loads(body)
        except ValueError:
            found = loads(body.lstrip(b"[" + _BETWEEN))  # the first object of an array
        for event in found if isinstance(found, list) else [found]:
            self._decode_event(event, deltas)
        if is_alone and isinstance(found, dict) and not _ANSWER_KEYS.isdisjoint(found):
            self.reply.terminated = True

    def _decode_sent(self, frame: bytes, deltas: list[Delta]) -> None:
        """Decodes a server-sent event that is not one line of JSON."""
        sent = parse(frame.removeprefix(BOM))
        if sent.error is not None:
            self.reply.error = error_of_data(sent.error)
        if sent.data is None or not sent.data.strip():
            return
        if is_done(sent):
            self.reply.terminated = True
        elif sent.name == "error":
            self.reply.error = error_of_data(sent.data)
        else:
            self._decode_json(sent.data.strip(), deltas, is_alone=False)

    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._set_error(event)
        self._set_response_fields(event)
        candidates = event.get("candidates")
        for position, candidate in enumerate(candidates if candidates is not None else ()):
            self._decode_candidate(position, candidate, deltas)
        if not candidates and isinstance(feedback := event.get("promptFeedback"), dict):
            self._block(feedback.get("blockReason"))
        for key, value in event.items():
            if key not in _EVENT_KEYS and isinstance(value, (dict, list)):
                self._add_new("", key, value, deltas)

    def _set_error(self, event: dict[str, Any]) -> None:
        error = event.get("error")
        if not error and _ANSWER_KEYS.isdisjoint(event):
            error = error_of(event)
        if error:
            self.reply.error = error

    def _set_response_fields(self, event: dict[str, Any]) -> None:
        reply = self.reply
        reply.response_id = reply.response_id or _text_or_none(event.get("responseId"))
        reply.model = reply.model or _text_or_none(event.get("modelVersion"))
        for key, name in _METADATA.items():
            if event.get(key) is not None:
                reply.metadata[name] = event[key]
        counts = event.get("usageMetadata")
        if counts and isinstance(counts, dict):
            reply.raw_usage = known = dict(usage.joined(reply.raw_usage, counts))
            reply.usage = usage.from_openai(known) if usage.is_counted(known) else None

    def _block(self, reason: Any) -> None:
        """The prompt was refused: there is no candidate, and the block's reason is the finish reason."""
        if reason:
            is_known = isinstance(reason, str) and meaning_of(reason) != "unknown"
            self.reply.finish(0, reason if is_known else _BLOCKED)

    def _decode_candidate(self, position: int, candidate: dict[str, Any], deltas: list[Delta]) -> None:
        index = candidate.get("index")
        number = index if type(index) is int and 0 <= index < _MAX_INDEX else position
        idx = str(number)
        content = candidate.get("content")
        for part in parts_of(content):
            self._parts.read(part, idx, deltas)
        self._citations(candidate, idx, deltas)
        for key, value in candidate.items():
            if key not in _READ and key not in _DETAILS and value is not None:
                self._add_new(idx, key, value, deltas)
        self._describe(number, candidate)

    def _citations(self, candidate: dict[str, Any], idx: str, deltas: list[Delta]) -> None:
        """Adds sources. A list of them may be sent again with more of them in it."""
        cited = candidate.get("citationMetadata")
        if isinstance(cited, dict):
            sources = cited.get("citations") or cited.get("citationSources") or []
            found = self._items.new_part((idx, "citationMetadata"), sources)
            if found is not UNCHANGED:
                deltas.extend(Delta(dumps(source), CITATION, idx) for source in found)
        if grounding := candidate.get("groundingMetadata"):
            found = self._items.new_part((idx, "groundingMetadata"), grounding)
            if found is not UNCHANGED:
                deltas.append(Delta(dumps({"groundingMetadata": found}), CITATION, idx))

    def _add_new(self, idx: str, key: str, value: Any, deltas: list[Delta]) -> None:
        """Adds an unknown key, unless it was sent before with the same value."""
        if (found := self._items.new_part((idx, key), value)) is not UNCHANGED:
            deltas.append(Delta(dumps({key: found}), OTHER, idx or "0"))

    def _describe(self, number: int, candidate: dict[str, Any]) -> None:
        reply = self.reply
        reason = candidate.get("finishReason")
        if reason not in _NO_REASONS:
            reply.finish(number, reason)
        if details := {key: candidate[key] for key in _DETAILS if candidate.get(key) is not None}:
            reply.add_choice_metadata(number, "candidate", details)
        reply.add_logprobs(number, candidate.get("logprobsResult"))


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
