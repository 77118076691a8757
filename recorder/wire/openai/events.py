"""Decodes what the events of OpenAI's two formats share: errors, the terminator, response metadata, usage.

Chat completions and the legacy completions differ only in the content of a choice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import orjson

from recorder.core.json import dumps, loads
from recorder.messages.merge import merge_latest
from recorder.wire import usage
from recorder.wire.decoder import Decoder
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, Delta
from recorder.wire.errors import error_of, error_of_choice, error_of_data, event_of
from recorder.wire.openai.choices import Choices
from recorder.wire.repeated_answer import UNCHANGED, Items, difference, repeats_all, rest_of
from recorder.wire.reply import Reply
from recorder.wire.sse import BOM, END_NAMES, Event, is_done, parse

_new_delta = tuple.__new__  # takes half the time of the named tuple's own constructor
#: Keys that describe the response; Azure sends the last one, about the prompt.
_METADATA_KEYS = ("system_fingerprint", "service_tier", "provider", "prompt_filter_results")
#: Keys of an event that the translator reads, or that have nothing to do with the answer.
_EVENT_KEYS = frozenset(
    (
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "x_groq",
        "error",
        "obfuscation",
        *_METADATA_KEYS,
        *usage.PLACES,
    )
)
#: An event that holds only text has no other keys than these.
PLAIN_KEYS = _EVENT_KEYS - {"x_groq", "error", *usage.PLACES[1:]}
#: A choice with no other keys than these holds no error, no usage and no filter results.
_CHOICE_KEYS = frozenset(("index", "delta", "text", "finish_reason", "native_finish_reason", "logprobs"))
#: The key under which Azure sends the results of its content filter, in each choice.
FILTER_RESULTS = "content_filter_results"
_TEXTS = (TEXT, REASONING, REFUSAL)
#: The last value of at most this many unknown keys is remembered; a stream may go on inventing new keys.
MAX_REMEMBERED_VALUES = 10_000


class OpenAIEvents(Decoder):
    """Translates the frames of one response; `reply` holds the answer received so far.

    `decode` never raises: unknown content becomes a delta of kind `other`.
    """

    wire: str

    def __init__(self) -> None:
        self.reply = Reply()
        #: Maps the index of a choice to the number of its answer.
        self.choices = Choices(self.reply)
        self._items = Items()
        #: Whether text may take the fast path. True after the first choice, whose event also holds metadata, until a
        #: choice finishes.
        self._fast_path = False
        #: Hash of an unknown key and its idx -> hash of its last value.
        self._last_values: dict[int, int] = {}

    @staticmethod
    @abstractmethod
    def _plain_text(event: Any) -> str | None:
        """The text of an event that holds nothing else, as most events do; None for every other event."""

    @staticmethod
    @abstractmethod
    def _is_unstreamed(choice: dict[str, Any]) -> bool:
        """Whether a choice has the shape of an answer that was not streamed."""

    @abstractmethod
    def _decode_content(
        self, choice: dict[str, Any], number: int, idx: str, deltas: list[Delta], is_last: bool,
        is_unstreamed: bool,
    ) -> None:  # fmt: skip
        """Adds the deltas of a choice's content; `idx` is the idx of its text.

        `is_last`: the choice ends with this event, or ended before. `is_unstreamed`: it holds the complete answer.
        """

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """Returns the deltas of one frame, none after the terminator.

        A frame that starts with `{` is a complete answer that was not streamed.
        """
        event: Any = None
        if self._fast_path and frame.startswith(b"data: {"):
            try:
                event = orjson.loads(frame[6:])
            except orjson.JSONDecodeError:
                pass  # several lines, or JSON that orjson does not read; `_decode` reads it
            else:
                if (text := self._plain_text(event)) is not None:
                    self.reply.add_text(text)
                    return (_new_delta(Delta, (text, TEXT, "0")),)
        return self._decode(frame, event)

    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        """Decodes the first frame, and every frame that is not one line of JSON."""
        reply = self.reply
        body = frame.removeprefix(BOM).lstrip()
        is_unstreamed = body.startswith(b"{")
        sent = Event(body) if is_unstreamed else parse(frame)
        if sent.error is not None:
            reply.error = error_of_data(sent.error)
        data = sent.data
        if data is None or not data.strip():
            return
        if is_done(sent):
            self._end()
            return
        if sent.name == "error":
            reply.error = error_of_data(data)
            if not data.lstrip().startswith(b"{"):
                return  # the data are the text of the error, not an event
        event = event_of(data)
        self._decode_event(event, deltas)
        if sent.name in END_NAMES or (
            is_unstreamed and any(map(self._is_unstreamed, event.get("choices") or ()))
        ):
            self._end()

    def _end(self) -> None:
        self.reply.terminated = True
        self._fast_path = False

    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        reply = self.reply
        choices, is_plain = event.get("choices"), PLAIN_KEYS.issuperset(event)
        if not (choices and is_plain) and (error := error_of(event)) is not None:
            reply.error = error
            is_plain = is_plain or not choices  # without choices, all other keys belong to the error
        for choice in choices or ():
            self._decode_choice(choice, event, deltas)
        if reply.response_id is None or reply.model is None or reply.finish_reasons:
            self._set_response_fields(event)
        if not is_plain:
            self._unknown_event_keys(event, deltas)
            self._set_usage(usage.found_in(event))
        elif raw_usage := event.get("usage"):
            self._set_usage(raw_usage)

    def _set_response_fields(self, event: dict[str, Any]) -> None:
        """Sets the id, the model and the metadata, which the first events and the last ones hold."""
        reply = self.reply
        reply.response_id = reply.response_id or _text_or_none(event.get("id"))
        reply.model = reply.model or _text_or_none(event.get("model"))
        for key in _METADATA_KEYS:
            if (value := event.get(key)) is not None:
                reply.metadata[key] = value

    def _unknown_event_keys(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Adds unknown keys of an event if their values are structures (moderation results); plain values are noise."""
        if event.get("type") == "message_stop":
            self._end()
        for key, value in event.items():
            if key in _EVENT_KEYS or not isinstance(value, (dict, list)):
                continue
            if (new_part := self._items.new_part(("", key), value)) is not UNCHANGED:
                deltas.append(Delta(dumps({key: new_part}), OTHER))

    def _set_usage(self, raw_usage: Any) -> None:
        if raw_usage and isinstance(raw_usage, dict):
            self.reply.raw_usage = known = dict(usage.joined(self.reply.raw_usage, raw_usage))
            self.reply.usage = usage.from_openai(known) if usage.is_counted(known) else None

    def _decode_choice(self, choice: dict[str, Any], event: dict[str, Any], deltas: list[Delta]) -> None:
        reply = self.reply
        number = 0 if choice.get("index") == 0 else self.choices.number(choice)
        if reason := choice.get("finish_reason"):
            reply.finish(number, reason, choice.get("native_finish_reason"))
        if logprobs := choice.get("logprobs"):
            reply.add_logprobs(number, logprobs)
        if not _CHOICE_KEYS.issuperset(choice):
            self._set_error(error_of_choice(choice))
            self._set_usage(usage.found_in(choice))
            if filtered := choice.get(FILTER_RESULTS):
                reply.add_choice_metadata(number, FILTER_RESULTS, filtered)
        idx = "0" if number == 0 else str(number)
        # An event with the finish reason, a later one, and an unstreamed answer may repeat the complete answer.
        is_unstreamed = event.get("object") == "chat.completion"
        if not is_unstreamed and number not in reply.finish_reasons:
            self._decode_content(choice, number, idx, deltas, False, False)
            self._fast_path = not reply.finish_reasons
            return
        fresh: list[Delta] = []
        self._decode_content(choice, number, idx, fresh, True, is_unstreamed)
        deltas += self._without_repeats(idx, fresh)
        self._fast_path = False

    def _without_repeats(self, idx: str, fresh: list[Delta]) -> list[Delta]:
        """Drops a text from the deltas of a choice's last event if it repeats all of the text before it."""
        for kind in _TEXTS:
            text = "".join([delta.text for delta in fresh if delta.kind == kind])
            if text and repeats_all(text, self.reply.pieces(idx, kind)):
                fresh = [delta for delta in fresh if delta.kind != kind]
        return fresh

    def _missing_from_pieces(self, number: int, idx: str, fresh: list[Delta]) -> list[Delta]:
        """The deltas of a complete answer that its streamed pieces did not have."""
        reply, deltas = self.reply, []
        known_fields = reply.additional(number)
        for delta in fresh:
            known = reply.pieces(idx, delta.kind)
            if delta.kind == OTHER:
                deltas += _new_fields(known_fields, loads(delta.text), delta.idx)
            elif delta.kind == CITATION:
                deltas += [delta] if delta.text not in known else []
            elif not known:
                deltas.append(delta)
        for kind in _TEXTS:
            text = "".join([delta.text for delta in fresh if delta.kind == kind])
            known_text = "".join(reply.pieces(idx, kind))
            if known_text and (rest := rest_of(text, known_text)):
                deltas.append(Delta(rest, kind, idx))
        return deltas

    def _set_error(self, error: Any) -> None:
        """Sets an error that stands inside of a choice; an error beside the choices takes precedence."""
        if error is not None:
            self.reply.error = self.reply.error or error

    def _unknown(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """Adds an unknown key. A plain value that is sent repeatedly (Groq's `channel`) is added when it changes."""
        value = fields[key]
        if isinstance(value, list):
            value = self._items.new_items((idx, key), value)
            if not value and fields[key]:
                return
        elif not isinstance(value, dict) and not self._has_changed((idx, key), value):
            return
        _add_unknown(idx, key, value, deltas)

    def _has_changed(self, place: tuple[str, str], value: Any) -> bool:
        """Whether the value differs from the last one; only hashes are kept, because values may be long."""
        place_hash, value_hash = hash(place), hash(dumps(value))
        if self._last_values.get(place_hash) == value_hash:
            return False
        if place_hash in self._last_values or len(self._last_values) < MAX_REMEMBERED_VALUES:
            self._last_values[place_hash] = value_hash
        return True


def _add_unknown(idx: str, key: str, value: Any, deltas: list[Delta]) -> None:
    """Add an unknown key to the deltas of one event, in which it may occur twice for one choice.

    An event makes one chunk, and the chunks are added up. So what replaces what is decided within the event here.
    """
    for place, (text, kind, its_idx) in enumerate(deltas):
        if kind == OTHER and its_idx == idx and text.startswith(f"{{{dumps(key)}:"):
            merged = merge_latest([loads(text), {key: value}])
            deltas[place] = Delta(dumps(merged), OTHER, idx)
            return
    deltas.append(Delta(dumps({key: value}), OTHER, idx))


def _new_fields(known: dict[str, Any], fields: Any, idx: str) -> list[Delta]:
    """An `other` delta of the fields, or parts of fields, that are not known yet."""
    added = {}
    for key, value in fields.items() if isinstance(fields, dict) else ():
        new_part = difference(known[key], value) if key in known else value
        if new_part is not None and new_part is not UNCHANGED:
            added[key] = new_part
    return [Delta(dumps(added), OTHER, idx)] if added else []


def get_or_none(value: Any, key: str) -> Any:
    """The value of a key; None if the key is missing or `value` is no object."""
    return value.get(key) if isinstance(value, dict) else None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
