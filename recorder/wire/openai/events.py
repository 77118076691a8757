"""What the events of OpenAI's formats share: errors, the terminator, what describes the response, usage.

Chat completions and the legacy completions differ in what a choice says, and in nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import orjson

from recorder.core.json import dumps, loads
from recorder.wire import usage
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, Delta
from recorder.wire.errors import error_of, error_of_choice, error_of_data, event_of
from recorder.wire.openai.choices import Choices
from recorder.wire.repeats import NOTHING, Items, difference, rest_of, says_all_again
from recorder.wire.reply import Reply
from recorder.wire.sse import BOM, END_NAMES, Event, is_done, parse

_NOTHING: tuple[Delta, ...] = ()
_new_delta = tuple.__new__  # half the time of the named tuple's own
#: What describes the response; the last is Azure's, about the prompt.
_METADATA_KEYS = ("system_fingerprint", "service_tier", "provider", "prompt_filter_results")
#: Keys of an event that are read, or that say nothing of the answer.
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
#: The keys of an event that may be nothing but text.
PLAIN_KEYS = _EVENT_KEYS - {"x_groq", "error", *usage.PLACES[1:]}
#: Keys of a choice that state no error.
_CHOICE_KEYS = frozenset(("index", "delta", "text", "finish_reason", "native_finish_reason", "logprobs"))
#: What Azure says of each choice, beside it.
FILTERED = "content_filter_results"
_TEXTS = (TEXT, REASONING, REFUSAL)
#: Longer undecodable frames (bytes) are kept in full as frames only.
_MAX_OTHER = 64 * 1024
#: Of how many names is remembered what was said of them last; a stream may go on inventing new ones.
MAX_SAID = 10_000


class OpenAIEvents(ABC):
    """Translates the frames of one response; `reply` is the answer as far as it has come.

    `decode` never raises: what it does not know becomes a delta of kind `other`.
    """

    wire: str

    def __init__(self) -> None:
        self.reply = Reply()
        #: Which answer each choice belongs to.
        self.choices = Choices(self.reply)
        self._items = Items()
        #: Whether text may take the short way: after the first choice, whose event says more, up to the terminator.
        self._flowing = False
        #: Hash of a name -> hash of what was said of it last.
        self._said: dict[int, int] = {}

    @staticmethod
    @abstractmethod
    def _plain_text(event: Any) -> str | None:
        """The text of an event that says nothing else, as most of a stream does; None for every other."""

    @staticmethod
    @abstractmethod
    def _is_whole(choice: dict[str, Any]) -> bool:
        """Whether a choice is one of an answer that was not streamed."""

    @abstractmethod
    def _content(
        self, choice: dict[str, Any], number: int, idx: str, found: list[Delta], closing: bool, whole: bool
    ) -> None:
        """What a choice says; `idx` is that of its text. `closing`: it ends, or has ended. `whole`: it says all."""

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """The deltas of one frame, none after the terminator.

        A frame that starts with `{` is a whole answer that was not streamed.
        """
        event: Any = None
        if self._flowing and frame.startswith(b"data: {"):
            try:
                event = orjson.loads(frame[6:])
            except orjson.JSONDecodeError:
                pass  # several lines, or JSON that only the slow way reads
            else:
                if (text := self._plain_text(event)) is not None:
                    self.reply.add_text(text)
                    return (_new_delta(Delta, (text, TEXT, "0")),)
        return self._decode(frame, event)

    def _decode(self, frame: bytes, event: Any) -> Sequence[Delta]:
        if self.reply.terminated:
            return _NOTHING
        found: list[Delta] = []
        try:
            if event is None:
                self._unusual(frame, found)
            else:
                self._event(event, found)
        except Exception:
            # Whatever a provider may send, the recording goes on, and the delta says what it was.
            data = parse(frame).data or frame
            text = data[:_MAX_OTHER].decode("utf-8", "replace")
            found.append(Delta(dumps({"undecodable": text}), OTHER))
        for delta in found:
            self.reply.add(delta)
        return found

    def _unusual(self, frame: bytes, found: list[Delta]) -> None:
        """The first frame, and each that is not one line of JSON."""
        reply = self.reply
        body = frame.removeprefix(BOM).lstrip()
        whole = body.startswith(b"{")
        sent = Event(body) if whole else parse(frame)
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
                return  # no event, but the words of the error
        event = event_of(data)
        self._event(event, found)
        if sent.name in END_NAMES or (whole and any(map(self._is_whole, event.get("choices") or ()))):
            self._end()

    def _end(self) -> None:
        self.reply.terminated = True
        self._flowing = False

    def _event(self, event: dict[str, Any], found: list[Delta]) -> None:
        reply = self.reply
        choices, is_plain = event.get("choices"), PLAIN_KEYS.issuperset(event)
        if not (choices and is_plain) and (error := error_of(event)) is not None:
            reply.error = error
            is_plain = is_plain or not choices  # without choices all else is the error's
        for choice in choices or ():
            self._choice(choice, event, found)
        if reply.response_id is None or reply.model is None or reply.finish_reasons:
            self._head(event)
        if not is_plain:
            self._more(event, found)
            self._spent(usage.found_in(event))
        elif spent := event.get("usage"):
            self._spent(spent)

    def _head(self, event: dict[str, Any]) -> None:
        """What describes the response; the first events and the last say it."""
        reply = self.reply
        reply.response_id = reply.response_id or _text_or_none(event.get("id"))
        reply.model = reply.model or _text_or_none(event.get("model"))
        for key in _METADATA_KEYS:
            if (value := event.get(key)) is not None:
                reply.metadata[key] = value

    def _more(self, event: dict[str, Any], found: list[Delta]) -> None:
        """Keys beside the known ones; structures are content (moderation results), the rest is noise."""
        if event.get("type") == "message_stop":
            self._end()
        for key, value in event.items():
            if key in _EVENT_KEYS or not isinstance(value, (dict, list)):
                continue
            if (news := self._items.later(("", key), value)) is not NOTHING:
                found.append(Delta(dumps({key: news}), OTHER))

    def _spent(self, spent: Any) -> None:
        if spent and isinstance(spent, dict):
            self.reply.raw_usage = known = dict(usage.joined(self.reply.raw_usage, spent))
            self.reply.usage = usage.from_openai(known) if usage.is_counted(known) else None

    def _choice(self, choice: dict[str, Any], event: dict[str, Any], found: list[Delta]) -> None:
        reply = self.reply
        number = 0 if choice.get("index") == 0 else self.choices.number(choice)
        if reason := choice.get("finish_reason"):
            reply.finish(number, reason, choice.get("native_finish_reason"))
        if logprobs := choice.get("logprobs"):
            reply.add_logprobs(number, logprobs)
        if not _CHOICE_KEYS.issuperset(choice):
            self._stated(error_of_choice(choice))
            self._spent(usage.found_in(choice))
            if filtered := choice.get(FILTERED):
                reply.describe(number, FILTERED, filtered)
        idx = "0" if number == 0 else str(number)
        # What comes with the finish reason or behind it, or says that it is whole, may be all of the answer once more.
        whole = event.get("object") == "chat.completion"
        if not whole and number not in reply.finish_reasons:
            self._content(choice, number, idx, found, False, False)
            self._flowing = not reply.finish_reasons
            return
        fresh: list[Delta] = []
        self._content(choice, number, idx, fresh, True, whole)
        found += self._without_repeats(idx, fresh)
        self._flowing = False

    def _without_repeats(self, idx: str, fresh: list[Delta]) -> list[Delta]:
        """What the last event of a choice says, without a text that is all of the text before it."""
        for kind in _TEXTS:
            text = "".join([delta.text for delta in fresh if delta.kind == kind])
            if text and says_all_again(text, self.reply.pieces(idx, kind)):
                fresh = [delta for delta in fresh if delta.kind != kind]
        return fresh

    def _beyond(self, number: int, idx: str, fresh: list[Delta]) -> list[Delta]:
        """What a whole answer says beyond the pieces that came of it."""
        reply, found = self.reply, []
        more = reply.additional(number)
        for delta in fresh:
            known = reply.pieces(idx, delta.kind)
            if delta.kind == OTHER:
                found += _more_than(more, loads(delta.text), delta.idx)
            elif delta.kind == CITATION:
                found += [delta] if delta.text not in known else []
            elif not known:
                found.append(delta)
        for kind in _TEXTS:
            whole = "".join([delta.text for delta in fresh if delta.kind == kind])
            known_text = "".join(reply.pieces(idx, kind))
            if known_text and (rest := rest_of(whole, known_text)):
                found.append(Delta(rest, kind, idx))
        return found

    def _stated(self, error: Any) -> None:
        """An error inside of a choice; one beside the choices goes before."""
        if error is not None:
            self.reply.error = self.reply.error or error

    def _unknown(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """A key nobody told us about: kept, a repeated plain value (Groq's `channel`) only when it changes."""
        value = said[key]
        if isinstance(value, list):
            value = self._items.news((idx, key), value)
            if not value and said[key]:
                return
        elif not isinstance(value, dict) and not self._is_news((idx, key), value):
            return
        found.append(Delta(dumps({key: value}), OTHER, idx))

    def _is_news(self, what: tuple[str, str], value: Any) -> bool:
        """Whether the value differs from the last one said; only hashes are kept, values may be long."""
        name, said = hash(what), hash(dumps(value))
        if self._said.get(name) == said:
            return False
        if name in self._said or len(self._said) < MAX_SAID:
            self._said[name] = said
        return True


def _more_than(known: dict[str, Any], said: Any, idx: str) -> list[Delta]:
    """An `other` delta of what is not known yet."""
    found = {}
    for key, value in said.items() if isinstance(said, dict) else ():
        news = difference(known[key], value) if key in known else value
        if news is not None and news is not NOTHING:
            found[key] = news
    return [Delta(dumps(found), OTHER, idx)] if found else []


def of(found: Any, key: str) -> Any:
    """The value of a key, None where there is no such thing."""
    return found.get(key) if isinstance(found, dict) else None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
