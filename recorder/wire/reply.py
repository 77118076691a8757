"""Accumulates the deltas of any wire format to the final message of each choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

from recorder.core.json import dumps
from recorder.messages import AIMessage, Content, UsageMetadata, invalid_tool_call, tool_call
from recorder.messages.merge import args_of_call, merge_dicts, merge_latest, merge_lists
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.errors import error_of_reason
from recorder.wire.finish_reasons import is_reason, meaning_of, worst_of
from recorder.wire.framing import Framing
from recorder.wire.recorded_run import value_of

#: The size limit of one reply (bytes, roughly). When it is reached, the stream goes on and `truncated` is set.
MAX_REPLY_BYTES = 64 * 2**20
#: The maximum number of choices of one reply; requests ask for 128 at most.
MAX_CHOICES = 1000
_CALL_KEYS = frozenset(("id", "name"))
#: Keys of `additional_kwargs` that are made from deltas of their own kinds; such keys of `other` deltas are ignored.
RESERVED = frozenset(("reasoning_content", "refusal", "annotations"))
_PIECE_COST = 64
_PART_COST = 300
#: The size of Python's objects, as a multiple of their JSON.
_OBJECTS = 8
#: Statuses of a response that goes on.
RUNNING = frozenset(("queued", "in_progress"))
#: The key of `response_metadata` for the finish reasons that were replaced by another one.
EARLIER = "earlier_finish_reasons"
#: Longer finish reasons (characters) are cut.
_MAX_REASON = 200
#: At most this many replaced finish reasons of a choice are kept.
_MAX_REASONS = 8


class Reply:
    """One response, as far as it was received: its pieces by (idx, kind), and what describes it."""

    __slots__ = (
        "_choices", "_parts", "_size", "_text", "choice_metadata", "earlier_reasons", "error", "finish_reasons",
        "logprobs", "metadata", "model", "native_reasons", "origin", "raw_usage", "reasoning_fields", "response_id",
        "terminated", "truncated", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        #: (idx, kind) -> pieces; below, the same for each choice.
        self._parts: dict[tuple[str, str], list[str]] = {}
        self._choices: dict[int, dict[tuple[str, str], list[str]]] = {}
        #: The pieces of the first choice's text; None before the first piece.
        self._text: list[str] | None = None
        self._size = 0
        #: The provider's id and model name; None until they are received.
        self.response_id: str | None = None
        self.model: str | None = None
        #: Other fields that describe the response: `system_fingerprint`, `service_tier`, ...
        self.metadata: dict[str, Any] = {}
        #: `choice` -> finish reason, in the provider's word. If there are several, the worst one, of equals the last.
        self.finish_reasons: dict[int, str] = {}
        #: `choice` -> its other finish reasons, if it had more than one.
        self.earlier_reasons: dict[int, list[str]] = {}
        #: `choice` -> finish reason of the provider behind a router (OpenRouter), if the router sends it.
        self.native_reasons: dict[int, str] = {}
        #: `choice` -> log probabilities of the tokens, as the provider sent them.
        self.logprobs: dict[int, dict[str, list[Any]]] = {}
        #: `choice` -> other fields that describe it: `content_filter_results`.
        self.choice_metadata: dict[int, dict[str, dict[str, Any]]] = {}
        #: `choice` -> the fields that its reasoning was sent in, see `recorder.wire.reasoning`.
        self.reasoning_fields: dict[int, list[str]] = {}
        #: What its provider wants back with the reply beside the message, see `recorder.wire.reasoning`.
        self.origin: dict[str, Any] = {}
        #: The usage in LangChain's shape, and as the provider sent it; None if there is none.
        self.usage: UsageMetadata | None = None
        self.raw_usage: dict[str, Any] | None = None
        #: The error that the provider sent, in any shape; None if there is none.
        self.error: Any = None
        #: Whether the provider's terminator (`[DONE]`) was received, or the answer was one complete body.
        self.terminated = False
        #: Whether the response exceeded `MAX_REPLY_BYTES` or `MAX_CHOICES`, so that the rest is missing here.
        self.truncated = False

    def add(self, delta: Delta) -> None:
        """Adds one delta."""
        text, kind, idx = delta
        part = self._parts.get((idx, kind))
        if part is None:
            part = self._open(idx, kind)
        self._append(part, text)

    def add_text(self, text: str) -> None:
        """The same as `add(Delta(text))`, faster, for the most frequent delta."""
        if self._text is None:
            self.add(Delta(text))
        else:
            self._append(self._text, text)

    def add_logprobs(self, choice: int, logprobs: Any) -> None:
        """Appends a chunk's log probabilities (lists under `content` and `refusal`) to those of its choice."""
        for key, tokens in logprobs.items() if isinstance(logprobs, dict) else ():
            if not isinstance(tokens, list) or not self._has_room(choice):
                continue
            self._size += _PART_COST + _OBJECTS * len(dumps(tokens))
            if self._size <= MAX_REPLY_BYTES:
                self.logprobs.setdefault(choice, {}).setdefault(key, []).extend(tokens)
            else:
                self.truncated = True

    def finish(self, choice: int, reason: object, native: object = None) -> None:
        """Sets the finish reason of a choice, in the provider's word; null written as a word is ignored."""
        if not is_reason(reason) or not self._has_room(choice):
            return
        word, known = str(reason)[:_MAX_REASON], self.finish_reasons.get(choice)
        if known is not None and known != word:
            word = self._decisive(choice, known, word)
        self.finish_reasons[choice] = word
        if is_reason(native):
            self.native_reasons[choice] = str(native)[:_MAX_REASON]

    def _decisive(self, choice: int, known: str, later: str) -> str:
        """The worse of two reasons; the other one is added to the earlier reasons."""
        worst = worst_of((later, known))[1] or later
        others = self.earlier_reasons.setdefault(choice, [])
        other = known if worst == later else later
        if other not in others and len(others) < _MAX_REASONS:
            others.append(other)
        return worst

    def add_reasoning_field(self, idx: str, field: str) -> None:
        """Notes that reasoning of a choice was sent in this field."""
        choice = _choice_of(idx)
        fields = self.reasoning_fields.get(choice)
        if fields is None and self._has_room(choice):
            fields = self.reasoning_fields[choice] = []
        if fields is not None and field not in fields:
            fields.append(field)

    def add_origin(self, key: str, value: Any) -> None:
        """Sets what the provider wants back under this key."""
        self._size += _PART_COST + len(dumps(value))
        if self._size <= MAX_REPLY_BYTES:
            self.origin[key] = value
        else:
            self.truncated = True

    def failure(self) -> Any:
        """The error of the response: the one that was sent, or one made from a finish reason; None if there is none."""
        if self.error is not None:
            return self.error
        for choice, reason in self.finish_reasons.items():
            if meaning_of(reason) == "failure":
                return error_of_reason(reason, self.native_reasons.get(choice))
        return None

    def settle(self) -> None:
        """Called when the response has ended; uses the values that are only valid at the end."""

    @property
    def has_ended(self) -> bool:
        """Whether the terminator was received, or each choice that began has a finish reason."""
        return self.terminated or self.finish_reasons.keys() >= set(self.choices)

    @property
    def goes_on(self) -> bool:
        """Whether the provider said that it answers in the background and has not finished."""
        return not self.terminated and str(self.metadata.get("status")) in RUNNING

    def add_choice_metadata(self, choice: int, key: str, fields: Any) -> None:
        """Adds fields that describe a choice, under `key`; a later value of a field replaces an earlier one."""
        if not isinstance(fields, dict) or not self._has_room(choice):
            return
        known = self.choice_metadata.setdefault(choice, {}).setdefault(key, {})
        changed = {name: value for name, value in fields.items() if known.get(name) != value}
        if not changed:
            return
        self._size += _PART_COST + _OBJECTS * len(dumps(changed))
        if self._size <= MAX_REPLY_BYTES:
            known |= changed
        else:
            self.truncated = True

    def has_begun(self, choice: int) -> bool:
        """Whether the choice has any delta."""
        return bool(self._choices.get(choice))

    def pieces(self, idx: str, kind: str) -> Sequence[str]:
        """The pieces with this idx and kind."""
        return self._parts.get((idx, kind), ())

    @property
    def choices(self) -> list[int]:
        """The numbers of the choices so far; [0] if there are none."""
        return sorted(self._choices) or [0]

    def text(self, choice: int = 0, kind: str = TEXT) -> str:
        """The pieces of one kind of a choice, joined."""
        return "".join(self._pieces(choice, kind))

    def tool_calls(self, choice: int = 0) -> list[dict[str, Any]]:
        """The choice's tool calls as `{"id", "name", "arguments"}`; arguments are the received text.

        A call has `extras` too if the provider sent other keys of it.
        """
        parts = self._choices.get(choice, {})
        places = dict.fromkeys(idx for idx, kind in parts if kind in (TOOL_CALL, TOOL_ARGS))
        return [
            _tool_call(parts.get((idx, TOOL_CALL), ()), parts.get((idx, TOOL_ARGS), ())) for idx in places
        ]

    def message(self, choice: int = 0) -> AIMessage:
        """The choice's message in LangChain's shape, complete or as far as it was received."""
        message = AIMessage(
            self._content(choice),
            id=self.response_id,
            usage_metadata=self.usage,
            additional_kwargs=self.additional(choice),
            response_metadata=self.response_metadata(choice),
        )
        for call in self.tool_calls(choice):
            extras = call.get("extras")
            args = args_of_call(call["arguments"], extras)
            if args is None:
                invalid = invalid_tool_call(call["name"], call["arguments"], call["id"], extras=extras)
                message.invalid_tool_calls.append(invalid)
            else:
                message.tool_calls.append(tool_call(call["name"], args, call["id"], extras))
        return message

    def response_metadata(self, choice: int = 0) -> dict[str, Any]:
        """`finish_reason`, `model_name`, `logprobs` and other metadata, under LangChain's names."""
        fields: dict[str, Any] = {}
        if choice in self.finish_reasons:
            fields["finish_reason"] = self.finish_reasons[choice]
        if choice in self.earlier_reasons:
            fields[EARLIER] = list(self.earlier_reasons[choice])
        if self.model is not None:
            fields["model_name"] = self.model
        fields |= self.metadata
        if choice in self.logprobs:
            fields["logprobs"] = self.logprobs[choice]
        fields |= self.choice_metadata.get(choice, {})
        if self.truncated:
            fields["truncated"] = True
        return fields

    def unstreamed_metadata(self) -> dict[str, Any]:
        """LangChain's additional metadata of an answer that was not streamed."""
        return {"token_usage": self.raw_usage} if self.raw_usage else {}

    def _content(self, choice: int) -> Content:
        return self.text(choice)

    def additional(self, choice: int) -> dict[str, Any]:
        """`additional_kwargs` of the choice's message."""
        more: dict[str, Any] = {}
        if reasoning := self.text(choice, REASONING):
            more["reasoning_content"] = reasoning
        if refusal := self.text(choice, REFUSAL):
            more["refusal"] = refusal
        if citations := [value_of(piece) for piece in self._pieces(choice, CITATION)]:
            more["annotations"] = merge_lists([], citations)
        return merge_latest([_kwargs_of(piece) for piece in self._pieces(choice, OTHER)]) | more

    def _append(self, part: list[str], text: str) -> None:
        self._size = size = self._size + len(text) + _PIECE_COST
        if size <= MAX_REPLY_BYTES:
            part.append(text)
        else:
            self.truncated = True

    def _open(self, idx: str, kind: str) -> list[str]:
        """The list for the pieces of a new part; if the limits are reached, a list that is not stored."""
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
        """Whether the choice is stored; a new choice is added while there are fewer than `MAX_CHOICES`."""
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
    """Decodes the frames of one response in one wire format."""

    wire: str
    #: What cuts the body of a stream into frames.
    framing: Framing
    reply: Reply

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """Returns the deltas of one frame, none after the terminator. Never raises."""


def merge_other(into: dict[str, Any], piece: str) -> dict[str, Any]:
    """Adds an `other` delta to `additional_kwargs`: structures are merged, any other value replaces the earlier one."""
    fields = _kwargs_of(piece)
    into |= merge_latest([{key: into[key] for key in fields.keys() & into.keys()}, fields])
    return into


def _kwargs_of(piece: str) -> dict[str, Any]:
    """The keys of an `other` delta that belong into `additional_kwargs`."""
    fields = value_of(piece)
    return {key: fields[key] for key in fields if key not in RESERVED} if isinstance(fields, dict) else {}


def _choice_of(idx: str) -> int:
    try:
        return int(idx.partition(".")[0])
    except ValueError:  # not made by a translator: such a delta goes to the first choice
        return 0


def _tool_call(opened: Iterable[str], arguments: Iterable[str]) -> dict[str, Any]:
    """The call with its first id, and its names and arguments joined as in the SDK; `extras` holds all other keys."""
    pieces = [fields for piece in opened if isinstance(fields := value_of(piece), dict)]
    ids = [fields["id"] for fields in pieces if fields.get("id")]
    names = [fields["name"] for fields in pieces if isinstance(fields.get("name"), str)]
    call = {
        "id": ids[0] if ids else None,
        "name": "".join(names) or None,
        "arguments": "".join(arguments),
    }
    extras = [{key: fields[key] for key in fields.keys() - _CALL_KEYS} for fields in pieces]
    return {**call, "extras": merge_dicts({}, *extras)} if any(extras) else call
