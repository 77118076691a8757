"""The accumulator: deltas of any wire format, added up to the final message of every choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

from recorder.core.json import dumps, loads
from recorder.messages import AIMessage, Content, UsageMetadata, invalid_tool_call, parse_args, tool_call
from recorder.messages.merge import merge_dicts, merge_latest, merge_lists
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.errors import error_of_reason
from recorder.wire.finish_reasons import is_reason, meaning_of, worst_of

#: What one reply may hold (bytes, roughly); beyond it the stream goes on and `truncated` is set.
MAX_REPLY_BYTES = 64 * 2**20
#: How many choices one reply may have; requests ask for 128 at most.
MAX_CHOICES = 1000
_CALL = frozenset(("id", "name"))
#: Keys of `additional_kwargs` that are made of deltas of their own kinds, whatever else a provider says under them.
RESERVED = frozenset(("reasoning_content", "refusal", "annotations"))
_PIECE_COST = 64
_PART_COST = 300
#: How much more room JSON takes as Python's objects.
_OBJECTS = 8
#: The key of `response_metadata` for finish reasons beside the one that counts.
EARLIER = "earlier_finish_reasons"
#: Longer finish reasons (characters) are cut.
_MAX_REASON = 200
#: How many reasons beside the one that counts are kept of a choice.
_MAX_REASONS = 8


class Reply:
    """One response as far as it has come: parts by (idx, kind), and what the provider says about it."""

    __slots__ = (
        "_choices", "_parts", "_size", "_text", "described", "earlier_reasons", "error", "finish_reasons", "logprobs",
        "metadata", "model", "native_reasons", "raw_usage", "reasoning_fields", "response_id", "terminated",
        "truncated", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        #: (idx, kind) -> pieces, and the same for each choice.
        self._parts: dict[tuple[str, str], list[str]] = {}
        self._choices: dict[int, dict[tuple[str, str], list[str]]] = {}
        #: The pieces of the first choice's text, once there are any.
        self._text: list[str] | None = None
        self._size = 0
        #: The provider's id and model name, None until they come.
        self.response_id: str | None = None
        self.model: str | None = None
        #: What else the provider said of the response: `system_fingerprint`, `service_tier`, ...
        self.metadata: dict[str, Any] = {}
        #: `choice` -> finish reason, in the provider's word; of several the worst one, or the last of those as bad.
        self.finish_reasons: dict[int, str] = {}
        #: `choice` -> the other reasons that were given for it, where there was more than one.
        self.earlier_reasons: dict[int, list[str]] = {}
        #: The same in the words of who answered behind a router (OpenRouter), where those are told as well.
        self.native_reasons: dict[int, str] = {}
        #: `choice` -> log probabilities of the tokens, as the provider sent them.
        self.logprobs: dict[int, dict[str, list[Any]]] = {}
        #: `choice` -> what else the provider said of it: `content_filter_results`.
        self.described: dict[int, dict[str, dict[str, Any]]] = {}
        #: `choice` -> the fields in which its reasoning came, see `recorder.wire.thoughts`.
        self.reasoning_fields: dict[int, list[str]] = {}
        #: The usage in LangChain's shape and as the provider sent it; None when there was none.
        self.usage: UsageMetadata | None = None
        self.raw_usage: dict[str, Any] | None = None
        #: The error event's `error`, whatever its shape; None when there was none.
        self.error: Any = None
        #: Whether the provider's terminator came (`[DONE]`), or the answer was one whole body.
        self.terminated = False
        #: Whether there was more than `MAX_REPLY_BYTES` or `MAX_CHOICES`, and the rest is missing here.
        self.truncated = False

    def add(self, delta: Delta) -> None:
        """Add one delta."""
        text, kind, idx = delta
        part = self._parts.get((idx, kind))
        if part is None:
            part = self._open(idx, kind)
        self._append(part, text)

    def add_text(self, text: str) -> None:
        """`add(Delta(text))`, for the most frequent delta."""
        if self._text is None:
            self.add(Delta(text))
        else:
            self._append(self._text, text)

    def add_logprobs(self, choice: int, logprobs: Any) -> None:
        """Append a chunk's log probabilities (`content`, `refusal`: lists) to those of its choice."""
        for key, tokens in logprobs.items() if isinstance(logprobs, dict) else ():
            if not isinstance(tokens, list) or not self._has_room(choice):
                continue
            self._size += _PART_COST + _OBJECTS * len(dumps(tokens))
            if self._size <= MAX_REPLY_BYTES:
                self.logprobs.setdefault(choice, {}).setdefault(key, []).extend(tokens)
            else:
                self.truncated = True

    def finish(self, choice: int, reason: object, native: object = None) -> None:
        """The choice has come to its end, for this reason in the provider's word; null as a word is none."""
        if not is_reason(reason) or not self._has_room(choice):
            return
        word, known = str(reason)[:_MAX_REASON], self.finish_reasons.get(choice)
        if known is not None and known != word:
            word = self._decisive(choice, known, word)
        self.finish_reasons[choice] = word
        if is_reason(native):
            self.native_reasons[choice] = str(native)[:_MAX_REASON]

    def _decisive(self, choice: int, known: str, later: str) -> str:
        """The one of two reasons that counts; the other one is kept among the earlier ones."""
        counts = worst_of((later, known))[1] or later
        others = self.earlier_reasons.setdefault(choice, [])
        other = known if counts == later else later
        if other not in others and len(others) < _MAX_REASONS:
            others.append(other)
        return counts

    def add_reasoning_field(self, idx: str, field: str) -> None:
        """Reasoning of a choice came in this field."""
        choice = _choice_of(idx)
        fields = self.reasoning_fields.get(choice)
        if fields is None and self._has_room(choice):
            fields = self.reasoning_fields[choice] = []
        if fields is not None and field not in fields:
            fields.append(field)

    def failure(self) -> Any:
        """The error of the response: what was sent as one, or that a finish reason says so; None without any."""
        if self.error is not None:
            return self.error
        for choice, reason in self.finish_reasons.items():
            if meaning_of(reason) == "failure":
                return error_of_reason(reason, self.native_reasons.get(choice))
        return None

    def settle(self) -> None:
        """Nothing more comes: what was kept back until the end counts now."""

    @property
    def has_ended(self) -> bool:
        """Whether the terminator came, or at least each choice that began has a finish reason."""
        return self.terminated or self.finish_reasons.keys() >= set(self.choices)

    def describe(self, choice: int, key: str, said: Any) -> None:
        """What the provider says of a choice, as a dict; it may say it again and again, the later value wins."""
        if not isinstance(said, dict) or not self._has_room(choice):
            return
        known = self.described.setdefault(choice, {}).setdefault(key, {})
        news = {name: value for name, value in said.items() if known.get(name) != value}
        if not news:
            return
        self._size += _PART_COST + _OBJECTS * len(dumps(news))
        if self._size <= MAX_REPLY_BYTES:
            known |= news
        else:
            self.truncated = True

    def has_begun(self, choice: int) -> bool:
        """Whether there is a delta of the choice."""
        return bool(self._choices.get(choice))

    def pieces(self, idx: str, kind: str) -> Sequence[str]:
        """The pieces of one part."""
        return self._parts.get((idx, kind), ())

    @property
    def choices(self) -> list[int]:
        """The numbers of the choices seen so far; [0] when nothing has come."""
        return sorted(self._choices) or [0]

    def text(self, choice: int = 0, kind: str = TEXT) -> str:
        """All of one kind of a choice, joined."""
        return "".join(self._pieces(choice, kind))

    def tool_calls(self, choice: int = 0) -> list[dict[str, Any]]:
        """The choice's tool calls as `{"id", "name", "arguments"}`, arguments as the text that came.

        `extras` are in those of which the provider said more.
        """
        parts = self._choices.get(choice, {})
        found = dict.fromkeys(idx for idx, kind in parts if kind in (TOOL_CALL, TOOL_ARGS))
        return [_tool_call(parts.get((idx, TOOL_CALL), ()), parts.get((idx, TOOL_ARGS), ())) for idx in found]

    def message(self, choice: int = 0) -> AIMessage:
        """The choice's final message, LangChain's shape, complete or as far as it has come."""
        message = AIMessage(
            self._content(choice),
            id=self.response_id,
            usage_metadata=self.usage,
            additional_kwargs=self.additional(choice),
            response_metadata=self.response_metadata(choice),
        )
        for call in self.tool_calls(choice):
            args, extras = parse_args(call["arguments"]), call.get("extras")
            if args is None:
                invalid = invalid_tool_call(call["name"], call["arguments"], call["id"], extras=extras)
                message.invalid_tool_calls.append(invalid)
            else:
                message.tool_calls.append(tool_call(call["name"], args, call["id"], extras))
        return message

    def response_metadata(self, choice: int = 0) -> dict[str, Any]:
        """`finish_reason`, `model_name`, `logprobs` and whatever else the provider said, LangChain's names."""
        said: dict[str, Any] = {}
        if choice in self.finish_reasons:
            said["finish_reason"] = self.finish_reasons[choice]
        if choice in self.earlier_reasons:
            said[EARLIER] = list(self.earlier_reasons[choice])
        if self.model is not None:
            said["model_name"] = self.model
        said |= self.metadata
        if choice in self.logprobs:
            said["logprobs"] = self.logprobs[choice]
        said |= self.described.get(choice, {})
        if self.truncated:
            said["truncated"] = True
        return said

    def unstreamed_metadata(self) -> dict[str, Any]:
        """What LangChain says beside that of an answer that was not streamed."""
        return {"token_usage": self.raw_usage} if self.raw_usage else {}

    def _content(self, choice: int) -> Content:
        return self.text(choice)

    def additional(self, choice: int) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if reasoning := self.text(choice, REASONING):
            more["reasoning_content"] = reasoning
        if refusal := self.text(choice, REFUSAL):
            more["refusal"] = refusal
        if citations := [_loaded(piece) for piece in self._pieces(choice, CITATION)]:
            more["annotations"] = merge_lists([], citations)
        return merge_latest([_more_of(piece) for piece in self._pieces(choice, OTHER)]) | more

    def _append(self, part: list[str], text: str) -> None:
        self._size = size = self._size + len(text) + _PIECE_COST
        if size <= MAX_REPLY_BYTES:
            part.append(text)
        else:
            self.truncated = True

    def _open(self, idx: str, kind: str) -> list[str]:
        """The list for the pieces of a new part; one that nobody keeps when there is no room."""
        part: list[str] = []
        self._size += _PART_COST
        choice = _choice_of(idx)
        if self._size > MAX_REPLY_BYTES or not self._has_room(choice):
            self.truncated = True
            return part
        self._parts[idx, kind] = self._choices[choice][idx, kind] = part
        if (idx, kind) == ("0", TEXT):
            self._text = part
        return part

    def _has_room(self, choice: int) -> bool:
        """Whether the choice is one of those kept, which a new one becomes while there is room."""
        if choice not in self._choices:
            if len(self._choices) >= MAX_CHOICES:
                self.truncated = True
                return False
            self._choices[choice] = {}
        return True

    def _pieces(self, choice: int, kind: str) -> Iterator[str]:
        parts = self._choices.get(choice, {})
        return chain.from_iterable(part for (_, its_kind), part in parts.items() if its_kind == kind)


class Translator(Protocol):
    """What a wire format's module has."""

    wire: str
    reply: Reply

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """The deltas of one frame, none after the terminator; never raises."""


def merge_other(into: dict[str, Any], piece: str) -> dict[str, Any]:
    """`additional_kwargs` with the content of an `other` delta: structures grow, of anything else the later wins."""
    found = _more_of(piece)
    into |= merge_latest([{key: into[key] for key in found.keys() & into.keys()}, found])
    return into


def _more_of(piece: str) -> dict[str, Any]:
    """What an `other` delta says for `additional_kwargs`."""
    found = _loaded(piece)
    return {key: found[key] for key in found if key not in RESERVED} if isinstance(found, dict) else {}


def _choice_of(idx: str) -> int:
    try:
        return int(idx.partition(".")[0])
    except ValueError:  # not a translator's: what cannot be placed belongs to the first
        return 0


def _loaded(piece: str) -> Any:
    """The JSON of a delta, or its text when it is none."""
    try:
        return loads(piece)
    except ValueError:
        return piece


def _tool_call(opened: Iterable[str], arguments: Iterable[str]) -> dict[str, Any]:
    """The first id, and the names and arguments joined as the SDK does; `extras` where more was said of the call."""
    said = [found for piece in opened if isinstance(found := _loaded(piece), dict)]
    ids = [found["id"] for found in said if found.get("id")]
    names = [found["name"] for found in said if isinstance(found.get("name"), str)]
    call = {
        "id": ids[0] if ids else None,
        "name": "".join(names) or None,
        "arguments": "".join(arguments),
    }
    extras = [{key: found[key] for key in found.keys() - _CALL} for found in said]
    return {**call, "extras": merge_dicts({}, *extras)} if any(extras) else call
